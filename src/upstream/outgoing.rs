//! The body of a request on its way to a peer.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::net::client::BoxError;
use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};

use super::Body;
use super::error::BodyError;
use super::silence::Silence;

/// How much of a body is kept to be sent again: what an HTTP/2 server takes before it says whether it takes the request is
/// 64 KiB where it asks for no more (RFC 9113, section 6.9.2), and the piece that goes beyond that.
const KEPT_BYTES_MAX: usize = 256 * 1024;

/// The attempt that never reads anything.
const NOBODY: usize = 0;

/// A request's body. It can be sent to another peer, or again, until more of it was read than is kept.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    shared: Arc<Mutex<Shared>>,
    idle_timeout: Duration,
}

#[derive(Debug)]
struct Shared {
    body: Body,
    /// Whether nothing more comes from `body`.
    has_ended: bool,
    /// All that was read of it, while that is so little that it can be sent again.
    kept: Option<Bytes>,
    /// Which attempt reads it. One before that may still be there, on a connection that does not know yet that it is over.
    attempt: usize,
    /// Why the caller's part failed.
    failure: Option<BodyError>,
}

impl Outgoing {
    pub(super) fn new(body: Body, idle_timeout: Duration) -> Self {
        let shared = Shared { body, has_ended: false, kept: Some(Bytes::new()), attempt: NOBODY, failure: None };
        Self { shared: Arc::new(Mutex::new(shared)), idle_timeout }
    }

    /// What one attempt sends, from the beginning; it fails where that is not there any more.
    pub(super) fn attempt(&self) -> Attempt {
        let (number, again) = lock(&self.shared).begin();
        Attempt { shared: Arc::clone(&self.shared), number, again, silence: Silence::new(self.idle_timeout) }
    }

    /// Nothing more is read by the attempts before this, which may still be at it; whether it can be sent from its beginning.
    pub(super) fn take_back(&self) -> bool {
        let mut shared = lock(&self.shared);
        shared.attempt += 1;
        shared.kept.is_some() && shared.failure.is_none()
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        let shared = lock(&self.shared);
        shared.is_end() && shared.kept.as_ref().is_some_and(|kept| kept.is_empty())
    }

    /// Why the caller's part failed, if it did.
    pub(super) fn failure(&self) -> Option<BodyError> {
        lock(&self.shared).failure.clone()
    }
}

impl Shared {
    fn is_end(&self) -> bool {
        self.has_ended || self.body.is_end_stream()
    }

    /// The next attempt, and what was read before it.
    fn begin(&mut self) -> (usize, Option<Bytes>) {
        self.attempt += 1;
        match &self.kept {
            Some(kept) => (self.attempt, Some(kept.clone()).filter(|kept| !kept.is_empty())),
            None => (NOBODY, None),
        }
    }

    /// Reads the next bytes. Trailers are dropped: the header that announces them goes no further than to us.
    fn poll_data(&mut self, attempt: usize, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        if attempt != self.attempt {
            return Poll::Ready(Some(Err("it was taken back, or its beginning is not there any more".into())));
        }
        while !self.has_ended {
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => self.has_ended = true,
                Poll::Ready(Some(Err(error))) => {
                    self.failure = Some(BodyError::Broken(error.to_string()));
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        self.keep(&data);
                        return Poll::Ready(Some(Ok(data)));
                    }
                    Err(_trailers) => continue,
                },
            }
        }
        Poll::Ready(None)
    }

    /// Whatever came whole in one piece was in memory as it is, and is kept however large. The rest is copied: a piece may be
    /// a small part of a large buffer.
    fn keep(&mut self, data: &Bytes) {
        self.kept = match self.kept.take() {
            Some(kept) if kept.is_empty() && self.body.is_end_stream() => Some(data.clone()),
            Some(kept) if kept.len() + data.len() <= KEPT_BYTES_MAX => {
                let mut kept = BytesMut::from(kept);
                kept.extend_from_slice(data);
                Some(kept.freeze())
            }
            _ => None,
        };
    }
}

/// The body that one peer reads.
#[derive(Debug)]
pub(super) struct Attempt {
    shared: Arc<Mutex<Shared>>,
    number: usize,
    /// What was read by attempts before this one, until it is sent.
    again: Option<Bytes>,
    silence: Silence,
}

impl Attempt {
    fn fail_silent(&self) -> BoxError {
        let error = BodyError::CallerSilent(self.silence.limit());
        let mut shared = lock(&self.shared);
        if shared.attempt == self.number {
            shared.failure = Some(error.clone());
        }
        error.into()
    }
}

impl http_body::Body for Attempt {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(again) = self.again.take() {
            return Poll::Ready(Some(Ok(Frame::data(again))));
        }
        let polled = lock(&self.shared).poll_data(self.number, context);
        if polled.is_ready() {
            self.silence.end();
        }
        match polled {
            Poll::Ready(Some(Ok(data))) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(BodyError::Broken(error.to_string()).into()))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => self.silence.poll(context).map(|()| Some(Err(self.fail_silent()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.again.is_none() && lock(&self.shared).is_end()
    }

    fn size_hint(&self) -> SizeHint {
        let again = self.again.as_ref().map_or(0, |again| again.len() as u64);
        let rest = lock(&self.shared).body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + again);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + again);
        }
        hint
    }
}

/// What a panic elsewhere left behind is still whole: nothing is changed before the body was polled.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, stream};
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;
    use crate::upstream::fake::{empty, full};

    const LONG: Duration = Duration::from_secs(30);

    fn streamed(pieces: &[usize]) -> Outgoing {
        let pieces = stream::iter(pieces.to_vec()).map(|length| Ok(Frame::data(Bytes::from(vec![b'a'; length]))));
        Outgoing::new(StreamBody::new(pieces).boxed_unsync(), LONG)
    }

    async fn piece(attempt: &mut Attempt) -> Option<usize> {
        attempt.frame().await.map(|frame| frame.unwrap().into_data().unwrap().len())
    }

    #[tokio::test]
    async fn what_was_read_is_sent_again_before_the_rest() {
        let outgoing = streamed(&[1, 2, 3]);
        let mut first = outgoing.attempt();
        assert_eq!((piece(&mut first).await, piece(&mut first).await), (Some(1), Some(2)));
        assert!(!outgoing.is_empty());
        let mut second = outgoing.attempt();
        assert!(first.frame().await.unwrap().is_err(), "the rest is not for two");
        assert!(outgoing.failure().is_none(), "the caller did nothing wrong");
        assert_eq!((piece(&mut second).await, piece(&mut second).await), (Some(3), Some(3)));
        assert_eq!(piece(&mut second).await, None);
        assert_eq!(outgoing.attempt().collect().await.unwrap().to_bytes(), "aaaaaa");
    }

    #[tokio::test]
    async fn what_an_attempt_went_on_to_read_while_the_next_one_was_prepared_was_missing_there() {
        let outgoing = streamed(&[10, KEPT_BYTES_MAX, 1]);
        let mut first = outgoing.attempt();
        assert_eq!(piece(&mut first).await, Some(10));
        assert!(outgoing.take_back());
        assert!(first.frame().await.unwrap().is_err(), "it was taken back");
        let all = outgoing.attempt().collect().await.unwrap().to_bytes();
        assert_eq!(all.len(), 10 + KEPT_BYTES_MAX + 1);
    }

    #[tokio::test]
    async fn what_is_too_much_to_keep_is_sent_once() {
        let outgoing = streamed(&[KEPT_BYTES_MAX, 1]);
        let mut attempt = outgoing.attempt();
        piece(&mut attempt).await;
        piece(&mut attempt).await;
        assert!(!outgoing.take_back());
        assert!(outgoing.attempt().frame().await.unwrap().is_err(), "its end is not all of it");
        let outgoing = Outgoing::new(full(vec![b'a'; 2 * KEPT_BYTES_MAX]), LONG);
        for _ in 0..2 {
            let mut attempt = outgoing.attempt();
            assert_eq!(attempt.size_hint().exact(), Some(2 * KEPT_BYTES_MAX as u64), "it was in memory already");
            assert_eq!(piece(&mut attempt).await, Some(2 * KEPT_BYTES_MAX));
            assert!(attempt.is_end_stream());
        }
    }

    #[tokio::test]
    async fn a_body_that_failed_is_not_sent_again() {
        let broken = stream::iter([Ok(Frame::data(Bytes::from_static(b"a"))), Err("reset".into())]);
        let outgoing = Outgoing::new(StreamBody::new(broken).boxed_unsync(), LONG);
        assert!(outgoing.attempt().collect().await.is_err());
        assert!(!outgoing.take_back() && outgoing.failure().is_some());
        let outgoing = Outgoing::new(empty(), LONG);
        assert!(outgoing.is_empty() && outgoing.take_back() && outgoing.attempt().is_end_stream());
    }
}
