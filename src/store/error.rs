//! What can go wrong, said so that whoever reads it knows what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::oci::{Digest, Mismatch, Tag};

/// SQLite's primary result codes that mean something to us; the extended ones have them in their low byte.
const SQLITE_READONLY: u32 = 8;
const SQLITE_FULL: u32 = 13;
/// SQLite's `SQLITE_IOERR_FSYNC` and `SQLITE_IOERR_DIR_FSYNC`.
const SQLITE_SYNC_FAILED: [u32; 2] = [1034, 1290];

/// The store could not do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// The disk is full, or has less free than the reserve.
    NoSpace,
    /// The disk is mounted read-only.
    ReadOnly,
    /// A sync failed earlier, so that what the disk holds is not known: nothing is written any more.
    Unhealthy,
    /// The file of this blob is gone or has a wrong size.
    Damaged(Digest),
    /// Another failure of the file system.
    Io {
        /// What was tried.
        action: &'static str,
        /// The class of the error.
        kind: io::ErrorKind,
        /// The system's words.
        detail: String,
    },
    /// Another failure of the database.
    Database(String),
}

impl StoreError {
    /// What a failed file operation means.
    pub(super) fn io(action: &'static str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            kind => Self::Io { action, kind, detail: error.to_string() },
        }
    }

    /// A task of ours did not end.
    pub(super) fn stopped(error: &tokio::task::JoinError) -> Self {
        Self::Io { action: "finish a task", kind: io::ErrorKind::Other, detail: error.to_string() }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
        match code {
            Some(code) if SQLITE_SYNC_FAILED.contains(&code) => Self::Unhealthy,
            Some(code) if code & 0xff == SQLITE_FULL => Self::NoSpace,
            Some(code) if code & 0xff == SQLITE_READONLY => Self::ReadOnly,
            _ => Self::Database(error.to_string()),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSpace => f.write_str(
                "the disk of the data directory has no space left above its reserve; free some, or lower limits.disk_reserve",
            ),
            Self::ReadOnly => {
                f.write_str("the disk of the data directory is mounted read-only; mount it for writing to push again")
            }
            Self::Unhealthy => f.write_str(
                "the disk failed to sync, so nothing more is written; check the disk and the kernel's log, then restart",
            ),
            Self::Damaged(digest) => {
                write!(f, "the file of blob {digest} is missing or has a wrong size; push the blob again to mend it")
            }
            Self::Io { action, detail, .. } => {
                write!(f, "could not {action} in the data directory: {detail}; check its disk and permissions")
            }
            Self::Database(detail) => write!(f, "the metadata database failed: {detail}; check data/metadata.db"),
        }
    }
}

impl std::error::Error for StoreError {}

/// The data directory cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenError {
    /// Another process has it open.
    InUse {
        /// The directory.
        data: PathBuf,
        /// The process, if it left its number.
        pid: Option<u32>,
    },
    /// A newer program wrote it.
    NewerVersion {
        /// The directory.
        data: PathBuf,
        /// The format that it has.
        found: u64,
    },
    /// An older program wrote the database, and nothing can be written to bring it up to date.
    OlderVersion {
        /// The directory.
        data: PathBuf,
    },
    /// Nothing can be written, and what was written last cannot be read without that.
    NotClosed {
        /// SQLite's write-ahead log.
        log: PathBuf,
        /// The database's words.
        detail: String,
    },
    /// Nothing can be written there, and nothing is there that could be read.
    ReadOnly {
        /// The directory.
        data: PathBuf,
        /// The system's words.
        detail: String,
    },
    /// Another failure of the file system.
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's words.
        detail: String,
    },
    /// The database cannot be opened or brought up to date.
    Database {
        /// The database file.
        path: PathBuf,
        /// The database's words.
        detail: String,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { data, pid: Some(pid) } => {
                write!(f, "{} is in use by process {pid}; stop it, or give this one another directory", data.display())
            }
            Self::InUse { data, pid: None } => {
                write!(f, "{} is in use by another process; stop it, or choose another directory", data.display())
            }
            Self::NewerVersion { data, found } => write!(
                f,
                "{} has data format {found}, which a newer dockgate wrote; run that version, or a copy made before",
                data.display()
            ),
            Self::OlderVersion { data } => write!(
                f,
                "{} is read-only, and an older dockgate wrote it; make it writable for one start, which brings it up to date",
                data.display()
            ),
            Self::NotClosed { log, detail } => write!(
                f,
                "the data directory is read-only, and {} holds what was written last and cannot be read so: {detail}; make \
                 the directory writable, start dockgate and stop it; after that it may be read-only",
                log.display()
            ),
            Self::ReadOnly { data, detail } => write!(
                f,
                "cannot write in {}: {detail}; make it writable for the user dockgate runs as, or set registry.data",
                data.display()
            ),
            Self::Io { path, detail } => {
                write!(f, "{}: {detail}; check that the path exists and may be used", path.display())
            }
            Self::Database { path, detail } => write!(
                f,
                "the database {} cannot be opened: {detail}; restore it from a backup if it is damaged",
                path.display()
            ),
        }
    }
}

impl std::error::Error for OpenError {}

/// An upload session cannot be begun or taken up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadError {
    /// As many sessions are open as may be.
    TooManyUploads,
    /// No such session, or it belongs to another repository or principal.
    Unknown,
    /// Another request is using it.
    Busy,
    /// The store failed.
    Store(StoreError),
}

impl fmt::Display for UploadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyUploads => f.write_str("too many uploads are open; try again when some are finished"),
            Self::Unknown => f.write_str("there is no such upload; begin a new one"),
            Self::Busy => f.write_str("another request is using this upload; wait until it is finished"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for UploadError {}

impl From<StoreError> for UploadError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// An upload did not become a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitError {
    /// The bytes are not what the digest says. The session is still there.
    Mismatch(Box<Mismatch>),
    /// The store failed.
    Store(StoreError),
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mismatch(mismatch) => write!(f, "{mismatch}; send the upload again"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CommitError {}

impl From<StoreError> for CommitError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A manifest was not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutError {
    /// The bytes are not what the digest says.
    Mismatch(Box<Mismatch>),
    /// What it needs is not in its repository: each digest once, in the manifest's order.
    MissingChildren(Vec<Digest>),
    /// This tag is there, names another manifest, and must not be moved.
    TagExists(Tag),
    /// The store failed.
    Store(StoreError),
}

impl fmt::Display for PutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mismatch(mismatch) => write!(f, "{mismatch}; send the manifest again"),
            Self::MissingChildren(digests) => {
                write!(f, "{} parts of the manifest are not in this repository; push them first", digests.len())
            }
            Self::TagExists(tag) => write!(f, "the tag {tag} exists and may not be moved; push under another tag"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PutError {}

impl From<StoreError> for PutError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<sqlx::Error> for PutError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}
