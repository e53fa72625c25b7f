//! What a repository has, page by page. Names are in the order of their bytes.

use bytes::Bytes;
use futures_util::TryStreamExt as _;

use crate::oci::{Digest, MediaType, RepositoryName, Tag, Verified};

use super::database::{digest_from_row, size_from_row};
use super::manifests::media_type_from_row;
use super::{Store, StoreError};

/// How many bytes of manifests one page of referrers may hold; one manifest may always be there.
const REFERRERS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Names, in the order of their bytes.
    pub names: Vec<String>,
    /// Whether more come after the last of them.
    pub more: bool,
}

/// A manifest that refers to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredReferrer {
    /// Its digest.
    pub digest: Digest,
    /// What it is.
    pub media_type: MediaType,
    /// Its size in bytes.
    pub size: u64,
    /// What kind of artifact it is.
    pub artifact_type: Option<String>,
    /// As it was pushed.
    pub bytes: Bytes,
}

/// A part of the referrers of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferrersPage {
    /// In the order of their digests.
    pub referrers: Vec<StoredReferrer>,
    /// Whether more come after the last of them.
    pub more: bool,
}

impl Store {
    /// What a tag names.
    pub async fn tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<Option<Digest>, StoreError> {
        let query = "SELECT digest FROM tags WHERE name = $2 \
                     AND repository = (SELECT id FROM repositories WHERE name = $1)";
        let query = sqlx::query_scalar(query).bind(repository.as_str()).bind(tag.as_str());
        let digest: Option<String> = query.fetch_optional(self.inner.database.readers()).await?;
        digest.as_deref().map(digest_from_row).transpose()
    }

    /// At most `limit` tags, those after `after`; `None` if the repository has neither manifests nor blobs.
    pub async fn tags(
        &self,
        repository: &RepositoryName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Option<Page>, StoreError> {
        let readers = self.inner.database.readers();
        let Some(id) = self.repository_in_use(repository).await? else { return Ok(None) };
        let query = "SELECT name FROM tags WHERE repository = $1 AND name > $2 ORDER BY name LIMIT $3";
        // No tag is empty, so all come after the empty one.
        let query = sqlx::query_scalar(query).bind(id).bind(after.unwrap_or_default()).bind(one_more(limit));
        let mut names: Vec<String> = query.fetch_all(readers).await?;
        let more = names.len() > limit;
        names.truncate(limit);
        Ok(Some(Page { names, more }))
    }

    /// Whether the repository has manifests or blobs.
    pub async fn has_repository(&self, repository: &RepositoryName) -> Result<bool, StoreError> {
        Ok(self.repository_in_use(repository).await?.is_some())
    }

    async fn repository_in_use(&self, repository: &RepositoryName) -> Result<Option<i64>, StoreError> {
        let query = "SELECT id FROM repositories WHERE name = $1 AND ( \
                     EXISTS (SELECT 1 FROM manifests WHERE repository = repositories.id) OR \
                     EXISTS (SELECT 1 FROM repository_blobs WHERE repository = repositories.id))";
        let query = sqlx::query_scalar(query).bind(repository.as_str());
        Ok(query.fetch_optional(self.inner.database.readers()).await?)
    }

    /// At most `limit` repositories that have manifests, those after `after`.
    pub async fn repositories(&self, after: Option<&str>, limit: usize) -> Result<Vec<RepositoryName>, StoreError> {
        let query = "SELECT name FROM repositories WHERE name > $1 \
                     AND EXISTS (SELECT 1 FROM manifests WHERE repository = repositories.id) ORDER BY name LIMIT $2";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let query = sqlx::query_scalar(query).bind(after.unwrap_or_default()).bind(limit);
        let names: Vec<String> = query.fetch_all(self.inner.database.readers()).await?;
        names.into_iter().map(name_from_row).collect()
    }

    /// Like [`Store::repositories`], of those whose names hold `term`, in any case.
    pub async fn search(
        &self,
        term: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<RepositoryName>, StoreError> {
        let query = "SELECT name FROM repositories WHERE name > $1 AND name LIKE $2 ESCAPE '\\' \
                     AND EXISTS (SELECT 1 FROM manifests WHERE repository = repositories.id) ORDER BY name LIMIT $3";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let query = sqlx::query_scalar(query).bind(after.unwrap_or_default()).bind(holding(term)).bind(limit);
        let names: Vec<String> = query.fetch_all(self.inner.database.readers()).await?;
        names.into_iter().map(name_from_row).collect()
    }

    /// At most `limit` manifests that refer to `subject`, of the given artifact type if one is given, those after
    /// `after`. A page ends early rather than hold more than 4 MiB.
    pub async fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        artifact_type: Option<&str>,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<ReferrersPage, StoreError> {
        let query = "SELECT digest, media_type, size, artifact_type, bytes FROM manifests \
                     WHERE repository = (SELECT id FROM repositories WHERE name = $1) AND subject = $2 \
                     AND digest > $3 AND ($4 IS NULL OR artifact_type = $4) ORDER BY digest LIMIT $5";
        let mut rows = sqlx::query_as::<_, ReferrerRow>(query)
            .bind(repository.as_str())
            .bind(subject.to_string())
            .bind(after.map(Digest::to_string).unwrap_or_default())
            .bind(artifact_type)
            .bind(one_more(limit))
            .fetch(self.inner.database.readers());
        let mut page = ReferrersPage { referrers: Vec::new(), more: false };
        let mut bytes = 0;
        while let Some(row) = rows.try_next().await? {
            let referrer = referrer_from_row(row)?;
            if Verified::check(&referrer.bytes, &referrer.digest).is_err() {
                self.told_rotten_manifest(repository, &referrer.digest);
                continue;
            }
            bytes += referrer.bytes.len();
            page.more = page.referrers.len() == limit || (bytes > REFERRERS_BYTES_MAX && !page.referrers.is_empty());
            if page.more {
                break;
            }
            page.referrers.push(referrer);
        }
        Ok(page)
    }

    /// The one digest that begins with `beginning` and that manifests of the repository refer to; none, where there are several.
    pub async fn subject_beginning_with(
        &self,
        repository: &RepositoryName,
        beginning: &str,
    ) -> Result<Option<Digest>, StoreError> {
        let query = "SELECT DISTINCT subject FROM manifests \
                     WHERE repository = (SELECT id FROM repositories WHERE name = $1) \
                     AND subject >= $2 AND subject < $3 LIMIT 2";
        let query = sqlx::query_scalar(query).bind(repository.as_str()).bind(beginning).bind(after_all(beginning));
        only_one(&query.fetch_all(self.inner.database.readers()).await?)
    }
}

/// What comes after all digests that begin so, and before all others that do.
pub(super) fn after_all(beginning: &str) -> String {
    format!("{beginning}g")
}

/// The digest in the one row; none, where there are several.
pub(super) fn only_one(rows: &[String]) -> Result<Option<Digest>, StoreError> {
    match rows {
        [digest] => digest_from_row(digest).map(Some),
        _ => Ok(None),
    }
}

/// A pattern for LIKE of the names that hold `term`.
pub(super) fn holding(term: &str) -> String {
    let escape = |c: char| if matches!(c, '%' | '_' | '\\') { vec!['\\', c] } else { vec![c] };
    format!("%{}%", term.to_lowercase().chars().flat_map(escape).collect::<String>())
}

pub(super) fn name_from_row(name: String) -> Result<RepositoryName, StoreError> {
    name.parse().map_err(|error| StoreError::Database(format!("a row holds the repository {name:?}: {error}")))
}

type ReferrerRow = (String, String, i64, Option<String>, Vec<u8>);

fn referrer_from_row(row: ReferrerRow) -> Result<StoredReferrer, StoreError> {
    let (digest, media_type, size, artifact_type, bytes) = row;
    Ok(StoredReferrer {
        digest: digest_from_row(&digest)?,
        media_type: media_type_from_row(&media_type)?,
        size: size_from_row(size)?,
        artifact_type,
        bytes: bytes.into(),
    })
}

/// One more than the page holds tells whether there is a next one.
fn one_more(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1)
}
