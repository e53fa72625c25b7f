//! Reading, writing and deleting manifests and tags.

use bytes::Bytes;

use crate::access::Permit;
use crate::oci;
use crate::oci::{Algorithm, Digest, MediaType, Reference, Tag, Verified};
use crate::store::{PutError, PutManifest};

use super::super::RegistryError;
use super::{Hosted, Tier};

/// A stored manifest, byte for byte as it was pushed.
pub struct Manifest {
    /// Its name.
    pub digest: Digest,
    /// Its media type.
    pub media_type: MediaType,
    /// Its bytes.
    pub bytes: Bytes,
    /// Where they came from.
    pub tier: Tier,
}

/// A manifest to be stored.
pub struct ManifestPut {
    /// Under which name.
    pub reference: Reference,
    /// What the request said it is.
    pub content_type: Option<String>,
    /// Its bytes.
    pub bytes: Bytes,
}

/// A manifest that was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// Its name.
    pub digest: Digest,
    /// The manifest it refers to.
    pub subject: Option<Digest>,
}

impl Hosted {
    /// A manifest to read.
    pub async fn manifest(&self, permit: Permit, reference: &Reference) -> Result<Manifest, RegistryError> {
        let digest = match reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(tag) => self.resolve(&permit, tag).await?,
        };
        let found = match digest {
            Some(digest) => self.read_manifest(&permit, digest).await?,
            None => None,
        };
        match found {
            Some(manifest) => Ok(manifest),
            None => Err(self.not_found(&permit, RegistryError::ManifestUnknown(reference.clone())).await),
        }
    }

    /// Stores a manifest, and moves the tag if it was pushed by tag.
    pub async fn put_manifest(&self, permit: Permit, put: ManifestPut) -> Result<Pushed, RegistryError> {
        let parsed =
            oci::Manifest::parse(&put.bytes, put.content_type.as_deref()).map_err(RegistryError::ManifestInvalid)?;
        let (digest, tag) = match &put.reference {
            Reference::Tag(tag) => (Algorithm::Sha256.digest(&put.bytes), Some(tag)),
            Reference::Digest(stated) => {
                let mismatch =
                    |error: oci::Mismatch| RegistryError::ManifestDigest { stated: *stated, actual: error.actual };
                (*Verified::check(&put.bytes, stated).map_err(mismatch)?.digest(), None)
            }
        };
        self.forget_manifest(&permit, &digest, tag);
        let principal = permit.principal().to_string();
        let stored = self.store.put_manifest(PutManifest {
            repository: permit.repository(),
            bytes: put.bytes.clone(),
            digest,
            manifest: &parsed,
            tag,
            overwrite: permit.may_overwrite(),
            principal: &principal,
        });
        let stored = stored.await;
        self.forget_manifest(&permit, &digest, tag);
        stored.map_err(|error| put_error(error, &put.reference))?;
        self.memory.insert(digest, put.bytes);
        Ok(Pushed { digest, subject: parsed.subject().copied() })
    }

    /// Deletes a tag, or a manifest and every tag of it.
    pub async fn delete_manifest(&self, permit: Permit, reference: &Reference) -> Result<(), RegistryError> {
        self.check_delete()?;
        let deleted = match reference {
            Reference::Tag(tag) => {
                let key = (permit.repository().clone(), tag.clone());
                self.tags.forget(&key);
                let deleted = self.store.delete_tag(permit.repository(), tag).await;
                self.tags.forget(&key);
                deleted?
            }
            Reference::Digest(digest) => {
                self.forget_manifest(&permit, digest, None);
                let deleted = self.store.delete_manifest(permit.repository(), digest).await;
                self.forget_manifest(&permit, digest, None);
                deleted?
            }
        };
        match deleted {
            true => Ok(()),
            false => Err(self.not_found(&permit, RegistryError::ManifestUnknown(reference.clone())).await),
        }
    }

    async fn resolve(&self, permit: &Permit, tag: &Tag) -> Result<Option<Digest>, RegistryError> {
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

    async fn read_manifest(&self, permit: &Permit, digest: Digest) -> Result<Option<Manifest>, RegistryError> {
        let key = (permit.repository().clone(), digest);
        if let Some((media_type, bytes)) = self.manifests.get(&key).zip(self.memory.get(&digest)) {
            return Ok(Some(Manifest { digest, media_type, bytes, tier: Tier::Memory }));
        }
        let ticket = self.manifests.ticket(&key);
        let Some(stored) = self.store.manifest(permit.repository(), &digest).await? else { return Ok(None) };
        self.manifests.insert(ticket, key, stored.media_type);
        self.memory.insert(digest, stored.bytes.clone());
        Ok(Some(Manifest { digest, media_type: stored.media_type, bytes: stored.bytes, tier: Tier::File }))
    }

    /// A tag that names a deleted manifest resolves to a digest that is not found, so tags need not be searched here.
    fn forget_manifest(&self, permit: &Permit, digest: &Digest, tag: Option<&Tag>) {
        self.manifests.forget(&(permit.repository().clone(), *digest));
        if let Some(tag) = tag {
            self.tags.forget(&(permit.repository().clone(), tag.clone()));
        }
    }
}

fn put_error(error: PutError, reference: &Reference) -> RegistryError {
    match error {
        PutError::MissingChildren(missing) => RegistryError::MissingChildren(missing),
        PutError::SizeMismatch { digest, stated, actual } => RegistryError::ChildSize { digest, stated, actual },
        PutError::Mismatch(mismatch) => RegistryError::DigestMismatch(mismatch),
        PutError::TagExists => RegistryError::TagExists(reference.clone()),
        PutError::Store(error) => error.into(),
    }
}
