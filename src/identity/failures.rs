//! How often an address failed to log in, as a user or at all.

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

/// Counts failures by address and user, so that one bad runner does not lock out its neighbours; or by address alone.
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

    /// How many are counted.
    pub(super) fn count(&self, pair: &Fingerprint, now: Instant) -> u32 {
        let Some(window) = self.windows.get(pair) else { return 0 };
        let window = window.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(window.began) >= WINDOW { 0 } else { window.count }
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
    key.fingerprint(&[b"pair", &octets(client), user.as_bytes()])
}

/// What an address is counted under.
pub(super) fn address(key: &ProcessKey, client: IpAddr) -> Fingerprint {
    key.fingerprint(&[b"address", &octets(client)])
}

/// What two addresses have in common that are taken for one.
fn octets(client: IpAddr) -> Vec<u8> {
    match client.to_canonical() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => network(address).to_vec(),
    }
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
        assert_eq!((failures.count(&pair, later), failures.count(&pair, later + WINDOW)), (3, 0));
        assert_eq!(failures.count(&[2; 32], later), 0);
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
    fn an_address_is_one_or_a_network_of_version_6() {
        let key = ProcessKey::random().unwrap();
        let pair = |client: &str, user| super::pair(&key, client.parse().unwrap(), user);
        assert_ne!(pair("192.0.2.1", "a"), pair("192.0.2.2", "a"));
        assert_ne!(pair("192.0.2.1", "a"), pair("192.0.2.1", "b"));
        assert_eq!(pair("192.0.2.1", "a"), pair("::ffff:192.0.2.1", "a"));
        assert_eq!(pair("2001:db8::1", "a"), pair("2001:db8::ffff:1", "a"));
        assert_ne!(pair("2001:db8::1", "a"), pair("2001:db8:0:1::1", "a"));
        let address = |client: &str| super::address(&key, client.parse().unwrap());
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:1"));
        assert_ne!(address("192.0.2.1"), address("192.0.2.2"));
    }
}
