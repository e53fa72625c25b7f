//! Floor 4: what we keep. SQL knows, files hold: metadata and manifests live in SQLite, the bytes of blobs in files.
//!
//! A row of `blobs` means that its file is whole, verified and synced; a crash leaves files without rows, never rows
//! without files. No file operation ever happens inside a transaction.

mod blobs;
mod database;
mod directory;
mod error;
mod legacy;
mod listing;
mod manifests;
mod mirrors;
mod probe;
mod recovery;
mod rot;
mod schema;
mod sessions;
mod stage;
mod sum;
mod upload;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use crate::files::{BlobFile, BlobReader};
pub use blobs::BlobInfo;
pub use error::{CommitError, OpenError, PutError, StoreError, UploadError};
pub use legacy::{LISTED_LIFETIME, LegacyRow, Named, Standing};
pub use listing::{Page, ReferrersPage, StoredReferrer};
pub use manifests::{Put, PutManifest, StoredManifest};
pub use mirrors::{Known, Member, Pointer};
pub use rot::Rotten;
pub use upload::Upload;

use crate::files::{OpenFiles, Reading, Reserve, Space};
use database::{Database, Health};
use directory::Directory;
use probe::{Probe, Reading as DiskReads};
use rot::Rot;
use sessions::Sessions;

/// Where to keep things, and how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The data directory; made if it is missing.
    pub data: PathBuf,
    /// How many upload sessions may be open.
    pub uploads: usize,
    /// How long after its last write an upload session is kept.
    pub upload_lifetime: Duration,
    /// How much of the disk stays free, in bytes.
    pub disk_reserve: u64,
    /// How much of the disk stays free, in percent of its size. The larger of the two holds.
    pub disk_reserve_percent: u8,
}

/// What we keep. Cheap to clone.
///
/// Its functions run in a tokio runtime, the one in which it was opened.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    database: Database,
    directory: Directory,
    sessions: Sessions,
    reserve: Reserve,
    health: Health,
    /// Whether the disk can be read.
    disk_reads: DiskReads,
    reading: Reading,
    /// The blobs that are being read, by the keys of their files.
    open: OpenFiles<String>,
    rot: Rot,
    runtime: Handle,
    closing: watch::Sender<bool>,
    /// What goes on until it is closed.
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Store {
    /// Opens the data directory: takes its lock, brings it up to date, and removes what a crash left.
    ///
    /// # Errors
    ///
    /// Says who holds the directory, or what to do so that it can be used.
    pub async fn open(settings: Settings) -> Result<Self, OpenError> {
        let health = Health::default();
        let directory = open_directory(settings.data.clone(), health.clone()).await?;
        let database = match directory.is_read_only() {
            false => Database::open(&directory.database(), health.clone()).await?,
            true => Database::open_for_reading(&directory.database(), health.clone()).await?,
        };
        let inner = Arc::new(Inner {
            database,
            directory,
            sessions: Sessions::new(settings.uploads, settings.upload_lifetime),
            reserve: Reserve { bytes: settings.disk_reserve, percent: settings.disk_reserve_percent },
            health,
            disk_reads: DiskReads::default(),
            reading: Reading::new(Handle::current()),
            open: OpenFiles::default(),
            rot: Rot::default(),
            runtime: Handle::current(),
            closing: watch::Sender::new(false),
            tasks: Mutex::default(),
        });
        let probe = Probe {
            file: inner.directory.version(),
            readers: inner.database.readers().clone(),
            reading: inner.disk_reads.clone(),
        };
        inner.tasks().push(tokio::spawn(probe.run_until_closed(inner.closing.subscribe())));
        if inner.directory.is_read_only() {
            tracing::warn!("the data directory is read-only: pulls are served, pushes are refused");
            return Ok(Self { inner });
        }
        recovery::recover_uploads(&inner).await.map_err(|error| OpenError::Database {
            path: inner.directory.database(),
            detail: format!("the uploads cannot be taken up again: {error}"),
        })?;
        let (weak, closing) = (Arc::downgrade(&inner), inner.closing.subscribe());
        inner.tasks().push(tokio::spawn(recovery::sweep_until_closed(weak.clone(), closing.clone())));
        inner.tasks().push(tokio::spawn(sum::sum_until_closed(weak, closing)));
        Ok(Self { inner })
    }

    /// Whether it can be written to. False after a failed sync, until the process starts anew; reading goes on.
    pub fn healthy(&self) -> bool {
        self.inner.health.is_good() && self.inner.database.is_open()
    }

    /// Why what is kept cannot be read now, if it cannot; looked for all the time, so that this waits for nothing.
    pub fn unreadable(&self) -> Option<String> {
        self.inner.disk_reads.trouble()
    }

    /// Whether nothing could be written when it was opened, so that nothing is.
    pub fn is_read_only(&self) -> bool {
        self.inner.directory.is_read_only()
    }

    /// Writes what waits and closes the database; everything fails afterwards. The directory stays locked until the
    /// last clone, upload and commit of this store is gone.
    pub async fn close(&self) {
        self.inner.closing.send_replace(true);
        let tasks = std::mem::take(&mut *self.inner.tasks());
        for task in tasks {
            let _ = task.await;
        }
        self.inner.database.close().await;
    }

    /// The value of a setting that every process of this registry shares, such as a signing key.
    pub async fn setting(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let value = sqlx::query_scalar("SELECT value FROM settings WHERE key = $1");
        Ok(value.bind(key).fetch_optional(self.inner.database.readers()).await?)
    }

    /// The value of a setting, which becomes `value` where it had none; whoever comes first decides for all.
    pub async fn setting_or_insert(&self, key: &str, value: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        if let Some(value) = self.setting(key).await? {
            return Ok(value);
        }
        let key = key.to_owned();
        let insert = "INSERT INTO settings (key, value) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING";
        self.inner
            .database
            .write(move |connection| {
                Box::pin(async move {
                    sqlx::query(insert).bind(&key).bind(value).execute(&mut *connection).await?;
                    let kept = sqlx::query_scalar("SELECT value FROM settings WHERE key = $1");
                    Ok::<_, StoreError>(kept.bind(&key).fetch_one(connection).await?)
                })
            })
            .await
    }

    /// Puts `value` in the place of `expected`; false, and nothing changes, where there is another or none.
    pub async fn replace_setting(&self, key: &str, expected: Vec<u8>, value: Vec<u8>) -> Result<bool, StoreError> {
        let key = key.to_owned();
        let update = "UPDATE settings SET value = $3 WHERE key = $1 AND value = $2";
        self.inner
            .database
            .write(move |connection| {
                Box::pin(async move {
                    let update = sqlx::query(update).bind(&key).bind(expected).bind(value);
                    Ok::<_, StoreError>(update.execute(connection).await?.rows_affected() == 1)
                })
            })
            .await
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("directory", &self.inner.directory).finish_non_exhaustive()
    }
}

impl Inner {
    /// Whether it may be written to, and the disk of a path has more than the reserve. Blocks.
    fn check_path(&self, path: &Path) -> Result<(), StoreError> {
        if self.directory.is_read_only() {
            return Err(StoreError::ReadOnly);
        }
        self.check_space(Space::of_path(path))
    }

    fn check_space(&self, space: io::Result<Space>) -> Result<(), StoreError> {
        let space = space.map_err(|error| StoreError::io("ask for free space", &error))?;
        if self.reserve.is_kept(space) { Ok(()) } else { Err(StoreError::NoSpace) }
    }

    fn tasks(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs what blocks where it may. It runs to its end even if nobody waits any more.
    async fn on_a_thread<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
        self.runtime.spawn_blocking(work).await.map_err(|error| StoreError::stopped(&error))
    }
}

async fn open_directory(data: PathBuf, health: Health) -> Result<Directory, OpenError> {
    let path = data.clone();
    let opened = tokio::task::spawn_blocking(move || Directory::open(&data, health)).await;
    opened.unwrap_or_else(|error| Err(OpenError::Io { path, detail: error.to_string() }))
}
