//! Upstreams that speak HTTP/2 and take a request not at all (RFC 9113, section 8.7): it is sent again, whatever it is.

use super::credentials::certificate;
use super::{OPEN, is_error, noise, prepare, upstream};
use crate::support::content::{begin, digest, manifest, put_manifest};
use crate::support::gate::wait_until;
use crate::support::h2_front::End;
use crate::support::v2_upstream::Door;
use crate::support::{Answer, Gate, H2Front, V2Upstream};

struct Fronted {
    gate: Gate,
    front: H2Front,
    up: V2Upstream,
}

/// A registry that is fronted, with time for what is sent again; `more` is added to its file.
fn fronted(more: &str) -> Fronted {
    fronted_after(more, |_| ())
}

/// The same, which finds its upstream as `before` leaves it.
fn fronted_after(more: &str, before: impl FnOnce(&H2Front)) -> Fronted {
    let prepared = prepare(OPEN, "kind = \"mirror\"\nurl = \"http://127.0.0.1:1\"\n");
    let (certificate, key) = certificate(&prepared, "own");
    let up = V2Upstream::start();
    let front = H2Front::start(up.address, &certificate, &key);
    let times =
        "ca = \"own.crt\"\nretries = 2\nfirst_byte_timeout = \"10s\"\nidle_timeout = \"10s\"\ndeadline = \"20s\"\n";
    let file = upstream("fronted", &format!("https://{}", front.address), &format!("{times}{more}"));
    prepared.write("upstreams/up.toml", &file);
    before(&front);
    Fronted { gate: prepared.start(), front, up }
}

impl Fronted {
    /// Does everything that a client does, and has `refuse` before each request, told of its method; what is left at the upstream.
    fn push_and_pull(&self, refuse: impl Fn(&H2Front, &'static str)) {
        let client = self.gate.plain();
        let refused = |method: &'static str| {
            assert_eq!(self.front.refused(), 1, "{method}");
        };
        let (config, layer) = (b"{}", noise(1, 30_000));
        for blob in [&config[..], &layer] {
            refuse(&self.front, "POST");
            let location = begin(&client, "up/app");
            refused("POST");
            refuse(&self.front, "PATCH");
            let answer = client.send("PATCH", &location, &[], blob).expect(202);
            refused("PATCH");
            assert_eq!(answer.header("range"), Some(format!("0-{}", blob.len() - 1).as_str()));
            let location = answer.header("location").unwrap();
            refuse(&self.front, "PUT");
            client.send("PUT", &format!("{location}?digest={}", digest(blob)), &[], b"").expect(201);
            refused("PUT");
            assert!(self.up.has_blob("app", &digest(blob)), "each byte came once");
        }
        let image = manifest(&[config, &layer]);
        refuse(&self.front, "PUT");
        put_manifest(&client, "up/app", "v1", &image).expect(201);
        refused("PUT");
        // What nobody pushed here, so that it is asked for.
        self.up.manifest("app", "v2", &manifest(&[&layer]));
        let other = self.up.blob("app", &noise(2, 30_000));
        refuse(&self.front, "HEAD");
        client.send("HEAD", "/v2/up/app/manifests/v2", &[], b"").expect(200);
        refused("HEAD");
        refuse(&self.front, "GET");
        assert!(client.get(&format!("/v2/up/app/blobs/{other}")).expect(200).body == noise(2, 30_000));
        refused("GET");
        refuse(&self.front, "DELETE");
        client.delete("/v2/up/app/manifests/v1").expect(202);
        refused("DELETE");
        assert_eq!(self.up.uploads(), 0, "each began once");
    }
}

#[test]
fn a_refused_stream_is_repeated_for_every_method() {
    fronted("").push_and_pull(|front, method| front.refuse(method, 1));
}

#[test]
fn a_request_above_the_last_of_a_goaway_is_repeated_for_every_method() {
    for end in [End::Below(0), End::AtOnce] {
        fronted("").push_and_pull(|front, _| front.end(end, 1));
    }
}

#[test]
fn what_was_taken_of_a_small_body_is_sent_again() {
    let fronted = fronted("");
    let client = fronted.gate.plain();
    let bytes = noise(3, 150_000);
    let location = begin(&client, "up/app");
    fronted.front.end(End::Below(100_000), 1);
    let answer = client.send("PATCH", &location, &[], &bytes).expect(202);
    assert_eq!(fronted.front.refused(), 1);
    let location = answer.header("location").unwrap();
    client.send("PUT", &format!("{location}?digest={}", digest(&bytes)), &[], b"").expect(201);
    assert!(fronted.up.has_blob("app", &digest(&bytes)));
    // A manifest is in memory, however large it is.
    let large = serde_json::json!({ "schemaVersion": 2, "annotations": { "x": "x".repeat(2_000_000) } });
    let mut image: serde_json::Value = serde_json::from_slice(&manifest(&[&bytes])).unwrap();
    image["annotations"] = large["annotations"].clone();
    fronted.front.end(End::Below(1_000_000), 1);
    put_manifest(&client, "up/app", "v1", image.to_string().as_bytes()).expect(201);
    assert_eq!(fronted.front.refused(), 1);
}

/// Why a request was not answered, and what to do.
#[track_caller]
fn is_refused(answer: &Answer) {
    is_error(answer, 503, "UNAVAILABLE");
    assert!(answer.header("retry-after").is_some());
    for words in ["upstream registry up did not take the request", "try again later"] {
        assert!(answer.message().contains(words), "{}", answer.message());
    }
}

#[test]
fn what_cannot_be_sent_again_is_503_and_leaves_the_upload() {
    let fronted = fronted("");
    let client = fronted.gate.plain();
    let bytes = noise(4, 2_000_000);
    let location = begin(&client, "up/app");
    fronted.front.end(End::Below(1_000_000), 1);
    is_refused(&client.send("PATCH", &location, &[], &bytes));
    assert_eq!((fronted.front.refused(), fronted.up.count("PATCH", "/")), (1, 0));
    let status = client.get(&location).expect(204);
    let answer = client.send("PATCH", status.header("location").unwrap(), &[], &bytes).expect(202);
    let location = answer.header("location").unwrap();
    client.send("PUT", &format!("{location}?digest={}", digest(&bytes)), &[], b"").expect(201);
    assert!(fronted.up.has_blob("app", &digest(&bytes)));
}

/// What it hashes to is known here still, so wrong bytes do not get there by a digest that is not theirs.
#[test]
fn what_came_before_a_refusal_was_not_hashed_any_more() {
    let fronted = fronted("");
    let client = fronted.gate.plain();
    let location = begin(&client, "up/app");
    let location = client.send("PATCH", &location, &[], b"one ").expect(202).header("location").unwrap().to_owned();
    for method in ["PATCH", "PUT"] {
        fronted.front.refuse(method, usize::MAX);
        let wrong = format!("{location}?digest={}", digest(b"one two"));
        let path = if method == "PUT" { &wrong } else { &location };
        is_refused(&client.send(method, path, &[], b"two"));
        assert!(fronted.front.refused() > 0);
    }
    fronted.front.refuse("PUT", 0);
    is_error(&client.send("PUT", &format!("{location}?digest={}", digest(b"three")), &[], b""), 400, "DIGEST_INVALID");
    assert_eq!(fronted.up.count("PUT", "/blobs/"), 0, "it was known before it was asked");
}

#[test]
fn an_upstream_that_refuses_always_is_503_with_a_reason() {
    for end in [None, Some(End::Below(0)), Some(End::AtOnce)] {
        let fronted = fronted("");
        let client = fronted.gate.plain();
        let location = begin(&client, "up/app");
        for (method, path) in [
            ("POST", "/v2/up/app/blobs/uploads/".to_owned()),
            ("PATCH", location.clone()),
            ("PUT", format!("{location}?digest={}", digest(b"bytes"))),
            ("PUT", "/v2/up/app/manifests/v1".to_owned()),
            ("GET", "/v2/up/app/manifests/v1".to_owned()),
            ("DELETE", "/v2/up/app/manifests/v1".to_owned()),
        ] {
            match end {
                None => fronted.front.refuse(method, usize::MAX),
                Some(end) => fronted.front.end(end, usize::MAX),
            }
            let bytes = manifest(&[b"{}"]);
            let body: &[u8] = match method {
                "PUT" if path.contains("manifests") => &bytes,
                "PATCH" | "PUT" => b"bytes",
                _ => b"",
            };
            is_refused(&client.send(method, &path, &[], body));
            assert!(fronted.front.refused() >= 3, "{method} {path}: once, and as often as retries says");
        }
        fronted.gate.wait_for_log("did not take the request");
        fronted.gate.wait_for_log("look at its log");
    }
}

/// It may have been done.
#[test]
fn a_request_that_a_goaway_leaves_in_is_repeated_only_where_it_reads() {
    let fronted = fronted("");
    let client = fronted.gate.plain();
    fronted.front.end(End::Beyond, 1);
    is_error(&client.send("POST", "/v2/up/app/blobs/uploads/", &[], b""), 503, "UNAVAILABLE");
    assert_eq!((fronted.front.refused(), fronted.up.count("POST", "/")), (1, 0));
    let blob = fronted.up.blob("app", b"a blob");
    fronted.front.end(End::Beyond, 1);
    assert_eq!(client.get(&format!("/v2/up/app/blobs/{blob}")).expect(200).body, b"a blob");
    assert_eq!(fronted.front.refused(), 1);
}

#[test]
fn a_token_service_that_refuses_a_stream_is_asked_again() {
    let fronted = fronted("username = \"ada\"\npassword = \"secret\"\n");
    let realm = format!("https://{}/token", fronted.front.address);
    fronted.up.guard(Door::bearer().user("ada", "secret", &["*"]).realm(&realm));
    let client = fronted.gate.plain();
    fronted.front.refuse("GET", 1);
    begin(&client, "up/app");
    assert_eq!(fronted.front.refused(), 1);
    fronted.up.expire_tokens();
    fronted.front.end(End::Below(0), 1);
    begin(&client, "up/other");
    assert_eq!(fronted.front.refused(), 1);
}

#[test]
fn a_refused_check_says_nothing_of_a_peer() {
    let fronted = fronted_after("health = { interval = \"1s\" }", |front| front.refuse("GET", 1));
    wait_until("a check to be refused", || fronted.front.refused() == 1);
    fronted.up.wait_for("GET", "/v2/", 1);
    assert!(!fronted.gate.log.lock().unwrap().contains("a peer is unhealthy"));
}
