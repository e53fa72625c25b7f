//! HTTP/2 streams whose client takes nothing of an answer. Below HTTP nothing is seen of that: the connection goes on for
//! the other streams, and as long as the client's window is closed hyper does not even ask for more of the answer.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::Executor;
use pin_project_lite::pin_project;
use tokio::task::futures::TaskLocalFuture;
use tokio::time::{Instant, Sleep};

tokio::task_local! {
    static OFFER: Offer;
}

/// Since when a part of an answer has been offered to the client, and not taken: nobody asked for the next.
#[derive(Debug, Clone, Default)]
pub(super) struct Offer(Arc<Mutex<Option<Instant>>>);

impl Offer {
    /// Of the stream whose task this is; `None` outside of HTTP/2.
    pub(super) fn of_this_stream() -> Option<Self> {
        OFFER.try_with(Self::clone).ok()
    }

    /// The client has all that was offered.
    pub(super) fn taken(&self) {
        self.set(None);
    }

    /// There is a part for the client to take, and more after it.
    pub(super) fn made(&self) {
        self.set(Some(Instant::now()));
    }

    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn since(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs each stream in a task of its own, and resets it when its client takes nothing for `patience`.
#[derive(Debug, Clone)]
pub(super) struct StreamExecutor {
    pub(super) patience: Duration,
}

impl<F: Future + Send + 'static> Executor<F> for StreamExecutor {
    fn execute(&self, stream: F) {
        let offer = Offer::default();
        let stream = OFFER.scope(offer.clone(), stream);
        tokio::spawn(Attended { stream, offer, patience: self.patience, sleep: None });
    }
}

pin_project! {
    struct Attended<F> {
        #[pin]
        stream: TaskLocalFuture<Offer, F>,
        offer: Offer,
        patience: Duration,
        #[pin]
        sleep: Option<Sleep>,
    }
}

impl<F: Future> Future for Attended<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if this.stream.poll(context).is_ready() {
            return Poll::Ready(());
        }
        while let Some(since) = this.offer.since() {
            let due = since + *this.patience;
            // The timer is only put off when it rings, so that a part that is taken costs nothing.
            if this.sleep.is_none() {
                this.sleep.set(Some(tokio::time::sleep_until(due)));
            }
            let Some(mut sleep) = this.sleep.as_mut().as_pin_mut() else { break };
            ready!(sleep.as_mut().poll(context));
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            sleep.reset(due);
        }
        Poll::Pending
    }
}
