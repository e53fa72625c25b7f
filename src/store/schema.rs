//! The tables of the metadata, and the version that they have.

use std::cmp::Ordering;
use std::path::Path;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{SqliteConnection, SqlitePool};

use super::OpenError;

fn migrations() -> Migrator {
    sqlx::migrate!("src/store/migrations/sqlite")
}

/// The version that the tables have.
pub(super) async fn version(readers: &SqlitePool) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations").fetch_one(readers).await
}

/// Whether the tables are as this program knows them, where they cannot be brought up to date.
pub(super) fn check_version(found: i64, path: &Path) -> Result<(), OpenError> {
    let ours = migrations().iter().map(|migration| migration.version).max().unwrap_or_default();
    let data = path.parent().unwrap_or(path).into();
    match found.cmp(&ours) {
        Ordering::Equal => Ok(()),
        Ordering::Less => Err(OpenError::OlderVersion { data }),
        Ordering::Greater => Err(OpenError::NewerVersion { data, found: found.try_into().unwrap_or_default() }),
    }
}

/// Brings the tables up to date.
pub(super) async fn migrate(connection: &mut SqliteConnection, path: &Path) -> Result<(), OpenError> {
    migrations().run(connection).await.map_err(|error| match error {
        MigrateError::VersionMissing(found) => OpenError::NewerVersion {
            data: path.parent().unwrap_or(path).into(),
            found: found.try_into().unwrap_or_default(),
        },
        error => OpenError::Database { path: path.into(), detail: error.to_string() },
    })
}
