//! What refers to a manifest elsewhere: asked for to its last page. The list is a manifest by its shape, and kept as one; which
//! list it is, is known as long as what a tag names (`known`).

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::access::{Permit, Pull};
use crate::config::RemoteKind;
use crate::oci::{Digest, MediaType, Reference};
use crate::registry::fallback::{Subject, subject_of};
use crate::registry::{Manifest, Older, RegistryError};
use crate::store::{Known, Pointer};

use super::known::Key;
use super::lists::{Gathered, remote};
use super::{Reach, Remote, RemoteError, Target};

/// A list of referrers, as an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawList {
    /// Its bytes.
    pub bytes: Bytes,
    /// Whether what was not asked for is left out.
    pub filtered: bool,
    /// Whom it was had from before, if they cannot be asked now.
    pub older: Option<Older>,
}

#[derive(Deserialize)]
struct Referrers {
    manifests: Option<Vec<Value>>,
}

impl Remote {
    /// The manifests that refer to `subject`.
    pub async fn referrers(
        self: &Arc<Self>,
        target: Target<Permit<Pull>>,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<RawList, RegistryError> {
        let list = self.list_of(&self.reach(&target), subject).await;
        let Manifest { bytes, older, .. } = list.map_err(|error| remote(self.no_list(error)))?;
        let (bytes, filtered) = match artifact_type {
            Some(artifact_type) => only(&bytes, artifact_type).map_or((bytes, false), |bytes| (bytes, true)),
            None => (bytes, false),
        };
        Ok(RawList { bytes, filtered, older })
    }

    async fn list_of(self: &Arc<Self>, reach: &Reach, subject: &Digest) -> Result<Manifest, RemoteError> {
        let key = (reach.repository.clone(), Pointer::Referrers(*subject));
        let known = self.known_list(reach, &key).await?;
        let ask = move |reach| async move { self.list_together(&reach, subject).await };
        let (list, older) = self.current(reach, &key.1, known, ask).await?;
        Ok(Manifest { older, ..list })
    }

    /// What is known of a list, if all of it is here and for whoever asks. The upstream knows nothing of it by its digest, so it
    /// is not asked whether it belongs there.
    async fn known_list(self: &Arc<Self>, reach: &Reach, key: &Key) -> Result<Option<Known<Manifest>>, RemoteError> {
        let Some(Known { what, checked_at }) = self.known(key).await? else { return Ok(None) };
        let Some(digest) = what else { return Ok(Some(Known { what: None, checked_at })) };
        if self.known_member(reach, &digest).await?.is_none_or(|member| !member.proven) {
            return Ok(None);
        }
        let list = self.kept_manifest(reach, &digest).await?;
        Ok(list.map(|list| Known { what: Some(list), checked_at }))
    }

    async fn list_together(self: &Arc<Self>, reach: &Reach, subject: &Digest) -> Result<Known<Manifest>, RemoteError> {
        let listed = self.listing.run((reach.way(), *subject), || {
            let (remote, reach, subject) = (Arc::clone(self), reach.clone(), *subject);
            async move { remote.ask_list(&reach, &subject).await }
        });
        listed.await
    }

    async fn ask_list(self: &Arc<Self>, reach: &Reach, subject: &Digest) -> Result<Known<Manifest>, RemoteError> {
        let key = (reach.repository.clone(), Pointer::Referrers(*subject));
        let ticket = self.ticket(&key);
        let (what, is_any) = match self.ask_referrers(reach, subject).await {
            Ok((bytes, is_any)) => {
                let (digest, index) = (Digest::sha256(&bytes), MediaType::OciIndex.as_str().to_owned());
                let list = match is_any {
                    true => self.keep_manifest(reach, &digest, bytes, Some(index)).await?,
                    false => self.keep_in_memory(reach, &digest, bytes, index),
                };
                (Some(list), is_any)
            }
            Err(RemoteError::Missing | RemoteError::Unsupported { .. }) => (None, false),
            Err(error) => return Err(error),
        };
        self.remember(reach, ticket, key, what.as_ref().map(|list| list.digest), is_any).await;
        Ok(Known { what, checked_at: SystemTime::now() })
    }

    /// All pages in one, and whether they list anything.
    async fn ask_referrers(&self, reach: &Reach, subject: &Digest) -> Result<(Bytes, bool), RemoteError> {
        let ask = self.read(Method::GET, reach, &format!("/referrers/{subject}"))?;
        let read = |bytes: &[u8]| {
            let page: Result<Referrers, _> = serde_json::from_slice(bytes);
            page.map(|page| page.manifests.unwrap_or_default()).map_err(|_| self.answer("referrers that are none"))
        };
        let Gathered { entries, page, .. } = self.gather(reach, ask, read, |_, _| false).await?;
        let is_any = !entries.is_empty();
        Ok((page.unwrap_or_else(|| index(&entries)), is_any))
    }

    /// What there is under a name that the upstream does not know, or cannot be asked for: a list of referrers perhaps.
    pub(super) async fn listed_or(
        self: &Arc<Self>,
        error: RemoteError,
        reach: &Reach,
        reference: &Reference,
    ) -> Result<Manifest, RemoteError> {
        let stands_for_list = matches!(reference, Reference::Tag(tag) if subject_of(tag).is_some());
        match self.listed_as_manifest(reach, reference).await {
            Some(manifest) => Ok(manifest),
            None if stands_for_list && self.config.kind == RemoteKind::Mirror => Err(RemoteError::Missing),
            None => Err(error),
        }
    }

    /// What refers to a manifest, where it is asked for by its tag, or was before, and is nothing else there.
    pub(super) async fn listed_as_manifest(self: &Arc<Self>, reach: &Reach, reference: &Reference) -> Option<Manifest> {
        let subject = match reference {
            Reference::Digest(digest) => return self.fallback.by_digest(reach.way(), digest),
            Reference::Tag(tag) => match subject_of(tag)? {
                Subject::Named(subject) => subject,
                // The upstream cannot be asked whom it stands for; whoever asks has pulled that mostly.
                Subject::BeginsWith(beginning) => {
                    let store = &self.shelves.store;
                    store.member_beginning_with(self.name(), &reach.repository, &beginning).await.ok()??
                }
            },
        };
        let list = self.list_of(reach, &subject).await.ok()?;
        let page: Referrers = serde_json::from_slice(&list.bytes).ok()?;
        page.manifests.filter(|manifests| !manifests.is_empty())?;
        let manifest = self.fallback.manifest_of(reach.way(), list.bytes);
        Some(Manifest { older: list.older, ..manifest })
    }

    /// A registry without that list answers 404, or that it does not know such a request, and clients keep one under a tag then.
    /// But not where they are told that the repository is unknown: oras gives up there. And of a mirror docker from 29.1 on
    /// takes nothing but a list or 404: whatever else it is told, it does not pull.
    fn no_list(&self, error: RemoteError) -> RemoteError {
        let is_mirror = self.config.kind == RemoteKind::Mirror;
        match error {
            RemoteError::Missing | RemoteError::Unsupported { .. } => {
                self.none_listed("does not list what refers to a manifest")
            }
            error if is_mirror && (error.is_passing() || matches!(error, RemoteError::Refused { .. })) => {
                tracing::warn!(upstream = self.name(), %error, "what refers to a manifest cannot be asked; none is told");
                self.none_listed("cannot be asked now what refers to a manifest")
            }
            error => error,
        }
    }

    fn none_listed(&self, reason: &'static str) -> RemoteError {
        RemoteError::NoReferrers { upstream: self.name().to_owned(), reason }
    }
}

/// Only those of a type; nothing, if the upstream says of none what it is.
fn only(list: &Bytes, artifact_type: &str) -> Option<Bytes> {
    let all = serde_json::from_slice::<Referrers>(list).ok()?.manifests.unwrap_or_default();
    if !all.is_empty() && all.iter().all(|one| one.get("artifactType").is_none()) {
        return None;
    }
    let those: Vec<Value> = all.into_iter().filter(|one| one["artifactType"] == artifact_type).collect();
    Some(index(&those))
}

fn index(manifests: &[Value]) -> Bytes {
    let index = json!({ "schemaVersion": 2, "mediaType": MediaType::OciIndex.as_str(), "manifests": manifests });
    index.to_string().into()
}
