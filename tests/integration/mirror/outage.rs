//! Older answers while the upstream cannot be asked, and when they are not given.

use std::time::{Duration, Instant};

use super::{Mirror, is_error, mirror_of, prepare, pull};
use crate::support::V2Upstream;
use crate::support::content::digest;
use crate::support::gate::wait_until;
use crate::support::v2_upstream::{Door, Fault};

const PATH: &str = "/v2/up/app/manifests/v1";
/// The time that a revalidation may take, and one second.
const SOON: Duration = Duration::from_millis(1_500);

/// An older answer, soon; and from then on at once.
fn is_stale(mirror: &Mirror, name: &str) {
    let began = Instant::now();
    assert_eq!(digest(&mirror.pull(PATH).expect(200).body), name);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert_eq!(mirror.metric("dockgate_stale_answers_total{upstream=\"up\"}"), 1);
    let asked = mirror.up.count("HEAD", "/manifests/");
    for _ in 0..5 {
        let answer = mirror.pull(PATH).expect(200);
        assert_eq!(digest(&answer.body), name);
        let warning = answer.header("warning").unwrap();
        assert!(warning.starts_with("299 - \"stale: up cannot be asked now; this is what it said "), "{warning}");
    }
    assert!(mirror.up.count("HEAD", "/manifests/") <= asked + 1, "it is left alone for a while");
    mirror.gate.wait_for_log("an older answer is given");
}

#[test]
fn older_answers_are_given_while_the_upstream_fails() {
    for fault in [
        Fault::Status(429),
        Fault::StatusRetryAfter(429, 3600),
        Fault::Status(500),
        Fault::Status(503),
        Fault::Silent,
        Fault::Redirect("/v2/app/manifests/v1".to_owned()),
    ] {
        let mirror = Mirror::start("tag_ttl = \"0s\"");
        let (name, layer) = mirror.up.image("app", "v1", b"a layer");
        mirror.pull(PATH).expect(200);
        mirror.pull(&format!("/v2/up/app/blobs/{layer}")).expect(200);
        mirror.up.fault("HEAD", "/manifests/v1", fault.clone());
        mirror.up.fault("GET", "/manifests/v1", fault);
        is_stale(&mirror, &name);
        mirror.pull(&format!("/v2/up/app/blobs/{layer}")).expect(200);
    }
}

#[test]
fn the_upstream_is_seen_again_by_itself() {
    let mirror = Mirror::start("tag_ttl = \"0s\"");
    let (old, _) = mirror.up.image("app", "v1", b"old");
    mirror.pull(PATH).expect(200);
    let (new, _) = mirror.up.image("app", "v1", b"new");
    mirror.up.fault("HEAD", "/manifests/v1", Fault::Status(500));
    mirror.up.fault("GET", "/manifests/v1", Fault::Status(500));
    is_stale(&mirror, &old);
    mirror.up.heal();
    wait_until("the new image", || digest(&mirror.pull(PATH).expect(200).body) == new);
    assert_eq!(mirror.pull(PATH).header("warning"), None);
}

#[test]
fn older_answers_are_given_while_nobody_is_there() {
    let up = V2Upstream::start();
    let (name, layer) = up.image("app", "v1", b"a layer");
    let gate = prepare(super::OPEN, &mirror_of(&up.url(), "tag_ttl = \"0s\"")).start();
    let get = |path: &str| pull(gate.main, path, &[]).unwrap();
    get(PATH).expect(200);
    get(&format!("/v2/up/app/blobs/{layer}")).expect(200);
    drop(up);
    let began = Instant::now();
    assert_eq!(digest(&get(PATH).expect(200).body), name);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    get(&format!("/v2/up/app/blobs/{layer}")).expect(200);
    let other = get("/v2/up/app/manifests/v2");
    is_error(&other, 503, "UNAVAILABLE");
}

#[test]
fn an_answer_that_is_too_old_is_not_given() {
    let mirror = Mirror::start("tag_ttl = \"0s\"\nstale = \"0s\"");
    mirror.up.image("app", "v1", b"a layer");
    mirror.pull(PATH).expect(200);
    mirror.up.fault("HEAD", "/manifests/v1", Fault::Status(500));
    mirror.up.fault("GET", "/manifests/v1", Fault::Status(500));
    is_error(&mirror.pull(PATH), 503, "UNAVAILABLE");
}

#[test]
fn a_refusal_names_the_credentials_and_is_no_outage() {
    for (more, words) in [
        ("", "public; for what is not public write username and password_file in upstreams/up.toml"),
        (
            "username = \"gateway\"\npassword = \"wrong\"",
            "for the credentials that we have; if they are not right, mend username and password_file in upstreams/up.toml",
        ),
    ] {
        for door in [Door::basic, Door::bearer] {
            let mirror = Mirror::start(&format!("tag_ttl = \"0s\"\n{more}"));
            let (_, layer) = mirror.up.image("app", "v1", b"a layer");
            mirror.pull(PATH).expect(200);
            mirror.up.guard(door().user("gateway", "right", &["*"]));
            let blob = format!("/v2/up/app/blobs/{layer}");
            let words = format!("it is not there, or not {words}");
            for path in [PATH, "/v2/up/app/manifests/v2", &blob] {
                let answer = mirror.pull(path);
                is_error(&answer, 403, "DENIED");
                assert!(answer.message().contains(&words), "{path}: {}", answer.message());
                assert!(!answer.text().contains("wrong"), "{}", answer.text());
            }
        }
    }
}

#[test]
fn an_older_answer_is_given_in_spite_of_a_refusal_if_that_is_said() {
    let mirror = Mirror::start("tag_ttl = \"0s\"\nstale_when_refused = true");
    let (name, _) = mirror.up.image("app", "v1", b"a layer");
    mirror.pull(PATH).expect(200);
    mirror.up.guard(Door::basic());
    assert_eq!(digest(&mirror.pull(PATH).expect(200).body), name);
}

#[test]
fn a_reason_was_told_as_an_outage() {
    for status in [403, 412, 451] {
        let mirror = Mirror::start("tag_ttl = \"0s\"");
        let (_, layer) = mirror.up.image("app", "v1", b"a layer");
        mirror.up.fault("HEAD", "/app/", Fault::Status(status));
        mirror.up.fault("GET", "/app/", Fault::Status(status));
        let blob = format!("/v2/up/app/blobs/{layer}");
        for path in [PATH, &blob] {
            let answer = mirror.pull(path);
            is_error(&answer, status, "TOOMANYREQUESTS");
            let words = format!("upstream up answered {status}: the upstream says TOOMANYREQUESTS");
            assert!(answer.message().contains(&words), "{path}: {}", answer.message());
        }
    }
}
