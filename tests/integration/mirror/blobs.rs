//! Blobs: what is asked of the upstream for them, and sizes that nobody says before.

use super::{Bounded, Mirror, are_there, cache_is_clean, is_error, noise, pull, pullers};
use crate::support::content::digest;
use crate::support::v2_upstream::{Fault, Latch};

#[test]
fn head_of_a_missing_blob_is_one_head_at_the_upstream() {
    let mirror = Mirror::start("");
    let layer = noise(1, 100_000);
    let blob = mirror.up.blob("app", &layer);
    let path = format!("/v2/up/app/blobs/{blob}");
    let head = mirror.gate.plain().head(&path).expect(200);
    assert_eq!(head.header("content-length"), Some("100000"));
    assert_eq!(head.header("docker-content-digest"), Some(blob.as_str()));
    assert_eq!((mirror.up.count("HEAD", &blob), mirror.up.count("GET", &blob)), (1, 0));
    let missing = digest(b"missing");
    let head = mirror.gate.plain().head(&format!("/v2/up/app/blobs/{missing}")).expect(404);
    assert!(head.body.is_empty());
    assert_eq!((mirror.up.count("HEAD", &missing), mirror.up.count("GET", &missing)), (1, 0));
    // What is here is asked for no more.
    assert!(mirror.pull(&path).expect(200).body == layer);
    mirror.gate.plain().head(&path).expect(200);
    assert_eq!((mirror.up.count("HEAD", &blob), mirror.up.count("GET", &blob)), (1, 1));
}

#[test]
fn fifty_heads_are_one_question() {
    let mirror = Mirror::start("first_byte_timeout = \"2s\"");
    let blob = mirror.up.blob("app", b"a blob");
    let latch = Latch::new();
    mirror.up.fault("HEAD", "/blobs/", Fault::Hold(latch.clone()));
    let address = mirror.gate.plain();
    let path = format!("/v2/up/app/blobs/{blob}");
    let asking: Vec<_> = (0..50)
        .map(|_| {
            let (client, path) = (address.clone(), path.clone());
            std::thread::spawn(move || client.head(&path).status)
        })
        .collect();
    are_there(&mirror.gate, 50);
    latch.open();
    assert!(asking.into_iter().all(|asking| asking.join().unwrap() == 200));
    assert_eq!((mirror.up.count("HEAD", &blob), mirror.up.count("GET", &blob)), (1, 0));
}

#[test]
fn a_blob_is_asked_for_once_and_then_comes_from_here() {
    let mirror = Mirror::start("");
    for (seed, size) in [(1, 0), (2, 1), (3, 1_000_000)] {
        let bytes = noise(seed, size);
        let blob = mirror.up.blob("app", &bytes);
        let path = format!("/v2/up/app/blobs/{blob}");
        for _ in 0..3 {
            assert!(mirror.pull(&path).expect(200).body == bytes, "{size} bytes");
        }
        assert_eq!(mirror.up.count("GET", &blob), 1, "{size} bytes");
        if let Some(last) = size.checked_sub(1) {
            let part = pull(mirror.gate.main, &path, &[("Range", &format!("bytes={last}-"))]).unwrap().expect(206);
            assert_eq!(part.body, bytes[last..]);
            let past = pull(mirror.gate.main, &path, &[("Range", &format!("bytes={size}-"))]).unwrap();
            is_error(&past, 416, "RANGE_INVALID");
        }
    }
    cache_is_clean(&mirror.gate.path("cache"));
}

/// No manifest was read before, so only the upstream can say how long a blob is.
#[test]
fn sizes_that_only_the_upstream_knows() {
    let cut = |fault| vec![Fault::NoLength, fault];
    for (faults, is_whole) in [
        (vec![Fault::NoLength], true),
        (cut(Fault::Truncated(50)), false),
        (cut(Fault::Extra), false),
        (vec![Fault::ExtraChunked], false),
        (vec![Fault::Length(-7)], false),
        (vec![Fault::Length(7)], false),
        (vec![Fault::Extra], false),
        (vec![Fault::WrongBytes], false),
    ] {
        let mirror = Mirror::start("");
        let bytes = noise(5, 300_000);
        let blob = mirror.up.blob("app", &bytes);
        faults.iter().for_each(|fault| mirror.up.fault("GET", "/blobs/", fault.clone()));
        let path = format!("/v2/up/app/blobs/{blob}");
        for puller in pullers(&mirror.gate, 10, &path) {
            match puller.join().unwrap() {
                Ok(answer) if is_whole => assert!(answer.expect(200).body == bytes),
                Ok(answer) => assert!(answer.status >= 500, "{} and {} bytes", answer.status, answer.body.len()),
                Err(text) => assert!(!is_whole, "{text}"),
            }
        }
        cache_is_clean(&mirror.gate.path("cache"));
        mirror.up.heal();
        assert!(mirror.pull(&path).expect(200).body == bytes);
    }
}

#[test]
fn the_last_byte_is_withheld_until_it_is_known_to_be_right() {
    let mirror = Mirror::start("");
    let bytes = noise(6, 1 << 20);
    let blob = mirror.up.blob("app", &bytes);
    mirror.up.fault("GET", "/blobs/", Fault::WrongBytes);
    let path = format!("/v2/up/app/blobs/{blob}");
    let mut whole = Bounded::ask(mirror.gate.main, &path, &[]);
    assert_eq!(whole.head(), 200);
    let (came, _) = whole.rest();
    assert!(came.len() < bytes.len(), "all {} bytes of it came", came.len());
    let mut last = Bounded::ask(mirror.gate.main, &path, &[("Range", "bytes=-1")]);
    assert_eq!(last.head(), 206);
    assert_eq!(last.rest().0, b"");
    cache_is_clean(&mirror.gate.path("cache"));
}
