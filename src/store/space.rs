//! How much may still be written.

use std::os::fd::AsFd;
use std::path::Path;

use super::StoreError;

/// What stays free on the disk, whoever pushes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reserve {
    /// In bytes.
    pub(super) bytes: u64,
    /// In percent of the whole disk. The larger of the two holds.
    pub(super) percent: u8,
}

impl Reserve {
    /// Whether the disk of an open file has more than the reserve. Blocks, for a microsecond on a local disk.
    pub(super) fn check_file(self, file: impl AsFd) -> Result<(), StoreError> {
        self.check(rustix::fs::fstatvfs(file))
    }

    /// The same for a path.
    pub(super) fn check_path(self, path: &Path) -> Result<(), StoreError> {
        self.check(rustix::fs::statvfs(path))
    }

    fn check(self, disk: rustix::io::Result<rustix::fs::StatVfs>) -> Result<(), StoreError> {
        let disk = disk.map_err(|error| StoreError::io("ask for free space", &error.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let size = disk.f_blocks.saturating_mul(disk.f_frsize);
        if free < self.of(size) { Err(StoreError::NoSpace) } else { Ok(()) }
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
    }
}
