//! Lists: tags, repositories, referrers.

use bytes::Bytes;
use serde_json::json;

use crate::access::{CatalogPermit, Leave as _, Permit, Pull};
use crate::oci::{self, Descriptor, Digest, MediaType, RepositoryName};
use crate::registry::RegistryError;
use crate::store::StoredReferrer;

use super::Hosted;

/// How many repositories are looked at together: what the caller may not see costs no query of its own.
const CATALOG_BATCH: usize = 1_000;

/// How many repositories whose names hold a term are looked at for one search.
const SEARCHED_MAX: usize = 10_000;

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// Its entries, in order.
    pub entries: Vec<T>,
    /// Whether more follow.
    pub more: bool,
}

impl Hosted {
    /// The repositories that the permit shows and whose names hold `term`, in the order of their bytes: the first
    /// [`SEARCHED_MAX`] that hold it.
    pub async fn search(&self, permit: CatalogPermit, term: &str) -> Result<Vec<RepositoryName>, RegistryError> {
        let (mut found, mut searched, mut last) = (Vec::new(), 0, None::<String>);
        while searched < SEARCHED_MAX {
            let batch = self.store.search(term, last.as_deref(), CATALOG_BATCH).await?;
            let ended = batch.len() < CATALOG_BATCH;
            searched += batch.len();
            last = batch.last().map(|name| name.as_str().to_owned());
            found.extend(batch.into_iter().filter(|name| permit.shows(name)));
            if ended {
                break;
            }
        }
        Ok(found)
    }

    /// The tags of a repository after `last`, in the order of their bytes.
    pub async fn tags(
        &self,
        permit: &Permit<Pull>,
        last: Option<&str>,
        limit: usize,
    ) -> Result<Page<String>, RegistryError> {
        let page = self.store.tags(permit.repository(), last, limit).await?;
        let unknown = || RegistryError::NameUnknown(permit.repository().clone());
        let page = page.ok_or_else(unknown)?;
        Ok(Page { entries: page.names, more: page.more })
    }

    /// The repositories after `last` that the permit shows, in the order of their bytes; or those `below` a name, by what
    /// follows it.
    pub async fn catalog(
        &self,
        permit: CatalogPermit,
        below: Option<&RepositoryName>,
        last: Option<&str>,
        limit: usize,
    ) -> Result<Page<RepositoryName>, RegistryError> {
        if limit == 0 {
            return Ok(Page { entries: Vec::new(), more: false });
        }
        let below = below.map(|name| format!("{name}/")).unwrap_or_default();
        let shown = |name: &RepositoryName| {
            let rest = name.as_str().strip_prefix(&below).filter(|_| permit.shows(name));
            rest.and_then(|rest| rest.parse().ok())
        };
        let (mut entries, mut last) = (Vec::new(), Some(format!("{below}{}", last.unwrap_or_default())));
        loop {
            // One more than asked for tells whether more follow; what is not shown does not count.
            let size = CATALOG_BATCH.max(limit + 1);
            let batch = self.store.repositories(last.as_deref(), size).await?;
            let ended = batch.len() < size || !batch.last().is_some_and(|name| name.as_str().starts_with(&below));
            last = batch.last().map(|name| name.as_str().to_owned());
            entries.extend(batch.iter().filter_map(shown));
            if ended || entries.len() > limit {
                let more = entries.len() > limit;
                entries.truncate(limit);
                return Ok(Page { entries, more });
            }
        }
    }

    /// The manifests of a repository that refer to `subject`; none, too, where nothing was ever pushed, for the list is never
    /// 404 (distribution-spec 1.1, "Listing Referrers").
    pub async fn referrers(
        &self,
        permit: &Permit<Pull>,
        subject: &Digest,
        artifact_type: Option<&str>,
        last: Option<&Digest>,
        limit: usize,
    ) -> Result<Page<Descriptor>, RegistryError> {
        self.list_referrers(permit.repository(), subject, artifact_type, last, limit).await
    }

    pub(super) async fn list_referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        artifact_type: Option<&str>,
        last: Option<&Digest>,
        limit: usize,
    ) -> Result<Page<Descriptor>, RegistryError> {
        let stored = self.store.referrers(repository, subject, artifact_type, last, limit).await?;
        Ok(Page { entries: stored.referrers.into_iter().map(descriptor).collect(), more: stored.more })
    }
}

/// The index that lists them.
pub fn index_of(referrers: &[Descriptor]) -> Bytes {
    let index = json!({ "schemaVersion": 2, "mediaType": MediaType::OciIndex.as_str(), "manifests": referrers });
    index.to_string().into()
}

/// The descriptor of a referrer, with the annotations of its manifest (distribution-spec 1.1, "Listing Referrers").
fn descriptor(stored: StoredReferrer) -> Descriptor {
    let manifest = oci::Manifest::parse(&stored.bytes, Some(stored.media_type.as_str())).ok();
    Descriptor {
        media_type: stored.media_type.to_string(),
        digest: stored.digest,
        size: stored.size,
        artifact_type: stored.artifact_type,
        annotations: manifest.and_then(|manifest| manifest.annotations().cloned()),
        urls: None,
    }
}
