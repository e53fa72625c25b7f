//! The disk tier: whole, verified blobs by digest, bounded in bytes, evicted by use.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use moka::sync::Cache;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::files::{BlobFile, BlobReader, OpenFiles, Reading, Space};
use crate::oci::{ByteRange, Digest};

use super::directory::{Directory, remove_if_there};
use super::error::OpenError;
use super::fill::{Fill, Filling, Shared};
use super::flights::Flights;
use super::index::{Cached, Index};
use super::opening::Opened;
use super::remnants::{Remnant, Remnants};

/// How long nothing is written after the disk refused something.
const REST: Duration = Duration::from_secs(10);
/// How many files of what is read often stay open.
const OPEN_FILES: u64 = 256;
/// How many files are verified at once because they were read wrong.
const DOUBTS: usize = 1;

/// Where the disk tier is, and how much there may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSettings {
    /// The directory; made if it is missing.
    pub path: PathBuf,
    /// How much is kept, in bytes; 0: nothing, and nothing is made.
    pub capacity: u64,
    /// How full the file system may be: then what is kept gives way.
    pub used_percent_max: u8,
}

/// What is kept on disk. `E` is why whoever fills could not. Cheap to clone.
pub struct Disk<E> {
    pub(super) inner: Arc<Inner<E>>,
}

pub(super) struct Inner<E> {
    settings: DiskSettings,
    /// None, where nothing is kept.
    directory: Option<Directory>,
    state: Mutex<State<E>>,
    /// Files are verified once, however many ask.
    pub(super) verifying: Flights<Digest, Option<BlobFile>>,
    /// How many files are verified at once because they were read wrong.
    pub(super) doubts: Semaphore,
    pub(super) rotten: AtomicU64,
    /// What stays open for the next who asks.
    pub(super) kept_open: Cache<Digest, BlobFile>,
    /// What is open, whoever holds it.
    pub(super) open: OpenFiles<Digest>,
    pub(super) reading: Reading,
    pub(super) runtime: Handle,
}

pub(super) struct State<E> {
    pub(super) index: Index,
    /// Each source has its own: what one sends is not given to those who asked another.
    fills: HashMap<(Digest, Arc<str>), Arc<Shared<E>>>,
    /// What came of those that broke off.
    remnants: Remnants,
    /// Until when nothing is written.
    resting: Option<Instant>,
}

impl<E> State<E> {
    /// What fills set aside and have not written yet.
    fn outstanding(&self) -> u64 {
        let written: u64 = self.fills.values().map(|shared| shared.lock().written).sum();
        self.index.reserved().saturating_sub(written).saturating_sub(self.remnants.bytes())
    }
}

/// What there is of a digest.
pub enum Lookup<E> {
    /// All of it.
    Hit(CachedFile),
    /// Somebody fills it: read behind them.
    Follow(Filling<E>),
    /// Nothing: the one who asked is to fill it.
    Lead(Box<Fill<E>>),
    /// Nothing, and nothing can be kept now.
    Off,
}

/// A whole blob. While it is held, it stays.
#[derive(Debug, Clone)]
pub struct CachedFile {
    file: BlobFile,
    user: Arc<()>,
}

/// Reads a part of a whole blob. While it is held, the blob stays.
#[derive(Debug)]
pub struct CachedReader {
    reader: BlobReader,
    _user: Arc<()>,
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that are held.
    pub bytes: u64,
    /// Bytes that may be held.
    pub capacity: u64,
    /// Objects that are held.
    pub entries: usize,
    /// Objects that had to give way since the start.
    pub evicted: u64,
    /// Fills that run.
    pub fills: usize,
    /// Objects that were found not to be what was hashed since the start.
    pub rotten: u64,
}

impl<E> Clone for Disk<E> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl CachedFile {
    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.file.size()
    }

    /// Reads a part of it.
    pub fn read(&self, range: ByteRange) -> CachedReader {
        CachedReader { reader: self.file.read(range), _user: Arc::clone(&self.user) }
    }

    /// As [`Self::read`], for whoever holds the blob another way.
    pub(super) fn reader(&self, range: ByteRange) -> BlobReader {
        self.file.read(range)
    }

    /// All of it, for what is known to be small.
    pub async fn read_all(&self) -> io::Result<Bytes> {
        self.file.read_all().await
    }
}

impl CachedReader {
    /// The next chunk, as [`BlobReader::poll_chunk`] gives it.
    pub fn poll_chunk(&mut self, context: &mut Context<'_>, most: usize) -> Poll<Option<io::Result<Bytes>>> {
        self.reader.poll_chunk(context, most)
    }
}

impl<E: Clone + Send + Sync + 'static> Disk<E> {
    /// Opens the directory: takes its lock, removes what is not whole, and looks what is there. `pinned` stays whatever else
    /// is asked for.
    pub async fn open(settings: DiskSettings, pinned: Vec<Digest>) -> Result<Self, OpenError> {
        let mut index = Index::default();
        index.pin(&pinned, true);
        let directory = match settings.capacity {
            0 => None,
            _ => {
                let (path, failed) = (settings.path.clone(), settings.path.clone());
                let opened = tokio::task::spawn_blocking(move || open_directory(path)).await;
                match opened.unwrap_or_else(|error| Err(OpenError::Io { path: failed, detail: error.to_string() })) {
                    Ok((directory, found, is_clean)) => {
                        for file in found {
                            drop(index.insert(file.digest, file.size, file.last_used, is_clean));
                        }
                        Some(directory)
                    }
                    Err(error @ OpenError::Io { .. }) => {
                        tracing::error!(%error, "nothing is kept on disk until a restart; what upstreams send is passed through");
                        None
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        let state = State { index, fills: HashMap::new(), remnants: Remnants::default(), resting: None };
        let inner = Inner {
            directory,
            state: Mutex::new(state),
            verifying: Flights::new(),
            doubts: Semaphore::new(DOUBTS),
            rotten: AtomicU64::new(0),
            kept_open: Cache::new(OPEN_FILES),
            open: OpenFiles::default(),
            reading: Reading::new(Handle::current()),
            runtime: Handle::current(),
            settings,
        };
        let disk = Self { inner: Arc::new(inner) };
        // The capacity may be less than it was.
        if let Some(gone) = disk.inner.make_room(0) {
            disk.inner.clone().unlink(gone).await;
        }
        Ok(disk)
    }

    /// What there is of a digest, whoever sent it. A miss hands out the right to fill from `source`; one that is not used is
    /// dropped.
    pub async fn lookup(&self, digest: &Digest, source: &str) -> Lookup<E> {
        loop {
            let (user, size, trusted, touch) = {
                let mut state = self.inner.state();
                match state.index.find(digest) {
                    Some(found) => (found.user, found.size, found.trusted, found.touch),
                    None => return self.miss(&mut state, digest, source),
                }
            };
            if !trusted {
                let verified = self.inner.verifying.run(*digest, || {
                    let (inner, digest) = (Arc::clone(&self.inner), *digest);
                    async move { inner.verify(digest, size).await }
                });
                match verified.await {
                    Some(file) => return Lookup::Hit(CachedFile { file, user }),
                    None => continue,
                }
            }
            match self.inner.open_file(digest, size, touch).await {
                Opened::File(file) => return Lookup::Hit(CachedFile { file, user }),
                Opened::Unsummed => drop(self.inner.state().index.distrust(digest)),
                Opened::Gone => self.inner.throw_out(digest, "its file is gone or has another length").await,
                Opened::Failed => return Lookup::Off,
            }
        }
    }

    /// Looks a blob up as if nothing were there that another source sent: never a hit. What comes is kept once.
    pub fn lookup_anew(&self, digest: &Digest, source: &str) -> Lookup<E> {
        self.miss(&mut self.inner.state(), digest, source)
    }

    fn miss(&self, state: &mut State<E>, digest: &Digest, source: &str) -> Lookup<E> {
        let key = (*digest, Arc::from(source));
        if let Some(shared) = state.fills.get(&key) {
            return Lookup::Follow(Filling::of(shared));
        }
        let rests = state.resting.is_some_and(|until| Instant::now() < until);
        if rests || self.inner.directory.is_none() {
            return Lookup::Off;
        }
        let shared = Arc::new(Shared::new(*digest, Arc::clone(&key.1)));
        state.fills.insert(key, Arc::clone(&shared));
        Lookup::Lead(Box::new(Fill::new(self.clone(), shared)))
    }

    /// Whether all of it is there.
    pub fn has(&self, digest: &Digest) -> bool {
        self.inner.state().index.has(digest)
    }

    /// How many bytes it has, if all of it is there.
    pub fn size_of(&self, digest: &Digest) -> Option<u64> {
        self.inner.state().index.size_of(digest)
    }

    /// The fill from `source` that runs, if there is one.
    pub fn filling(&self, digest: &Digest, source: &str) -> Option<Filling<E>> {
        self.inner.state().fills.get(&(*digest, Arc::from(source))).map(Filling::of)
    }

    /// What there is; what was used longest ago comes first.
    pub fn list(&self) -> Vec<Cached> {
        self.inner.state().index.list()
    }

    /// Throws it out; who reads it reads on. Whether it was there.
    pub async fn remove(&self, digest: &Digest) -> bool {
        let was_there = self.inner.state().index.remove(digest);
        self.inner.drop_remnants(Some(digest));
        if was_there {
            self.inner.clone().unlink(vec![*digest]).await;
        }
        was_there
    }

    /// Keeps these whatever else is asked for, or no longer.
    pub fn pin(&self, digests: &[Digest], pinned: bool) {
        self.inner.state().index.pin(digests, pinned);
    }

    /// How much there is.
    pub fn usage(&self) -> Usage {
        let state = self.inner.state();
        Usage {
            bytes: state.index.bytes(),
            capacity: self.inner.settings.capacity,
            entries: state.index.len(),
            evicted: state.index.evicted(),
            fills: state.fills.len(),
            rotten: self.inner.rotten.load(Ordering::Relaxed),
        }
    }

    /// A clean stop: what is here need not be verified at the next start.
    pub async fn close(&self) {
        let inner = Arc::clone(&self.inner);
        let is_trusted = inner.state().index.is_trusted();
        let mark = move || match &inner.directory {
            // What was not verified since the last unclean stop is still not to be trusted.
            Some(directory) if is_trusted => directory.mark_clean(),
            _ => Ok(()),
        };
        match tokio::task::spawn_blocking(mark).await {
            Ok(Ok(())) => {}
            other => {
                tracing::warn!(error = ?other, "the cache could not be marked as clean; it is verified as it is used")
            }
        }
    }
}

fn open_directory(path: PathBuf) -> Result<(Directory, Vec<super::directory::FoundFile>, bool), OpenError> {
    let (directory, is_clean) = Directory::open(&path)?;
    let mut found = directory.scan().map_err(|error| OpenError::Io { path, detail: error.to_string() })?;
    found.sort_by_key(|file| file.last_used);
    Ok((directory, found, is_clean))
}

impl<E> Inner<E> {
    /// No critical section can panic half-way.
    pub(super) fn state(&self) -> MutexGuard<'_, State<E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn directory(&self) -> io::Result<&Directory> {
        self.directory.as_ref().ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    /// For a while nothing is written.
    pub(super) fn rest(&self) {
        self.state().resting = Some(Instant::now() + REST);
    }

    /// Evicts what has to go for `bytes` more, and sets that room aside; `None`, if that cannot be.
    pub(super) fn make_room(&self, bytes: u64) -> Option<Vec<Digest>> {
        let (gone, has_room) = self.state().index.reserve(bytes, self.settings.capacity);
        match has_room {
            true => Some(gone),
            // What went is gone from the index, so its files must go too.
            false => {
                self.unlink_now(&gone);
                None
            }
        }
    }

    /// Gives way where the file system under the cache would be too full with `bytes` more, and with what the fills that run
    /// have still to write; an error, where that does not help. Blocks.
    pub(super) fn give_way(&self, bytes: u64) -> io::Result<()> {
        let space = match Space::of_path(self.directory()?.path()) {
            // It is made again when a file is.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            space => space?,
        };
        let mut state = self.state();
        let over = |more| space.over(self.settings.used_percent_max, more);
        let (now, then) = (over(0), over(bytes.saturating_add(state.outstanding())));
        // The space of what goes may be free only later: how much that is, is counted and not measured.
        let (gone, is_enough) = state.index.evict_bytes(now, then);
        drop(state);
        self.unlink_now(&gone);
        if is_enough { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    /// Takes evicted blobs off the disk. Blocks.
    pub(super) fn unlink_now(&self, digests: &[Digest]) {
        let Ok(directory) = self.directory() else { return };
        for digest in digests {
            self.close_file(digest);
            if let Err(error) = directory.remove(digest) {
                tracing::warn!(%digest, %error, "a blob could not be removed from the cache's disk");
            }
        }
        // Else files that are kept open would take their space for a while yet.
        self.kept_open.run_pending_tasks();
    }

    /// What came of a fill is kept for the next one.
    pub(super) fn leave(&self, fill: &Shared<E>, remnant: Remnant) {
        let gone = self.state().remnants.leave((fill.digest, Arc::clone(&fill.source)), remnant);
        self.discard(gone);
    }

    /// What came of the fill before, if it fits what is known of the size now.
    pub(super) fn take_over(&self, fill: &Shared<E>, size: Option<u64>) -> Option<Remnant> {
        let remnant = self.state().remnants.take(&(fill.digest, Arc::clone(&fill.source)))?;
        let fits =
            size.is_none_or(|size| remnant.size.is_none_or(|other| other == size) && remnant.prover.size() < size);
        if fits && remnant.way.as_ref() == fill.way.get() {
            return Some(remnant);
        }
        self.discard(vec![remnant]);
        None
    }

    /// Takes what nobody came back for off the disk. Blocks for a moment.
    pub(super) fn drop_old_remnants(&self) {
        let gone = self.state().remnants.take_old();
        self.discard(gone);
    }

    /// Takes what is left of a digest, or of all, off the disk; whether that was anything. Blocks for a moment.
    pub(super) fn drop_remnants(&self, of: Option<&Digest>) -> bool {
        let gone = self.state().remnants.take_all(of);
        let was_any = !gone.is_empty();
        self.discard(gone);
        was_any
    }

    fn discard(&self, gone: Vec<Remnant>) {
        for remnant in gone {
            // What is left is removed at the next start.
            let _ = remove_if_there(&remnant.path);
            self.state().index.release(remnant.reserved);
        }
    }

    /// A fill is over, with a whole blob or without.
    pub(super) fn end_fill(&self, fill: &Shared<E>, reserved: u64, kept: Option<u64>) -> Option<Arc<()>> {
        let mut state = self.state();
        state.fills.remove(&(fill.digest, Arc::clone(&fill.source)));
        state.index.release(reserved);
        kept.map(|size| state.index.insert(fill.digest, size, SystemTime::now(), true))
    }

    /// A verified blob that is there already; it stays while what is returned is held.
    pub(super) fn verified(&self, digest: &Digest) -> Option<Arc<()>> {
        self.state().index.find(digest).filter(|found| found.trusted).map(|found| found.user)
    }

    pub(super) const fn cached(file: BlobFile, user: Arc<()>) -> CachedFile {
        CachedFile { file, user }
    }

    /// The next who asks opens it anew; who reads it reads on.
    pub(super) fn close_file(&self, digest: &Digest) {
        self.kept_open.invalidate(digest);
        self.open.forget(digest);
    }
}

impl<E: Send + Sync + 'static> Inner<E> {
    pub(super) async fn unlink(self: Arc<Self>, digests: Vec<Digest>) {
        if digests.is_empty() {
            return;
        }
        let runtime = self.runtime.clone();
        // What is left on the disk is found at the next start.
        let _ = runtime.spawn_blocking(move || self.unlink_now(&digests)).await;
    }
}
