//! Reading, mounting and unlinking blobs.

use bytes::Bytes;

use crate::access::Permit;
use crate::oci::{ByteRange, Digest};
use crate::store::{BlobFile, BlobInfo, BlobReader, StoreError};

use super::super::RegistryError;
use super::Hosted;

/// A blob that may be read.
pub struct Blob {
    /// Its name.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    source: Source,
}

enum Source {
    Memory(Bytes),
    File(BlobFile),
}

/// Where bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// The memory tier.
    Memory,
    /// A file.
    File,
}

/// The bytes of a blob, or of a part of it.
pub enum Content {
    /// In memory.
    Memory(Bytes),
    /// To be read from a file.
    File(BlobReader),
}

impl Hosted {
    /// Whether a blob is there, and its size in bytes: what HEAD asks.
    pub async fn blob_size(&self, permit: Permit, digest: &Digest) -> Result<u64, RegistryError> {
        self.find(&permit, digest).await.map(|blob| blob.size)
    }

    /// A blob to read.
    pub async fn blob(&self, permit: Permit, digest: &Digest) -> Result<Blob, RegistryError> {
        let info = self.find(&permit, digest).await?;
        let source = match self.memory.get(digest) {
            Some(bytes) => Source::Memory(bytes),
            None => self.open(&permit, &info).await?,
        };
        Ok(Blob { digest: *digest, size: info.size, source })
    }

    /// Takes a blob out of a repository; its bytes stay for other repositories.
    pub async fn delete_blob(&self, permit: Permit, digest: &Digest) -> Result<(), RegistryError> {
        self.check_delete()?;
        let key = (permit.repository().clone(), *digest);
        self.links.forget(&key);
        let unlinked = self.store.unlink_blob(permit.repository(), digest).await;
        self.links.forget(&key);
        match unlinked? {
            true => Ok(()),
            false => Err(self.not_found(&permit, RegistryError::BlobUnknown(*digest)).await),
        }
    }

    /// The blob's link, from memory or from the store. Permission is a permit; membership is asked every time.
    async fn find(&self, permit: &Permit, digest: &Digest) -> Result<BlobInfo, RegistryError> {
        let key = (permit.repository().clone(), *digest);
        if let Some(info) = self.links.get(&key) {
            return Ok(info);
        }
        let ticket = self.links.ticket(&key);
        match self.store.blob(permit.repository(), digest).await? {
            Some(info) => {
                self.links.insert(ticket, key, info.clone());
                Ok(info)
            }
            None => Err(self.not_found(permit, RegistryError::BlobUnknown(*digest)).await),
        }
    }

    /// Small blobs are taken into memory as they are first read: what is pushed is mostly pulled soon.
    async fn open(&self, permit: &Permit, info: &BlobInfo) -> Result<Source, RegistryError> {
        let file = match self.store.open_blob(info).await {
            Err(StoreError::Damaged(digest)) => self.open_replaced(permit, &digest).await?,
            opened => opened?,
        };
        let fill = if self.memory.admits(info.size) { self.fills.try_acquire().ok() } else { None };
        let Some(_fill) = fill else { return Ok(Source::File(file)) };
        let bytes =
            file.read_all().await.map_err(|error| RegistryError::Internal(format!("reading a blob: {error}")))?;
        self.memory.insert(info.digest, bytes.clone());
        Ok(Source::Memory(bytes))
    }

    /// Opens a blob whose file was not where it was known to be: a push may have put it elsewhere since.
    async fn open_replaced(&self, permit: &Permit, digest: &Digest) -> Result<BlobFile, RegistryError> {
        self.links.forget(&(permit.repository().clone(), *digest));
        let info = self.find(permit, digest).await?;
        Ok(self.store.open_blob(&info).await?)
    }
}

impl Blob {
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
            (Source::Memory(bytes), Some(range)) if !bytes.is_empty() => Content::Memory(slice(&bytes, range)),
            (Source::File(file), Some(range)) if self.size > 0 => Content::File(file.read(range)),
            _ => Content::Memory(Bytes::new()),
        }
    }
}

/// The part of `bytes` that `range` names; what lies beyond the end is left out.
fn slice(bytes: &Bytes, range: ByteRange) -> Bytes {
    let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    bytes.slice(index(range.start())..index(range.last() + 1))
}
