//! How many connections there may be, in all and from one client.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The connections that are open now.
#[derive(Debug, Default)]
pub(super) struct Budget {
    open: AtomicUsize,
    clients: Mutex<HashMap<IpAddr, usize>>,
}

/// The right to one connection; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Slot {
    budget: Arc<Budget>,
    client: Option<IpAddr>,
}

impl Budget {
    /// A slot, unless `most` connections are open already.
    pub(super) fn take(self: &Arc<Self>, most: usize) -> Option<Slot> {
        let more = |open: usize| (open < most).then_some(open + 1);
        self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Slot { budget: Arc::clone(self), client: None })
    }

    /// How many connections are open.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    fn clients(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Say whose connection it is. False: `most` connections are open from there already.
    pub(super) fn claim(&mut self, client: IpAddr, most: usize) -> bool {
        let client = key(client);
        let mut clients = self.budget.clients();
        let open = clients.entry(client).or_insert(0);
        if *open >= most {
            if *open == 0 {
                clients.remove(&client);
            }
            return false;
        }
        *open += 1;
        drop(clients);
        self.client = Some(client);
        true
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.budget.open.fetch_sub(1, Ordering::AcqRel);
        let Some(client) = self.client else { return };
        let mut clients = self.budget.clients();
        if let Some(open) = clients.get_mut(&client) {
            *open -= 1;
            if *open == 0 {
                clients.remove(&client);
            }
        }
    }
}

/// Whoever has one IPv6 address has its whole /64 to choose from.
fn key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_comes_back_when_it_is_dropped() {
        let budget = Arc::new(Budget::default());
        let first = budget.take(2).unwrap();
        let _second = budget.take(2).unwrap();
        assert!(budget.take(2).is_none());
        drop(first);
        assert!(budget.take(2).is_some());
    }

    #[test]
    fn each_client_has_its_own_share() {
        let budget = Arc::new(Budget::default());
        let slot = |client: &str, most| {
            let mut slot = budget.take(100).unwrap();
            slot.claim(client.parse().unwrap(), most).then_some(slot)
        };
        let first = slot("192.0.2.1", 1).unwrap();
        assert!(slot("192.0.2.1", 1).is_none());
        assert!(slot("::ffff:192.0.2.1", 1).is_none(), "the same address in other clothes");
        let _other = slot("192.0.2.2", 1).unwrap();
        let _v6 = slot("2001:db8::1", 1).unwrap();
        assert!(slot("2001:db8::ffff:2", 1).is_none(), "the same /64");
        assert!(slot("2001:db8:0:1::1", 1).is_some());
        drop(first);
        assert!(slot("192.0.2.1", 1).is_some());
    }

    #[test]
    fn clients_that_left_are_forgotten() {
        let budget = Arc::new(Budget::default());
        let mut slot = budget.take(1).unwrap();
        assert!(slot.claim("192.0.2.1".parse().unwrap(), 1));
        drop(slot);
        assert!(!budget.take(1).unwrap().claim("192.0.2.2".parse().unwrap(), 0));
        assert!(budget.clients().is_empty());
        assert_eq!(budget.open(), 0);
    }
}
