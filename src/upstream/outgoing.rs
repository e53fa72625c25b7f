//! The body of a request on its way to a peer.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::net::client::BoxError;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::Body;
use super::error::BodyError;
use super::silence::Silence;

/// A request's body, which stays with us until a peer begins to read it: up to then another peer can have it.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    shared: Arc<Mutex<Shared>>,
    idle_timeout: Duration,
}

#[derive(Debug)]
struct Shared {
    /// The body, until a peer begins to read it.
    body: Option<Body>,
    /// Why the caller's part failed.
    failure: Option<BodyError>,
}

impl Outgoing {
    pub(super) fn new(body: Body, idle_timeout: Duration) -> Self {
        Self { shared: Arc::new(Mutex::new(Shared { body: Some(body), failure: None })), idle_timeout }
    }

    /// What one attempt sends. At most one of them is ever read.
    pub(super) fn attempt(&self) -> Attempt {
        Attempt { shared: Arc::clone(&self.shared), taken: None, silence: Silence::new(self.idle_timeout) }
    }

    /// Whether it can be sent to another peer.
    pub(super) fn is_untouched(&self) -> bool {
        lock(&self.shared).body.is_some()
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.shared).body.as_ref().is_some_and(|body| body.is_end_stream())
    }

    /// Why the caller's part failed, if it did.
    pub(super) fn failure(&self) -> Option<BodyError> {
        lock(&self.shared).failure.clone()
    }
}

/// The body that one peer reads.
#[derive(Debug)]
pub(super) struct Attempt {
    shared: Arc<Mutex<Shared>>,
    taken: Option<Body>,
    silence: Silence,
}

impl Attempt {
    fn fail(&self, error: BodyError) -> BoxError {
        lock(&self.shared).failure = Some(error.clone());
        error.into()
    }

    /// Reads the next bytes. Trailers are dropped: the header that announces them goes no further than to us.
    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        if self.taken.is_none() {
            self.taken = lock(&self.shared).body.take();
        }
        let Some(body) = &mut self.taken else { return Poll::Ready(None) };
        loop {
            match Pin::new(&mut *body).poll_frame(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => return Poll::Ready(Some(Ok(data))),
                    Err(_trailers) => continue,
                },
            }
        }
    }
}

impl http_body::Body for Attempt {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = self.poll_data(context);
        if polled.is_ready() {
            self.silence.end();
        }
        match polled {
            Poll::Ready(Some(Ok(data))) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(self.fail(BodyError::Broken(error.to_string()))))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                let limit = self.silence.limit();
                self.silence.poll(context).map(|()| Some(Err(self.fail(BodyError::CallerSilent(limit)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.taken {
            Some(body) => body.is_end_stream(),
            None => lock(&self.shared).body.as_ref().is_none_or(|body| body.is_end_stream()),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.taken {
            Some(body) => body.size_hint(),
            None => lock(&self.shared).body.as_ref().map_or_else(SizeHint::default, |body| body.size_hint()),
        }
    }
}

/// What a panic elsewhere left behind is still whole: no critical section can panic half-way.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
