//! Bodies of requests, read with deadlines: silence and trickles are cut off, long uploads are not.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::config::Limits;
use crate::net::client::BoxError;

/// How much of a body is read on after its request was refused.
const DISCARD_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How long that may take.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// A request's body, of any kind.
pub(super) struct Intake<B> {
    /// `None` once it was handed on.
    body: Option<B>,
    pace: Pace,
    received: Count,
}

/// How many bytes of a body came so far, for whoever wants to know while somebody else reads it.
#[derive(Debug, Clone, Default)]
pub(super) struct Count(Arc<AtomicU64>);

impl Count {
    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
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
    /// The client left, or its body is not well formed.
    Broken,
}

impl<B: Body<Data = Bytes> + Unpin> Intake<B> {
    pub(super) fn new(body: B, limits: &Limits) -> Self {
        let pace = Pace {
            idle_timeout: limits.body_idle_timeout,
            rate_bytes: limits.body_rate_bytes,
            window: limits.body_rate_window,
            waited: Duration::ZERO,
            window_bytes: 0,
        };
        Self { body: Some(body), pace, received: Count::default() }
    }

    /// Hands the rest of the body on; nothing more comes from here.
    pub(super) fn hand_on(&mut self) -> Self {
        Self { body: self.body.take(), pace: self.pace.clone(), received: self.received.clone() }
    }

    /// Reads on and throws away what comes, within limits: a client that is still sending would not see the answer.
    pub(super) async fn discard(&mut self) {
        let limit = self.received().saturating_add(DISCARD_BYTES_MAX);
        let rest = async { while self.received() < limit && matches!(self.next().await, Ok(Some(_))) {} };
        // Whoever has not ended by then may lose the answer.
        let _ = tokio::time::timeout(DISCARD_TIMEOUT, rest).await;
    }

    /// How many bytes came so far.
    pub(super) fn received(&self) -> u64 {
        self.received.bytes()
    }

    /// The same, as it will be.
    pub(super) fn count(&self) -> Count {
        self.received.clone()
    }

    /// The next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, IntakeError> {
        loop {
            let began = Instant::now();
            let Some(body) = &mut self.body else { return Ok(None) };
            let frame = tokio::time::timeout(self.pace.idle_timeout, body.frame());
            let frame = frame.await.map_err(|_| IntakeError::Idle)?;
            self.pace.waited += began.elapsed();
            let Some(frame) = frame.transpose().map_err(|_| IntakeError::Broken)? else { return Ok(None) };
            if let Ok(bytes) = frame.into_data() {
                self.received.add(bytes.len() as u64);
                self.pace.count(bytes.len() as u64)?;
                return Ok(Some(bytes));
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

    /// The whole body, if it has at most `limit` bytes.
    pub(super) async fn whole(&mut self, limit: u64) -> Result<Bytes, IntakeError> {
        let mut whole = BytesMut::new();
        while let Some(bytes) = self.next().await? {
            if self.received() > limit {
                return Err(IntakeError::TooLarge { limit });
            }
            if whole.is_empty() && self.body.as_ref().is_none_or(Body::is_end_stream) {
                return Ok(bytes);
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(whole.freeze())
    }
}

impl Intake<Incoming> {
    /// The rest of the body as it streams on, with its deadlines; what breaks it breaks the upstream's too.
    pub(super) fn into_body(self) -> UnsyncBoxBody<Bytes, BoxError> {
        let frames = futures_util::stream::unfold(Some(self), |intake| async {
            let mut intake = intake?;
            match intake.next().await {
                Ok(Some(bytes)) => Some((Ok(http_body::Frame::data(bytes)), Some(intake))),
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

    #[tokio::test]
    async fn a_body_within_the_limit_is_read_whole() {
        let mut intake = Intake::new(Full::new(Bytes::from_static(b"12345")), &limits());
        assert_eq!(intake.whole(5).await, Ok(Bytes::from_static(b"12345")));
        let mut intake = Intake::new(Full::new(Bytes::from_static(b"123456")), &limits());
        assert_eq!(intake.whole(5).await, Err(IntakeError::TooLarge { limit: 5 }));
    }

    /// A body that sends `bytes` every `pause`, for ever; the clock is tokio's, paused.
    fn trickle(bytes: &'static [u8], pause: Duration) -> impl Body<Data = Bytes> + Unpin {
        let frames = futures_util::stream::unfold((), move |()| async move {
            tokio::time::sleep(pause).await;
            let frame = http_body::Frame::data(Bytes::from_static(bytes));
            Some((Ok::<_, std::convert::Infallible>(frame), ()))
        });
        StreamBody::new(Box::pin(frames))
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_cut_off() {
        let mut intake = Intake::new(trickle(b"x", Duration::from_secs(61)), &limits());
        assert_eq!(intake.whole(1 << 20).await, Err(IntakeError::Idle));
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_cut_off_after_the_window() {
        let began = Instant::now();
        let mut intake = Intake::new(trickle(b"x", Duration::from_secs(1)), &limits());
        assert_eq!(intake.whole(1 << 20).await, Err(IntakeError::TooSlow));
        assert!(began.elapsed() <= Duration::from_secs(31));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_but_steady_client_is_not() {
        let mut intake = Intake::new(trickle(&[0; 2048], Duration::from_secs(1)), &limits());
        assert_eq!(intake.whole(1 << 20).await, Err(IntakeError::TooLarge { limit: 1 << 20 }));
    }
}
