//! The body of an answer on its way to the caller.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;

use crate::net::client::BoxError;

use super::Body;
use super::error::BodyError;
use super::silence::Silence;

/// What a peer sends: silence longer than the limit is an error, and the slot is taken until the end.
#[derive(Debug)]
pub(super) struct Answer {
    incoming: Incoming,
    silence: Silence,
    _slot: OwnedSemaphorePermit,
}

impl Answer {
    pub(super) fn new(incoming: Incoming, idle_timeout: Duration, slot: OwnedSemaphorePermit) -> Self {
        Self { incoming, silence: Silence::new(idle_timeout), _slot: slot }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.incoming).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                self.silence.end();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                let error = BodyError::Broken(error.to_string());
                tracing::warn!(%error, "an upstream's answer is not whole");
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                let limit = self.silence.limit();
                self.silence.poll(context).map(|()| {
                    let error = BodyError::UpstreamSilent(limit);
                    tracing::warn!(%error, "an upstream's answer is not whole");
                    Some(Err(error.into()))
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
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
