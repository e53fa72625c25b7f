//! What is in the disk tier, in the order of its use. Pure book-keeping: no file is touched here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::oci::Digest;

/// How often a file's time is set to that of its use.
const TOUCH_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// What there is, how much, and in which order it was used.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: HashMap<Digest, Entry>,
    /// What was used longest ago comes first.
    order: BTreeMap<u64, Digest>,
    tick: u64,
    bytes: u64,
    /// Room for what is still arriving.
    reserved: u64,
    evicted: u64,
    pinned: HashSet<Digest>,
}

#[derive(Debug)]
struct Entry {
    size: u64,
    tick: u64,
    last_used: SystemTime,
    touched: SystemTime,
    /// Whether it was verified since the disk was last known to be whole, and not read wrong since.
    trusted: bool,
    /// Who reads it holds a clone.
    users: Arc<()>,
}

/// An entry that was looked up.
pub(super) struct Found {
    pub(super) size: u64,
    pub(super) trusted: bool,
    /// Whether the file's time should be set.
    pub(super) touch: bool,
    /// While it is held, the entry stays.
    pub(super) user: Arc<()>,
}

/// What is told of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cached {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last asked for, to the hour after a restart.
    pub last_used: SystemTime,
    /// Whether it stays whatever else is asked for.
    pub pinned: bool,
    /// Whether it is being read.
    pub in_use: bool,
}

impl Index {
    /// Those that stay whatever else is asked for; whether they are there or not.
    pub(super) fn pin(&mut self, digests: &[Digest], pinned: bool) {
        for digest in digests {
            match pinned {
                true => self.pinned.insert(*digest),
                false => self.pinned.remove(digest),
            };
        }
    }

    /// It is there from now on, and used just now or at `last_used`. Those found at the start come in the order of their use.
    pub(super) fn insert(&mut self, digest: Digest, size: u64, last_used: SystemTime, trusted: bool) -> Arc<()> {
        self.remove(&digest);
        self.tick += 1;
        let users = Arc::new(());
        let entry = Entry { size, tick: self.tick, last_used, touched: last_used, trusted, users: Arc::clone(&users) };
        self.order.insert(self.tick, digest);
        self.entries.insert(digest, entry);
        self.bytes += size;
        users
    }

    /// It is not there any more.
    pub(super) fn remove(&mut self, digest: &Digest) -> bool {
        let Some(entry) = self.entries.remove(digest) else { return false };
        self.order.remove(&entry.tick);
        self.bytes -= entry.size;
        true
    }

    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.entries.contains_key(digest)
    }

    /// Asking that is no use of it.
    pub(super) fn size_of(&self, digest: &Digest) -> Option<u64> {
        self.entries.get(digest).map(|entry| entry.size)
    }

    /// Looks it up, which is a use.
    pub(super) fn find(&mut self, digest: &Digest) -> Option<Found> {
        let entry = self.entries.get_mut(digest)?;
        self.tick += 1;
        self.order.remove(&entry.tick);
        self.order.insert(self.tick, *digest);
        let now = SystemTime::now();
        let touch = now.duration_since(entry.touched).is_ok_and(|age| age > TOUCH_INTERVAL);
        if touch {
            entry.touched = now;
        }
        (entry.tick, entry.last_used) = (self.tick, now);
        Some(Found { size: entry.size, trusted: entry.trusted, touch, user: Arc::clone(&entry.users) })
    }

    /// Whether all of it was verified since the disk was last known to be whole.
    pub(super) fn is_trusted(&self) -> bool {
        self.entries.values().all(|entry| entry.trusted)
    }

    /// It was verified.
    pub(super) fn trust(&mut self, digest: &Digest) {
        if let Some(entry) = self.entries.get_mut(digest) {
            entry.trusted = true;
        }
    }

    /// It was read wrong: it is verified before it is used again. Its size in bytes, if it was trusted until now.
    pub(super) fn distrust(&mut self, digest: &Digest) -> Option<u64> {
        let entry = self.entries.get_mut(digest)?;
        std::mem::replace(&mut entry.trusted, false).then_some(entry.size)
    }

    /// Takes out what was used longest ago and may go.
    pub(super) fn evict(&mut self) -> Option<Digest> {
        let digest = self.order.values().find(|digest| self.may_go(digest)).copied()?;
        self.remove(&digest);
        self.evicted += 1;
        Some(digest)
    }

    /// Takes out what was used longest ago until that comes to `bytes`; false, if all that may go is less. Then no more than
    /// `at_least` goes: what cannot fit must not empty the cache.
    pub(super) fn evict_bytes(&mut self, at_least: u64, bytes: u64) -> (Vec<Digest>, bool) {
        let is_possible = bytes == 0 || self.evictable() >= bytes;
        let (mut gone, before) = (Vec::new(), self.bytes);
        while before - self.bytes < if is_possible { bytes } else { at_least } {
            let Some(digest) = self.evict() else { break };
            gone.push(digest);
        }
        (gone, is_possible)
    }

    fn evictable(&self) -> u64 {
        self.order
            .values()
            .filter(|digest| self.may_go(digest))
            .filter_map(|digest| self.entries.get(digest))
            .map(|entry| entry.size)
            .sum()
    }

    fn may_go(&self, digest: &Digest) -> bool {
        let entry = self.entries.get(digest);
        !self.pinned.contains(digest) && entry.is_some_and(|entry| Arc::strong_count(&entry.users) == 1)
    }

    /// Sets room aside for what is still arriving; false, and no room, if more would have to go than may. What went already
    /// is gone either way.
    pub(super) fn reserve(&mut self, bytes: u64, capacity: u64) -> (Vec<Digest>, bool) {
        let mut gone = Vec::new();
        // What does not fit into an empty cache must not empty it.
        if self.reserved.saturating_add(bytes) > capacity {
            return (gone, false);
        }
        while self.bytes.saturating_add(self.reserved).saturating_add(bytes) > capacity {
            let Some(digest) = self.evict() else { return (gone, false) };
            gone.push(digest);
        }
        self.reserved += bytes;
        (gone, true)
    }

    /// Gives room back.
    pub(super) fn release(&mut self, bytes: u64) {
        self.reserved = self.reserved.saturating_sub(bytes);
    }

    /// What was set aside.
    pub(super) const fn reserved(&self) -> u64 {
        self.reserved
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// What is there; the one used longest ago comes first.
    pub(super) fn list(&self) -> Vec<Cached> {
        let told = self.order.values().filter_map(|digest| {
            let entry = self.entries.get(digest)?;
            Some(Cached {
                digest: *digest,
                size: entry.size,
                last_used: entry.last_used,
                pinned: self.pinned.contains(digest),
                in_use: Arc::strong_count(&entry.users) > 1,
            })
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(number: u8) -> Digest {
        Digest::sha256(&[number])
    }

    fn insert(index: &mut Index, number: u8, size: u64) {
        if index.reserve(size, 10).1 {
            index.release(size);
            drop(index.insert(digest(number), size, SystemTime::now(), true));
        }
    }

    #[test]
    fn what_was_used_longest_ago_gives_way() {
        let mut index = Index::default();
        (1..=3).for_each(|number| insert(&mut index, number, 3));
        assert!(index.find(&digest(1)).is_some());
        assert_eq!(index.reserve(4, 10), (vec![digest(2)], true));
        assert!(index.has(&digest(1)) && !index.has(&digest(2)) && index.has(&digest(3)));
    }

    #[test]
    fn what_is_pinned_or_read_stays() {
        let mut index = Index::default();
        (1..=3).for_each(|number| insert(&mut index, number, 3));
        index.pin(&[digest(1)], true);
        let reader = index.find(&digest(2)).map(|found| found.user);
        assert_eq!(index.reserve(4, 10), (vec![digest(3)], true));
        assert_eq!(index.reserve(1, 10), (vec![], false), "nothing else may go");
        drop(reader);
        assert_eq!(index.reserve(1, 10), (vec![digest(2)], true));
    }

    #[test]
    fn what_gives_way_is_counted_and_no_more_goes_than_has_to() {
        let mut index = Index::default();
        (1..=4).for_each(|number| insert(&mut index, number, 2));
        assert_eq!(index.evict_bytes(0, 0), (vec![], true));
        assert_eq!(index.evict_bytes(0, 3), (vec![digest(1), digest(2)], true));
        assert_eq!(index.evict_bytes(0, 5), (vec![], false), "there are 4");
        assert_eq!(index.evict_bytes(1, 5), (vec![digest(3)], false), "the disk is too full already");
    }

    #[test]
    fn what_can_never_fit_throws_nothing_out() {
        let mut index = Index::default();
        (1..=3).for_each(|number| insert(&mut index, number, 3));
        assert_eq!(index.reserve(11, 10), (vec![], false));
        assert_eq!(index.len(), 3);
    }

    proptest! {
        /// Against a list that is searched from its start.
        #[test]
        fn it_gives_way_as_a_plain_list_does(uses in prop::collection::vec((0u8..8, 1u64..5), 1..60)) {
            let (mut index, mut oracle) = (Index::default(), Vec::<(u8, u64)>::new());
            for (number, size) in uses {
                if let Some(at) = oracle.iter().position(|(other, _)| *other == number) {
                    let used = oracle.remove(at);
                    oracle.push(used);
                    prop_assert!(index.find(&digest(number)).is_some());
                } else {
                    oracle.push((number, size));
                    while oracle.iter().map(|(_, size)| size).sum::<u64>() > 10 {
                        oracle.remove(0);
                    }
                    insert(&mut index, number, size);
                }
                let expected: Vec<Digest> = oracle.iter().map(|(number, _)| digest(*number)).collect();
                let found: Vec<Digest> = index.list().iter().map(|entry| entry.digest).collect();
                prop_assert_eq!(found, expected);
                prop_assert_eq!(index.bytes(), oracle.iter().map(|(_, size)| size).sum::<u64>());
            }
        }
    }
}
