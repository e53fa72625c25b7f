//! What goes over the wire between old clients, the gateway and the v1 registry; the registry is one that tests make.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, UdpSocket};

use super::super::support::v1_upstream::{V1Upstream, reply};
use super::super::support::{Answer, Client, Gate};
use super::{RULES, basic, prepare};

/// Checked often, and believed at once.
pub(super) const QUICK_HEALTH: &str =
    "health = { path = \"/v1/_ping\", interval = \"200ms\", failures = 1, successes = 1 }";
pub(super) const IMAGE: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const V2: &str = "docker-distribution-api-version";

pub(super) fn start(peers: &[SocketAddr]) -> Gate {
    start_with(peers, "")
}

fn start_with(peers: &[SocketAddr], upstream: &str) -> Gate {
    prepare(RULES, peers, &format!("{QUICK_HEALTH}\n{upstream}")).start()
}

pub(super) fn dev(gate: &Gate) -> Client {
    gate.tls().user("dev", "dev")
}

/// What a v1 client prints: the one text in the body of an answer that is of this form and no other.
#[track_caller]
pub(super) fn v1_error(answer: Answer, status: u16) -> String {
    let answer = answer.expect(status);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header(V2), None, "{answer:?}");
    let json = answer.json();
    let fields = json.as_object().unwrap_or_else(|| panic!("{json}"));
    assert_eq!(fields.len(), 1, "{json}");
    fields["error"].as_str().unwrap_or_else(|| panic!("{json}")).to_owned()
}

#[test]
fn the_ping_is_open_to_all() {
    let upstream = V1Upstream::echo();
    let gate = start(&[upstream.address]);
    for client in [gate.plain(), gate.tls(), dev(&gate), gate.tls().user("dev", "wrong")] {
        for path in ["/v1/_ping", "/_ping"] {
            let answer = client.get(path).expect(200);
            assert_eq!((answer.text().as_str(), answer.header("content-type")), ("{}", Some("application/json")));
            assert_eq!(answer.header("x-docker-registry-standalone"), Some("false"), "clients go on with our token");
            client.head(path).expect(200);
            v1_error(client.send("PUT", path, &[], b""), 405);
        }
    }
    assert!(upstream.asked().is_empty(), "nobody else is asked");
    // Where the registry is to be told the password, clients must say it each time.
    let gate = start_with(&[upstream.address], "forward_basic = true");
    assert_eq!(gate.tls().get("/v1/_ping").expect(200).header("x-docker-registry-standalone"), Some("true"));
}

#[test]
fn old_clients_find_nothing_under_v2_and_new_ones_do() {
    let upstream = V1Upstream::echo();
    let gate = start(&[upstream.address]);
    let old = [
        "Go 1.1 package http",
        "docker/1.3.0 go/go1.3.3 git-commit/c78088f kernel/3.16.0 os/linux arch/amd64",
        "docker/1.4.1 go/go1.3.3 git-commit/5bc2ff8 kernel/3.16.0 os/linux arch/amd64",
        "docker/1.5.0 go/go1.4.1 git-commit/a8a31ef kernel/3.16.0 os/linux arch/amd64",
    ];
    let new = [
        "docker/1.5.0-dev go/go1.4.1",
        "docker/1.5.1-dev go/go1.4.1",
        "docker/1.6.0 go/go1.4.2 git-commit/4749651 kernel/3.16.0 os/linux arch/amd64",
        "docker/1.10.3 go/go1.5.3",
        "docker/1.30.0",
        "docker/1.2.0 go/go1.2.1",
        "docker/28.2.2 go/go1.24.3 UpstreamClient(Docker-Client/28.2.2 \\(linux\\))",
        "Go-http-client/1.1",
        "containerd/1.6.20~ds1",
        "containers/5.23.1 (github.com/containers/image)",
        "skopeo/1.9.3",
        "",
    ];
    for client in [gate.plain(), dev(&gate)] {
        for agent in old {
            for path in ["/v2/", "/v2", "/v2/team/app/tags/list", "/v2/_catalog"] {
                let answer = client.with("User-Agent", agent).get(path).expect(404);
                assert_eq!((answer.header(V2), answer.header("www-authenticate")), (None, None), "{agent} {path}");
            }
        }
        for agent in new {
            let answer = client.with("User-Agent", agent).get("/v2/");
            assert_eq!(answer.header(V2), Some("registry/2.0"), "{agent}: {answer:?}");
            assert!(matches!(answer.status, 200 | 401), "{agent}: {answer:?}");
        }
        // Nobody is let in, or kept out of v1, because of what they call themselves.
        for agent in old.iter().chain(&new) {
            let status = client.with("User-Agent", agent).get("/v1/search?q=a").status;
            assert_eq!(status, client.get("/v1/search?q=a").status, "{agent}");
        }
    }
    assert!(upstream.asked().iter().all(|asked| asked.target.starts_with("/v1/")), "{:?}", upstream.asked());
}

#[test]
fn docker_up_to_1_9_is_sent_to_v1_where_the_file_says_so() {
    let upstream = V1Upstream::echo();
    let gate = start_with(&[upstream.address], "clients = \"docker < 1.10\"");
    for client in [gate.plain(), dev(&gate)] {
        for agent in ["docker/1.5.0 go/go1.4.1", "docker/1.6.2 go/go1.4.2", "docker/1.9.1 go/go1.4.3"] {
            let answer = client.with("User-Agent", agent).get("/v2/").expect(404);
            assert_eq!((answer.header(V2), answer.header("www-authenticate")), (None, None), "{agent}");
        }
        for agent in ["docker/1.10.3 go/go1.5.3", "docker/17.12.1-ce go/go1.9.4", "skopeo/1.9.3"] {
            assert_eq!(client.with("User-Agent", agent).get("/v2/").header(V2), Some("registry/2.0"), "{agent}");
        }
    }
}

#[test]
fn the_registry_learns_from_us_alone_who_called_and_how() {
    let upstream = V1Upstream::echo();
    let gate = start(&[upstream.address]);
    let sent = [
        ("User-Agent", "docker/1.5.0 go/go1.4.1"),
        ("X-Docker-Token", "true"),
        ("X-Docker-Checksum-Payload", "sha256:61"),
        ("Cookie", "session=1"),
        ("Connection", "close, X-Secret"),
        ("X-Secret", "1"),
        ("Keep-Alive", "5"),
        ("TE", "trailers"),
        ("Upgrade", "h2c"),
        ("Proxy-Authorization", "Basic dTpw"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-Forwarded-Proto", "gopher"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Port", "1"),
        ("X-Real-IP", "10.0.0.1"),
        ("Forwarded", "for=10.0.0.1;proto=http;host=evil.example"),
    ];
    for (client, scheme) in [(gate.tls(), "https"), (gate.plain(), "http")] {
        let client = client.user("dev", "dev");
        client.send("GET", "/v1/repositories/a/b/json", &sent, b"").expect(200);
        let asked = upstream.asked().pop().unwrap();
        // What we call ourselves is another name at every start.
        assert!(asked.all("via")[0].starts_with("1.1 dockgate-"), "{:?}", asked.all("via"));
        let lines = asked.headers.iter().filter(|(name, _)| name != "via");
        let mut lines: Vec<_> = lines.map(|(name, value)| format!("{name}: {value}")).collect();
        lines.sort();
        let host = format!("localhost:{}", gate.main.port());
        let expected = [
            "cookie: session=1".to_owned(),
            format!("host: {host}"),
            "user-agent: docker/1.5.0 go/go1.4.1".to_owned(),
            "x-docker-checksum-payload: sha256:61".to_owned(),
            "x-docker-token: true".to_owned(),
            "x-forwarded-for: 127.0.0.1".to_owned(),
            format!("x-forwarded-host: {host}"),
            format!("x-forwarded-proto: {scheme}"),
        ];
        assert_eq!(lines, expected);
        assert_eq!(asked.target, "/v1/repositories/a/b/json");
    }
}

#[test]
fn a_trusted_proxy_may_say_who_called_and_how() {
    let upstream = V1Upstream::echo();
    let rules = format!("{RULES}\n[listen.main]\naddress = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1\"]\n");
    let gate = prepare(&rules, &[upstream.address], QUICK_HEALTH).start();
    let told =
        [("X-Forwarded-For", "198.51.100.7"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "hub.example")];
    gate.plain().user("dev", "dev").send("GET", "/v1/search?q=a", &told, b"").expect(200);
    let asked = upstream.asked().pop().unwrap();
    for (name, value) in [
        ("x-forwarded-for", "198.51.100.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "hub.example"),
        ("host", "hub.example"),
    ] {
        assert_eq!(asked.all(name), [value], "{name}");
    }
}

const TOKEN: &str = "Token Token signature=A,repository=\"team/app\",access=write";

#[test]
fn credentials_reach_the_registry_only_where_its_file_says_so() {
    let (_, ours) = basic("dev", "dev");
    for (file, expected) in [
        ("", None),
        ("forward_basic = true", Some(ours.as_str())),
        ("username = \"gate\"\npassword = \"s3cret\"", Some("Basic Z2F0ZTpzM2NyZXQ=")),
    ] {
        let upstream = V1Upstream::echo();
        let gate = start_with(&[upstream.address], file);
        dev(&gate).get("/v1/repositories/team/app/images").expect(200);
        assert_eq!(
            upstream.asked().pop().unwrap().all("authorization"),
            expected.into_iter().collect::<Vec<_>>(),
            "{file}"
        );
    }
}

#[test]
fn the_registrys_own_tokens_open_nothing_and_go_nowhere() {
    let upstream = V1Upstream::echo();
    let gate = start(&[upstream.address]);
    let client = gate.tls().with("Authorization", TOKEN);
    for path in ["/v1/repositories/public/app/images", "/v1/repositories/team/app/images"] {
        assert!(v1_error(client.get(path), 401).contains("token"));
    }
    v1_error(client.get(&format!("/v1/images/{IMAGE}/json")), 401);
    v1_error(client.send("PUT", "/v1/repositories/public/app/", &[], b"[]"), 401);
    // On the v2 side that scheme means nothing.
    client.get("/v2/").expect(401);
    assert_eq!(upstream.asked().len(), 0);
}

#[test]
fn the_answer_names_the_gateway_where_it_named_the_registry() {
    let upstream = V1Upstream::start(|asked| {
        let host = asked.all("host").concat();
        let location = format!("http://{host}/v1/users/");
        let headers = [
            ("X-Docker-Endpoints", "127.0.0.1:5002, 10.0.0.9:5002"),
            ("X-Docker-Token", "Token signature=A"),
            ("WWW-Authenticate", "Token signature=A"),
            ("Set-Cookie", "session=1"),
            ("Location", location.as_str()),
            ("X-Docker-Registry-Standalone", "True"),
        ];
        reply(200, &headers, b"[]")
    });
    let gate = start(&[upstream.address]);
    let request = format!(
        "PUT /v1/repositories/team/app/ HTTP/1.1\r\nHost: hub.example:5000\r\nAuthorization: {}\r\nConnection: close\r\n\
         Content-Length: 2\r\n\r\n[]",
        basic("dev", "dev").1
    );
    let answer = gate.tls().raw(request.as_bytes(), "PUT").expect(200);
    for (name, value) in [
        ("x-docker-endpoints", "hub.example:5000"),
        ("set-cookie", "session=1"),
        ("location", "https://hub.example:5000/v1/users/"),
        ("x-docker-registry-standalone", "True"),
        ("connection", "close"),
    ] {
        assert_eq!(answer.header(name), Some(value));
    }
    for name in ["x-docker-token", "www-authenticate"] {
        let token = answer.header(name).unwrap();
        assert!(token.starts_with("Token signature=ey") && !token.contains("signature=A"), "{token}");
        assert!(token.ends_with(",repository=\"team/app\",access=write"), "{token}");
        assert_eq!(answer.headers.iter().filter(|(known, _)| known == name).count(), 1, "{answer:?}");
    }
}

#[test]
fn a_204_and_its_length_as_0_9_1_sends_them() {
    let upstream =
        V1Upstream::start(|_| b"HTTP/1.1 204 NO CONTENT\r\nContent-Length: 2\r\nConnection: close\r\n\r\n".to_vec());
    let gate = start(&[upstream.address]);
    let answer = dev(&gate).send("PUT", "/v1/repositories/team/app/images", &[], b"[]").expect(204);
    assert_eq!((answer.header("content-length"), answer.text().as_str()), (None, ""));
}

#[test]
fn a_head_has_the_length_and_no_body() {
    let upstream = V1Upstream::start(|asked| {
        assert_eq!(asked.method, if asked.all("x-forwarded-for").is_empty() { "GET" } else { "HEAD" });
        b"HTTP/1.1 200 OK\r\nContent-Length: 120\r\nX-Request-Id: theirs\r\nConnection: close\r\n\r\n".to_vec()
    });
    let gate = start(&[upstream.address]);
    let answer = dev(&gate).head(&format!("/v1/images/{IMAGE}/layer")).expect(200);
    assert_eq!((answer.header("content-length"), answer.text().as_str()), (Some("120"), ""));
    let ids = answer.headers.iter().filter(|(name, value)| name == "x-request-id" && value != "theirs");
    assert_eq!(ids.count(), 1, "{answer:?}");
}

#[test]
fn a_connection_is_kept_or_closed_as_the_client_asks() {
    let upstream = V1Upstream::start(|_| reply(200, &[], b"true"));
    let gate = start(&[upstream.address]);
    let mut stream = gate.plain().connect();
    let ask = |connection: &str| format!("GET /v1/_ping HTTP/1.1\r\nHost: a\r\n{connection}\r\n");
    stream.write_all(ask("").as_bytes()).unwrap();
    let mut first = Vec::new();
    while !first.ends_with(b"\r\n\r\n{}") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        first.extend(byte);
    }
    assert!(!String::from_utf8_lossy(&first).to_lowercase().contains("\r\nconnection: close"));
    stream.write_all(ask("Connection: close\r\n").as_bytes()).unwrap();
    // Reads to the end, so the gateway must close.
    let second = Answer::read(&mut *stream, "GET").unwrap().expect(200);
    assert_eq!(second.header("connection"), Some("close"));
}

#[test]
fn who_may_only_create_cannot_write_v1() {
    let upstream = V1Upstream::echo();
    let gate = start(&[upstream.address]);
    let creator = gate.tls().user("creator", "creator");
    creator.get("/v1/repositories/team/app/tags").expect(200);
    for path in
        ["/v1/repositories/team/app/", "/v1/repositories/team/app/tags/new", &format!("/v1/images/{IMAGE}/json")]
    {
        let message = v1_error(creator.send("PUT", path, &[], b"{}"), 403);
        assert!(message.contains("[[access]]"), "{message}");
    }
    assert_eq!(upstream.asked().len(), 1);
}

#[test]
fn v1_paths_that_read_two_ways_reach_nobody() {
    let upstream = V1Upstream::echo();
    let gate = start(&[upstream.address]);
    let root = gate.tls().user("root", "root");
    for path in ["/v1/repositories/", "/v1/images/", "/v1/", "/v1", "/v1/unknown"] {
        for method in ["GET", "PUT", "DELETE"] {
            v1_error(root.send(method, path, &[], b""), 404);
        }
    }
    for path in [
        "/v1/repositories/app/tags/",
        "/v1/repositories/a/tags/tags",
        "/v1/repositories/tags/tags",
        "/v1/repositories/n/images/tags/v1",
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            let message = v1_error(root.send(method, path, &[], b""), 400);
            assert!(message.contains("docker 1.10"), "{message}");
        }
    }
    for path in
        ["/v1//search", "/v1/./search", "/v1/repositories/team/../other/app/tags", "/v1/images/%2e/json", "/v1/a;b"]
    {
        v1_error(root.get(path), 400);
    }
    for path in [
        "/v1/repositories/a/b/c/tags",
        "/v1/repositories/UPPER/app/tags",
        "/v1/repositories/team/app-/tags",
        "/v1/repositories/a/b/tags/a:b",
        "/v1/images/nonsense/json",
    ] {
        v1_error(root.get(path), 400);
    }
    assert_eq!(upstream.asked().len(), 0);
}

#[test]
fn every_refusal_is_in_the_form_that_v1_clients_print() {
    let upstream = V1Upstream::echo();
    let gate = start(&[upstream.address]);
    let raw = |head: &str| gate.plain().raw(head.as_bytes(), "GET");
    v1_error(raw("GET /v1/_ping HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n"), 400);
    v1_error(raw("TRACE /v1/_ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"), 405);
    v1_error(gate.tls().with("Authorization", "Basic %").get("/v1/search"), 401);
    v1_error(gate.tls().user("dev", "wrong").get("/v1/search"), 401);
    v1_error(gate.tls().get("/v1/users/"), 401);
    v1_error(gate.tls().user("reader", "reader").delete("/v1/repositories/team/app/"), 403);
    v1_error(gate.tls().user("other", "other").get("/v1/repositories/team/app/tags"), 404);
    v1_error(dev(&gate).send("POST", "/v1/search", &[], b""), 405);
    assert_eq!(upstream.asked().len(), 0);
}

#[test]
fn old_clients_over_plain_http_from_elsewhere_are_told_to_use_https() {
    let upstream = V1Upstream::echo();
    let rules = format!("{RULES}\n[listen.main]\naddress = \"0.0.0.0:0\"\n");
    let gate = prepare(&rules, &[upstream.address], QUICK_HEALTH).start();
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").unwrap();
    let address = (socket.local_addr().unwrap().ip(), gate.main.port()).into();
    let message = v1_error(Client::plain(address).get("/v1/_ping"), 400);
    assert!(message.contains("HTTPS"), "{message}");
}

#[test]
fn v1_clients_are_asked_for_basic_once_where_v2_ones_are_asked_for_a_token() {
    let upstream = V1Upstream::echo();
    let gate = start(&[upstream.address]);
    let challenges = |answer: Answer| {
        let answer = answer.expect(401);
        let values = answer.headers.into_iter().filter(|(name, _)| name == "www-authenticate");
        values.map(|(_, value)| value).collect::<Vec<_>>()
    };
    assert!(challenges(gate.tls().get("/v2/"))[0].starts_with("Bearer "));
    let with = |value: &str| gate.tls().with("Authorization", value);
    let odd = ["Basic %", "Basic dTpw, Basic dTpw", "Bearer e30", "Negotiate x", TOKEN].map(with);
    let callers = [gate.tls(), gate.plain(), gate.tls().user("dev", "wrong")];
    let paths =
        ["/v1/users/", "/v1/search?q=a", "/v1/repositories/team/app/images", &format!("/v1/images/{IMAGE}/layer")];
    for path in paths {
        for client in callers.iter().chain(&odd) {
            assert_eq!(challenges(client.get(path)), ["Basic realm=\"dockgate\""], "{path}");
            assert_eq!(challenges(client.head(path)), ["Basic realm=\"dockgate\""], "{path}");
        }
    }
}

/// What a docker that pushes prints must say what to do, and nothing of what is there.
#[test]
fn who_names_an_image_of_no_repository_is_told_what_to_do() {
    let upstream = V1Upstream::echo();
    let gate = start(&[upstream.address]);
    for user in ["team", "other"] {
        let client = gate.tls().user(user, user);
        for (method, status) in [("GET", 404), ("PUT", 403)] {
            let message = v1_error(client.send(method, &format!("/v1/images/{IMAGE}/json"), &[], b""), status);
            assert!(message.contains("repository"), "{message}");
        }
    }
    assert_eq!(upstream.asked().len(), 0);
}

#[test]
fn no_v1_registry_is_told_with_what_to_write() {
    let gate = Gate::start(RULES);
    for path in ["/v1/users/", "/v1/repositories/team/app/images", "/v1/images/0123456789abcdef/json", "/v1/users/dev/"]
    {
        let method = if path.ends_with("dev/") { "PUT" } else { "GET" };
        let message = v1_error(gate.tls().send(method, path, &[], b""), 404);
        assert!(message.contains("upstreams/legacy-v1.toml"), "{message}");
    }
    for path in ["/v1/_ping", "/_ping"] {
        assert_eq!(gate.tls().get(path).expect(200).header("x-docker-registry-standalone"), Some("false"));
    }
}
