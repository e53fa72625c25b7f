//! Which images of a v1 registry are in which of its repositories (ADR 12).

use sqlx::SqliteConnection;

use crate::docker::ImageId;
use crate::oci::RepositoryName;

use super::listing::{holding, name_from_row};
use super::{Store, StoreError};

/// How an image stands to a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// A list named it before it was pushed. That opens nothing.
    Listed,
    /// It is to be read through the repository.
    Present,
    /// Its push began through the repository: it is to be read and written through it.
    Pushed,
    /// It was, until the repository was deleted. That opens nothing.
    Deleted,
}

impl Standing {
    const fn word(self) -> &'static str {
        match self {
            Self::Listed => "listed",
            Self::Present => "present",
            Self::Pushed => "pushed",
            Self::Deleted => "deleted",
        }
    }

    /// Whether it is to be read through the repository.
    pub const fn is_there(self) -> bool {
        matches!(self, Self::Present | Self::Pushed)
    }

    fn from_row(word: &str) -> Result<Self, StoreError> {
        let known =
            [Self::Listed, Self::Present, Self::Pushed, Self::Deleted].into_iter().find(|known| known.word() == word);
        known.ok_or_else(|| StoreError::Database(format!("a row of legacy_images holds the standing {word:?}")))
    }
}

impl Store {
    /// The repositories to which an image stands in some way, in their order.
    pub async fn legacy_image(
        &self,
        upstream: &str,
        image: &ImageId,
    ) -> Result<Vec<(RepositoryName, Standing)>, StoreError> {
        let query =
            "SELECT repository, standing FROM legacy_images WHERE upstream = $1 AND image = $2 ORDER BY repository";
        let query = sqlx::query_as::<_, (String, String)>(query).bind(upstream).bind(image.as_str());
        let rows = query.fetch_all(self.inner.database.readers()).await?;
        rows.iter().map(|(name, standing)| Ok((from_row(name)?, Standing::from_row(standing)?))).collect()
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

    /// Records how `images` stand to a repository, unless `holds` says no when it is written. To be listed takes nothing away,
    /// nor does it to be present from what was pushed.
    pub async fn put_legacy_images(
        &self,
        upstream: &str,
        repository: &RepositoryName,
        images: Vec<(ImageId, Standing)>,
        holds: impl FnOnce() -> bool + Send + 'static,
    ) -> Result<(), StoreError> {
        let (upstream, repository) = (upstream.to_owned(), repository.clone());
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                if !holds() {
                    return Ok(());
                }
                for (image, standing) in &images {
                    put(connection, &upstream, image, &repository, *standing).await?;
                }
                Ok::<_, StoreError>(())
            })
        });
        write.await
    }

    /// Records that `images` are present in a repository, those that stand to none yet, unless `holds` says no.
    pub async fn put_unknown_legacy_images(
        &self,
        upstream: &str,
        repository: &RepositoryName,
        images: Vec<ImageId>,
        holds: impl FnOnce() -> bool + Send + 'static,
    ) -> Result<(), StoreError> {
        let (upstream, repository) = (upstream.to_owned(), repository.clone());
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                if !holds() {
                    return Ok(());
                }
                for image in &images {
                    let insert = "INSERT INTO legacy_images (upstream, image, repository, standing) \
                                  SELECT $1, $2, $3, $4 WHERE NOT EXISTS \
                                  (SELECT 1 FROM legacy_images WHERE upstream = $1 AND image = $2)";
                    let insert = sqlx::query(insert).bind(&upstream).bind(image.as_str()).bind(repository.as_str());
                    insert.bind(Standing::Present.word()).execute(&mut *connection).await?;
                }
                Ok::<_, StoreError>(())
            })
        });
        write.await
    }

    /// An image that is nowhere yet is begun in these repositories: whatever was said of it elsewhere is void.
    pub async fn begin_legacy_image(
        &self,
        upstream: &str,
        image: &ImageId,
        repositories: Vec<RepositoryName>,
    ) -> Result<(), StoreError> {
        let (upstream, image) = (upstream.to_owned(), image.clone());
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                let void = "UPDATE legacy_images SET standing = $3 WHERE upstream = $1 AND image = $2";
                let void = sqlx::query(void).bind(&upstream).bind(image.as_str()).bind(Standing::Listed.word());
                void.execute(&mut *connection).await?;
                for repository in &repositories {
                    put(connection, &upstream, &image, repository, Standing::Pushed).await?;
                }
                Ok::<_, StoreError>(())
            })
        });
        write.await
    }

    /// A repository was deleted: nothing is present in it any more. `then` runs within the transaction.
    pub async fn forget_legacy_repository(
        &self,
        upstream: &str,
        repository: &RepositoryName,
        then: impl FnOnce() + Send + 'static,
    ) -> Result<(), StoreError> {
        let (upstream, repository) = (upstream.to_owned(), repository.clone());
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                let delete = "DELETE FROM legacy_images WHERE upstream = $1 AND repository = $2 AND standing = $3";
                let delete = sqlx::query(delete).bind(&upstream).bind(repository.as_str());
                delete.bind(Standing::Listed.word()).execute(&mut *connection).await?;
                let update = "UPDATE legacy_images SET standing = $3 WHERE upstream = $1 AND repository = $2";
                let update = sqlx::query(update).bind(&upstream).bind(repository.as_str());
                update.bind(Standing::Deleted.word()).execute(&mut *connection).await?;
                then();
                Ok::<_, StoreError>(())
            })
        });
        write.await
    }
}

async fn put(
    connection: &mut SqliteConnection,
    upstream: &str,
    image: &ImageId,
    repository: &RepositoryName,
    standing: Standing,
) -> Result<(), StoreError> {
    let insert = match standing {
        Standing::Listed => {
            "INSERT INTO legacy_images (upstream, image, repository, standing) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (upstream, image, repository) DO NOTHING"
        }
        Standing::Present => {
            "INSERT INTO legacy_images (upstream, image, repository, standing) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (upstream, image, repository) DO UPDATE SET standing = excluded.standing \
             WHERE legacy_images.standing <> 'pushed'"
        }
        Standing::Pushed | Standing::Deleted => {
            "INSERT INTO legacy_images (upstream, image, repository, standing) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (upstream, image, repository) DO UPDATE SET standing = excluded.standing"
        }
    };
    let insert = sqlx::query(insert).bind(upstream).bind(image.as_str()).bind(repository.as_str());
    insert.bind(standing.word()).execute(connection).await?;
    Ok(())
}

fn from_row<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|error| StoreError::Database(format!("a row of legacy_images holds {text:?}: {error}")))
}
