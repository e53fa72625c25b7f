//! Which blobs there are, and which repository has them.

use std::fs::{self, File, Metadata};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use sqlx::SqliteConnection;

use crate::files::{Proven, Sums};
use crate::oci::{Digest, RepositoryName, UploadId};

use super::database::{now, repository_id, repository_id_or_insert, size_for_row, size_from_row};
use super::{BlobFile, Inner, Store, StoreError, rot};

/// A link younger than this is not renewed: a check before a push should not cost a write.
const LINK_RENEWAL_AGE: Duration = Duration::from_secs(60 * 60);

/// A blob that a repository has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its digest.
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

    pub(super) fn from_row(digest: Digest, (key, size): (String, i64)) -> Result<Self, StoreError> {
        Ok(Self { digest, size: size_from_row(size)?, key })
    }
}

impl Store {
    /// The blob, if this repository has it.
    pub async fn blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<BlobInfo>, StoreError> {
        let query = "SELECT blobs.key, blobs.size FROM repositories \
                     JOIN repository_blobs ON repository_blobs.repository = repositories.id \
                     JOIN blobs ON blobs.digest = repository_blobs.digest \
                     WHERE repositories.name = $1 AND repository_blobs.digest = $2 AND blobs.rotten_at IS NULL";
        let query = sqlx::query_as(query).bind(repository.as_str()).bind(digest.to_string());
        let row = query.fetch_optional(self.inner.database.readers()).await?;
        row.map(|row| BlobInfo::from_row(*digest, row)).transpose()
    }

    /// Opens the blob's file, or gives the one that somebody has open.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] if it is gone or has another size: the blob is not there any more then, or its file has been
    /// replaced since it was looked up.
    pub async fn open_blob(&self, info: &BlobInfo) -> Result<BlobFile, StoreError> {
        if let Some(file) = self.inner.open.get(&info.key) {
            return Ok(file);
        }
        let sums = rot::sums(&self.inner, info).await?;
        let (inner, name) = (self.inner.clone(), info.clone());
        let opened = self.inner.on_a_thread(move || {
            inner.open.get_or_open(&name.key, || {
                let file = Arc::new(inner.open_file(&name)?);
                Ok(BlobFile::checked(file, name.size, sums, rot::doubt(&inner, &name), inner.reading.clone()))
            })
        });
        self.told_of(info, opened.await?).await
    }

    /// Whether the blob's file is there and as long as it should be: the same errors as of [`Self::open_blob`].
    pub async fn check_blob(&self, info: &BlobInfo) -> Result<(), StoreError> {
        if self.inner.open.get(&info.key).is_some() {
            return Ok(());
        }
        let (inner, name) = (self.inner.clone(), info.clone());
        let checked =
            self.inner.on_a_thread(move || inner.check_file(&name, fs::metadata(inner.directory.blob(&name.key))));
        self.told_of(info, checked.await?).await
    }

    /// A blob whose file is not there is not there.
    async fn told_of<T>(&self, info: &BlobInfo, found: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error @ StoreError::Damaged(_)) = &found {
            // The answer is right without it; the next who asks tries again.
            if let Err(failed) = rot::set_aside(&self.inner, info, rot::GONE).await {
                tracing::warn!(digest = %info.digest, %error, %failed, "a blob could not be marked as rotten");
            }
        }
        found
    }

    /// Gives the repository `to` a blob that `from` has; `None` if `from` does not have it, or its file is gone.
    pub async fn mount_blob(
        &self,
        from: &RepositoryName,
        to: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<BlobInfo>, StoreError> {
        let Some(info) = self.blob(from, digest).await? else { return Ok(None) };
        match self.check_blob(&info).await {
            Ok(()) => {}
            Err(StoreError::Damaged(_)) => return Ok(None),
            Err(error) => return Err(error),
        }
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
    let query = "SELECT 1 FROM repository_blobs JOIN blobs ON blobs.digest = repository_blobs.digest \
                 WHERE repository = $1 AND repository_blobs.digest = $2 AND blobs.rotten_at IS NULL";
    let query = sqlx::query(query);
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
    pub(super) fn open_file(&self, info: &BlobInfo) -> Result<File, StoreError> {
        let opened = File::open(self.directory.blob(&info.key));
        let opened = opened.and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = opened.map_or_else(|error| (Err(error), None), |(found, file)| (Ok(found), Some(file)));
        self.check_file(info, metadata)?;
        file.ok_or(StoreError::Damaged(info.digest))
    }

    /// Whether a blob's file is there and has the right size. Blocks.
    fn check_file(&self, info: &BlobInfo, metadata: io::Result<Metadata>) -> Result<(), StoreError> {
        match metadata {
            Ok(metadata) if metadata.len() == info.size => Ok(()),
            Ok(_) => Err(StoreError::Damaged(info.digest)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.directory.check_here()?;
                Err(StoreError::Damaged(info.digest))
            }
            Err(error) => Err(StoreError::io("open a blob", &error)),
        }
    }
}

/// What there is of a blob that is being pushed.
pub(super) enum Held {
    Missing,
    Whole(BlobInfo),
    /// There is a row, but its file may not be what it should be.
    Flawed(Replaced),
}

/// A blob whose file gives way to another.
pub(super) struct Replaced {
    pub(super) info: BlobInfo,
    /// What is wrong with it, if that was found just now.
    pub(super) flaw: Option<&'static str>,
}

/// Looks for a blob, in whatever repository. Only for whoever has just shown that they hold its bytes. Its file is read:
/// somebody pushes because they believe that it is not there or not right.
pub(super) async fn find_held(inner: &Arc<Inner>, digest: &Digest) -> Result<Held, StoreError> {
    let query = "SELECT key, size, rotten_at, sums FROM blobs LEFT JOIN blob_sums USING (digest) WHERE digest = $1";
    let row = sqlx::query_as::<_, (String, i64, Option<i64>, Option<Vec<u8>>)>(query).bind(digest.to_string());
    let Some((key, size, rotten_at, sums)) = row.fetch_optional(inner.database.readers()).await? else {
        return Ok(Held::Missing);
    };
    let info = BlobInfo::from_row(*digest, (key, size))?;
    let sums = sums.and_then(|sums| Sums::from_bytes(&sums, info.size));
    let (None, Some(sums)) = (rotten_at, sums) else { return Ok(Held::Flawed(Replaced { info, flaw: None })) };
    let here = inner.clone();
    inner
        .on_a_thread(move || match here.open_file(&info) {
            Err(StoreError::Damaged(_)) => Ok(Held::Flawed(Replaced { info, flaw: Some(rot::GONE) })),
            Err(error) => Err(error),
            Ok(file) => match sums.hold_file(&file) {
                Ok(true) => Ok(Held::Whole(info)),
                _ => Ok(Held::Flawed(Replaced { info, flaw: Some(rot::OTHER_BYTES) })),
            },
        })
        .await?
}

/// Ends an upload of a blob that is held already; false, and nothing done, if that file is not the blob's any more.
pub(super) async fn link_held(
    inner: &Inner,
    upload: UploadId,
    repository: &RepositoryName,
    info: &BlobInfo,
) -> Result<bool, StoreError> {
    let (repository, digest, key) = (repository.clone(), info.digest.to_string(), info.key.clone());
    let linked = inner.database.write(move |connection| {
        Box::pin(async move {
            let query = sqlx::query("SELECT 1 FROM blobs WHERE digest = $1 AND key = $2 AND rotten_at IS NULL");
            let query = query.bind(&digest).bind(key);
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
    pub(super) proven: Proven,
    pub(super) key: String,
    pub(super) upload: UploadId,
    pub(super) repository: RepositoryName,
    /// The key of the file that it replaces.
    pub(super) old: Option<String>,
}

/// Records a blob and its link, and ends its upload. The key of the answer is the winner's: another upload of the same
/// bytes may have been first.
pub(super) async fn record(inner: &Inner, new: NewBlob) -> Result<BlobInfo, StoreError> {
    let replace = "UPDATE blobs SET key = $1, size = $2, rotten_at = NULL \
                   WHERE digest = $3 AND (key = $4 OR rotten_at IS NOT NULL)";
    let insert = "INSERT INTO blobs (digest, key, size, created_at) VALUES ($1, $2, $3, $4) \
                  ON CONFLICT (digest) DO NOTHING";
    let recorded = inner.database.write(move |connection| {
        Box::pin(async move {
            let verified = new.proven.verified;
            let (digest, size) = (verified.digest().to_string(), size_for_row(verified.size())?);
            if let Some(old) = new.old {
                let replace = sqlx::query(replace).bind(&new.key).bind(size).bind(&digest).bind(old);
                replace.execute(&mut *connection).await?;
            }
            let row = sqlx::query(insert).bind(&digest).bind(&new.key).bind(size).bind(now());
            row.execute(&mut *connection).await?;
            rot::record_sums(connection, &digest, &new.proven.sums).await?;
            link_and_end(connection, &new.repository, &digest, new.upload).await?;
            let winner = sqlx::query_as("SELECT key, size FROM blobs WHERE digest = $1").bind(&digest);
            BlobInfo::from_row(*verified.digest(), winner.fetch_one(connection).await?)
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
