//! The disk tier and its fills, on a real file system.

mod rot;

use std::fs;
use std::path::Path;

use bytes::Bytes;
use futures_util::future::join_all;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::oci::{ByteRange, Digest};

type TestDisk = Disk<&'static str>;

async fn open(path: &Path, capacity: u64) -> TestDisk {
    let settings = DiskSettings { path: path.into(), capacity, used_percent_max: 100 };
    Disk::open(settings, vec![]).await.unwrap()
}

async fn ground() -> (TempDir, TestDisk) {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(&directory.path().join("cache"), 64 << 20).await;
    (directory, disk)
}

/// Bytes that do not repeat every power of two.
fn some_bytes(length: usize) -> Bytes {
    (0..length).map(|at| (at % 251) as u8).collect::<Vec<_>>().into()
}

async fn lead(disk: &TestDisk, digest: &Digest) -> Fill<&'static str> {
    match disk.lookup(digest, "up").await {
        Lookup::Lead(fill) => *fill,
        _ => panic!("somebody else fills it"),
    }
}

async fn hit(disk: &TestDisk, digest: &Digest) -> Option<Bytes> {
    match disk.lookup(digest, "up").await {
        Lookup::Hit(file) => Some(file.read_all().await.unwrap()),
        _ => None,
    }
}

async fn keep(disk: &TestDisk, bytes: &Bytes) -> Digest {
    let digest = Digest::sha256(bytes);
    let mut fill = lead(disk, &digest).await;
    fill.begin(Some(bytes.len() as u64)).await.unwrap();
    fill.write(bytes.clone()).await.unwrap();
    fill.finish().await.unwrap();
    digest
}

/// All that a reader gets, and how it ends.
async fn drain(mut reader: FillReader<&'static str>) -> (Vec<u8>, Option<FillError<&'static str>>) {
    let mut all = Vec::new();
    while let Some(chunk) = reader.next_chunk().await {
        match chunk {
            Ok(chunk) => all.extend_from_slice(&chunk),
            Err(error) => return (all, Some(error)),
        }
    }
    (all, None)
}

#[tokio::test]
async fn what_was_filled_is_there_after_a_restart() {
    let (directory, disk) = ground().await;
    let bytes = some_bytes(3 << 20);
    let digest = keep(&disk, &bytes).await;
    assert_eq!(hit(&disk, &digest).await, Some(bytes.clone()));
    disk.close().await;
    drop(disk);
    let disk = open(&directory.path().join("cache"), 64 << 20).await;
    assert_eq!(hit(&disk, &digest).await, Some(bytes));
    assert_eq!((disk.usage().entries, disk.usage().bytes), (1, 3 << 20));
}

#[tokio::test]
async fn readers_get_what_is_there_before_the_rest_comes_but_never_the_last_byte() {
    let (_directory, disk) = ground().await;
    let bytes = some_bytes(1000);
    let digest = Digest::sha256(&bytes);
    let mut fill = lead(&disk, &digest).await;
    let filling = fill.filling();
    let mut early = filling.read(0, None);
    assert!(futures_util::poll!(Box::pin(early.next_chunk())).is_pending());
    fill.begin(Some(1000)).await.unwrap();
    assert_eq!(filling.size().await, Ok(Some(1000)));
    fill.write(bytes.slice(..600)).await.unwrap();
    assert_eq!(early.next_chunk().await, Some(Ok(bytes.slice(..600))));
    let (part, end) = drain(filling.read(100, Some(600))).await;
    assert_eq!((part, end), (bytes[100..600].to_vec(), None), "a part that is there is there whole");
    fill.write(bytes.slice(600..)).await.unwrap();
    assert_eq!(early.next_chunk().await, Some(Ok(bytes.slice(600..999))));
    assert!(futures_util::poll!(Box::pin(early.next_chunk())).is_pending(), "the last byte waits for the digest");
    let late = match disk.lookup(&digest, "up").await {
        Lookup::Follow(filling) => filling.read(0, None),
        _ => panic!("it is being filled"),
    };
    fill.finish().await.unwrap();
    assert_eq!(early.next_chunk().await, Some(Ok(bytes.slice(999..))));
    assert_eq!(early.next_chunk().await, None);
    assert_eq!(drain(late).await, (bytes.to_vec(), None));
}

#[tokio::test]
async fn what_is_not_right_is_not_kept_and_ends_in_an_error() {
    let (directory, disk) = ground().await;
    let digest = Digest::sha256(b"right");
    let mut fill = lead(&disk, &digest).await;
    let (whole, first) = (fill.filling().read(0, None), fill.filling().read(0, Some(4)));
    fill.begin(Some(5)).await.unwrap();
    fill.write(Bytes::from_static(b"wrong")).await.unwrap();
    assert!(matches!(fill.finish().await, Err(FillError::Mismatch(_))));
    let (bytes, error) = drain(whole).await;
    assert_eq!(bytes, b"wron");
    assert!(matches!(error, Some(FillError::Mismatch(_))), "{error:?}");
    assert_eq!(drain(first).await, (b"wron".to_vec(), None), "its reader hashes the whole");
    assert!(!disk.has(&digest));
    assert!(matches!(disk.lookup(&digest, "up").await, Lookup::Lead(_)));
    let left = files(&directory.path().join("cache"));
    assert_eq!(left, ["lock"]);
}

#[tokio::test]
async fn each_source_has_its_own_fill_and_what_both_send_is_kept_once() {
    let (directory, disk) = ground().await;
    let (bytes, begun) = (some_bytes(1000), Some(1000));
    let digest = Digest::sha256(&bytes);
    let mut first = lead(&disk, &digest).await;
    let Lookup::Lead(mut second) = disk.lookup(&digest, "other").await else { panic!("it is another source") };
    assert!(matches!(disk.lookup_anew(&digest, "other"), Lookup::Follow(_)));
    let reader = second.filling().read(0, None);
    first.begin(begun).await.unwrap();
    first.write(bytes.clone()).await.unwrap();
    first.finish().await.unwrap();
    second.begin(begun).await.unwrap();
    second.write(bytes.slice(..500)).await.unwrap();
    second.write(bytes.slice(500..)).await.unwrap();
    second.verify().await.unwrap();
    assert_eq!(second.finish().await.unwrap().read_all().await.unwrap(), bytes);
    assert_eq!(drain(reader).await, (bytes.to_vec(), None));
    let Lookup::Lead(third) = disk.lookup_anew(&digest, "third") else { panic!("it sent nothing") };
    drop(third);
    let usage = disk.usage();
    assert_eq!((usage.bytes, usage.entries, usage.fills), (1000, 1, 0));
    assert_eq!(
        files(&directory.path().join("cache")),
        [digest.hex(), format!("{}.sums", digest.hex()), "lock".to_owned()]
    );
    assert_eq!(hit(&disk, &digest).await, Some(bytes));
}

#[tokio::test]
async fn what_is_not_right_is_told_when_it_is_verified() {
    let (_directory, disk) = ground().await;
    let digest = Digest::sha256(b"right");
    let mut fill = lead(&disk, &digest).await;
    let reader = fill.filling().read(0, None);
    fill.begin(None).await.unwrap();
    fill.write(Bytes::from_static(b"wrong")).await.unwrap();
    assert!(matches!(fill.verify().await, Err(FillError::Mismatch(_))));
    drop(fill);
    assert!(matches!(drain(reader).await.1, Some(FillError::Mismatch(_))));
    assert!(!disk.has(&digest));
}

fn files(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => names.extend(files(&path)),
            false => names.push(path.file_name().unwrap().to_str().unwrap().to_owned()),
        }
    }
    names.sort();
    names
}

#[tokio::test]
async fn another_size_than_was_announced_is_an_error() {
    let (_directory, disk) = ground().await;
    let digest = Digest::sha256(b"12345");
    let mut fill = lead(&disk, &digest).await;
    fill.begin(Some(4)).await.unwrap();
    let error = fill.write(Bytes::from_static(b"12345")).await;
    assert_eq!(error, Err(FillError::Size { expected: 4, received: 5 }));
    drop(fill);
    let mut fill = lead(&disk, &digest).await;
    let reader = fill.filling().read(0, None);
    fill.begin(Some(6)).await.unwrap();
    fill.write(Bytes::from_static(b"12345")).await.unwrap();
    let expected = FillError::Size { expected: 6, received: 5 };
    assert_eq!(fill.finish().await.err(), Some(expected.clone()));
    assert_eq!(drain(reader).await, (b"12345".to_vec(), Some(expected)));
}

#[tokio::test]
async fn whoever_waits_is_told_why_there_is_nothing() {
    let (_directory, disk) = ground().await;
    let digest = Digest::sha256(b"x");
    let fill = lead(&disk, &digest).await;
    let filling = fill.filling();
    fill.fail("no such blob");
    assert_eq!(filling.size().await, Err(FillError::Failed("no such blob")));
    let fill = lead(&disk, &digest).await;
    let filling = fill.filling();
    drop(fill);
    assert_eq!(filling.done().await.err(), Some(FillError::Abandoned));
}

#[tokio::test]
async fn a_blob_whose_size_nobody_knows_is_kept_too() {
    let (_directory, disk) = ground().await;
    let bytes = some_bytes(20 << 20);
    let digest = Digest::sha256(&bytes);
    let mut fill = lead(&disk, &digest).await;
    let reader = fill.filling().read(0, None);
    fill.begin(None).await.unwrap();
    for at in (0..bytes.len()).step_by(1 << 20) {
        fill.write(bytes.slice(at..at + (1 << 20))).await.unwrap();
    }
    let read = tokio::spawn(drain(reader));
    fill.finish().await.unwrap();
    let (all, error) = read.await.unwrap();
    assert!(all == bytes && error.is_none());
    assert_eq!(disk.usage().bytes, 20 << 20);
}

#[tokio::test]
async fn what_was_used_longest_ago_gives_way_on_disk_too() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path(), 10_000).await;
    let first = keep(&disk, &some_bytes(4_000)).await;
    let second = keep(&disk, &some_bytes(4_001)).await;
    assert!(hit(&disk, &first).await.is_some());
    let reader = match disk.lookup(&first, "up").await {
        Lookup::Hit(file) => file,
        _ => panic!("it is there"),
    };
    let third = keep(&disk, &some_bytes(4_002)).await;
    assert!(disk.has(&first) && !disk.has(&second) && disk.has(&third));
    assert_eq!(files(&directory.path().join("blobs")).len(), 4, "each with its checksums");
    // Nothing may go for this one: one is read, and it alone is larger than what is left.
    let digest = Digest::sha256(b"large");
    let mut fill = lead(&disk, &digest).await;
    assert_eq!(fill.begin(Some(9_000)).await, Err(FillError::Spool(std::io::ErrorKind::QuotaExceeded)));
    drop((fill, reader));
    assert!(matches!(disk.lookup(&digest, "up").await, Lookup::Lead(_)), "that says nothing of the disk");
}

#[tokio::test]
async fn after_an_unclean_stop_everything_is_verified_before_it_is_served() {
    let (directory, disk) = ground().await;
    let (good, bad) = (some_bytes(5_000), some_bytes(5_001));
    let digests = [keep(&disk, &good).await, keep(&disk, &bad).await];
    let half = Digest::sha256(b"half");
    let mut fill = lead(&disk, &half).await;
    fill.begin(Some(4)).await.unwrap();
    // As the disk is when the machine loses its power.
    let copy = directory.path().join("copy");
    copy_all(&directory.path().join("cache"), &copy);
    let damaged = copy.join("blobs/sha256").join(&digests[1].hex()[..2]).join(digests[1].hex());
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[100] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let again = open(&copy, 64 << 20).await;
    let asked = join_all((0..20).map(|_| hit(&again, &digests[0]))).await;
    assert!(asked.iter().all(|found| found.as_ref() == Some(&good)));
    assert_eq!(hit(&again, &digests[1]).await, None);
    assert!(!damaged.exists());
    assert!(!again.has(&half));
    assert!(files(&copy).iter().all(|name| name != "0"), "nothing is left of what was half there");
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_all(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[tokio::test]
async fn the_directory_may_be_deleted_at_any_time() {
    let (directory, disk) = ground().await;
    let bytes = some_bytes(5_000);
    let digest = keep(&disk, &bytes).await;
    let cache = directory.path().join("cache");
    fs::remove_dir_all(&cache).unwrap();
    // Nobody has read it yet, so nobody has it open.
    assert_eq!(hit(&disk, &digest).await, None);
    assert_eq!(keep(&disk, &bytes).await, digest);
    assert_eq!(hit(&disk, &digest).await, Some(bytes.clone()));
    let mut fill = lead(&disk, &Digest::sha256(b"12")).await;
    fill.begin(Some(2)).await.unwrap();
    fill.write(Bytes::from_static(b"1")).await.unwrap();
    fs::remove_dir_all(&cache).unwrap();
    fill.write(Bytes::from_static(b"2")).await.unwrap();
    assert!(matches!(fill.finish().await, Err(FillError::Spool(_))), "its file is gone");
    assert!(matches!(disk.lookup(&Digest::sha256(b"12"), "up").await, Lookup::Off), "for a while nothing is written");
}

#[tokio::test]
async fn one_process_has_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path(), 1 << 20).await;
    let settings = DiskSettings { path: directory.path().into(), capacity: 1 << 20, used_percent_max: 100 };
    let error = TestDisk::open(settings, vec![]).await.err();
    assert_eq!(error, Some(OpenError::InUse { path: directory.path().into() }));
    drop(disk);
}

#[tokio::test]
async fn nothing_is_made_where_nothing_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(&directory.path().join("cache"), 0).await;
    assert!(matches!(disk.lookup(&Digest::sha256(b"x"), "up").await, Lookup::Off));
    disk.close().await;
    assert!(!directory.path().join("cache").exists());
}

#[tokio::test]
async fn strange_files_are_removed_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("blobs/sha256/ab");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("notes.txt"), "x").unwrap();
    fs::write(folder.join("0".repeat(64)), "in the wrong folder").unwrap();
    let disk = open(directory.path(), 1 << 20).await;
    assert_eq!(disk.usage().entries, 0);
    assert_eq!(files(&directory.path().join("blobs")), [""; 0]);
}

#[tokio::test]
async fn a_fill_is_abandoned_when_the_last_reader_leaves_and_only_then() {
    let (_directory, disk) = ground().await;
    let fill = lead(&disk, &Digest::sha256(b"x")).await;
    let (first, second) = (fill.filling(), fill.filling());
    let reader = second.read(0, None);
    drop((first, second));
    let mut abandoned = Box::pin(fill.abandoned());
    assert!(futures_util::poll!(&mut abandoned).is_pending());
    drop(reader);
    abandoned.await;
    assert_eq!(fill.readers(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_readers_of_one_fill_see_the_same_bytes() {
    let (_directory, disk) = ground().await;
    let bytes = some_bytes(8 << 20);
    let digest = Digest::sha256(&bytes);
    let mut fill = lead(&disk, &digest).await;
    let filling = fill.filling();
    let readers: Vec<_> = (0..50_u64)
        .map(|number| {
            let (start, filling) = (number * 150_000, filling.clone());
            tokio::spawn(async move { (start, drain(filling.read(start, None)).await) })
        })
        .collect();
    fill.begin(Some(bytes.len() as u64)).await.unwrap();
    for chunk in bytes.chunks(70_001) {
        fill.write(bytes.slice_ref(chunk)).await.unwrap();
        tokio::task::yield_now().await;
    }
    fill.finish().await.unwrap();
    for reader in readers {
        let (start, (all, error)) = reader.await.unwrap();
        assert!(error.is_none() && all == bytes[usize::try_from(start).unwrap()..], "{start} {error:?}");
    }
    let late = drain(filling.read(0, None)).await;
    assert!(late.0 == bytes && late.1.is_none(), "those who hold on to it read on from the file");
}

/// A reader would check a piece of which the file does not have the end yet.
#[test]
fn what_was_written_of_a_piece_in_part_was_forgotten_in_memory() {
    let shared = fill::Shared::<&str>::new(Digest::sha256(b""), "up".into());
    let mut state = shared.lock();
    let (mib, piece) = (1 << 20, crate::files::PIECE_BYTES);
    state.chunks.push_back((0, some_bytes(mib + 1_000)));
    (state.received, state.sums) = (4 * mib as u64, vec![0; 4 * mib / piece]);
    for (written, kept) in [(mib + 1_000, 1), (mib + piece - 1, 1), (mib + piece, 0)] {
        state.written = written as u64;
        state.trim();
        assert_eq!(state.chunks.len(), kept, "{written}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// However the bytes are cut, wherever readers begin and end, and whenever they come.
    #[test]
    fn every_reader_gets_its_part(
        length in 1usize..3_000_000,
        cuts in prop::collection::vec(1usize..900_000, 1..12),
        parts in prop::collection::vec((0.0f64..1.0, 0.0f64..1.0, 0usize..12), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let (_directory, disk) = ground().await;
            let bytes = some_bytes(length);
            let mut fill = lead(&disk, &Digest::sha256(&bytes)).await;
            let filling = fill.filling();
            fill.begin(Some(length as u64)).await.unwrap();
            let (mut at, mut readers) = (0, Vec::new());
            for (turn, cut) in cuts.iter().cycle().enumerate() {
                for (from, to, when) in parts.iter().filter(|(_, _, when)| *when == turn) {
                    let ends = [from.min(*to), from.max(*to)].map(|part| (part * length as f64) as usize);
                    let filling = filling.clone();
                    let _ = when;
                    readers.push(tokio::spawn(async move {
                        (ends, drain(filling.read(ends[0] as u64, Some(ends[1] as u64))).await)
                    }));
                }
                if at == length {
                    break;
                }
                let next = length.min(at + cut);
                fill.write(bytes.slice(at..next)).await.unwrap();
                at = next;
            }
            fill.finish().await.unwrap();
            for reader in readers {
                let (ends, (all, error)) = reader.await.unwrap();
                assert!(error.is_none() && all == bytes[ends[0]..ends[1]], "{ends:?} {error:?}");
            }
        });
    }
}

#[tokio::test]
async fn a_part_of_what_is_there_is_just_that_part() {
    let (_directory, disk) = ground().await;
    let bytes = some_bytes(1_000);
    let digest = keep(&disk, &bytes).await;
    let Lookup::Hit(file) = disk.lookup(&digest, "up").await else { panic!("it is there") };
    let mut reader = file.read(ByteRange::new(10, 19).unwrap());
    let chunk = std::future::poll_fn(|context| reader.poll_chunk(context, 1_000)).await;
    assert_eq!(chunk.unwrap().unwrap(), bytes.slice(10..20));
}
