//! What is handed out of files that were damaged: never a wrong byte.

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;
use crate::files::{OpenFiles, Prover};
use crate::oci::{Algorithm, Digest};

fn some_bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

fn sums_of(bytes: &[u8]) -> Sums {
    let mut prover = Prover::new(Algorithm::Sha256);
    prover.update(bytes);
    prover.prove(&Digest::sha256(bytes)).unwrap().sums
}

/// A file with other bytes in it than were hashed, and how often somebody doubted it.
fn damaged(right: &[u8], kept: &[u8]) -> (BlobFile, Arc<AtomicUsize>) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(kept).unwrap();
    let doubts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&doubts);
    let doubt: Doubt = Box::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let reading = Reading::new(Handle::current());
    (BlobFile::checked(Arc::new(file), right.len() as u64, Some(sums_of(right)), doubt, reading), doubts)
}

/// What comes of a range in chunks of at most `most`, and whether it ended well.
async fn read(file: &BlobFile, start: usize, end: usize, most: usize) -> (Vec<u8>, bool) {
    let mut reader = file.read(ByteRange::new(start as u64, end as u64 - 1).unwrap());
    let mut all = Vec::new();
    loop {
        match poll_fn(|context| reader.poll_chunk(context, most)).await {
            Some(Ok(chunk)) => {
                assert!(!chunk.is_empty() && chunk.len() <= most, "{} of {most}", chunk.len());
                all.extend_from_slice(&chunk);
            }
            Some(Err(_)) => return (all, false),
            None => return (all, true),
        }
    }
}

#[tokio::test]
async fn a_wrong_piece_ends_the_answer_and_is_doubted_once() {
    let right = some_bytes(5 * PIECE_BYTES + 9);
    let mut kept = right.clone();
    kept[2 * PIECE_BYTES + 17] ^= 0x40;
    let (file, doubts) = damaged(&right, &kept);
    let mut reader = file.read(ByteRange::new(PIECE_BYTES as u64, right.len() as u64 - 1).unwrap());
    let first = reader.next_chunk().await.unwrap();
    assert_eq!(first.unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert!(reader.next_chunk().await.unwrap().is_err(), "it is said again");
    assert_eq!(doubts.load(Ordering::Relaxed), 1);
    // Pieces that are good are given; nobody reads the others for them.
    assert_eq!(read(&file, 10, 2 * PIECE_BYTES, CHUNK_BYTES).await, (right[10..2 * PIECE_BYTES].to_vec(), true));
    let last = 3 * PIECE_BYTES..right.len();
    assert_eq!(read(&file, last.start, last.end, 1_000).await, (right[last].to_vec(), true));
    assert_eq!(doubts.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_range_that_nobody_can_read_says_nothing_of_the_file() {
    let right = some_bytes(100);
    let (file, doubts) = damaged(&right, &right);
    assert_eq!(read(&file, 90, 200, CHUNK_BYTES).await, (right[90..].to_vec(), false));
    assert_eq!(doubts.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_small_chunk_takes_no_more_memory_than_it_has_bytes() {
    let right = some_bytes(4 * PIECE_BYTES);
    let (file, _) = damaged(&right, &right);
    for most in [1, 4_000, PIECE_BYTES, 3 * PIECE_BYTES] {
        let mut reader = file.read_from_start();
        let chunk = poll_fn(|context| reader.poll_chunk(context, most)).await.unwrap().unwrap();
        assert_eq!(chunk.len(), most);
        // Whoever owns all of the memory may write to it; a part of a lent buffer cannot.
        let alone = chunk.try_into_mut().unwrap();
        assert!(alone.capacity() <= most, "{} for {most}", alone.capacity());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_readers_have_one_descriptor_and_none_is_kept() {
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), b"shared").unwrap();
    let (files, opened) = (Arc::new(OpenFiles::default()), Arc::new(AtomicUsize::new(0)));
    let readers: Vec<_> = (0..1_000)
        .map(|_| {
            let (files, opened, path) = (Arc::clone(&files), Arc::clone(&opened), path.path().to_owned());
            tokio::task::spawn_blocking(move || {
                files.get_or_open(&"name", || {
                    opened.fetch_add(1, Ordering::Relaxed);
                    let file = Arc::new(File::open(path)?);
                    io::Result::Ok(BlobFile::new(file, 6, Reading::new(Handle::current())))
                })
            })
        })
        .collect();
    let readers = futures_util::future::join_all(readers).await;
    assert_eq!(opened.load(Ordering::Relaxed), 1);
    assert!(files.get(&"name").is_some());
    drop(readers);
    assert!(files.get(&"name").is_none());
}

/// What a disk does to a file.
#[derive(Debug, Clone)]
enum Damage {
    Flip(usize, u8),
    Cut(usize),
    Zeroes(usize, usize),
    Swap(usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<usize>(), 0u8..8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        any::<usize>().prop_map(Damage::Cut),
        (any::<usize>(), 1usize..100_000).prop_map(|(at, length)| Damage::Zeroes(at, length)),
        (any::<usize>(), any::<usize>()).prop_map(|(one, other)| Damage::Swap(one, other)),
    ]
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len().max(1);
        match *self {
            _ if bytes.is_empty() => {}
            Self::Flip(at, bit) => bytes[at % length] ^= 1 << bit,
            Self::Cut(at) => bytes.truncate(at % length),
            Self::Zeroes(at, count) => {
                let at = at % length;
                bytes[at..length.min(at + count)].fill(0);
            }
            Self::Swap(one, other) => bytes.swap(one % length, other % length),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_wrong_byte_is_ever_handed_out(
        length in 1usize..600_000,
        damages in prop::collection::vec(damage(), 0..4),
        ranges in prop::collection::vec((any::<usize>(), any::<usize>(), 1usize..300_000), 1..6),
    ) {
        let right: Vec<u8> = some_bytes(length);
        let mut kept = right.clone();
        damages.iter().for_each(|damage| damage.apply(&mut kept));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (file, doubts) = damaged(&right, &kept);
            for (one, other, most) in ranges {
                let (one, other) = (one % length, other % length);
                let (start, end) = (one.min(other), one.max(other) + 1);
                let (read, is_whole) = read(&file, start, end, most).await;
                assert!(right[start..].starts_with(&read), "a wrong byte in {start}..{end}");
                assert!(!is_whole || read.len() == end - start, "an end that is not the end");
                assert!(is_whole || doubts.load(Ordering::Relaxed) > 0);
                assert!(is_whole || kept != right);
            }
        });
    }
}
