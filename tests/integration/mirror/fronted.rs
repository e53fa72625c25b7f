//! A fronted registry: pushes, pulls, deletes and lists pass through, under the users and the names of the gateway.

use std::io::Write;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Mirror, OPEN, cache_is_clean, is_error, noise, prepare, upstream};
use crate::support::content::{OCI_MANIFEST, begin, digest, manifest, push_blob, push_image, put_manifest};
use crate::support::gate::wait_until;
use crate::support::v2_upstream::{Door, Fault, Latch};
use crate::support::{Answer, Client, Gate, V2Upstream};

const USERS: &str = "[[access]]\nwho = [\"authenticated\"]\nrepositories = [\"**\"]\nactions = [\"*\"]\n";

fn fronted(config: &str, more: &str) -> Mirror {
    let up = V2Upstream::start();
    let prepared = prepare(config, &upstream("fronted", &up.url(), more));
    Mirror { gate: prepared.start(), up }
}

fn patch(client: &Client, location: &str, range: &str, bytes: &[u8]) -> Answer {
    client.send("PATCH", location, &[("Content-Range", range)], bytes)
}

/// A Location that leads to the gateway, under its own name for the repository.
#[track_caller]
fn here(answer: &Answer) -> String {
    let location = answer.header("location").unwrap();
    assert!(location.starts_with("/v2/up/app/"), "{location}");
    assert!(!location.contains("upload-") && !location.contains("state"), "{location}");
    location.to_owned()
}

#[test]
fn an_image_is_pushed_pulled_listed_and_deleted() {
    let mirror = fronted(OPEN, "");
    let client = mirror.gate.plain();
    let image = push_image(&client, "up/app", "v1");
    assert!(mirror.up.has_blob("app", &digest(b"a layer")));
    assert_eq!(mirror.up.uploads(), 0);
    let pulled = mirror.pull("/v2/up/app/manifests/v1").expect(200);
    assert_eq!((digest(&pulled.body), pulled.header("content-type")), (image.clone(), Some(OCI_MANIFEST)));
    for _ in 0..2 {
        assert_eq!(mirror.pull(&format!("/v2/up/app/blobs/{}", digest(b"a layer"))).expect(200).body, b"a layer");
    }
    assert_eq!(mirror.up.count("GET", "/blobs/"), 1);
    assert_eq!(mirror.up.count("GET", "/manifests/"), 0, "what was pushed is known");
    let tags = mirror.pull("/v2/up/app/tags/list").expect(200).json();
    assert_eq!(tags, serde_json::json!({ "name": "up/app", "tags": ["v1"] }));
    let catalog = mirror.pull("/up/v2/_catalog").expect(200).json();
    assert_eq!(catalog, serde_json::json!({ "repositories": ["app"] }));
    let referrers = mirror.pull(&format!("/v2/up/app/referrers/{image}")).expect(200).json();
    assert_eq!(referrers["manifests"], serde_json::json!([]));
    client.delete(&format!("/v2/up/app/manifests/{image}")).expect(202);
    client.delete("/v2/up/app/manifests/v1").expect(202);
    is_error(&mirror.pull("/v2/up/app/manifests/v1"), 404, "MANIFEST_UNKNOWN");
    is_error(&mirror.pull(&format!("/v2/up/app/manifests/{image}")), 404, "MANIFEST_UNKNOWN");
    let blob = format!("/v2/up/app/blobs/{}", digest(b"a layer"));
    client.delete(&blob).expect(202);
    is_error(&mirror.pull(&blob), 404, "BLOB_UNKNOWN");
    is_error(&client.delete(&blob), 404, "BLOB_UNKNOWN");
    cache_is_clean(&mirror.gate.path("cache"));
}

#[test]
fn all_ways_of_uploading_pass_through() {
    let mirror = fronted(OPEN, "");
    let client = mirror.gate.plain();
    let bytes = noise(1, 1_000_000);
    let blob = digest(&bytes);
    // In one request.
    let answer = client.send("POST", &format!("/v2/up/app/blobs/uploads/?digest={blob}"), &[], &bytes).expect(201);
    assert_eq!(here(&answer), format!("/v2/up/app/blobs/{blob}"));
    // In chunks that say where they belong.
    let bytes = noise(2, 1_000_000);
    let begun = client.send("POST", "/v2/up/app/blobs/uploads/", &[], b"").expect(202);
    let mut location = here(&begun);
    for (from, to) in [(0, 400_000), (400_000, 999_999)] {
        let answer = patch(&client, &location, &format!("{from}-{}", to - 1), &bytes[from..to]).expect(202);
        assert_eq!(answer.header("range"), Some(format!("0-{}", to - 1).as_str()));
        location = here(&answer);
        let status = client.get(&location).expect(204);
        assert_eq!(status.header("range"), Some(format!("0-{}", to - 1).as_str()));
        here(&status);
    }
    let end = format!("{location}?digest={}", digest(&bytes));
    let answer = client.send("PUT", &end, &[("Content-Range", "999999-999999")], &bytes[999_999..]).expect(201);
    assert_eq!(here(&answer), format!("/v2/up/app/blobs/{}", digest(&bytes)));
    // Without a length, as docker does.
    let location = begin(&client, "up/app");
    let chunked = format!(
        "PATCH {location} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n4\r\n two\r\n0\r\n\r\n"
    );
    assert_eq!(client.raw(chunked.as_bytes(), "PATCH").expect(202).header("range"), Some("0-6"));
    client.send("PUT", &format!("{location}?digest={}", digest(b"one two")), &[], b"").expect(201);
    // Mounted from another repository.
    push_blob(&client, "up/other", b"elsewhere");
    let mount = format!("/v2/up/app/blobs/uploads/?mount={}&from=up/other", digest(b"elsewhere"));
    here(&client.send("POST", &mount, &[], b"").expect(201));
    // And what is empty.
    push_blob(&client, "up/app", b"");
    for blob in [blob, digest(&bytes), digest(b"one two"), digest(b"elsewhere"), digest(b"")] {
        assert!(mirror.up.has_blob("app", &blob));
        assert_eq!(digest(&mirror.pull(&format!("/v2/up/app/blobs/{blob}")).expect(200).body), blob);
    }
    assert_eq!(mirror.up.uploads(), 0);
}

#[test]
fn malformed_bodies_are_refused_and_nothing_is_done() {
    let mirror = fronted(OPEN, "");
    let client = mirror.gate.plain();
    let blob = push_blob(&client, "up/app", b"a blob");
    for chunks in ["x\r\n", "3\r\nabcd\r\n0\r\n\r\n"] {
        let location = begin(&client, "up/app");
        for (method, path) in [
            ("POST", "/v2/up/app/blobs/uploads/".to_owned()),
            ("POST", format!("/v2/up/other/blobs/uploads/?mount={blob}&from=up/app")),
            ("POST", format!("/v2/up/app/blobs/uploads/?digest={}", digest(b"abc"))),
            ("PATCH", location.clone()),
            ("PUT", format!("{location}?digest={}", digest(b"abc"))),
            ("PUT", "/v2/up/app/manifests/v1".to_owned()),
            ("DELETE", format!("/v2/up/app/blobs/{blob}")),
        ] {
            let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
            let answer = client.raw(format!("{head}{chunks}").as_bytes(), method).expect(400);
            assert_eq!(answer.header("connection"), Some("close"), "{method} {path} {chunks:?}");
        }
        assert!(mirror.up.has_blob("app", &blob) && !mirror.up.has_blob("other", &blob));
        assert!(!mirror.up.has_blob("app", &digest(b"abc")));
    }
}

#[test]
fn wrong_bytes_are_refused_and_nothing_of_them_is_there() {
    let mirror = fronted(OPEN, "");
    let client = mirror.gate.plain();
    let (bytes, wrong) = (noise(3, 300_000), digest(b"something else"));
    let once = client.send("POST", &format!("/v2/up/app/blobs/uploads/?digest={wrong}"), &[], &bytes);
    is_error(&once, 400, "DIGEST_INVALID");
    let location = begin(&client, "up/app");
    is_error(&client.send("PUT", &format!("{location}?digest={wrong}"), &[], &bytes), 400, "DIGEST_INVALID");
    let location = begin(&client, "up/app");
    patch(&client, &location, "0-299999", &bytes).expect(202);
    is_error(&client.send("PUT", &format!("{location}?digest={wrong}"), &[], b""), 400, "DIGEST_INVALID");
    assert!(!mirror.up.has_blob("app", &wrong) && !mirror.up.has_blob("app", &digest(&bytes)));
    is_error(&mirror.pull(&format!("/v2/up/app/blobs/{wrong}")), 404, "BLOB_UNKNOWN");
    let bad = put_manifest(&client, "up/app", &digest(b"another"), &manifest(&[b"{}"]));
    is_error(&bad, 400, "DIGEST_INVALID");
    assert_eq!(mirror.up.count("PUT", "/manifests/"), 0);
}

#[test]
fn a_chunk_in_a_wrong_place_is_refused() {
    let mirror = fronted(OPEN, "");
    let client = mirror.gate.plain();
    let location = begin(&client, "up/app");
    patch(&client, &location, "0-9", &noise(4, 10)).expect(202);
    for range in ["0-9", "9-18", "11-20"] {
        is_error(&patch(&client, &location, range, &noise(4, 10)), 416, "BLOB_UPLOAD_INVALID");
    }
    assert_eq!(client.get(&location).expect(204).header("range"), Some("0-9"));
    let rest = noise(5, 10);
    patch(&client, &location, "10-19", &rest).expect(202);
    let whole = [noise(4, 10), rest].concat();
    client.send("PUT", &format!("{location}?digest={}", digest(&whole)), &[], b"").expect(201);
    assert!(mirror.up.has_blob("app", &digest(&whole)));
}

#[test]
fn an_upload_that_breaks_off_leaves_no_blob() {
    let mirror = fronted(OPEN, "");
    let client = mirror.gate.plain();
    let bytes = noise(6, 500_000);
    let location = begin(&client, "up/app");
    let mut stream = client.connect();
    let head =
        format!("PUT {location}?digest={} HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n", digest(&bytes));
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&bytes[..200_000]).unwrap();
    stream.flush().unwrap();
    drop(stream);
    mirror.gate.wait_for_log("method=PUT");
    assert!(!mirror.up.has_blob("app", &digest(&bytes)));
    // It can be pushed anew.
    push_blob(&client, "up/app", &bytes);
    assert!(mirror.up.has_blob("app", &digest(&bytes)));
}

#[test]
fn an_upload_belongs_to_who_began_it() {
    let mirror = fronted(USERS, "");
    let client = mirror.gate.tls();
    let (ada, eve) = (client.user("ada", "ada"), client.user("eve", "ada"));
    let location = begin(&ada, "up/app");
    let end = format!("{location}?digest={}", digest(b"bytes"));
    is_error(&eve.get(&location), 404, "BLOB_UPLOAD_UNKNOWN");
    is_error(&patch(&eve, &location, "0-4", b"bytes"), 404, "BLOB_UPLOAD_UNKNOWN");
    is_error(&eve.send("PUT", &end, &[], b"bytes"), 404, "BLOB_UPLOAD_UNKNOWN");
    is_error(&eve.delete(&location), 404, "BLOB_UPLOAD_UNKNOWN");
    let other = location.replace("/up/app/", "/up/other/");
    is_error(&patch(&ada, &other, "0-4", b"bytes"), 404, "BLOB_UPLOAD_UNKNOWN");
    is_error(&client.get(&location), 401, "UNAUTHORIZED");
    patch(&ada, &location, "0-4", b"bytes").expect(202);
    ada.send("PUT", &end, &[], b"").expect(201);
    is_error(&ada.get(&location), 404, "BLOB_UPLOAD_UNKNOWN");
    let cancelled = begin(&ada, "up/app");
    ada.delete(&cancelled).expect(204);
    is_error(&ada.get(&cancelled), 404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(mirror.up.uploads(), 0);
}

#[test]
fn what_is_pushed_is_pulled_at_once() {
    let mirror = fronted(OPEN, "tag_ttl = \"1h\"\nnegative_ttl = \"1h\"");
    let client = mirror.gate.plain();
    is_error(&mirror.pull("/v2/up/app/manifests/v1"), 404, "MANIFEST_UNKNOWN");
    let first = push_image(&client, "up/app", "v1");
    assert_eq!(digest(&mirror.pull("/v2/up/app/manifests/v1").expect(200).body), first);
    push_blob(&client, "up/app", b"another layer");
    let second = manifest(&[b"{}", b"another layer"]);
    put_manifest(&client, "up/app", "v1", &second).expect(201);
    assert_eq!(mirror.pull("/v2/up/app/manifests/v1").expect(200).body, second);
}

#[test]
fn what_the_upstream_says_to_a_push_is_told() {
    let mirror = fronted(OPEN, "username = \"gateway\"\npassword = \"right\"");
    let client = mirror.gate.plain();
    for (fault, status, code, words) in [
        // A reason is passed on; whoever gives none is not known to have looked at it.
        (Fault::Status(403), 403, "TOOMANYREQUESTS", "answered 403: the upstream says TOOMANYREQUESTS"),
        (Fault::Status(500), 500, "TOOMANYREQUESTS", "answered 500: the upstream says TOOMANYREQUESTS"),
        (Fault::Bare(403), 403, "DENIED", "mend username and password_file in upstreams/up.toml"),
        (Fault::Bare(500), 503, "UNAVAILABLE", "upstreams/up.toml"),
        (Fault::Status(503), 503, "UNAVAILABLE", "upstreams/up.toml"),
        (Fault::Status(429), 503, "UNAVAILABLE", "upstreams/up.toml"),
        (Fault::Status(400), 400, "TOOMANYREQUESTS", "the upstream says TOOMANYREQUESTS"),
        (Fault::Silent, 504, "UNAVAILABLE", "upstreams/up.toml"),
    ] {
        mirror.up.heal();
        mirror.up.fault("POST", "/uploads/", fault.clone());
        mirror.up.fault("PUT", "/manifests/", fault);
        let post = client.send("POST", "/v2/up/app/blobs/uploads/", &[], b"");
        let put = put_manifest(&client, "up/app", "v1", &manifest(&[b"{}"]));
        for answer in [post, put] {
            is_error(&answer, status, code);
            assert!(answer.message().contains(words), "{}", answer.message());
        }
    }
    mirror.up.heal();
    push_image(&client, "up/app", "v1");
}

#[test]
fn the_upstream_gets_the_credentials_of_the_gateway() {
    let mirror = fronted(USERS, "username = \"gateway\"\npassword = \"right\"");
    for door in [Door::basic, Door::bearer] {
        mirror.up.guard(door().user("gateway", "right", &["*"]));
        let ada = mirror.gate.tls().user("ada", "ada");
        push_image(&ada, "up/app", "v1");
        ada.get("/v2/up/app/manifests/v1").expect(200);
        mirror.up.expire_tokens();
        push_image(&ada, "up/app", "v2");
        assert!(mirror.up.asked().iter().all(|asked| asked.header("authorization") != Some("Basic YWRhOmFkYQ==")));
    }
}

/// Those who push left nothing of the upstream to anybody else.
#[test]
fn slow_pushes_took_all_slots() {
    let mirror = fronted(OPEN, "concurrency = 4\nidle_timeout = \"20s\"");
    let client = mirror.gate.plain();
    let (image, _) = mirror.up.image("app", "v1", b"a layer");
    let locations: Vec<_> = (0..6).map(|_| begin(&client, "up/app")).collect();
    let pushing: Vec<_> = locations
        .iter()
        .map(|location| {
            let mut stream = client.connect();
            let head = format!("PATCH {location} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nsome");
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    super::are_there(&mirror.gate, pushing.len());
    assert_eq!(digest(&mirror.pull("/v2/up/app/manifests/v1").expect(200).body), image);
    drop(pushing);
}

/// What docker up to 1.9 pushes: signed, with the signatures before the last bracket. What was signed, and all of it.
fn signed() -> (Vec<u8>, Vec<u8>) {
    let payload = b"{\n   \"schemaVersion\": 1,\n   \"name\": \"app\"\n}".to_vec();
    let length = payload.len() - 2;
    let protected = URL_SAFE_NO_PAD.encode(format!(r#"{{"formatLength":{length},"formatTail":"Cn0"}}"#));
    let signatures = format!(r#","signatures":[{{"signature":"x","protected":"{protected}"}}]"#);
    let whole = [&payload[..length], signatures.as_bytes(), b"\n}"].concat();
    (payload, whole)
}

/// "Unable to verify manifest digest" is what docker said: it is that of what was signed, where the upstream is docker's registry.
#[test]
fn a_signed_manifest_was_named_by_all_of_its_bytes() {
    let (payload, whole) = signed();
    let kind = [("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws")];
    for named in [digest(&payload), digest(&whole)] {
        let mirror = fronted(OPEN, "");
        let client = mirror.gate.plain();
        mirror.up.fault("PUT", "/manifests/", Fault::Digest(named.clone()));
        for reference in ["v1", &named] {
            let pushed = client.send("PUT", &format!("/v2/up/app/manifests/{reference}"), &kind, &whole).expect(201);
            assert_eq!(pushed.header("docker-content-digest"), Some(&*named), "{reference}");
            assert_eq!(pushed.header("location"), Some(&*format!("/v2/up/app/manifests/{named}")));
        }
        let other = format!("/v2/up/app/manifests/{}", digest(b"other"));
        is_error(&client.send("PUT", &other, &kind, &whole), 400, "DIGEST_INVALID");
    }
}

/// Whoever may make tags and not move them wrote into a signature that what stands in the tag was signed.
#[test]
fn a_forged_signature_does_not_move_a_tag() {
    const MAKER: &str =
        "[[access]]\nwho = [\"authenticated\"]\nrepositories = [\"**\"]\nactions = [\"pull\", \"create\"]\n";
    let mirror = fronted(MAKER, "");
    let ada = mirror.gate.tls().user("ada", "ada");
    let kind = [("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws")];
    let (payload, whole) = signed();
    let put = |body: &[u8]| ada.send("PUT", "/v2/up/app/manifests/v1", &kind, body);
    mirror.up.manifest("app", "v1", &payload);
    let tail = URL_SAFE_NO_PAD.encode(&payload);
    let protected = URL_SAFE_NO_PAD.encode(format!(r#"{{"formatLength":0,"formatTail":"{tail}"}}"#));
    let forged = format!(r#"{{"schemaVersion":1,"name":"other","signatures":[{{"protected":"{protected}"}}]}}"#);
    for body in [forged.as_bytes(), b"{\"schemaVersion\":1}"] {
        assert_eq!(put(body).expect(403).code(), "DENIED");
    }
    assert_eq!(mirror.up.count("PUT", "/manifests/"), 0);
    // What is there may be said once more, with whatever signature.
    put(&whole).expect(201);
}

#[test]
fn several_tags_at_once_are_asked_for_there() {
    let mirror = fronted(OPEN, "");
    let client = mirror.gate.plain();
    let image = push_image(&client, "up/app", "v0");
    let bytes = manifest(&[b"{}", b"a layer"]);
    let put = |client: &Client, query: &str| {
        let answer = put_manifest(client, "up/app", &format!("{image}?{query}"), &bytes).expect(201);
        let tags = answer.headers.iter().filter(|(name, _)| name == "oci-tag");
        tags.map(|(_, value)| value.clone()).collect::<Vec<_>>()
    };
    // Who knows nothing of them names none, and a client then pushes each.
    assert_eq!(put(&client, "tag=v1&tag=v2"), [""; 0]);
    let asked = mirror.up.asked_for("PUT", "/manifests/");
    assert_eq!(asked.last().unwrap().query, "tag=v1&tag=v2");

    let behind = Gate::start(OPEN);
    let gate = prepare(OPEN, &upstream("fronted", &format!("http://{}", behind.main), "")).start();
    let client = gate.plain();
    push_image(&client, "up/app", "v0");
    is_error(&client.get("/v2/up/app/manifests/v1"), 404, "MANIFEST_UNKNOWN");
    assert_eq!(put(&client, "tag=v1&tag=v2"), ["v1", "v2"]);
    for tag in ["v1", "v2"] {
        assert_eq!(client.get(&format!("/v2/up/app/manifests/{tag}")).expect(200).body, bytes);
        assert_eq!(behind.plain().get(&format!("/v2/app/manifests/{tag}")).expect(200).body, bytes);
    }
}

#[test]
fn a_status_that_lies_ended_the_upload() {
    let mirror = fronted(OPEN, "");
    let client = mirror.gate.plain();
    let bytes = noise(3, 100_000);
    let location = here(&client.send("POST", "/v2/up/app/blobs/uploads/", &[], b"").expect(202));
    let location = here(&patch(&client, &location, "0-59999", &bytes[..60_000]).expect(202));
    mirror.up.fault("GET", "/blobs/uploads/", Fault::Header("Range", "0-12"));
    assert_eq!(client.get(&location).expect(204).header("range"), Some("0-59999"));
    let location = here(&patch(&client, &location, "60000-99999", &bytes[60_000..]).expect(202));
    client.send("PUT", &format!("{location}?digest={}", digest(&bytes)), &[], b"").expect(201);
    assert_eq!(digest(&mirror.pull(&format!("/v2/up/app/blobs/{}", digest(&bytes))).expect(200).body), digest(&bytes));
}

#[test]
fn a_chunk_was_refused_while_somebody_asked_how_far_the_upload_is() {
    let mirror = fronted(OPEN, "");
    let client = mirror.gate.plain();
    let location = here(&client.send("POST", "/v2/up/app/blobs/uploads/", &[], b"").expect(202));
    let latch = Latch::new();
    mirror.up.fault("GET", "/blobs/uploads/", Fault::Hold(latch.clone()));
    let asking = std::thread::spawn({
        let (client, location) = (mirror.gate.plain(), location.clone());
        move || client.get(&location).status
    });
    mirror.up.wait_for("GET", "/blobs/uploads/", 1);
    patch(&client, &location, "0-2", b"abc").expect(202);
    latch.open();
    assert_eq!(asking.join().unwrap(), 204);
    assert_eq!(client.get(&location).expect(204).header("range"), Some("0-2"));
}

#[test]
fn a_chunk_that_stalled_or_broke_leaves_the_upload() {
    let prepared_as = format!("{OPEN}[limits]\nbody_idle_timeout = \"1s\"\n");
    let mirror = fronted(&prepared_as, "");
    let client = mirror.gate.plain();
    let bytes = noise(4, 100_000);
    for method in ["PATCH", "PUT"] {
        for stalls in [true, false] {
            let location = here(&client.send("POST", "/v2/up/app/blobs/uploads/", &[], b"").expect(202));
            let query = if method == "PUT" { format!("?digest={}", digest(&bytes)) } else { String::new() };
            let mut stream = client.connect();
            let head =
                format!("{method} {location}{query} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", bytes.len());
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&bytes[..50_000]).unwrap();
            stream.flush().unwrap();
            if stalls {
                let answer = Answer::read(stream.as_mut(), method).unwrap().expect(408);
                assert_eq!(answer.code(), "BLOB_UPLOAD_INVALID");
                assert!(answer.message().contains("limits.body_idle_timeout"), "{}", answer.message());
            } else {
                // Else it may be gone before anybody read of it, and the upload would look as free as after it.
                wait_until("the upload to be in use", || client.get(&location).status == 409);
            }
            drop(stream);
            let mut offset = 0;
            wait_until("the upload to be free", || {
                let status = client.get(&location);
                let range = status.header("range").and_then(|range| range.strip_prefix("0-")?.parse::<usize>().ok());
                offset = range.map_or(0, |last| if last == 0 { 0 } else { last + 1 });
                status.status == 204
            });
            let location = here(&patch(&client, &location, &format!("{offset}-99999"), &bytes[offset..]).expect(202));
            client.send("PUT", &format!("{location}?digest={}", digest(&bytes)), &[], b"").expect(201);
        }
    }
}
