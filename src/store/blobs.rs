//! Which blobs there are, and which repository has them.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use sqlx::SqliteConnection;

use crate::oci::{Digest, RepositoryName, UploadId, Verified};

use super::database::{now, repository_id, repository_id_or_insert, size_for_row, size_from_row};
use super::{BlobFile, Inner, Store, StoreError};

/// A link younger than this is not renewed: a check before a push should not cost a write.
const LINK_RENEWAL_AGE: Duration = Duration::from_secs(60 * 60);

/// A blob that a repository has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its name.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    pub(super) key: String,
}

impl BlobInfo {
    /// How many bytes it has on the heap.
    pub const fn heap_bytes(&self) -> usize {
        self.key.len()
    }

    fn from_row(digest: Digest, (key, size): (String, i64)) -> Result<Self, StoreError> {
        Ok(Self { digest, size: size_from_row(size)?, key })
    }
}

impl Store {
    /// The blob, if this repository has it.
    pub async fn blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<BlobInfo>, StoreError> {
        let query = "SELECT blobs.key, blobs.size FROM repositories \
                     JOIN repository_blobs ON repository_blobs.repository = repositories.id \
                     JOIN blobs ON blobs.digest = repository_blobs.digest \
                     WHERE repositories.name = $1 AND repository_blobs.digest = $2";
        let query = sqlx::query_as(query).bind(repository.as_str()).bind(digest.to_string());
        let row = query.fetch_optional(self.inner.database.readers()).await?;
        row.map(|row| BlobInfo::from_row(*digest, row)).transpose()
    }

    /// Opens the blob's file.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] if it is gone or has another size; it may have been deleted since it was looked up.
    pub async fn open_blob(&self, info: &BlobInfo) -> Result<BlobFile, StoreError> {
        let (inner, info) = (self.inner.clone(), info.clone());
        let size = info.size;
        let file = self.inner.on_a_thread(move || inner.open_file(&info)).await??;
        Ok(BlobFile::new(Arc::new(file), size, self.inner.buffers.clone(), self.inner.runtime.clone()))
    }

    /// Gives the repository `to` a blob that `from` has; `None` if `from` does not have it.
    pub async fn mount_blob(
        &self,
        from: &RepositoryName,
        to: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<BlobInfo>, StoreError> {
        let Some(info) = self.blob(from, digest).await? else { return Ok(None) };
        let (from, to, digest) = (from.clone(), to.clone(), digest.to_string());
        let mounted = self.inner.database.write(move |connection| Box::pin(mount(connection, from, to, digest)));
        Ok(mounted.await?.then_some(info))
    }

    /// Takes a blob from a repository; false if it did not have it. Manifests that need it are not asked: whoever may
    /// delete, may delete in any order.
    pub async fn unlink_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool, StoreError> {
        let delete = "DELETE FROM repository_blobs WHERE digest = $2 \
                      AND repository = (SELECT id FROM repositories WHERE name = $1)";
        self.change_link(delete, repository, digest, None).await
    }

    /// Keeps a blob from being collected for another grace, because somebody is about to push what needs it; false if
    /// the repository does not have it.
    pub async fn renew_link(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool, StoreError> {
        let query = "SELECT linked_at FROM repository_blobs WHERE digest = $2 \
                     AND repository = (SELECT id FROM repositories WHERE name = $1)";
        let query = sqlx::query_scalar(query).bind(repository.as_str()).bind(digest.to_string());
        let linked_at: Option<i64> = query.fetch_optional(self.inner.database.readers()).await?;
        match linked_at {
            None => Ok(false),
            Some(linked_at) if is_fresh(linked_at) => Ok(true),
            Some(_) => {
                let update = "UPDATE repository_blobs SET linked_at = $3 WHERE digest = $2 \
                              AND repository = (SELECT id FROM repositories WHERE name = $1)";
                self.change_link(update, repository, digest, Some(now())).await
            }
        }
    }

    async fn change_link(
        &self,
        statement: &'static str,
        repository: &RepositoryName,
        digest: &Digest,
        time: Option<i64>,
    ) -> Result<bool, StoreError> {
        let (repository, digest) = (repository.clone(), digest.to_string());
        let change = self.inner.database.write(move |connection| {
            Box::pin(async move {
                let query = sqlx::query(statement).bind(repository.as_str().to_owned()).bind(digest);
                let query = if let Some(time) = time { query.bind(time) } else { query };
                Ok::<_, StoreError>(query.execute(connection).await?.rows_affected() > 0)
            })
        });
        change.await
    }
}

fn is_fresh(linked_at: i64) -> bool {
    // A clock that went backwards must not keep a link from being renewed.
    u64::try_from(now() - linked_at).is_ok_and(|age| Duration::from_millis(age) < LINK_RENEWAL_AGE)
}

/// Links what `from` has into `to`; false if `from` does not have it, or no more: others may have come first.
pub(super) async fn mount(
    connection: &mut SqliteConnection,
    from: RepositoryName,
    to: RepositoryName,
    digest: String,
) -> Result<bool, StoreError> {
    if !has_blob(connection, &from, &digest).await? {
        return Ok(false);
    }
    let to = repository_id_or_insert(connection, to.as_str()).await?;
    link(connection, to, &digest).await?;
    Ok(true)
}

async fn has_blob(connection: &mut SqliteConnection, name: &RepositoryName, digest: &str) -> Result<bool, StoreError> {
    let Some(repository) = repository_id(connection, name.as_str()).await? else { return Ok(false) };
    let query = sqlx::query("SELECT 1 FROM repository_blobs WHERE repository = $1 AND digest = $2");
    Ok(query.bind(repository).bind(digest).fetch_optional(connection).await?.is_some())
}

/// Inserts the link, or makes it young again.
async fn link(connection: &mut SqliteConnection, repository: i64, digest: &str) -> Result<(), StoreError> {
    let insert = "INSERT INTO repository_blobs (repository, digest, linked_at) VALUES ($1, $2, $3) \
                  ON CONFLICT (repository, digest) DO UPDATE SET linked_at = excluded.linked_at";
    sqlx::query(insert).bind(repository).bind(digest).bind(now()).execute(connection).await?;
    Ok(())
}

impl Inner {
    /// Opens a blob's file if it has the right size. Blocks.
    fn open_file(&self, info: &BlobInfo) -> Result<File, StoreError> {
        let opened = File::open(self.directory.blob(&info.key)).and_then(|file| Ok((file.metadata()?.len(), file)));
        match opened {
            Ok((size, file)) if size == info.size => Ok(file),
            Ok(_) => Err(StoreError::Damaged(info.digest)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StoreError::Damaged(info.digest)),
            Err(error) => Err(StoreError::io("open a blob", &error)),
        }
    }
}

/// What there is of a blob that is being pushed.
pub(super) enum Held {
    Missing,
    Whole(BlobInfo),
    /// There is a row, but its file is gone or has a wrong size.
    Damaged(BlobInfo),
}

/// Looks for a blob, in whatever repository. Only for whoever has just shown that they hold its bytes.
pub(super) async fn find_held(inner: &Arc<Inner>, digest: &Digest) -> Result<Held, StoreError> {
    let row = sqlx::query_as("SELECT key, size FROM blobs WHERE digest = $1").bind(digest.to_string());
    let Some(row) = row.fetch_optional(inner.database.readers()).await? else { return Ok(Held::Missing) };
    let info = BlobInfo::from_row(*digest, row)?;
    let opened = inner.on_a_thread({
        let (inner, info) = (inner.clone(), info.clone());
        move || inner.open_file(&info).map(drop)
    });
    match opened.await? {
        Ok(()) => Ok(Held::Whole(info)),
        Err(StoreError::Damaged(_)) => Ok(Held::Damaged(info)),
        Err(error) => Err(error),
    }
}

/// Ends an upload of a blob that is held already; false, and nothing done, if it was collected meanwhile.
pub(super) async fn link_held(
    inner: &Inner,
    upload: UploadId,
    repository: &RepositoryName,
    digest: Digest,
) -> Result<bool, StoreError> {
    let (repository, digest) = (repository.clone(), digest.to_string());
    let linked = inner.database.write(move |connection| {
        Box::pin(async move {
            let query = sqlx::query("SELECT 1 FROM blobs WHERE digest = $1").bind(&digest);
            if query.fetch_optional(&mut *connection).await?.is_none() {
                return Ok(false);
            }
            link_and_end(connection, &repository, &digest, upload).await?;
            Ok::<_, StoreError>(true)
        })
    });
    linked.await
}

/// A blob whose file is in its place and synced.
pub(super) struct NewBlob {
    pub(super) verified: Verified,
    pub(super) key: String,
    pub(super) upload: UploadId,
    pub(super) repository: RepositoryName,
    /// The one it replaces.
    pub(super) damaged: Option<BlobInfo>,
}

/// Records a blob and its link, and ends its upload. The key of the answer is the winner's: another upload of the same
/// bytes may have been first.
pub(super) async fn record(inner: &Inner, new: NewBlob) -> Result<BlobInfo, StoreError> {
    let insert = "INSERT INTO blobs (digest, key, size, created_at) VALUES ($1, $2, $3, $4) \
                  ON CONFLICT (digest) DO NOTHING";
    let recorded = inner.database.write(move |connection| {
        Box::pin(async move {
            let digest = new.verified.digest().to_string();
            let size = size_for_row(new.verified.size())?;
            if let Some(damaged) = &new.damaged {
                let replace = "UPDATE blobs SET key = $1, size = $2 WHERE digest = $3 AND key = $4";
                let replace = sqlx::query(replace).bind(&new.key).bind(size).bind(&digest).bind(&damaged.key);
                replace.execute(&mut *connection).await?;
            }
            let row = sqlx::query(insert).bind(&digest).bind(&new.key).bind(size).bind(now());
            row.execute(&mut *connection).await?;
            link_and_end(connection, &new.repository, &digest, new.upload).await?;
            let winner = sqlx::query_as("SELECT key, size FROM blobs WHERE digest = $1").bind(&digest);
            BlobInfo::from_row(*new.verified.digest(), winner.fetch_one(connection).await?)
        })
    });
    recorded.await
}

async fn link_and_end(
    connection: &mut SqliteConnection,
    repository: &RepositoryName,
    digest: &str,
    upload: UploadId,
) -> Result<(), StoreError> {
    let repository = repository_id_or_insert(connection, repository.as_str()).await?;
    link(connection, repository, digest).await?;
    sqlx::query("DELETE FROM uploads WHERE id = $1").bind(upload.to_string()).execute(connection).await?;
    Ok(())
}
