//! How long bcrypt takes here, by cost.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is measured before anything was: the first cost that takes longer than the machine's noise.
const CALIBRATION_COST: u32 = 7;

/// How often; the quickest counts, for nothing else ran beside it.
const CALIBRATION_ROUNDS: usize = 3;

/// What one hash of [`CALIBRATION_COST`] is taken to last where nothing was measured.
const UNMEASURED: Duration = Duration::from_millis(8);

/// By which part of the difference a longer time raises what is known.
const RISE: u32 = 2;

/// By which part of the difference a shorter time lowers it. It falls slowly, so that nearly every hash is done by then.
const FALL: u32 = 32;

/// The times that hashes took, as they happened: for each cost a time in which nearly every hash of it is done.
#[derive(Debug, Default)]
pub(super) struct HashTimes(Mutex<BTreeMap<u32, Duration>>);

impl HashTimes {
    /// Measures the machine. Blocks the thread for some tens of milliseconds.
    pub(super) fn calibrate(&self) {
        let hash = || {
            let began = Instant::now();
            // An error takes no time and says nothing about the machine: the next hash will.
            bcrypt::hash("calibration", CALIBRATION_COST).map(|_| began.elapsed()).ok()
        };
        if let Some(quickest) = (0..CALIBRATION_ROUNDS).filter_map(|_| hash()).min() {
            self.times().insert(CALIBRATION_COST, quickest);
        }
    }

    /// A hash of this cost took so long.
    pub(super) fn took(&self, cost: u32, time: Duration) {
        let mut times = self.times();
        let known = times.entry(cost).or_insert(time);
        *known = match time.checked_sub(*known) {
            Some(longer) => *known + longer / RISE,
            None => *known - (*known - time) / FALL,
        };
    }

    /// How long one of this cost takes: as measured, or else by the nearest cost that was, since each step up doubles it.
    pub(super) fn of(&self, cost: u32) -> Duration {
        let times = self.times();
        let nearest = times.iter().min_by_key(|(measured, _)| measured.abs_diff(cost));
        let (measured, time) = nearest.map_or((CALIBRATION_COST, UNMEASURED), |(measured, time)| (*measured, *time));
        match cost.checked_sub(measured) {
            Some(up) => time.saturating_mul(1_u32.checked_shl(up).unwrap_or(u32::MAX)),
            None => time / 1_u32.checked_shl(measured - cost).unwrap_or(u32::MAX),
        }
    }

    fn times(&self) -> MutexGuard<'_, BTreeMap<u32, Duration>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn what_was_not_measured_follows_from_the_nearest_cost() {
        let times = HashTimes::default();
        assert_eq!(times.of(CALIBRATION_COST + 3), UNMEASURED * 8);
        times.took(5, 2 * MILLISECOND);
        assert_eq!((times.of(5), times.of(10), times.of(4)), (2 * MILLISECOND, 64 * MILLISECOND, MILLISECOND));
        times.took(10, 60 * MILLISECOND);
        assert_eq!((times.of(5), times.of(10), times.of(11)), (2 * MILLISECOND, 60 * MILLISECOND, 120 * MILLISECOND));
    }

    #[test]
    fn it_rises_quickly_and_falls_slowly() {
        let times = HashTimes::default();
        times.took(10, 64 * MILLISECOND);
        times.took(10, 128 * MILLISECOND);
        assert_eq!(times.of(10), 96 * MILLISECOND);
        times.took(10, 64 * MILLISECOND);
        assert_eq!(times.of(10), 95 * MILLISECOND);
        (0..200).for_each(|_| times.took(10, 64 * MILLISECOND));
        assert!(times.of(10) < 65 * MILLISECOND);
    }

    #[test]
    fn the_machine_is_measured() {
        let times = HashTimes::default();
        times.calibrate();
        assert_ne!(times.of(CALIBRATION_COST), UNMEASURED);
    }
}
