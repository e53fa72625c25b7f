//! The registry inside the program: the store, with memory in front of it.

mod blobs;
mod lists;
mod manifests;
mod uploads;

pub use blobs::{Blob, OpenBlob};
pub use lists::{Page, index_of};
pub use manifests::{ManifestPut, Pushed};
pub use uploads::{Mounted, Upload};

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::access::Leave;
use crate::cache::{Memory, Volatile};
use crate::oci::{Digest, MediaType, RepositoryName, Tag};
use crate::store::{BlobInfo, Rotten, Store, StoreError};

use super::RegistryError;
use super::fallback::{Fallback, MADE_LIFETIME};

/// How many blobs are read into memory at once; the others are sent from their files, so that a rush of cold pulls does not
/// hold more than this many objects beside the tier.
const FILLS_MAX: usize = 8;

/// The built-in registry.
pub struct Hosted {
    store: Store,
    memory: Memory,
    /// Which tag names which manifest.
    tags: Arc<Volatile<(RepositoryName, Tag), Digest>>,
    /// Which blobs may be read through which repository, as of a number of [`Store::blob_changes`].
    links: Arc<Volatile<(RepositoryName, Digest), (u64, BlobInfo)>>,
    /// Which manifests are in which repository.
    manifests: Arc<Volatile<(RepositoryName, Digest), MediaType>>,
    /// Lists of referrers that were asked for by their tag.
    fallback: Fallback<RepositoryName>,
    /// Whole blobs that are being read into memory.
    fills: Semaphore,
    delete: bool,
}

impl Hosted {
    /// A registry over `store`. `delete` says whether anything may be deleted.
    pub fn new(store: Store, memory: Memory, delete: bool) -> Self {
        let third = memory.names_bytes() / 3;
        Self {
            store,
            memory,
            tags: Arc::new(Volatile::new(third, |(name, tag), _| name.as_str().len() + tag.as_str().len())),
            links: Arc::new(Volatile::new(third, |(name, _), (_, blob)| name.as_str().len() + blob.heap_bytes())),
            manifests: Arc::new(Volatile::new(third, |(name, _), _| name.as_str().len())),
            fallback: Fallback::new(MADE_LIFETIME),
            fills: Semaphore::new(FILLS_MAX),
            delete,
        }
    }

    /// How many bytes the memory tier holds.
    pub fn memory_bytes(&self) -> u64 {
        self.memory.size_bytes()
    }

    /// How much was found that is not what was hashed.
    pub fn rotten(&self) -> Rotten {
        self.store.rotten()
    }

    /// Whether what was written stays written.
    pub fn is_healthy(&self) -> bool {
        self.store.healthy()
    }

    /// Why what is kept cannot be read now, if it cannot.
    pub fn unreadable(&self) -> Option<String> {
        self.store.unreadable()
    }

    /// Whether nothing can be pushed, because the data directory was read-only at the start.
    pub fn is_read_only(&self) -> bool {
        self.store.is_read_only()
    }

    /// Whether anything was ever pushed under this name.
    pub async fn has(&self, repository: &RepositoryName) -> Result<bool, RegistryError> {
        Ok(self.store.has_repository(repository).await?)
    }

    fn check_delete(&self) -> Result<(), RegistryError> {
        if self.delete { Ok(()) } else { Err(RegistryError::DeleteDisabled) }
    }

    /// What to say where something was not found: that the repository itself is unknown, if it is, so that a repository
    /// that is not there and one that is hidden look the same.
    async fn not_found(&self, permit: &impl Leave, missing: RegistryError) -> RegistryError {
        match self.store.has_repository(permit.repository()).await {
            Ok(true) => missing,
            Ok(false) => RegistryError::NameUnknown(permit.repository().clone()),
            Err(error) => error.into(),
        }
    }
}

/// Changes what is stored and then forgets what was remembered of it, in a task that goes on when the client leaves: a
/// change that was made and not forgotten would be answered with its old value for as long as that is remembered.
async fn change<T, E>(
    act: impl Future<Output = Result<T, E>> + Send + 'static,
    forget: impl FnOnce(Option<&T>) + Send + 'static,
) -> Result<T, RegistryError>
where
    T: Send + 'static,
    E: Into<RegistryError> + Send + 'static,
{
    let task = tokio::spawn(async move {
        let done = act.await;
        forget(done.as_ref().ok());
        done
    });
    match task.await {
        Ok(done) => done.map_err(Into::into),
        Err(error) => Err(RegistryError::Internal(error.to_string())),
    }
}

impl From<StoreError> for RegistryError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSpace => Self::NoSpace,
            StoreError::ReadOnly => Self::ReadOnly,
            // It was found rotten just now, or deleted.
            StoreError::Damaged(digest) => Self::BlobUnknown(digest),
            other => Self::Internal(other.to_string()),
        }
    }
}
