//! A cache that always evicts what was not used for longest, and costs nothing: what others are compared with.

use std::collections::BTreeMap;

pub struct Lru {
    capacity: u64,
    object_max: u64,
    used: u64,
    clock: u64,
    /// When each object was used; 0 is what is not here.
    used_at: Vec<u64>,
    /// Objects and their sizes by when they were used.
    order: BTreeMap<u64, (u32, u64)>,
}

impl Lru {
    pub fn new(objects: usize, capacity: u64, object_max: u64) -> Self {
        Self { capacity, object_max, used: 0, clock: 0, used_at: vec![0; objects], order: BTreeMap::new() }
    }

    /// Whether it is here; it is afterwards, if it fits.
    pub fn touch(&mut self, object: u32, size: u64) -> bool {
        if size > self.object_max.min(self.capacity) {
            return false;
        }
        self.clock += 1;
        let used_at = std::mem::replace(&mut self.used_at[object as usize], self.clock);
        let was_here = self.order.remove(&used_at).is_some();
        self.order.insert(self.clock, (object, size));
        if !was_here {
            self.used += size;
            self.evict();
        }
        was_here
    }

    fn evict(&mut self) {
        while self.used > self.capacity {
            let Some((_, (object, size))) = self.order.pop_first() else { return };
            self.used_at[object as usize] = 0;
            self.used -= size;
        }
    }
}
