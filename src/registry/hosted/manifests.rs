//! Reading, writing and deleting manifests and tags.

use std::sync::Arc;

use bytes::Bytes;

use crate::access::{Delete, Leave, Permit, Pull, WritePermit};
use crate::oci;
use crate::oci::{Algorithm, Digest, Reference, RepositoryName, Tag, Verified};
use crate::registry::fallback::{Subject, subject_of};
use crate::registry::{Manifest, RegistryError, Tier};
use crate::store::{PutError, PutManifest};

use super::lists::index_of;
use super::{Hosted, change};

/// How many referrers are listed under their tag.
const FALLBACK_REFERRERS_MAX: usize = 1000;

/// A manifest to be stored.
pub struct ManifestPut {
    /// Under which name.
    pub reference: Reference,
    /// The tags that are to name it too (distribution-spec, end-7b).
    pub tags: Vec<Tag>,
    /// What the request said it is.
    pub content_type: Option<String>,
    /// Its bytes.
    pub bytes: Bytes,
}

impl ManifestPut {
    /// Every tag that is to name it.
    pub fn all_tags(&self) -> Vec<Tag> {
        let mut all = self.tags.clone();
        if let Reference::Tag(tag) = &self.reference
            && !all.contains(tag)
        {
            all.push(tag.clone());
        }
        all
    }
}

/// A manifest that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Its digest.
    pub digest: Digest,
    /// Those of [`ManifestPut::tags`] that name it now.
    pub tags: Vec<Tag>,
    /// The manifest it refers to.
    pub subject: Option<Digest>,
}

impl Hosted {
    /// A manifest to read.
    pub async fn manifest(&self, permit: &Permit<Pull>, reference: &Reference) -> Result<Manifest, RegistryError> {
        let digest = match reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(tag) => self.resolve(permit, tag).await?,
        };
        let found = match digest {
            Some(digest) => self.read_manifest(permit, digest).await?,
            None => None,
        };
        let found = match found {
            None => self.listed_as_manifest(permit, reference).await?,
            found => found,
        };
        match found {
            Some(manifest) => Ok(manifest),
            None => Err(self.not_found(permit, RegistryError::ManifestUnknown(reference.clone())).await),
        }
    }

    /// What refers to a manifest, where it is asked for by its tag or was before.
    async fn listed_as_manifest(
        &self,
        permit: &impl Leave,
        reference: &Reference,
    ) -> Result<Option<Manifest>, RegistryError> {
        let repository = permit.repository();
        let subject = match reference {
            Reference::Digest(digest) => return Ok(self.fallback.by_digest(repository.clone(), digest)),
            Reference::Tag(tag) => match subject_of(tag) {
                Some(Subject::BeginsWith(beginning)) => {
                    self.store.subject_beginning_with(repository, &beginning).await?
                }
                Some(Subject::Named(subject)) => Some(subject),
                None => None,
            },
        };
        let Some(subject) = subject else { return Ok(None) };
        let listed = self.list_referrers(repository, &subject, None, None, FALLBACK_REFERRERS_MAX).await?;
        let is_any = !listed.entries.is_empty();
        Ok(is_any.then(|| self.fallback.manifest_of(repository.clone(), index_of(&listed.entries))))
    }

    /// Stores a manifest and moves the tags that are to name it, all or none.
    pub async fn put_manifest(&self, permit: WritePermit, put: ManifestPut) -> Result<Pushed, RegistryError> {
        let parsed =
            oci::Manifest::parse(&put.bytes, put.content_type.as_deref()).map_err(RegistryError::ManifestInvalid)?;
        let digest = match &put.reference {
            Reference::Tag(_) => Algorithm::Sha256.digest(&put.bytes),
            Reference::Digest(stated) => {
                let mismatch =
                    |error: oci::Mismatch| RegistryError::ManifestDigest { stated: *stated, actual: error.actual };
                *Verified::check(&put.bytes, stated).map_err(mismatch)?.digest()
            }
        };
        let subject = parsed.subject().copied();
        let (bytes, tags) = (put.bytes.clone(), put.tags.clone());
        self.commit_manifest(permit, parsed, digest, put).await?;
        self.memory.insert(digest, bytes);
        Ok(Pushed { digest, tags, subject })
    }

    async fn commit_manifest(
        &self,
        permit: WritePermit,
        manifest: oci::Manifest,
        digest: Digest,
        put: ManifestPut,
    ) -> Result<(), RegistryError> {
        let (store, tags, manifests) = (self.store.clone(), Arc::clone(&self.tags), Arc::clone(&self.manifests));
        let (repository, named) = (permit.repository().clone(), put.all_tags());
        let moved = named.clone();
        let principal = permit.principal().to_string();
        let act = async move {
            let stored = store.put_manifest(PutManifest {
                repository: permit.repository(),
                bytes: put.bytes,
                digest,
                manifest: &manifest,
                tags: &named,
                overwrite: permit.may_overwrite(),
                principal: &principal,
            });
            stored.await.map_err(put_error)
        };
        let stored = change(act, move |_| {
            manifests.forget(&(repository.clone(), digest));
            for tag in moved {
                tags.forget(&(repository.clone(), tag));
            }
        });
        stored.await.map(drop)
    }

    /// Deletes a tag, or a manifest and every tag of it.
    pub async fn delete_manifest(&self, permit: &Permit<Delete>, reference: &Reference) -> Result<(), RegistryError> {
        self.check_delete()?;
        let deleted = match reference {
            Reference::Tag(tag) => self.delete_tag(permit.repository().clone(), tag.clone()).await?,
            Reference::Digest(digest) => self.delete_by_digest(permit.repository().clone(), *digest).await?,
        };
        match deleted {
            true => Ok(()),
            // It is there for as long as there is anything to list; who deletes it wants to be told that this was done.
            false if self.listed_as_manifest(permit, reference).await?.is_some() => Ok(()),
            false => Err(self.not_found(permit, RegistryError::ManifestUnknown(reference.clone())).await),
        }
    }

    async fn delete_tag(&self, repository: RepositoryName, tag: Tag) -> Result<bool, RegistryError> {
        let (store, tags, key) = (self.store.clone(), Arc::clone(&self.tags), (repository.clone(), tag.clone()));
        let act = async move { store.delete_tag(&repository, &tag).await };
        change(act, move |_| tags.forget(&key)).await
    }

    /// The tags that went with it are forgotten too: were the manifest pushed again, they would seem to be there.
    async fn delete_by_digest(&self, repository: RepositoryName, digest: Digest) -> Result<bool, RegistryError> {
        let (store, tags, manifests) = (self.store.clone(), Arc::clone(&self.tags), Arc::clone(&self.manifests));
        let name = repository.clone();
        let act = async move { store.delete_manifest(&name, &digest).await };
        let deleted = change(act, move |gone: Option<&Option<Vec<Tag>>>| {
            manifests.forget(&(repository.clone(), digest));
            for tag in gone.into_iter().flatten().flatten() {
                tags.forget(&(repository.clone(), tag.clone()));
            }
        });
        Ok(deleted.await?.is_some())
    }

    async fn resolve(&self, permit: &Permit<Pull>, tag: &Tag) -> Result<Option<Digest>, RegistryError> {
        let key = (permit.repository().clone(), tag.clone());
        if let Some(digest) = self.tags.get(&key) {
            return Ok(Some(digest));
        }
        let ticket = self.tags.ticket(&key);
        let found = self.store.tag(permit.repository(), tag).await?;
        if let Some(digest) = found {
            self.tags.insert(ticket, key, digest);
        }
        Ok(found)
    }

    async fn read_manifest(&self, permit: &Permit<Pull>, digest: Digest) -> Result<Option<Manifest>, RegistryError> {
        let key = (permit.repository().clone(), digest);
        if let Some((media_type, bytes)) = self.manifests.get(&key).zip(self.memory.get(&digest)) {
            let media_type = media_type.as_str().into();
            return Ok(Some(Manifest { digest, media_type, bytes, tier: Tier::Memory, older: None }));
        }
        let ticket = self.manifests.ticket(&key);
        let Some(stored) = self.store.manifest(permit.repository(), &digest).await? else { return Ok(None) };
        self.manifests.insert(ticket, key, stored.media_type);
        self.memory.insert(digest, stored.bytes.clone());
        let media_type = stored.media_type.as_str().into();
        Ok(Some(Manifest { digest, media_type, bytes: stored.bytes, tier: Tier::File, older: None }))
    }
}

fn put_error(error: PutError) -> RegistryError {
    match error {
        PutError::MissingChildren(missing) => RegistryError::MissingChildren(missing),
        PutError::Mismatch(mismatch) => RegistryError::DigestMismatch(mismatch),
        PutError::TagExists(tag) => RegistryError::TagExists(tag),
        PutError::Store(error) => error.into(),
    }
}
