//! Manifests and the tags that name them: small, so they live in the database, and a push is one transaction.

use std::collections::HashSet;

use bytes::Bytes;
use serde::Serialize;
use sqlx::SqliteConnection;

use crate::oci::{Child, ChildKind, Digest, Manifest, MediaType, RepositoryName, Tag, Verified};

use super::database::{now, repository_id_or_insert, size_for_row};
use super::{PutError, Store, StoreError};

/// The longest manifest that is hashed at once when it is read; a longer one is handed to a thread.
const INLINE_BYTES: usize = 64 * 1024;

/// A manifest to store.
#[derive(Debug, Clone)]
pub struct PutManifest<'a> {
    /// Where.
    pub repository: &'a RepositoryName,
    /// As it was sent; kept byte for byte.
    pub bytes: Bytes,
    /// What the bytes must hash to.
    pub digest: Digest,
    /// What they say.
    pub manifest: &'a Manifest,
    /// The tags that are to name it.
    pub tags: &'a [Tag],
    /// Whether tags that name another manifest may be moved.
    pub overwrite: bool,
    /// Who pushes, for the record.
    pub principal: &'a str,
}

/// A manifest was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Put {
    /// Whether the repository did not have it before.
    pub created: bool,
}

/// A manifest of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredManifest {
    /// Its digest.
    pub digest: Digest,
    /// What it was pushed as.
    pub media_type: MediaType,
    /// As it was pushed.
    pub bytes: Bytes,
}

/// What the transaction needs, owned.
struct Row {
    repository: RepositoryName,
    digest: String,
    bytes: Bytes,
    media_type: MediaType,
    artifact_type: Option<String>,
    subject: Option<Digest>,
    children: Vec<Child>,
    tags: Vec<Tag>,
    overwrite: bool,
    principal: String,
}

/// A child, as SQL reads it.
#[derive(Serialize)]
struct Reference {
    kind: &'static str,
    digest: String,
}

impl Store {
    /// Stores a manifest and moves its tags, or does nothing. Pushing one again renews its grace and keeps the media
    /// type that it was first pushed with.
    pub async fn put_manifest(&self, put: PutManifest<'_>) -> Result<Put, PutError> {
        self.inner.health.check()?;
        let (inner, bytes, digest) = (self.inner.clone(), put.bytes.clone(), put.digest);
        let check = move || {
            inner.check_path(&inner.directory.uploads())?;
            Verified::check(&bytes, &digest).map_err(|mismatch| PutError::Mismatch(mismatch.into()))
        };
        self.inner.on_a_thread(check).await??;
        let row = Row {
            repository: put.repository.clone(),
            digest: digest.to_string(),
            bytes: put.bytes,
            media_type: put.manifest.media_type(),
            artifact_type: put.manifest.artifact_type().map(str::to_owned),
            subject: put.manifest.subject().copied(),
            children: put.manifest.children().to_vec(),
            tags: put.tags.to_vec(),
            overwrite: put.overwrite,
            principal: put.principal.to_owned(),
        };
        self.inner.database.write(move |connection| Box::pin(row.put(connection))).await
    }

    /// The manifest, if this repository has it. One that is not what was pushed is as if it were not there; pushing it again
    /// mends it.
    pub async fn manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<StoredManifest>, StoreError> {
        let query = "SELECT media_type, bytes FROM manifests WHERE digest = $2 \
                     AND repository = (SELECT id FROM repositories WHERE name = $1)";
        let query = sqlx::query_as(query).bind(repository.as_str()).bind(digest.to_string());
        let row: Option<(String, Vec<u8>)> = query.fetch_optional(self.inner.database.readers()).await?;
        let Some((media_type, bytes)) = row else { return Ok(None) };
        let (bytes, checked) = (Bytes::from(bytes), *digest);
        let is_right = match bytes.len() {
            ..=INLINE_BYTES => Verified::check(&bytes, &checked).is_ok(),
            _ => {
                let bytes = bytes.clone();
                self.inner.on_a_thread(move || Verified::check(&bytes, &checked).is_ok()).await?
            }
        };
        match MediaType::parse(&media_type).filter(|_| is_right) {
            Some(media_type) => Ok(Some(StoredManifest { digest: *digest, media_type, bytes })),
            None => {
                self.told_rotten_manifest(repository, digest);
                Ok(None)
            }
        }
    }

    /// Removes a manifest, with the tags that name it; gives their names, or `None` if the repository did not have it.
    pub async fn delete_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Vec<Tag>>, StoreError> {
        let (repository, digest) = (repository.as_str().to_owned(), digest.to_string());
        let delete = self.inner.database.write(move |connection| {
            Box::pin(async move {
                let tags = "SELECT name FROM tags WHERE digest = $2 \
                            AND repository = (SELECT id FROM repositories WHERE name = $1)";
                let tags = sqlx::query_scalar(tags).bind(repository.clone()).bind(digest.clone());
                let tags: Vec<String> = tags.fetch_all(&mut *connection).await?;
                // Its tags and references go with it: the schema says so.
                let delete = "DELETE FROM manifests WHERE digest = $2 \
                              AND repository = (SELECT id FROM repositories WHERE name = $1)";
                let gone = sqlx::query(delete).bind(repository).bind(digest).execute(connection).await?;
                let tags = tags.iter().filter_map(|tag| tag.parse().ok()).collect();
                Ok::<_, StoreError>((gone.rows_affected() > 0).then_some(tags))
            })
        });
        delete.await
    }

    /// Removes a tag, and not what it names; false if there was none.
    pub async fn delete_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<bool, StoreError> {
        let delete = "DELETE FROM tags WHERE name = $2 \
                      AND repository = (SELECT id FROM repositories WHERE name = $1)";
        self.delete_named(delete, repository, tag.as_str().to_owned()).await
    }

    async fn delete_named(
        &self,
        statement: &'static str,
        repository: &RepositoryName,
        name: String,
    ) -> Result<bool, StoreError> {
        let repository = repository.clone();
        let delete = self.inner.database.write(move |connection| {
            Box::pin(async move {
                let query = sqlx::query(statement).bind(repository.as_str().to_owned()).bind(name);
                Ok::<_, StoreError>(query.execute(connection).await?.rows_affected() > 0)
            })
        });
        delete.await
    }
}

/// A media type of ours, read back.
pub(super) fn media_type_from_row(text: &str) -> Result<MediaType, StoreError> {
    MediaType::parse(text).ok_or_else(|| StoreError::Database(format!("a row holds the media type {text:?}")))
}

impl Row {
    async fn put(self, connection: &mut SqliteConnection) -> Result<Put, PutError> {
        let repository = repository_id_or_insert(connection, self.repository.as_str()).await?;
        self.check_children(connection, repository).await?;
        self.check_tags(connection, repository).await?;
        let created = self.insert_manifest(connection, repository).await?;
        if created {
            self.insert_references(connection, repository).await?;
        }
        self.set_tags(connection, repository).await?;
        Ok(Put { created })
    }

    /// Everything that must be here is here, in this repository.
    async fn check_children(&self, connection: &mut SqliteConnection, repository: i64) -> Result<(), PutError> {
        let required = || self.children.iter().filter(|child| child.required);
        let (manifests, blobs): (Vec<&Child>, Vec<&Child>) =
            required().partition(|child| child.kind == ChildKind::Manifest);
        let blobs = are_here(
            connection,
            "SELECT blobs.digest FROM json_each($2) AS wanted \
             JOIN repository_blobs ON repository_blobs.repository = $1 AND repository_blobs.digest = wanted.value \
             JOIN blobs ON blobs.digest = repository_blobs.digest AND blobs.rotten_at IS NULL",
            repository,
            &blobs,
        );
        let blobs = blobs.await?;
        let manifests = are_here(
            connection,
            "SELECT manifests.digest FROM json_each($2) AS wanted \
             JOIN manifests ON manifests.repository = $1 AND manifests.digest = wanted.value",
            repository,
            &manifests,
        );
        let manifests = manifests.await?;
        let mut missing = Vec::new();
        let mut told = HashSet::new();
        for child in required() {
            let here = if child.kind == ChildKind::Manifest { &manifests } else { &blobs };
            if !here.contains(&child.digest.to_string()) && told.insert(child.digest) {
                missing.push(child.digest);
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(PutError::MissingChildren(missing)) }
    }

    /// Those that name another manifest may be moved.
    async fn check_tags(&self, connection: &mut SqliteConnection, repository: i64) -> Result<(), PutError> {
        if self.overwrite {
            return Ok(());
        }
        for tag in &self.tags {
            let query = sqlx::query_scalar("SELECT digest FROM tags WHERE repository = $1 AND name = $2");
            let query = query.bind(repository).bind(tag.as_str());
            let named: Option<String> = query.fetch_optional(&mut *connection).await?;
            if named.is_some_and(|named| named != self.digest) {
                return Err(PutError::TagExists(tag.clone()));
            }
        }
        Ok(())
    }

    async fn insert_manifest(&self, connection: &mut SqliteConnection, repository: i64) -> Result<bool, PutError> {
        let insert = "INSERT INTO manifests \
                      (repository, digest, media_type, artifact_type, subject, size, bytes, pushed_at, pushed_by) \
                      VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (repository, digest) DO NOTHING";
        let inserted = sqlx::query(insert)
            .bind(repository)
            .bind(&self.digest)
            .bind(self.media_type.as_str())
            .bind(&self.artifact_type)
            .bind(self.subject.map(|subject| subject.to_string()))
            .bind(size_for_row(self.bytes.len() as u64)?)
            .bind(&*self.bytes)
            .bind(now())
            .bind(&self.principal)
            .execute(&mut *connection)
            .await?;
        if inserted.rows_affected() > 0 {
            return Ok(true);
        }
        let renew = "UPDATE manifests SET pushed_at = $3 WHERE repository = $1 AND digest = $2";
        sqlx::query(renew).bind(repository).bind(&self.digest).bind(now()).execute(&mut *connection).await?;
        self.mend(connection, repository).await.map(|()| false)
    }

    /// Puts right what is in the row of this manifest and is not what was pushed.
    async fn mend(&self, connection: &mut SqliteConnection, repository: i64) -> Result<(), PutError> {
        let query = "SELECT media_type, bytes FROM manifests WHERE repository = $1 AND digest = $2";
        let query = sqlx::query_as(query).bind(repository).bind(&self.digest);
        let (media_type, bytes): (String, Vec<u8>) = query.fetch_one(&mut *connection).await?;
        let known_type = MediaType::parse(&media_type);
        if bytes == self.bytes && known_type.is_some() {
            return Ok(());
        }
        let mend = "UPDATE manifests SET media_type = $3, artifact_type = $4, subject = $5, size = $6, bytes = $7 \
                    WHERE repository = $1 AND digest = $2";
        sqlx::query(mend)
            .bind(repository)
            .bind(&self.digest)
            .bind(known_type.unwrap_or(self.media_type).as_str())
            .bind(&self.artifact_type)
            .bind(self.subject.map(|subject| subject.to_string()))
            .bind(size_for_row(self.bytes.len() as u64)?)
            .bind(&*self.bytes)
            .execute(connection)
            .await?;
        Ok(())
    }

    async fn insert_references(&self, connection: &mut SqliteConnection, repository: i64) -> Result<(), PutError> {
        let references: Vec<_> = self.children.iter().map(Reference::of).collect();
        let insert = "INSERT INTO manifest_references (repository, manifest, position, kind, digest) \
                      SELECT $1, $2, key, value ->> 'kind', value ->> 'digest' FROM json_each($3)";
        let insert = sqlx::query(insert).bind(repository).bind(&self.digest).bind(json(&references)?);
        insert.execute(connection).await?;
        Ok(())
    }

    async fn set_tags(&self, connection: &mut SqliteConnection, repository: i64) -> Result<(), PutError> {
        let set = "INSERT INTO tags (repository, name, digest, updated_at, updated_by) VALUES ($1, $2, $3, $4, $5) \
                   ON CONFLICT (repository, name) DO UPDATE SET \
                   digest = excluded.digest, updated_at = excluded.updated_at, updated_by = excluded.updated_by";
        for tag in &self.tags {
            let set = sqlx::query(set).bind(repository).bind(tag.as_str()).bind(&self.digest);
            set.bind(now()).bind(&self.principal).execute(&mut *connection).await?;
        }
        Ok(())
    }
}

impl Reference {
    fn of(child: &Child) -> Self {
        let kind = match child.kind {
            ChildKind::Config => "config",
            ChildKind::Layer => "layer",
            ChildKind::Manifest => "manifest",
        };
        Self { kind, digest: child.digest.to_string() }
    }
}

/// Which of them are here: one query, however many there are.
async fn are_here(
    connection: &mut SqliteConnection,
    query: &'static str,
    repository: i64,
    wanted: &[&Child],
) -> Result<HashSet<String>, StoreError> {
    if wanted.is_empty() {
        return Ok(HashSet::new());
    }
    let digests: Vec<_> = wanted.iter().map(|child| child.digest.to_string()).collect();
    let query = sqlx::query_scalar(query).bind(repository).bind(json(&digests)?);
    Ok(query.fetch_all(connection).await?.into_iter().collect())
}

fn json<T: Serialize>(values: &[T]) -> Result<String, StoreError> {
    serde_json::to_string(values).map_err(|error| StoreError::Database(error.to_string()))
}
