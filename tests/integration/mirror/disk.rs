//! The disk under the cache: too small, gone, full, and a program that is killed while it writes there.

use std::fs;

use super::{
    Bounded, Mirror, OPEN, cache_is_clean, crowd, is_error, kept_blobs, metric, mirror_of, noise, prepare, pull,
};
use crate::support::V2Upstream;
use crate::support::content::digest;
use crate::support::disk::Disk;
use crate::support::gate::{Prepared, files};
use crate::support::v2_upstream::{Fault, Latch};

const PASSED: &str = "dockgate_passed_through_total{upstream=\"up\"}";
/// While the test holds the upstream, that is not to be taken for silence.
const PATIENT: &str = "idle_timeout = \"20s\"";

#[test]
fn what_is_larger_than_the_cache_goes_past_it() {
    let mirror = Mirror::start_with(&format!("{OPEN}[cache]\ndisk = \"256KiB\"\n"), "");
    let (small, large) = (noise(1, 50_000), noise(2, 1_000_000));
    let (_, small_blob) = mirror.up.image("app", "v1", &small);
    let (_, large_blob) = mirror.up.image("app", "v2", &large);
    let path = format!("/v2/up/app/blobs/{large_blob}");
    mirror.pull(&format!("/v2/up/app/blobs/{small_blob}")).expect(200);
    mirror.pull("/v2/up/app/manifests/v2").expect(200);
    for count in 1..=3 {
        assert!(mirror.pull(&path).expect(200).body == large);
        assert_eq!(mirror.metric(PASSED), count);
    }
    let part = pull(mirror.gate.main, &path, &[("Range", "bytes=500000-500009")]).unwrap().expect(206);
    assert_eq!(part.body, large[500_000..500_010]);
    // It is verified on its way all the same.
    mirror.up.fault("GET", "/blobs/", Fault::WrongBytes);
    pull(mirror.gate.main, &path, &[]).expect_err("it is not whole");
    mirror.up.heal();
    mirror.up.fault("GET", "/blobs/", Fault::Truncated(60));
    pull(mirror.gate.main, &path, &[]).expect_err("it is not whole");
    mirror.up.heal();
    // The small one was not thrown out for it.
    mirror.pull(&format!("/v2/up/app/blobs/{small_blob}")).expect(200);
    assert_eq!(mirror.up.count("GET", &small_blob), 1);
    cache_is_clean(&mirror.gate.path("cache"));
}

#[test]
fn what_was_used_longest_ago_gives_way() {
    let mirror = Mirror::start_with(&format!("{OPEN}[cache]\ndisk = \"256KiB\"\nmemory = \"0\"\n"), "");
    let blobs: Vec<String> = (0..8).map(|seed| mirror.up.blob("app", &noise(seed, 60_000))).collect();
    for _ in 0..2 {
        for blob in &blobs {
            assert_eq!(&digest(&mirror.pull(&format!("/v2/up/app/blobs/{blob}")).expect(200).body), blob);
        }
    }
    let held: u64 = kept_blobs(&mirror.gate.path("cache")).iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(held <= 256 << 10, "{held}");
    assert_eq!(mirror.metric(PASSED), 0);
    cache_is_clean(&mirror.gate.path("cache"));
}

#[test]
fn no_cache_at_all() {
    let mirror = Mirror::start_with(&format!("{OPEN}[cache]\ndisk = \"0\"\nmemory = \"0\"\n"), "");
    let (image, blob) = mirror.up.image("app", "v1", b"a layer");
    for _ in 0..2 {
        assert_eq!(digest(&mirror.pull("/v2/up/app/manifests/v1").expect(200).body), image);
        assert_eq!(mirror.pull(&format!("/v2/up/app/blobs/{blob}")).expect(200).body, b"a layer");
    }
    is_error(&mirror.pull(&format!("/v2/up/app/blobs/{}", digest(b"missing"))), 404, "BLOB_UNKNOWN");
    assert_eq!(mirror.up.count("GET", &blob), 2);
    assert!(files(&mirror.gate.path("cache")).is_empty());
}

#[test]
fn the_directory_may_go_while_it_runs() {
    let mirror = Mirror::start_with(&format!("{OPEN}[cache]\nmemory = \"0\"\n"), "");
    let (image, blob) = mirror.up.image("app", "v1", &noise(3, 300_000));
    let path = format!("/v2/up/app/blobs/{blob}");
    let pull_all = || {
        assert_eq!(digest(&mirror.pull("/v2/up/app/manifests/v1").expect(200).body), image);
        assert_eq!(digest(&mirror.pull(&path).expect(200).body), blob);
    };
    pull_all();
    fs::remove_dir_all(mirror.gate.path("cache")).unwrap();
    pull_all();
    let (_, other) = mirror.up.image("app", "v2", &noise(4, 300_000));
    assert_eq!(digest(&mirror.pull(&format!("/v2/up/app/blobs/{other}")).expect(200).body), other);
    assert_eq!(mirror.up.count("GET", &other), 1);
    pull_all();
    cache_is_clean(&mirror.gate.path("cache"));
}

fn with_disk(size: &str) -> (Prepared, Disk, V2Upstream) {
    let up = V2Upstream::start();
    let config = format!("{OPEN}[cache]\npath = \"disk/cache\"\nmemory = \"0\"\n");
    let prepared = prepare(&config, &mirror_of(&up.url(), PATIENT));
    let disk = Disk::memory(&prepared, size);
    (prepared, disk, up)
}

#[test]
fn a_disk_that_fills_up_within_a_download_loses_that_alone() {
    let (prepared, disk, up) = with_disk("12m");
    let gate = prepared.start();
    let (bytes, latch) = (noise(5, 6 << 20), Latch::new());
    let (_, blob) = up.image("app", "v1", &bytes);
    pull(gate.main, "/v2/up/app/manifests/v1", &[]).unwrap().expect(200);
    up.fault_some("GET", "/blobs/", 0..1, Fault::HoldAt(50, latch.clone()));
    let path = format!("/v2/up/app/blobs/{blob}");
    let others = crowd(&gate, 49, &path);
    let mut reader = Bounded::ask(gate.main, &path, &[]);
    assert_eq!(reader.head(), 200);
    assert!(reader.exactly(3 << 20) == bytes[..3 << 20]);
    let filler = disk.fill();
    latch.open();
    let (rest, _) = reader.rest();
    assert!(rest.len() < bytes.len() / 2, "the last byte is not given where it could not be verified");
    for other in others {
        other.join().unwrap().expect_err("it broke off for all");
    }
    gate.wait_for_log("the cache's disk takes nothing now");
    // As long as it is full, all goes past it; whole.
    for _ in 0..3 {
        assert!(pull(gate.main, &path, &[]).unwrap().expect(200).body == bytes);
    }
    assert!(metric(&gate, PASSED) >= 1);
    cache_is_clean(&prepared.path("disk/cache"));
    fs::remove_file(filler).unwrap();
    let restarted = {
        gate.stop();
        prepared.start()
    };
    assert!(pull(restarted.main, &path, &[]).unwrap().expect(200).body == bytes);
    let asked = up.count("GET", &blob);
    assert!(pull(restarted.main, &path, &[]).unwrap().expect(200).body == bytes);
    assert_eq!(up.count("GET", &blob), asked, "it is kept again");
    cache_is_clean(&prepared.path("disk/cache"));
    drop(restarted);
}

#[test]
fn a_disk_that_is_full_from_the_start_is_gone_past() {
    let (prepared, disk, up) = with_disk("4m");
    let gate = prepared.start();
    let filler = disk.fill();
    let bytes = noise(6, 1 << 20);
    let (image, blob) = up.image("app", "v1", &bytes);
    for _ in 0..2 {
        assert_eq!(digest(&pull(gate.main, "/v2/up/app/manifests/v1", &[]).unwrap().expect(200).body), image);
        assert!(pull(gate.main, &format!("/v2/up/app/blobs/{blob}"), &[]).unwrap().expect(200).body == bytes);
    }
    assert!(metric(&gate, PASSED) >= 2);
    cache_is_clean(&prepared.path("disk/cache"));
    drop(filler);
    drop(gate);
}

#[test]
fn what_was_not_verified_when_it_was_killed_is_never_served() {
    let up = V2Upstream::start();
    let prepared = prepare(OPEN, &mirror_of(&up.url(), PATIENT));
    let (bytes, latch) = (noise(7, 4 << 20), Latch::new());
    let (_, blob) = up.image("app", "v1", &bytes);
    let path = format!("/v2/up/app/blobs/{blob}");
    let gate = prepared.start();
    up.fault_some("GET", "/blobs/", 0..1, Fault::HoldAt(75, latch.clone()));
    let others = crowd(&gate, 49, &path);
    let mut reader = Bounded::ask(gate.main, &path, &[]);
    assert_eq!(reader.head(), 200);
    assert!(reader.exactly(3 << 20) == bytes[..3 << 20]);
    let prepared = gate.kill();
    latch.open();
    for other in others {
        other.join().unwrap().expect_err("whom it served is gone");
    }
    let gate = prepared.start();
    cache_is_clean(&prepared.path("cache"));
    assert!(pull(gate.main, &path, &[]).unwrap().expect(200).body == bytes);
    assert_eq!(up.count("GET", &blob), 2);
    cache_is_clean(&prepared.path("cache"));
}

#[test]
fn a_restart_keeps_what_was_there_and_a_kill_has_it_verified() {
    let up = V2Upstream::start();
    let prepared = prepare(OPEN, &mirror_of(&up.url(), ""));
    let bytes = noise(8, 300_000);
    let (_, blob) = up.image("app", "v1", &bytes);
    let path = format!("/v2/up/app/blobs/{blob}");
    let gate = prepared.start();
    assert!(pull(gate.main, &path, &[]).unwrap().expect(200).body == bytes);
    assert_eq!(gate.stop(), 0);
    let gate = prepared.start();
    assert!(pull(gate.main, &path, &[]).unwrap().expect(200).body == bytes);
    let prepared = gate.kill();
    let gate = prepared.start();
    assert!(pull(gate.main, &path, &[]).unwrap().expect(200).body == bytes);
    assert_eq!(up.count("GET", &blob), 1);
    // A power cut may leave other bytes in a file of the right length.
    let prepared = gate.kill();
    let file = kept_blobs(&prepared.path("cache")).into_iter().find(|file| file.ends_with(&blob["sha256:".len()..]));
    fs::write(file.unwrap(), noise(9, bytes.len())).unwrap();
    let gate = prepared.start();
    assert!(pull(gate.main, &path, &[]).unwrap().expect(200).body == bytes);
    assert_eq!(up.count("GET", &blob), 2);
    gate.wait_for_log("a blob of the cache is rotten and is thrown out");
    cache_is_clean(&prepared.path("cache"));
}

/// More went than had to: files that are kept open take their space until they are closed.
#[test]
fn what_is_kept_gives_way_to_others_on_the_disk() {
    let (prepared, disk, up) = with_disk("10m");
    let gate = prepared.start();
    let kept = || kept_blobs(&prepared.path("disk/cache")).len();
    let blob = |seed| up.blob("app", &noise(seed, 1_000_000));
    let get = |blob: &str| {
        let answer = pull(gate.main, &format!("/v2/up/app/blobs/{blob}"), &[]).unwrap().expect(200);
        assert_eq!(digest(&answer.body), blob);
    };
    for seed in 10..16 {
        let blob = blob(seed);
        (0..2).for_each(|_| get(&blob));
    }
    assert_eq!(kept(), 6);
    // 6 MB of 10.5 are the cache's; with these 9.2 are used, and 9.44 may be.
    fs::write(prepared.path("disk/others"), noise(16, 3_200_000)).unwrap();
    get(&blob(17));
    assert_eq!((kept(), metric(&gate, PASSED)), (6, 0), "one came and one went");
    // Others may have what is left; the cache takes its part back from itself.
    fs::write(prepared.path("disk/others"), noise(16, 4_200_000)).unwrap();
    get(&blob(18));
    assert_eq!((kept(), metric(&gate, PASSED)), (5, 0), "two went");
    cache_is_clean(&prepared.path("disk/cache"));
    drop((gate, disk));
}
