//! HTTP/2 streams whose client takes nothing of an answer. Below HTTP nothing is seen of that: the connection goes on for
//! the other streams, and as long as the client's window is closed hyper does not even ask for more of the answer.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use hyper::rt::Executor;
use pin_project_lite::pin_project;
use tokio::task::futures::TaskLocalFuture;
use tokio::time::{Instant, Sleep};

use crate::gateway::Flight;

use super::stall::Stall;

tokio::task_local! {
    static OFFER: Offer;
}

/// Since when a part of an answer has been offered to the client, and not taken: nobody asked for the next, or what was read
/// for it is still here.
#[derive(Debug, Clone, Default)]
pub(super) struct Offer(Arc<Mutex<Offered>>);

#[derive(Debug, Default)]
struct Offered {
    since: Option<Instant>,
    flight: Option<Flight>,
}

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

    /// The answer tells by itself what the client took.
    pub(super) fn follow(&self, flight: Flight) {
        self.lock().flight = Some(flight);
    }

    fn set(&self, since: Option<Instant>) {
        self.lock().since = since;
    }

    fn since(&self) -> Option<Instant> {
        let offered = self.lock();
        offered.flight.as_ref().map_or(offered.since, Flight::stalled_since)
    }

    fn lock(&self) -> MutexGuard<'_, Offered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs each stream in a task of its own, and resets it when its client takes nothing for too long.
#[derive(Debug, Clone)]
pub(super) struct StreamExecutor {
    pub(super) stall: Stall,
}

impl<F: Future + Send + 'static> Executor<F> for StreamExecutor {
    fn execute(&self, stream: F) {
        let offer = Offer::default();
        let stream = OFFER.scope(offer.clone(), stream);
        tokio::spawn(Attended { stream, offer, stall: self.stall.clone(), sleep: None });
    }
}

pin_project! {
    struct Attended<F> {
        #[pin]
        stream: TaskLocalFuture<Offer, F>,
        offer: Offer,
        stall: Stall,
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
            // The timer is only put off when it rings, so that a part that is taken costs nothing.
            if this.sleep.is_none() {
                this.sleep.set(Some(tokio::time::sleep_until(this.stall.look(since))));
            }
            let Some(mut sleep) = this.sleep.as_mut().as_pin_mut() else { break };
            ready!(sleep.as_mut().poll(context));
            if this.stall.is_over(since) {
                return Poll::Ready(());
            }
            sleep.reset(this.stall.look(since));
        }
        Poll::Pending
    }
}
