//! Reading a blob's file: inline when the page cache has the bytes, on a blocking thread when the disk must be asked. What
//! is read is checked piece by piece before any of it is handed out.

use std::fmt;
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use rustix::io::{Errno, ReadWriteFlags};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::oci::ByteRange;

use super::buffers::{Buffers, Lent};
use super::sums::{PIECE_BYTES, Sums, piece_end, read_full};

/// The longest chunk, in bytes; longer ones measured no faster.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// Told when a file gives other bytes than were hashed, or fewer. It must not block.
pub type Doubt = Box<dyn Fn() + Send + Sync>;

/// What reading files takes: buffers that go round, and the threads on which disks are waited for.
#[derive(Debug, Clone)]
pub struct Reading {
    buffers: Arc<Buffers>,
    runtime: Handle,
}

/// An open blob. Cheap to clone: all clones have one descriptor. Goes on being readable when the blob is deleted.
#[derive(Debug, Clone)]
pub struct BlobFile(Arc<Opened>);

/// A file that is not kept open by this.
#[derive(Debug)]
pub(super) struct WeakBlobFile(Weak<Opened>);

struct Opened {
    file: Arc<File>,
    size: u64,
    sums: Option<Sums>,
    doubt: Option<Doubt>,
    reading: Reading,
}

impl Reading {
    /// With no buffers yet. `runtime` has the threads.
    pub fn new(runtime: Handle) -> Self {
        Self { buffers: Arc::default(), runtime }
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("file", &self.file).field("size", &self.size).finish_non_exhaustive()
    }
}

impl WeakBlobFile {
    pub(super) fn upgrade(&self) -> Option<BlobFile> {
        self.0.upgrade().map(BlobFile)
    }

    pub(super) fn is_open(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl BlobFile {
    /// A file of `size` bytes that is read as it is.
    pub fn new(file: Arc<File>, size: u64, reading: Reading) -> Self {
        Self(Arc::new(Opened { file, size, sums: None, doubt: None, reading }))
    }

    /// A file of `size` bytes. What is read of it is checked where there are `sums`; `doubt` is told where it is wrong.
    pub fn checked(file: Arc<File>, size: u64, sums: Option<Sums>, doubt: Doubt, reading: Reading) -> Self {
        Self(Arc::new(Opened { file, size, sums, doubt: Some(doubt), reading }))
    }

    pub(super) fn downgrade(&self) -> WeakBlobFile {
        WeakBlobFile(Arc::downgrade(&self.0))
    }

    /// The blob's size in bytes.
    pub fn size(&self) -> u64 {
        self.0.size
    }

    /// Reads a part of it. A range that goes beyond the end ends in an error.
    pub fn read(&self, range: ByteRange) -> BlobReader {
        self.reader(range.start(), range.last() + 1, self.0.sums.clone())
    }

    /// Reads a part of one piece of a file that still grows. `pieces` are the checksums of those that are whole; none if this
    /// one is not, or nothing is left of it.
    pub fn read_piece(&self, start: u64, end: u64, pieces: &[u32]) -> Option<BlobReader> {
        let sums = Sums::one_of(pieces, start).filter(|_| start < end)?;
        Some(self.reader(start, end.min(piece_end(start)), Some(sums)))
    }

    /// Reads it from the first byte to the last; the only way to read an empty one.
    pub fn read_from_start(&self) -> BlobReader {
        self.reader(0, self.size(), self.0.sums.clone())
    }

    /// The whole blob in memory; for those known to be small.
    pub async fn read_all(&self) -> io::Result<Bytes> {
        let mut reader = self.read_from_start();
        let mut whole = BytesMut::new();
        while let Some(chunk) = reader.next_chunk().await {
            let chunk = chunk?;
            if chunk.len() as u64 == self.size() {
                return Ok(chunk);
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    }

    fn reader(&self, start: u64, end: u64, sums: Option<Sums>) -> BlobReader {
        BlobReader { blob: self.clone(), sums, offset: start, end, inline: true, state: State::Ready }
    }
}

/// Hands out a part of a blob, chunk by chunk.
///
/// It ends with `None` only after the last byte that was asked for; what goes wrong before is an error, said again
/// every time it is asked.
#[derive(Debug)]
pub struct BlobReader {
    blob: BlobFile,
    sums: Option<Sums>,
    offset: u64,
    end: u64,
    /// Whether this file system can say what the page cache has.
    inline: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Ready,
    Waiting(JoinHandle<io::Result<Bytes>>),
    Failed(io::ErrorKind),
}

impl BlobReader {
    /// How many bytes are still to come.
    pub const fn remaining(&self) -> u64 {
        self.end - self.offset
    }

    /// The next chunk, of 1 byte to 256 KiB.
    pub async fn next_chunk(&mut self) -> Option<io::Result<Bytes>> {
        poll_fn(|context| self.poll_chunk(context, CHUNK_BYTES)).await
    }

    /// As [`Self::next_chunk`], for whoever implements a body. A chunk has at most `most` bytes, and takes no more memory;
    /// `most` must be one or more and not less than the last time while this is pending. Chunks of less than 64 KiB cost
    /// more: the whole piece is read and checked for each.
    pub fn poll_chunk(&mut self, context: &mut Context<'_>, most: usize) -> Poll<Option<io::Result<Bytes>>> {
        let read = match &mut self.state {
            State::Failed(kind) => Err((*kind).into()),
            State::Ready if self.offset == self.end => return Poll::Ready(None),
            State::Ready => {
                let step = self.step(most);
                match self.read_inline(&step) {
                    Some(read) => read,
                    None => {
                        let blob = self.blob.clone();
                        let task = self.blob.0.reading.runtime.spawn_blocking(move || step.read_waiting(&blob.0));
                        self.state = State::Waiting(task);
                        return self.poll_chunk(context, most);
                    }
                }
            }
            State::Waiting(task) => {
                let read = ready!(Pin::new(task).poll(context)).unwrap_or_else(|error| Err(io::Error::other(error)));
                self.state = State::Ready;
                read
            }
        };
        Poll::Ready(Some(self.advance(read)))
    }

    fn advance(&mut self, read: io::Result<Bytes>) -> io::Result<Bytes> {
        match &read {
            Ok(chunk) => self.offset += chunk.len() as u64,
            Err(error) => {
                // A task that was stopped, and a range that nobody could read, say nothing of the file.
                let is_of_file = error.kind() != io::ErrorKind::Other && self.offset < self.blob.size();
                if let (true, State::Ready, Some(doubt)) = (is_of_file, &self.state, &self.blob.0.doubt) {
                    doubt();
                }
                self.state = State::Failed(error.kind());
            }
        }
        read
    }

    /// What is read for the next chunk.
    fn step(&self, most: usize) -> Step {
        let most = most.clamp(1, CHUNK_BYTES);
        let within = |bytes: u64, limit: usize| usize::try_from(bytes).unwrap_or(limit).min(limit);
        let Some(sums) = &self.sums else {
            let length = within(self.remaining(), most);
            return Step { start: self.offset, length, skip: 0, wanted: length, most, sums: None };
        };
        let piece = PIECE_BYTES as u64;
        let start = self.offset - self.offset % piece;
        let end = self.end.min(self.blob.size()).next_multiple_of(piece).min(self.blob.size());
        let length = within(end.saturating_sub(start), (most / PIECE_BYTES).max(1) * PIECE_BYTES);
        let skip = within(self.offset - start, length);
        let wanted = within(self.remaining(), most.min(length - skip));
        Step { start, length, skip, wanted, most, sums: Some(sums.clone()) }
    }

    /// What the page cache has of the next chunk; `None` if a thread must wait for the disk.
    fn read_inline(&mut self, step: &Step) -> Option<io::Result<Bytes>> {
        if !self.inline {
            return None;
        }
        let opened = &self.blob.0;
        let read = step.read(opened, |buffer| {
            let mut parts = [IoSliceMut::new(buffer)];
            rustix::io::preadv2(&opened.file, &mut parts, step.start, ReadWriteFlags::NOWAIT).map_err(io::Error::from)
        });
        match read.as_ref().map_err(Errno::from_io_error) {
            Err(Some(Errno::AGAIN | Errno::INTR)) => None,
            Err(Some(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL)) => {
                self.inline = false;
                None
            }
            // Some file systems answer 0 instead of EAGAIN; only a read that may wait knows the end.
            Ok(chunk) if chunk.is_empty() => None,
            _ => Some(read),
        }
    }
}

/// One read of a file, and what of it is handed out.
#[derive(Debug)]
struct Step {
    /// Where it begins; where there are checksums, that is where a piece does.
    start: u64,
    length: usize,
    /// How many of its first bytes nobody asked for.
    skip: usize,
    /// How many of those after them are handed out.
    wanted: usize,
    /// How much memory a chunk may take.
    most: usize,
    sums: Option<Sums>,
}

impl Step {
    /// Reads with `read`, and checks what it read. Empty, if that is not one whole piece.
    fn read(&self, opened: &Opened, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<Bytes> {
        let mut lent = Buffers::lend(&opened.reading.buffers);
        lent.fill(self.length, read)?;
        let filled = lent.as_ref().len();
        let Some(sums) = &self.sums else { return Ok(self.part(lent, filled)) };
        let whole = if filled == self.length { filled } else { filled - filled % PIECE_BYTES };
        match sums.hold(self.start, &lent.as_ref()[..whole]) {
            true => Ok(self.part(lent, whole)),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, "the blob's file does not hold what was hashed")),
        }
    }

    /// As much as was asked for of the first `checked` bytes. Small parts are copied, so that none holds a whole buffer.
    fn part(&self, lent: Lent, checked: usize) -> Bytes {
        let (from, to) = (self.skip.min(checked), (self.skip + self.wanted).min(checked));
        match to - from < CHUNK_BYTES / 2 || self.most < CHUNK_BYTES {
            true => Bytes::copy_from_slice(&lent.as_ref()[from..to]),
            false => lent.part(from, to),
        }
    }

    /// Reads all of it; blocks until the disk gave it.
    fn read_waiting(&self, opened: &Opened) -> io::Result<Bytes> {
        let chunk = self.read(opened, |buffer| match self.sums {
            Some(_) => read_full(&opened.file, buffer, self.start),
            None => read_some(&opened.file, buffer, self.start),
        })?;
        match chunk.is_empty() {
            true => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the blob's file is shorter than the blob")),
            false => Ok(chunk),
        }
    }
}

fn read_some(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

#[cfg(test)]
mod tests;
