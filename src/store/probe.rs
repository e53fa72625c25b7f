//! Whether what is kept can be read: tried all the time, so that whoever asks is answered at once.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::Advice;
use rustix::io::Errno;
use sqlx::SqlitePool;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, timeout};

/// How often it is tried.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a read may take before the disk counts as gone.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much of the file is to come from the disk and not from memory: a page.
const PAGE: Option<NonZeroU64> = NonZeroU64::new(4096);

/// What the last try came to. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading(Arc<Mutex<Option<String>>>);

impl Reading {
    /// Why it failed, if it did.
    pub(super) fn trouble(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, tried: Result<(), String>) {
        let trouble = tried.err();
        let mut before = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*before, &trouble) {
            (None, Some(error)) => tracing::error!(error, "the data directory cannot be read; check its disk"),
            (Some(_), None) => tracing::info!("the data directory can be read again"),
            _ => {}
        }
        *before = trouble;
    }
}

/// Tries to read. It holds nothing of the store that would keep the data directory locked.
#[derive(Clone)]
pub(super) struct Probe {
    /// A small file of the data directory.
    pub(super) file: PathBuf,
    pub(super) readers: SqlitePool,
    pub(super) reading: Reading,
}

impl Probe {
    /// Tries again and again.
    pub(super) async fn run_until_closed(self, mut closing: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let trying = async {
            loop {
                ticks.tick().await;
                // A task of its own: a read that hangs cannot be called back, and until it ends there is no other.
                let mut trying = tokio::spawn(self.clone().try_once());
                let tried = match timeout(PATIENCE, &mut trying).await {
                    Ok(tried) => tried,
                    Err(_) => {
                        self.reading.set(Err(format!("a read takes longer than {PATIENCE:?}")));
                        trying.await
                    }
                };
                self.reading.set(tried.unwrap_or_else(|error| Err(error.to_string())));
            }
        };
        tokio::select! {
            biased;
            // An error means that the store is gone, which is the end too.
            _ = closing.wait_for(|closing| *closing) => {}
            () = trying => {}
        }
    }

    async fn try_once(self) -> Result<(), String> {
        let Self { file, readers, .. } = self;
        let read = tokio::task::spawn_blocking(move || read_from_disk(&file).map_err(|error| (file, error)));
        match read.await.map_err(|error| error.to_string())? {
            // Nothing was read, but not because of the disk; what SQLite has open is tried all the same.
            Err((_, error)) if is_out_of_descriptors(&error) => {}
            Err((file, error)) => return Err(format!("{}: {error}", file.display())),
            Ok(()) => {}
        }
        let random = getrandom::u64().map_err(|error| error.to_string())?;
        // Another place each time, so that more than what SQLite has in memory is tried.
        let query = sqlx::query("SELECT 1 FROM blobs WHERE digest >= $1 LIMIT 1").bind(format!("sha256:{random:016x}"));
        query.fetch_optional(&readers).await.map_err(|error| format!("the metadata: {error}"))?;
        Ok(())
    }
}

/// Reads a byte of a file; from the disk, where the file system lets go of what it has in memory. Blocks.
fn read_from_disk(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    rustix::fs::fadvise(&file, 0, PAGE, Advice::DontNeed)?;
    match file.read_at(&mut [0], 0)? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is empty")),
        _ => Ok(()),
    }
}

/// Whether this process, or the system, has as many files open as it may.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}
