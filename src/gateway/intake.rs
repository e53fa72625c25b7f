//! Bodies of requests, read with deadlines: silence and trickles are cut off, long uploads are not.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::config::Limits;
use crate::net::client::BoxError;

use super::byte_budget::{ByteBudget, Pressure, Taker, Ticket};

/// How much of a body is read on by HTTP/2 after its request was refused.
const DISCARD_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How much of a body may be left when its request is answered, so that the connection of HTTP/1 is kept.
const REST_BYTES_MAX: u64 = 256 << 10;

/// How long reading either may take.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// How much room is asked for at once, where it is to be had.
const ROOM_STEP_BYTES: usize = 4 << 10;

/// How long a body waits for room in memory, and how long one that holds some of it may stand still while others wait.
const CROWDED_TIMEOUT: Duration = Duration::from_secs(5);

/// A request's body, of any kind.
pub(super) struct Intake<B> {
    /// `None` once it was handed on.
    body: Option<B>,
    pace: Pace,
    received: Count,
    /// Whether it was read from; who expects `100 Continue` has been told to go on by that.
    begun: bool,
    room: Room,
}

/// What a body that is read whole may hold in memory.
struct Room {
    taker: Taker,
    pressure: Pressure,
    held: Option<Ticket>,
    /// How much of that is in use.
    used: usize,
}

/// How many bytes of a body came so far, for whoever wants to know while somebody else reads it.
#[derive(Debug, Clone, Default)]
pub(super) struct Count(Arc<Counted>);

#[derive(Debug, Default)]
struct Counted {
    bytes: AtomicU64,
    whole: AtomicBool,
    trouble: OnceLock<IntakeError>,
}

impl Count {
    pub(super) fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: u64) {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether the body came to its end.
    fn is_whole(&self) -> bool {
        self.0.whole.load(Ordering::Relaxed)
    }
}

/// How slow a body may be.
#[derive(Clone)]
struct Pace {
    idle_timeout: Duration,
    rate_bytes: u64,
    window: Duration,
    /// How long was waited for the client in this window; what our own disk takes is not its fault.
    waited: Duration,
    window_bytes: u64,
}

/// Why a body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IntakeError {
    /// Nothing came for as long as is waited.
    Idle,
    /// Less came than a living client sends.
    TooSlow,
    /// More came than is taken.
    TooLarge {
        /// How much is taken, in bytes.
        limit: u64,
    },
    /// Too much of others is in memory already.
    Crowded,
    /// The client left, or its body is not well formed.
    Broken,
}

impl<B: Body<Data = Bytes> + Unpin> Intake<B> {
    /// The body of a request of `client`; what of it is held in memory comes out of `budget`.
    pub(super) fn new(body: B, limits: &Limits, budget: &ByteBudget, client: IpAddr) -> Self {
        let pace = Pace {
            idle_timeout: limits.body_idle_timeout,
            rate_bytes: limits.body_rate_bytes,
            window: limits.body_rate_window,
            waited: Duration::ZERO,
            window_bytes: 0,
        };
        let room = Room { taker: budget.taker(client), pressure: budget.pressure(), held: None, used: 0 };
        let received = Count::default();
        received.0.whole.store(body.is_end_stream(), Ordering::Relaxed);
        Self { body: Some(body), pace, received, begun: false, room }
    }

    /// Hands the rest of the body on; nothing more comes from here.
    pub(super) fn hand_on(&mut self) -> Self {
        let (taker, pressure) = (self.room.taker.again(), self.room.pressure.clone());
        let room = Room { taker, pressure, held: None, used: 0 };
        let (body, pace, received) = (self.body.take(), self.pace.clone(), self.received.clone());
        Self { body, pace, received, begun: self.begun, room }
    }

    /// Reads on and throws away what comes, within limits: a client that is still sending would not see the answer.
    pub(super) async fn discard(&mut self) {
        let limit = self.received().saturating_add(DISCARD_BYTES_MAX);
        let rest = async { while self.received() < limit && matches!(self.next().await, Ok(Some(_))) {} };
        // Whoever has not ended by then may lose the answer.
        let _ = tokio::time::timeout(DISCARD_TIMEOUT, rest).await;
    }

    /// Reads what is left of the body when the request is answered, if that is little. False: there is more, or the client,
    /// which `expects` to be told to go on, was not; the connection then has to end with the answer (RFC 9112 §9.3, RFC 9110
    /// §10.1.1).
    pub(super) async fn finish(&mut self, expects: bool) -> bool {
        if self.received.is_whole() {
            return true;
        }
        // What was handed on and not read to its end cannot be read by anybody any more.
        let Some(body) = &self.body else { return false };
        if (expects && !self.begun) || body.size_hint().lower() > REST_BYTES_MAX {
            return false;
        }
        let limit = self.received().saturating_add(REST_BYTES_MAX);
        let rest = async {
            loop {
                match self.next().await {
                    Ok(Some(_)) if self.received() <= limit => {}
                    ended => return ended == Ok(None),
                }
            }
        };
        tokio::time::timeout(DISCARD_TIMEOUT, rest).await.unwrap_or(false)
    }

    /// How many bytes came so far.
    pub(super) fn received(&self) -> u64 {
        self.received.bytes()
    }

    /// Counts what comes, also after this was asked.
    pub(super) fn count(&self) -> Count {
        self.received.clone()
    }

    /// Why the body could not be read, whoever read it.
    pub(super) fn trouble(&self) -> Option<IntakeError> {
        self.received.0.trouble.get().copied()
    }

    /// The next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, IntakeError> {
        self.read_next().await.inspect_err(|error| {
            let _ = self.received.0.trouble.set(*error);
        })
    }

    async fn read_next(&mut self) -> Result<Option<Bytes>, IntakeError> {
        loop {
            let began = Instant::now();
            let frame = self.frame().await?;
            // Of a body whose length is known nobody need ask for what comes after the last byte.
            if frame.is_none() || self.body.as_ref().is_some_and(Body::is_end_stream) {
                self.received.0.whole.store(true, Ordering::Relaxed);
            }
            let Some(frame) = frame else { return Ok(None) };
            self.pace.waited += began.elapsed();
            if let Ok(bytes) = frame.into_data() {
                self.received.add(bytes.len() as u64);
                self.pace.count(bytes.len() as u64)?;
                return Ok(Some(bytes));
            }
        }
    }

    async fn frame(&mut self) -> Result<Option<Frame<Bytes>>, IntakeError> {
        let due = Instant::now() + self.pace.idle_timeout;
        self.begun = true;
        loop {
            let Some(body) = &mut self.body else { return Ok(None) };
            let look = due.min(Instant::now() + CROWDED_TIMEOUT);
            match tokio::time::timeout_at(look, body.frame()).await {
                Ok(frame) => return frame.transpose().map_err(|_| IntakeError::Broken),
                Err(_) if look == due => return Err(IntakeError::Idle),
                Err(_) if self.room.is_wanted() => return Err(IntakeError::Crowded),
                Err(_) => {}
            }
        }
    }

    /// Reads a body that nobody asked for to its end, and throws it away, if it has at most `limit` bytes. What is done on a
    /// request must not be done on one that turns out to be broken.
    pub(super) async fn skip(&mut self, limit: u64) -> Result<(), IntakeError> {
        while self.next().await?.is_some() {
            if self.received() > limit {
                return Err(IntakeError::TooLarge { limit });
            }
        }
        Ok(())
    }

    /// The whole body, if it has at most `limit` bytes. It takes room in memory until the request is answered.
    pub(super) async fn whole(&mut self, limit: u64) -> Result<Bytes, IntakeError> {
        let announced = self.body.as_ref().and_then(|body| body.size_hint().exact()).filter(|length| *length <= limit);
        let mut whole = BytesMut::new();
        while let Some(bytes) = self.next().await? {
            if self.received() > limit {
                return Err(IntakeError::TooLarge { limit });
            }
            self.room.take(bytes.len()).await?;
            if whole.is_empty() {
                if self.body.as_ref().is_none_or(Body::is_end_stream) {
                    return Ok(bytes);
                }
                // Memory that nothing is written to costs nothing.
                whole.reserve(announced.and_then(|length| usize::try_from(length).ok()).unwrap_or_default());
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(whole.freeze())
    }
}

impl Room {
    /// However small the pieces are, room is asked for in larger ones.
    async fn take(&mut self, bytes: usize) -> Result<(), IntakeError> {
        let held = self.held.as_ref().map_or(0, Ticket::bytes);
        let missing = (self.used + bytes).saturating_sub(held);
        if missing > 0 {
            let taken = poll_fn(|context| self.taker.poll_take(context, missing.max(ROOM_STEP_BYTES), missing));
            let more = tokio::time::timeout(CROWDED_TIMEOUT, taken).await.map_err(|_| IntakeError::Crowded)?;
            match &mut self.held {
                Some(held) => held.join(more),
                None => self.held = Some(more),
            }
        }
        self.used += bytes;
        Ok(())
    }

    /// Whether others wait for what is held here.
    fn is_wanted(&self) -> bool {
        self.held.is_some() && self.pressure.is_on()
    }
}

impl Intake<Incoming> {
    /// The rest of the body as it streams on, with its deadlines; what breaks it breaks the upstream's too.
    pub(super) fn into_body(self) -> UnsyncBoxBody<Bytes, BoxError> {
        let frames = futures_util::stream::unfold(Some(self), |intake| async {
            let mut intake = intake?;
            match intake.next().await {
                Ok(Some(bytes)) => Some((Ok(Frame::data(bytes)), Some(intake))),
                Ok(None) => None,
                Err(error) => Some((Err(broken(error)), None)),
            }
        });
        BodyExt::boxed_unsync(StreamBody::new(frames))
    }
}

fn broken(error: IntakeError) -> BoxError {
    io::Error::other(format!("the client's body ended early: {error:?}")).into()
}

impl Pace {
    fn count(&mut self, bytes: u64) -> Result<(), IntakeError> {
        self.window_bytes += bytes;
        if self.waited < self.window {
            return Ok(());
        }
        if self.window_bytes < self.rate_bytes.saturating_mul(self.waited.as_secs()) {
            return Err(IntakeError::TooSlow);
        }
        (self.waited, self.window_bytes) = (Duration::ZERO, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;

    fn limits() -> Limits {
        let second = Duration::from_secs(1);
        Limits {
            body_idle_timeout: second * 60,
            body_rate_bytes: 1024,
            body_rate_window: second * 30,
            ..Limits::default()
        }
    }

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn room() -> ByteBudget {
        ByteBudget::new(16 << 20)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_finds_no_room_is_told_so() {
        let room = ByteBudget::new(8);
        let mut first = Intake::new(Full::new(Bytes::from_static(b"1234")), &limits(), &room, HERE);
        assert_eq!(first.whole(5).await, Ok(Bytes::from_static(b"1234")));
        let mut second = Intake::new(Full::new(Bytes::from_static(b"12345")), &limits(), &room, HERE);
        assert_eq!(second.whole(5).await, Err(IntakeError::Crowded));
        drop(first);
        let mut third = Intake::new(Full::new(Bytes::from_static(b"12345")), &limits(), &room, HERE);
        assert_eq!(third.whole(5).await, Ok(Bytes::from_static(b"12345")));
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_room_and_sends_nothing_goes_first_when_others_wait() {
        let room = ByteBudget::new(8);
        let frames =
            futures_util::stream::iter([Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from_static(b"1234")))]);
        let silent = StreamBody::new(futures_util::StreamExt::chain(frames, futures_util::stream::pending()));
        let mut silent = Intake::new(silent, &limits(), &room, HERE);
        let mut waiting = Intake::new(Full::new(Bytes::from_static(b"12345")), &limits(), &room, HERE);
        let began = Instant::now();
        let (silent, _) = tokio::join!(silent.whole(100), waiting.whole(5));
        assert_eq!(silent, Err(IntakeError::Crowded));
        assert!(began.elapsed() <= 2 * CROWDED_TIMEOUT, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_body_within_the_limit_is_read_whole() {
        let mut intake = Intake::new(Full::new(Bytes::from_static(b"12345")), &limits(), &room(), HERE);
        assert_eq!(intake.whole(5).await, Ok(Bytes::from_static(b"12345")));
        let mut intake = Intake::new(Full::new(Bytes::from_static(b"123456")), &limits(), &room(), HERE);
        assert_eq!(intake.whole(5).await, Err(IntakeError::TooLarge { limit: 5 }));
    }

    /// A body that sends `bytes` every `pause`, for ever; the clock is tokio's, paused.
    fn trickle(bytes: &'static [u8], pause: Duration) -> impl Body<Data = Bytes> + Unpin {
        let frames = futures_util::stream::unfold((), move |()| async move {
            tokio::time::sleep(pause).await;
            let frame = Frame::data(Bytes::from_static(bytes));
            Some((Ok::<_, std::convert::Infallible>(frame), ()))
        });
        StreamBody::new(Box::pin(frames))
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_cut_off() {
        let mut intake = Intake::new(trickle(b"x", Duration::from_secs(61)), &limits(), &room(), HERE);
        assert_eq!(intake.whole(1 << 20).await, Err(IntakeError::Idle));
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_cut_off_after_the_window() {
        let began = Instant::now();
        let mut intake = Intake::new(trickle(b"x", Duration::from_secs(1)), &limits(), &room(), HERE);
        assert_eq!(intake.whole(1 << 20).await, Err(IntakeError::TooSlow));
        assert!(began.elapsed() <= Duration::from_secs(31));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_but_steady_client_is_not() {
        let mut intake = Intake::new(trickle(&[0; 2048], Duration::from_secs(1)), &limits(), &room(), HERE);
        assert_eq!(intake.whole(1 << 20).await, Err(IntakeError::TooLarge { limit: 1 << 20 }));
    }
}
