//! Tags: for how long an answer is good, what is asked then, and by how many.

use super::{Mirror, crowd, is_error, mirror_of, prepare};
use crate::support::V2Upstream;
use crate::support::content::digest;
use crate::support::v1_upstream::nobody;
use crate::support::v2_upstream::{Fault, Latch};

const PATH: &str = "/v2/up/app/manifests/v1";

#[test]
fn a_tag_is_good_for_its_time() {
    let mirror = Mirror::start("tag_ttl = \"1h\"");
    let (old, _) = mirror.up.image("app", "v1", b"old");
    for _ in 0..3 {
        assert_eq!(digest(&mirror.pull(PATH).expect(200).body), old);
    }
    assert_eq!(mirror.up.count("HEAD", "/manifests/v1"), 1);
    mirror.up.image("app", "v1", b"new");
    assert_eq!(digest(&mirror.pull(PATH).expect(200).body), old);
    assert_eq!(mirror.up.count("HEAD", "/manifests/v1"), 1);
}

#[test]
fn a_tag_that_moved_is_seen_after_its_time() {
    let mirror = Mirror::start("tag_ttl = \"0s\"");
    let (old, _) = mirror.up.image("app", "v1", b"old");
    assert_eq!(digest(&mirror.pull(PATH).expect(200).body), old);
    let (new, _) = mirror.up.image("app", "v1", b"new");
    assert_eq!(digest(&mirror.pull(PATH).expect(200).body), new);
    // The old one is still there by its name.
    assert_eq!(digest(&mirror.pull(&format!("/v2/up/app/manifests/{old}")).expect(200).body), old);
    assert_eq!(mirror.up.count("GET", "/manifests/"), 2);
}

#[test]
fn a_404_is_believed() {
    let mirror = Mirror::start("tag_ttl = \"0s\"\nnegative_ttl = \"0s\"");
    let (name, _) = mirror.up.image("app", "v1", b"a layer");
    mirror.pull(PATH).expect(200);
    mirror.up.untag("app", "v1");
    is_error(&mirror.pull(PATH), 404, "MANIFEST_UNKNOWN");
    is_error(&mirror.pull(PATH), 404, "MANIFEST_UNKNOWN");
    assert_eq!(mirror.up.count("HEAD", "/manifests/v1"), 3, "it is not remembered where that takes no time");
    mirror.up.image("app", "v1", b"a layer");
    assert_eq!(digest(&mirror.pull(PATH).expect(200).body), name);
}

#[test]
fn a_404_is_remembered_for_its_time() {
    let mirror = Mirror::start("negative_ttl = \"1h\"");
    for _ in 0..3 {
        is_error(&mirror.pull(PATH), 404, "MANIFEST_UNKNOWN");
    }
    assert_eq!(mirror.up.count("HEAD", "/manifests/v1"), 1);
    // The name alone is remembered, not what it may come to name.
    let (name, _) = mirror.up.image("app", "v1", b"a layer");
    mirror.pull(&format!("/v2/up/app/manifests/{name}")).expect(200);
    is_error(&mirror.pull(PATH), 404, "MANIFEST_UNKNOWN");
}

#[test]
fn fifty_who_wait_are_one_question() {
    for ttl in ["0s", "1h"] {
        let mirror =
            Mirror::start(&format!("tag_ttl = \"{ttl}\"\nfirst_byte_timeout = \"2s\"\nrevalidate_timeout = \"3s\""));
        let (name, _) = mirror.up.image("app", "v1", b"a layer");
        if ttl == "0s" {
            mirror.pull(PATH).expect(200);
        }
        mirror.up.forget_asked();
        let latch = Latch::new();
        mirror.up.fault_some("HEAD", "/manifests/v1", 0..1, Fault::Hold(latch.clone()));
        let pullers = crowd(&mirror.gate, 50, PATH);
        latch.open();
        for puller in pullers {
            assert_eq!(digest(&puller.join().unwrap().unwrap().expect(200).body), name);
        }
        assert_eq!(mirror.up.count("HEAD", "/manifests/v1"), 1, "{ttl}");
        assert!(mirror.up.count("GET", "/manifests/") <= 1, "{ttl}");
    }
}

#[test]
fn what_is_known_outlives_a_restart() {
    for (ttl, questions) in [("1h", 0), ("0s", 1)] {
        let up = V2Upstream::start();
        let (name, layer) = up.image("app", "v1", b"a layer");
        let prepared = prepare(super::OPEN, &mirror_of(&up.url(), &format!("tag_ttl = \"{ttl}\"")));
        let pull_all = |gate: &crate::support::Gate| {
            let answer = super::pull(gate.main, PATH, &[]).unwrap().expect(200);
            assert_eq!(digest(&answer.body), name);
            assert_eq!(answer.header("content-type"), Some(crate::support::content::OCI_MANIFEST));
            let blob = super::pull(gate.main, &format!("/v2/up/app/blobs/{layer}"), &[]).unwrap().expect(200);
            assert_eq!(blob.body, b"a layer");
        };
        let gate = prepared.start();
        pull_all(&gate);
        assert_eq!(gate.stop(), 0);
        up.forget_asked();
        let gate = prepared.start();
        pull_all(&gate);
        assert_eq!(up.count("HEAD", "/manifests/v1"), questions, "{ttl}");
        assert_eq!(up.count("GET", ""), 0, "{ttl}");
        // And once more where the upstream is gone, after a kill.
        drop(up);
        pull_all(&gate);
        let prepared = gate.kill();
        pull_all(&prepared.start());
    }
}

#[test]
fn it_starts_while_the_upstream_is_down() {
    let prepared = prepare(super::OPEN, &mirror_of(&format!("http://{}", nobody()), ""));
    let gate = prepared.start();
    gate.admin().get("/readyz").expect(200);
    for path in [PATH.to_owned(), format!("/v2/up/app/blobs/{}", digest(b"x"))] {
        let answer = super::pull(gate.main, &path, &[]).unwrap();
        is_error(&answer, 503, "UNAVAILABLE");
        assert!(answer.header("retry-after").is_some());
        assert!(answer.message().contains("upstreams/up.toml"), "{}", answer.message());
    }
    // The registry inside goes on beside.
    crate::support::content::push_image(&gate.plain(), "app", "v1");
    gate.plain().get("/v2/app/manifests/v1").expect(200);
}
