//! How long a client may take nothing of what is sent to it.

use std::time::Duration;

use tokio::time::Instant;

use crate::gateway::Pressure;

/// How long it may where others wait for the memory that its answer holds.
const STALL_TIMEOUT_UNDER_PRESSURE: Duration = Duration::from_secs(5);

/// The patience with those who take nothing.
#[derive(Debug, Clone)]
pub(super) struct Stall {
    /// `limits.body_idle_timeout`.
    pub(super) timeout: Duration,
    pub(super) pressure: Pressure,
}

impl Stall {
    /// Whether `since` is too long ago.
    pub(super) fn is_over(&self, since: Instant) -> bool {
        since + self.patience() <= Instant::now()
    }

    /// When to look again at one who takes nothing `since` then.
    pub(super) fn look(&self, since: Instant) -> Instant {
        (since + self.timeout).min(self.soon())
    }

    /// By then others may have begun to wait.
    pub(super) fn soon(&self) -> Instant {
        Instant::now() + STALL_TIMEOUT_UNDER_PRESSURE
    }

    /// How long a client may take nothing now.
    pub(super) fn patience(&self) -> Duration {
        match self.pressure.is_on() {
            true => self.timeout.min(STALL_TIMEOUT_UNDER_PRESSURE),
            false => self.timeout,
        }
    }
}
