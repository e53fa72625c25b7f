//! What time it is, as something that a test can set.

use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// One moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// For how long something has lasted.
    pub(super) instant: Instant,
    /// For what is told to others.
    pub(super) wall: SystemTime,
}

/// Tells the time. Cheap to clone.
#[derive(Clone)]
pub(super) struct Clock(Arc<dyn Fn() -> Moment + Send + Sync>);

impl Clock {
    /// The system's.
    pub(super) fn system() -> Self {
        Self(Arc::new(|| Moment { instant: Instant::now(), wall: SystemTime::now() }))
    }

    /// The moment it is.
    pub(super) fn now(&self) -> Moment {
        (self.0)()
    }
}

impl Moment {
    /// Seconds since 1970, as tokens count them.
    pub(super) fn unix_seconds(&self) -> u64 {
        unix_seconds(self.wall)
    }
}

/// Seconds since 1970.
pub(super) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// A clock that stands still until it is told to go on.
#[cfg(test)]
#[derive(Debug, Clone)]
pub(super) struct StoppedClock(Arc<std::sync::Mutex<Moment>>);

#[cfg(test)]
impl StoppedClock {
    pub(super) fn new() -> Self {
        Self(Arc::new(std::sync::Mutex::new(Clock::system().now())))
    }

    pub(super) fn advance(&self, time: std::time::Duration) {
        let mut moment = self.0.lock().unwrap();
        moment.instant += time;
        moment.wall += time;
    }

    pub(super) fn clock(&self) -> Clock {
        let moment = Arc::clone(&self.0);
        Clock(Arc::new(move || *moment.lock().unwrap()))
    }
}
