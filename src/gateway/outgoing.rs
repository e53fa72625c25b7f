//! Bodies on their way out, of which each chunk is memory of its own: nothing is read before the client has taken what was read
//! before it, nor before there is room for it in the budget of all bodies.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::time::Instant;

use super::body::{Body, CHUNK_BYTES};
use super::byte_budget::{ByteBudget, Taker, Ticket};

/// The first chunk of a body, before it is known how fast its client takes them, and the smallest where the budget is short.
const FIRST_CHUNK_BYTES: usize = 4 << 10;
/// Who takes longer than this for a chunk gets smaller ones.
const SLOW: Duration = Duration::from_secs(1);

/// A body whose chunks grow as long as its client takes them.
pub(super) struct Outgoing {
    taker: Taker,
    /// For the chunk that is being read.
    ticket: Option<Ticket>,
    flight: Flight,
    /// How long the next chunk may be.
    size: usize,
    /// What came beyond that.
    rest: Bytes,
}

/// What was read for an answer and was not sent yet. Cheap to clone; the server has it from the answer's extensions, to see
/// whether the client takes anything.
#[derive(Debug, Clone, Default)]
pub struct Flight(Arc<Mutex<Sending>>);

#[derive(Debug, Default)]
struct Sending {
    bytes: usize,
    /// When a chunk was handed over last, or sent whole.
    changed: Option<Instant>,
    waker: Option<Waker>,
}

/// There may be another chunk on its way.
struct Room {
    /// How long it may be.
    size: usize,
    /// Whether the client has something to take already.
    is_ahead: bool,
}

impl Outgoing {
    pub(super) fn new(budget: &ByteBudget, client: IpAddr) -> Self {
        Self {
            taker: budget.taker(client),
            ticket: None,
            flight: Flight::default(),
            size: FIRST_CHUNK_BYTES,
            rest: Bytes::new(),
        }
    }

    pub(super) fn flight(&self) -> Flight {
        self.flight.clone()
    }

    /// Whether something of the body is here still.
    pub(super) fn has_rest(&self) -> bool {
        !self.rest.is_empty()
    }

    /// The next chunk of `body`.
    pub(super) fn poll_frame(
        &mut self,
        body: &mut Body,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let mut ticket = match self.ticket.take() {
            Some(ticket) => ticket,
            None => {
                let room = ready!(self.flight.poll_room(self.size, context));
                self.size = room.size;
                match room.is_ahead {
                    false => ready!(self.taker.poll_take(context, self.size, FIRST_CHUNK_BYTES)),
                    // Who reads ahead keeps nobody waiting: it is woken when the client took what it has.
                    true => match self.taker.try_take(self.size, FIRST_CHUNK_BYTES) {
                        Some(ticket) => ticket,
                        None => return Poll::Pending,
                    },
                }
            }
        };
        let mut chunk = if self.rest.is_empty() {
            match body.poll_frame(context, ticket.bytes()) {
                Poll::Pending => {
                    self.ticket = Some(ticket);
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(chunk) => chunk,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Poll::Ready(end) => return Poll::Ready(end),
            }
        } else {
            std::mem::take(&mut self.rest)
        };
        self.rest = chunk.split_off(chunk.len().min(ticket.bytes()));
        ticket.shrink(chunk.len());
        Poll::Ready(Some(Ok(Frame::data(self.flight.begin(chunk, ticket)))))
    }
}

impl Flight {
    /// Since when the client takes nothing of what was read for it; `None` where nothing waits for it.
    pub fn stalled_since(&self) -> Option<Instant> {
        self.with(|sending| sending.changed.filter(|_| sending.bytes > 0))
    }

    /// Waits until no more than a chunk of `size` is on its way. How long the next one may be: twice as long where the client
    /// has all of it, shorter where it took its time.
    fn poll_room(&self, size: usize, context: &mut Context<'_>) -> Poll<Room> {
        self.with(|sending| {
            let is_ahead = sending.bytes > 0;
            sending.waker = is_ahead.then(|| context.waker().clone());
            if sending.bytes > size {
                return Poll::Pending;
            }
            let size = match sending.changed {
                None => size,
                Some(changed) if is_ahead && changed.elapsed() > SLOW => FIRST_CHUNK_BYTES.max(size / 4),
                Some(_) if is_ahead => size,
                Some(_) => CHUNK_BYTES.min(size * 2),
            };
            Poll::Ready(Room { size, is_ahead })
        })
    }

    /// `chunk` is on its way until its last part was sent.
    fn begin(&self, chunk: Bytes, ticket: Ticket) -> Bytes {
        if chunk.is_empty() {
            return chunk;
        }
        self.with(|sending| {
            // The clock of one who stalls already goes on.
            if sending.bytes == 0 {
                sending.changed = Some(Instant::now());
            }
            sending.bytes += chunk.len();
        });
        Bytes::from_owner(Sent { chunk, flight: self.clone(), _ticket: ticket })
    }

    fn end(&self, bytes: usize) {
        let waker = self.with(|sending| {
            sending.bytes -= bytes;
            sending.changed = Some(Instant::now());
            sending.waker.take()
        });
        waker.into_iter().for_each(Waker::wake);
    }

    fn with<T>(&self, act: impl FnOnce(&mut Sending) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A chunk on its way.
struct Sent {
    chunk: Bytes,
    flight: Flight,
    _ticket: Ticket,
}

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        &self.chunk
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.flight.end(self.chunk.len());
    }
}
