//! How many logins are looked at at once, and who waits for that.

use std::sync::Arc;
use std::time::Duration;

use super::Settings;
use super::line::Line;

/// The lines that a login stands in.
#[derive(Debug)]
pub(super) struct Slots {
    /// For one of the hashes that are computed at once.
    pub(super) hashes: Arc<Line>,
    /// For a turn: what the hash would be if every name were a user's, so that failures say nothing of names (ADR 13).
    pub(super) turns: Arc<Line>,
    concurrency: usize,
    queue: usize,
    /// How long a login stands in a line.
    pub(super) wait_timeout: Duration,
}

impl Slots {
    /// All free. There is at least one.
    pub(super) fn new(settings: &Settings) -> Self {
        let (concurrency, queue) = (settings.bcrypt_concurrency, settings.bcrypt_queue);
        let line = || Line::new(concurrency, queue);
        Self { hashes: line(), turns: line(), concurrency, queue, wait_timeout: settings.bcrypt_wait_timeout }
    }

    /// Whether they are as `settings` wants them.
    pub(super) fn fit(&self, settings: &Settings) -> bool {
        self.concurrency == settings.bcrypt_concurrency
            && self.queue == settings.bcrypt_queue
            && self.wait_timeout == settings.bcrypt_wait_timeout
    }

    /// When it is worth coming back.
    pub(super) fn retry_after(&self) -> Duration {
        self.wait_timeout.max(Duration::from_secs(1))
    }
}
