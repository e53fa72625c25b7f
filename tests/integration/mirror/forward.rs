//! `authorization = "forward"`: the upstream sees the caller's own credentials, and the cache gives to nobody what the
//! upstream does not.

use super::{Mirror, is_error};
use crate::support::Client;
use crate::support::content::manifest;
use crate::support::v2_upstream::{Door, Fault, Latch};

const RULES: &str = "[[access]]\nwho = [\"authenticated\"]\nrepositories = [\"**\"]\nactions = [\"pull\"]\n";

/// ada may have everything there, eve only what is hers.
fn forward(door: Door, more: &str) -> (Mirror, Client, Client) {
    let mirror = Mirror::start_with(RULES, &format!("authorization = \"forward\"\n{more}"));
    mirror.up.guard(door.user("ada", "ada", &["*"]).user("eve", "ada", &["eve/app"]));
    let (ada, eve) = (mirror.gate.tls().user("ada", "ada"), mirror.gate.tls().user("eve", "ada"));
    (mirror, ada, eve)
}

#[test]
fn the_upstream_sees_who_calls_and_the_cache_gives_nothing_to_others() {
    for door in [Door::basic, Door::bearer] {
        let (mirror, ada, eve) = forward(door(), "");
        let (image, layer) = mirror.up.image("app", "v1", b"a secret layer");
        let blob = format!("/v2/up/app/blobs/{layer}");
        ada.get("/v2/up/app/manifests/v1").expect(200);
        assert_eq!(ada.get(&blob).expect(200).body, b"a secret layer");
        for path in [&blob, "/v2/up/app/manifests/v1", &format!("/v2/up/app/manifests/{image}")] {
            let refused = eve.get(path);
            is_error(&refused, 401, "UNAUTHORIZED");
            assert!(refused.header("www-authenticate").unwrap().starts_with("Basic "), "{:?}", refused.headers);
            assert!(matches!(eve.head(path).status, 401 | 403), "{path}");
        }
        assert_eq!(mirror.up.count("GET", &layer), mirror.up.asked_for("GET", &layer).len());
        assert_eq!(ada.get(&blob).expect(200).body, b"a secret layer");
        // Her own she has.
        let (_, own) = mirror.up.image("eve/app", "v1", b"a layer of hers");
        eve.get(&format!("/v2/up/eve/app/blobs/{own}")).expect(200);
    }
}

#[test]
fn what_the_upstream_allowed_is_remembered_for_its_time() {
    for (ttl, more_questions) in [("1h", 0), ("0s", 3)] {
        let (mirror, ada, _) = forward(Door::basic(), &format!("forward_ttl = \"{ttl}\""));
        let (_, layer) = mirror.up.image("app", "v1", b"a layer");
        let blob = format!("/v2/up/app/blobs/{layer}");
        ada.get(&blob).expect(200);
        let served = |method| {
            let asked = mirror.up.asked_for(method, &layer);
            asked.iter().filter(|asked| asked.header("authorization").is_some()).count()
        };
        assert_eq!((served("GET"), served("HEAD")), (1, 0));
        for _ in 0..3 {
            ada.get(&blob).expect(200);
        }
        assert_eq!((served("GET"), served("HEAD")), (1, more_questions), "{ttl}");
    }
}

#[test]
fn rules_of_the_gateway_hold_too() {
    let mirror = Mirror::start_with(&RULES.replace("\"**\"", "\"up/open/**\""), "authorization = \"forward\"");
    mirror.up.guard(Door::basic().user("ada", "ada", &["*"]));
    let (_, layer) = mirror.up.image("app", "v1", b"a layer");
    assert_eq!(mirror.gate.tls().user("ada", "ada").get(&format!("/v2/up/app/blobs/{layer}")).status, 404);
    assert!(mirror.up.asked().is_empty());
}

/// docker kept to the token of the gateway, which has no password to send on.
#[test]
fn a_client_was_asked_for_a_token_where_its_password_is_needed() {
    let rules = format!("{RULES}\n{}", RULES.replace("authenticated", "anyone").replace("**", "open/**"));
    for (more, expected) in [("authorization = \"forward\"", "Basic "), ("", "Bearer ")] {
        let mirror = Mirror::start_with(&rules, more);
        let ping = mirror.gate.tls().get("/v2/").expect(401);
        assert!(ping.header("www-authenticate").unwrap().starts_with(expected), "{:?}", ping.headers);
    }
}

#[test]
fn who_shows_nothing_is_shown_nothing_of_others() {
    let rules = RULES.replace("authenticated", "anyone");
    let mirror = Mirror::start_with(&rules, "authorization = \"forward\"");
    mirror.up.guard(Door::basic().user("ada", "ada", &["*"]).public("public/app"));
    let (_, secret) = mirror.up.image("app", "v1", b"a secret layer");
    let (_, open) = mirror.up.image("public/app", "v1", b"an open layer");
    let anyone = mirror.gate.tls();
    let blob = format!("/v2/up/app/blobs/{secret}");
    anyone.user("ada", "ada").get(&blob).expect(200);
    is_error(&anyone.get(&blob), 401, "UNAUTHORIZED");
    assert_eq!(anyone.get(&format!("/v2/up/public/app/blobs/{open}")).expect(200).body, b"an open layer");
}

#[test]
fn two_users_share_one_download() {
    let mirror = Mirror::start_with(RULES, "authorization = \"forward\"");
    mirror.up.guard(Door::basic().user("ada", "ada", &["*"]).user("eve", "ada", &["*"]));
    let (_, layer) = mirror.up.image("app", "v1", b"a layer of both");
    let (path, latch) = (format!("/v2/up/app/blobs/{layer}"), Latch::new());
    mirror.up.fault_some("GET", "/blobs/", 0..1, Fault::Hold(latch.clone()));
    let (ada, eve) = (mirror.gate.tls().user("ada", "ada"), mirror.gate.tls().user("eve", "ada"));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| ada.get(&path));
        mirror.up.wait_for("GET", &layer, 1);
        let second = scope.spawn(|| eve.get(&path));
        mirror.up.wait_for("HEAD", &layer, 1);
        latch.open();
        for reader in [first, second] {
            assert_eq!(reader.join().unwrap().expect(200).body, b"a layer of both");
        }
    });
    let served = |asked: &&crate::support::v2_upstream::Asked| asked.header("authorization").is_some();
    assert_eq!(mirror.up.asked_for("GET", &layer).iter().filter(served).count(), 1);
}

/// An image `app:v1` there, and what refers to it; its digest.
fn signed_image(mirror: &Mirror) -> String {
    let (subject, _) = mirror.up.image("app", "v1", b"a layer");
    let subject_of = format!(r#"{{"subject":{{"digest":"{subject}"}},"#);
    let referrer = String::from_utf8(manifest(&[b"{}"])).unwrap().replacen('{', &subject_of, 1);
    mirror.up.manifest("app", "signature", referrer.as_bytes());
    subject
}

/// As for manifests: only to those whom the upstream let have it.
#[test]
fn an_older_list_of_referrers_is_given_to_those_who_got_it_alone() {
    let (mirror, ada, eve) = forward(Door::basic(), "");
    let subject = signed_image(&mirror);
    let path = format!("/v2/up/app/referrers/{subject}");
    let all = ada.get(&path).expect(200).body;
    ada.get(&path).expect(200);
    assert_eq!(mirror.up.asked_for("GET", "/referrers/").len(), 3, "each time, and first to no avail");
    is_error(&eve.get(&path), 404, "UNSUPPORTED");
    mirror.up.fault("GET", "/referrers/", Fault::Status(503));
    let older = ada.get(&path).expect(200);
    assert!(older.body == all && older.header("warning").is_some(), "{:?}", older.headers);
    is_error(&eve.get(&path), 404, "UNSUPPORTED");
}

/// An upstream that hides from callers what they may not see says 404, as ours does.
#[test]
fn that_one_caller_is_told_there_is_nothing_took_the_older_answer_from_others() {
    let (mirror, ada, eve) = forward(Door::basic(), "");
    let subject = signed_image(&mirror);
    let paths = ["/v2/up/app/manifests/v1".to_owned(), format!("/v2/up/app/referrers/{subject}")];
    let fresh = paths.each_ref().map(|path| ada.get(path).expect(200).body);
    let all_fail = |status| mirror.up.fault_reads("/app/", Fault::Status(status));
    all_fail(404);
    paths.iter().for_each(|path| assert_eq!(eve.get(path).status, 404, "{path}"));
    mirror.up.heal();
    all_fail(503);
    for (path, fresh) in paths.iter().zip(fresh) {
        let older = ada.get(path).expect(200);
        assert!(older.body == fresh && older.header("warning").is_some(), "{path} {:?}", older.headers);
    }
}

#[test]
fn what_a_caller_may_not_see_any_more_was_given_from_before() {
    let (mirror, ada, _) = forward(Door::basic(), "stale_when_refused = true");
    mirror.up.image("app", "v1", b"a layer");
    let path = "/v2/up/app/manifests/v1";
    ada.get(path).expect(200);
    mirror.up.fault_reads("/app/manifests/", Fault::Status(403));
    assert!(matches!(ada.get(path).status, 401 | 403 | 404));
}
