//! What the operator does with the cache: fill it before anybody asks, keep images in it, throw them out.
//!
//! None of it hands out a byte, so none of it takes a permit.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::cache::{FillError, Filling, Lookup};
use crate::oci::{Digest, Reference, RepositoryName};
use crate::store::Pointer;

use super::learn::learn;
use super::{Reach, Remote, RemoteError};

/// How many parts one image may have, those of all its platforms together.
const PARTS_MAX: usize = 10_000;

/// A part of an image is in the cache, or is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warmed {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Why it is not, if it is not.
    pub error: Option<RemoteError>,
}

impl Remote {
    /// Takes an image with all its platforms into the cache, and tells of each part; the digests that it is made of.
    pub async fn warm(
        self: &Arc<Self>,
        repository: &RepositoryName,
        reference: &Reference,
        told: mpsc::Sender<Warmed>,
    ) -> Result<Vec<Digest>, RemoteError> {
        let first = match reference {
            Reference::Digest(digest) => *digest,
            Reference::Tag(tag) => self.resolve(&self.reach_for(repository), tag).await?.0,
        };
        let (mut digests, mut open) = (vec![first], vec![first]);
        while let Some(digest) = open.pop() {
            let manifest = self.manifest_by_digest(&self.reach_for(repository), &digest).await?;
            let size = manifest.bytes.len() as u64;
            // Whoever listened may be gone; the work goes on.
            let _ = told.send(Warmed { digest, size, error: None }).await;
            for member in learn(&manifest.bytes).map_or_else(Vec::new, |learnt| learnt.members) {
                if digests.contains(&member.digest) {
                    continue;
                }
                digests.push(member.digest);
                match member.media_type {
                    Some(_) if digests.len() < PARTS_MAX => open.push(member.digest),
                    Some(_) => return Err(self.answer(format!("an image of more than {PARTS_MAX} parts"))),
                    None => {
                        let _ = told.send(self.warm_blob(repository, member.digest).await).await;
                    }
                }
            }
        }
        Ok(digests)
    }

    async fn warm_blob(self: &Arc<Self>, repository: &RepositoryName, digest: Digest) -> Warmed {
        let warmed = async {
            let reach = self.reach_for(repository);
            match self.look(&digest, self.is_ours(&digest).await?).await {
                Lookup::Hit(file) => Ok(file.size()),
                Lookup::Off => {
                    Err(RemoteError::Internal("the cache takes nothing now; look at cache.disk and its disk".into()))
                }
                Lookup::Follow(filling) => self.filled(filling).await,
                Lookup::Lead(fill) => {
                    fill.come_by(&self.way_of(&reach));
                    let (filling, known) = (fill.filling(), self.known_member(&reach, &digest).await?);
                    let size = known.and_then(|member| member.size);
                    tokio::spawn(Arc::clone(self).download(reach, digest, size, *fill));
                    self.filled(filling).await
                }
            }
        };
        match warmed.await {
            Ok(size) => Warmed { digest, size, error: None },
            Err(error) => Warmed { digest, size: 0, error: Some(error) },
        }
    }

    async fn filled(&self, filling: Filling<RemoteError>) -> Result<u64, RemoteError> {
        match filling.done().await {
            Ok(file) => Ok(file.size()),
            Err(FillError::Failed(error)) => Err(error),
            Err(error) => Err(RemoteError::Internal(error.to_string())),
        }
    }

    /// What an image is made of, and the lists of what refers to it, as far as that is in the cache; nobody is asked.
    pub async fn parts(
        self: &Arc<Self>,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Vec<Digest>, RemoteError> {
        let first = match reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(tag) => {
                self.known(&(repository.clone(), Pointer::Tag(tag.clone()))).await?.and_then(|known| known.what)
            }
        };
        let (mut digests, mut open): (Vec<Digest>, Vec<Digest>) =
            (first.into_iter().collect(), first.into_iter().collect());
        while let Some(digest) = open.pop() {
            let list = self.known(&(repository.clone(), Pointer::Referrers(digest))).await?;
            digests.extend(list.and_then(|known| known.what));
            let Some(bytes) = self.kept_bytes(&digest).await else { continue };
            for member in learn(&bytes).map_or_else(Vec::new, |learnt| learnt.members) {
                if !digests.contains(&member.digest) && digests.len() < PARTS_MAX {
                    digests.push(member.digest);
                    if member.media_type.is_some() {
                        open.push(member.digest);
                    }
                }
            }
        }
        Ok(digests)
    }

    /// Something that is small, if it is here.
    async fn kept_bytes(&self, digest: &Digest) -> Option<Bytes> {
        if let Some(bytes) = self.shelves.memory.get(digest) {
            return Some(bytes);
        }
        match self.shelves.disk.lookup(digest, self.name()).await {
            Lookup::Hit(file) if file.size() <= self.limits.manifest_bytes => file.read_all().await.ok(),
            _ => None,
        }
    }

    /// The next who asks for the tag has the upstream asked.
    pub async fn forget(&self, repository: &RepositoryName, reference: &Reference) -> Result<(), RemoteError> {
        match reference {
            Reference::Tag(tag) => self.forget_tag(repository, tag).await,
            Reference::Digest(_) => Ok(()),
        }
    }

    fn reach_for(&self, repository: &RepositoryName) -> Reach {
        Reach { repository: repository.clone(), caller: None, deadline: Instant::now() + self.config.deadline }
    }
}
