//! How often an address failed to log in as a user.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::process_key::{Fingerprint, ProcessKey};

/// How long failures are counted together, from the first one on.
const WINDOW: Duration = Duration::from_secs(60);

/// How many pairs of address and user are counted; the ones touched longest ago are forgotten first.
const PAIRS_MAX: u64 = 65_536;

/// Counts failures by address and user, so that one bad runner does not lock out its neighbours.
///
/// An attempt is charged before its outcome is known and given back when it was not a failure: attempts that run at the
/// same time cannot slip through together. A success gives back its own charge and no other.
#[derive(Debug)]
pub(super) struct Failures {
    windows: Cache<Fingerprint, Arc<Mutex<Window>>>,
}

/// The failures of one pair since `began`.
#[derive(Debug)]
struct Window {
    began: Instant,
    count: u32,
}

/// There were too many; how long until the next attempt is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany {
    pub(super) retry_after: Duration,
}

impl Failures {
    /// With nothing counted.
    pub(super) fn new() -> Self {
        let windows = Cache::builder()
            .max_capacity(PAIRS_MAX)
            .time_to_live(WINDOW)
            // By default moka would refuse new pairs where old ones are asked for more often.
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self { windows }
    }

    /// Counts an attempt, if fewer than `max` failed.
    pub(super) fn charge(&self, pair: &Fingerprint, max: u32, now: Instant) -> Result<(), TooMany> {
        let window = self.windows.get_with(*pair, || Arc::new(Mutex::new(Window { began: now, count: 0 })));
        let mut window = window.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(window.began) >= WINDOW {
            *window = Window { began: now, count: 0 };
        }
        window.check(max, now)?;
        window.count += 1;
        Ok(())
    }

    /// Whether an attempt would be counted, without counting it.
    pub(super) fn check(&self, pair: &Fingerprint, max: u32, now: Instant) -> Result<(), TooMany> {
        let Some(window) = self.windows.get(pair) else { return Ok(()) };
        window.lock().unwrap_or_else(PoisonError::into_inner).check(max, now)
    }

    /// Takes back a charge that turned out to be no failure.
    pub(super) fn refund(&self, pair: &Fingerprint) {
        if let Some(window) = self.windows.get(pair) {
            let mut window = window.lock().unwrap_or_else(PoisonError::into_inner);
            window.count = window.count.saturating_sub(1);
        }
    }
}

impl Window {
    fn check(&self, max: u32, now: Instant) -> Result<(), TooMany> {
        match WINDOW.saturating_sub(now.duration_since(self.began)) {
            retry_after if self.count >= max && !retry_after.is_zero() => Err(TooMany { retry_after }),
            _ => Ok(()),
        }
    }
}

/// What an address and a user are counted under.
pub(super) fn pair(key: &ProcessKey, client: IpAddr, user: &str) -> Fingerprint {
    let address = match client.to_canonical() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => network(address).to_vec(),
    };
    key.fingerprint(&[b"failures", &address, user.as_bytes()])
}

/// The /64 of an IPv6 address: whoever has one address of it has them all.
fn network(address: Ipv6Addr) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = address.octets();
    [a, b, c, d, e, f, g, h]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_for_a_minute_from_the_first_failure() {
        let (failures, pair, start) = (Failures::new(), [0; 32], Instant::now());
        for second in 0..3 {
            assert_eq!(failures.charge(&pair, 3, start + Duration::from_secs(second)), Ok(()));
        }
        let refused = Err(TooMany { retry_after: Duration::from_secs(50) });
        assert_eq!(failures.charge(&pair, 3, start + Duration::from_secs(10)), refused);
        assert_eq!(failures.check(&pair, 3, start + Duration::from_secs(10)), refused);
        assert_eq!(failures.charge(&[1; 32], 3, start), Ok(()));
        let later = start + WINDOW;
        assert_eq!(failures.check(&pair, 3, later), Ok(()));
        for _ in 0..3 {
            assert_eq!(failures.charge(&pair, 3, later), Ok(()));
        }
        assert_eq!(failures.charge(&pair, 3, later), Err(TooMany { retry_after: WINDOW }));
    }

    #[test]
    fn a_refund_makes_room_for_one() {
        let (failures, pair, now) = (Failures::new(), [0; 32], Instant::now());
        failures.refund(&pair);
        assert_eq!(failures.charge(&pair, 1, now), Ok(()));
        failures.refund(&pair);
        assert_eq!(failures.charge(&pair, 1, now), Ok(()));
        assert!(failures.charge(&pair, 1, now).is_err());
    }

    #[test]
    fn a_pair_is_an_address_or_a_network_of_version_6_and_a_user() {
        let key = ProcessKey::random().unwrap();
        let pair = |client: &str, user| super::pair(&key, client.parse().unwrap(), user);
        assert_ne!(pair("192.0.2.1", "a"), pair("192.0.2.2", "a"));
        assert_ne!(pair("192.0.2.1", "a"), pair("192.0.2.1", "b"));
        assert_eq!(pair("192.0.2.1", "a"), pair("::ffff:192.0.2.1", "a"));
        assert_eq!(pair("2001:db8::1", "a"), pair("2001:db8::ffff:1", "a"));
        assert_ne!(pair("2001:db8::1", "a"), pair("2001:db8:0:1::1", "a"));
    }
}
