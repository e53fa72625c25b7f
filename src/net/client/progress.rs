//! Whether a server takes what is sent to it, or only we are waiting for more to send.

use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::BoxError;

/// How far a request has come.
#[derive(Debug)]
pub(super) struct Progress(Mutex<State>);

#[derive(Debug, Clone, Copy)]
enum State {
    /// Nothing of the body was asked for yet: connecting, or the body is empty.
    Starting { due: Instant },
    /// The connection wants more than the body's source has.
    Source,
    /// The server has something to take or to answer since then.
    Server { since: Instant },
    /// The body's source failed.
    Failed,
}

impl Progress {
    pub(super) fn start(patience: Duration) -> Self {
        Self(Mutex::new(State::Starting { due: Instant::now() + patience }))
    }

    /// When to look again.
    pub(super) fn due(&self, timeout: Duration) -> Instant {
        match self.state() {
            State::Starting { due } => due,
            State::Server { since } => since + timeout,
            State::Source | State::Failed => Instant::now() + timeout,
        }
    }

    /// Whether the server has kept us waiting too long.
    pub(super) fn is_overdue(&self, timeout: Duration) -> bool {
        let now = Instant::now();
        match self.state() {
            State::Starting { due } => due <= now,
            State::Server { since } => since + timeout <= now,
            State::Source | State::Failed => false,
        }
    }

    /// Whether sending ended because the body failed.
    pub(super) fn body_failed(&self) -> bool {
        matches!(self.state(), State::Failed)
    }

    fn state(&self) -> State {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn set(&self, state: State) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = state;
    }
}

pin_project! {
    /// A request body that tells how it gets on.
    pub(super) struct Watched<B> {
        #[pin]
        body: B,
        progress: std::sync::Arc<Progress>,
    }
}

impl<B> Watched<B> {
    pub(super) fn new(body: B, progress: std::sync::Arc<Progress>) -> Self {
        Self { body, progress }
    }
}

impl<B: Body<Data = Bytes, Error = BoxError>> Body for Watched<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        this.progress.set(State::Source);
        let frame = ready!(this.body.poll_frame(context));
        this.progress.set(match frame {
            Some(Err(_)) => State::Failed,
            _ => State::Server { since: Instant::now() },
        });
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
