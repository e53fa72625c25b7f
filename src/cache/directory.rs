//! The cache's directory: whole blobs under `blobs/ALGORITHM/AB/HEX` with the checksums of their pieces in `HEX.sums` beside
//! them, those that arrive under `spool/`, a lock, and a mark that says whether the last program that used it stopped cleanly.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use rustix::fs::FlockOperation;

use crate::files::Sums;
use crate::oci::{Algorithm, Digest};

use super::error::OpenError;

/// How the name of a file with checksums ends.
const SUMS: &str = "sums";

/// The directory, locked for this process as long as this lives.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    spooled: AtomicU64,
    _lock: File,
}

/// A whole blob that was found at the start.
pub(super) struct FoundFile {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) last_used: SystemTime,
}

impl Directory {
    /// Makes what is missing, locks it, and removes what was only half there. The second value says whether the blobs were
    /// verified since the disk was last known to be whole. Blocks.
    pub(super) fn open(path: &Path) -> Result<(Self, bool), OpenError> {
        let failed = |error: io::Error| OpenError::Io { path: path.into(), detail: error.to_string() };
        make(path).map_err(failed)?;
        let lock = lock(path)?;
        let directory = Self { path: path.into(), spooled: AtomicU64::new(0), _lock: lock };
        let is_clean = directory.mark().exists();
        remove_if_there(&directory.mark()).map_err(failed)?;
        match fs::remove_dir_all(directory.spool()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        // What is written from now on is not known to be whole until the next clean stop.
        File::open(path).and_then(|directory| directory.sync_all()).map_err(failed)?;
        Ok((directory, is_clean))
    }

    /// The whole blobs. Files that do not belong are removed. Blocks.
    pub(super) fn scan(&self) -> io::Result<Vec<FoundFile>> {
        let mut found = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for folder in entries(&self.path.join("blobs").join(algorithm.as_str()))? {
                for file in entries(&folder)? {
                    match self.look(algorithm, &file) {
                        Some(file) => found.push(file),
                        None if self.has_sums_of_a_blob(algorithm, &file) => {}
                        None => remove_if_there(&file)?,
                    }
                }
            }
        }
        Ok(found)
    }

    /// None, if the name or the kind of a file is not that of a blob.
    fn look(&self, algorithm: Algorithm, file: &Path) -> Option<FoundFile> {
        let name = file.file_name()?.to_str()?;
        let digest: Digest = format!("{}:{name}", algorithm.as_str()).parse().ok()?;
        let metadata = fs::symlink_metadata(file).ok().filter(fs::Metadata::is_file)?;
        let last_used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        (self.blob(&digest) == file).then_some(FoundFile { digest, size: metadata.len(), last_used })
    }

    fn has_sums_of_a_blob(&self, algorithm: Algorithm, file: &Path) -> bool {
        file.extension().is_some_and(|extension| extension == SUMS)
            && self.look(algorithm, &file.with_extension("")).is_some()
    }

    /// The file of a blob.
    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.path.join("blobs").join(digest.algorithm().as_str()).join(&hex[..2]).join(hex)
    }

    /// A new, empty file for a blob that arrives; open for reading too. The directories may be gone. Blocks.
    pub(super) fn create_spool(&self) -> io::Result<(PathBuf, File)> {
        let number = self.spooled.fetch_add(1, Ordering::Relaxed);
        let file = self.spool().join(number.to_string());
        make(&self.spool())?;
        let opened = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&file)?;
        Ok((file, opened))
    }

    /// Gives a verified file its name, and keeps its checksums. Blocks.
    pub(super) fn keep(&self, spooled: &Path, digest: &Digest, sums: &Sums) -> io::Result<()> {
        let file = self.blob(digest);
        if let Some(folder) = file.parent() {
            make(folder)?;
        }
        self.write_sums(digest, sums)?;
        fs::rename(spooled, file)
    }

    /// Keeps the checksums of a blob. They follow from its digest, so whoever finds half of them or old ones finds that out.
    /// Blocks.
    pub(super) fn write_sums(&self, digest: &Digest, sums: &Sums) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(self.sums(digest))?;
        file.write_all(&sums.to_bytes())
    }

    /// The checksums of a blob of `size` bytes, if they are there. Blocks.
    pub(super) fn read_sums(&self, digest: &Digest, size: u64) -> Option<Sums> {
        Sums::from_bytes(&fs::read(self.sums(digest)).ok()?, size)
    }

    /// Takes a blob off the disk. Blocks.
    pub(super) fn remove(&self, digest: &Digest) -> io::Result<()> {
        remove_if_there(&self.blob(digest))?;
        remove_if_there(&self.sums(digest))
    }

    fn sums(&self, digest: &Digest) -> PathBuf {
        self.blob(digest).with_extension(SUMS)
    }

    /// Says that everything here was verified and is on the disk. Blocks.
    pub(super) fn mark_clean(&self) -> io::Result<()> {
        let directory = File::open(&self.path)?;
        // One sync for all that was written since the start, in place of one for each blob.
        rustix::fs::syncfs(&directory)?;
        File::create(self.mark())?.sync_all()?;
        directory.sync_all()
    }

    /// Where the directory is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn spool(&self) -> PathBuf {
        self.path.join("spool")
    }

    fn mark(&self) -> PathBuf {
        self.path.join("clean")
    }
}

/// Removes a file; that it is gone already is as good.
pub(super) fn remove_if_there(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(error),
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
    }
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let file = path.join("lock");
    let failed = |error: io::Error| OpenError::Io { path: file.clone(), detail: error.to_string() };
    let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&file).map_err(failed)?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::InUse { path: path.into() }),
        Err(error) => Err(failed(error.into())),
    }
}
