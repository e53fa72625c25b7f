//! How fast an upstream is read: not faster than the operator wants, and not slower than is worth waiting for.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How much of a pause may be saved up: a burst of so many seconds at the full rate.
const BURST: Duration = Duration::from_millis(250);

/// Lets a number of bytes pass each second, over all bodies of an upstream together. It holds, and refuses nothing.
#[derive(Debug)]
pub(super) struct Throttle {
    bytes_per_second: u64,
    /// When all that passed until now will have been paid for.
    paid: Mutex<Option<Instant>>,
}

impl Throttle {
    /// 0: no limit.
    pub(super) const fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, paid: Mutex::new(None) }
    }

    /// These bytes pass; how long to wait before the next are read.
    pub(super) fn pass(&self, bytes: usize) -> Option<Duration> {
        if self.bytes_per_second == 0 {
            return None;
        }
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let now = Instant::now();
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let begins = paid.map_or(now, |paid| paid.max(now));
        *paid = Some(begins + cost);
        (begins + cost).checked_duration_since(now + BURST).filter(|pause| !pause.is_zero())
    }
}

/// Whether an upstream keeps up the fewest bytes a second that are taken. Only time in which it was waited for counts, so a
/// slow reader is not held against it.
#[derive(Debug)]
pub(super) struct Pace {
    rate_bytes: u64,
    window: Duration,
    waiting_since: Option<Instant>,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// At least `rate_bytes` a second over each `window`; 0: any pace will do.
    pub(super) const fn new(rate_bytes: u64, window: Duration) -> Self {
        Self { rate_bytes, window, waiting_since: None, waited: Duration::ZERO, bytes: 0 }
    }

    /// Nothing has come, and somebody waits.
    pub(super) fn wait(&mut self) {
        self.waiting_since.get_or_insert_with(Instant::now);
    }

    /// Bytes came; false, if they are too few for the time they took.
    pub(super) fn came(&mut self, bytes: usize) -> bool {
        self.waited += self.waiting_since.take().map(|since| since.elapsed()).unwrap_or_default();
        self.bytes += bytes as u64;
        if self.rate_bytes == 0 || self.waited < self.window {
            return true;
        }
        let enough = self.bytes as f64 >= self.rate_bytes as f64 * self.waited.as_secs_f64();
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_pass_at_the_rate_that_was_set() {
        let throttle = Throttle::new(1_000_000);
        let began = Instant::now();
        for _ in 0..100 {
            if let Some(pause) = throttle.pass(100_000) {
                tokio::time::advance(pause).await;
            }
        }
        let took = began.elapsed().as_secs_f64();
        assert!((9.5..=10.0).contains(&took), "10 MB at 1 MB a second took {took} s");
        assert_eq!(Throttle::new(0).pass(1 << 30), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_too_slow_and_a_slow_reader_is_not() {
        let mut pace = Pace::new(1024, Duration::from_secs(30));
        for second in 1..=30 {
            pace.wait();
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(pace.came(1), second < 30, "{second}");
        }
        let mut pace = Pace::new(1024, Duration::from_secs(30));
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!(pace.came(1), "nobody waited for it");
        let mut pace = Pace::new(1024, Duration::from_secs(30));
        for _ in 0..100 {
            pace.wait();
            tokio::time::advance(Duration::from_secs(1)).await;
            assert!(pace.came(2048));
        }
    }
}
