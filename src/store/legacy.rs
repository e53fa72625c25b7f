//! Which images of a v1 registry are in which of its repositories (ADR 12).

use std::time::Duration;

use sqlx::SqliteConnection;

use crate::docker::ImageId;
use crate::oci::RepositoryName;

use super::database::now;
use super::listing::{holding, name_from_row};
use super::{Store, StoreError};

/// How long an image that a list named is kept for those who may push to that repository.
pub const LISTED_LIFETIME: Duration = Duration::from_secs(86_400);

/// How an image stands to a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// A list named it before it was pushed. That opens nothing.
    Listed,
    /// It is to be read through the repository.
    Present,
    /// Its push began through the repository: it is to be read and written through it.
    Pushed,
    /// It was present, until the repository was deleted. That opens nothing.
    Deleted,
    /// It was pushed, until the repository was deleted. That opens nothing.
    Abandoned,
}

/// How one image stands to one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyRow {
    /// The repository.
    pub repository: RepositoryName,
    /// How it stands to it.
    pub standing: Standing,
    /// Who began its push, or listed it by a password, as rules know them; nothing, if nobody did.
    pub named_by: String,
    /// When, in milliseconds since 1970; 0, if nobody did.
    pub named_at: i64,
}

/// How an image is to stand to a repository that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The image.
    pub image: ImageId,
    /// How it is to stand.
    pub standing: Standing,
    /// The repository that justifies it: to which it must stand as something else than listed when this is written.
    pub by: Option<RepositoryName>,
}

impl Standing {
    const ALL: [Self; 5] = [Self::Listed, Self::Present, Self::Pushed, Self::Deleted, Self::Abandoned];

    const fn word(self) -> &'static str {
        match self {
            Self::Listed => "listed",
            Self::Present => "present",
            Self::Pushed => "pushed",
            Self::Deleted => "deleted",
            Self::Abandoned => "abandoned",
        }
    }

    /// Whether it is to be read through the repository.
    pub const fn is_there(self) -> bool {
        matches!(self, Self::Present | Self::Pushed)
    }

    /// Whether it was in the repository until that was deleted.
    pub const fn is_gone(self) -> bool {
        matches!(self, Self::Deleted | Self::Abandoned)
    }

    fn from_row(word: &str) -> Result<Self, StoreError> {
        let known = Self::ALL.into_iter().find(|known| known.word() == word);
        known.ok_or_else(|| StoreError::Database(format!("a row of legacy_images holds the standing {word:?}")))
    }
}

impl LegacyRow {
    /// Whether the image is reserved: listed lately, to be pushed.
    pub fn is_reserved(&self) -> bool {
        self.standing == Standing::Listed && self.named_at > expired()
    }

    /// Whether its push began lately, so that it may still go on.
    pub fn is_being_pushed(&self) -> bool {
        matches!(self.standing, Standing::Pushed | Standing::Abandoned) && self.named_at > expired()
    }
}

impl Store {
    /// The repositories to which an image stands in some way, in their order.
    pub async fn legacy_image(&self, upstream: &str, image: &ImageId) -> Result<Vec<LegacyRow>, StoreError> {
        let query = sqlx::query_as(ROWS).bind(upstream).bind(image.as_str());
        let rows: Vec<(String, String, String, i64)> = query.fetch_all(self.inner.database.readers()).await?;
        rows.into_iter().map(legacy_row).collect()
    }

    /// The images that stand to a repository in some way, in their order.
    pub async fn legacy_repository(
        &self,
        upstream: &str,
        repository: &RepositoryName,
    ) -> Result<Vec<(ImageId, Standing)>, StoreError> {
        let query = "SELECT image, standing FROM legacy_images WHERE upstream = $1 AND repository = $2 ORDER BY image";
        let query = sqlx::query_as::<_, (String, String)>(query).bind(upstream).bind(repository.as_str());
        let rows = query.fetch_all(self.inner.database.readers()).await?;
        rows.iter().map(|(image, standing)| Ok((from_row(image)?, Standing::from_row(standing)?))).collect()
    }

    /// At most `limit` repositories that have images and whose names hold `term`, in any case, in the order of their bytes.
    pub async fn search_legacy(
        &self,
        upstream: &str,
        term: &str,
        limit: usize,
    ) -> Result<Vec<RepositoryName>, StoreError> {
        let query = "SELECT DISTINCT repository FROM legacy_images WHERE upstream = $1 AND repository LIKE $2 ESCAPE '\\' \
                     AND standing IN ('present', 'pushed') ORDER BY repository LIMIT $3";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let query = sqlx::query_scalar(query).bind(upstream).bind(holding(term)).bind(limit);
        let names: Vec<String> = query.fetch_all(self.inner.database.readers()).await?;
        names.into_iter().map(name_from_row).collect()
    }

    /// Records how images stand to a repository that names them, as far as what justifies it still holds. `by_token`: whoever
    /// names them showed no password, which does not make them the one who listed them.
    pub async fn name_legacy_images(
        &self,
        upstream: &str,
        repository: &RepositoryName,
        (named_by, by_token): (&str, bool),
        images: Vec<Named>,
    ) -> Result<(), StoreError> {
        let (upstream, repository, named_by) = (upstream.to_owned(), repository.clone(), named_by.to_owned());
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                for named in &images {
                    let is_nobodys = by_token && named.standing == Standing::Listed;
                    let named_by = if is_nobodys { "" } else { named_by.as_str() };
                    if is_justified(connection, &upstream, named).await? {
                        put(connection, &upstream, &named.image, &repository, named.standing, named_by).await?;
                    }
                }
                Ok::<_, StoreError>(())
            })
        });
        write.await
    }

    /// Records that `images` are present in a repository, unless `holds` says no when it is written; with `unknown` only those
    /// that stand to no repository yet.
    pub async fn learn_legacy_images(
        &self,
        upstream: &str,
        repository: &RepositoryName,
        images: Vec<ImageId>,
        unknown: bool,
        holds: impl FnOnce() -> bool + Send + 'static,
    ) -> Result<(), StoreError> {
        let (upstream, repository) = (upstream.to_owned(), repository.clone());
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                if !holds() {
                    return Ok(());
                }
                for image in &images {
                    if !unknown || rows(connection, &upstream, image).await?.is_empty() {
                        put(connection, &upstream, image, &repository, Standing::Present, "").await?;
                    }
                }
                Ok::<_, StoreError>(())
            })
        });
        write.await
    }

    /// Those of `ancestors` that are not present wherever the image is.
    pub async fn missing_legacy_ancestors(
        &self,
        upstream: &str,
        image: &ImageId,
        ancestors: Vec<ImageId>,
    ) -> Result<Vec<ImageId>, StoreError> {
        let mut missing = Vec::new();
        for ancestor in ancestors {
            let query = sqlx::query_scalar(WITHOUT).bind(upstream).bind(image.as_str()).bind(ancestor.as_str());
            let without: Vec<String> = query.fetch_all(self.inner.database.readers()).await?;
            if !without.is_empty() {
                missing.push(ancestor);
            }
        }
        Ok(missing)
    }

    /// What an image stands on is present wherever the image is.
    pub async fn learn_legacy_ancestry(
        &self,
        upstream: &str,
        image: &ImageId,
        ancestors: Vec<ImageId>,
    ) -> Result<(), StoreError> {
        let (upstream, image) = (upstream.to_owned(), image.clone());
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                for ancestor in &ancestors {
                    let query =
                        sqlx::query_scalar(WITHOUT).bind(&upstream).bind(image.as_str()).bind(ancestor.as_str());
                    let without: Vec<String> = query.fetch_all(&mut *connection).await?;
                    for repository in without {
                        let repository = name_from_row(repository)?;
                        put(connection, &upstream, ancestor, &repository, Standing::Present, "").await?;
                    }
                }
                Ok::<_, StoreError>(())
            })
        });
        write.await
    }

    /// An image that the registry does not have, or not whole, is begun in these repositories: whatever was said of it
    /// elsewhere is void. What was said is the answer, for [`Store::restore_legacy_image`].
    pub async fn begin_legacy_image(
        &self,
        upstream: &str,
        image: &ImageId,
        repositories: Vec<RepositoryName>,
        named_by: &str,
    ) -> Result<Vec<LegacyRow>, StoreError> {
        let (upstream, image, named_by) = (upstream.to_owned(), image.clone(), named_by.to_owned());
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                let before = rows(connection, &upstream, &image).await?;
                let void = "UPDATE legacy_images SET standing = 'listed', named_at = 0, named_by = '' \
                            WHERE upstream = $1 AND image = $2 AND standing <> 'listed'";
                sqlx::query(void).bind(&upstream).bind(image.as_str()).execute(&mut *connection).await?;
                for repository in &repositories {
                    put(connection, &upstream, &image, repository, Standing::Pushed, &named_by).await?;
                }
                Ok::<_, StoreError>(before)
            })
        });
        write.await
    }

    /// The registry did not take what was begun: what stands as that left it is as it was `before`, and what was justified by it
    /// is not.
    pub async fn restore_legacy_image(
        &self,
        upstream: &str,
        image: &ImageId,
        begun: Vec<RepositoryName>,
        before: Vec<LegacyRow>,
    ) -> Result<(), StoreError> {
        let (upstream, image) = (upstream.to_owned(), image.clone());
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                for row in &before {
                    let left = if begun.contains(&row.repository) { Standing::Pushed } else { Standing::Listed };
                    let update = "UPDATE legacy_images SET standing = $4, named_at = $5, named_by = $6 \
                                  WHERE upstream = $1 AND image = $2 AND repository = $3 AND standing = $7";
                    let update = sqlx::query(update).bind(&upstream).bind(image.as_str()).bind(row.repository.as_str());
                    let update = update.bind(row.standing.word()).bind(row.named_at).bind(&row.named_by);
                    update.bind(left.word()).execute(&mut *connection).await?;
                }
                let was_there = |repository: &RepositoryName| {
                    before.iter().any(|row| row.repository == *repository && row.standing.is_there())
                };
                for row in rows(connection, &upstream, &image).await? {
                    if row.standing.is_there() && !was_there(&row.repository) {
                        let delete = "DELETE FROM legacy_images WHERE upstream = $1 AND image = $2 AND repository = $3";
                        let delete = sqlx::query(delete).bind(&upstream).bind(image.as_str());
                        delete.bind(row.repository.as_str()).execute(&mut *connection).await?;
                    }
                }
                Ok::<_, StoreError>(())
            })
        });
        write.await
    }

    /// Removes what was listed and never pushed for `age`; how many rows went.
    pub async fn sweep_legacy(&self, age: Duration) -> Result<u64, StoreError> {
        let before = now().saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                let delete = "DELETE FROM legacy_images WHERE standing = 'listed' AND named_at < $1";
                let delete = sqlx::query(delete).bind(before);
                Ok::<_, StoreError>(delete.execute(connection).await?.rows_affected())
            })
        });
        write.await
    }

    /// A repository was deleted: nothing is present in it any more. Its list may be left behind, so what was listed is kept
    /// unless `listed`. `then` runs within the transaction.
    pub async fn forget_legacy_repository(
        &self,
        upstream: &str,
        repository: &RepositoryName,
        listed: bool,
        then: impl FnOnce() + Send + 'static,
    ) -> Result<(), StoreError> {
        let (upstream, repository) = (upstream.to_owned(), repository.clone());
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                let delete =
                    "DELETE FROM legacy_images WHERE upstream = $1 AND repository = $2 AND standing = 'listed'";
                for statement in listed.then_some(delete).into_iter().chain([
                    "UPDATE legacy_images SET standing = 'deleted' \
                     WHERE upstream = $1 AND repository = $2 AND standing = 'present'",
                    "UPDATE legacy_images SET standing = 'abandoned' \
                     WHERE upstream = $1 AND repository = $2 AND standing = 'pushed'",
                ]) {
                    let statement = sqlx::query(statement).bind(&upstream).bind(repository.as_str());
                    statement.execute(&mut *connection).await?;
                }
                then();
                Ok::<_, StoreError>(())
            })
        });
        write.await
    }
}

const ROWS: &str = "SELECT repository, standing, named_by, named_at FROM legacy_images \
                    WHERE upstream = $1 AND image = $2 ORDER BY repository";

/// The repositories in which image `$2` is and `$3` is not.
const WITHOUT: &str = "SELECT repository FROM legacy_images AS child WHERE upstream = $1 AND image = $2 AND standing IN ('present', 'pushed') \
     AND NOT EXISTS (SELECT 1 FROM legacy_images WHERE upstream = $1 AND image = $3 AND repository = child.repository \
     AND standing IN ('present', 'pushed'))";

async fn rows(
    connection: &mut SqliteConnection,
    upstream: &str,
    image: &ImageId,
) -> Result<Vec<LegacyRow>, StoreError> {
    let query = sqlx::query_as(ROWS).bind(upstream).bind(image.as_str());
    let rows: Vec<(String, String, String, i64)> = query.fetch_all(connection).await?;
    rows.into_iter().map(legacy_row).collect()
}

async fn is_justified(connection: &mut SqliteConnection, upstream: &str, named: &Named) -> Result<bool, StoreError> {
    let Some(by) = &named.by else { return Ok(true) };
    let rows = rows(connection, upstream, &named.image).await?;
    Ok(rows.iter().any(|row| row.repository == *by && row.standing != Standing::Listed))
}

/// When what ends now was listed.
fn expired() -> i64 {
    now().saturating_sub(i64::try_from(LISTED_LIFETIME.as_millis()).unwrap_or(i64::MAX))
}

/// To be listed takes nothing away, nor does it to be present from what was pushed. What was listed first stays so.
async fn put(
    connection: &mut SqliteConnection,
    upstream: &str,
    image: &ImageId,
    repository: &RepositoryName,
    standing: Standing,
    named_by: &str,
) -> Result<(), StoreError> {
    let insert = match standing {
        Standing::Listed => {
            "INSERT INTO legacy_images (upstream, image, repository, standing, named_by, named_at) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (upstream, image, repository) DO UPDATE SET \
             named_by = excluded.named_by, named_at = CASE WHEN legacy_images.named_at < $7 THEN excluded.named_at \
             ELSE legacy_images.named_at END WHERE legacy_images.standing = 'listed'"
        }
        Standing::Present => {
            "INSERT INTO legacy_images (upstream, image, repository, standing, named_by, named_at) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (upstream, image, repository) DO UPDATE SET \
             standing = excluded.standing WHERE legacy_images.standing <> 'pushed'"
        }
        Standing::Pushed | Standing::Deleted | Standing::Abandoned => {
            "INSERT INTO legacy_images (upstream, image, repository, standing, named_by, named_at) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (upstream, image, repository) DO UPDATE SET \
             standing = excluded.standing, named_by = excluded.named_by, named_at = excluded.named_at"
        }
    };
    let insert = sqlx::query(insert).bind(upstream).bind(image.as_str()).bind(repository.as_str());
    let named_at = if standing == Standing::Present { 0 } else { now() };
    let insert = insert.bind(standing.word()).bind(named_by).bind(named_at);
    let insert = if standing == Standing::Listed { insert.bind(expired()) } else { insert };
    insert.execute(connection).await?;
    Ok(())
}

fn legacy_row(
    (repository, standing, named_by, named_at): (String, String, String, i64),
) -> Result<LegacyRow, StoreError> {
    let (repository, standing) = (name_from_row(repository)?, Standing::from_row(&standing)?);
    Ok(LegacyRow { repository, standing, named_by, named_at })
}

fn from_row<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|error| StoreError::Database(format!("a row of legacy_images holds {text:?}: {error}")))
}
