//! What the registries hand out: manifests, and the bytes of blobs, wherever they come from.

use std::borrow::Cow;
use std::io;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;

use crate::cache::{CachedReader, FillReader};
use crate::oci::{ByteRange, Digest};
use crate::store::BlobReader;

use super::remote::{Passing, RemoteError};

/// Where bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// The memory tier.
    Memory,
    /// A file of the built-in registry.
    File,
    /// The disk tier.
    Disk,
    /// A download that was under way, or was begun.
    Fill,
    /// An upstream, past the cache.
    Upstream,
}

/// A manifest, byte for byte as it was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: Cow<'static, str>,
    /// Its bytes.
    pub bytes: Bytes,
    /// Where they came from.
    pub tier: Tier,
    /// Whom it was had from before, if they cannot be asked now.
    pub older: Option<Older>,
}

/// An answer is given that an upstream gave before, as it cannot be asked now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Older {
    /// The name of the upstream.
    pub upstream: String,
    /// When it gave that answer.
    pub since: SystemTime,
}

/// The bytes of a blob, or of a part of it.
pub enum Content {
    /// In memory.
    Memory(Bytes),
    /// To be read from a file of the built-in registry.
    File(BlobReader),
    /// To be read from a file of the cache.
    Cached(CachedReader),
    /// To be read behind a download.
    Fill(FillReader<RemoteError>),
    /// What an upstream sends.
    Passing(Box<Passing>),
}

impl Content {
    /// A part of bytes in memory, or all of them.
    pub fn part_of(bytes: &Bytes, range: Option<ByteRange>) -> Self {
        Self::Memory(range.map_or_else(|| bytes.clone(), |range| slice(bytes, range)))
    }

    /// The next bytes, at most `most` of them where they come from memory or a file; what an upstream sends to this caller
    /// alone comes as it was sent. What goes wrong is an error, never a clean end.
    pub fn poll_chunk(&mut self, context: &mut Context<'_>, most: usize) -> Poll<Option<io::Result<Bytes>>> {
        match self {
            Self::Memory(bytes) => Poll::Ready((!bytes.is_empty()).then(|| Ok(bytes.split_to(bytes.len().min(most))))),
            Self::File(reader) => reader.poll_chunk(context, most),
            Self::Cached(reader) => reader.poll_chunk(context, most),
            Self::Fill(reader) => {
                reader.poll_chunk(context, most).map(|chunk| chunk.map(|chunk| chunk.map_err(io_error)))
            }
            Self::Passing(passing) => {
                passing.poll_chunk(context).map(|chunk| chunk.map(|chunk| chunk.map_err(io_error)))
            }
        }
    }
}

fn io_error(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

/// The part of `bytes` that `range` names; what lies beyond the end is left out.
fn slice(bytes: &Bytes, range: ByteRange) -> Bytes {
    let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    bytes.slice(index(range.start())..index(range.last() + 1))
}
