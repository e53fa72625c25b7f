//! How many connections there may be, in all and from one client, and who goes first when there are too many.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::net::client_network;

use super::activity::Activity;

/// Room is made when all but one in so many of the places are taken: cutting a connection takes a moment.
const LAST_PLACES: usize = 16;
/// How many connections are cut for one that comes while room is made: more than one, so that the room grows.
const CUT_FOR_ONE: usize = 2;

/// The connections that are open now.
#[derive(Debug, Default)]
pub(super) struct Budget(Mutex<Places>);

#[derive(Debug, Default)]
struct Places {
    /// By number, so by age.
    taken: BTreeMap<u64, Place>,
    next: u64,
    clients: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Place {
    client: IpAddr,
    /// `None` before it speaks HTTP.
    activity: Option<Arc<Activity>>,
    cut: Arc<Notify>,
}

/// The right to one connection; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Slot {
    budget: Arc<Budget>,
    number: u64,
    client: Option<IpAddr>,
    cut: Arc<Notify>,
}

/// How little a connection is missed; the first are cut first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Quiet {
    /// No request has come yet.
    Silent,
    /// No request is running.
    Idle,
}

impl Budget {
    /// A slot for a connection from `peer`, unless `most` are open already. Where few are left, those that say nothing are
    /// told to go: of the client that has most of them, the oldest first.
    pub(super) fn take(self: &Arc<Self>, most: usize, peer: IpAddr) -> Option<Slot> {
        let mut places = self.places();
        let open = places.taken.len();
        if open >= most - most / LAST_PLACES {
            places.cut_quiet(CUT_FOR_ONE);
        }
        if open >= most {
            return None;
        }
        let (number, cut) = (places.next, Arc::new(Notify::new()));
        places.next += 1;
        places.taken.insert(number, Place { client: client_network(peer), activity: None, cut: Arc::clone(&cut) });
        drop(places);
        Some(Slot { budget: Arc::clone(self), number, client: None, cut })
    }

    /// Tells some of those that say nothing to go.
    pub(super) fn make_room(&self) {
        self.places().cut_quiet(CUT_FOR_ONE);
    }

    /// How many connections are open.
    pub(super) fn open(&self) -> usize {
        self.places().taken.len()
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn cut_quiet(&mut self, count: usize) {
        let mut quiet: HashMap<(Quiet, IpAddr), Vec<&Place>> = HashMap::new();
        for place in self.taken.values() {
            if let Some(how) = place.quiet() {
                quiet.entry((how, place.client)).or_default().push(place);
            }
        }
        let most = quiet.into_iter().min_by_key(|((how, _), places)| (*how, usize::MAX - places.len()));
        let places = most.map(|(_, places)| places).unwrap_or_default();
        places.iter().take(count).for_each(|place| place.cut.notify_one());
    }
}

impl Place {
    fn quiet(&self) -> Option<Quiet> {
        match &self.activity {
            None => Some(Quiet::Silent),
            Some(activity) if activity.quiet_since().is_none() => None,
            Some(activity) if activity.had_a_request() => Some(Quiet::Idle),
            Some(_) => Some(Quiet::Silent),
        }
    }
}

impl Slot {
    /// Say whose connection it is. False: `most` connections are open from there already.
    pub(super) fn claim(&mut self, client: IpAddr, most: usize) -> bool {
        let client = client_network(client);
        let mut places = self.budget.places();
        let open = places.clients.entry(client).or_insert(0);
        if *open >= most {
            if *open == 0 {
                places.clients.remove(&client);
            }
            return false;
        }
        *open += 1;
        if let Some(place) = places.taken.get_mut(&self.number) {
            place.client = client;
        }
        drop(places);
        self.client = Some(client);
        true
    }

    /// It speaks HTTP from now on; `activity` tells what it is doing.
    pub(super) fn speaks(&self, activity: &Arc<Activity>) {
        if let Some(place) = self.budget.places().taken.get_mut(&self.number) {
            place.activity = Some(Arc::clone(activity));
        }
    }

    /// Completes when the connection has to make room for others.
    pub(super) fn cut(&self) -> impl Future<Output = ()> + use<> {
        let cut = Arc::clone(&self.cut);
        async move { cut.notified().await }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut places = self.budget.places();
        places.taken.remove(&self.number);
        let Some(client) = self.client else { return };
        if let Some(open) = places.clients.get_mut(&client) {
            *open -= 1;
            if *open == 0 {
                places.clients.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    const ANY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn the_oldest_silent_connection_of_who_has_most_makes_room() {
        let budget = Arc::new(Budget::default());
        let open = |last: u8| {
            let client = [192, 0, 2, last].into();
            let mut slot = budget.take(32, client).unwrap();
            assert!(slot.claim(client, 32));
            slot
        };
        let is_cut = |slot: &Slot| slot.cut().now_or_never().is_some();
        let lone = open(1);
        // Busy, and so left alone, though its client has most.
        let busy: Vec<Slot> = (0..20).map(|_| open(2)).collect();
        let running: Vec<_> = busy
            .iter()
            .map(|slot| {
                let activity = Arc::new(Activity::start());
                slot.speaks(&activity);
                activity.begin(http::Version::HTTP_11)
            })
            .collect();
        let silent: Vec<Slot> = (0..9).map(|_| open(3)).collect();
        assert_eq!(budget.open(), 30);
        let _new = open(4);
        assert!(is_cut(&silent[0]) && is_cut(&silent[1]) && !is_cut(&silent[2]));
        assert!(!is_cut(&lone) && !busy.iter().any(is_cut));
        // Who had a request and is idle goes after those who never had one, and before the busy ones.
        drop((silent, lone, running));
        let _more: Vec<Slot> = (0..10).map(|_| open(5)).collect();
        assert!(!busy.iter().any(is_cut));
    }

    #[test]
    fn a_slot_comes_back_when_it_is_dropped() {
        let budget = Arc::new(Budget::default());
        let first = budget.take(2, ANY).unwrap();
        let _second = budget.take(2, ANY).unwrap();
        assert!(budget.take(2, ANY).is_none());
        drop(first);
        assert!(budget.take(2, ANY).is_some());
    }

    #[test]
    fn each_client_has_its_own_share() {
        let budget = Arc::new(Budget::default());
        let slot = |client: &str, most| {
            let mut slot = budget.take(100, ANY).unwrap();
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
        let mut slot = budget.take(1, ANY).unwrap();
        assert!(slot.claim("192.0.2.1".parse().unwrap(), 1));
        drop(slot);
        assert!(!budget.take(1, ANY).unwrap().claim("192.0.2.2".parse().unwrap(), 0));
        assert!(budget.places().clients.is_empty());
        assert_eq!(budget.open(), 0);
    }
}
