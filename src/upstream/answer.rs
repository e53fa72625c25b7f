//! The body of an answer on its way to the caller.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};

use crate::net::client::BoxError;
use crate::telemetry::UpstreamCount;

use super::Body;
use super::error::BodyError;
use super::silence::Silence;
use super::throttle::{Pace, Throttle};

/// What a peer sends: silence longer than the limit is an error, and so is a trickle; the slot is taken until the end.
pub(super) struct Answer {
    incoming: Incoming,
    silence: Silence,
    pace: Pace,
    brake: Brake,
    counted: UpstreamCount,
    _slot: OwnedSemaphorePermit,
}

/// What limits and counts the answers of an upstream.
pub(super) struct Limits {
    pub(super) idle_timeout: Duration,
    pub(super) pace: Pace,
    pub(super) throttle: Arc<Throttle>,
    pub(super) counted: UpstreamCount,
}

/// Holds what came until the throttle lets it pass.
struct Brake {
    throttle: Arc<Throttle>,
    held: Option<(Frame<Bytes>, Pin<Box<Sleep>>)>,
}

impl Brake {
    /// What is held, once it may pass.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        if let Some((_, pause)) = &mut self.held {
            ready!(pause.as_mut().poll(context));
        }
        Poll::Ready(self.held.take().map(|(frame, _)| frame))
    }

    /// Lets a frame pass, or holds it.
    fn pass(&mut self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        match self.throttle.pass(bytes) {
            None => Some(frame),
            Some(pause) => {
                self.held = Some((frame, Box::pin(sleep(pause))));
                None
            }
        }
    }
}

impl Answer {
    pub(super) fn new(incoming: Incoming, limits: Limits, slot: OwnedSemaphorePermit) -> Self {
        let Limits { idle_timeout, pace, throttle, counted } = limits;
        let brake = Brake { throttle, held: None };
        Self { incoming, silence: Silence::new(idle_timeout), pace, brake, counted, _slot: slot }
    }

    fn came(&mut self, frame: Frame<Bytes>) -> Result<Option<Frame<Bytes>>, BodyError> {
        self.silence.end();
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        self.counted.received(bytes);
        if self.pace.came(bytes) { Ok(self.brake.pass(frame)) } else { Err(BodyError::TooSlow) }
    }
}

/// An error of the body, told to the log too.
fn broken(error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
    tracing::warn!(%error, "an upstream's answer is not whole");
    Poll::Ready(Some(Err(error.into())))
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            if let Some(frame) = ready!(self.brake.poll(context)) {
                return Poll::Ready(Some(Ok(frame)));
            }
            match Pin::new(&mut self.incoming).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => match self.came(frame) {
                    Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                    Ok(None) => {}
                    Err(error) => return broken(error),
                },
                Poll::Ready(Some(Err(error))) => return broken(BodyError::Broken(error.to_string())),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {
                    self.pace.wait();
                    let limit = self.silence.limit();
                    ready!(self.silence.poll(context));
                    return broken(BodyError::UpstreamSilent(limit));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.brake.held.is_none() && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.incoming.size_hint();
        let held = self.brake.held.as_ref().and_then(|(frame, _)| frame.data_ref()).map_or(0, Bytes::len);
        if let Some(exact) = hint.exact() {
            hint.set_exact(exact + held as u64);
        }
        hint
    }
}

/// A body that is over after a known number of bytes, whatever was announced. One that ends earlier is an error.
#[derive(Debug)]
pub struct Exactly {
    body: Body,
    missing: u64,
}

impl Exactly {
    /// Takes the first `length` bytes of `body`.
    pub const fn new(body: Body, length: u64) -> Self {
        Self { body, missing: length }
    }
}

impl http_body::Body for Exactly {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        while self.missing > 0 {
            let frame = match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(None) => {
                    let missing = self.missing;
                    return Poll::Ready(Some(Err(BodyError::Short { missing }.into())));
                }
                other => return other,
            };
            let Ok(mut data) = frame.into_data() else { continue };
            let wanted = usize::try_from(self.missing).unwrap_or(usize::MAX);
            data.truncate(wanted);
            self.missing -= data.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.missing == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.missing)
    }
}
