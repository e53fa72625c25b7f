//! Two readers of one connection never see different requests (threats B1, B6): raw bytes straight at the registry, and
//! through it to an upstream that remembers what it was asked.

use std::io::Write;

use super::support::v1_upstream::V1Upstream;
use super::support::{Answer, Client, Gate, content};

/// Everything is open, so that a smuggled request would be answered with 200.
const OPEN: &str = "[[access]]\nwho = [\"anyone\"]\nrepositories = [\"**\"]\nactions = [\"*\"]\n";
const SMUGGLED: &str = "GET /v2/ HTTP/1.1\r\nHost: smuggled\r\n\r\n";

/// Lines of a head that leave its length open.
const LENGTHS: [&str; 26] = [
    "Content-Length: 3\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 3",
    "Content-Length: 0\r\nTransfer-Encoding: chunked",
    "Content-Length: 3\r\nX: y\r\nTRANSFER-ENCODING: CHUNKED",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunked;x=y",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding:",
    "Content-Length: 3\r\nContent-Length: 3",
    "Content-Length: 3\r\nContent-Length: 4",
    "Content-Length: 3, 3",
    "Content-Length: 3, 4",
    "Content-Length: 3 3",
    "Content-Length: -3",
    "Content-Length: +3",
    "Content-Length: 0x3",
    "Content-Length: 3.0",
    "Content-Length:",
    "Content-Length: 99999999999999999999",
];

/// Lines of a head in which one reader might see a length, and another none.
const LINES: [&str; 20] = [
    "Transfer-Encoding : chunked",
    "Transfer-Encoding\t: chunked",
    "Content-Length : 3",
    " Transfer-Encoding: chunked",
    "X: y\r\n Transfer-Encoding: chunked",
    "X: y\r\n\tContent-Length: 3",
    "Transfer-Encoding:\r\n chunked",
    "Transfer-Encoding: chunked\r\n , identity",
    "X: y\nTransfer-Encoding: chunked",
    "X: y\rTransfer-Encoding: chunked",
    "X: y\r\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\n",
    "Transfer-Encoding: chunked\0",
    "Transfer-Encoding: \x0bchunked",
    "Transfer-Encoding\0: chunked",
    "Transfer-Encoding\x0c: chunked",
    "Content-Length: 3\0",
    "Transfer\u{2010}Encoding: chunked",
    ": chunked",
    "Transfer-Encoding chunked",
];

const HOSTS: [&str; 7] = [
    "",
    "Host: a\r\nHost: a\r\n",
    "Host: a\r\nHost: b\r\n",
    "Host: a/x?y#z\r\n",
    "Host: u@a\r\n",
    "Host: a b\r\n",
    "Host: \r\n",
];

/// Requests that can be read in two ways, or that no client of a registry sends, and how they are answered.
fn ambiguous(method: &str, path: &str) -> Vec<(String, u16)> {
    let mut requests = Vec::new();
    let mut add = |request: String, status| requests.push((request, status));
    for line in LENGTHS.iter().chain(&LINES) {
        add(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\nabc"), 400);
    }
    for host in HOSTS {
        add(format!("{method} {path} HTTP/1.1\r\n{host}\r\n"), 400);
    }
    for first in [
        format!("{method} {path}"),
        format!("{method} {path} "),
        format!("{method}  {path} HTTP/1.1"),
        format!("{method}\t{path} HTTP/1.1"),
        format!("{method} {path} HTTP/1.1 "),
        format!("{method} {path} x HTTP/1.1"),
        format!("\r\n {method} {path} HTTP/1.1"),
        format!("{method} {path} HTTP/1.2"),
        format!("{method} {path} HTTP/2.0"),
        format!("{method} {path} HTTP/3.0"),
        format!("{method} {path} http/1.1"),
        format!("{method} {path}\0 HTTP/1.1"),
        format!("{method} http://b{path} HTTP/1.1"),
        format!("{method} http://a@a{path} HTTP/1.1"),
        // Three slashes: two before /v2/ are put right.
        format!("{method} //{path} HTTP/1.1"),
        format!("{method} {path}#x HTTP/1.1"),
    ] {
        add(format!("{first}\r\nHost: a\r\n\r\n"), 400);
    }
    add(format!("{method} {path} HTTP/1.1\nHost: a\n\n"), 400);
    add(format!("{method} {path} HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400);
    add(format!("TRACE {path} HTTP/1.1\r\nHost: a\r\n\r\n"), 405);
    add("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n".into(), 405);
    requests
}

/// Chunked bodies that can be read in two ways, each up to there and from there on.
const CHUNKS: [&str; 24] = [
    "\r\n",
    "x\r\n",
    " 3\r\nabc\r\n0\r\n\r\n",
    "-3\r\nabc\r\n0\r\n\r\n",
    "0x3\r\nabc\r\n0\r\n\r\n",
    "3\nabc\r\n0\r\n\r\n",
    "3 \r\nabc\r\n0\r\n\r\n",
    "3\t\r\nabc\r\n0\r\n\r\n",
    "3\rabc\r\n0\r\n\r\n",
    "3;x\nabc\r\n0\r\n\r\n",
    "3;x\ry\r\nabc\r\n0\r\n\r\n",
    "3;\0\r\nabc\r\n0\r\n\r\n",
    "3\r\nabcd\r\n0\r\n\r\n",
    "3\r\nab\r\n0\r\n\r\n",
    "3\r\nabc\n0\r\n\r\n",
    "3\r\nabc\r0\r\n\r\n",
    "3\r\nabc0\r\n\r\n",
    "10000000000000003\r\nabc\r\n0\r\n\r\n",
    "00000000000000003\r\nabc\r\n0\r\n\r\n",
    "3\r\nabc\r\n0\n\r\n",
    "3\r\nabc\r\n0\r\n\n",
    "3\r\nabc\r\n0\r\nX : y\r\n\r\n",
    "3\r\nabc\r\n0\r\n Y: z\r\n\r\n",
    "3\r\nabc\r\n0\r\nX: y\n\r\n",
];

/// Writes all of `bytes` and reads what is answered until the gateway closes the connection.
fn answers(client: &Client, bytes: &[u8]) -> Vec<Answer> {
    let mut stream = client.connect();
    stream.write_all(bytes).and_then(|()| stream.flush()).unwrap();
    std::iter::from_fn(|| Answer::next(&mut *stream, "GET")).collect()
}

fn statuses(answers: &[Answer]) -> Vec<u16> {
    answers.iter().map(|answer| answer.status).collect()
}

#[test]
fn ambiguous_requests_are_refused_and_the_connection_closed() {
    let gate = Gate::start(OPEN);
    let clients = [gate.plain(), gate.tls()];
    let mut count = 0;
    for path in ["/v2/", "/v2/a/manifests/x", "/v1/_ping", "/token", "/other"] {
        for (request, status) in ["GET", "PUT"].iter().flat_map(|method| ambiguous(method, path)) {
            count += 1;
            // The one before it is answered as ever; the one behind it must never be.
            let before = if count % 3 == 0 { "GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n" } else { "" };
            let answers = answers(&clients[count % 2], format!("{before}{request}{SMUGGLED}").as_bytes());
            let expected: Vec<u16> = (!before.is_empty()).then_some(200).into_iter().chain([status]).collect();
            assert_eq!(statuses(&answers), expected, "{before:?} {request:?}");
            let last = answers.last().unwrap();
            assert_eq!(last.header("connection"), Some("close"), "{request:?}");
            // Under /v1/ errors have the form that old clients print; the log line is found by the header alone.
            let said = last.json();
            let in_v1_form = path.starts_with("/v1/") && said["error"].is_string();
            assert!(in_v1_form || said["errors"][0]["code"] == "UNSUPPORTED", "{request:?} {said}");
            assert!(last.header("x-request-id").is_some(), "{request:?}");
        }
    }
    assert!(count >= 200, "only {count} requests");
}

#[test]
fn http_2_begins_with_a_connection_or_not_at_all() {
    const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let gate = Gate::start(OPEN);
    assert_eq!(statuses(&answers(&gate.tls(), PREFACE.as_bytes())), [400]);
    let later = format!("GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n{PREFACE}");
    assert_eq!(statuses(&answers(&gate.plain(), later.as_bytes())), [200, 400]);
}

#[test]
fn paths_that_read_two_ways_are_refused() {
    let gate = Gate::start(OPEN);
    for path in [
        "///v2/",
        "/v2//a/tags/list",
        "/v2/%2e%2e/a",
        "/v2/..%2fa",
        "/v2/a%2fb/manifests/x",
        "/v2/a;x/tags/list",
        "/v2/a/..;/b",
        "/v2/../v1/_ping",
        "/v2/./a",
        "/v2/a%00b/tags/list",
        "/v2/a%5cb/tags/list",
        "/v2/a/%6danifests/x",
        "/V2/%",
        "/v2/a\\b",
        "/v2/\u{e9}",
        "/v2/<a>",
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n{SMUGGLED}");
            let answers = answers(&gate.plain(), request.as_bytes());
            assert_eq!(statuses(&answers), [400], "{method} {path}");
            assert_eq!(answers[0].code(), "UNSUPPORTED", "{method} {path}");
        }
    }
}

#[test]
fn what_follows_a_malformed_body_is_never_answered() {
    let gate = Gate::start(OPEN);
    let clients = [gate.plain(), gate.tls()];
    for (index, chunks) in CHUNKS.iter().enumerate() {
        let location = content::begin(&gate.plain(), "app");
        let blob = content::push_blob(&gate.plain(), "app", b"a blob");
        // Those that read the body, one that appends it to what is there, those that have no use for it, and one that changes
        // nothing, for which it does not matter.
        for (method, path, status) in [
            ("PUT", "/v2/app/manifests/x".to_owned(), 400),
            ("PATCH", location.clone(), 400),
            ("PUT", format!("{location}?digest={blob}"), 400),
            ("POST", format!("/v2/app/blobs/uploads/?digest={blob}"), 400),
            ("POST", "/v2/app/blobs/uploads/".to_owned(), 400),
            ("POST", format!("/v2/other/blobs/uploads/?mount={blob}&from=app"), 400),
            ("DELETE", location.clone(), 400),
            ("DELETE", "/v2/app/manifests/x".to_owned(), 400),
            ("DELETE", format!("/v2/app/blobs/{blob}"), 400),
            ("POST", "/token".to_owned(), 400),
            ("GET", "/v2/".to_owned(), 200),
        ] {
            let head = format!(
                "{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n\
                 Transfer-Encoding: chunked\r\n\r\n"
            );
            let answers = answers(&clients[index % 2], format!("{head}{chunks}{SMUGGLED}").as_bytes());
            assert_eq!(statuses(&answers), [status], "{method} {path} {chunks:?}");
        }
        // Nothing of all that was done.
        gate.plain().get(&location).expect(204);
        gate.plain().head(&format!("/v2/app/blobs/{blob}")).expect(200);
        gate.plain().head(&format!("/v2/other/blobs/{blob}")).expect(404);
    }
}

#[test]
fn a_body_that_nobody_asked_for_is_read_to_its_end() {
    let gate = Gate::start(&format!("{OPEN}[limits]\nmanifest_bytes = \"64KiB\"\n"));
    for client in [gate.plain(), gate.tls()] {
        let begin = |length: usize| client.send("POST", "/v2/app/blobs/uploads/", &[], &vec![b'x'; length]);
        begin(64 << 10).expect(202);
        assert_eq!(begin((64 << 10) + 1).expect(413).code(), "SIZE_INVALID");
    }
}

#[test]
fn targets_of_another_scheme_are_refused() {
    let gate = Gate::start(OPEN);
    for (client, target, status) in [
        (gate.plain(), "ftp://a/v2/", 400),
        (gate.tls(), "ftp://a/v2/", 400),
        (gate.plain(), "https://a/v2/", 400),
        (gate.tls(), "https://a/v2/", 200),
        (gate.tls(), "http://a/v2/", 200),
        (gate.plain(), "http://a/v2/", 200),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_eq!(statuses(&answers(&client, request.as_bytes())), [status], "{target}");
    }
}

/// Requests of the v1 side that say how long they are in every way there is, and the bodies that they have.
fn plain_enough(path: &str) -> Vec<(String, &'static str)> {
    const HIDDEN: &str = "GET /v1/repositories/team/smuggled/tags HTTP/1.1\r\nHost: a\r\n\r\n";
    let put = |rest: &str| format!("PUT {path} HTTP/1.1\r\nHost: a\r\n{rest}");
    vec![
        (put("\r\n"), ""),
        (put("Content-Length: 0\r\n\r\n"), ""),
        (put("Content-Length: 3\r\n\r\nabc"), "abc"),
        (put("content-length:\t3 \r\n\r\nabc"), "abc"),
        (format!("\r\n{}", put("Content-Length: 3\r\n\r\nabc")), "abc"),
        (put(&format!("Content-Length: {}\r\n\r\n{HIDDEN}", HIDDEN.len())), HIDDEN),
        (put("Content-Length: 07\r\n\r\n0\r\n\r\nGE"), "0\r\n\r\nGE"),
        (put("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), ""),
        (put("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), "abc"),
        (put("TRANSFER-ENCODING:CHUNKED\r\n\r\n1\r\na\r\n02\r\nbc\r\n000\r\n\r\n"), "abc"),
        (put("Transfer-Encoding: chunked\r\n\r\n3;x=\"y z\";\u{e9}\r\nabc\r\n0;end\r\n\r\n"), "abc"),
        (put("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nContent-Length: 99\r\nX: y\r\n\r\n"), "abc"),
        (put(&format!("Transfer-Encoding: chunked\r\n\r\n{:X}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len())), HIDDEN),
        (put("Transfer-Encoding: chunked\r\n\r\n5\r\n0\r\n\r\n\r\n0\r\n\r\n"), "0\r\n\r\n"),
    ]
}

#[test]
fn an_upstream_sees_what_was_sent_once_and_nothing_else() {
    let upstream = V1Upstream::start(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec());
    let prepared = Gate::prepare(OPEN);
    let file = format!("kind = \"legacy\"\npeers = [\"http://{}\"]\nclients = \"docker < 1.6\"\n", upstream.address);
    prepared.write("upstreams/legacy-v1.toml", &file);
    let gate = prepared.start();
    let clients = [gate.plain(), gate.tls()];
    let smuggled = "GET /v1/repositories/team/smuggled/tags HTTP/1.1\r\nHost: a\r\n\r\n";
    let (mut expected, mut count) = (Vec::new(), 0);
    for path in ["/v1/images/0123456789abcdef/layer", "/v1/repositories/team/app/properties"] {
        let good = plain_enough(path);
        let all: String = good.iter().map(|(request, _)| request.as_str()).collect();
        for client in &clients {
            let end = "GET /v1/repositories/end/end/tags HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            assert_eq!(statuses(&answers(client, format!("{all}{end}").as_bytes())), vec![200; good.len() + 1]);
            expected.extend(good.iter().map(|(_, body)| (path.to_owned(), (*body).to_owned())));
            expected.push(("/v1/repositories/end/end/tags".into(), String::new()));
            count += good.len();
        }
        let bodies = CHUNKS.iter().map(|chunks| {
            (format!("PUT {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"), 400)
        });
        for (bad, status) in ambiguous("PUT", path).into_iter().chain(bodies) {
            let (before, body) = &good[count % good.len()];
            let answers = answers(&clients[count % 2], format!("{before}{bad}{smuggled}").as_bytes());
            assert_eq!(statuses(&answers), [200, status], "{bad:?}");
            expected.push((path.to_owned(), (*body).to_owned()));
            count += 1;
        }
    }
    assert!(count >= 200, "only {count} requests");
    let asked = upstream.asked();
    for asked in &asked {
        let lengths = asked.all("content-length").len() + asked.all("transfer-encoding").len();
        assert!(lengths <= 1 && asked.all("host").len() == 1 && asked.all("x").is_empty(), "{asked:?}");
    }
    let whole = asked.iter().filter(|asked| asked.whole);
    let whole: Vec<_> =
        whole.map(|asked| (asked.target.clone(), String::from_utf8(asked.body.clone()).unwrap())).collect();
    assert_eq!(whole, expected);
}

#[test]
fn requests_in_one_write_are_all_answered() {
    let gate = Gate::start(OPEN);
    let digest = content::push_blob(&gate.tls(), "app", b"a blob");
    for client in [gate.plain(), gate.tls()] {
        let requests = format!(
            "GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\nGET /v2/app/blobs/{digest} HTTP/1.1\r\nHost: a\r\n\r\n\
             GET /v2/none/tags/list HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        );
        let whole = answers(&client, requests.as_bytes());
        assert_eq!(statuses(&whole), [200, 200, 404]);
        assert_eq!(whole[1].body, b"a blob");
        let mut stream = client.connect();
        for byte in requests.as_bytes() {
            stream.write_all(&[*byte]).and_then(|()| stream.flush()).unwrap();
        }
        let slow: Vec<Answer> = std::iter::from_fn(|| Answer::next(&mut *stream, "GET")).collect();
        assert_eq!(statuses(&slow), [200, 200, 404]);
    }
}

#[test]
fn a_connection_goes_on_after_a_chunked_upload() {
    let gate = Gate::start(OPEN);
    let large = vec![b'x'; 3 << 20];
    for client in [gate.plain(), gate.tls()] {
        let mut stream = client.connect();
        let mut ask = |method: &str, path: &str, rest: &[u8]| {
            let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n");
            stream.write_all(&[head.as_bytes(), rest].concat()).and_then(|()| stream.flush()).unwrap();
            Answer::next(&mut *stream, method).unwrap()
        };
        let begun = ask("POST", "/v2/app/blobs/uploads/", b"Content-Length: 0\r\n\r\n").expect(202);
        let location = begun.header("location").unwrap().to_owned();
        let chunks: Vec<u8> = large
            .chunks(700_001)
            .flat_map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat())
            .collect();
        let body = [b"Transfer-Encoding: chunked\r\n\r\n", &chunks[..], b"0\r\n\r\n"].concat();
        ask("PATCH", &location, &body).expect(202);
        let digest = content::digest(&large);
        ask("PUT", &format!("{location}?digest={digest}"), b"Content-Length: 0\r\n\r\n").expect(201);
        assert_eq!(ask("GET", &format!("/v2/app/blobs/{digest}"), b"\r\n").expect(200).body, large);
    }
}

#[test]
fn http_2_is_as_it_was() {
    let gate = Gate::start(OPEN);
    let blob = vec![b'y'; 2 << 20];
    std::fs::write(gate.path("blob"), &blob).unwrap();
    let digest = content::digest(&blob);
    let curl = |arguments: &[&str]| {
        let mut curl = std::process::Command::new("curl");
        curl.args(["-sS", "--cacert", "certs/ca.crt", "-w", "%{http_version} %{http_code}"]).args(arguments);
        let output = curl.current_dir(gate.directory.path()).output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    for (version, scheme, expected) in
        [("--http2", "https", "2"), ("--http2-prior-knowledge", "http", "2"), ("--http1.1", "https", "1.1")]
    {
        let location = content::begin(&gate.tls(), "app");
        let base = format!("{scheme}://localhost:{}", gate.main.port());
        let put = curl(&[version, "-T", "blob", &format!("{base}{location}?digest={digest}")]);
        assert_eq!(put, format!("{expected} 201"));
        let got = curl(&[version, "-o", "got", &format!("{base}/v2/app/blobs/{digest}")]);
        assert_eq!(got, format!("{expected} 200"));
        assert_eq!(std::fs::read(gate.path("got")).unwrap(), blob);
    }
}
