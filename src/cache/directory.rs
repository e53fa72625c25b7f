//! The cache's directory: whole blobs under `blobs/ALGORITHM/AB/HEX`, those that arrive under `spool/`, a lock, and a mark
//! that says whether the last program that used it stopped cleanly.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use rustix::fs::FlockOperation;

use crate::oci::{Algorithm, Digest, Verifier};

use super::error::OpenError;

/// How much is read at once when a file is verified.
const VERIFY_BYTES: usize = 1024 * 1024;

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

    /// Gives a verified file its name. Blocks.
    pub(super) fn keep(&self, spooled: &Path, digest: &Digest) -> io::Result<()> {
        let file = self.blob(digest);
        if let Some(folder) = file.parent() {
            make(folder)?;
        }
        fs::rename(spooled, file)
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

/// Whether a file holds what its digest says. Blocks for as long as it takes to read it.
pub(super) fn is_whole(file: &mut File, digest: &Digest) -> io::Result<bool> {
    let mut verifier = Verifier::new(digest.algorithm());
    let mut buffer = vec![0; VERIFY_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(verifier.verify(digest).is_ok()),
            Ok(length) => verifier.update(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
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
