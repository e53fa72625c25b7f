//! Uploads: in chunks, resumed, cancelled, in one request.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{open, some_bytes};
use crate::support::content::{begin, digest, manifest, put_manifest};
use crate::support::gate::{files, wait_until};
use crate::support::{Answer, Client, Gate};

/// Sends a chunk that says where it belongs; its answer.
fn patch(client: &Client, location: &str, range: &str, bytes: &[u8]) -> Answer {
    client.send("PATCH", location, &[("Content-Range", range)], bytes)
}

fn uploads(gate: &Gate) -> usize {
    files(&gate.path("data/uploads")).len()
}

#[test]
fn chunks_go_on_where_the_last_one_ended() {
    let gate = open("");
    let client = gate.plain();
    let bytes = some_bytes(3_000_000);
    let began = client.send("POST", "/v2/app/blobs/uploads/", &[], b"").expect(202);
    let id = began.header("docker-upload-uuid").unwrap().to_owned();
    let mut location = began.header("location").unwrap().to_owned();
    assert_eq!(location, format!("/v2/app/blobs/uploads/{id}"));
    for (from, to) in [(0, 1), (1, 1_000_000), (1_000_000, 2_999_999)] {
        let answer = patch(&client, &location, &format!("{from}-{}", to - 1), &bytes[from..to]).expect(202);
        assert_eq!(answer.header("range"), Some(&*format!("0-{}", to - 1)));
        assert_eq!(answer.header("docker-upload-uuid"), Some(&*id));
        location = answer.header("location").unwrap().to_owned();
        let status = client.get(&location).expect(204);
        assert_eq!(status.header("range"), Some(&*format!("0-{}", to - 1)));
        assert_eq!(status.header("location"), Some(&*location));
    }
    let path = format!("{location}?digest={}", digest(&bytes));
    client.send("PUT", &path, &[("Content-Range", "2999999-2999999")], &bytes[2_999_999..]).expect(201);
    assert!(client.get(&format!("/v2/app/blobs/{}", digest(&bytes))).expect(200).body == bytes);
    assert_eq!(uploads(&gate), 0);
}

#[test]
fn an_upload_that_was_cut_off_goes_on_at_the_offset_of_its_status() {
    let gate = open("");
    let client = gate.plain();
    let bytes = some_bytes(2_000_000);
    let location = begin(&client, "app");
    let mut stream = client.connect();
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", bytes.len());
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&bytes[..1_200_000]).unwrap();
    stream.flush().unwrap();
    drop(stream);
    // Until the broken request is read it has nothing, and until that is ended it is busy.
    let mut offset = 0;
    wait_until("the upload to have what came", || {
        let status = client.get(&location);
        let last = status.header("range").and_then(|range| range.strip_prefix("0-")?.parse::<usize>().ok());
        offset = last.map_or(0, |last| last + 1);
        status.status == 204 && offset > 1
    });
    assert!(offset <= 1_200_000, "{offset}");
    let range = format!("{offset}-{}", bytes.len() - 1);
    patch(&client, &location, &range, &bytes[offset..]).expect(202);
    client.send("PUT", &format!("{location}?digest={}", digest(&bytes)), &[], b"").expect(201);
    assert!(client.get(&format!("/v2/app/blobs/{}", digest(&bytes))).expect(200).body == bytes);
}

#[test]
fn chunks_without_a_range_are_appended() {
    let gate = open("");
    let client = gate.plain();
    let location = begin(&client, "app");
    assert_eq!(client.send("PATCH", &location, &[], b"one, ").expect(202).header("range"), Some("0-4"));
    // docker sends layers so, without a length.
    let chunked = format!(
        "PATCH {location} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n2\r\n, \r\n0\r\n\r\n"
    );
    assert_eq!(client.raw(chunked.as_bytes(), "PATCH").expect(202).header("range"), Some("0-9"));
    let whole = b"one, two, three";
    client.send("PUT", &format!("{location}?digest={}", digest(whole)), &[], b"three").expect(201);
    assert_eq!(client.get(&format!("/v2/app/blobs/{}", digest(whole))).expect(200).body, whole);
}

#[test]
fn a_chunk_in_a_wrong_place_changes_nothing() {
    let gate = open("");
    let client = gate.plain();
    let location = begin(&client, "app");
    patch(&client, &location, "0-9", &some_bytes(10)).expect(202);
    let chunk = some_bytes(10);
    for range in ["0-9", "9-18", "11-20", "100-109", "5-14", "a-b", "10", "19-10", "-10"] {
        let refused = patch(&client, &location, range, &chunk).expect(416);
        assert_eq!(refused.code(), "BLOB_UPLOAD_INVALID", "{range}");
        let path = format!("{location}?digest={}", digest(&chunk));
        client.send("PUT", &path, &[("Content-Range", range)], &chunk).expect(416);
        assert_eq!(client.get(&location).expect(204).header("range"), Some("0-9"), "{range}");
    }
    for range in ["10-18", "10-20", "10-10"] {
        assert_eq!(patch(&client, &location, range, &chunk).expect(400).code(), "SIZE_INVALID", "{range}");
        assert_eq!(client.get(&location).expect(204).header("range"), Some("0-9"), "{range}");
    }
    patch(&client, &location, "bytes 10-19/*", &chunk).expect(202);
    let whole = [some_bytes(10), chunk].concat();
    client.send("PUT", &format!("{location}?digest={}", digest(&whole)), &[], b"").expect(201);
}

#[test]
fn a_cancelled_upload_is_gone() {
    let gate = open("");
    let client = gate.plain();
    let location = begin(&client, "app");
    patch(&client, &location, "0-9", &some_bytes(10)).expect(202);
    assert_eq!(uploads(&gate), 1);
    client.delete(&location).expect(204);
    assert_eq!(uploads(&gate), 0);
    let last = format!("{location}?digest={}", digest(b""));
    for (method, path) in [("GET", &location), ("PATCH", &location), ("PUT", &last), ("DELETE", &location)] {
        assert_eq!(client.send(method, path, &[], b"").expect(404).code(), "BLOB_UPLOAD_UNKNOWN", "{method}");
    }
}

#[test]
fn a_blob_may_come_in_one_request() {
    let gate = open("");
    let client = gate.plain();
    for bytes in [some_bytes(0), some_bytes(1), some_bytes(2_500_000)] {
        let path = format!("/v2/app/blobs/uploads/?digest={}", digest(&bytes));
        let pushed = client.send("POST", &path, &[], &bytes).expect(201);
        assert_eq!(pushed.header("location"), Some(&*format!("/v2/app/blobs/{}", digest(&bytes))));
        assert!(client.get(&format!("/v2/app/blobs/{}", digest(&bytes))).expect(200).body == bytes);
    }
    assert_eq!(uploads(&gate), 0);
}

/// Its session is known to nobody, so it would stay until it expires.
#[test]
fn a_blob_in_one_request_that_fails_leaves_no_upload() {
    let gate = open("[limits]\nbody_idle_timeout = \"300ms\"\n");
    let client = gate.plain();
    let path = format!("/v2/app/blobs/uploads/?digest={}", digest(b"something else"));
    assert_eq!(client.send("POST", &path, &[], b"bytes").expect(400).code(), "DIGEST_INVALID");
    wait_until("an upload with a wrong digest to be gone", || uploads(&gate) == 0);
    // The body stops, once in silence and once with its connection.
    let begun = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc");
    client.raw(begun.as_bytes(), "POST").expect(408);
    wait_until("an upload that fell silent to be gone", || uploads(&gate) == 0);
    let mut stream = client.connect();
    stream.write_all(begun.as_bytes()).unwrap();
    stream.flush().unwrap();
    wait_until("the upload to begin", || uploads(&gate) == 1);
    drop(stream);
    wait_until("an upload whose client left to be gone", || uploads(&gate) == 0);
}

fn sha512(bytes: &[u8]) -> String {
    dockgate::oci::Algorithm::Sha512.digest(bytes).to_string()
}

#[test]
fn sha512_names_blobs_and_manifests_too() {
    let gate = open("");
    let client = gate.plain();
    let bytes = some_bytes(5_000);
    let location = begin(&client, "app");
    client.send("PATCH", &location, &[], &bytes[..1_000]).expect(202);
    let path = format!("{location}?digest={}", sha512(&bytes));
    let pushed = client.send("PUT", &path, &[], &bytes[1_000..]).expect(201);
    assert_eq!(pushed.header("docker-content-digest"), Some(&*sha512(&bytes)));
    let other = some_bytes(100);
    let path = format!("/v2/app/blobs/uploads/?digest={}", sha512(&other));
    client.send("POST", &path, &[], &other).expect(201);
    for bytes in [&bytes, &other] {
        let answer = client.get(&format!("/v2/app/blobs/{}", sha512(bytes))).expect(200);
        assert!(answer.body == *bytes);
        // One name is not the other.
        client.get(&format!("/v2/app/blobs/{}", digest(bytes))).expect(404);
    }
    let wrong = format!("/v2/app/blobs/uploads/?digest={}", sha512(b"other"));
    assert_eq!(client.send("POST", &wrong, &[], &bytes).expect(400).code(), "DIGEST_INVALID");

    let text = String::from_utf8(manifest(&[&bytes, &other])).unwrap();
    let text = text.replace(&digest(&bytes), &sha512(&bytes)).replace(&digest(&other), &sha512(&other));
    let name = sha512(text.as_bytes());
    put_manifest(&client, "app", &sha512(b"other"), text.as_bytes()).expect(400);
    let pushed = put_manifest(&client, "app", &name, text.as_bytes()).expect(201);
    assert_eq!(pushed.header("docker-content-digest"), Some(&*name));
    let answer = client.get(&format!("/v2/app/manifests/{name}")).expect(200);
    assert_eq!(answer.body, text.as_bytes());
    assert_eq!(answer.header("docker-content-digest"), Some(&*name));
}

#[test]
fn an_upload_serves_one_request_at_a_time() {
    let gate = open("");
    let client = gate.plain();
    let location = begin(&client, "app");
    let mut stream = client.connect();
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\nab");
    stream.write_all(head.as_bytes()).unwrap();
    stream.flush().unwrap();
    wait_until("the upload to be busy", || client.get(&location).status == 409);
    let refused = client.send("PATCH", &location, &[], b"xy").expect(409);
    assert_eq!(refused.code(), "BLOB_UPLOAD_INVALID");
    assert!(refused.message().contains("wait for it"), "{}", refused.message());
    client.delete(&location).expect(409);
    stream.write_all(b"cd").unwrap();
    assert_eq!(Answer::read(&mut stream, "PATCH").unwrap().expect(202).header("range"), Some("0-3"));
    client.send("PUT", &format!("{location}?digest={}", digest(b"abcd")), &[], b"").expect(201);
}

#[test]
fn whoever_asks_how_far_an_upload_is_disturbs_nobody() {
    let gate = open("");
    let client = gate.plain();
    let location = begin(&client, "app");
    let done = Arc::new(AtomicBool::new(false));
    let (asking, path, ended) = (client.clone(), location.clone(), Arc::clone(&done));
    let asker = std::thread::spawn(move || {
        while !ended.load(Ordering::Relaxed) {
            let status = asking.get(&path).status;
            assert!(matches!(status, 204 | 409), "{status}");
        }
    });
    let statuses: Vec<u16> = (0..300).map(|_| client.send("PATCH", &location, &[], b"x").status).collect();
    done.store(true, Ordering::Relaxed);
    asker.join().unwrap();
    assert!(statuses.iter().all(|status| *status == 202), "{statuses:?}");
    assert_eq!(client.get(&location).expect(204).header("range"), Some("0-299"));
}

#[test]
fn an_upload_belongs_to_its_repository() {
    let gate = open("");
    let client = gate.plain();
    let location = begin(&client, "app");
    let elsewhere = location.replace("/v2/app/", "/v2/other/");
    let last = format!("{elsewhere}?digest={}", digest(b""));
    for (method, path) in [("GET", &elsewhere), ("PATCH", &elsewhere), ("PUT", &last), ("DELETE", &elsewhere)] {
        assert_eq!(client.send(method, path, &[], b"").expect(404).code(), "BLOB_UPLOAD_UNKNOWN", "{method}");
    }
    client.get(&location).expect(204);
}

/// Docker 1.6 and 1.7 put a layer only where a whole URL leads; "unsupported protocol scheme" is what they said. What others
/// are told holds whatever stands before us.
#[test]
fn docker_1_6_did_not_find_where_to_upload_to() {
    let gate = open("");
    for (client, scheme) in [(gate.plain(), "http"), (gate.tls(), "https")] {
        let begin = |agent: &str| {
            let answer = client.send("POST", "/v2/app/blobs/uploads/", &[("User-Agent", agent)], b"").expect(202);
            answer.header("location").unwrap().to_owned()
        };
        let origin = format!("{scheme}://localhost:{}", client.address.port());
        for agent in ["docker/1.6.2 go/go1.4.2 git-commit/7c8fca2", "docker/1.7.1 go/go1.4.2"] {
            let location = begin(agent);
            let path = location.strip_prefix(&origin).unwrap_or_else(|| panic!("{location}"));
            let bytes = agent.as_bytes();
            client.send("PUT", &format!("{path}?digest={}", digest(bytes)), &[], bytes).expect(201);
        }
        for agent in ["docker/1.8.0 go/go1.4.2", "docker/28.2.2 go/go1.24.3", "skopeo/1.9.3", ""] {
            assert!(begin(agent).starts_with("/v2/app/"), "{agent}");
        }
    }
}

#[test]
fn locations_name_the_host_where_the_operator_says_so() {
    let begins = |config: &str| {
        let gate = open(config);
        let answer = gate.plain().send("POST", "/v2/app/blobs/uploads/", &[], b"").expect(202);
        (answer.header("location").unwrap().to_owned(), format!("http://localhost:{}/v2/app/", gate.main.port()))
    };
    assert!(begins("").0.starts_with("/v2/app/"));
    let (location, expected) = begins("[registry]\nabsolute_locations = true\n");
    assert!(location.starts_with(&expected), "{location}");
}

#[test]
fn a_put_that_broke_off_could_not_be_sent_again() {
    let gate = open("");
    let client = gate.plain();
    let bytes = some_bytes(2_000_000);
    for already in [0, 700_000] {
        let location = begin(&client, &format!("app{already}"));
        if already > 0 {
            client.send("PATCH", &location, &[], &bytes[..already]).expect(202);
        }
        let path = format!("{location}?digest={}", digest(&bytes));
        let rest = &bytes[already..];
        let mut stream = client.connect();
        let head = format!("PUT {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", rest.len());
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&rest[..1_100_000]).unwrap();
        stream.flush().unwrap();
        drop(stream);
        // Sent until nobody else has the upload any more.
        let mut last = None;
        wait_until("the same request to be answered", || {
            let answer = client.send("PUT", &path, &[], rest);
            let status = answer.status;
            last = Some(answer);
            status != 409
        });
        last.unwrap().expect(201);
        let there = client.get(&format!("/v2/app{already}/blobs/{}", digest(&bytes))).expect(200);
        assert!(there.body == bytes);
    }
    assert_eq!(uploads(&gate), 0);
}

#[test]
fn a_put_with_other_bytes_than_its_digest_says_takes_nothing_back_but_itself() {
    let gate = open("");
    let client = gate.plain();
    let bytes = some_bytes(100_000);
    let location = begin(&client, "app");
    client.send("PATCH", &location, &[], &bytes[..60_000]).expect(202);
    let path = format!("{location}?digest={}", digest(&bytes));
    assert_eq!(client.send("PUT", &path, &[], b"wrong").expect(400).code(), "DIGEST_INVALID");
    assert_eq!(client.get(&location).expect(204).header("range"), Some("0-59999"));
    client.send("PUT", &path, &[], &bytes[60_000..]).expect(201);
}

#[test]
fn what_an_upload_will_be_named_by_may_be_said_at_its_beginning() {
    let gate = open("");
    let client = gate.plain();
    let bytes = some_bytes(5_000);
    let begin_by = |algorithm: &str| {
        client.send("POST", &format!("/v2/app/blobs/uploads/?digest-algorithm={algorithm}"), &[], b"")
    };
    // Whichever it was said to be, the digest at the end decides.
    for algorithm in ["sha256", "sha512"] {
        for name in [digest(&bytes), sha512(&bytes)] {
            let location = begin_by(algorithm).expect(202).header("location").unwrap().to_owned();
            client.send("PATCH", &location, &[], &bytes[..1_000]).expect(202);
            client.send("PUT", &format!("{location}?digest={name}"), &[], &bytes[1_000..]).expect(201);
        }
    }
    for (algorithm, code) in
        [("md5", "UNSUPPORTED"), ("blake3", "UNSUPPORTED"), ("SHA256", "DIGEST_INVALID"), ("", "DIGEST_INVALID")]
    {
        assert_eq!(begin_by(algorithm).expect(400).code(), code, "{algorithm}");
    }
}

#[test]
fn blake3_is_known_and_told_as_unsupported() {
    let gate = open("");
    let client = gate.plain();
    let blake3 = format!("blake3:{}", "0".repeat(64));
    for path in [
        format!("/v2/app/blobs/{blake3}"),
        format!("/v2/app/manifests/{blake3}"),
        format!("/v2/app/referrers/{blake3}"),
    ] {
        let refused = client.get(&path).expect(400);
        assert_eq!(refused.code(), "UNSUPPORTED", "{path}");
        assert!(refused.message().contains("only sha256 and sha512"), "{}", refused.message());
    }
    let location = begin(&client, "app");
    assert_eq!(client.send("PUT", &format!("{location}?digest={blake3}"), &[], b"").expect(400).code(), "UNSUPPORTED");
    assert_eq!(client.get("/v2/app/blobs/blake3:0123").expect(400).code(), "DIGEST_INVALID");
    let text = String::from_utf8(manifest(&[b"{}", b"a layer"])).unwrap().replace(&digest(b"a layer"), &blake3);
    let refused = put_manifest(&client, "app", "v1", text.as_bytes()).expect(400);
    assert_eq!(refused.code(), "MANIFEST_INVALID");
    assert!(refused.message().contains("only sha256 and sha512"), "{}", refused.message());
}
