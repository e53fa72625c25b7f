//! Files and rows that are not what was hashed: never handed out, not there for who asks, mended by who pushes again.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use super::*;
use crate::store::recovery::remove_from_quarantine;
use crate::store::{Rotten, StoreError};

/// Turns one bit of a blob's file.
fn flip(ground: &Ground, info: &BlobInfo, at: u64) {
    let file = File::options().read(true).write(true).open(ground.data("blobs").join(&info.key)).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

async fn run(store: &Store, statement: &'static str) {
    let run = store.inner.database.write(move |connection| {
        Box::pin(async move { Ok::<_, StoreError>(sqlx::query(statement).execute(connection).await?) })
    });
    run.await.unwrap();
}

async fn sums_of(store: &Store, digest: &Digest) -> Option<Vec<u8>> {
    let query = sqlx::query_scalar("SELECT sums FROM blob_sums WHERE digest = $1").bind(digest.to_string());
    query.fetch_optional(store.inner.database.readers()).await.unwrap()
}

async fn wait_until(mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < Duration::from_secs(20), "it does not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Reads what can be read; the right bytes or an error.
async fn reads(store: &Store, info: &BlobInfo, right: &Bytes) -> bool {
    match store.open_blob(info).await {
        Err(error) => {
            assert_eq!(error, StoreError::Damaged(info.digest));
            false
        }
        Ok(file) => match file.read_all().await {
            Ok(read) => {
                assert!(read == *right, "wrong bytes");
                true
            }
            Err(_) => false,
        },
    }
}

pub(super) async fn a_rotten_blob_is_not_there_until_it_is_pushed_again(ground: &Ground) {
    let store = ground.open().await;
    let (app, other) = (repository("app"), repository("other"));
    let bytes = some_bytes(700_000);
    let info = push_blob(&store, &app, bytes.clone()).await;
    store.mount_blob(&app, &other, &info.digest).await.unwrap().unwrap();
    flip(ground, &info, 300_000);
    let changes = store.blob_changes();
    assert!(!reads(&store, &info, &bytes).await);
    wait_until(async || store.blob(&app, &info.digest).await.unwrap().is_none()).await;
    assert!(store.blob_changes() > changes);
    assert_eq!(store.rotten(), Rotten { blobs: 1, manifests: 0 });
    assert_eq!(store.mount_blob(&app, &repository("third"), &info.digest).await.unwrap(), None);
    let name = info.key.rsplit('/').next().unwrap();
    wait_until(async || ground.data("quarantine").join(name).exists()).await;
    assert!(!ground.data("blobs").join(&info.key).exists());

    let pushed = push_blob(&store, &app, bytes.clone()).await;
    assert_ne!(pushed.key, info.key);
    let store = ground.reopen(store).await;
    for repository in [&app, &other] {
        let found = store.blob(repository, &info.digest).await.unwrap().unwrap();
        assert!(reads(&store, &found, &bytes).await);
    }
}

pub(super) async fn a_file_that_is_gone_or_cut_is_a_blob_that_is_gone(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    let bytes = some_bytes(100_000);
    for cut in [None, Some(0), Some(99_999), Some(100_001)] {
        let info = push_blob(&store, &app, bytes.clone()).await;
        assert_eq!(store.check_blob(&info).await, Ok(()));
        let path = ground.data("blobs").join(&info.key);
        match cut {
            None => fs::remove_file(&path).unwrap(),
            Some(length) => File::options().write(true).open(&path).unwrap().set_len(length).unwrap(),
        }
        // Whoever mounts it does not push it, and must find out too.
        match cut {
            None => assert_eq!(store.mount_blob(&app, &repository("other"), &info.digest).await.unwrap(), None),
            Some(_) => assert_eq!(store.check_blob(&info).await, Err(StoreError::Damaged(info.digest))),
        }
        assert_eq!(store.blob(&app, &info.digest).await.unwrap(), None);
    }
    let info = push_blob(&store, &app, bytes.clone()).await;
    assert!(reads(&store, &info, &bytes).await);
    assert_eq!(store.rotten().blobs, 4);
}

/// Nobody has read it, so nobody knows: the push itself must find out.
pub(super) async fn a_push_mends_what_nobody_has_found_yet(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    let bytes = some_bytes(300_000);
    let info = push_blob(&store, &app, bytes.clone()).await;
    flip(ground, &info, 299_999);
    let again = push_blob(&store, &repository("other"), bytes.clone()).await;
    let found = store.blob(&app, &info.digest).await.unwrap().unwrap();
    assert_eq!(found, again);
    assert!(reads(&store, &found, &bytes).await);
    // The file is right, and a push leaves it as it is.
    assert_eq!(push_blob(&store, &app, bytes.clone()).await, found);
}

pub(super) async fn wrong_checksums_are_made_anew(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    let bytes = some_bytes(200_000);
    let info = push_blob(&store, &app, bytes.clone()).await;
    let right = sums_of(&store, &info.digest).await.unwrap();
    assert_eq!(right.len(), 4 * 4);
    run(&store, "UPDATE blob_sums SET sums = x'00000000000000000000000000000000'").await;
    assert!(!reads(&store, &info, &bytes).await);
    wait_until(async || sums_of(&store, &info.digest).await.as_ref() == Some(&right)).await;
    wait_until(async || reads(&store, &info, &bytes).await).await;
    // Those that cannot be used are made anew before anything is read.
    let store = ground.reopen(store).await;
    run(&store, "UPDATE blob_sums SET sums = x'00'").await;
    assert!(reads(&store, &info, &bytes).await);
    assert_eq!(sums_of(&store, &info.digest).await, Some(right));
    assert_eq!(store.rotten(), Rotten { blobs: 0, manifests: 0 });
}

pub(super) async fn blobs_from_before_get_checksums_and_rot_among_them_is_found(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    let (good, bad) = (some_bytes(150_000), some_bytes(150_001));
    let infos = [push_blob(&store, &app, good.clone()).await, push_blob(&store, &app, bad).await];
    let right = sums_of(&store, &infos[0].digest).await;
    run(&store, "DELETE FROM blob_sums").await;
    flip(ground, &infos[1], 0);
    let store = ground.reopen(store).await;
    wait_until(async || store.blob(&app, &infos[1].digest).await.unwrap().is_none()).await;
    wait_until(async || sums_of(&store, &infos[0].digest).await == right).await;
    assert!(reads(&store, &infos[0], &good).await);
    assert_eq!(store.rotten().blobs, 1);
}

pub(super) async fn a_file_that_is_put_back_heals_its_blob(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    let bytes = some_bytes(1_000);
    let info = push_blob(&store, &app, bytes.clone()).await;
    let (path, backup) = (ground.data("blobs").join(&info.key), ground.data("backup"));
    fs::rename(&path, &backup).unwrap();
    assert!(store.check_blob(&info).await.is_err());
    assert_eq!(store.blob(&app, &info.digest).await.unwrap(), None);
    fs::rename(&backup, &path).unwrap();
    let store = ground.reopen(store).await;
    wait_until(async || store.blob(&app, &info.digest).await.unwrap().is_some()).await;
    assert!(reads(&store, &info, &bytes).await);
}

pub(super) async fn a_manifest_that_was_changed_is_not_there_until_it_is_pushed_again(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    let bytes = push_image(&store, &app, "v1", "").await;
    let digest = Digest::sha256(&bytes);
    let statements = [
        "UPDATE manifests SET bytes = x'7b7d'",
        "UPDATE manifests SET bytes = CAST(bytes || x'20' AS BLOB)",
        "UPDATE manifests SET media_type = 'text/plain'",
    ];
    for statement in statements {
        run(&store, statement).await;
        assert_eq!(store.manifest(&app, &digest).await.unwrap(), None, "{statement}");
        put(&store, &app, &bytes, Some(&tag("v1")), true).await.unwrap();
        assert_eq!(store.manifest(&app, &digest).await.unwrap().unwrap().bytes, bytes, "{statement}");
    }
    assert_eq!(store.rotten().manifests, 3);
}

pub(super) async fn parts_that_are_rotten_are_missing_from_a_manifest(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    let bytes = push_image(&store, &app, "v1", "").await;
    let layer = Digest::sha256(b"layer");
    let info = store.blob(&app, &layer).await.unwrap().unwrap();
    fs::remove_file(ground.data("blobs").join(&info.key)).unwrap();
    assert!(store.check_blob(&info).await.is_err());
    let refused = put(&store, &app, &bytes, None, true).await;
    assert_eq!(refused, Err(PutError::MissingChildren(vec![layer])));
}

/// Where the disk of the data directory is taken away, every file is gone, and no blob is.
#[tokio::test]
async fn a_directory_that_is_gone_makes_no_blob_rotten() {
    let ground = Ground::files();
    let store = ground.open().await;
    let info = push_blob(&store, &repository("app"), b"bytes".as_slice()).await;
    let away = ground.settings.data.with_extension("away");
    fs::rename(&ground.settings.data, &away).unwrap();
    fs::create_dir(&ground.settings.data).unwrap();
    assert!(matches!(store.check_blob(&info).await, Err(StoreError::Io { .. })));
    // Whether the file or the database is missed first does not matter.
    assert_ne!(store.open_blob(&info).await.unwrap_err(), StoreError::Damaged(info.digest));
    fs::remove_dir(&ground.settings.data).unwrap();
    fs::rename(&away, &ground.settings.data).unwrap();
    assert_eq!(read_blob(&store, &info).await, "bytes");
    assert_eq!(store.rotten().blobs, 0);
}

#[tokio::test]
async fn the_quarantine_is_emptied_of_what_is_old() {
    let ground = Ground::files();
    let store = ground.open().await;
    let info = push_blob(&store, &repository("app"), b"bytes".as_slice()).await;
    store.inner.directory.put_aside(&info.key).unwrap();
    assert_eq!(remove_from_quarantine(&store.inner, Duration::from_secs(60)).await, Ok(0));
    assert_eq!(remove_from_quarantine(&store.inner, Duration::ZERO).await, Ok(1));
}

#[tokio::test]
async fn all_readers_of_a_blob_have_one_descriptor() {
    let ground = Ground::files();
    let store = ground.open().await;
    let info = push_blob(&store, &repository("app"), some_bytes(100_000)).await;
    let path = fs::canonicalize(ground.data("blobs").join(&info.key)).unwrap();
    let opened = || {
        let links = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        links.filter(|target| *target == path).count()
    };
    let readers = (0..1_000).map(|_| async { store.open_blob(&info).await.unwrap().read_from_start() });
    let readers = futures_util::future::join_all(readers).await;
    assert_eq!((readers.len(), opened()), (1_000, 1));
    drop(readers);
    assert_eq!(opened(), 0);
}
