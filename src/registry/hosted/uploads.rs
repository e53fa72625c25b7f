//! Uploads: sessions that end in a blob.

use bytes::Bytes;

use crate::access::{Create, Leave as _, Permit, Pull};
use crate::oci::{Algorithm, Digest, UploadId};
use crate::registry::RegistryError;
use crate::store::{self, CommitError, UploadError};

use super::{Hosted, change};

/// What came of asking for a mount.
pub enum Mounted {
    /// The blob is in the repository now.
    Yes,
    /// It is not to be had from there; an upload was begun instead.
    Upload(UploadId),
}

/// An upload that one request has taken, with the permit that it was opened with.
#[derive(Debug)]
pub struct Upload {
    permit: Permit<Create>,
    upload: store::Upload,
}

impl Hosted {
    /// Begins an upload of what will be named by `algorithm`, or costs another look if it is not.
    pub async fn begin_upload(&self, permit: &Permit<Create>, algorithm: Algorithm) -> Result<UploadId, RegistryError> {
        let principal = permit.principal().to_string();
        self.store.begin_upload(permit.repository(), &principal, algorithm).await.map_err(not_begun)
    }

    /// Begins an upload for this request alone: unless it becomes a blob, nothing of it is left.
    pub async fn upload_once(&self, permit: Permit<Create>, algorithm: Algorithm) -> Result<Upload, RegistryError> {
        let principal = permit.principal().to_string();
        let upload = self.store.upload_once(permit.repository(), &principal, algorithm).await.map_err(not_begun)?;
        Ok(Upload { permit, upload })
    }

    /// Links a blob of the repository of `pull` into that of `create`.
    pub async fn mount(
        &self,
        create: &Permit<Create>,
        pull: Option<Permit<Pull>>,
        digest: &Digest,
    ) -> Result<Mounted, RegistryError> {
        if let Some(pull) = pull {
            let (store, name) = (self.store.clone(), *digest);
            let (from, to) = (pull.repository().clone(), create.repository().clone());
            let act = async move { store.mount_blob(&from, &to, &name).await };
            if change(act, self.forget_link(create.repository(), digest)).await?.is_some() {
                return Ok(Mounted::Yes);
            }
        }
        self.begin_upload(create, digest.algorithm()).await.map(Mounted::Upload)
    }

    /// Takes an upload up again, for this request alone. Only who began it may.
    pub async fn upload(&self, permit: Permit<Create>, id: UploadId) -> Result<Upload, RegistryError> {
        let principal = permit.principal().to_string();
        let upload = self.store.upload(permit.repository(), &principal, id).await;
        Ok(Upload { permit, upload: upload.map_err(|error| upload_error(error, id))? })
    }

    /// How many bytes an upload has.
    pub async fn upload_offset(&self, permit: &Permit<Create>, id: UploadId) -> Result<u64, RegistryError> {
        let principal = permit.principal().to_string();
        let offset = self.store.upload_offset(permit.repository(), &principal, id).await;
        offset.map_err(|error| upload_error(error, id))
    }

    /// Makes an upload a blob. The work goes on if the caller leaves.
    pub async fn commit(&self, upload: Upload, digest: &Digest) -> Result<(), RegistryError> {
        let Upload { permit, upload } = upload;
        let name = *digest;
        let act = async move { upload.commit(&name).await };
        change(act, self.forget_link(permit.repository(), digest)).await.map(drop)
    }
}

impl Upload {
    /// How many bytes it has.
    pub const fn offset(&self) -> u64 {
        self.upload.offset()
    }

    /// Appends bytes.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), RegistryError> {
        Ok(self.upload.write(bytes).await?)
    }

    /// Leaves it for another request to go on with; how many bytes it has then.
    pub async fn pause(self) -> Result<u64, RegistryError> {
        Ok(self.upload.pause().await?)
    }

    /// What is written from here on can be [taken back](Self::take_back).
    pub fn attempt(&mut self) {
        self.upload.attempt();
    }

    /// Leaves it as it was at [`Upload::attempt`].
    pub async fn take_back(self) -> Result<(), RegistryError> {
        Ok(self.upload.take_back().await?)
    }

    /// Ends it; nothing of it is left.
    pub async fn cancel(self) -> Result<(), RegistryError> {
        Ok(self.upload.cancel().await?)
    }
}

impl From<CommitError> for RegistryError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Mismatch(mismatch) => Self::DigestMismatch(mismatch),
            CommitError::Store(error) => error.into(),
        }
    }
}

fn upload_error(error: UploadError, id: UploadId) -> RegistryError {
    match error {
        UploadError::Unknown => RegistryError::UploadUnknown(id),
        UploadError::Busy => RegistryError::UploadBusy(id),
        other => not_begun(other),
    }
}

fn not_begun(error: UploadError) -> RegistryError {
    match error {
        UploadError::TooManyUploads => RegistryError::TooManyUploads,
        UploadError::Store(error) => error.into(),
        other => RegistryError::Internal(other.to_string()),
    }
}
