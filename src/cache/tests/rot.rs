//! Files that are not what was hashed: thrown out, and never handed out.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::Duration;

use super::*;

/// The file of a blob in a cache's directory.
fn file_of(directory: &Path, digest: &Digest) -> PathBuf {
    directory.join("cache/blobs/sha256").join(&digest.hex()[..2]).join(digest.hex())
}

fn turn_a_bit(file: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 8], at).unwrap();
}

/// Waits until the blob is thrown out, or found to be right: whether it is there.
async fn settles(disk: &TestDisk, digest: &Digest, right: &Bytes) -> bool {
    loop {
        match disk.lookup(digest, "hub").await {
            Lookup::Hit(file) => match file.read_all().await {
                Ok(read) => {
                    assert!(read == *right, "wrong bytes");
                    return true;
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            },
            Lookup::Lead(_) => return false,
            _ => panic!("nobody fills it"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_rots_is_thrown_out_and_never_handed_out() {
    let (directory, disk) = ground().await;
    let bytes = some_bytes(400_000);
    for (rotten, damage) in ["flip", "cut", "gone"].into_iter().enumerate() {
        let digest = keep(&disk, &bytes).await;
        let file = file_of(directory.path(), &digest);
        match damage {
            "flip" => turn_a_bit(&file, 399_999),
            "cut" => fs::write(&file, &bytes[..70_000]).unwrap(),
            _ => fs::remove_file(&file).unwrap(),
        }
        assert!(!settles(&disk, &digest, &bytes).await, "{damage}");
        assert_eq!(disk.usage().rotten, rotten as u64 + 1, "{damage}");
        assert_eq!(files(&directory.path().join("cache/blobs")), [""; 0], "{damage}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checksums_that_are_wrong_or_gone_are_made_anew() {
    let (directory, disk) = ground().await;
    let bytes = some_bytes(400_000);
    let digest = keep(&disk, &bytes).await;
    let sums = file_of(directory.path(), &digest).with_extension("sums");
    let right = fs::read(&sums).unwrap();
    assert_eq!(right.len(), 7 * 4);
    let damages: [&dyn Fn(); 3] =
        [&|| turn_a_bit(&sums, 9), &|| fs::write(&sums, &right[..20]).unwrap(), &|| fs::remove_file(&sums).unwrap()];
    let mut disk = disk;
    for damage in damages {
        disk.close().await;
        drop(disk);
        damage();
        disk = open(&directory.path().join("cache"), 64 << 20).await;
        assert!(settles(&disk, &digest, &bytes).await);
        assert_eq!((fs::read(&sums).unwrap(), disk.usage().rotten), (right.clone(), 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_behind_a_fill_gets_no_wrong_byte_of_the_spool() {
    let (directory, disk) = ground().await;
    let bytes = some_bytes(8 << 20);
    let digest = Digest::sha256(&bytes);
    let mut fill = lead(&disk, &digest).await;
    let late = fill.filling();
    fill.begin(None).await.unwrap();
    for at in (0..7 << 20).step_by(100_000) {
        fill.write(bytes.slice(at..(at + 100_000).min(7 << 20))).await.unwrap();
    }
    let spool = directory.path().join("cache/spool/0");
    turn_a_bit(&spool, 1 << 20);
    let (read, end) = drain(late.read(0, None)).await;
    assert!(bytes.starts_with(&read) && read.len() <= 1 << 20, "{}", read.len());
    assert!(matches!(end, Some(FillError::Spool(_))));
    let (read, end) = drain(late.read(1_200_000, Some(3_000_000))).await;
    assert_eq!((read == bytes[1_200_000..3_000_000], end), (true, None), "these pieces are good");
    fill.write(bytes.slice(7 << 20..)).await.unwrap();
    fill.finish().await.unwrap();
    let (read, end) = drain(late.read(5_000_000, None)).await;
    assert_eq!((read == bytes[5_000_000..], end), (true, None));
    assert!(!settles(&disk, &digest, &bytes).await, "what was kept is not what came");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_readers_of_a_blob_have_one_descriptor() {
    let (directory, disk) = ground().await;
    let bytes = some_bytes(100_000);
    let digest = keep(&disk, &bytes).await;
    let path = fs::canonicalize(file_of(directory.path(), &digest)).unwrap();
    let opened = || {
        let links = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        links.filter(|target| *target == path).count()
    };
    let whole = ByteRange::new(0, 99_999).unwrap();
    let readers = join_all((0..1_000).map(|_| async {
        match disk.lookup(&digest, "hub").await {
            Lookup::Hit(file) => file.read(whole),
            _ => panic!("it is there"),
        }
    }));
    let readers = readers.await;
    assert_eq!((readers.len(), opened()), (1_000, 1));
}
