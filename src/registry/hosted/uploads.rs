//! Uploads: sessions that end in a blob.

use crate::access::Permit;
use crate::oci::{Algorithm, Digest, UploadId};
use crate::registry::RegistryError;
use crate::store::{CommitError, Upload, UploadError};

use super::{Hosted, change};

/// What came of asking for a mount.
pub enum Mounted {
    /// The blob is in the repository now.
    Yes,
    /// It is not to be had from there; an upload was begun instead.
    Upload(UploadId),
}

impl Hosted {
    /// Begins an upload of what will be named by `algorithm`, or costs another look if it is not.
    pub async fn begin_upload(&self, permit: Permit, algorithm: Algorithm) -> Result<UploadId, RegistryError> {
        let principal = permit.principal().to_string();
        self.store.begin_upload(permit.repository(), &principal, algorithm).await.map_err(not_begun)
    }

    /// Begins an upload for this request alone: unless it becomes a blob, nothing of it is left.
    pub async fn upload_once(&self, permit: Permit, algorithm: Algorithm) -> Result<Upload, RegistryError> {
        let principal = permit.principal().to_string();
        self.store.upload_once(permit.repository(), &principal, algorithm).await.map_err(not_begun)
    }

    /// Links a blob of one repository into another: `pull` is leave to read it there, `push` to write it here.
    pub async fn mount(&self, push: Permit, pull: Option<Permit>, digest: &Digest) -> Result<Mounted, RegistryError> {
        if let Some(pull) = pull {
            let (store, name) = (self.store.clone(), *digest);
            let (from, to) = (pull.repository().clone(), push.repository().clone());
            let act = async move { store.mount_blob(&from, &to, &name).await };
            if change(act, self.forget_link(push.repository(), digest)).await?.is_some() {
                return Ok(Mounted::Yes);
            }
        }
        self.begin_upload(push, digest.algorithm()).await.map(Mounted::Upload)
    }

    /// Takes an upload up again, for this request alone. Only who began it may.
    pub async fn upload(&self, permit: Permit, id: UploadId) -> Result<Upload, RegistryError> {
        let principal = permit.principal().to_string();
        self.store.upload(permit.repository(), &principal, id).await.map_err(|error| upload_error(error, id))
    }

    /// How many bytes an upload has.
    pub async fn upload_offset(&self, permit: Permit, id: UploadId) -> Result<u64, RegistryError> {
        let principal = permit.principal().to_string();
        let offset = self.store.upload_offset(permit.repository(), &principal, id).await;
        offset.map_err(|error| upload_error(error, id))
    }

    /// Makes an upload a blob. The work goes on if the caller leaves.
    pub async fn commit(&self, permit: Permit, upload: Upload, digest: &Digest) -> Result<(), RegistryError> {
        let name = *digest;
        let act = async move { upload.commit(&name).await };
        change(act, self.forget_link(permit.repository(), digest)).await.map(drop)
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
