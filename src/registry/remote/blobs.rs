//! Blobs from elsewhere: from memory, from disk, behind a download that runs, or by one that is begun.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::timeout_at;

use crate::cache::{CachedFile, FillError, Filling, Lookup};
use crate::oci::{ByteRange, Digest};
use crate::store::Member;

use super::super::{Content, RegistryError, Tier};
use super::members::Kind;
use super::{Reach, Remote, RemoteError, Target, too_late};

/// A blob whose bytes are at hand, or on their way.
pub struct RemoteBlob {
    /// Its name.
    pub digest: Digest,
    /// Its size in bytes; unknown where the upstream says it only by its end.
    pub size: Option<u64>,
    source: Source,
}

enum Source {
    Memory(Bytes),
    Disk(CachedFile),
    Fill(Filling<RemoteError>),
    /// Nothing can be kept: this caller alone reads what the upstream sends.
    Upstream(Arc<Remote>, Reach),
}

impl Remote {
    /// What HEAD of a blob tells: its size in bytes. Where it is not here yet, that is one HEAD at the upstream.
    pub async fn blob_size(self: &Arc<Self>, target: Target, digest: &Digest) -> Result<u64, RegistryError> {
        let reach = self.reach(&target);
        self.size_of(&reach, digest).await.map_err(|error| blob_error(error, digest))
    }

    async fn size_of(self: &Arc<Self>, reach: &Reach, digest: &Digest) -> Result<u64, RemoteError> {
        let is_here = self.shelves.disk.has(digest) || self.shelves.memory.get(digest).is_some();
        let member = match is_here {
            true => self.belongs(reach, digest, Kind::Blob).await?,
            false => self.ask_member(reach, digest, Kind::Blob).await?,
        };
        match member.size {
            Some(size) => Ok(size),
            // It is known to belong, and not how long it is.
            None => {
                let asked = self.ask_member(reach, digest, Kind::Blob).await?;
                asked.size.ok_or_else(|| self.answer("HEAD of a blob without Content-Length"))
            }
        }
    }

    /// Opens a blob to read it. Where it is missing it is downloaded, once, however many ask.
    pub async fn blob(self: &Arc<Self>, target: Target, digest: &Digest) -> Result<RemoteBlob, RegistryError> {
        let reach = self.reach(&target);
        let opened = self.open(&reach, digest).await;
        opened.map_err(|error| blob_error(error, digest))
    }

    async fn open(self: &Arc<Self>, reach: &Reach, digest: &Digest) -> Result<RemoteBlob, RemoteError> {
        let known = self.known_member(reach, digest).await?;
        let proven = known.as_ref().is_some_and(|member| member.proven);
        if let Some(bytes) = self.shelves.memory.get(digest) {
            self.belongs(reach, digest, Kind::Blob).await?;
            return Ok(RemoteBlob::of(*digest, Some(bytes.len() as u64), Source::Memory(bytes)));
        }
        let lookup = self.shelves.disk.lookup(digest).await;
        if !proven && matches!(lookup, Lookup::Hit(_) | Lookup::Follow(_)) {
            self.ask_member(reach, digest, Kind::Blob).await?;
        }
        match lookup {
            Lookup::Hit(file) => Ok(self.on_disk(*digest, file).await),
            Lookup::Follow(filling) => self.follow(reach, digest, filling, known).await,
            Lookup::Lead(fill) => {
                let filling = fill.filling();
                let size = known.as_ref().and_then(|member| member.size);
                tokio::spawn(Arc::clone(self).download(self.reach_anew(reach), *digest, size, *fill));
                self.follow(reach, digest, filling, known).await
            }
            Lookup::Off => self.pass_through(reach, digest, known).await,
        }
    }

    /// Small blobs are taken into memory: what is pulled once is mostly pulled again soon.
    async fn on_disk(&self, digest: Digest, file: CachedFile) -> RemoteBlob {
        let size = file.size();
        let admitted = self.shelves.memory.admits(size).then(|| self.memory_fills.try_acquire().ok()).flatten();
        if admitted.is_some()
            && let Ok(bytes) = file.read_all().await
        {
            self.shelves.memory.insert(digest, bytes.clone());
            // Its first reader is told where it came from.
            return RemoteBlob::of(digest, Some(size), Source::Disk(file));
        }
        RemoteBlob::of(digest, Some(size), Source::Disk(file))
    }

    /// Waits until it is known whether and what the upstream sends.
    async fn follow(
        self: &Arc<Self>,
        reach: &Reach,
        digest: &Digest,
        filling: Filling<RemoteError>,
        known: Option<Member>,
    ) -> Result<RemoteBlob, RemoteError> {
        let begun = timeout_at(reach.deadline, filling.size()).await.map_err(|_| too_late(self.name()))?;
        match begun {
            Ok(size) => Ok(RemoteBlob::of(*digest, size, Source::Fill(filling))),
            Err(FillError::Failed(error)) => Err(error),
            Err(FillError::Mismatch(mismatch)) => {
                Err(RemoteError::Mismatch { upstream: self.name().to_owned(), mismatch: Box::new(mismatch) })
            }
            // The cache failed, not the upstream.
            Err(_) => self.pass_through(reach, digest, known).await,
        }
    }

    async fn pass_through(
        self: &Arc<Self>,
        reach: &Reach,
        digest: &Digest,
        known: Option<Member>,
    ) -> Result<RemoteBlob, RemoteError> {
        self.shelves.metrics.passed_through(self.name());
        let size = match known.and_then(|member| member.size) {
            Some(size) => Some(size),
            None => self.ask_member(reach, digest, Kind::Blob).await?.size,
        };
        Ok(RemoteBlob::of(*digest, size, Source::Upstream(Arc::clone(self), reach.clone())))
    }
}

impl RemoteBlob {
    const fn of(digest: Digest, size: Option<u64>, source: Source) -> Self {
        Self { digest, size, source }
    }

    /// Where its bytes are.
    pub const fn tier(&self) -> Tier {
        match self.source {
            Source::Memory(_) => Tier::Memory,
            Source::Disk(_) => Tier::Disk,
            Source::Fill(_) => Tier::Fill,
            Source::Upstream(..) => Tier::Upstream,
        }
    }

    /// The bytes of `range`, or all of them.
    pub async fn read(self, range: Option<ByteRange>) -> Result<Content, RegistryError> {
        let digest = self.digest;
        match self.source {
            Source::Memory(bytes) => Ok(Content::part_of(&bytes, range)),
            Source::Disk(_) if self.size == Some(0) => Ok(Content::Memory(Bytes::new())),
            Source::Disk(file) => {
                let whole = ByteRange::new(0, self.size.unwrap_or_default().saturating_sub(1));
                match range.or(whole) {
                    Some(range) => Ok(Content::Cached(file.read(range))),
                    None => Ok(Content::Memory(Bytes::new())),
                }
            }
            Source::Fill(filling) => {
                let (start, end) = range.map_or((0, None), |range| (range.start(), Some(range.last() + 1)));
                Ok(Content::Fill(filling.read(start, end)))
            }
            Source::Upstream(remote, reach) => {
                let passing = remote.pass(&reach, &digest, self.size, range).await;
                passing.map(|passing| Content::Passing(Box::new(passing))).map_err(|error| blob_error(error, &digest))
            }
        }
    }
}

fn blob_error(error: RemoteError, digest: &Digest) -> RegistryError {
    match error {
        RemoteError::Missing => RegistryError::BlobUnknown(*digest),
        error => RegistryError::Remote(Box::new(error)),
    }
}
