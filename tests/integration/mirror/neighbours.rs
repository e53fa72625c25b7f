//! What one caller or one disk suffers is not the bad luck of others.

use std::fs;

use super::{Mirror, OPEN, cache_is_clean, crowd, is_error, mirror_of, noise, prepare, pull, pullers};
use crate::support::V2Upstream;
use crate::support::content::digest;
use crate::support::disk::Disk;
use crate::support::gate::wait_until;
use crate::support::v2_upstream::{Door, Fault, Latch};

/// Each upstream has its own download of a digest.
#[test]
fn a_reader_shared_the_bad_luck_of_one_who_asked_elsewhere() {
    for fault in [Fault::Status(404), Fault::Status(403), Fault::Status(500), Fault::Silent] {
        let other = V2Upstream::start();
        let prepared = prepare(OPEN, &mirror_of("http://127.0.0.1:1", ""));
        let up = V2Upstream::start();
        prepared.write("upstreams/up.toml", &mirror_of(&up.url(), "retries = 0"));
        prepared.write("upstreams/other.toml", &mirror_of(&other.url(), ""));
        let (gate, bytes, latch) = (prepared.start(), noise(1, 300_000), Latch::new());
        let blob = other.blob("app", &bytes);
        up.fault("GET", "/blobs/", fault);
        up.fault("GET", "/blobs/", Fault::Hold(latch.clone()));
        let first = crowd(&gate, 1, &format!("/v2/up/app/blobs/{blob}"));
        up.wait_for("GET", &blob, 1);
        let path = format!("/v2/other/app/blobs/{blob}");
        let good = pullers(&gate, 10, &path);
        other.wait_for("GET", &blob, 1);
        latch.open();
        for puller in good {
            assert!(puller.join().unwrap().unwrap().expect(200).body == bytes);
        }
        assert!(first.into_iter().all(|puller| puller.join().unwrap().unwrap().status >= 400));
        assert_eq!(other.count("GET", &blob), 1);
        cache_is_clean(&gate.path("cache"));
    }
}

#[test]
fn a_caller_was_refused_because_another_one_was() {
    let rules = "[[access]]\nwho = [\"authenticated\"]\nrepositories = [\"**\"]\nactions = [\"pull\"]\n";
    let mirror = Mirror::start_with(rules, "authorization = \"forward\"");
    mirror.up.guard(Door::basic().user("ada", "ada", &["*"]).user("eve", "ada", &["eve/app"]));
    let (_, layer) = mirror.up.image("app", "v1", &noise(2, 100_000));
    let (path, latch) = (format!("/v2/up/app/blobs/{layer}"), Latch::new());
    mirror.up.fault_some("GET", "/blobs/", 0..1, Fault::Hold(latch.clone()));
    let (eve, ada) = (mirror.gate.tls().user("eve", "ada"), mirror.gate.tls().user("ada", "ada"));
    std::thread::scope(|scope| {
        let refused = scope.spawn(|| eve.get(&path).status);
        mirror.up.wait_for("GET", &layer, 1);
        let served = scope.spawn(|| ada.get(&path));
        mirror.up.wait_for("HEAD", &layer, 1);
        latch.open();
        assert_eq!(digest(&served.join().unwrap().expect(200).body), layer);
        assert!(matches!(refused.join().unwrap(), 401 | 403));
    });
}

/// As Docker Hub does: HEAD is free, GET is counted.
#[test]
fn an_older_manifest_was_not_given_where_head_is_free_and_get_is_not() {
    for fault in [Fault::Status(429), Fault::Status(500), Fault::Silent] {
        let mirror = Mirror::start("tag_ttl = \"0s\"");
        let (old, _) = mirror.up.image("app", "v1", b"old");
        mirror.pull("/v2/up/app/manifests/v1").expect(200);
        let (new, _) = mirror.up.image("app", "v1", b"new");
        mirror.up.fault("GET", "/manifests/", fault);
        for _ in 0..3 {
            assert_eq!(digest(&mirror.pull("/v2/up/app/manifests/v1").expect(200).body), old);
        }
        mirror.up.heal();
        wait_until("the new one", || digest(&mirror.pull("/v2/up/app/manifests/v1").expect(200).body) == new);
    }
}

#[test]
fn a_full_disk_under_the_metadata_stopped_mirrors() {
    let up = V2Upstream::start();
    let config = format!("{OPEN}[registry]\ndata = \"disk/data\"\n[cache]\nmemory = \"0\"\n");
    let prepared = prepare(&config, &mirror_of(&up.url(), "tag_ttl = \"0s\""));
    let disk = Disk::memory(&prepared, "16m");
    let gate = prepared.start();
    let (old, _) = up.image("app", "v1", &noise(3, 50_000));
    assert_eq!(digest(&pull(gate.main, "/v2/up/app/manifests/v1", &[]).unwrap().expect(200).body), old);
    let filler = disk.fill();
    let (new, layer) = up.image("app", "v2", &noise(4, 50_000));
    for _ in 0..2 {
        assert_eq!(digest(&pull(gate.main, "/v2/up/app/manifests/v1", &[]).unwrap().expect(200).body), old);
        assert_eq!(digest(&pull(gate.main, "/v2/up/app/manifests/v2", &[]).unwrap().expect(200).body), new);
        let blob = pull(gate.main, &format!("/v2/up/app/blobs/{layer}"), &[]).unwrap().expect(200);
        assert_eq!(digest(&blob.body), layer);
    }
    is_error(&pull(gate.main, "/v2/up/app/manifests/v3", &[]).unwrap(), 404, "MANIFEST_UNKNOWN");
    assert_eq!(up.count("GET", &layer), 1);
    gate.wait_for_log("could not be written down");
    fs::remove_file(filler).unwrap();
    drop(gate);
}

#[test]
fn a_cache_that_cannot_be_made_stopped_the_start() {
    let up = V2Upstream::start();
    let config = format!("{OPEN}[cache]\npath = \"a-file/cache\"\nmemory = \"0\"\n");
    let prepared = prepare(&config, &mirror_of(&up.url(), ""));
    prepared.write("a-file", "");
    let (image, layer) = up.image("app", "v1", b"a layer");
    let gate = prepared.start();
    assert_eq!(digest(&pull(gate.main, "/v2/up/app/manifests/v1", &[]).unwrap().expect(200).body), image);
    let blob = pull(gate.main, &format!("/v2/up/app/blobs/{layer}"), &[]).unwrap().expect(200);
    assert_eq!(blob.body, b"a layer");
    gate.wait_for_log("nothing is kept on disk until a restart");
}

#[test]
fn who_left_before_the_first_byte_kept_the_slots() {
    let mirror =
        Mirror::start("concurrency = 4\nabandoned_fills = 1\nfirst_byte_timeout = \"20s\"\ndeadline = \"20s\"");
    let (latch, wanted) = (Latch::new(), mirror.up.blob("app", b"wanted"));
    mirror.up.fault("GET", "/v2/held/", Fault::Hold(latch.clone()));
    let asking: Vec<_> = (0..12)
        .map(|seed| {
            let path = format!("/v2/up/held/blobs/{}", mirror.up.blob("held", &noise(seed, 1_000)));
            super::Bounded::ask(mirror.gate.main, &path, &[])
        })
        .collect();
    super::are_there(&mirror.gate, asking.len());
    drop(asking);
    let given_up = "dockgate_fills_total{upstream=\"up\",outcome=\"abandoned\"}";
    wait_until("the others to be given up", || mirror.metric(given_up) == 11);
    assert_eq!(mirror.pull(&format!("/v2/up/app/blobs/{wanted}")).expect(200).body, b"wanted");
    latch.open();
    cache_is_clean(&mirror.gate.path("cache"));
}

/// Where nothing is kept, a caller that asks for `bytes=0-` gets the whole.
#[test]
fn the_whole_as_a_range_was_not_verified() {
    let mirror = Mirror::start_with(&format!("{OPEN}[cache]\ndisk = \"0\"\nmemory = \"0\"\n"), "");
    let (bytes, path) = (noise(5, 100_000), |blob: &str| format!("/v2/up/app/blobs/{blob}"));
    let blob = mirror.up.blob("app", &bytes);
    let ask = || pull(mirror.gate.main, &path(&blob), &[("Range", "bytes=0-")]);
    assert!(ask().unwrap().expect(206).body == bytes);
    mirror.up.fault("GET", "/blobs/", Fault::WrongBytes);
    ask().expect_err("it is not whole");
    mirror.gate.wait_for_log("an upstream sent other bytes than its digest says");
}

#[test]
fn a_wrong_size_stayed_where_nothing_is_kept() {
    let mirror = Mirror::start_with(&format!("{OPEN}[cache]\ndisk = \"0\"\nmemory = \"0\"\n"), "");
    let blob = mirror.up.blob("app", b"a layer");
    let path = format!("/v2/up/app/blobs/{blob}");
    mirror.up.fault_some("HEAD", "/blobs/", 0..1, Fault::Length(-2));
    is_error(&mirror.pull(&path), 502, "UNAVAILABLE");
    assert_eq!(mirror.pull(&path).expect(200).body, b"a layer");
}

#[test]
fn a_download_that_broke_off_before_its_first_byte_set_room_aside_twice() {
    let admin = crate::support::v1_upstream::nobody();
    let config = format!("{OPEN}[admin]\naddress = \"{admin}\"\n[cache]\ndisk = \"500KiB\"\nmemory = \"0\"\n");
    let mirror = Mirror::start_with(&config, "");
    let bytes = noise(6, 300_000);
    let (_, blob) = mirror.up.image("app", "v1", &bytes);
    mirror.pull("/v2/up/app/manifests/v1").expect(200);
    for fault in [Fault::Reset(0), Fault::Truncated(0)] {
        mirror.gate.prepared().succeed(&["cache", "purge", "--all"]);
        mirror.up.forget_asked();
        mirror.up.fault_some("GET", "/blobs/", 0..1, fault);
        for _ in 0..2 {
            assert!(mirror.pull(&format!("/v2/up/app/blobs/{blob}")).expect(200).body == bytes);
        }
        assert_eq!(mirror.up.count("GET", &blob), 2, "kept at the second attempt");
        cache_is_clean(&mirror.gate.path("cache"));
    }
}
