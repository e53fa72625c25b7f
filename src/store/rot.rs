//! Blobs whose files are not what was hashed: found out, put aside, and mended by the next push (ADR 14).

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::SqliteConnection;
use tokio::sync::Semaphore;

use crate::files::{Doubt, Prover, Sums};
use crate::oci::{Digest, RepositoryName};

use super::blobs::{BlobInfo, Replaced};
use super::database::now;
use super::{Inner, Store, StoreError};

/// How many files are hashed at once because somebody read something wrong in them.
const EXAMINATIONS: usize = 1;

/// What is wrong with a file, for the log.
pub(super) const GONE: &str = "its file is gone or has another length";
pub(super) const OTHER_BYTES: &str = "its file holds other bytes";

/// What was found since the start.
pub(super) struct Rot {
    /// The keys of the files that are being hashed, or wait for it.
    examined: Mutex<HashSet<String>>,
    slots: Semaphore,
    changes: AtomicU64,
    blobs: AtomicU64,
    manifests: AtomicU64,
}

/// How much was found since the start that is not what was hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotten {
    /// Blobs.
    pub blobs: u64,
    /// Manifests, each as often as it was asked for.
    pub manifests: u64,
}

impl Default for Rot {
    fn default() -> Self {
        Self {
            examined: Mutex::default(),
            slots: Semaphore::new(EXAMINATIONS),
            changes: AtomicU64::new(0),
            blobs: AtomicU64::new(0),
            manifests: AtomicU64::new(0),
        }
    }
}

impl Store {
    /// How much was found that is not what was hashed.
    pub fn rotten(&self) -> Rotten {
        let rot = &self.inner.rot;
        Rotten { blobs: rot.blobs.load(Ordering::Relaxed), manifests: rot.manifests.load(Ordering::Relaxed) }
    }

    /// Grows whenever a blob is found rotten or gets another file: what was looked up before may not hold any more.
    pub fn blob_changes(&self) -> u64 {
        self.inner.rot.changes.load(Ordering::Acquire)
    }

    /// The operator must know what is read wrong.
    pub(super) fn told_rotten_manifest(&self, repository: &RepositoryName, digest: &Digest) {
        self.inner.rot.manifests.fetch_add(1, Ordering::Relaxed);
        let repository = repository.as_str();
        tracing::error!(%digest, repository, "a manifest in metadata.db is not what was pushed; whoever pushes it again mends it");
    }
}

/// The checksums of a blob; none, where it came before there were any. Where they cannot be used they are made anew first,
/// which hashes the file.
pub(super) async fn sums(inner: &Arc<Inner>, info: &BlobInfo) -> Result<Option<Sums>, StoreError> {
    let query = sqlx::query_scalar("SELECT sums FROM blob_sums WHERE digest = $1").bind(info.digest.to_string());
    let kept: Option<Vec<u8>> = query.fetch_optional(inner.database.readers()).await?;
    match kept.map(|kept| Sums::from_bytes(&kept, info.size)) {
        None => Ok(None),
        Some(Some(sums)) => Ok(Some(sums)),
        Some(None) => examine(inner, info).await?.map(Some).ok_or(StoreError::Damaged(info.digest)),
    }
}

/// Keeps the checksums of a blob, whatever was kept before.
pub(super) async fn record_sums(
    connection: &mut SqliteConnection,
    digest: &str,
    sums: &Sums,
) -> Result<(), StoreError> {
    let insert = "INSERT INTO blob_sums (digest, sums) VALUES ($1, $2) \
                  ON CONFLICT (digest) DO UPDATE SET sums = excluded.sums";
    sqlx::query(insert).bind(digest).bind(sums.to_bytes()).execute(connection).await?;
    Ok(())
}

/// What to do when a piece of the blob's file is wrong: hash the file, once, in a task of its own.
pub(super) fn doubt(inner: &Arc<Inner>, info: &BlobInfo) -> Doubt {
    let (inner, info) = (Arc::downgrade(inner), info.clone());
    Box::new(move || {
        let Some(inner) = inner.upgrade() else { return };
        if !inner.rot.examined.lock().unwrap_or_else(PoisonError::into_inner).insert(info.key.clone()) {
            return;
        }
        let info = info.clone();
        inner.runtime.clone().spawn(async move {
            // It is never closed.
            let _slot = inner.rot.slots.acquire().await;
            if let Err(error) = examine(&inner, &info).await {
                tracing::error!(digest = %info.digest, key = info.key, %error, "a blob was read wrong, and it could not be found out why");
            }
            inner.rot.examined.lock().unwrap_or_else(PoisonError::into_inner).remove(&info.key);
        });
    })
}

/// Hashes the whole file. Either the blob is rotten and is put aside, or its checksums are, and are made anew.
async fn examine(inner: &Arc<Inner>, info: &BlobInfo) -> Result<Option<Sums>, StoreError> {
    let (here, name) = (inner.clone(), info.clone());
    let proven = inner.on_a_thread(move || {
        let file = here.open_file(&name)?;
        let prover = Prover::of_file(&file, name.digest.algorithm());
        let prover = prover.map_err(|error| StoreError::io("read a blob", &error))?;
        Ok::<_, StoreError>(prover.prove(&name.digest).ok())
    });
    let flaw = match proven.await? {
        Ok(Some(proven)) => {
            tracing::warn!(digest = %info.digest, key = info.key, "a blob is as it was hashed; its checksums were wrong and are made anew");
            keep_sums(inner, info, proven.sums.clone()).await?;
            return Ok(Some(proven.sums));
        }
        Ok(None) => OTHER_BYTES,
        Err(StoreError::Damaged(_)) => GONE,
        Err(error) => return Err(error),
    };
    set_aside(inner, info, flaw).await?;
    Ok(None)
}

/// The file of a blob was hashed and is right: whoever opens it next has these checksums.
pub(super) async fn keep_sums(inner: &Inner, info: &BlobInfo, sums: Sums) -> Result<(), StoreError> {
    let (digest, key) = (info.digest.to_string(), info.key.clone());
    let kept = inner.database.write(move |connection| {
        Box::pin(async move {
            // It may be gone, or have another file.
            let heal = sqlx::query("UPDATE blobs SET rotten_at = NULL WHERE digest = $1 AND key = $2");
            if heal.bind(&digest).bind(key).execute(&mut *connection).await?.rows_affected() > 0 {
                record_sums(connection, &digest, &sums).await?;
            }
            Ok::<_, StoreError>(())
        })
    });
    kept.await?;
    inner.changed(&info.key);
    Ok(())
}

/// From now on the blob is as if it were not there, until it is pushed again; nothing happens if it has got another file, or
/// was set aside before.
pub(super) async fn set_aside(inner: &Arc<Inner>, info: &BlobInfo, flaw: &'static str) -> Result<(), StoreError> {
    let (digest, key) = (info.digest.to_string(), info.key.clone());
    let mark = "UPDATE blobs SET rotten_at = $3 WHERE digest = $1 AND key = $2 AND rotten_at IS NULL";
    let marked = inner.database.write(move |connection| {
        Box::pin(async move {
            let mark = sqlx::query(mark).bind(digest).bind(key).bind(now()).execute(connection).await?;
            Ok::<_, StoreError>(mark.rows_affected() > 0)
        })
    });
    if marked.await? {
        put_away(inner, Replaced { info: info.clone(), flaw: Some(flaw) }).await;
    }
    Ok(())
}

/// Takes away a file that is not a blob's any more: to the quarantine if something is wrong with it.
pub(super) async fn put_away(inner: &Arc<Inner>, Replaced { info, flaw }: Replaced) {
    inner.changed(&info.key);
    if let Some(flaw) = flaw {
        inner.rot.blobs.fetch_add(1, Ordering::Relaxed);
        tracing::error!(digest = %info.digest, key = info.key, flaw, "a blob is rotten; its file goes to quarantine/, and whoever pushes the blob again mends it");
    }
    let (here, key) = (inner.clone(), info.key.clone());
    let moved = inner.on_a_thread(move || match flaw {
        Some(_) => here.directory.put_aside(&key),
        None => match std::fs::remove_file(here.directory.blob(&key)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
    });
    // What stays where it is has no row any more once the blob is pushed, and is removed as such.
    if let Ok(Err(error)) = moved.await {
        tracing::warn!(digest = %info.digest, key = info.key, %error, "the file of a blob could not be taken away");
    }
}

impl Inner {
    /// Whoever looks next finds what is so now.
    fn changed(&self, key: &str) {
        self.open.forget(key);
        self.rot.changes.fetch_add(1, Ordering::AcqRel);
    }
}
