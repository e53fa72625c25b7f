//! A clock for silence: it runs only while somebody waits.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// Runs out when nothing came for its limit. Time in which nobody asked does not count, so a slow reader is not taken
/// for a silent writer.
#[derive(Debug)]
pub(super) struct Silence {
    limit: Duration,
    running: bool,
    sleep: Pin<Box<Sleep>>,
}

impl Silence {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, running: false, sleep: Box::pin(sleep(limit)) }
    }

    /// How long silence may be.
    pub(super) const fn limit(&self) -> Duration {
        self.limit
    }

    /// Something came.
    pub(super) const fn end(&mut self) {
        self.running = false;
    }

    /// Nothing has come: ready when that has lasted too long.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.running {
            self.running = true;
            self.sleep.as_mut().reset(Instant::now() + self.limit);
        }
        self.sleep.as_mut().poll(context)
    }
}
