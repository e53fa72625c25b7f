//! A connection together with the clock: closed when it waits too long, and wound up when the server stops.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::server::graceful::GracefulConnection;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use super::ConnectionEvent;
use super::activity::{Activity, Patience, Waiting};

pin_project! {
    /// Drives `connection` until it ends, by itself or because it waited too long. `stop` winds it up: what is running
    /// or has begun to come is finished, nothing new is begun.
    pub(super) struct Watched<C, S> {
        #[pin]
        connection: C,
        #[pin]
        stop: S,
        stopped: bool,
        #[pin]
        sleep: Sleep,
        activity: Arc<Activity>,
        patience: Patience,
        winding_up: Option<WindingUp>,
    }
}

/// No request is accepted any more.
#[derive(Debug, Clone, Copy)]
struct WindingUp {
    since: Instant,
    reason: ConnectionEvent,
}

impl<C: GracefulConnection, S: Future> Watched<C, S> {
    pub(super) fn new(connection: C, stop: S, activity: Arc<Activity>, patience: Patience) -> Self {
        let sleep = tokio::time::sleep(patience.header_read);
        Self { connection, stop, stopped: false, sleep, activity, patience, winding_up: None }
    }

    fn wind_up(self: Pin<&mut Self>, reason: ConnectionEvent) {
        let this = self.project();
        *this.winding_up = Some(WindingUp { since: Instant::now(), reason });
        this.connection.graceful_shutdown();
    }

    /// Whether it is time to wind up. Not in the middle of a head: hyper knows nothing of that yet and would close.
    fn is_over(&self) -> bool {
        self.stopped && self.winding_up.is_none() && !self.activity.is_in_head()
    }

    /// Until when the connection may stay as it is, and why not longer.
    fn due(&self) -> Option<(ConnectionEvent, Instant)> {
        let waiting = self.activity.waiting(&self.patience);
        if let Some((Waiting::End, due)) = waiting {
            return Some((self.winding_up.map_or(ConnectionEvent::Closed, |winding_up| winding_up.reason), due));
        }
        if let (Some(WindingUp { since, reason }), Some(quiet)) = (self.winding_up, self.activity.quiet_since()) {
            // The rest is up to the client, which may be gone.
            return Some((reason, since.max(quiet) + self.patience.header_read));
        }
        let (waiting, due) = waiting?;
        Some(match waiting {
            Waiting::Client => (ConnectionEvent::Stalled, due),
            Waiting::Head => (ConnectionEvent::HeaderTimedOut, due),
            Waiting::Request => (ConnectionEvent::Idle, due),
            Waiting::End => (ConnectionEvent::Closed, due),
        })
    }
}

impl<C: GracefulConnection, S: Future> Future for Watched<C, S> {
    type Output = Result<ConnectionEvent, C::Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.stopped && self.as_mut().project().stop.poll(context).is_ready() {
            *self.as_mut().project().stopped = true;
        }
        loop {
            if self.is_over() {
                self.as_mut().wind_up(ConnectionEvent::Closed);
            }
            if let Poll::Ready(outcome) = self.as_mut().project().connection.poll(context) {
                return Poll::Ready(match (outcome, self.winding_up) {
                    (Ok(()), None) => Ok(ConnectionEvent::Closed),
                    (Ok(()), Some(WindingUp { reason, .. })) => Ok(reason),
                    // Told that we are leaving, the client left first.
                    (Err(_), Some(WindingUp { reason, .. })) if self.activity.quiet_since().is_some() => Ok(reason),
                    (Err(error), _) => Err(error),
                });
            }
            if self.is_over() {
                continue;
            }
            let due = self.due();
            // Of one who takes nothing: others may begin to wait for what it holds.
            let look = due.map(|(event, due)| match event {
                ConnectionEvent::Stalled => due.min(self.patience.stall.soon()),
                _ => due,
            });
            let mut sleep = self.as_mut().project().sleep;
            if let Some(look) = look.filter(|look| *look < sleep.deadline()) {
                sleep.as_mut().reset(look);
            }
            if sleep.poll(context).is_pending() {
                return Poll::Pending;
            }
            // The timer is only brought forward above, so it may ring early; while requests run it rings idly.
            let now = Instant::now();
            match due {
                Some((ConnectionEvent::Idle, due)) if due <= now && self.winding_up.is_none() => {
                    self.as_mut().wind_up(ConnectionEvent::Idle);
                }
                Some((event, due)) if due <= now => return Poll::Ready(Ok(event)),
                Some((_, due)) => self.as_mut().project().sleep.reset(look.unwrap_or(due)),
                None => {
                    let Patience { header_read, keep_alive, stall } = &self.patience;
                    let pause = (*header_read).min(*keep_alive).min(stall.timeout);
                    self.as_mut().project().sleep.reset(now + pause);
                }
            }
        }
    }
}
