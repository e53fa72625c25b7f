//! Reading, mounting and unlinking blobs.

use std::sync::Arc;

use bytes::Bytes;

use crate::access::{Delete, Leave as _, Permit, Pull};
use crate::oci::{ByteRange, Digest, RepositoryName};
use crate::registry::{Content, RegistryError, Tier};
use crate::store::{BlobFile, BlobInfo, StoreError};

use super::{Hosted, change};

/// A blob that may be read.
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    info: BlobInfo,
    repository: RepositoryName,
}

/// A blob whose bytes are at hand.
pub struct OpenBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    source: Source,
}

enum Source {
    Memory(Bytes),
    File(BlobFile),
}

impl Hosted {
    /// A blob of the repository, found and not opened yet.
    pub async fn blob(&self, permit: &Permit<Pull>, digest: &Digest) -> Result<Blob, RegistryError> {
        let info = self.find(permit, digest).await?;
        Ok(Blob { digest: *digest, size: info.size, info, repository: permit.repository().clone() })
    }

    /// Looks whether the blob's file is there: HEAD must say what GET would, so that whoever pushes knows what is missing.
    pub async fn check(&self, blob: &Blob) -> Result<(), RegistryError> {
        match self.store.check_blob(&blob.info).await {
            // A push may have put the blob elsewhere since it was looked up.
            Err(StoreError::Damaged(_)) => Ok(self.store.check_blob(&self.find_replaced(blob).await?).await?),
            checked => Ok(checked?),
        }
    }

    /// Opens a blob to read it: from memory, or else from its file.
    pub async fn open(&self, blob: Blob) -> Result<OpenBlob, RegistryError> {
        let source = match self.memory.get(&blob.digest) {
            Some(bytes) => Source::Memory(bytes),
            None => self.open_file(&blob).await?,
        };
        Ok(OpenBlob { digest: blob.digest, size: blob.size, source })
    }

    /// Takes a blob out of a repository; its bytes stay for other repositories.
    pub async fn delete_blob(&self, permit: &Permit<Delete>, digest: &Digest) -> Result<(), RegistryError> {
        self.check_delete()?;
        let (store, repository, name) = (self.store.clone(), permit.repository().clone(), *digest);
        let act = async move { store.unlink_blob(&repository, &name).await };
        let unlinked = change(act, self.forget_link(permit.repository(), digest)).await;
        match unlinked? {
            true => Ok(()),
            false => Err(self.not_found(permit, RegistryError::BlobUnknown(*digest)).await),
        }
    }

    /// The blob's link, from memory or from the store. Permission is a permit; membership is asked every time.
    async fn find(&self, permit: &Permit<Pull>, digest: &Digest) -> Result<BlobInfo, RegistryError> {
        let key = (permit.repository().clone(), *digest);
        let changes = self.store.blob_changes();
        if let Some((_, info)) = self.links.get(&key).filter(|(as_of, _)| *as_of == changes) {
            return Ok(info);
        }
        let ticket = self.links.ticket(&key);
        match self.store.blob(permit.repository(), digest).await? {
            Some(info) => {
                self.links.insert(ticket, key, (changes, info.clone()));
                Ok(info)
            }
            None => Err(self.not_found(permit, RegistryError::BlobUnknown(*digest)).await),
        }
    }

    /// Small blobs are taken into memory as they are first read: what is pushed is mostly pulled soon.
    async fn open_file(&self, blob: &Blob) -> Result<Source, RegistryError> {
        let file = match self.store.open_blob(&blob.info).await {
            Ok(file) => file,
            // A push may have put the blob elsewhere since it was looked up.
            Err(StoreError::Damaged(_)) => self.store.open_blob(&self.find_replaced(blob).await?).await?,
            Err(error) => return Err(error.into()),
        };
        let fill = if self.memory.admits(blob.size) { self.fills.try_acquire().ok() } else { None };
        let Some(_fill) = fill else { return Ok(Source::File(file)) };
        let bytes =
            file.read_all().await.map_err(|error| RegistryError::Internal(format!("reading a blob: {error}")))?;
        self.memory.insert(blob.digest, bytes.clone());
        Ok(Source::Memory(bytes))
    }

    async fn find_replaced(&self, blob: &Blob) -> Result<BlobInfo, RegistryError> {
        self.links.forget(&(blob.repository.clone(), blob.digest));
        let found = self.store.blob(&blob.repository, &blob.digest).await?;
        found.ok_or(RegistryError::BlobUnknown(blob.digest))
    }

    /// Forgets that a repository has a blob, and where.
    pub(super) fn forget_link<T>(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> impl FnOnce(Option<&T>) + Send + use<T> {
        let (links, key) = (Arc::clone(&self.links), (repository.clone(), *digest));
        move |_| links.forget(&key)
    }
}

impl OpenBlob {
    /// Where its bytes are.
    pub const fn tier(&self) -> Tier {
        match self.source {
            Source::Memory(_) => Tier::Memory,
            Source::File(_) => Tier::File,
        }
    }

    /// The bytes of `range`, or all of them.
    pub fn read(self, range: Option<ByteRange>) -> Content {
        match (self.source, range.or(ByteRange::new(0, self.size.saturating_sub(1)))) {
            (Source::Memory(bytes), range) => Content::part_of(&bytes, range),
            (Source::File(file), Some(range)) if self.size > 0 => Content::File(file.read(range)),
            _ => Content::Memory(Bytes::new()),
        }
    }
}
