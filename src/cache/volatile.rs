//! A cache of things that can change, such as tags, that never keeps an old value.
//!
//! A reader that found the old value just before it changed could put it into the cache just after; so a reader takes a
//! [`Ticket`] before it looks, and whoever changes the value voids all tickets, before and after the commit.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::{Mutex, PoisonError};

use moka::sync::Cache;

/// How many epochs there are; keys that share one only cost each other a miss.
const SHARDS: usize = 256;

/// What an entry costs beside its key, its value and what those have on the heap: moka's nodes and queues, and what the
/// allocator adds; as measured, and a little more.
const ENTRY_OVERHEAD_BYTES: usize = 320;

/// A cache from keys to values that can change.
pub struct Volatile<K, V> {
    entries: Cache<K, V>,
    epochs: Vec<Mutex<u64>>,
    hasher: RandomState,
}

/// Leave to remember a value that is being looked up now.
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    shard: usize,
    epoch: u64,
}

impl<K, V> Volatile<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Holds at most `capacity` bytes. `heap` says how many bytes a key and its value have behind their pointers.
    pub fn new(capacity: u64, heap: fn(&K, &V) -> usize) -> Self {
        let epochs = std::iter::repeat_with(|| Mutex::new(0)).take(SHARDS).collect();
        let weigh = move |key: &K, value: &V| {
            let bytes = ENTRY_OVERHEAD_BYTES + size_of::<K>() + size_of::<V>() + heap(key, value);
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        let entries = Cache::builder().max_capacity(capacity).weigher(weigh).build();
        Self { entries, epochs, hasher: RandomState::new() }
    }

    /// The value, if it is held.
    pub fn get(&self, key: &K) -> Option<V> {
        self.entries.get(key)
    }

    /// To be taken before the value is looked up.
    pub fn ticket(&self, key: &K) -> Ticket {
        let shard = self.shard(key);
        Ticket { shard, epoch: self.with_epoch(shard, |epoch| *epoch) }
    }

    /// Remembers what was looked up, unless it may have changed since the ticket was taken.
    pub fn insert(&self, ticket: Ticket, key: K, value: V) {
        self.with_epoch(ticket.shard, |epoch| {
            if *epoch == ticket.epoch {
                self.entries.insert(key, value);
            }
        });
    }

    /// Whether the value can still be what it was when the ticket was taken.
    pub fn holds(&self, ticket: Ticket) -> bool {
        self.with_epoch(ticket.shard, |epoch| *epoch == ticket.epoch)
    }

    /// To be called before a value changes and again after.
    pub fn forget(&self, key: &K) {
        self.with_epoch(self.shard(key), |epoch| {
            *epoch += 1;
            self.entries.invalidate(key);
        });
    }

    /// Forgets all that is held, where it is not known which value changes.
    pub fn forget_all(&self) {
        for shard in 0..SHARDS {
            self.with_epoch(shard, |epoch| *epoch += 1);
        }
        self.entries.invalidate_all();
    }

    fn shard(&self, key: &K) -> usize {
        usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0)
    }

    /// The lock is held over the insert too: that is what makes check and insert one step.
    fn with_epoch<R>(&self, shard: usize, act: impl FnOnce(&mut u64) -> R) -> R {
        act(&mut self.epochs[shard].lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_changed_meanwhile_is_not_remembered() {
        let cache = Volatile::new(10_000, |_, _| 0);
        let early = cache.ticket(&"tag");
        cache.forget(&"tag");
        assert!(!cache.holds(early));
        cache.insert(early, "tag", 1);
        assert_eq!(cache.get(&"tag"), None);

        let ticket = cache.ticket(&"tag");
        cache.insert(ticket, "tag", 2);
        assert_eq!(cache.get(&"tag"), Some(2));
        cache.forget(&"tag");
        assert_eq!(cache.get(&"tag"), None);
    }

    #[test]
    fn it_never_holds_more_than_its_bytes() {
        const CAPACITY: u64 = 100_000;
        let cache = Volatile::new(CAPACITY, |name: &String, _: &u32| name.len());
        for number in 0..10_000 {
            let name = format!("{number:0>200}");
            cache.insert(cache.ticket(&name), name, number);
        }
        cache.entries.run_pending_tasks();
        let (entries, bytes) = (cache.entries.entry_count(), cache.entries.weighted_size());
        assert!(bytes <= CAPACITY && entries > 0, "{bytes}");
        assert!(entries <= CAPACITY / (ENTRY_OVERHEAD_BYTES as u64 + 200), "{entries}");
    }
}
