//! What is only true of a store of files: what a crash leaves, what a broken disk does.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use futures_util::future::join_all;

use super::*;
use crate::files::PIECE_BYTES;
use crate::store::blobs::mount;
use crate::store::database::Health;
use crate::store::directory::{blob_key, sync};
use crate::store::recovery::{ORPHAN_GRACE, remove_expired_uploads, remove_orphans};
use crate::store::{CommitError, StoreError, UploadError};

/// Every file below a directory, by its path from there.
fn files_below(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            found.extend(files_below(&path).into_iter().map(|below| format!("{name}/{below}")));
        } else {
            found.push(name);
        }
    }
    found
}

#[tokio::test]
async fn a_second_process_is_told_who_holds_the_directory() {
    let ground = Ground::files();
    let store = ground.open().await;
    let error = ground.try_open().await.unwrap_err();
    let expected = OpenError::InUse { data: ground.settings.data.clone(), pid: Some(std::process::id()) };
    assert_eq!(error, expected);
    ground.reopen(store).await;
}

#[tokio::test]
async fn a_newer_format_is_left_alone() {
    let ground = Ground::files();
    let store = ground.open().await;
    assert_eq!(fs::read_to_string(ground.data("version")).unwrap(), "1\n");
    store.close().await;
    drop(store);
    fs::write(ground.data("version"), "2\n").unwrap();
    let expected = OpenError::NewerVersion { data: ground.settings.data.clone(), found: 2 };
    assert_eq!(ground.try_open().await.unwrap_err(), expected);
    fs::write(ground.data("version"), "x").unwrap();
    assert!(matches!(ground.try_open().await, Err(OpenError::Io { .. })));
}

#[tokio::test]
async fn where_nothing_can_be_written_the_error_says_so() {
    let ground = Ground::files();
    let nowhere = Settings { data: "/sys/dockgate".into(), ..ground.settings.clone() };
    assert!(matches!(Store::open(nowhere).await, Err(OpenError::ReadOnly { .. })));
    fs::write(&ground.settings.data, "a file").unwrap();
    assert!(matches!(ground.try_open().await, Err(OpenError::Io { .. })));
}

#[tokio::test]
async fn what_is_kept_is_for_nobody_else_to_read() {
    let ground = Ground::files();
    let store = ground.open().await;
    upload(&store, &repository("app"), &"bytes".into()).await;
    push_blob(&store, &repository("app"), b"blob".as_slice()).await;
    for file in files_below(&ground.settings.data) {
        let mode = fs::metadata(ground.data(&file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file} has mode {mode:o}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_commits_of_one_blob_one_file_remains() {
    let ground = Ground::files();
    let store = ground.open().await;
    let bytes = some_bytes(300_000);
    let digest = Digest::sha256(&bytes);
    let pushes = (0..16).map(|number| {
        let (store, bytes) = (store.clone(), bytes.clone());
        tokio::spawn(async move { push_blob(&store, &repository(&format!("app{}", number % 4)), bytes).await })
    });
    let infos: Vec<_> = join_all(pushes).await.into_iter().map(Result::unwrap).collect();
    assert!(infos.iter().all(|info| *info == infos[0]));
    assert_eq!(files_below(&ground.data("blobs")), [infos[0].key.clone()]);
    assert_eq!(files_below(&ground.data("uploads")), Vec::<String>::new());
    let found = store.blob(&repository("app3"), &digest).await.unwrap().unwrap();
    assert!(read_blob(&store, &found).await == bytes);
}

/// Between the look and the transaction, the source may lose the blob.
#[tokio::test]
async fn a_mount_looks_again_inside_its_transaction() {
    let ground = Ground::files();
    let store = ground.open().await;
    let (app, other) = (repository("app"), repository("other"));
    let info = push_blob(&store, &app, b"gone".as_slice()).await;
    store.unlink_blob(&app, &info.digest).await.unwrap();
    let digest = info.digest.to_string();
    let late = store.inner.database.write(|connection| Box::pin(mount(connection, app, other, digest)));
    assert_eq!(late.await, Ok(false));
    assert_eq!(store.blob(&repository("other"), &info.digest).await.unwrap(), None);
}

/// Hashing costs more than everything else: bytes are hashed as they arrive, and the file is not read again.
#[tokio::test]
async fn what_was_hashed_is_not_read_again() {
    let ground = Ground::files();
    let store = ground.open().await;
    let app = repository("app");
    let id = upload(&store, &app, &"hashed, ".into()).await;
    fs::write(ground.data("uploads").join(id.to_string()), "changed!").unwrap();
    let mut second = store.upload(&app, ALICE, id).await.unwrap();
    second.write("once".into()).await.unwrap();
    second.commit(&Digest::sha256(b"hashed, once")).await.unwrap();
}

/// A crash after the rename, before the transaction: the blob's file is there, nobody knows of it.
#[tokio::test]
async fn a_file_without_a_row_is_removed_after_its_grace() {
    let ground = Ground::files();
    let store = ground.open().await;
    let app = repository("app");
    let known = push_blob(&store, &app, b"known".as_slice()).await;
    let digest = Digest::sha256(b"lost");
    let id = upload(&store, &app, &"lost".into()).await;
    let key = blob_key(&digest, id);
    let staged = File::open(ground.data("uploads").join(id.to_string())).unwrap();
    store.inner.directory.place(id, &staged, &key).unwrap();

    let store = ground.reopen(store).await;
    assert_eq!(store.blob(&app, &digest).await.unwrap(), None);
    assert_eq!(store.upload(&app, ALICE, id).await.unwrap_err(), UploadError::Unknown);
    assert_eq!(remove_orphans(&store.inner, ORPHAN_GRACE).await, Ok(0));
    assert!(ground.data("blobs").join(&key).exists());
    assert_eq!(remove_orphans(&store.inner, Duration::ZERO).await, Ok(1));
    assert_eq!(files_below(&ground.data("blobs")), std::slice::from_ref(&known.key));
    let again = push_blob(&store, &app, b"lost".as_slice()).await;
    assert_eq!(read_blob(&store, &again).await, "lost");
    assert_eq!(read_blob(&store, &known).await, "known");
}

#[tokio::test]
async fn the_scan_leaves_what_is_trash_strange_or_being_committed() {
    let ground = Ground::files();
    let store = ground.open().await;
    let app = repository("app");
    push_blob(&store, &app, b"known".as_slice()).await;
    let key = |text: &[u8], id| blob_key(&Digest::sha256(text), id);
    let open = store.begin_upload(&app, ALICE, Algorithm::Sha256).await.unwrap();
    let trash = key(b"trash", UploadId::from_bits([1; 16]));
    let name = trash.clone();
    let discard = store.inner.database.write(|connection| {
        Box::pin(async move {
            let insert = sqlx::query("INSERT INTO trash (key, deleted_at) VALUES ($1, 0)").bind(name);
            Ok::<_, StoreError>(insert.execute(connection).await?)
        })
    });
    discard.await.unwrap();
    for name in [trash, key(b"open", open), "sha256/aa/README".into()] {
        let path = ground.data("blobs").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }
    assert_eq!(remove_orphans(&store.inner, Duration::ZERO).await, Ok(0));
    assert_eq!(files_below(&ground.data("blobs")).len(), 4);
}

/// A crash between the file of an upload and its row, either way.
#[tokio::test]
async fn half_uploads_are_removed_at_the_start() {
    let ground = Ground::files();
    let store = ground.open().await;
    let app = repository("app");
    let whole = upload(&store, &app, &"whole".into()).await;
    let row_only = upload(&store, &app, &"row".into()).await;
    fs::remove_file(ground.data("uploads").join(row_only.to_string())).unwrap();
    let file_only = UploadId::from_bits([3; 16]).to_string();
    fs::write(ground.data("uploads").join(&file_only), "file").unwrap();
    // While it runs, a session whose file went is simply not there.
    assert_eq!(store.upload(&app, ALICE, row_only).await.unwrap_err(), UploadError::Unknown);
    let store = ground.reopen(store).await;
    assert_eq!(store.upload(&app, ALICE, row_only).await.unwrap_err(), UploadError::Unknown);
    assert_eq!(store.upload(&app, ALICE, whole).await.unwrap().offset(), 5);
    assert_eq!(files_below(&ground.data("uploads")), [whole.to_string()]);
}

/// A crash while bytes were written: what the file has is what counts.
#[tokio::test]
async fn the_files_length_is_the_offset() {
    let ground = Ground::files();
    let store = ground.open().await;
    let app = repository("app");
    let id = upload(&store, &app, &"0123456789".into()).await;
    let path = ground.data("uploads").join(id.to_string());
    File::options().write(true).open(path).unwrap().set_len(4).unwrap();
    let mut second = store.upload(&app, ALICE, id).await.unwrap();
    assert_eq!(second.offset(), 4);
    second.write("four".into()).await.unwrap();
    let info = second.commit(&Digest::sha256(b"0123four")).await.unwrap();
    assert_eq!(read_blob(&store, &info).await, "0123four");
}

#[tokio::test]
async fn expired_uploads_go() {
    let mut ground = Ground::files();
    let store = ground.open().await;
    let app = repository("app");
    let old = upload(&store, &app, &"old".into()).await;
    store.close().await;
    drop(store);
    ground.settings.upload_lifetime = Duration::ZERO;
    let store = ground.open().await;
    assert_eq!(store.upload(&app, ALICE, old).await.unwrap_err(), UploadError::Unknown);
    assert_eq!(files_below(&ground.data("uploads")), Vec::<String>::new());

    let idle = store.begin_upload(&app, ALICE, Algorithm::Sha256).await.unwrap();
    let used = store.begin_upload(&app, ALICE, Algorithm::Sha256).await.unwrap();
    let using = store.upload(&app, ALICE, used).await.unwrap();
    remove_expired_uploads(&store.inner).await.unwrap();
    assert_eq!(store.upload(&app, ALICE, idle).await.unwrap_err(), UploadError::Unknown);
    assert_eq!(files_below(&ground.data("uploads")), [used.to_string()]);
    using.commit(&Digest::sha256(b"")).await.unwrap();
}

#[tokio::test]
async fn a_short_file_ends_in_an_error() {
    let ground = Ground::files();
    let store = ground.open().await;
    let info = push_blob(&store, &repository("app"), some_bytes(600_000)).await;
    let file = store.open_blob(&info).await.unwrap();
    let path = ground.data("blobs").join(&info.key);
    File::options().write(true).open(&path).unwrap().set_len(500_000).unwrap();
    let mut reader = file.read_from_start();
    let mut count = 0;
    let error = loop {
        match reader.next_chunk().await.expect("no clean end") {
            Ok(chunk) => count += chunk.len(),
            Err(error) => break error,
        }
    };
    // No part of a piece is handed out that cannot be checked.
    let pieces = 500_000 / PIECE_BYTES * PIECE_BYTES;
    assert_eq!((count, error.kind()), (pieces, std::io::ErrorKind::UnexpectedEof));
    // Nor does it end cleanly when it is asked again.
    assert!(reader.next_chunk().await.unwrap().is_err());
    assert!(file.read_all().await.is_err());
    drop((reader, file));
    assert_eq!(store.open_blob(&info).await.unwrap_err(), StoreError::Damaged(info.digest));
}

#[tokio::test]
async fn pushing_a_damaged_blob_again_mends_it() {
    let ground = Ground::files();
    let store = ground.open().await;
    let (app, other) = (repository("app"), repository("other"));
    let info = push_blob(&store, &app, b"precious".as_slice()).await;
    fs::remove_file(ground.data("blobs").join(&info.key)).unwrap();
    assert_eq!(store.open_blob(&info).await.unwrap_err(), StoreError::Damaged(info.digest));
    push_blob(&store, &other, b"precious".as_slice()).await;
    for repository in [&app, &other] {
        let found = store.blob(repository, &info.digest).await.unwrap().unwrap();
        assert_eq!(read_blob(&store, &found).await, "precious");
    }
}

#[tokio::test]
async fn an_open_blob_outlives_its_file() {
    let ground = Ground::files();
    let store = ground.open().await;
    let bytes = some_bytes(300_000);
    let info = push_blob(&store, &repository("app"), bytes.clone()).await;
    let file = store.open_blob(&info).await.unwrap();
    fs::remove_file(ground.data("blobs").join(&info.key)).unwrap();
    assert!(file.read_all().await.unwrap() == bytes);
}

#[tokio::test]
async fn the_reserve_stops_pushes_and_not_pulls() {
    let mut ground = Ground::files();
    let store = ground.open().await;
    let app = repository("app");
    let image = push_image(&store, &app, "v1", "").await;
    let id = upload(&store, &app, &"begun".into()).await;
    store.close().await;
    drop(store);
    ground.settings.disk_reserve = u64::MAX;
    let store = ground.open().await;
    let full = UploadError::Store(StoreError::NoSpace);
    assert_eq!(store.begin_upload(&app, ALICE, Algorithm::Sha256).await, Err(full));
    let mut upload = store.upload(&app, ALICE, id).await.unwrap();
    upload.write("more".into()).await.unwrap();
    assert_eq!(upload.pause().await, Err(StoreError::NoSpace));
    let again = put(&store, &app, &image, Some(&tag("v2")), true).await;
    assert_eq!(again, Err(PutError::Store(StoreError::NoSpace)));
    let layer = store.blob(&app, &Digest::sha256(b"layer")).await.unwrap().unwrap();
    assert_eq!(read_blob(&store, &layer).await, "layer");
    assert!(store.delete_tag(&app, &tag("v1")).await.unwrap());
    // What was uploaded before is not lost.
    assert_eq!(store.upload(&app, ALICE, id).await.unwrap().offset(), 5);
    assert!(store.healthy());
}

#[tokio::test]
async fn a_full_disk_fails_the_write_and_every_one_after() {
    let ground = Ground::files();
    let store = ground.open().await;
    let app = repository("app");
    let id = store.begin_upload(&app, ALICE, Algorithm::Sha256).await.unwrap();
    let path = ground.data("uploads").join(id.to_string());
    fs::remove_file(&path).unwrap();
    symlink("/dev/full", &path).unwrap();
    let mut upload = store.upload(&app, ALICE, id).await.unwrap();
    let bytes = some_bytes(1024 * 1024);
    let mut results = Vec::new();
    for _ in 0..4 {
        results.push(upload.write(bytes.clone()).await);
    }
    assert_eq!(results[3], Err(StoreError::NoSpace));
    let committed = upload.commit(&Digest::sha256(&bytes)).await;
    assert_eq!(committed, Err(CommitError::Store(StoreError::NoSpace)));
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_written() {
    let ground = Ground::files();
    let store = ground.open().await;
    let app = repository("app");
    let info = push_blob(&store, &app, b"before".as_slice()).await;
    let id = upload(&store, &app, &"bytes".into()).await;
    // A device that cannot be synced stands for a disk that fails to.
    let path = ground.data("uploads").join(id.to_string());
    let unsyncable = File::options().write(true).open("/dev/null").unwrap();
    let placed = store.inner.directory.place(id, &unsyncable, &blob_key(&Digest::sha256(b"bytes"), id));
    assert_eq!(placed, Err(StoreError::Unhealthy));
    assert!(!path.exists(), "what may be damaged is thrown away");
    assert!(!store.healthy());
    let refused = UploadError::Store(StoreError::Unhealthy);
    assert_eq!(store.begin_upload(&app, ALICE, Algorithm::Sha256).await, Err(refused));
    assert_eq!(store.unlink_blob(&app, &info.digest).await, Err(StoreError::Unhealthy));
    assert_eq!(read_blob(&store, &info).await, "before");
    assert!(ground.reopen(store).await.healthy());
}

#[test]
fn a_sync_that_works_keeps_the_store_healthy() {
    let health = Health::default();
    sync(&health, "sync a test", &tempfile::tempfile().unwrap()).unwrap();
    assert!(health.is_good());
}
