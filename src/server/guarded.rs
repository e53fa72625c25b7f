//! The guard of an HTTP/1 connection: hands on what can be read in one way only.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::gateway::BadHead;

use super::activity::Activity;
use super::framing::{Followed, Framing, HeadLimits, Refusal};
use super::pace::{Entrance, Pace};
use super::socket::Sleeper;

/// What is read at a time of a head that comes in pieces, and of a loud connection.
const PIECE_BYTES: usize = 4 << 10;
const LOUD_PIECE_BYTES: usize = 512;
/// What a request costs that came together with another: it is answered, and leaves a line in the log.
const PIECES_PER_REQUEST: u64 = 8;
/// Fewer bytes of a head than that are not worth a read.
const CRUMB_BYTES: usize = 16;
/// The most that is read of requests which will not be answered.
const DISCARD_BYTES_MAX: u64 = 64 << 20;
/// Chunks of that size, and requests, are no flood; smaller ones are where many come at once.
const BYTES_PER_PIECE: u64 = 256;
/// What is handed on for a head without a readable request line. It is only seen in the log.
const NO_REQUEST_LINE: &[u8] = b"- / HTTP/1.1";

/// What is wrong with the requests that are handed on. There is one for a connection; requests are asked about in order.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    asked: AtomicU64,
    /// Which head was bad, counted from 1, and why. None comes after it.
    bad: OnceLock<(u64, BadHead)>,
}

impl Verdicts {
    /// What is wrong with the next request.
    pub(super) fn next(&self) -> Option<BadHead> {
        let request = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        self.bad.get().filter(|(bad, _)| *bad <= request).map(|(_, reason)| *reason)
    }
}

pin_project! {
    /// The bytes of a connection up to the first that can be read in two ways. A bad head is replaced by its request line
    /// alone, for which [`Verdicts`] has the reason; nothing follows it. In a bad body the connection breaks.
    ///
    /// Bodies pass without a copy, and so do heads that come in one piece.
    #[derive(Debug)]
    pub(super) struct Guarded<I> {
        #[pin]
        io: I,
        framing: Framing,
        verdicts: Arc<Verdicts>,
        activity: Arc<Activity>,
        pace: Pace,
        // What was read and not handed on: so many bytes that are good, then the beginning of a head.
        held: BytesMut,
        held_good: usize,
        refused: Option<Refused>,
        leaving: Leaving,
    }
}

/// Where nothing more is handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    Head,
    Body,
}

/// How far the end of a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    /// Not near.
    No,
    /// The client left.
    ClientLeft,
    /// We said that nothing more comes; so many bytes of what still came from the client were thrown away.
    Told { discarded: u64 },
}

impl<I> Guarded<I> {
    pub(super) fn new(
        io: I,
        limits: HeadLimits,
        verdicts: Arc<Verdicts>,
        activity: Arc<Activity>,
        entrance: Entrance,
    ) -> Self {
        let (held, framing, pace) = (BytesMut::new(), Framing::new(limits), Pace::new(BYTES_PER_PIECE, entrance));
        Self { io, framing, verdicts, activity, pace, held, held_good: 0, refused: None, leaving: Leaving::No }
    }
}

impl<I: AsyncRead + Sleeper> AsyncRead for Guarded<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let this = self.as_mut().project();
            if *this.held_good > 0 {
                let length = buffer.remaining().min(*this.held_good);
                buffer.put_slice(&this.held[..length]);
                this.held.advance(length);
                *this.held_good -= length;
                if this.held.is_empty() {
                    *this.held = BytesMut::new();
                }
                return Poll::Ready(Ok(()));
            }
            match this.refused {
                // The connection ends with the answer; nothing that comes until then means anything.
                Some(Refused::Head) => return Poll::Pending,
                Some(Refused::Body) => return Poll::Ready(Err(malformed())),
                None => {}
            }
            ready!(this.pace.poll_turn(this.io, context));
            let (before, heads, chunks) = (buffer.filled().len(), this.framing.heads(), this.framing.chunks());
            // What one read of a loud connection brings is served before its next turn, so it is little.
            let came = if this.held.is_empty() && !this.pace.is_loud() {
                ready!(self.as_mut().poll_straight(context, buffer))?
            } else {
                ready!(self.as_mut().poll_piece(context))?
            };
            let this = self.as_mut().project();
            let in_head = came > 0 && this.held.len() > *this.held_good;
            this.activity.came(in_head, this.framing.heads() > heads);
            this.pace.carried(came as u64);
            // One request or chunk in a read is what clients send; who sends more of them than that is paced, and served. So is
            // who sends a head bit by bit: the longer it is not read, the more of it comes at once.
            let crumb = u64::from(in_head && (1..CRUMB_BYTES).contains(&came));
            let more_heads = (this.framing.heads() - heads).saturating_sub(1);
            let more_chunks = (this.framing.chunks() - chunks).saturating_sub(1);
            let more = PIECES_PER_REQUEST * more_heads + more_chunks + crumb;
            if more > 0 {
                let _ = this.pace.spend(more);
            }
            if came == 0 {
                *this.leaving = Leaving::ClientLeft;
                return Poll::Ready(Ok(()));
            }
            if buffer.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<I: AsyncRead> Guarded<I> {
    /// Read into the reader's own buffer, and take out of it again what is not good. How many bytes came.
    fn poll_straight(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut this = self.project();
        let before = buffer.filled().len();
        ready!(this.io.as_mut().poll_read(context, buffer))?;
        let came = &buffer.filled()[before..];
        let length = came.len();
        let Followed { good, refusal } = this.framing.follow(came);
        match refusal {
            None => this.held.extend_from_slice(&came[good..]),
            Some(refusal) => {
                *this.held_good = refuse(refusal, &came[good..], this.held, this.refused, this.verdicts, this.framing);
            }
        }
        buffer.set_filled(before + good);
        Poll::Ready(Ok(length))
    }

    /// Read a piece, and hold it with the beginning of a head that is held already. How many bytes came.
    fn poll_piece(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let this = self.project();
        let mut piece = [0; PIECE_BYTES];
        let length = if this.pace.is_loud() { LOUD_PIECE_BYTES } else { PIECE_BYTES };
        let mut piece = ReadBuf::new(&mut piece[..length]);
        ready!(this.io.poll_read(context, &mut piece))?;
        this.held.extend_from_slice(piece.filled());
        let Followed { good, refusal } = this.framing.follow(this.held);
        *this.held_good = good;
        if let Some(refusal) = refusal {
            let bad = this.held.split_off(good);
            *this.held_good += refuse(refusal, &bad, this.held, this.refused, this.verdicts, this.framing);
        }
        Poll::Ready(Ok(piece.filled().len()))
    }

    /// After we said that nothing more comes: throw away what the client still sends, until it leaves too. If we closed
    /// with bytes unread, the client would get a reset, and perhaps not the answer (RFC 9112 §9.6). Not for ever: the
    /// caller has the deadline.
    fn poll_discard(self: Pin<&mut Self>, context: &mut Context<'_>, mut discarded: u64) -> Poll<()> {
        let mut this = self.project();
        let mut nowhere = [0; PIECE_BYTES];
        loop {
            let mut piece = ReadBuf::new(&mut nowhere);
            let is_pending = match this.io.as_mut().poll_read(context, &mut piece) {
                Poll::Ready(Ok(())) if !piece.filled().is_empty() => false,
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => true,
            };
            discarded += piece.filled().len() as u64;
            *this.leaving = Leaving::Told { discarded };
            let owes_nothing = discarded == 0 && this.held.is_empty() && this.framing.is_between_requests();
            if owes_nothing || discarded > DISCARD_BYTES_MAX {
                return Poll::Ready(());
            }
            if is_pending {
                return Poll::Pending;
            }
        }
    }
}

/// Put into `held` what is handed on in place of `bad`, and note why. How many bytes that is.
fn refuse(
    refusal: Refusal,
    bad: &[u8],
    held: &mut BytesMut,
    refused: &mut Option<Refused>,
    verdicts: &Verdicts,
    framing: &Framing,
) -> usize {
    let Refusal::Head { reason, request_line } = refusal else {
        *refused = Some(Refused::Body);
        return 0;
    };
    *refused = Some(Refused::Head);
    // Only one head of a connection is ever refused.
    let _ = verdicts.bad.set((framing.heads(), reason));
    let before = held.len();
    held.extend_from_slice(request_line.and_then(|place| bad.get(place)).unwrap_or(NO_REQUEST_LINE));
    held.extend_from_slice(b"\r\n\r\n");
    held.len() - before
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the chunked body is malformed")
}

impl<I: AsyncRead + AsyncWrite> AsyncWrite for Guarded<I> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.project().io.poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().io.poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.leaving {
                Leaving::Told { discarded } => return self.poll_discard(context, discarded).map(Ok),
                Leaving::ClientLeft => return self.project().io.poll_shutdown(context),
                Leaving::No => {
                    let this = self.as_mut().project();
                    ready!(this.io.poll_shutdown(context))?;
                    this.activity.leave();
                    *this.leaving = Leaving::Told { discarded: 0 };
                }
            }
        }
    }
}
