use super::*;
use crate::oci::Algorithm;
use crate::store::{CommitError, StoreError, Upload, UploadError};

/// Takes a session up as soon as the request before has given it back.
pub(super) async fn take_when_free(store: &Store, repository: &RepositoryName, id: UploadId) -> Upload {
    let take = async {
        loop {
            match store.upload(repository, ALICE, id).await {
                Err(UploadError::Busy) => tokio::task::yield_now().await,
                taken => return taken.unwrap(),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), take).await.unwrap()
}

pub(super) async fn an_upload_goes_on_over_requests(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    let bytes = some_bytes(3_000_000);
    let id = upload(&store, &app, &bytes.slice(..1_500_000)).await;
    let mut second = store.upload(&app, ALICE, id).await.unwrap();
    assert_eq!(second.offset(), 1_500_000);
    second.write(bytes.slice(1_500_000..)).await.unwrap();
    assert_eq!(second.offset(), 3_000_000);
    let info = second.commit(&Digest::sha256(&bytes)).await.unwrap();
    assert!(read_blob(&store, &info).await == bytes);
    assert_eq!(store.upload(&app, ALICE, id).await.unwrap_err(), UploadError::Unknown);
}

pub(super) async fn an_upload_goes_on_after_a_restart(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    let id = upload(&store, &app, &"before, ".into()).await;
    let store = ground.reopen(store).await;
    let mut second = store.upload(&app, ALICE, id).await.unwrap();
    assert_eq!(second.offset(), 8);
    second.write("after".into()).await.unwrap();
    let info = second.commit(&Digest::sha256(b"before, after")).await.unwrap();
    assert_eq!(read_blob(&store, &info).await, "before, after");
}

pub(super) async fn what_came_before_the_client_left_is_kept(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    // Less than a buffer; and one buffer on its way to the disk with more behind it.
    for length in [10, 1_500_000] {
        let bytes = some_bytes(length);
        let id = store.begin_upload(&app, ALICE, Algorithm::Sha256).await.unwrap();
        let mut first = store.upload(&app, ALICE, id).await.unwrap();
        first.write(bytes.clone()).await.unwrap();
        drop(first);
        let second = take_when_free(&store, &app, id).await;
        assert_eq!(second.offset(), length as u64);
        second.commit(&Digest::sha256(&bytes)).await.unwrap();
    }
}

pub(super) async fn how_the_bytes_are_cut_does_not_matter(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    let bytes = some_bytes(2_500_000);
    for cut in [1013, 65_536, 1_048_576, 2_000_000] {
        let id = store.begin_upload(&app, ALICE, Algorithm::Sha256).await.unwrap();
        let mut upload = store.upload(&app, ALICE, id).await.unwrap();
        for start in (0..bytes.len()).step_by(cut) {
            upload.write(bytes.slice(start..bytes.len().min(start + cut))).await.unwrap();
        }
        let info = upload.commit(&Digest::sha256(&bytes)).await.unwrap();
        assert!(read_blob(&store, &info).await == bytes, "{cut}");
        store.unlink_blob(&app, &info.digest).await.unwrap();
    }
}

pub(super) async fn a_wrong_digest_leaves_the_session(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    let id = upload(&store, &app, &"right".into()).await;
    let wrong = Digest::sha256(b"wrong");
    let error = store.upload(&app, ALICE, id).await.unwrap().commit(&wrong).await.unwrap_err();
    let CommitError::Mismatch(mismatch) = error else { panic!("{error:?}") };
    assert_eq!((mismatch.actual, mismatch.size), (Digest::sha256(b"right"), 5));
    assert_eq!(store.blob(&app, &wrong).await.unwrap(), None);
    assert_eq!(store.blob(&app, &Digest::sha256(b"right")).await.unwrap(), None);
    store.upload(&app, ALICE, id).await.unwrap().commit(&Digest::sha256(b"right")).await.unwrap();
}

pub(super) async fn sha512_is_taken_too(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    let bytes = some_bytes(2_000_000);
    let digest = Algorithm::Sha512.digest(&bytes);
    let id = upload(&store, &app, &bytes).await;
    let wrong = Algorithm::Sha512.digest(b"wrong");
    let refused = store.upload(&app, ALICE, id).await.unwrap().commit(&wrong).await;
    assert!(matches!(refused, Err(CommitError::Mismatch(_))));
    let info = store.upload(&app, ALICE, id).await.unwrap().commit(&digest).await.unwrap();
    assert_eq!(store.blob(&app, &digest).await.unwrap(), Some(info.clone()));
    assert!(read_blob(&store, &info).await == bytes);
}

pub(super) async fn nobody_else_finds_the_session(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    let id = upload(&store, &app, &"bytes".into()).await;
    let held = store.upload(&app, ALICE, id).await.unwrap();
    // Whether it is in use must not show either.
    for _ in 0..2 {
        assert_eq!(store.upload(&app, "mallory", id).await.unwrap_err(), UploadError::Unknown);
        assert_eq!(store.upload(&repository("other"), ALICE, id).await.unwrap_err(), UploadError::Unknown);
    }
    drop(held);
    let store = ground.reopen(store).await;
    assert_eq!(store.upload(&app, "mallory", id).await.unwrap_err(), UploadError::Unknown);
    assert_eq!(store.upload(&app, ALICE, UploadId::from_bits([7; 16])).await.unwrap_err(), UploadError::Unknown);
    assert_eq!(store.upload(&app, ALICE, id).await.unwrap().offset(), 5);
}

pub(super) async fn one_request_at_a_time(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    let id = store.begin_upload(&app, ALICE, Algorithm::Sha256).await.unwrap();
    let held = store.upload(&app, ALICE, id).await.unwrap();
    assert_eq!(store.upload(&app, ALICE, id).await.unwrap_err(), UploadError::Busy);
    drop(held);
    store.upload(&app, ALICE, id).await.unwrap();
}

pub(super) async fn sessions_are_counted(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    let mut open = Vec::new();
    // Nobody has more than half of them.
    for _ in 0..ground.settings.uploads.div_ceil(2) {
        open.push(store.begin_upload(&app, ALICE, Algorithm::Sha256).await.unwrap());
    }
    assert_eq!(store.begin_upload(&app, ALICE, Algorithm::Sha256).await, Err(UploadError::TooManyUploads));
    for _ in open.len()..ground.settings.uploads {
        store.begin_upload(&app, "somebody else", Algorithm::Sha256).await.unwrap();
    }
    assert_eq!(store.begin_upload(&app, "a third", Algorithm::Sha256).await, Err(UploadError::TooManyUploads));
    // A restart does not forget them.
    let store = ground.reopen(store).await;
    assert_eq!(store.begin_upload(&app, "a third", Algorithm::Sha256).await, Err(UploadError::TooManyUploads));
    store.upload(&app, ALICE, open[0]).await.unwrap().cancel().await.unwrap();
    store.begin_upload(&app, ALICE, Algorithm::Sha256).await.unwrap();
}

pub(super) async fn a_cancelled_upload_is_gone(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    let id = upload(&store, &app, &"bytes".into()).await;
    let mut upload = store.upload(&app, ALICE, id).await.unwrap();
    upload.write("more".into()).await.unwrap();
    upload.cancel().await.unwrap();
    assert_eq!(store.upload(&app, ALICE, id).await.unwrap_err(), UploadError::Unknown);
    let store = ground.reopen(store).await;
    assert_eq!(store.upload(&app, ALICE, id).await.unwrap_err(), UploadError::Unknown);
}

pub(super) async fn a_commit_goes_on_when_the_client_leaves(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    let bytes = some_bytes(2_000_000);
    let digest = Digest::sha256(&bytes);
    let id = upload(&store, &app, &bytes).await;
    let upload = store.upload(&app, ALICE, id).await.unwrap();
    {
        let mut commit = std::pin::pin!(upload.commit(&digest));
        // One poll begins it; then the client is gone.
        assert!(futures_util::poll!(commit.as_mut()).is_pending());
    }
    let arrived = async {
        while store.blob(&app, &digest).await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
        Ok::<_, StoreError>(())
    };
    tokio::time::timeout(Duration::from_secs(30), arrived).await.unwrap().unwrap();
}

pub(super) async fn an_upload_for_one_request_leaves_nothing_but_its_blob(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    // Dropped with nothing, with bytes in memory, with bytes on their way to the disk, and after a wrong digest.
    for length in [0, 10, 1_500_000] {
        let mut upload = store.upload_once(&app, ALICE, Algorithm::Sha256).await.unwrap();
        upload.write(some_bytes(length)).await.unwrap();
    }
    let wrong =
        store.upload_once(&app, ALICE, Algorithm::Sha256).await.unwrap().commit(&Digest::sha256(b"other")).await;
    assert!(matches!(wrong, Err(CommitError::Mismatch(_))));
    let mut upload = store.upload_once(&app, ALICE, Algorithm::Sha256).await.unwrap();
    upload.write("bytes".into()).await.unwrap();
    let info = upload.commit(&Digest::sha256(b"bytes")).await.unwrap();
    let gone = async {
        let rows = "SELECT count(*) FROM uploads";
        let left = || std::fs::read_dir(ground.data("uploads")).unwrap().count();
        let row = || sqlx::query_scalar::<_, i64>(rows).fetch_one(store.inner.database.readers());
        while left() > 0 || row().await.unwrap() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.unwrap();
    assert_eq!(read_blob(&store, &info).await, "bytes");
}

pub(super) async fn an_offset_is_told_and_the_session_left_alone(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    let id = upload(&store, &app, &"bytes".into()).await;
    let (told, taken) = tokio::join!(store.upload_offset(&app, ALICE, id), store.upload(&app, ALICE, id));
    assert_eq!(told, Ok(5));
    let mut taken = taken.unwrap();
    assert_eq!(store.upload_offset(&app, ALICE, id).await, Err(UploadError::Busy));
    taken.write(", more".into()).await.unwrap();
    taken.pause().await.unwrap();
    assert_eq!(store.upload_offset(&app, ALICE, id).await, Ok(11));
    let (other, unknown) = (repository("other"), Err(UploadError::Unknown));
    assert_eq!(store.upload_offset(&other, ALICE, id).await, unknown);
    assert_eq!(store.upload_offset(&app, "bob", id).await, unknown);
    store.upload(&app, ALICE, id).await.unwrap().cancel().await.unwrap();
    assert_eq!(store.upload_offset(&app, ALICE, id).await, unknown);
}
