//! How many bcrypt hashes are computed at once, and how many logins wait for their turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Settings;

/// The slots, and the queue before them.
#[derive(Debug)]
pub(super) struct Slots {
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
    concurrency: usize,
    queue: usize,
    wait_timeout: Duration,
}

/// A slot; dropping it frees it.
#[derive(Debug)]
pub(super) struct Slot {
    _permit: OwnedSemaphorePermit,
}

/// A slot, or a place in the queue.
#[derive(Debug)]
pub(super) enum Place {
    Slot(Slot),
    Queued(Queued),
}

/// A place in the queue; dropping it leaves the queue.
#[derive(Debug)]
pub(super) struct Queued(Arc<Slots>);

impl Slots {
    /// All free. There is at least one.
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            free: Arc::new(Semaphore::new(settings.bcrypt_concurrency.clamp(1, Semaphore::MAX_PERMITS))),
            waiting: AtomicUsize::new(0),
            concurrency: settings.bcrypt_concurrency,
            queue: settings.bcrypt_queue,
            wait_timeout: settings.bcrypt_wait_timeout,
        }
    }

    /// Whether they are as `settings` wants them.
    pub(super) fn fit(&self, settings: &Settings) -> bool {
        self.concurrency == settings.bcrypt_concurrency
            && self.queue == settings.bcrypt_queue
            && self.wait_timeout == settings.bcrypt_wait_timeout
    }

    /// A free slot, else a place in the queue, else nothing.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Place> {
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            return Some(Place::Slot(Slot { _permit: permit }));
        }
        let one_more = |waiting| (waiting < self.queue).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Place::Queued(Queued(Arc::clone(self))))
    }

    /// When it is worth coming back.
    pub(super) fn retry_after(&self) -> Duration {
        self.wait_timeout.max(Duration::from_secs(1))
    }
}

impl Place {
    /// Waits for the slot, but not for longer than is allowed.
    pub(super) async fn slot(self) -> Option<Slot> {
        match self {
            Self::Slot(slot) => Some(slot),
            Self::Queued(queued) => {
                let free = Arc::clone(&queued.0.free);
                let permit = tokio::time::timeout(queued.0.wait_timeout, free.acquire_owned()).await;
                Some(Slot { _permit: permit.ok()?.ok()? })
            }
        }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
