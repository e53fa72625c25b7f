//! The file of users: reading it, and seeing that it changed.

use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};

use super::NoRandomness;
use super::htpasswd::{HTPASSWD_BYTES_MAX, Users};

/// How old a change must be until the file's times can be trusted to show the next one: file systems count time in
/// steps, of two seconds at worst, and two changes within one step look like one.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// The users cannot be taken from the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenError {
    /// The file cannot be read.
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        kind: io::ErrorKind,
    },
    /// It is a directory, a pipe, or something else that is no file.
    NotAFile {
        /// Which one.
        path: PathBuf,
    },
    /// It is larger than [`HTPASSWD_BYTES_MAX`].
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
    /// The system has no random bytes for the keys of this process.
    NoRandomness,
}

/// A file of users, and how it was when it was last looked at.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    seen: Option<Seen>,
}

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// Nothing, where there is no file.
    stamp: Result<Option<Stamp>, io::ErrorKind>,
    /// Of the content, where it could be read.
    digest: Option<[u8; 32]>,
    /// Whether a later change will change the stamp.
    settled: bool,
}

/// What changes with a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Source {
    /// A file that has not been looked at.
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, seen: None }
    }

    /// The users, if they may have changed since the last look. What cannot be read is told once, not at each look.
    ///
    /// Where there is no file there are no users.
    pub(super) fn look(&mut self, now: SystemTime) -> Result<Option<Users>, OpenError> {
        let stamp = stamp(&self.path);
        if self.seen.as_ref().is_some_and(|seen| seen.settled && seen.stamp == stamp) {
            return Ok(None);
        }
        let content = read(&self.path);
        let seen = Seen::of(&content, now);
        let same = self.seen.as_ref().is_some_and(|before| before.shows_the_same(&seen));
        self.seen = Some(seen);
        if same {
            return Ok(None);
        }
        match content {
            Ok(Some((bytes, _))) => Ok(Some(Users::parse(&bytes))),
            Ok(None) => Ok(Some(Users::none())),
            Err(error) => Err(self.unreadable(error.kind())),
        }
    }

    fn unreadable(&self, kind: io::ErrorKind) -> OpenError {
        let path = self.path.clone();
        match kind {
            io::ErrorKind::FileTooLarge => OpenError::TooLarge { path },
            io::ErrorKind::InvalidInput => OpenError::NotAFile { path },
            kind => OpenError::Unreadable { path, kind },
        }
    }
}

impl Seen {
    fn of(content: &io::Result<Option<(Vec<u8>, Metadata)>>, now: SystemTime) -> Self {
        match content {
            Ok(Some((bytes, metadata))) => {
                let stamp = Stamp::of(metadata);
                let digest = Some(Sha256::digest(bytes).into());
                Self { stamp: Ok(Some(stamp)), digest, settled: stamp.is_settled(now) }
            }
            Ok(None) => Self { stamp: Ok(None), digest: None, settled: true },
            // Its stamp may be readable where its content is not, so it is read again each time; it costs one call.
            Err(error) => Self { stamp: Err(error.kind()), digest: None, settled: false },
        }
    }

    /// Whether there is nothing new in `later`.
    fn shows_the_same(&self, later: &Self) -> bool {
        match (self.digest, later.digest) {
            (Some(before), Some(after)) => before == after,
            (None, None) => self.stamp == later.stamp,
            _ => false,
        }
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the last change lies long enough back; or ahead, where the clock was set.
    fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let changed = u64::try_from(self.changed.0).unwrap_or(0);
        now.abs_diff(changed) > SETTLED_AFTER.as_secs()
    }
}

fn stamp(path: &Path) -> Result<Option<Stamp>, io::ErrorKind> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(Stamp::of(&metadata))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.kind()),
    }
}

/// The content of a file of users and how the file was before it was read, or nothing where there is none.
///
/// `FileTooLarge` and `InvalidInput` (not a file) are errors of this function's own.
pub(super) fn read(path: &Path) -> io::Result<Option<(Vec<u8>, Metadata)>> {
    // Without NONBLOCK the opening of a pipe would wait for its writer.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => read_open(file).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Like [`read`], of a file that is open.
pub(super) fn read_open(file: File) -> io::Result<(Vec<u8>, Metadata)> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    if metadata.len() > HTPASSWD_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = Vec::new();
    file.take(HTPASSWD_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > HTPASSWD_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok((bytes, metadata))
}

impl From<NoRandomness> for OpenError {
    fn from(_: NoRandomness) -> Self {
        Self::NoRandomness
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, kind } => {
                write!(f, "{}: the users cannot be read: {kind}; check the file's owner and mode", path.display())
            }
            Self::NotAFile { path } => write!(f, "{}: not a file; name an htpasswd file", path.display()),
            Self::TooLarge { path } => {
                write!(f, "{}: larger than {} MiB; remove what is no user", path.display(), HTPASSWD_BYTES_MAX >> 20)
            }
            Self::NoRandomness => NoRandomness.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {}

#[cfg(test)]
mod tests;
