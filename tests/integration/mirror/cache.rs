//! `dockgate cache` against a gateway that runs.

use std::process::Output;

use super::{Mirror, OPEN, cache_is_clean, mirror_of, noise, prepare};
use crate::support::V2Upstream;
use crate::support::content::{OCI_INDEX, digest, manifest, push_image};
use crate::support::gate::wait_until;
use crate::support::v2_upstream::Fault;

fn start(more: &str) -> Mirror {
    let up = V2Upstream::start();
    let config = format!("{OPEN}[cache]\nmemory = \"0\"\n{more}");
    let prepared = prepare(&config, &mirror_of(&up.url(), ""));
    Mirror { gate: prepared.start(), up }
}

impl Mirror {
    fn cache(&self, arguments: &[&str]) -> Output {
        self.gate.prepared().run(&[&["cache"], arguments].concat())
    }

    /// What a command that must succeed prints.
    #[track_caller]
    fn printed(&self, arguments: &[&str]) -> String {
        let output = self.cache(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn entries(&self) -> Vec<serde_json::Value> {
        let page: serde_json::Value = serde_json::from_str(&self.printed(&["ls", "--json"])).unwrap();
        page["entries"].as_array().unwrap().clone()
    }
}

#[test]
fn an_image_is_warmed_before_anybody_asks_for_it() {
    let mirror = start("");
    let (image, layer) = mirror.up.image("app", "v1", &noise(1, 200_000));
    assert_eq!(mirror.printed(&["ls"]).lines().count(), 2);
    let printed = mirror.printed(&["warm", "up/app:v1"]);
    assert!(printed.starts_with("up/app:v1: 3 parts, "), "{printed}");
    let list = mirror.printed(&["ls"]);
    assert!(list.contains(&image) && list.contains(&layer) && !list.contains("pinned"), "{list}");
    mirror.up.forget_asked();
    assert_eq!(digest(&mirror.pull("/v2/up/app/manifests/v1").expect(200).body), image);
    assert_eq!(digest(&mirror.pull(&format!("/v2/up/app/blobs/{layer}")).expect(200).body), layer);
    assert!(mirror.up.asked().is_empty());
    cache_is_clean(&mirror.gate.path("cache"));
}

#[test]
fn an_index_is_warmed_with_all_its_platforms() {
    let mirror = start("");
    let images = [b"one", b"two"].map(|layer| {
        mirror.up.blob("app", b"{}");
        mirror.up.blob("app", layer);
        let bytes = manifest(&[b"{}", layer]);
        (mirror.up.manifest("app", "part", &bytes), bytes.len())
    });
    let entries = images.each_ref().map(|(digest, size)| {
        serde_json::json!({ "mediaType": crate::support::content::OCI_MANIFEST, "digest": digest, "size": size })
    });
    let index = serde_json::json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
    mirror.up.manifest("app", "all", index.to_string().as_bytes());
    let printed = mirror.printed(&["warm", "up/app:all"]);
    assert!(printed.starts_with("up/app:all: 6 parts, "), "{printed}");
}

#[test]
fn what_is_purged_is_asked_for_again() {
    let mirror = start("");
    let (image, layer) = mirror.up.image("app", "v1", b"a layer");
    let (_, other) = mirror.up.image("app", "v2", b"another layer");
    mirror.printed(&["warm", "up/app:v1", "up/app:v2"]);
    let printed = mirror.printed(&["purge", "up/app:v1"]);
    assert!(printed.starts_with("up/app:v1: 3 removed, "), "{printed}");
    let list = mirror.printed(&["ls"]);
    assert!(!list.contains(&image) && !list.contains(&layer) && list.contains(&other), "{list}");
    mirror.up.forget_asked();
    mirror.pull("/v2/up/app/manifests/v1").expect(200);
    mirror.pull(&format!("/v2/up/app/blobs/{layer}")).expect(200);
    assert_eq!((mirror.up.count("HEAD", "/manifests/v1"), mirror.up.count("GET", &layer)), (1, 1));
    assert!(mirror.printed(&["purge", &other]).starts_with(&format!("{other}: 1 removed, ")));
    mirror.printed(&["purge", "--all"]);
    assert!(mirror.entries().is_empty());
    assert!(crate::support::gate::files(&mirror.gate.path("cache/blobs")).is_empty());
}

#[test]
fn what_is_pinned_stays() {
    let mirror = start("disk = \"512KiB\"\n");
    let (_, layer) = mirror.up.image("app", "v1", &noise(2, 200_000));
    mirror.printed(&["pin", "up/app:v1"]);
    assert!(mirror.printed(&["ls"]).contains("pinned: up/app:v1"));
    for seed in 10..20 {
        let blob = mirror.up.blob("app", &noise(seed, 200_000));
        mirror.pull(&format!("/v2/up/app/blobs/{blob}")).expect(200);
    }
    mirror.printed(&["purge", "--all"]);
    let is_there = || mirror.entries().iter().any(|entry| entry["digest"] == layer.as_str());
    assert!(is_there());
    // Also after a restart.
    let Mirror { gate, up } = mirror;
    let prepared = gate.prepared();
    assert_eq!(gate.stop(), 0);
    let mirror = Mirror { gate: prepared.start(), up };
    mirror.printed(&["purge", "--all"]);
    assert!(mirror.printed(&["ls"]).contains(&layer));
    mirror.pull(&format!("/v2/up/app/blobs/{layer}")).expect(200);
    assert_eq!(mirror.up.count("GET", &layer), 1);
    assert!(mirror.printed(&["unpin", "up/app:v1"]).contains("may go"));
    assert!(mirror.printed(&["unpin", "up/app:v1"]).contains("was not pinned"));
    mirror.printed(&["purge", "--all"]);
    wait_until("it to be gone", || mirror.entries().is_empty());
}

#[test]
fn what_cannot_be_done_is_told() {
    let mirror = start("");
    push_image(&mirror.gate.plain(), "app", "v1");
    let (_, layer) = mirror.up.image("app", "v1", b"a layer");
    let fails = |arguments: &[&str], words: &[&str]| {
        let output = mirror.cache(arguments);
        assert!(!output.status.success(), "{arguments:?}: {output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        for word in words {
            assert!(text.contains(word), "{word} is not in {text}");
        }
    };
    fails(&["warm", "app:v1"], &["is not of an upstream", "begin with its prefix"]);
    fails(&["warm", "up/app:none"], &["the upstream does not have it"]);
    fails(&["warm", "Not An Image"], &["PREFIX/NAME:TAG"]);
    fails(&["purge"], &["IMAGE|DIGEST"]);
    mirror.up.fault("GET", "/blobs/", Fault::WrongBytes);
    fails(&["warm", "up/app:v1"], &["up/app:v1: ", "parts are missing"]);
    assert!(!mirror.printed(&["ls"]).contains(&layer));
    mirror.up.heal();
    mirror.printed(&["warm", "up/app:v1"]);
    let prepared = mirror.gate.prepared();
    drop(mirror.gate);
    let output = prepared.run(&["cache", "ls"]);
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("is it running?"));
}

/// Whoever reaches a port of this machine, a page in a browser or another user, changes nothing there.
#[test]
fn nothing_of_the_cache_is_on_a_port() {
    let mirror = start("");
    let (_, layer) = mirror.up.image("app", "v1", b"a layer");
    mirror.printed(&["warm", "up/app:v1"]);
    for client in [mirror.gate.admin(), mirror.gate.plain()] {
        for (method, path) in [
            ("GET", "/cache"),
            ("DELETE", "/cache?all=1"),
            ("POST", "/cache/warm?image=up/app:v1"),
            ("DELETE", "/cache/pin?image=up/app:v1"),
        ] {
            let answer = client.send(method, path, &[("X-Dockgate-Cache", "1")], b"");
            assert!(matches!(answer.status, 404 | 405), "{method} {path}: {}", answer.status);
        }
    }
    assert!(mirror.printed(&["ls"]).contains(&layer));
}

#[test]
fn what_was_pinned_in_other_words_was_not_found() {
    let mirror = start("");
    let (image, _) = mirror.up.image("app", "latest", b"a layer");
    for words in ["up/app".to_owned(), format!("up/app@{image}")] {
        mirror.printed(&["pin", &words]);
        assert!(mirror.printed(&["unpin", &words]).contains("may go"), "{words}");
        assert!(!mirror.printed(&["ls"]).contains("pinned"), "{words}");
    }
}

/// What went from the disk was still given from memory.
#[test]
fn what_was_in_memory_alone_was_not_purged() {
    let up = V2Upstream::start();
    let config = format!("{OPEN}[cache]\ndisk = \"0\"\n");
    let mirror = Mirror { gate: prepare(&config, &mirror_of(&up.url(), "")).start(), up };
    let (image, _) = mirror.up.image("app", "v1", b"a layer");
    let path = format!("/v2/up/app/manifests/{image}");
    (0..2).for_each(|_| drop(mirror.pull(&path).expect(200)));
    assert_eq!(mirror.up.count("GET", &image), 1);
    mirror.printed(&["purge", "up/app:v1"]);
    mirror.printed(&["purge", &image]);
    mirror.pull(&path).expect(200);
    assert_eq!(mirror.up.count("GET", &image), 2);
}
