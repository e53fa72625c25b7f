//! What refers to a manifest elsewhere: asked for to its last page, kept as long as a tag's answer is, and given from memory while
//! the upstream cannot be asked.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::config::RemoteKind;
use crate::oci::{Digest, MediaType, Reference};

use super::super::fallback::subject_of;
use super::super::{Manifest, Older, RegistryError};
use super::lists::{GATHERED_PAGES_MAX, Listed, Place, again, remote};
use super::{Ask, Reach, Remote, RemoteError, Target, too_late};

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

/// What is remembered of a list.
#[derive(Debug, Clone)]
pub(super) struct KnownList {
    /// All of it; nothing, where the upstream has no such lists.
    pub(super) bytes: Option<Bytes>,
    checked_at: SystemTime,
}

#[derive(Deserialize)]
struct Referrers {
    manifests: Option<Vec<Value>>,
}

impl Remote {
    /// The manifests that refer to `subject`.
    pub async fn referrers(
        self: &Arc<Self>,
        target: Target,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<RawList, RegistryError> {
        self.list_referrers(&self.reach(&target), subject, artifact_type).await.map_err(remote)
    }

    async fn list_referrers(
        self: &Arc<Self>,
        reach: &Reach,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<RawList, RemoteError> {
        if reach.caller.is_some() {
            // What a caller may see there, only the upstream knows.
            let asked = self.ask_referrers(reach, subject, artifact_type).await;
            let (bytes, filtered) = asked.map_err(|error| self.no_list(error))?;
            return Ok(RawList { bytes, filtered, older: None });
        }
        let key = (reach.repository.clone(), *subject);
        let known = self.referrers.get(&key);
        let fresh = known.clone().filter(|known| age(known) < self.config.tag_ttl);
        let (known, older) =
            match (fresh, known.filter(|known| known.bytes.is_some() && age(known) < self.config.stale)) {
                (Some(fresh), _) => (fresh, None),
                (None, Some(older)) => {
                    self.list_anew_or(older, reach, subject).await.map_err(|error| self.no_list(error))?
                }
                (None, None) => {
                    let listed = timeout_at(reach.deadline, self.list_together(reach, subject)).await;
                    let listed = listed.map_err(|_| too_late(self.name())).flatten();
                    (listed.map_err(|error| self.no_list(error))?, None)
                }
            };
        let bytes = known.bytes.ok_or_else(|| self.none_listed("does not list what refers to a manifest"))?;
        let (bytes, filtered) = match artifact_type {
            Some(artifact_type) => only(&bytes, artifact_type).map_or((bytes, false), |bytes| (bytes, true)),
            None => (bytes, false),
        };
        Ok(RawList { bytes, filtered, older })
    }

    /// The answer of the upstream, or `older` where it cannot be asked now, or takes its time.
    async fn list_anew_or(
        self: &Arc<Self>,
        older: KnownList,
        reach: &Reach,
        subject: &Digest,
    ) -> Result<(KnownList, Option<Older>), RemoteError> {
        if !self.is_resting() {
            let patience = (Instant::now() + self.config.revalidate_timeout).min(reach.deadline);
            match timeout_at(patience, self.list_together(&self.reach_anew(reach), subject)).await {
                Ok(Ok(known)) => return Ok((known, None)),
                Ok(Err(error)) if !error.is_passing() => return Err(error),
                // That lists fail says nothing of tags.
                Ok(Err(RemoteError::Send(_))) => self.rest(),
                _ => {}
            }
        }
        self.shelves.metrics.stale_answer(self.name());
        let since = Older { upstream: self.name().to_owned(), since: older.checked_at };
        Ok((older, Some(since)))
    }

    async fn list_together(self: &Arc<Self>, reach: &Reach, subject: &Digest) -> Result<KnownList, RemoteError> {
        let key = (reach.repository.clone(), *subject);
        let listed = self.listing.run(key.clone(), || {
            let (remote, reach, key) = (Arc::clone(self), reach.clone(), key.clone());
            async move {
                let ticket = remote.referrers.ticket(&key);
                let bytes = match remote.ask_referrers(&reach, &key.1, None).await {
                    Ok((bytes, _)) => Some(bytes),
                    Err(RemoteError::Missing | RemoteError::Unsupported { .. }) => None,
                    Err(error) => return Err(error),
                };
                let known = KnownList { bytes, checked_at: SystemTime::now() };
                remote.referrers.insert(ticket, key, known.clone());
                Ok(known)
            }
        });
        listed.await
    }

    /// All pages in one, and whether the upstream left out what was not asked for: which manifest comes after which, only the
    /// upstream knows.
    async fn ask_referrers(
        &self,
        reach: &Reach,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<(Bytes, bool), RemoteError> {
        let kind = artifact_type.map(|kind| format!("?artifactType={}", utf8_percent_encode(kind, NON_ALPHANUMERIC)));
        let ask: Ask = self.read(Method::GET, reach, &format!("/referrers/{subject}{}", kind.unwrap_or_default()))?;
        let mut gathered = Vec::new();
        let mut filtered = true;
        let mut place = Place { path: ask.path.clone(), peer: ask.peer.clone() };
        let mut bytes_left = self.limits.manifest_bytes;
        for _ in 0..GATHERED_PAGES_MAX {
            let Listed { bytes, headers, next } = self.list(reach, again(&ask, place)).await?;
            let page: Referrers = serde_json::from_slice(&bytes).map_err(|_| self.answer("referrers that are none"))?;
            filtered &= headers.contains_key("oci-filters-applied");
            if next.is_none() && gathered.is_empty() {
                return Ok((bytes, filtered));
            }
            gathered.extend(page.manifests.unwrap_or_default());
            let Some(next) = next else { return Ok((index(&gathered), filtered)) };
            bytes_left = self.charge(bytes_left, bytes.len())?;
            place = next;
        }
        Err(self.answer(format!("referrers on more than {GATHERED_PAGES_MAX} pages")))
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
            Reference::Tag(tag) => subject_of(tag)?,
        };
        let list = self.list_referrers(reach, &subject, None).await.ok()?;
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

fn age(known: &KnownList) -> std::time::Duration {
    known.checked_at.elapsed().unwrap_or_default()
}
