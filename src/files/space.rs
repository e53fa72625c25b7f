//! How much of a disk is left.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// The size of a file system, and what is free of it, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Of the whole.
    pub size: u64,
    /// What may still be written.
    pub free: u64,
}

impl Space {
    /// Of the file system of an open file. Blocks, for a microsecond on a local disk.
    pub fn of_file(file: impl AsFd) -> io::Result<Self> {
        Ok(Self::from(rustix::fs::fstatvfs(file)?))
    }

    /// Of the file system that a path is on. Blocks, for a microsecond on a local disk.
    pub fn of_path(path: &Path) -> io::Result<Self> {
        Ok(Self::from(rustix::fs::statvfs(path)?))
    }

    /// How many bytes are too many, if `more` are written and no more than `percent` may be used then.
    pub const fn over(self, percent: u8, more: u64) -> u64 {
        let limit = (self.size as u128 * percent as u128 / 100) as u64;
        self.size.saturating_sub(self.free).saturating_add(more).saturating_sub(limit)
    }
}

impl From<rustix::fs::StatVfs> for Space {
    fn from(disk: rustix::fs::StatVfs) -> Self {
        Self { size: disk.f_blocks.saturating_mul(disk.f_frsize), free: disk.f_bavail.saturating_mul(disk.f_frsize) }
    }
}

/// What stays free on a disk, whoever writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserve {
    /// In bytes.
    pub bytes: u64,
    /// In percent of the whole disk. The larger of the two holds.
    pub percent: u8,
}

impl Reserve {
    /// Whether there is more free than this.
    pub fn is_kept(self, space: Space) -> bool {
        space.free >= self.of(space.size)
    }

    /// The reserve on a disk of `size` bytes.
    fn of(self, size: u64) -> u64 {
        self.bytes.max(size / 100 * u64::from(self.percent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_of_the_two_reserves_holds() {
        let reserve = Reserve { bytes: 1000, percent: 5 };
        assert_eq!(reserve.of(10_000), 1000);
        assert_eq!(reserve.of(100_000), 5000);
        assert!(reserve.is_kept(Space { size: 10_000, free: 1000 }));
        assert!(!reserve.is_kept(Space { size: 10_000, free: 999 }));
    }

    #[test]
    fn what_is_too_much_counts_what_is_still_to_come() {
        let over = |free, more| Space { size: 1000, free }.over(90, more);
        assert_eq!([over(1000, 0), over(100, 0), over(99, 0), over(500, 400), over(500, 401)], [0, 0, 1, 0, 1]);
        assert_eq!(over(500, u64::MAX), u64::MAX - 900);
    }
}
