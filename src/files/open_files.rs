//! One descriptor for a blob, however many read it.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::blob_file::{BlobFile, WeakBlobFile};

/// Whoever opens a file waits for those who open one of the same share, and not for all.
const SHARES: usize = 64;
/// How many files that are open no more are remembered before it is looked for them.
const CLOSED_MAX: usize = 256;

/// The blobs' files that are being read, by name. It keeps none of them open.
pub struct OpenFiles<K> {
    files: Mutex<Known<K>>,
    opening: Vec<Mutex<()>>,
    hasher: RandomState,
}

struct Known<K> {
    files: HashMap<K, WeakBlobFile>,
    /// At how many entries those that are open no more are taken out.
    clean_at: usize,
}

impl<K> Default for OpenFiles<K> {
    fn default() -> Self {
        let opening = std::iter::repeat_with(Mutex::default).take(SHARES).collect();
        let known = Known { files: HashMap::new(), clean_at: CLOSED_MAX };
        Self { files: Mutex::new(known), opening, hasher: RandomState::new() }
    }
}

impl<K: Hash + Eq + Clone> OpenFiles<K> {
    /// The file, if somebody has it open.
    pub fn get(&self, name: &K) -> Option<BlobFile> {
        self.known().files.get(name)?.upgrade()
    }

    /// The file that somebody has open, or else what `open` opens. Blocks while it is opened, here or by another caller.
    pub fn get_or_open<E>(&self, name: &K, open: impl FnOnce() -> Result<BlobFile, E>) -> Result<BlobFile, E> {
        let share = usize::try_from(self.hasher.hash_one(name) % SHARES as u64).unwrap_or_default();
        let _opening = self.opening[share].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = self.get(name) {
            return Ok(file);
        }
        let file = open()?;
        self.insert(name.clone(), &file);
        Ok(file)
    }

    /// From now on this is the file of that name.
    pub fn insert(&self, name: K, file: &BlobFile) {
        let mut known = self.known();
        if known.files.len() >= known.clean_at {
            known.files.retain(|_, file| file.is_open());
            known.clean_at = known.files.len() + CLOSED_MAX;
        }
        known.files.insert(name, file.downgrade());
    }

    /// The next who asks opens it anew; who reads it reads on.
    pub fn forget<Q: Hash + Eq + ?Sized>(&self, name: &Q)
    where
        K: Borrow<Q>,
    {
        self.known().files.remove(name);
    }

    /// No critical section can panic half-way.
    fn known(&self) -> MutexGuard<'_, Known<K>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
