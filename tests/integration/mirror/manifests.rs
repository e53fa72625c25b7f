//! Manifests: heads, faults, and how often the upstream is asked.

use super::{Mirror, cache_is_clean, crowd, is_error, wait_until};
use crate::support::content::{OCI_MANIFEST, digest, manifest};
use crate::support::v2_upstream::{Fault, Latch};

#[test]
fn head_says_how_long_a_manifest_is_and_what_it_is() {
    let mirror = Mirror::start("");
    let bytes = manifest(&[b"{}", b"a layer"]);
    let name = mirror.up.manifest("app", "v1", &bytes);
    for reference in ["v1", &name] {
        let head = mirror.gate.plain().head(&format!("/v2/up/app/manifests/{reference}")).expect(200);
        assert_eq!(head.header("content-length"), Some(bytes.len().to_string().as_str()));
        assert_eq!(head.header("docker-content-digest"), Some(name.as_str()));
        assert_eq!(head.header("content-type"), Some(OCI_MANIFEST));
        let whole = mirror.pull(&format!("/v2/up/app/manifests/{reference}")).expect(200);
        assert_eq!(whole.body, bytes);
    }
}

/// podman and kaniko ask by GET alone, and Docker Hub counts those.
#[test]
fn pulls_by_tag_spend_heads_and_not_gets() {
    let mirror = Mirror::start("tag_ttl = \"0s\"");
    let (name, _) = mirror.up.image("app", "v1", b"a layer");
    for _ in 0..10 {
        mirror.pull("/v2/up/app/manifests/v1").expect(200);
    }
    assert_eq!(mirror.up.count("HEAD", "/manifests/v1"), 10);
    assert_eq!(mirror.up.count("GET", "/manifests/"), 1);
    for _ in 0..3 {
        mirror.pull(&format!("/v2/up/app/manifests/{name}")).expect(200);
    }
    assert_eq!((mirror.up.count("GET", "/manifests/"), mirror.up.count("HEAD", &name)), (1, 0));
}

#[test]
fn a_manifest_that_is_not_what_was_asked_for_is_not_given() {
    for (fault, status) in [
        (Fault::WrongBytes, 502),
        (Fault::Extra, 502),
        (Fault::ExtraChunked, 502),
        (Fault::Truncated(50), 503),
        (Fault::Reset(60), 503),
        (Fault::SilentAt(50), 503),
        (Fault::Silent, 504),
        (Fault::Status(500), 503),
        (Fault::Status(429), 503),
    ] {
        for clients in [1, 50] {
            let mirror = Mirror::start("first_byte_timeout = \"2s\"");
            let (name, _) = mirror.up.image("app", "v1", b"a layer");
            let latch = Latch::new();
            mirror.up.fault("GET", "/manifests/", fault.clone());
            mirror.up.fault_some("GET", "/manifests/", 0..1, Fault::Hold(latch.clone()));
            let path = format!("/v2/up/app/manifests/{name}");
            let pullers = crowd(&mirror.gate, clients, &path);
            latch.open();
            for puller in pullers {
                is_error(&puller.join().unwrap().unwrap(), status, "UNAVAILABLE");
            }
            assert!(mirror.up.count("GET", "/manifests/") <= 2, "{status} for {clients}");
            mirror.up.heal();
            // Whoever comes while the last try of before is under way is told what becomes of that.
            wait_until("the last try to be over", || mirror.pull(&path).status == 200);
            assert_eq!(digest(&mirror.pull(&path).expect(200).body), name);
            assert_eq!(digest(&mirror.pull("/v2/up/app/manifests/v1").expect(200).body), name);
            cache_is_clean(&mirror.gate.path("cache"));
        }
    }
}

#[test]
fn a_tag_whose_digest_lies_is_an_error_and_is_asked_for_again() {
    let mirror = Mirror::start("");
    let (name, _) = mirror.up.image("app", "v1", b"a layer");
    let other = digest(b"another");
    mirror.up.fault("HEAD", "/manifests/v1", Fault::Digest(other));
    is_error(&mirror.pull("/v2/up/app/manifests/v1"), 404, "MANIFEST_UNKNOWN");
    mirror.up.heal();
    assert_eq!(digest(&mirror.pull("/v2/up/app/manifests/v1").expect(200).body), name);
}

#[test]
fn an_upstream_that_names_no_digest_is_read() {
    let mirror = Mirror::start("");
    let (name, _) = mirror.up.image("app", "v1", b"a layer");
    mirror.up.fault("HEAD", "/manifests/", Fault::Digest(String::new()));
    mirror.up.fault("GET", "/manifests/", Fault::Digest(String::new()));
    let answer = mirror.pull("/v2/up/app/manifests/v1").expect(200);
    assert_eq!(answer.header("docker-content-digest"), Some(name.as_str()));
    assert_eq!(digest(&answer.body), name);
    assert_eq!(mirror.up.count("GET", "/manifests/"), 1);
}

#[test]
fn a_manifest_that_is_too_large_is_an_error() {
    let mirror = Mirror::start_with(&format!("{}[limits]\nmanifest_bytes = \"64KiB\"\n", super::OPEN), "");
    let large = mirror.up.manifest("app", "large", &vec![b' '; 70_000]);
    for reference in ["large", &large] {
        is_error(&mirror.pull(&format!("/v2/up/app/manifests/{reference}")), 502, "UNAVAILABLE");
    }
}

/// A portal, a policy, a proxy that says that something is down: 200, and what it says is no manifest.
#[test]
fn what_is_no_manifest_took_the_place_of_one() {
    let page = "<html><body>The registry is being mended.</body></html>";
    let others = [
        ("text/html", page),
        ("text/html; charset=utf-8", page),
        ("", page),
        ("", ""),
        (OCI_MANIFEST, ""),
        (OCI_MANIFEST, page),
        ("application/json", "{\"errors\":[{\"code\":\"DENIED\"}]}"),
        ("application/json", "{}"),
        ("application/json", "null"),
    ];
    for (kind, body) in others {
        let mirror = Mirror::start("tag_ttl = \"0s\"");
        mirror.up.image("app", "v1", b"a layer");
        let good = mirror.pull("/v2/up/app/manifests/v1").expect(200).body;
        mirror.up.fault("GET", "/manifests/", Fault::Instead(kind, body));
        mirror.up.fault("HEAD", "/manifests/", Fault::Instead(kind, body));
        // What was good is given, as while the upstream cannot be asked.
        assert!(mirror.pull("/v2/up/app/manifests/v1").expect(200).body == good, "{kind} {body}");
        // And where there is nothing older, it is told.
        let answer = mirror.pull("/v2/up/other/manifests/v1");
        is_error(&answer, 502, "UNAVAILABLE");
        mirror.up.heal();
        mirror.up.image("other", "v1", b"another layer");
        mirror.pull("/v2/up/other/manifests/v1").expect(200);
    }
}

#[test]
fn a_manifest_says_itself_what_it_is_where_its_upstream_says_nothing_of_use() {
    for kind in ["", "binary/octet-stream", "application/octet-stream", "text/plain", "application/json"] {
        let mirror = Mirror::start("");
        let (name, _) = mirror.up.image("app", "v1", b"a layer");
        mirror.up.fault("GET", "/manifests/", Fault::Type(kind));
        mirror.up.fault("HEAD", "/manifests/", Fault::Type(kind));
        for reference in ["v1", &name] {
            let path = format!("/v2/up/app/manifests/{reference}");
            // As it came, and as it was kept.
            for _ in 0..2 {
                assert_eq!(mirror.pull(&path).expect(200).header("content-type"), Some(OCI_MANIFEST), "{kind}");
                assert_eq!(mirror.gate.plain().head(&path).expect(200).header("content-type"), Some(OCI_MANIFEST));
            }
        }
    }
}

/// Some registries answer GET alone as they should: GitLab's virtual ones, Harbor's proxies, stores behind signed URLs.
#[test]
fn a_tag_that_head_did_not_find_was_not_there() {
    let heads = [400, 401, 403, 404, 405, 500, 501].map(Fault::Status);
    for fault in heads.into_iter().chain([Fault::Digest(String::new())]) {
        let mirror = Mirror::start("");
        mirror.up.image("app", "v1", b"a layer");
        mirror.up.fault("HEAD", "/manifests/", fault);
        mirror.pull("/v2/up/app/manifests/v1").expect(200);
        assert_eq!(mirror.up.count("GET", "/manifests/"), 1);
    }
    // One that wants to be left alone is.
    let mirror = Mirror::start("");
    mirror.up.image("app", "v1", b"a layer");
    mirror.up.fault("HEAD", "/manifests/", Fault::Status(429));
    mirror.pull("/v2/up/app/manifests/v1").expect(503);
    assert_eq!(mirror.up.count("GET", "/manifests/"), 0);
}
