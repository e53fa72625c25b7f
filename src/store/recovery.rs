//! What a crash leaves, and what is given up: found and removed at the start and from time to time.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::oci::{RepositoryName, UploadId};

use super::{Inner, StoreError};

/// How old a blob's file without a row must be before it is removed.
pub(super) const ORPHAN_GRACE: Duration = Duration::from_secs(24 * 60 * 60);
/// How often expired uploads are removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// How long the files of rotten blobs are kept for the operator to look at.
const QUARANTINE_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Every how many sweeps the files without rows are looked for.
const SWEEPS_PER_SCAN: u32 = 24;

/// Takes up the uploads of an earlier process, and removes those that expired or of which only half is left.
pub(super) async fn recover_uploads(inner: &Arc<Inner>) -> Result<(), StoreError> {
    let rows = sqlx::query_as::<_, (String, String, String)>("SELECT id, repository, principal FROM uploads");
    let rows = rows.fetch_all(inner.database.readers()).await?;
    let here = inner.clone();
    let files = inner.on_a_thread(move || list_uploads(&here.directory.uploads())).await?;
    let mut files = files.map_err(|error| StoreError::io("list the uploads", &error))?;
    let mut gone = Vec::new();
    for (id, repository, principal) in rows {
        let age = files.remove(&id).filter(|age| *age < inner.sessions.lifetime());
        match (id.parse::<UploadId>(), repository.parse::<RepositoryName>(), age) {
            (Ok(id), Ok(repository), Some(age)) => inner.sessions.restore(id, repository, &principal, age),
            _ => gone.push(id),
        }
    }
    gone.extend(files.into_keys());
    remove_uploads(inner, gone).await
}

/// Removes what nobody will ask for any more, until the store is closed or dropped.
pub(super) async fn sweep_until_closed(inner: Weak<Inner>, mut closing: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for sweep in 0u32.. {
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => return,
            _ = ticks.tick() => {}
        }
        let Some(inner) = inner.upgrade() else { return };
        if let Err(error) = remove_expired_uploads(&inner).await {
            tracing::warn!(%error, "expired uploads could not be removed");
        }
        if sweep.is_multiple_of(SWEEPS_PER_SCAN) {
            match remove_orphans(&inner, ORPHAN_GRACE).await {
                Ok(0) => {}
                Ok(removed) => tracing::info!(removed, "files of blobs that were never recorded were removed"),
                Err(error) => tracing::warn!(%error, "files of blobs that were never recorded could not be removed"),
            }
            match remove_from_quarantine(&inner, QUARANTINE_LIFETIME).await {
                Ok(0) => {}
                Ok(removed) => tracing::info!(removed, "old files were removed from quarantine/"),
                Err(error) => tracing::warn!(%error, "old files could not be removed from quarantine/"),
            }
        }
    }
}

pub(super) async fn remove_expired_uploads(inner: &Arc<Inner>) -> Result<(), StoreError> {
    let expired = inner.sessions.end_expired();
    remove_uploads(inner, expired.into_iter().map(|id| id.to_string()).collect()).await
}

/// Removes the files and rows of uploads that are no sessions.
async fn remove_uploads(inner: &Arc<Inner>, names: Vec<String>) -> Result<(), StoreError> {
    if names.is_empty() {
        return Ok(());
    }
    tracing::info!(uploads = names.len(), "uploads that were given up are removed");
    let here = inner.clone();
    let names = inner.on_a_thread(move || {
        for name in &names {
            // Should it fail, the next start finds it again.
            let _ = fs::remove_file(here.directory.uploads().join(name));
        }
        names
    });
    let names = names.await?;
    let delete = inner.database.write(move |connection| {
        Box::pin(async move {
            for name in names {
                sqlx::query("DELETE FROM uploads WHERE id = $1").bind(name).execute(&mut *connection).await?;
            }
            Ok(())
        })
    });
    delete.await
}

/// The files of uploads, with the time since the last write.
fn list_uploads(uploads: &Path) -> io::Result<HashMap<String, Duration>> {
    let mut found = HashMap::new();
    for entry in fs::read_dir(uploads)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string()
            && name.parse::<UploadId>().is_ok()
        {
            found.insert(name, since(entry.metadata()?.modified()?));
        }
    }
    Ok(found)
}

/// How long ago; no time at all if the clock went backwards, so that nothing is removed too early.
fn since(time: SystemTime) -> Duration {
    SystemTime::now().duration_since(time).unwrap_or_default()
}

/// Removes the files in `blobs/` that no row names and that are older than `grace`; how many there were.
pub(super) async fn remove_orphans(inner: &Arc<Inner>, grace: Duration) -> Result<usize, StoreError> {
    let listing = |error: io::Error| StoreError::io("list the blobs", &error);
    let blobs = inner.directory.blobs();
    let mut removed = 0;
    let shards = inner.on_a_thread(move || list_shards(&blobs)).await?.map_err(listing)?;
    for shard in shards {
        let here = inner.clone();
        let old = inner.on_a_thread(move || list_old(&here, &shard, grace)).await?.map_err(listing)?;
        let orphans = without_row(inner, &old).await?;
        let here = inner.clone();
        let remove = move || orphans.iter().filter(|key| fs::remove_file(here.directory.blob(key)).is_ok()).count();
        removed += inner.on_a_thread(remove).await?;
    }
    Ok(removed)
}

/// Removes the files that were put aside longer ago than `lifetime`; how many there were.
pub(super) async fn remove_from_quarantine(inner: &Arc<Inner>, lifetime: Duration) -> Result<usize, StoreError> {
    let quarantine = inner.directory.quarantine();
    let remove = move || {
        let mut removed = 0;
        for entry in fs::read_dir(quarantine)? {
            let entry = entry?;
            if last_change(&entry.metadata()?) >= lifetime && fs::remove_file(entry.path()).is_ok() {
                removed += 1;
            }
        }
        Ok(removed)
    };
    inner.on_a_thread(remove).await?.map_err(|error: io::Error| StoreError::io("list the quarantine", &error))
}

/// The directories below `blobs/` that hold files: `sha256/00` and so on.
fn list_shards(blobs: &Path) -> io::Result<Vec<PathBuf>> {
    let mut shards = Vec::new();
    for algorithm in directories(blobs)? {
        shards.extend(directories(&algorithm)?);
    }
    Ok(shards)
}

fn directories(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// The keys of the files in one directory that no commit can be working on.
fn list_old(inner: &Inner, shard: &Path, grace: Duration) -> io::Result<Vec<String>> {
    let blobs = inner.directory.blobs();
    let mut keys = Vec::new();
    for entry in fs::read_dir(shard)? {
        let entry = entry?;
        let path = entry.path();
        let key = path.strip_prefix(&blobs).ok().and_then(Path::to_str);
        let upload = key.and_then(|key| key.rsplit_once('.')).and_then(|(_, id)| id.parse::<UploadId>().ok());
        // A file that went meanwhile has no metadata, and needs no removing.
        let (Some(key), Some(upload), Ok(metadata)) = (key, upload, entry.metadata()) else { continue };
        if !inner.sessions.contains(upload) && last_change(&metadata) >= grace {
            keys.push(key.to_owned());
        }
    }
    Ok(keys)
}

/// How long ago a file was written or renamed.
fn last_change(metadata: &Metadata) -> Duration {
    let renamed = u64::try_from(metadata.ctime()).unwrap_or_default();
    let renamed = since(SystemTime::UNIX_EPOCH + Duration::from_secs(renamed));
    metadata.modified().map(since).unwrap_or_default().min(renamed)
}

/// Those keys that no row names; what the collector has put into the trash, it removes itself.
async fn without_row(inner: &Inner, keys: &[String]) -> Result<Vec<String>, StoreError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let json = serde_json::to_string(keys).map_err(|error| StoreError::Database(error.to_string()))?;
    let query = "SELECT value FROM json_each($1) \
                 WHERE value NOT IN (SELECT key FROM blobs) AND value NOT IN (SELECT key FROM trash)";
    Ok(sqlx::query_scalar(query).bind(json).fetch_all(inner.database.readers()).await?)
}
