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

    /// The same for a path.
    pub fn of_path(path: &Path) -> io::Result<Self> {
        Ok(Self::from(rustix::fs::statvfs(path)?))
    }

    /// How much of it is used, in whole percent, rounded up.
    pub const fn used_percent(self) -> u64 {
        match self.size {
            0 => 100,
            size => (size.saturating_sub(self.free) as u128 * 100).div_ceil(size as u128) as u64,
        }
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
    fn what_is_used_is_rounded_up() {
        let used = |size, free| Space { size, free }.used_percent();
        assert_eq!([used(100, 100), used(100, 10), used(1000, 99), used(0, 0)], [0, 90, 91, 100]);
    }
}
