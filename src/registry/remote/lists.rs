//! Lists from elsewhere: always asked for anew, a page at a time.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LINK};
use http::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use crate::access::CatalogPermit;
use crate::oci::{Digest, RepositoryName};
use crate::upstream::Ask;

use super::super::{Page, RegistryError};
use super::error::number;
use super::{Reach, Remote, RemoteError, Target, empty};

/// A list as the upstream wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawList {
    /// Its bytes.
    pub bytes: Bytes,
    /// Whether the upstream left out what was not asked for.
    pub filtered: bool,
}

#[derive(Deserialize)]
struct Tags {
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Catalog {
    repositories: Option<Vec<String>>,
}

impl Remote {
    /// The tags of a repository after `last`.
    pub async fn tags(
        self: &Arc<Self>,
        target: Target,
        last: Option<&str>,
        limit: usize,
    ) -> Result<Page<String>, RegistryError> {
        let name = target.permit.repository().clone();
        let reach = self.reach(&target);
        let path = format!("/tags/list?{}", page_query(last, limit));
        let listed = async {
            let (bytes, headers) = self.list(&reach, self.read(Method::GET, &reach, &path)?).await?;
            let tags: Tags = serde_json::from_slice(&bytes).map_err(|_| self.answer("a list of tags that is none"))?;
            Ok(page(tags.tags.unwrap_or_default(), limit, &headers))
        };
        listed.await.map_err(|error| list_error(error, &name))
    }

    /// The repositories after `last` that the permit shows, by their names there; `prefix` is what their names here begin
    /// with.
    pub async fn catalog(
        self: &Arc<Self>,
        permit: CatalogPermit,
        prefix: Option<&RepositoryName>,
        last: Option<&str>,
        limit: usize,
    ) -> Result<Page<RepositoryName>, RegistryError> {
        let ask = Ask {
            method: Method::GET,
            path: self.path(&format!("/v2/_catalog?{}", page_query(last, limit))).map_err(remote)?,
            headers: HeaderMap::new(),
            body: empty(),
            scope: "registry:catalog:*".to_owned(),
            caller: None,
            follow: false,
            peer: None,
            deadline: tokio::time::Instant::now() + self.config.deadline,
        };
        let reach = Reach { repository: self.config.prefix.clone(), caller: None, deadline: ask.deadline };
        let (bytes, headers) = self.list(&reach, ask).await.map_err(remote)?;
        let catalog: Catalog =
            serde_json::from_slice(&bytes).map_err(|_| remote(self.answer("a list of repositories that is none")))?;
        let listed = page(catalog.repositories.unwrap_or_default(), limit, &headers);
        let here = |name: &RepositoryName| match prefix {
            Some(prefix) => format!("{prefix}/{name}").parse().ok(),
            None => Some(name.clone()),
        };
        let names = listed.entries.iter().filter_map(|name| name.parse::<RepositoryName>().ok());
        let shown = names.filter(|name| here(name).is_some_and(|here| permit.shows(&here)));
        Ok(Page { entries: shown.collect(), more: listed.more })
    }

    /// The manifests that refer to `subject`, as the upstream lists them.
    pub async fn referrers(
        self: &Arc<Self>,
        target: Target,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<RawList, RegistryError> {
        let reach = self.reach(&target);
        let kind = artifact_type.map(|kind| format!("?artifactType={}", utf8_percent_encode(kind, NON_ALPHANUMERIC)));
        let path = format!("/referrers/{subject}{}", kind.unwrap_or_default());
        let listed = async {
            let (bytes, headers) = self.list(&reach, self.read(Method::GET, &reach, &path)?).await?;
            Ok(RawList { bytes, filtered: headers.contains_key("oci-filters-applied") })
        };
        listed.await.map_err(|error| remote(self.no_referrers(error)))
    }

    /// A registry without that list answers 404, and clients keep one under a tag then. But not where they are told that the
    /// repository is unknown: oras gives up there.
    fn no_referrers(&self, error: RemoteError) -> RemoteError {
        match error {
            RemoteError::Missing => RemoteError::Rejected {
                upstream: self.name().to_owned(),
                status: StatusCode::NOT_FOUND.as_u16(),
                code: "UNSUPPORTED".to_owned(),
                message: "it does not list what refers to a manifest".to_owned(),
            },
            error => error,
        }
    }

    async fn list(&self, reach: &Reach, ask: Ask) -> Result<(Bytes, HeaderMap), RemoteError> {
        let answer = self.origin.send(ask).await?;
        if answer.status() != StatusCode::OK {
            return Err(self.unexpected(reach, answer.status()));
        }
        let (parts, body) = answer.into_parts();
        let is_html = parts.headers.get(CONTENT_TYPE).is_some_and(|text| text.as_bytes().starts_with(b"text/html"));
        if is_html {
            return Err(self.answer("a web page where a list belongs"));
        }
        let bytes = self.whole(body, number(&parts.headers, CONTENT_LENGTH)).await?;
        Ok((bytes, parts.headers))
    }
}

fn page_query(last: Option<&str>, limit: usize) -> String {
    let last = last.map(|last| format!("last={}&", utf8_percent_encode(last, NON_ALPHANUMERIC)));
    format!("{}n={limit}", last.unwrap_or_default())
}

/// Some registries know no pages and list everything.
fn page(mut entries: Vec<String>, limit: usize, headers: &HeaderMap) -> Page<String> {
    let more = headers.contains_key(LINK) || entries.len() > limit;
    entries.truncate(limit);
    Page { entries, more }
}

fn remote(error: RemoteError) -> RegistryError {
    RegistryError::Remote(Box::new(error))
}

fn list_error(error: RemoteError, name: &RepositoryName) -> RegistryError {
    match error {
        RemoteError::Missing => RegistryError::NameUnknown(name.clone()),
        error => remote(error),
    }
}
