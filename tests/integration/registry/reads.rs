//! Reading: ranges, conditions, headers.

use super::{open, some_bytes};
use crate::support::content::{self, OCI_MANIFEST, digest, push_blob, push_image};
use crate::support::{Answer, Client, Gate};

/// Blobs above this size are sent from their files.
const SMALL_MEMORY: &str = "[cache]\nmemory_object_max = \"1KiB\"\n";

/// A range, and what comes of it on 100 bytes: the status, Content-Range, and the bytes from and to.
const RANGES: [(&str, u16, Option<&str>, usize, usize); 17] = [
    ("bytes=0-9", 206, Some("bytes 0-9/100"), 0, 10),
    ("bytes=0-0", 206, Some("bytes 0-0/100"), 0, 1),
    ("bytes=90-", 206, Some("bytes 90-99/100"), 90, 100),
    ("bytes=99-99", 206, Some("bytes 99-99/100"), 99, 100),
    ("bytes=5-100000", 206, Some("bytes 5-99/100"), 5, 100),
    ("bytes=-7", 206, Some("bytes 93-99/100"), 93, 100),
    ("bytes=-100000", 206, Some("bytes 0-99/100"), 0, 100),
    ("bytes=100-", 416, Some("bytes */100"), 0, 0),
    ("bytes=100-200", 416, Some("bytes */100"), 0, 0),
    ("bytes=-0", 416, Some("bytes */100"), 0, 0),
    // RFC 9110: what cannot be read is ignored, and so may several ranges be.
    ("bytes=0-1,5-6", 200, None, 0, 100),
    ("bytes=9-5", 200, None, 0, 100),
    ("bytes=a-b", 200, None, 0, 100),
    ("bytes=-", 200, None, 0, 100),
    ("items=0-9", 200, None, 0, 100),
    ("bytes 0-9", 200, None, 0, 100),
    ("bytes=99999999999999999999-", 200, None, 0, 100),
];

#[test]
fn a_range_of_a_blob_is_just_that_range() {
    let gate = open("");
    let bytes = some_bytes(100);
    let path = format!("/v2/app/blobs/{}", push_blob(&gate.plain(), "app", &bytes));
    // The first comes from the file, the others from memory.
    for (range, status, content_range, from, to) in RANGES {
        let answer = gate.plain().with("Range", range).get(&path).expect(status);
        assert_eq!(answer.header("content-range"), content_range, "{range}");
        if status == 416 {
            assert_eq!(answer.code(), "RANGE_INVALID");
            assert!(answer.message().contains("100 bytes"), "{}", answer.message());
        } else {
            assert_eq!(answer.body, bytes[from..to], "{range}");
            assert_eq!(answer.header("docker-content-digest"), Some(&*digest(&bytes)), "{range}");
            assert_eq!(answer.header("accept-ranges"), Some("bytes"), "{range}");
        }
    }
}

#[test]
fn a_range_of_a_large_blob_comes_from_its_file() {
    let gate = open(SMALL_MEMORY);
    let bytes = some_bytes(1_000_000);
    let path = format!("/v2/app/blobs/{}", push_blob(&gate.plain(), "app", &bytes));
    for (from, to) in [(0, 0), (0, 999_999), (123_456, 876_543), (262_143, 262_144), (999_999, 999_999)] {
        let answer = gate.plain().with("Range", &format!("bytes={from}-{to}")).get(&path).expect(206);
        assert_eq!(answer.header("content-range"), Some(&*format!("bytes {from}-{to}/1000000")));
        assert!(answer.body == bytes[from..=to], "{from}-{to}");
    }
    gate.plain().with("Range", "bytes=1000000-").get(&path).expect(416);
    assert!(gate.plain().get(&path).expect(200).body == bytes);
}

#[test]
fn an_empty_blob_has_no_ranges() {
    let gate = open("");
    let path = format!("/v2/app/blobs/{}", push_blob(&gate.plain(), "app", b""));
    assert_eq!(gate.plain().get(&path).expect(200).header("content-length"), Some("0"));
    let answer = gate.plain().with("Range", "bytes=0-").get(&path).expect(416);
    assert_eq!(answer.header("content-range"), Some("bytes */0"));
}

#[test]
fn a_range_is_sent_only_of_what_the_caller_has_begun_with() {
    let gate = open("");
    let bytes = some_bytes(100);
    let digest = push_blob(&gate.plain(), "app", &bytes);
    let path = format!("/v2/app/blobs/{digest}");
    let etag = gate.plain().head(&path).expect(200).header("etag").unwrap().to_owned();
    assert_eq!(etag, format!("\"{digest}\""));
    // A date is never believed, and If-Range wants a strong tag (RFC 9110, section 13.1.5).
    let weak = format!("W/{etag}");
    for (tag, status) in [(&*etag, 206), ("\"other\"", 200), (&*weak, 200), ("Sun, 22 Nov 2026 00:00:00 GMT", 200)] {
        let answer = gate.plain().with("Range", "bytes=10-19").with("If-Range", tag).get(&path).expect(status);
        assert_eq!(answer.body.len(), if status == 206 { 10 } else { 100 }, "{tag}");
    }
}

#[test]
fn what_the_caller_has_is_not_sent_again() {
    let gate = open("");
    let client = gate.plain();
    let manifest = push_image(&client, "app", "v1");
    let blob = digest(b"a layer");
    let by_tag = ("/v2/app/manifests/v1".to_owned(), manifest.clone());
    let by_digest = (format!("/v2/app/manifests/{manifest}"), manifest);
    for (path, digest) in [by_tag, by_digest, (format!("/v2/app/blobs/{blob}"), blob)] {
        let (exact, other) = (format!("\"{digest}\""), "\"sha256:0\"");
        let (listed, weak) = (format!("{other}, {exact}"), format!("W/{exact}"));
        for method in ["GET", "HEAD"] {
            for tag in [&*exact, &*listed, &*weak, "*"] {
                let answer = client.send(method, &path, &[("If-None-Match", tag)], b"").expect(304);
                assert_eq!(answer.header("etag"), Some(&*exact), "{method} {path}");
                assert_eq!(answer.header("docker-content-digest"), Some(&*digest));
                assert!(answer.body.is_empty());
            }
            client.send(method, &path, &[("If-None-Match", other)], b"").expect(200);
        }
        let both = client.with("If-None-Match", &exact).with("Range", "bytes=0-1");
        both.get(&path).expect(304);
    }
    client.with("If-None-Match", "*").get("/v2/app/manifests/missing").expect(404);
}

/// Headers that differ from answer to answer.
const OF_ONE_ANSWER: [&str; 2] = ["date", "x-request-id"];

#[test]
fn head_tells_what_get_would() {
    let gate = open("");
    let client = gate.plain();
    let manifest = push_image(&client, "app", "v1");
    let headers = |answer: &Answer| {
        let all = answer.headers.iter().filter(|(name, _)| !OF_ONE_ANSWER.contains(&name.as_str()));
        let mut headers: Vec<_> = all.cloned().collect();
        headers.sort();
        headers
    };
    for path in [
        "/v2/".to_owned(),
        "/v2/_catalog".into(),
        "/v2/app/tags/list".into(),
        "/v2/app/manifests/v1".into(),
        format!("/v2/app/manifests/{manifest}"),
        format!("/v2/app/blobs/{}", digest(b"a layer")),
        format!("/v2/app/referrers/{manifest}"),
        "/v2/app/manifests/missing".into(),
        format!("/v2/app/blobs/{}", digest(b"missing")),
    ] {
        let (get, head) = (client.get(&path), client.head(&path));
        assert_eq!(get.status, head.status, "{path}");
        assert_eq!(headers(&get), headers(&head), "{path}");
        assert!(head.body.is_empty() && !get.body.is_empty(), "{path}");
        assert_eq!(get.header("content-length"), Some(&*get.body.len().to_string()), "{path}");
    }
}

#[test]
fn a_manifest_comes_as_what_it_is_whatever_is_accepted() {
    let gate = open("");
    push_image(&gate.plain(), "app", "v1");
    // As docker sends them: one line each.
    let docker = [
        "application/vnd.oci.image.index.v1+json",
        OCI_MANIFEST,
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    ];
    let six = docker.iter().fold(gate.plain(), |client, line| client.with("Accept", line));
    let listed = gate.plain().with("Accept", &docker.join(", "));
    let other = gate.plain().with("Accept", "application/vnd.docker.distribution.manifest.v2+json");
    for client in [six, listed, gate.plain().with("Accept", "*/*"), gate.plain(), other] {
        let answer = client.get("/v2/app/manifests/v1").expect(200);
        assert_eq!(answer.header("content-type"), Some(OCI_MANIFEST));
        assert_eq!(answer.body, content::manifest(&[b"{}", b"a layer"]));
    }
}

#[test]
fn every_answer_about_content_names_its_digest() {
    let gate = open("");
    let client = gate.plain();
    let (bytes, other) = (some_bytes(50), some_bytes(60));
    let (blob, second) = (digest(&bytes), digest(&other));
    let names = |answer: Answer, status: u16, digest: &str| {
        assert_eq!(answer.expect(status).header("docker-content-digest"), Some(digest));
    };
    let location = content::begin(&client, "app");
    names(client.send("PUT", &format!("{location}?digest={blob}"), &[], &bytes), 201, &blob);
    let monolithic = format!("/v2/app/blobs/uploads/?digest={second}");
    names(client.send("POST", &monolithic, &[], &other), 201, &second);
    let mount = format!("/v2/other/blobs/uploads/?mount={blob}&from=app");
    names(client.send("POST", &mount, &[], b""), 201, &blob);
    let bytes = content::manifest(&[&bytes, &other]);
    let manifest = digest(&bytes);
    for reference in ["v1", &manifest] {
        let path = format!("/v2/app/manifests/{reference}");
        names(content::put_manifest(&client, "app", reference, &bytes), 201, &manifest);
        names(client.get(&path), 200, &manifest);
        names(client.head(&path), 200, &manifest);
    }
    let path = format!("/v2/app/blobs/{blob}");
    names(client.get(&path), 200, &blob);
    names(client.head(&path), 200, &blob);
    names(client.with("Range", "bytes=1-2").get(&path), 206, &blob);
    locations_lead_to_content(&gate, &client);
}

/// What a 201 names as its place is there.
fn locations_lead_to_content(gate: &Gate, client: &Client) {
    let location = content::begin(client, "place");
    assert!(location.starts_with("/v2/place/blobs/uploads/"), "{location}");
    let pushed = client.send("PUT", &format!("{location}?digest={}", digest(b"{}")), &[], b"{}").expect(201);
    assert_eq!(gate.plain().get(pushed.header("location").unwrap()).expect(200).body, b"{}");
    let bytes = content::manifest(&[b"{}"]);
    let pushed = content::put_manifest(client, "place", "v1", &bytes).expect(201);
    assert_eq!(gate.plain().get(pushed.header("location").unwrap()).expect(200).body, bytes);
}
