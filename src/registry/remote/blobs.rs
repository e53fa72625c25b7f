//! Blobs from elsewhere: from memory, from disk, behind a download that runs, or by one that is begun.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::timeout_at;

use crate::access::{Permit, Pull};
use crate::cache::{CachedFile, FillError, Filling, Lookup};
use crate::config::RemoteKind;
use crate::oci::{ByteRange, Digest};
use crate::registry::{Content, RegistryError, Tier};
use crate::upstream::CallerCredentials;

use super::members::{Asker, Kind};
use super::{Reach, Remote, RemoteError, Target, too_late};

/// How often one looks again after a download that was begun in another way came to nothing, before one asks alone.
const LOOKS_MAX: usize = 3;

/// A blob whose bytes are at hand, or on their way.
pub struct RemoteBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes; unknown where the upstream says it only by its end.
    pub size: Option<u64>,
    source: Source,
}

/// What came of waiting for a download.
enum Follow {
    Begun(RemoteBlob),
    /// It was begun in another way, and came to nothing.
    Again,
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
    pub async fn blob_size(
        self: &Arc<Self>,
        target: Target<Permit<Pull>>,
        digest: &Digest,
    ) -> Result<u64, RegistryError> {
        let reach = self.reach(&target);
        self.size_of(&reach, digest).await.map_err(|error| blob_error(error, digest))
    }

    async fn size_of(self: &Arc<Self>, reach: &Reach, digest: &Digest) -> Result<u64, RemoteError> {
        if self.is_ours(digest).await? {
            self.belongs(reach, digest, Kind::Blob).await?;
            let in_memory = self.shelves.memory.get(digest).map(|bytes| bytes.len() as u64);
            if let Some(size) = in_memory.or_else(|| self.shelves.disk.size_of(digest)) {
                return Ok(size);
            }
        }
        if let Some(size) = self.size_while_taken(reach, digest).await? {
            return Ok(size);
        }
        // Nobody pushes to a mirror, so nobody relies on its being there: that a manifest names it, and how long it is, will do.
        let known = self.known_member(reach, digest).await?.filter(|_| self.config.kind == RemoteKind::Mirror);
        if let Some(size) = known.and_then(|member| member.size) {
            return Ok(size);
        }
        let asked = self.ask_member(reach, digest, Kind::Blob, Asker::Caller).await?;
        asked.size.ok_or_else(|| self.answer("a blob without Content-Length"))
    }

    /// Of a blob that is on its way: whoever asked for it will be told.
    async fn size_while_taken(self: &Arc<Self>, reach: &Reach, digest: &Digest) -> Result<Option<u64>, RemoteError> {
        let Some(filling) = self.shelves.disk.filling(digest, self.name()) else { return Ok(None) };
        let Ok(Ok(size)) = timeout_at(reach.deadline, filling.size()).await else { return Ok(None) };
        let member = self.belongs(reach, digest, Kind::Blob).await?;
        Ok(size.or(member.size))
    }

    /// Opens a blob to read it. Where it is missing it is downloaded, once, however many ask.
    pub async fn blob(
        self: &Arc<Self>,
        target: Target<Permit<Pull>>,
        digest: &Digest,
    ) -> Result<RemoteBlob, RegistryError> {
        let reach = self.reach(&target);
        let opened = self.open(&reach, digest).await;
        opened.map_err(|error| blob_error(error, digest))
    }

    async fn open(self: &Arc<Self>, reach: &Reach, digest: &Digest) -> Result<RemoteBlob, RemoteError> {
        for _ in 0..LOOKS_MAX {
            let is_ours = self.is_ours(digest).await?;
            if is_ours {
                self.belongs(reach, digest, Kind::Blob).await?;
                if let Some(bytes) = self.shelves.memory.get(digest) {
                    return Ok(RemoteBlob::of(*digest, Some(bytes.len() as u64), Source::Memory(bytes)));
                }
            }
            // What was found after an unclean stop is verified first.
            let lookup = timeout_at(reach.deadline, self.look(digest, is_ours)).await;
            let lookup = lookup.map_err(|_| too_late(self.name()))?;
            if !is_ours && matches!(lookup, Lookup::Follow(_)) {
                self.belongs(reach, digest, Kind::Blob).await?;
            }
            let found = match lookup {
                Lookup::Hit(file) => return Ok(self.on_disk(*digest, file).await),
                Lookup::Follow(filling) => self.follow(reach, digest, filling).await?,
                Lookup::Lead(fill) => {
                    fill.come_by(&self.way_of(reach));
                    let filling = fill.filling();
                    let size = self.known_member(reach, digest).await?.and_then(|member| member.size);
                    tokio::spawn(Arc::clone(self).download(self.reach_anew(reach), *digest, size, *fill));
                    self.follow(reach, digest, filling).await?
                }
                Lookup::Off => None,
            };
            match found {
                Some(Follow::Begun(blob)) => return Ok(blob),
                Some(Follow::Again) => {}
                None => break,
            }
        }
        self.pass_through(reach, digest).await
    }

    /// What the cache has of a digest for this upstream's readers.
    pub(super) async fn look(&self, digest: &Digest, is_ours: bool) -> Lookup<RemoteError> {
        match is_ours {
            true => self.shelves.disk.lookup(digest, self.name()).await,
            false => self.shelves.disk.lookup_anew(digest, self.name()),
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

    /// Waits until it is known whether and what the upstream sends; none, where the cache fails.
    async fn follow(
        self: &Arc<Self>,
        reach: &Reach,
        digest: &Digest,
        filling: Filling<RemoteError>,
    ) -> Result<Option<Follow>, RemoteError> {
        let is_same_way = filling.way() == Some(&self.way_of(reach));
        // Where the upstream takes its time, asking it once more makes it no faster.
        match timeout_at(reach.deadline, filling.size()).await {
            Ok(Ok(size)) => Ok(Some(Follow::Begun(RemoteBlob::of(*digest, size, Source::Fill(filling))))),
            Ok(Err(FillError::Failed(_) | FillError::Mismatch(_) | FillError::Abandoned)) if !is_same_way => {
                Ok(Some(Follow::Again))
            }
            Ok(Err(FillError::Failed(error))) => Err(error),
            Ok(Err(FillError::Mismatch(mismatch))) => {
                Err(RemoteError::Mismatch { upstream: self.name().to_owned(), mismatch: Box::new(mismatch) })
            }
            // The cache failed, not the upstream.
            Ok(Err(_)) => Ok(None),
            Err(_) => Err(too_late(self.name())),
        }
    }

    /// Through which repository, and with whose credentials.
    pub(super) fn way_of(&self, reach: &Reach) -> String {
        let caller = reach.caller.as_ref().map(CallerCredentials::fingerprint);
        format!("{} {}", reach.repository, caller.unwrap_or_default())
    }

    async fn pass_through(self: &Arc<Self>, reach: &Reach, digest: &Digest) -> Result<RemoteBlob, RemoteError> {
        self.shelves.metrics.passed_through(self.name());
        // What a manifest said may be wrong, and cannot be mended once the answer was begun.
        let known = self.known_member(reach, digest).await?.filter(|member| member.proven);
        let size = match known.and_then(|member| member.size) {
            Some(size) => Some(size),
            None => self.ask_member(reach, digest, Kind::Blob, Asker::Gateway).await?.size,
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
