//! What can go wrong in a registry, in its own words. HTTP statuses are the gateway's business.

use crate::oci::{Digest, ManifestError, Mismatch, Reference, RepositoryName, Tag, UploadId};

use super::legacy::LegacyError;
use super::remote::RemoteError;

/// Why a registry did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryError {
    /// Nothing was ever pushed under this name.
    NameUnknown(RepositoryName),
    /// The repository has no such blob.
    BlobUnknown(Digest),
    /// The repository has no such manifest.
    ManifestUnknown(Reference),
    /// No such upload in this repository, of this user.
    UploadUnknown(UploadId),
    /// Another request writes to this upload now.
    UploadBusy(UploadId),
    /// The bytes do not go on where the upload is.
    UploadOffset {
        /// How many bytes it has.
        expected: u64,
        /// Where the request begins.
        found: u64,
    },
    /// A request said that it brings so many bytes, and brought another number.
    UploadLength {
        /// What it said, in bytes.
        stated: u64,
        /// What came, in bytes.
        received: u64,
    },
    /// What was uploaded is not what its digest says.
    DigestMismatch(Box<Mismatch>),
    /// The manifest cannot be stored.
    ManifestInvalid(ManifestError),
    /// The digest in the path is not that of the manifest.
    ManifestDigest {
        /// The one in the path.
        stated: Digest,
        /// The manifest's own.
        actual: Digest,
    },
    /// The manifest needs what the repository does not have.
    MissingChildren(Vec<Digest>),
    /// This tag is there, and the caller may only make new ones.
    TagExists(Tag),
    /// Deleting is switched off.
    DeleteDisabled,
    /// As many uploads are open as are allowed.
    TooManyUploads,
    /// The disk is full.
    NoSpace,
    /// The disk cannot be written.
    ReadOnly,
    /// The upstream of this name is a mirror: nothing can be pushed to it.
    ReadOnlyMirror(String),
    /// A registry elsewhere did not give or take it.
    Remote(Box<RemoteError>),
    /// The v1 registry did not do it.
    Legacy(Box<LegacyError>),
    /// Our own fault; the text is for the log only.
    Internal(String),
}

impl From<LegacyError> for RegistryError {
    fn from(error: LegacyError) -> Self {
        Self::Legacy(Box::new(error))
    }
}
