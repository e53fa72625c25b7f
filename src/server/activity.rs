//! What a connection is doing, seen from both ends: the bytes below HTTP and the requests above it.
//!
//! HTTP's own timer cannot be used for this: hyper starts its header timeout when the previous answer ends, so it
//! would close idle connections as well, and HTTP/2 has none.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Version;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::gateway::Flight;

use super::socket::Sleeper;
use super::stall::Stall;
use super::streams::Offer;

/// The time of something that has not happened.
const NEVER: u64 = u64::MAX;

/// What a connection is doing. Times are milliseconds since it was opened.
#[derive(Debug)]
pub(super) struct Activity {
    opened: Instant,
    /// Requests whose answer has not been handed over whole.
    running: AtomicUsize,
    /// Whether there ever was a request.
    began: AtomicBool,
    /// Since when there is no request and nothing to write.
    quiet_since: AtomicU64,
    /// Since when a request's head is due of which not all has come.
    head_since: AtomicU64,
    /// Since when the client takes nothing of what is being written.
    stalled_since: AtomicU64,
    /// Since when the client was told that nothing more comes.
    left_since: AtomicU64,
    /// Whether a part of a request's head is held back until the rest of it comes.
    in_head: AtomicBool,
}

/// How long a connection may stay in each state.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    pub(super) header_read: Duration,
    pub(super) keep_alive: Duration,
    pub(super) stall: Stall,
}

/// What a connection is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    /// For the rest of a request's head.
    Head,
    /// For a request.
    Request,
    /// For the client to take what is written.
    Client,
    /// For the client to leave.
    End,
}

impl Activity {
    /// Of a connection on which the first head is due from now on.
    pub(super) fn start() -> Self {
        Self {
            opened: Instant::now(),
            running: AtomicUsize::new(0),
            began: AtomicBool::new(false),
            quiet_since: AtomicU64::new(0),
            head_since: AtomicU64::new(0),
            stalled_since: AtomicU64::new(NEVER),
            left_since: AtomicU64::new(NEVER),
            in_head: AtomicBool::new(false),
        }
    }

    /// A request begins; it ends when what this returns is dropped.
    pub(super) fn begin(self: &Arc<Self>, version: Version) -> Running {
        self.running.fetch_add(1, Ordering::AcqRel);
        self.began.store(true, Ordering::Relaxed);
        // Of HTTP/2 only the first head has a deadline; on HTTP/1 half of the next one may be here already.
        if version == Version::HTTP_2 {
            self.head_since.store(NEVER, Ordering::Release);
        }
        Running(Arc::clone(self))
    }

    /// Since when there is no request, if there is none.
    pub(super) fn quiet_since(&self) -> Option<Instant> {
        self.is_quiet().then(|| self.opened + Duration::from_millis(self.quiet_since.load(Ordering::Acquire)))
    }

    /// Whether there ever was a request.
    pub(super) fn had_a_request(&self) -> bool {
        self.began.load(Ordering::Relaxed)
    }

    /// What the connection waits for, and until when it may; `None`: for nothing that the server limits.
    pub(super) fn waiting(&self, patience: &Patience) -> Option<(Waiting, Instant)> {
        let since = |time: &AtomicU64| {
            let since = time.load(Ordering::Acquire);
            (since != NEVER).then(|| self.opened + Duration::from_millis(since))
        };
        if let Some(since) = since(&self.left_since) {
            return Some((Waiting::End, since + patience.header_read));
        }
        if let Some(since) = since(&self.stalled_since) {
            return Some((Waiting::Client, since + patience.stall.patience()));
        }
        let quiet_since = self.quiet_since()?;
        Some(match since(&self.head_since) {
            // What came while another request was running is waited for from its end on.
            Some(since) => (Waiting::Head, since.max(quiet_since) + patience.header_read),
            None => (Waiting::Request, quiet_since + patience.keep_alive),
        })
    }

    /// The client was told that nothing more comes.
    pub(super) fn leave(&self) {
        self.left_since.store(self.now(), Ordering::Release);
    }

    /// Bytes came by HTTP/1. `in_head`: they end in a part of a head, which is held back until the rest of it comes; `new`:
    /// it is the first part.
    pub(super) fn came(&self, in_head: bool, new: bool) {
        self.in_head.store(in_head, Ordering::Release);
        if !in_head {
            self.head_since.store(NEVER, Ordering::Release);
        } else if new || self.head_since.load(Ordering::Acquire) == NEVER {
            self.head_since.store(self.now(), Ordering::Release);
        }
    }

    /// Whether a part of a head is held back until the rest of it comes.
    pub(super) fn is_in_head(&self) -> bool {
        self.in_head.load(Ordering::Acquire)
    }

    fn is_quiet(&self) -> bool {
        self.running.load(Ordering::Acquire) == 0
    }

    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(NEVER)
    }

    /// Note whether writing goes on.
    fn wrote<T>(&self, outcome: &Poll<io::Result<T>>) {
        let stalled = self.stalled_since.load(Ordering::Acquire) != NEVER;
        match outcome {
            Poll::Pending if !stalled => self.stalled_since.store(self.now(), Ordering::Release),
            Poll::Ready(_) if stalled => {
                self.stalled_since.store(NEVER, Ordering::Release);
                self.quiet_since.store(self.now(), Ordering::Release);
            }
            _ => {}
        }
    }
}

/// A request that is running, until this is dropped.
#[derive(Debug)]
pub(super) struct Running(Arc<Activity>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.quiet_since.store(self.0.now(), Ordering::Release);
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

pin_project! {
    /// An answer's body, which keeps its request running until it is dropped.
    #[derive(Debug)]
    pub(super) struct Answer<B> {
        #[pin]
        body: B,
        running: Running,
        offer: Option<Offer>,
    }
}

impl<B> Answer<B> {
    pub(super) fn new(body: B, running: Running, flight: Option<Flight>) -> Self {
        let offer = Offer::of_this_stream();
        if let (Some(offer), Some(flight)) = (&offer, flight) {
            offer.follow(flight);
        }
        // The client may have no room even for the first part.
        offer.iter().for_each(Offer::made);
        Self { body, running, offer }
    }
}

impl<B: Body> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let Some(offer) = this.offer else { return this.body.poll_frame(context) };
        offer.taken();
        let frame = ready!(this.body.poll_frame(context));
        if frame.is_some() {
            offer.made();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

pin_project! {
    /// The bytes of a connection, with an eye on whether the client takes what is written.
    #[derive(Debug)]
    pub(super) struct Monitored<I> {
        #[pin]
        io: I,
        activity: Arc<Activity>,
    }
}

impl<I> Monitored<I> {
    pub(super) fn new(io: I, activity: Arc<Activity>) -> Self {
        Self { io, activity }
    }
}

impl<I: AsyncRead> AsyncRead for Monitored<I> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_read(context, buffer)
    }
}

impl<I: Sleeper> Sleeper for Monitored<I> {
    fn sleep(self: Pin<&mut Self>) {
        self.project().io.sleep();
    }
}

impl<I: AsyncWrite> AsyncWrite for Monitored<I> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.project();
        let outcome = this.io.poll_write(context, bytes);
        this.activity.wrote(&outcome);
        outcome
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let outcome = this.io.poll_write_vectored(context, slices);
        this.activity.wrote(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        let outcome = this.io.poll_flush(context);
        this.activity.wrote(&outcome);
        outcome
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        let outcome = this.io.poll_shutdown(context);
        this.activity.wrote(&outcome);
        outcome
    }
}
