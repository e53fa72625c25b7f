//! Parallel ranges as containerd asks for them: from a place to the end, of which a chunk is read, and then it closes.

use std::sync::Arc;

use super::{Bounded, Mirror, cache_is_clean, noise};
use crate::support::v2_upstream::{Fault, Latch};

const CHUNK: usize = 1 << 18;
const CHUNKS: usize = 24;

/// Reads one chunk and closes.
fn chunk(mirror: &Mirror, path: &str, number: usize) -> Vec<u8> {
    let range = format!("bytes={}-", number * CHUNK);
    let mut stream = Bounded::ask(mirror.gate.main, path, &[("Range", &range)]);
    assert_eq!(stream.head(), 206);
    stream.exactly(CHUNK)
}

fn all_chunks(mirror: &Mirror, path: &str, bytes: &[u8]) {
    std::thread::scope(|scope| {
        let readers: Vec<_> =
            (0..CHUNKS).map(|number| (number, scope.spawn(move || chunk(mirror, path, number)))).collect();
        for (number, reader) in readers {
            assert!(reader.join().unwrap() == bytes[number * CHUNK..(number + 1) * CHUNK], "chunk {number}");
        }
    });
}

#[test]
fn chunks_of_a_cold_blob_are_one_download() {
    let mirror = Mirror::start("");
    let bytes = noise(11, CHUNK * CHUNKS);
    let (_, blob) = mirror.up.image("app", "v1", &bytes);
    let path = format!("/v2/up/app/blobs/{blob}");
    mirror.pull("/v2/up/app/manifests/v1").expect(200);
    all_chunks(&mirror, &path, &bytes);
    // And again, from the disk.
    all_chunks(&mirror, &path, &bytes);
    assert_eq!(mirror.up.count("GET", &blob), 1);
    cache_is_clean(&mirror.gate.path("cache"));
}

#[test]
fn chunks_of_a_download_that_breaks_off_are_right_or_missing() {
    for clients in [1, 4] {
        let mirror = Mirror::start("idle_timeout = \"20s\"");
        let (bytes, latch) = (Arc::new(noise(12, CHUNK * CHUNKS)), Latch::new());
        let (_, blob) = mirror.up.image("app", "v1", &bytes);
        let path = format!("/v2/up/app/blobs/{blob}");
        mirror.pull("/v2/up/app/manifests/v1").expect(200);
        mirror.up.fault_some("GET", "/blobs/", 0..1, Fault::HoldAt(50, latch.clone()));
        mirror.up.fault_some("GET", "/blobs/", 0..1, Fault::Reset(60));
        // The first half is there, so its chunks are read, and closed, before the upstream goes on and breaks off.
        for _ in 0..clients {
            for number in [0, CHUNKS / 2 - 1, 5] {
                assert!(chunk(&mirror, &path, number) == bytes[number * CHUNK..(number + 1) * CHUNK]);
            }
        }
        latch.open();
        all_chunks(&mirror, &path, &bytes);
        assert_eq!(mirror.up.count("GET", &blob), 2);
        cache_is_clean(&mirror.gate.path("cache"));
    }
}
