//! Where an upstream sends us: other hosts see no credentials, addresses inside are not gone to, and there is an end.

use super::{Mirror, cache_is_clean, crowd, is_error, noise};
use crate::support::V2Upstream;
use crate::support::v2_upstream::{Door, Fault, Latch};

const CREDENTIALS: &str = "username = \"gateway\"\npassword = \"canary-password\"";

/// A mirror with credentials, a host to which it redirects its blobs, and one of those.
fn redirecting(more: &str) -> (Mirror, V2Upstream, Vec<u8>, String) {
    let mirror = Mirror::start(&format!("{CREDENTIALS}\nfirst_byte_timeout = \"2s\"\n{more}"));
    let layer = noise(13, 500_000);
    let (_, blob) = mirror.up.image("app", "v1", &layer);
    mirror.up.guard(Door::basic().user("gateway", "canary-password", &["*"]));
    let cdn = V2Upstream::start();
    cdn.blob("app", &layer);
    mirror.up.fault("GET", "/blobs/", Fault::RedirectHost(cdn.url()));
    mirror.pull("/v2/up/app/manifests/v1").expect(200);
    (mirror, cdn, layer, format!("/v2/up/app/blobs/{blob}"))
}

#[test]
fn another_host_sees_no_credentials() {
    for clients in [1, 50] {
        let (mirror, cdn, layer, path) = redirecting("private_addresses = [\"127.0.0.0/8\"]");
        let latch = Latch::new();
        mirror.up.fault_some("GET", "/blobs/", 0..1, Fault::Hold(latch.clone()));
        let pullers = crowd(&mirror.gate, clients, &path);
        latch.open();
        for puller in pullers {
            assert!(puller.join().unwrap().unwrap().expect(200).body == layer);
        }
        let seen = cdn.asked();
        assert_eq!(seen.len(), 1);
        for asked in seen {
            assert_eq!((asked.header("authorization"), asked.header("cookie")), (None, None), "{:?}", asked.headers);
            assert!(!format!("{asked:?}").contains("canary"));
        }
        let shown = mirror.up.asked_for("GET", "/blobs/");
        assert!(shown.iter().all(|asked| asked.header("authorization").is_some()));
        cache_is_clean(&mirror.gate.path("cache"));
    }
}

#[test]
fn a_download_that_breaks_off_elsewhere_is_taken_up_by_the_same_way() {
    let (mirror, cdn, layer, path) = redirecting("private_addresses = [\"127.0.0.1\"]");
    cdn.fault_some("GET", "/blobs/", 0..1, Fault::Truncated(50));
    assert!(mirror.pull(&path).expect(200).body == layer);
    // The place to which it was sent may be good for one time only.
    assert_eq!((mirror.up.count("GET", "/blobs/"), cdn.count("GET", "/blobs/")), (2, 2));
    assert!(cdn.asked().iter().all(|asked| asked.header("authorization").is_none()));
    assert!(cdn.asked()[1].header("range").is_some_and(|range| range.starts_with("bytes=250000-")));
}

#[test]
fn an_address_inside_is_not_gone_to() {
    for clients in [1, 50] {
        let (mirror, cdn, _, path) = redirecting("");
        let latch = Latch::new();
        mirror.up.fault_some("GET", "/blobs/", 0..1, Fault::Hold(latch.clone()));
        let pullers = crowd(&mirror.gate, clients, &path);
        latch.open();
        for puller in pullers {
            is_error(&puller.join().unwrap().unwrap(), 503, "UNAVAILABLE");
        }
        assert_eq!(cdn.connections(), 0);
        assert!(mirror.up.count("GET", "/blobs/") <= 2);
        mirror.gate.wait_for_log("private_addresses");
    }
}

#[test]
fn names_of_addresses_inside_are_not_gone_to_either() {
    let (mirror, cdn, _, path) = redirecting("");
    let port = cdn.address.port();
    for host in ["localhost", "127.1", "2130706433", "[::ffff:127.0.0.1]", "0.0.0.0"] {
        mirror.up.heal();
        mirror.up.fault("GET", "/blobs/", Fault::RedirectHost(format!("http://{host}:{port}")));
        is_error(&mirror.pull(&path), 503, "UNAVAILABLE");
    }
    assert_eq!(cdn.connections(), 0);
}

#[test]
fn a_loop_of_redirects_comes_to_an_end() {
    for clients in [1, 50] {
        let mirror = Mirror::start("first_byte_timeout = \"2s\"");
        let (_, blob) = mirror.up.image("app", "v1", b"a layer");
        let latch = Latch::new();
        mirror.up.fault("GET", "/blobs/", Fault::Redirect(format!("/v2/app/blobs/{blob}?again")));
        mirror.up.fault_some("GET", "/blobs/", 0..1, Fault::Hold(latch.clone()));
        let path = format!("/v2/up/app/blobs/{blob}");
        let pullers = crowd(&mirror.gate, clients, &path);
        latch.open();
        for puller in pullers {
            is_error(&puller.join().unwrap().unwrap(), 503, "UNAVAILABLE");
        }
        assert_eq!(mirror.up.count("GET", "/blobs/"), 6, "once, and five redirects");
        mirror.up.heal();
        mirror.pull(&path).expect(200);
        cache_is_clean(&mirror.gate.path("cache"));
    }
}

#[test]
fn some_places_are_not_gone_to() {
    let mirror = Mirror::start("private_addresses = [\"127.0.0.0/8\"]");
    let (_, blob) = mirror.up.image("app", "v1", b"a layer");
    for to in ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://user:canary@127.0.0.1/x", "http://", "\u{1}"] {
        mirror.up.heal();
        mirror.up.fault("GET", "/blobs/", Fault::Redirect(to.to_owned()));
        let answer = mirror.pull(&format!("/v2/up/app/blobs/{blob}"));
        assert!(matches!(answer.status, 502 | 503), "{to}: {}", answer.text());
        assert_eq!(answer.code(), "UNAVAILABLE");
        assert!(!answer.text().contains("canary"));
    }
    assert!(!mirror.gate.log.lock().unwrap().contains("canary"));
}
