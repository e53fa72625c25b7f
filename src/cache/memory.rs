//! The memory tier: immutable bytes by digest, bounded in bytes.

use bytes::Bytes;
use moka::sync::Cache;

use crate::oci::Digest;

/// What an entry costs beside its bytes: the key, moka's node and policy bookkeeping, an upper estimate.
const ENTRY_OVERHEAD_BYTES: usize = 512;

/// What share of the memory for objects may be remembered beside them, of names: which tag names what, and what belongs where.
const NAMES_SHARE: u64 = 4;
/// How much of that may be remembered however small the memory for objects is, in bytes: some ten thousand names.
const NAMES_BYTES_MIN: u64 = 6 << 20;

/// Blobs and manifests, held in memory. What is under a digest never changes, so nothing is ever invalidated.
/// Cheap to clone.
#[derive(Clone)]
pub struct Memory {
    entries: Cache<Digest, Bytes>,
    object_max: u64,
}

impl Memory {
    /// Holds at most `capacity` bytes in objects of at most `object_max` bytes each.
    pub fn new(capacity: u64, object_max: u64) -> Self {
        let weigh = |_: &Digest, bytes: &Bytes| u32::try_from(bytes.len() + ENTRY_OVERHEAD_BYTES).unwrap_or(u32::MAX);
        Self { entries: Cache::builder().max_capacity(capacity).weigher(weigh).build(), object_max }
    }

    /// How much may be remembered of the names of a registry, here or elsewhere, in bytes.
    pub fn names_bytes(&self) -> u64 {
        (self.entries.policy().max_capacity().unwrap_or_default() / NAMES_SHARE).max(NAMES_BYTES_MIN)
    }

    /// The bytes under `digest`, if they are held.
    pub fn get(&self, digest: &Digest) -> Option<Bytes> {
        self.entries.get(digest)
    }

    /// Whether an object of `size` bytes may be held.
    pub const fn admits(&self, size: u64) -> bool {
        size <= self.object_max
    }

    /// Holds verified bytes, if they are small enough.
    pub fn insert(&self, digest: Digest, bytes: Bytes) {
        if self.admits(bytes.len() as u64) {
            self.entries.insert(digest, bytes);
        }
    }

    /// Holds it no longer.
    pub fn remove(&self, digest: &Digest) {
        self.entries.invalidate(digest);
    }

    /// How many bytes are held, overhead included.
    pub fn size_bytes(&self) -> u64 {
        self.entries.weighted_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(memory: &Memory, bytes: &'static [u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        memory.insert(digest, Bytes::from_static(bytes));
        digest
    }

    #[test]
    fn small_objects_are_held_and_large_ones_are_not() {
        let memory = Memory::new(1 << 20, 4);
        let (small, large) = (insert(&memory, b"four"), insert(&memory, b"fives"));
        assert_eq!(memory.get(&small).as_deref(), Some(&b"four"[..]));
        assert_eq!(memory.get(&large), None);
    }

    #[test]
    fn it_never_holds_more_than_its_capacity() {
        let memory = Memory::new(10_000, 4_000);
        for byte in 0..200u8 {
            let bytes = Bytes::from(vec![byte; 3_000]);
            memory.insert(Digest::sha256(&bytes), bytes);
        }
        memory.entries.run_pending_tasks();
        assert!(memory.size_bytes() <= 10_000, "{}", memory.size_bytes());
    }
}
