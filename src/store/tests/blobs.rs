use futures_util::future::join_all;

use super::*;
use crate::oci::ByteRange;

pub(super) async fn a_pushed_blob_reads_back(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    for length in [0, 1, 128 * 1024, 256 * 1024, 256 * 1024 + 1, 3 * 1024 * 1024 + 5] {
        let bytes = some_bytes(length);
        let pushed = push_blob(&store, &app, bytes.clone()).await;
        assert_eq!((pushed.digest, pushed.size), (Digest::sha256(&bytes), length as u64));
        let found = store.blob(&app, &pushed.digest).await.unwrap();
        assert_eq!(found.as_ref(), Some(&pushed));
        assert!(read_blob(&store, &pushed).await == bytes, "{length}");
    }
    let store = ground.reopen(store).await;
    let bytes = some_bytes(256 * 1024);
    let found = store.blob(&app, &Digest::sha256(&bytes)).await.unwrap().unwrap();
    assert!(read_blob(&store, &found).await == bytes);
}

pub(super) async fn a_range_is_just_that_range(ground: &Ground) {
    let store = ground.open().await;
    let bytes = some_bytes(600 * 1024);
    let info = push_blob(&store, &repository("app"), bytes.clone()).await;
    let file = store.open_blob(&info).await.unwrap();
    assert_eq!(file.size(), 600 * 1024);
    for (start, last) in [(0, 0), (1, 300_000), (262_143, 262_144), (614_399, 614_399), (0, 614_399)] {
        let mut reader = file.read(ByteRange::new(start, last).unwrap());
        assert_eq!(reader.remaining(), last - start + 1);
        let mut read = Vec::new();
        while let Some(chunk) = reader.next_chunk().await {
            let chunk = chunk.unwrap();
            assert!(!chunk.is_empty() && chunk.len() <= 256 * 1024);
            read.extend_from_slice(&chunk);
        }
        assert!(read == bytes[start as usize..=last as usize], "{start}-{last}");
    }
}

pub(super) async fn a_blob_is_known_only_where_it_is_linked(ground: &Ground) {
    let store = ground.open().await;
    let (app, other) = (repository("app"), repository("other"));
    push_blob(&store, &other, b"else".as_slice()).await;
    let info = push_blob(&store, &app, b"secret".as_slice()).await;
    assert_eq!(store.blob(&other, &info.digest).await.unwrap(), None);
    assert_eq!(store.blob(&repository("none"), &info.digest).await.unwrap(), None);
    assert!(!store.renew_link(&other, &info.digest).await.unwrap());
    assert!(store.renew_link(&app, &info.digest).await.unwrap());
}

pub(super) async fn a_mount_needs_the_blob_in_its_source(ground: &Ground) {
    let store = ground.open().await;
    let (app, other, third) = (repository("app"), repository("other"), repository("third"));
    let info = push_blob(&store, &app, b"shared".as_slice()).await;
    push_blob(&store, &other, b"else".as_slice()).await;
    assert_eq!(store.mount_blob(&other, &third, &info.digest).await.unwrap(), None);
    assert_eq!(store.blob(&third, &info.digest).await.unwrap(), None);
    assert_eq!(store.mount_blob(&app, &third, &info.digest).await.unwrap(), Some(info.clone()));
    assert_eq!(store.blob(&third, &info.digest).await.unwrap(), Some(info));
}

pub(super) async fn unlinking_in_one_repository_leaves_the_other(ground: &Ground) {
    let store = ground.open().await;
    let (app, other) = (repository("app"), repository("other"));
    let info = push_blob(&store, &app, b"shared".as_slice()).await;
    store.mount_blob(&app, &other, &info.digest).await.unwrap().unwrap();
    assert!(store.unlink_blob(&app, &info.digest).await.unwrap());
    assert!(!store.unlink_blob(&app, &info.digest).await.unwrap());
    assert_eq!(store.blob(&app, &info.digest).await.unwrap(), None);
    let kept = store.blob(&other, &info.digest).await.unwrap().unwrap();
    assert_eq!(read_blob(&store, &kept).await, "shared");
}

pub(super) async fn the_same_blob_may_be_pushed_twice(ground: &Ground) {
    let store = ground.open().await;
    let first = push_blob(&store, &repository("app"), b"same".as_slice()).await;
    let second = push_blob(&store, &repository("other"), b"same".as_slice()).await;
    assert_eq!(first, second);
    assert_eq!(read_blob(&store, &second).await, "same");
    assert!(store.blob(&repository("other"), &second.digest).await.unwrap().is_some());
}

pub(super) async fn many_links_at_once_are_all_there(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    let info = push_blob(&store, &app, b"shared".as_slice()).await;
    let targets: Vec<_> = (0..64).map(|number| repository(&format!("copy/{number}"))).collect();
    let mounts = targets.iter().map(|target| store.mount_blob(&app, target, &info.digest));
    for mounted in join_all(mounts).await {
        assert_eq!(mounted.unwrap(), Some(info.clone()));
    }
    let store = ground.reopen(store).await;
    for target in &targets {
        assert!(store.blob(target, &info.digest).await.unwrap().is_some(), "{target}");
    }
}

pub(super) async fn a_setting_keeps_its_first_value(ground: &Ground) {
    let store = ground.open().await;
    assert_eq!(store.setting("key").await.unwrap(), None);
    let candidates = (0..8u8).map(|value| store.setting_or_insert("key", vec![value]));
    let answers: Vec<_> = join_all(candidates).await.into_iter().map(Result::unwrap).collect();
    let store = ground.reopen(store).await;
    let kept = store.setting("key").await.unwrap().unwrap();
    assert!(answers.iter().all(|answer| *answer == kept));
    assert_eq!(store.setting_or_insert("key", vec![99]).await.unwrap(), kept);
    assert!(!store.replace_setting("key", vec![99], vec![100]).await.unwrap(), "it was another value");
    assert!(!store.replace_setting("other", vec![], vec![100]).await.unwrap(), "there was none");
    assert_eq!(store.setting("key").await.unwrap(), Some(kept.clone()));
    assert!(store.replace_setting("key", kept, vec![100]).await.unwrap());
    assert_eq!(store.setting("key").await.unwrap(), Some(vec![100]));
    assert_eq!(store.setting("other").await.unwrap(), None);
}
