//! The line to the upstream: a delay for every request, and a rate that all connections share.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How far the line may run ahead after a pause. A timer wakes up to a millisecond late, and this makes up for it.
const BURST: Duration = Duration::from_millis(5);

#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// From a request to the first byte of its answer.
    pub delay: Duration,
    /// Bytes a second; `None` is as fast as it goes.
    pub rate: Option<f64>,
}

pub struct Link {
    shape: Shape,
    free: Mutex<Instant>,
}

impl Link {
    pub fn new(shape: Shape) -> Self {
        Self { shape, free: Mutex::new(Instant::now()) }
    }

    pub async fn delay(&self) {
        if !self.shape.delay.is_zero() {
            tokio::time::sleep(self.shape.delay).await;
        }
    }

    /// Waits until as many bytes may leave, behind all that asked before.
    pub async fn pass(&self, bytes: usize) {
        let Some(took) = self.shape.rate.map(|rate| Duration::from_secs_f64(bytes as f64 / rate)) else { return };
        let turn = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let turn = (*free).max(now.checked_sub(BURST).unwrap_or(now));
            *free = turn + took;
            turn + took
        };
        tokio::time::sleep_until(turn).await;
    }
}
