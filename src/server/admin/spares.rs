//! Descriptors that are held back, for when there are no others.

use std::fs::File;
use std::io;

/// How many are held back. Each serves one connection; what it took comes back when that ends.
pub(super) const SPARES: usize = 16;

/// Descriptors that mean nothing: giving one up makes room for a connection.
#[derive(Debug)]
pub(super) struct Spares {
    source: File,
    held: Vec<File>,
}

impl Spares {
    /// Takes all of them.
    pub(super) fn open() -> io::Result<Self> {
        let mut spares = Self { source: File::open("/dev/null")?, held: Vec::with_capacity(SPARES) };
        spares.refill();
        Ok(spares)
    }

    /// Whether none is missing.
    pub(super) const fn is_full(&self) -> bool {
        self.held.len() >= SPARES
    }

    /// Gives one back to the system; false, if there is none.
    pub(super) fn give_up_one(&mut self) -> bool {
        self.held.pop().is_some()
    }

    /// Takes those that are missing, as far as there are any.
    pub(super) fn refill(&mut self) {
        while !self.is_full()
            && let Ok(spare) = self.source.try_clone()
        {
            self.held.push(spare);
        }
    }
}
