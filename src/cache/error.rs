//! What can go wrong with the disk tier.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::oci::Mismatch;

/// The cache's directory cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenError {
    /// Another process uses it.
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The file system refuses it.
    Io {
        /// What could not be used.
        path: PathBuf,
        /// What the system said.
        detail: String,
    },
}

/// A fill did not come to its end. `E` is the reason of whoever filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FillError<E> {
    /// Whoever filled says why.
    Failed(E),
    /// What came is not what the digest says.
    Mismatch(Mismatch),
    /// More or less came than was announced.
    Size {
        /// How many bytes were announced.
        expected: u64,
        /// How many came; of those that are too many not all were taken.
        received: u64,
    },
    /// The disk took no more, or gave back less.
    Spool(io::ErrorKind),
    /// Whoever filled stopped without a word.
    Abandoned,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { path } => {
                write!(
                    f,
                    "{} is the cache of another dockgate that runs; give cache.path another directory",
                    path.display()
                )
            }
            Self::Io { path, detail } => {
                write!(
                    f,
                    "{} cannot be used for the cache: {detail}; mend it, or set cache.path or cache.disk = \"0\"",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for OpenError {}

impl<E: fmt::Display> fmt::Display for FillError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => error.fmt(f),
            Self::Mismatch(mismatch) => write!(f, "{mismatch}; nothing was kept"),
            Self::Size { expected, received } => {
                write!(f, "{received} bytes came, {expected} were announced; ask again")
            }
            Self::Spool(kind) => write!(f, "the cache's disk failed ({kind}); ask again"),
            Self::Abandoned => f.write_str("the download stopped before its end; ask again"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for FillError<E> {}

impl<E> From<io::Error> for FillError<E> {
    fn from(error: io::Error) -> Self {
        Self::Spool(error.kind())
    }
}
