//! Reading behind a fill.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::files::{BlobReader, CHUNK_BYTES, piece_end};
use crate::oci::ByteRange;

use super::disk::CachedFile;
use super::error::FillError;
use super::fill::{Shared, State};

/// One who follows a fill. As long as it is held, the fill is not abandoned.
pub struct Filling<E> {
    follower: Follower<E>,
}

/// Reads a part of what arrives.
pub struct FillReader<E> {
    follower: Follower<E>,
    offset: u64,
    /// Where it ends; at the end of the blob, where there is none.
    end: Option<u64>,
    /// What is read from the spool now.
    behind: Option<BlobReader>,
    failed: bool,
}

/// Counted as a reader while it lives, and woken under its own number.
struct Follower<E> {
    shared: Arc<Shared<E>>,
    waker: u64,
}

/// Where the next bytes are.
enum Next<E> {
    Chunk(Bytes),
    /// In the spool, from here to there.
    Spool(BlobReader),
    Wait,
    End,
    Failed(FillError<E>),
}

impl<E> Follower<E> {
    fn of(shared: &Arc<Shared<E>>) -> Self {
        let mut state = shared.lock();
        state.readers += 1;
        state.next_waker += 1;
        Self { waker: state.next_waker, shared: Arc::clone(shared) }
    }
}

impl<E> Drop for Follower<E> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.readers -= 1;
        state.wakers.remove(&self.waker);
        if state.readers == 0 {
            self.shared.left.notify_waiters();
        }
    }
}

impl<E> Clone for Filling<E> {
    fn clone(&self) -> Self {
        Self::of(&self.follower.shared)
    }
}

impl<E> Filling<E> {
    pub(super) fn of(shared: &Arc<Shared<E>>) -> Self {
        Self { follower: Follower::of(shared) }
    }

    /// In which way whoever fills came to it.
    pub fn way(&self) -> Option<&str> {
        self.follower.shared.way.get().map(|way| &**way)
    }
}

impl<E: Clone> Filling<E> {
    /// Waits until the fill begins: how many bytes there will be, if somebody said it.
    pub async fn size(&self) -> Result<Option<u64>, FillError<E>> {
        self.wait_for(|state| match (&state.begun, &state.outcome) {
            (Some(size), _) => Some(Ok(*size)),
            (None, Some(Err(error))) => Some(Err(error.clone())),
            (None, _) => None,
        })
        .await
    }

    /// Waits until it is whole.
    pub async fn done(&self) -> Result<CachedFile, FillError<E>> {
        self.wait_for(|state| state.outcome.clone()).await
    }

    async fn wait_for<T>(&self, mut look: impl FnMut(&State<E>) -> Option<T>) -> T {
        poll_fn(|context| {
            let mut state = self.follower.shared.lock();
            match look(&state) {
                Some(found) => Poll::Ready(found),
                None => {
                    state.wakers.insert(self.follower.waker, context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Reads from `start` to before `end`, or to the end.
    pub fn read(&self, start: u64, end: Option<u64>) -> FillReader<E> {
        let follower = Follower::of(&self.follower.shared);
        FillReader { follower, offset: start, end, behind: None, failed: false }
    }
}

impl<E: Clone> FillReader<E> {
    /// The next bytes; `None` after the last of them only.
    pub async fn next_chunk(&mut self) -> Option<Result<Bytes, FillError<E>>> {
        poll_fn(|context| self.poll_chunk(context, CHUNK_BYTES)).await
    }

    /// As [`Self::next_chunk`], for whoever implements a body. A chunk has at most `most` bytes, which must be one or more
    /// and not less than the last time while this is pending.
    pub fn poll_chunk(&mut self, context: &mut Context<'_>, most: usize) -> Poll<Option<Result<Bytes, FillError<E>>>> {
        loop {
            if self.failed || self.end.is_some_and(|end| self.offset >= end) {
                return Poll::Ready(None);
            }
            if let Some(reader) = &mut self.behind {
                match reader.poll_chunk(context, most) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Some(Ok(chunk))) => {
                        self.offset += chunk.len() as u64;
                        return Poll::Ready(Some(Ok(chunk)));
                    }
                    Poll::Ready(Some(Err(error))) => return self.fail(FillError::Spool(error.kind())),
                    Poll::Ready(None) => self.behind = None,
                }
            }
            match self.next(context, most) {
                Next::Chunk(chunk) => {
                    self.offset += chunk.len() as u64;
                    return Poll::Ready(Some(Ok(chunk)));
                }
                Next::Spool(reader) => self.behind = Some(reader),
                Next::Wait => return Poll::Pending,
                Next::End => return Poll::Ready(None),
                Next::Failed(error) => return self.fail(error),
            }
        }
    }

    fn fail(&mut self, error: FillError<E>) -> Poll<Option<Result<Bytes, FillError<E>>>> {
        self.failed = true;
        Poll::Ready(Some(Err(error)))
    }

    /// Looks, and waits if there is nothing, in one critical section: no wake-up is lost.
    fn next(&self, context: &mut Context<'_>, most: usize) -> Next<E> {
        let mut state = self.follower.shared.lock();
        let visible = state.visible();
        let end = self.end.map_or(visible, |end| end.min(visible));
        if self.offset < end {
            return self.found(&state, end.min(self.offset.saturating_add(most.max(1) as u64)));
        }
        match &state.outcome {
            Some(Ok(_)) => Next::End,
            Some(Err(error)) => Next::Failed(error.clone()),
            None => {
                state.wakers.insert(self.follower.waker, context.waker().clone());
                Next::Wait
            }
        }
    }

    /// What comes at the offset, up to `end`: a chunk that others share, or a part of one piece of the file. There may be many
    /// who are behind.
    fn found(&self, state: &State<E>, end: u64) -> Next<E> {
        let after = state.chunks.partition_point(|(start, _)| *start <= self.offset);
        let shared = after.checked_sub(1).and_then(|at| state.chunks.get(at));
        if let Some((start, chunk)) = shared {
            let chunk_end = start + chunk.len() as u64;
            if self.offset < chunk_end {
                let index = |at: u64| usize::try_from(at - start).unwrap_or(chunk.len());
                return Next::Chunk(chunk.slice(index(self.offset)..index(end.min(chunk_end))));
            }
        }
        let reader = match (&state.outcome, &state.spool) {
            (Some(Ok(file)), _) => {
                let last = end.min(piece_end(self.offset)).saturating_sub(1);
                ByteRange::new(self.offset, last).map(|range| file.reader(range))
            }
            (_, Some(spool)) => spool.read_piece(self.offset, end.min(state.written), &state.sums),
            _ => None,
        };
        match reader {
            Some(reader) => Next::Spool(reader),
            None => Next::Failed(FillError::Spool(std::io::ErrorKind::NotFound)),
        }
    }
}
