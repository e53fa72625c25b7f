//! Reading a blob's file: inline when the page cache has the bytes, on a blocking thread when the disk must be asked.

use std::fs::File;
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use rustix::io::{Errno, ReadWriteFlags};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::oci::ByteRange;

/// The longest chunk, in bytes; longer ones measured no faster.
pub const CHUNK_BYTES: usize = 256 * 1024;
/// How many buffers are kept for the next readers: 16 MiB.
const BUFFERS: usize = 64;

/// An open blob. Cheap to clone; goes on being readable when the blob is deleted.
#[derive(Debug, Clone)]
pub struct BlobFile {
    file: Arc<File>,
    size: u64,
    buffers: Arc<Buffers>,
    runtime: Handle,
}

impl BlobFile {
    /// A file of `size` bytes. `runtime` has the threads on which disks are waited for.
    pub const fn new(file: Arc<File>, size: u64, buffers: Arc<Buffers>, runtime: Handle) -> Self {
        Self { file, size, buffers, runtime }
    }

    /// The blob's size in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Reads a part of it. A range that goes beyond the end ends in an error.
    pub fn read(&self, range: ByteRange) -> BlobReader {
        self.reader(range.start(), range.last() + 1)
    }

    /// Reads it from the first byte to the last; the only way to read an empty one.
    pub fn read_from_start(&self) -> BlobReader {
        self.reader(0, self.size)
    }

    /// The whole blob in memory; for those known to be small.
    pub async fn read_all(&self) -> io::Result<Bytes> {
        let mut reader = self.read_from_start();
        let mut whole = BytesMut::new();
        while let Some(chunk) = reader.next_chunk().await {
            let chunk = chunk?;
            if chunk.len() as u64 == self.size {
                return Ok(chunk);
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    }

    fn reader(&self, start: u64, end: u64) -> BlobReader {
        BlobReader { blob: self.clone(), offset: start, end, inline: true, state: State::Ready }
    }
}

/// Hands out a part of a blob, chunk by chunk.
///
/// It ends with `None` only after the last byte that was asked for; what goes wrong before is an error, said again
/// every time it is asked.
#[derive(Debug)]
pub struct BlobReader {
    blob: BlobFile,
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

    /// As [`Self::next_chunk`], for whoever implements a body. A chunk has at most `most` bytes, which must be one or more
    /// and not less than the last time while this is pending.
    pub fn poll_chunk(&mut self, context: &mut Context<'_>, most: usize) -> Poll<Option<io::Result<Bytes>>> {
        let read = match &mut self.state {
            State::Failed(kind) => Err((*kind).into()),
            State::Ready if self.offset == self.end => return Poll::Ready(None),
            State::Ready => match self.read_inline(most) {
                Some(read) => read,
                None => {
                    self.state = State::Waiting(self.read_on_a_thread(most));
                    return self.poll_chunk(context, most);
                }
            },
            State::Waiting(task) => {
                let read = ready!(Pin::new(task).poll(context)).unwrap_or_else(|error| Err(io::Error::other(error)));
                self.state = State::Ready;
                read
            }
        };
        Poll::Ready(Some(self.advance(read)))
    }

    fn advance(&mut self, read: io::Result<Bytes>) -> io::Result<Bytes> {
        let read = read.and_then(|chunk| match chunk.len() {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the blob's file is shorter than the blob")),
            _ => Ok(chunk),
        });
        match &read {
            Ok(chunk) => self.offset += chunk.len() as u64,
            Err(error) => self.state = State::Failed(error.kind()),
        }
        read
    }

    fn length(&self, most: usize) -> usize {
        let most = most.clamp(1, CHUNK_BYTES);
        usize::try_from(self.remaining()).unwrap_or(most).min(most)
    }

    /// What the page cache has of the next chunk; `None` if a thread must wait for the disk.
    fn read_inline(&mut self, most: usize) -> Option<io::Result<Bytes>> {
        if !self.inline {
            return None;
        }
        let read = Buffers::fill(&self.blob.buffers, self.length(most), |buffer| {
            let mut parts = [IoSliceMut::new(buffer)];
            rustix::io::preadv2(&self.blob.file, &mut parts, self.offset, ReadWriteFlags::NOWAIT)
                .map_err(io::Error::from)
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

    fn read_on_a_thread(&self, most: usize) -> JoinHandle<io::Result<Bytes>> {
        let (blob, offset, length) = (self.blob.clone(), self.offset, self.length(most));
        self.blob.runtime.spawn_blocking(move || {
            Buffers::fill(&blob.buffers, length, |buffer| {
                loop {
                    match blob.file.read_at(buffer, offset) {
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        read => return read,
                    }
                }
            })
        })
    }
}

/// Buffers of a whole chunk that go round, so that each is allocated and zeroed once and not for every chunk.
#[derive(Debug, Default)]
pub struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// Has `read` fill a buffer of `length` bytes; what it filled becomes the chunk.
    fn fill(
        buffers: &Arc<Self>,
        length: usize,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<Bytes> {
        if length < CHUNK_BYTES / 2 {
            let mut buffer = vec![0; length];
            let filled = read(&mut buffer)?;
            buffer.truncate(filled);
            return Ok(buffer.into());
        }
        let mut lent = Lent { buffer: buffers.take(), filled: 0, home: buffers.clone() };
        lent.filled = read(&mut lent.buffer[..length])?;
        Ok(Bytes::from_owner(lent))
    }

    fn take(&self) -> Vec<u8> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| vec![0; CHUNK_BYTES])
    }

    fn give_back(&self, buffer: Vec<u8>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < BUFFERS {
            kept.push(buffer);
        }
    }
}

/// A buffer that goes home when the last part of its chunk has been sent.
struct Lent {
    buffer: Vec<u8>,
    filled: usize,
    home: Arc<Buffers>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.give_back(std::mem::take(&mut self.buffer));
    }
}
