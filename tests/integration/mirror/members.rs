//! What is in the cache is given through a repository only if it belongs there, and only to those who may pull there.

use super::{Mirror, OPEN, crowd, is_error, noise, pull};
use crate::support::Client;
use crate::support::content::{digest, manifest};
use crate::support::gate::wait_until;
use crate::support::v2_upstream::{Fault, Latch};

fn blob_path(repository: &str, blob: &str) -> String {
    format!("/v2/up/{repository}/blobs/{blob}")
}

#[test]
fn a_blob_of_one_repository_is_not_given_through_another() {
    let mirror = Mirror::start("");
    let (image, layer) = mirror.up.image("mine", "v1", b"a secret layer");
    mirror.up.image("yours", "v1", b"another layer");
    mirror.pull(&blob_path("mine", &layer)).expect(200);
    mirror.pull("/v2/up/mine/manifests/v1").expect(200);
    for _ in 0..2 {
        is_error(&mirror.pull(&blob_path("yours", &layer)), 404, "BLOB_UNKNOWN");
        let head = mirror.gate.plain().head(&blob_path("yours", &layer));
        assert_eq!(head.status, 404);
        is_error(&mirror.pull(&format!("/v2/up/yours/manifests/{image}")), 404, "MANIFEST_UNKNOWN");
    }
}

/// Whoever can push a manifest can write any digest into it.
#[test]
fn that_a_manifest_names_it_is_no_proof() {
    let mirror = Mirror::start("");
    let (_, layer) = mirror.up.image("mine", "v1", b"a secret layer");
    mirror.pull(&blob_path("mine", &layer)).expect(200);
    mirror.up.blob("yours", b"{}");
    mirror.up.manifest("yours", "v1", &manifest(&[b"{}", b"a secret layer"]));
    mirror.pull("/v2/up/yours/manifests/v1").expect(200);
    for _ in 0..2 {
        is_error(&mirror.pull(&blob_path("yours", &layer)), 404, "BLOB_UNKNOWN");
    }
    mirror.pull(&blob_path("yours", &digest(b"{}"))).expect(200);
}

#[test]
fn a_blob_that_both_have_is_asked_about_and_not_downloaded_again() {
    let mirror = Mirror::start("");
    let (_, layer) = mirror.up.image("mine", "v1", b"a shared layer");
    mirror.up.image("yours", "v1", b"a shared layer");
    for repository in ["mine", "yours", "yours"] {
        assert_eq!(mirror.pull(&blob_path(repository, &layer)).expect(200).body, b"a shared layer");
    }
    assert_eq!((mirror.up.count("GET", &layer), mirror.up.count("HEAD", &layer)), (1, 1));
}

const RULES: &str = r#"
[[access]]
who = ["anyone"]
repositories = ["up/public/**"]
actions = ["pull"]
[[access]]
who = ["user:ada"]
repositories = ["up/**"]
actions = ["pull"]
[[access]]
who = ["user:eve"]
repositories = ["up/eve/**"]
actions = ["pull"]
"#;

#[test]
fn who_may_not_pull_there_gets_nothing_from_the_cache() {
    let mirror = Mirror::start_with(RULES, "");
    let (_, shared) = mirror.up.image("public/app", "v1", b"in both");
    mirror.up.image("private/app", "v1", b"in both");
    let (_, secret) = mirror.up.image("private/app", "v2", b"in one");
    let anyone = mirror.gate.tls();
    let (ada, eve) = (anyone.user("ada", "ada"), anyone.user("eve", "ada"));
    for path in [blob_path("private/app", &shared), blob_path("private/app", &secret)] {
        ada.get(&path).expect(200);
        ada.get("/v2/up/private/app/manifests/v2").expect(200);
    }
    let status = |client: &Client, path: &str| client.get(path).status;
    let asked = mirror.up.asked().len();
    for (path, by_anyone, by_eve) in [
        (blob_path("private/app", &secret), 401, 404),
        (blob_path("private/app", &shared), 401, 404),
        ("/v2/up/private/app/manifests/v2".to_owned(), 401, 404),
        (blob_path("eve/app", &secret), 401, 404),
    ] {
        assert_eq!((status(&anyone, &path), status(&eve, &path)), (by_anyone, by_eve), "{path}");
    }
    // By HEAD, and since that is no verdict, by GET.
    assert_eq!(mirror.up.asked().len(), asked + 2, "the upstream is asked for those who may alone");
    // The same digest, where anyone may have it.
    assert_eq!(anyone.get(&blob_path("public/app", &shared)).expect(200).body, b"in both");
    assert_eq!(status(&anyone, &blob_path("public/app", &secret)), 404);
    assert_eq!(mirror.up.count("GET", &shared), 1);
}

/// A size that a manifest states is no proof either.
#[test]
fn a_manifest_that_lies_about_a_size_spoils_nothing() {
    let mirror = Mirror::start("");
    let lie = |tag: &str, size: usize| {
        let text = String::from_utf8(manifest(&[b"{}", b"a layer"])).unwrap();
        let text = text.replace("\"size\":7", &format!("\"size\":{size}"));
        assert!(text.contains(&format!("\"size\":{size}")), "{text}");
        mirror.up.manifest("app", tag, text.as_bytes());
        mirror.pull(&format!("/v2/up/app/manifests/{tag}")).expect(200);
    };
    mirror.up.blob("app", b"{}");
    let layer = mirror.up.blob("app", b"a layer");
    let path = blob_path("app", &layer);
    // Before it is here one attempt may fail, and no more.
    lie("before", 9);
    let _ = crate::support::Client::plain(mirror.gate.main).try_send("GET", &path, &[], b"");
    assert_eq!(mirror.pull(&path).expect(200).body, b"a layer");
    lie("after", 5);
    assert_eq!(mirror.gate.plain().head(&path).expect(200).header("content-length"), Some("7"));
    assert_eq!(mirror.pull(&path).expect(200).body, b"a layer");
}

/// The layer that two images share was refused through the second repository, for ever, with advice about passwords.
#[test]
fn what_head_does_not_give_get_may() {
    let heads = [400, 401, 403, 404, 405, 500, 501].map(Fault::Status);
    let page = Fault::Instead("text/html", "<html></html>");
    for fault in heads.into_iter().chain([page, Fault::Redirect("/v2/nowhere/blobs/x".to_owned())]) {
        let mirror = Mirror::start("");
        let layer = noise(3, 100_000);
        mirror.up.image("one", "v1", &layer);
        let (_, digest) = mirror.up.image("two", "v1", &layer);
        mirror.up.fault("HEAD", "/blobs/", fault.clone());
        for repository in ["one", "two"] {
            mirror.pull(&format!("/v2/up/{repository}/manifests/v1")).expect(200);
            assert!(mirror.pull(&blob_path(repository, &digest)).expect(200).body == layer);
            let head = mirror.gate.plain().head(&blob_path(repository, &digest)).expect(200);
            assert_eq!(head.header("content-length"), Some("100000"));
        }
        // It is still not given where neither has it.
        let answer = mirror.pull(&blob_path("three", &digest));
        assert!(answer.status >= 400, "{answer:?}");
    }
}

#[test]
fn the_size_of_a_blob_that_is_on_its_way_is_known_here() {
    let mirror = Mirror::start("first_byte_timeout = \"2s\"");
    let layer = noise(3, 100_000);
    let digest = mirror.up.blob("app", &layer);
    let latch = Latch::new();
    mirror.up.fault("GET", "/blobs/", Fault::HoldAt(50, latch.clone()));
    let pullers = crowd(&mirror.gate, 1, &blob_path("app", &digest));
    mirror.up.wait_for("GET", &digest, 1);
    let head = mirror.gate.plain().head(&blob_path("app", &digest)).expect(200);
    assert_eq!(head.header("content-length"), Some("100000"));
    assert_eq!(mirror.up.count("HEAD", &digest), 0);
    latch.open();
    pullers.into_iter().for_each(|puller| assert!(puller.join().unwrap().unwrap().body == layer));
}

#[test]
fn a_part_of_a_web_page_is_no_part_of_a_blob() {
    let mirror = Mirror::start_with(&format!("{OPEN}[cache]\nmemory = \"0\"\ndisk = \"0\"\n"), "");
    // As long as the page, so that nothing else tells them apart.
    let (page, layer) = ("<html>0123456789</html>", noise(3, 23));
    let (_, digest) = mirror.up.image("app", "v1", &layer);
    mirror.pull("/v2/up/app/manifests/v1").expect(200);
    mirror.up.fault("GET", "/blobs/", Fault::Instead("text/html", page));
    let part = pull(mirror.gate.main, &blob_path("app", &digest), &[("Range", "bytes=2-5")]).unwrap();
    is_error(&part, 502, "UNAVAILABLE");
}

/// A portal that answers 200 to everything said that every blob was in every repository.
#[test]
fn a_web_page_in_place_of_a_blob_is_no_proof() {
    let mirror = Mirror::start("");
    let (_, layer) = mirror.up.image("mine", "v1", b"a secret layer");
    let page = Fault::Instead("text/html; charset=utf-8", "<html></html>");
    mirror.up.fault("GET", "yours/blobs/", page);
    let answer = mirror.pull(&blob_path("yours", &layer));
    is_error(&answer, 502, "UNAVAILABLE");
    mirror.up.heal();
    mirror.pull(&blob_path("mine", &layer)).expect(200);
    is_error(&mirror.pull(&blob_path("yours", &layer)), 404, "BLOB_UNKNOWN");
}

#[test]
fn a_manifest_that_says_a_wrong_size_kept_a_layer_from_everybody() {
    let mirror = Mirror::start("");
    let layer = b"seven b";
    mirror.up.blob("app", layer);
    mirror.up.blob("app", b"{}");
    let text = String::from_utf8(manifest(&[b"{}", layer])).unwrap();
    for wrong in [8, 6, 0] {
        mirror.gate.prepared().succeed(&["cache", "purge", "--all"]);
        let lying = text.replace("\"size\":7", &format!("\"size\":{wrong}"));
        mirror.up.manifest("app", "v1", lying.as_bytes());
        mirror.pull(&format!("/v2/up/app/manifests/{}", digest(lying.as_bytes()))).expect(200);
        let path = format!("/v2/up/app/blobs/{}", digest(layer));
        assert_eq!(mirror.pull(&path).expect(200).body, layer, "{wrong}");
        let head = mirror.gate.plain().head(&path).expect(200);
        assert_eq!(head.header("content-length"), Some("7"), "{wrong}");
    }
}

/// Without a cache the first download after such a manifest was 502, and where the upstream says no size, all were.
#[test]
fn the_upstream_is_believed_before_a_manifest_where_nothing_is_kept() {
    let layer = noise(3, 70_000);
    for (wrong, fault) in [(8, None), (90_000, None), (8, Some(Fault::NoLength)), (90_000, Some(Fault::NoLength))] {
        let mirror = Mirror::start_with(&format!("{OPEN}[cache]\nmemory = \"0\"\ndisk = \"0\"\n"), "");
        let path = blob_path("app", &mirror.up.blob("app", &layer));
        let text = String::from_utf8(manifest(&[b"{}", &layer])).unwrap();
        mirror.up.manifest("app", "v1", text.replace("\"size\":70000", &format!("\"size\":{wrong}")).as_bytes());
        for method in ["GET", "HEAD"] {
            fault.iter().for_each(|fault| mirror.up.fault(method, "/blobs/", fault.clone()));
        }
        mirror.pull("/v2/up/app/manifests/v1").expect(200);
        for _ in 0..3 {
            assert!(mirror.pull(&path).expect(200).body == layer, "{wrong}");
        }
        wait_until("its length to be known", || {
            mirror.gate.plain().head(&path).header("content-length") == Some("70000")
        });
        mirror.up.heal();
        let part = pull(mirror.gate.main, &path, &[("Range", "bytes=-5")]).unwrap().expect(206);
        assert_eq!(part.body, layer[69_995..]);
    }
}
