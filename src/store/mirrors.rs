//! What is known of the registries elsewhere: which digests belong to which of their repositories and which of them they
//! sent, what their tags name and their lists of referrers are, and what the cache is to keep.

use std::fmt;
use std::time::{Duration, SystemTime};

use sqlx::SqliteConnection;

use crate::oci::{Digest, RepositoryName, Tag};

use super::database::{digest_from_row, now, size_for_row, size_from_row};
use super::listing::{after_all, only_one};
use super::{Store, StoreError};

/// How many rows a sweep removes in one transaction, so that pushes do not wait for it.
const SWEEP_ROWS: i64 = 1_000;

/// A digest that belongs to a repository elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes, if somebody said it.
    pub size: Option<u64>,
    /// Of a manifest: what it is.
    pub media_type: Option<String>,
    /// Whether the registry itself gave or showed it through this repository; else a manifest there only named it.
    pub proven: bool,
}

/// What a registry elsewhere is asked for again and again, as its answer can change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Pointer {
    /// Which manifest a tag names.
    Tag(Tag),
    /// The list of what refers to a manifest.
    Referrers(Digest),
}

impl fmt::Display for Pointer {
    /// As it stands in a row. No tag has a colon, and every digest has one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Referrers(subject) => subject.fmt(f),
        }
    }
}

/// What a registry elsewhere said last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known<T> {
    /// What it named; none, if it has no such thing.
    pub what: Option<T>,
    /// When it was asked.
    pub checked_at: SystemTime,
}

/// The status of every row of a [`Pointer`].
const FOUND: &str = "found";

impl Store {
    /// What is known of `digest` in a repository of an upstream; `None`, if it is not known to belong there.
    pub async fn member(
        &self,
        upstream: &str,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Member>, StoreError> {
        let query =
            "SELECT size, media_type, proven FROM mirror_blobs WHERE upstream = $1 AND repository = $2 AND digest = $3";
        let query = sqlx::query_as::<_, (Option<i64>, Option<String>, bool)>(query);
        let query = query.bind(upstream).bind(repository.as_str()).bind(digest.to_string());
        let Some((size, media_type, proven)) = query.fetch_optional(self.inner.database.readers()).await? else {
            return Ok(None);
        };
        Ok(Some(Member { digest: *digest, size: size.map(size_from_row).transpose()?, media_type, proven }))
    }

    /// The one digest that begins with `beginning` and that the upstream itself gave or showed through the repository; none,
    /// where there are several.
    pub async fn member_beginning_with(
        &self,
        upstream: &str,
        repository: &RepositoryName,
        beginning: &str,
    ) -> Result<Option<Digest>, StoreError> {
        let query = "SELECT digest FROM mirror_blobs WHERE upstream = $1 AND repository = $2 \
                     AND digest >= $3 AND digest < $4 AND proven LIMIT 2";
        let query = sqlx::query_scalar(query).bind(upstream).bind(repository.as_str());
        let query = query.bind(beginning).bind(after_all(beginning));
        only_one(&query.fetch_all(self.inner.database.readers()).await?)
    }

    /// Records that `members` belong to a repository of an upstream. What was known of their sizes and types stays where
    /// nothing new is said; but a size that only a manifest said is not kept beside a proof.
    pub async fn put_members(
        &self,
        upstream: &str,
        repository: &RepositoryName,
        members: Vec<Member>,
    ) -> Result<(), StoreError> {
        let (upstream, repository) = (upstream.to_owned(), repository.clone());
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                for member in &members {
                    put_member(connection, &upstream, &repository, member).await?;
                }
                Ok::<_, StoreError>(())
            })
        });
        write.await
    }

    /// A digest does not belong to a repository of an upstream any more.
    pub async fn forget_member(
        &self,
        upstream: &str,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), StoreError> {
        let delete = "DELETE FROM mirror_blobs WHERE upstream = $1 AND repository = $2 AND digest = $3";
        self.execute(delete, vec![upstream.to_owned(), repository.to_string(), digest.to_string()]).await
    }

    /// When it was last of use that an upstream itself sent the bytes of `digest`; `None`, if it is not known to have.
    pub async fn sent(&self, upstream: &str, digest: &Digest) -> Result<Option<SystemTime>, StoreError> {
        let query = "SELECT used_at FROM mirror_sent WHERE upstream = $1 AND digest = $2";
        let query = sqlx::query_scalar::<_, i64>(query).bind(upstream).bind(digest.to_string());
        let used_at = query.fetch_optional(self.inner.database.readers()).await?;
        Ok(used_at.map(time_from_row))
    }

    /// An upstream itself sent the bytes of `digest`, or that was of use just now.
    pub async fn put_sent(&self, upstream: &str, digest: &Digest) -> Result<(), StoreError> {
        let (upstream, digest) = (upstream.to_owned(), digest.to_string());
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                let insert = "INSERT INTO mirror_sent (upstream, digest, used_at) VALUES ($1, $2, $3) \
                              ON CONFLICT (upstream, digest) DO UPDATE SET used_at = excluded.used_at";
                let insert = sqlx::query(insert).bind(upstream).bind(digest).bind(now());
                insert.execute(connection).await?;
                Ok::<_, StoreError>(())
            })
        });
        write.await
    }

    /// What is known of a tag, or of a list of referrers, of an upstream.
    pub async fn known(
        &self,
        upstream: &str,
        repository: &RepositoryName,
        pointer: &Pointer,
    ) -> Result<Option<Known<Digest>>, StoreError> {
        let query = "SELECT digest, checked_at FROM mirror_tags WHERE upstream = $1 AND repository = $2 AND tag = $3";
        let query = sqlx::query_as::<_, (Option<String>, i64)>(query);
        let query = query.bind(upstream).bind(repository.as_str()).bind(pointer.to_string());
        let Some((digest, checked_at)) = query.fetch_optional(self.inner.database.readers()).await? else {
            return Ok(None);
        };
        let what = digest.as_deref().map(digest_from_row).transpose()?;
        Ok(Some(Known { what, checked_at: time_from_row(checked_at) }))
    }

    /// The registry was asked just now: the tag names `digest`, or the list has these bytes.
    pub async fn put_known(
        &self,
        upstream: &str,
        repository: &RepositoryName,
        pointer: &Pointer,
        digest: &Digest,
    ) -> Result<(), StoreError> {
        let (key, digest) = ([upstream.to_owned(), repository.to_string(), pointer.to_string()], digest.to_string());
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                let insert = "INSERT INTO mirror_tags (upstream, repository, tag, digest, checked_at, status) \
                              VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (upstream, repository, tag) DO UPDATE SET \
                              digest = excluded.digest, checked_at = excluded.checked_at, status = excluded.status";
                let insert = key.into_iter().fold(sqlx::query(insert), |insert, part| insert.bind(part));
                insert.bind(digest).bind(now()).bind(FOUND).execute(connection).await?;
                Ok::<_, StoreError>(())
            })
        });
        write.await
    }

    /// Nothing is known of a tag, or of a list of referrers, of an upstream any more.
    pub async fn forget_known(
        &self,
        upstream: &str,
        repository: &RepositoryName,
        pointer: &Pointer,
    ) -> Result<(), StoreError> {
        let delete = "DELETE FROM mirror_tags WHERE upstream = $1 AND repository = $2 AND tag = $3";
        self.execute(delete, vec![upstream.to_owned(), repository.to_string(), pointer.to_string()]).await
    }

    /// Nothing is known of any list of referrers of a repository of an upstream any more.
    pub async fn forget_lists(&self, upstream: &str, repository: &RepositoryName) -> Result<(), StoreError> {
        let delete = "DELETE FROM mirror_tags WHERE upstream = $1 AND repository = $2 AND instr(tag, ':') > 0";
        self.execute(delete, vec![upstream.to_owned(), repository.to_string()]).await
    }

    /// Removes what nobody has asked the upstreams about, or had any use of, for `age`; how many rows went. What goes is learned again when
    /// somebody asks for it.
    pub async fn sweep_mirrors(&self, age: Duration) -> Result<u64, StoreError> {
        let before = now().saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        let mut gone = 0;
        for table in ["mirror_blobs", "mirror_sent", "mirror_tags"] {
            loop {
                let rows = self.sweep_some(table, before).await?;
                gone += rows;
                if rows < SWEEP_ROWS.unsigned_abs() {
                    break;
                }
            }
        }
        Ok(gone)
    }

    async fn sweep_some(&self, table: &'static str, before: i64) -> Result<u64, StoreError> {
        let delete = match table {
            "mirror_tags" => {
                "DELETE FROM mirror_tags WHERE (upstream, repository, tag) IN \
                 (SELECT upstream, repository, tag FROM mirror_tags WHERE checked_at < $1 LIMIT $2)"
            }
            "mirror_sent" => {
                "DELETE FROM mirror_sent WHERE (upstream, digest) IN \
                 (SELECT upstream, digest FROM mirror_sent WHERE used_at < $1 LIMIT $2)"
            }
            _ => {
                "DELETE FROM mirror_blobs WHERE (upstream, repository, digest) IN \
                 (SELECT upstream, repository, digest FROM mirror_blobs WHERE checked_at < $1 LIMIT $2)"
            }
        };
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                let delete = sqlx::query(delete).bind(before).bind(SWEEP_ROWS);
                Ok::<_, StoreError>(delete.execute(connection).await?.rows_affected())
            })
        });
        write.await
    }

    /// What the cache is to keep, by image.
    pub async fn pins(&self) -> Result<Vec<(String, Digest)>, StoreError> {
        let rows = sqlx::query_as::<_, (String, String)>("SELECT image, digest FROM cache_pins ORDER BY image, digest");
        let rows = rows.fetch_all(self.inner.database.readers()).await?;
        rows.into_iter().map(|(image, digest)| Ok((image, digest_from_row(&digest)?))).collect()
    }

    /// The cache is to keep `digests` for `image`, and nothing else for it: nothing at all, where there are none.
    pub async fn put_pins(&self, image: &str, digests: Vec<Digest>) -> Result<(), StoreError> {
        let image = image.to_owned();
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                let delete = sqlx::query("DELETE FROM cache_pins WHERE image = $1").bind(&image);
                delete.execute(&mut *connection).await?;
                for digest in digests {
                    let insert = "INSERT INTO cache_pins (image, digest) VALUES ($1, $2) ON CONFLICT DO NOTHING";
                    let insert = sqlx::query(insert).bind(&image).bind(digest.to_string());
                    insert.execute(&mut *connection).await?;
                }
                Ok::<_, StoreError>(())
            })
        });
        write.await
    }

    async fn execute(&self, statement: &'static str, values: Vec<String>) -> Result<(), StoreError> {
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                let query = values.into_iter().fold(sqlx::query(statement), |query, value| query.bind(value));
                query.execute(connection).await?;
                Ok::<_, StoreError>(())
            })
        });
        write.await
    }
}

async fn put_member(
    connection: &mut SqliteConnection,
    upstream: &str,
    repository: &RepositoryName,
    member: &Member,
) -> Result<(), StoreError> {
    let insert = "INSERT INTO mirror_blobs (upstream, repository, digest, checked_at, size, media_type, proven) \
                  VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (upstream, repository, digest) DO UPDATE SET \
                  checked_at = excluded.checked_at, \
                  size = CASE WHEN proven > excluded.proven THEN size \
                              WHEN proven < excluded.proven THEN excluded.size \
                              ELSE coalesce(excluded.size, size) END, \
                  media_type = coalesce(excluded.media_type, media_type), proven = max(excluded.proven, proven)";
    let size = member.size.map(size_for_row).transpose()?;
    let insert = sqlx::query(insert).bind(upstream).bind(repository.as_str()).bind(member.digest.to_string());
    insert.bind(now()).bind(size).bind(&member.media_type).bind(member.proven).execute(connection).await?;
    Ok(())
}

fn time_from_row(milliseconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds.unsigned_abs())
}
