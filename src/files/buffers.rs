//! Buffers that go round.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::CHUNK_BYTES;

/// How many buffers are kept for the next readers: 16 MiB.
const BUFFERS: usize = 64;

/// Buffers of a whole chunk, each allocated and zeroed once and not for every chunk.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// A buffer of [`CHUNK_BYTES`] that goes home when it is dropped.
    pub(super) fn lend(home: &Arc<Self>) -> Lent {
        let kept = home.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Lent { buffer: kept.unwrap_or_else(|| vec![0; CHUNK_BYTES]), filled: 0, home: Arc::clone(home) }
    }

    fn give_back(&self, buffer: Vec<u8>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < BUFFERS {
            kept.push(buffer);
        }
    }
}

/// A buffer that goes home when the last part of what it holds has been sent.
pub(super) struct Lent {
    buffer: Vec<u8>,
    filled: usize,
    home: Arc<Buffers>,
}

impl Lent {
    /// Has `read` fill the first `length` bytes, and holds what it filled.
    pub(super) fn fill(&mut self, length: usize, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<()> {
        self.filled = read(&mut self.buffer[..length])?;
        Ok(())
    }

    /// A part of what it holds, which keeps the buffer from going home.
    pub(super) fn part(self, from: usize, to: usize) -> Bytes {
        Bytes::from_owner(self).slice(from..to)
    }
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
