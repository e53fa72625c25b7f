//! One download, many readers: whoever fills writes one spool file, and every reader follows it at its own pace.
//!
//! The last byte is withheld from everybody until the digest is right: a body that includes it is either whole and
//! verified, or ends in an error.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::files::{self, BlobFile, Proven, Prover};
use crate::oci::Digest;

use super::directory::remove_if_there;
use super::disk::{CachedFile, Disk, Inner};
use super::error::FillError;
use super::remnants::{self, Remnant};

pub use super::filling::{FillReader, Filling};

/// How much is written to the disk at once; as much again may be on its way.
const WRITE_BYTES: usize = 1024 * 1024;
/// How many of the newest bytes are shared in memory by the readers at the head.
const SHARED_BYTES: u64 = 2 * 1024 * 1024;
/// Room is set aside in such steps where nobody says how long a blob is.
const GROWTH_BYTES: u64 = 16 * 1024 * 1024;

/// What a fill and its readers share.
pub(super) struct Shared<E> {
    pub(super) digest: Digest,
    /// Who sends it.
    pub(super) source: Arc<str>,
    /// How whoever fills came to it: who comes another way need not share their bad luck.
    pub(super) way: OnceLock<Box<str>>,
    state: Mutex<State<E>>,
    /// Told when the last reader leaves.
    pub(super) left: Notify,
}

/// How far a fill is.
pub(super) struct State<E> {
    /// The size, if the fill has begun; inside, if somebody said it.
    pub(super) begun: Option<Option<u64>>,
    /// The spool, to read what is not shared in memory.
    pub(super) spool: Option<BlobFile>,
    /// What came.
    pub(super) received: u64,
    /// What of it is in the spool.
    pub(super) written: u64,
    /// The checksums of the pieces that are whole: what is read from the spool is checked too.
    pub(super) sums: Vec<u32>,
    /// The newest chunks, by where they begin.
    pub(super) chunks: VecDeque<(u64, Bytes)>,
    pub(super) outcome: Option<Result<CachedFile, FillError<E>>>,
    pub(super) readers: usize,
    pub(super) wakers: HashMap<u64, Waker>,
    pub(super) next_waker: u64,
}

/// The right to fill. Dropped unfinished, it is a failed fill, and its readers are told so.
pub struct Fill<E> {
    disk: Disk<E>,
    shared: Arc<Shared<E>>,
    prover: Option<Prover>,
    proven: Option<Proven>,
    spool: Option<(PathBuf, Arc<File>)>,
    /// The spool of the fill before, until this one has begun.
    left: Option<(PathBuf, Arc<File>)>,
    size: Option<u64>,
    /// Whether whoever sends it said how long it is.
    is_announced: bool,
    reserved: u64,
    offset: u64,
    gathered: Vec<Bytes>,
    gathered_bytes: usize,
    writing: Option<JoinHandle<io::Result<u64>>>,
    over: bool,
}

impl<E> Shared<E> {
    pub(super) fn new(digest: Digest, source: Arc<str>) -> Self {
        let state = State {
            begun: None,
            spool: None,
            received: 0,
            written: 0,
            sums: Vec::new(),
            chunks: VecDeque::new(),
            outcome: None,
            readers: 0,
            wakers: HashMap::new(),
            next_waker: 0,
        };
        Self { digest, source, way: OnceLock::new(), state: Mutex::new(state), left: Notify::new() }
    }

    /// No critical section can panic half-way.
    pub(super) fn lock(&self) -> MutexGuard<'_, State<E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something that readers wait for, and wakes them all.
    fn publish(&self, change: impl FnOnce(&mut State<E>)) {
        let wakers = {
            let mut state = self.lock();
            change(&mut state);
            std::mem::take(&mut state.wakers)
        };
        wakers.into_values().for_each(Waker::wake);
    }
}

impl<E> State<E> {
    /// How far readers may read.
    pub(super) fn visible(&self) -> u64 {
        match (&self.outcome, self.begun.flatten()) {
            (Some(Ok(_)), _) => self.received,
            (_, Some(size)) if self.received < size => self.received,
            _ => self.received.saturating_sub(1),
        }
    }

    /// Forgets the oldest chunks that are in the spool and can be checked when they are read there: in whole pieces.
    pub(super) fn trim(&mut self) {
        let pieces = self.sums.len().min(usize::try_from(self.written).unwrap_or(usize::MAX) / files::PIECE_BYTES);
        let readable = (pieces * files::PIECE_BYTES) as u64;
        while let Some((start, chunk)) = self.chunks.front() {
            let end = start + chunk.len() as u64;
            if end > readable || self.received - start <= SHARED_BYTES {
                return;
            }
            self.chunks.pop_front();
        }
    }
}

impl<E: Clone + Send + Sync + 'static> Fill<E> {
    pub(super) fn new(disk: Disk<E>, shared: Arc<Shared<E>>) -> Self {
        let prover = Some(Prover::new(shared.digest.algorithm()));
        Self {
            disk,
            shared,
            prover,
            proven: None,
            spool: None,
            left: None,
            size: None,
            is_announced: false,
            reserved: 0,
            offset: 0,
            gathered: Vec::new(),
            gathered_bytes: 0,
            writing: None,
            over: false,
        }
    }

    /// One who reads behind it.
    pub fn filling(&self) -> Filling<E> {
        Filling::of(&self.shared)
    }

    /// Says by which way it comes, before anybody is let behind it for longer than a moment.
    pub fn come_by(&self, way: &str) {
        let _ = self.shared.way.set(way.into());
    }

    /// Its size was said by whoever sends it, and not by others alone.
    pub const fn announced(&mut self) {
        self.is_announced = true;
    }

    /// Whether the spool is open.
    pub const fn has_begun(&self) -> bool {
        self.spool.is_some()
    }

    /// Goes on with what came of the fill before, if it broke off not long ago; how long the blob is, where that is known
    /// now. Nobody reads of it before this fill has begun.
    pub fn take_over(&mut self, size: Option<u64>) -> Option<u64> {
        let Some(remnant) = self.disk.inner.take_over(&self.shared, size) else { return size };
        let Remnant { path, file, prover, size: known, reserved, .. } = remnant;
        (self.offset, self.reserved) = (prover.size(), reserved);
        (self.prover, self.left) = (Some(prover), Some((path, file)));
        self.size = size.or(known);
        self.size
    }

    /// Makes room, opens the spool, and tells those who wait how long the blob is, if that is known.
    pub async fn begin(&mut self, size: Option<u64>) -> Result<(), FillError<E>> {
        self.size = size;
        let needed = size.unwrap_or(self.offset + GROWTH_BYTES).saturating_sub(self.reserved);
        self.reserve(needed).await?;
        let (inner, left) = (Arc::clone(&self.disk.inner), self.left.clone());
        // What is not in a whole piece cannot be checked when it is read from the spool.
        let sums = self.prover.as_ref().map_or(&[][..], Prover::pieces).to_vec();
        let (start, end) = ((sums.len() * files::PIECE_BYTES) as u64, self.offset);
        let opened = tokio::task::spawn_blocking(move || {
            let Some((path, file)) = left else {
                let (path, file) = inner.directory()?.create_spool()?;
                return Ok((path, Arc::new(file), Vec::new()));
            };
            let mut tail = vec![0; usize::try_from(end - start).unwrap_or_default()];
            file.read_exact_at(&mut tail, start)?;
            Ok((path, file, tail))
        });
        let (path, file, tail) = self.checked(flat(opened.await))?;
        let readable = self.disk.inner.spool_file(Arc::clone(&file), size.unwrap_or(u64::MAX));
        (self.spool, self.left) = (Some((path, file)), None);
        self.shared.publish(|state| {
            state.begun = Some(size);
            state.spool = Some(readable);
            (state.received, state.written, state.sums) = (end, end, sums);
            if !tail.is_empty() {
                state.chunks.push_back((start, tail.into()));
            }
        });
        Ok(())
    }

    /// Hands the next bytes on: hashed once, shared with the readers at the head, and written in large pieces.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), FillError<E>> {
        if chunk.is_empty() {
            return Ok(());
        }
        let received = self.offset + chunk.len() as u64;
        if let Some(expected) = self.size.filter(|size| received > *size) {
            return Err(FillError::Size { expected, received });
        }
        if received > self.reserved {
            self.reserve(GROWTH_BYTES.max(chunk.len() as u64)).await?;
        }
        if let Some(prover) = &mut self.prover {
            prover.update(&chunk);
        }
        self.gathered_bytes += chunk.len();
        self.gathered.push(chunk.clone());
        let sums = self.prover.as_ref().map_or(&[][..], Prover::pieces);
        self.shared.publish(|state| {
            state.chunks.push_back((state.received, chunk));
            state.received = received;
            state.sums.extend_from_slice(sums.get(state.sums.len()..).unwrap_or_default());
        });
        self.offset = received;
        if self.gathered_bytes >= WRITE_BYTES { self.flush().await } else { Ok(()) }
    }

    /// How many bytes came.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// How many read behind it, or are about to.
    pub fn readers(&self) -> usize {
        self.shared.lock().readers
    }

    /// Nobody reads behind it any more.
    pub async fn abandoned(&self) {
        loop {
            let left = self.shared.left.notified();
            if self.readers() == 0 {
                return;
            }
            left.await;
        }
    }

    /// Verifies what came, before anybody reads the last of it. Where it is not right, those who wait are told.
    pub async fn verify(&mut self) -> Result<(), FillError<E>> {
        let verified = self.try_verify().await;
        if let Err(error) = &verified {
            self.end(Err(error.clone()));
        }
        verified
    }

    async fn try_verify(&mut self) -> Result<(), FillError<E>> {
        self.flush().await?;
        self.landed().await?;
        if let Some(expected) = self.size.filter(|size| self.offset != *size) {
            return Err(FillError::Size { expected, received: self.offset });
        }
        let prover = self.prover.take().ok_or(FillError::Abandoned)?;
        self.proven = Some(prover.prove(&self.shared.digest).map_err(FillError::Mismatch)?);
        Ok(())
    }

    /// Verifies what came, if that was not done, and keeps it. What is there already is not kept twice.
    pub async fn finish(mut self) -> Result<CachedFile, FillError<E>> {
        let finished = self.try_finish().await;
        let outcome = finished.clone();
        self.end(outcome);
        finished
    }

    async fn try_finish(&mut self) -> Result<CachedFile, FillError<E>> {
        if self.proven.is_none() {
            self.try_verify().await?;
        }
        let Proven { verified, sums } = self.proven.take().ok_or(FillError::Abandoned)?;
        let (path, file) = self.spool.clone().ok_or(FillError::Abandoned)?;
        let (inner, digest, kept_sums) = (Arc::clone(&self.disk.inner), self.shared.digest, sums.clone());
        let there = inner.verified(&digest);
        let is_new = there.is_none();
        let kept = tokio::task::spawn_blocking(move || match is_new {
            true => inner.directory()?.keep(&path, &digest, &kept_sums),
            false => remove_if_there(&path),
        });
        self.checked(flat(kept.await))?;
        self.spool = None;
        let file = self.disk.inner.whole_file(&digest, file, verified.size(), sums);
        let reserved = std::mem::take(&mut self.reserved);
        let user = self.disk.inner.end_fill(&self.shared, reserved, is_new.then_some(verified.size()));
        Ok(Inner::<E>::cached(file, user.or(there).unwrap_or_default()))
    }

    /// Tells those who wait why there is nothing more.
    pub fn fail(mut self, error: E) {
        self.end(Err(FillError::Failed(error)));
    }

    /// Tells those who wait why there is nothing more. What came is kept for the next who fills.
    pub async fn break_off(mut self, error: E) {
        if self.offset >= remnants::BYTES_MIN && self.flush().await.is_ok() && self.landed().await.is_ok() {
            let (spool, prover) = (self.spool.take().or(self.left.take()), self.prover.take());
            if let (Some((path, file)), Some(prover)) = (spool, prover) {
                let size = self.size.filter(|_| self.is_announced);
                let (reserved, way) = (self.offset.min(self.reserved), self.shared.way.get().cloned());
                self.reserved -= reserved;
                self.disk.inner.leave(&self.shared, Remnant { path, file, prover, size, way, reserved });
            }
        }
        self.end(Err(FillError::Failed(error)));
    }

    /// Sets room aside; what has to go for it goes.
    async fn reserve(&mut self, bytes: u64) -> Result<(), FillError<E>> {
        let inner = Arc::clone(&self.disk.inner);
        let reserved = tokio::task::spawn_blocking(move || {
            inner.drop_old_remnants();
            let set_aside = || {
                inner.give_way(bytes)?;
                let gone = inner.make_room(bytes).ok_or(io::ErrorKind::QuotaExceeded)?;
                inner.unlink_now(&gone);
                io::Result::Ok(())
            };
            set_aside().or_else(|error| if inner.drop_remnants(None) { set_aside() } else { Err(error) })
        });
        self.checked(flat(reserved.await))?;
        self.reserved += bytes;
        Ok(())
    }

    /// Begins to write what was gathered, once what was begun before is written.
    async fn flush(&mut self) -> Result<(), FillError<E>> {
        self.landed().await?;
        if self.gathered.is_empty() {
            return Ok(());
        }
        let (_, file) = self.spool.as_ref().ok_or(FillError::Abandoned)?;
        let (file, pieces) = (Arc::clone(file), std::mem::take(&mut self.gathered));
        let mut at = self.offset - std::mem::take(&mut self.gathered_bytes) as u64;
        self.writing = Some(tokio::task::spawn_blocking(move || {
            for piece in pieces {
                file.write_all_at(&piece, at)?;
                at += piece.len() as u64;
            }
            Ok(at)
        }));
        Ok(())
    }

    /// Waits until what was begun is written.
    async fn landed(&mut self) -> Result<(), FillError<E>> {
        let Some(writing) = self.writing.take() else { return Ok(()) };
        let written = self.checked(flat(writing.await))?;
        let mut state = self.shared.lock();
        state.written = written;
        state.trim();
        Ok(())
    }

    /// After a failure of the disk nothing is written for a while.
    fn checked<T>(&self, done: io::Result<T>) -> Result<T, FillError<E>> {
        done.map_err(|error| {
            // That a blob is larger than the cache says nothing of the disk.
            if error.kind() != io::ErrorKind::QuotaExceeded {
                tracing::warn!(digest = %self.shared.digest, %error, "the cache's disk takes nothing now");
                self.disk.inner.rest();
            }
            error.into()
        })
    }
}

impl<E> Fill<E> {
    fn end(&mut self, outcome: Result<CachedFile, FillError<E>>) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        if outcome.is_err() {
            self.disk.inner.end_fill(&self.shared, self.reserved, None);
        }
        for (path, _) in [self.spool.take(), self.left.take()].into_iter().flatten() {
            // What is left is removed at the next start.
            let _ = remove_if_there(&path);
        }
        self.shared.publish(|state| state.outcome = Some(outcome));
    }
}

impl<E> Drop for Fill<E> {
    fn drop(&mut self) {
        self.end(Err(FillError::Abandoned));
    }
}

/// What a thread came to.
fn flat<T>(done: Result<io::Result<T>, tokio::task::JoinError>) -> io::Result<T> {
    done.unwrap_or_else(|error| Err(io::Error::other(error)))
}
