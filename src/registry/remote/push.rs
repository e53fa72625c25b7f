//! Manifests that are pushed to, and what is deleted from, a fronted registry.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde::Deserialize;

use crate::access::{Delete, Permit, WritePermit};
use crate::oci::{self, Algorithm, Digest, Reference, Tag, Verified};
use crate::registry::{ManifestPut, Pushed, RegistryError};
use crate::store::Pointer;
use crate::upstream::{Ask, Body};

use super::known::Key;
use super::tags::header_digest;
use super::{Reach, Remote, RemoteError, Target};

#[derive(Deserialize)]
struct Subject {
    subject: Option<SubjectDigest>,
}

#[derive(Deserialize)]
struct SubjectDigest {
    digest: String,
}

impl Remote {
    /// Stores a manifest there, and remembers it here.
    pub async fn put_manifest(
        self: &Arc<Self>,
        target: Target<WritePermit>,
        put: ManifestPut,
    ) -> Result<Pushed, RegistryError> {
        self.check_writable()?;
        let digest = match &put.reference {
            Reference::Tag(_) => Algorithm::Sha256.digest(&put.bytes),
            Reference::Digest(stated) if oci::is_schema1(&put.bytes, stated) => *stated,
            Reference::Digest(stated) => {
                let verified = Verified::check(&put.bytes, stated);
                *verified
                    .map_err(|error| RegistryError::ManifestDigest { stated: *stated, actual: error.actual })?
                    .digest()
            }
        };
        let reach = self.reach(&target);
        self.check_overwrite(&target, &reach, &put, &digest).await?;
        let (remote, stored) = (Arc::clone(self), put.reference.clone());
        // A task of its own: what was stored there must be remembered here even if the caller leaves meanwhile.
        let task = tokio::spawn(async move { remote.store_manifest(&reach, put, digest).await });
        let stored_as = task.await.map_err(|error| RegistryError::Internal(error.to_string()))?;
        stored_as.map_err(|error| match error {
            RemoteError::Missing => RegistryError::ManifestUnknown(stored),
            error => RegistryError::Remote(Box::new(error)),
        })
    }

    /// Who may only make new tags may not move one. The upstream has no word for that, so it is asked before.
    async fn check_overwrite(
        self: &Arc<Self>,
        target: &Target<WritePermit>,
        reach: &Reach,
        put: &ManifestPut,
        digest: &Digest,
    ) -> Result<(), RegistryError> {
        if target.permit.may_overwrite() {
            return Ok(());
        }
        for tag in put.all_tags() {
            self.check_new(reach, tag, put, digest).await?;
        }
        Ok(())
    }

    async fn check_new(
        self: &Arc<Self>,
        reach: &Reach,
        tag: Tag,
        put: &ManifestPut,
        digest: &Digest,
    ) -> Result<(), RegistryError> {
        let ask = self.read_manifest_of(Method::HEAD, reach, tag.as_str());
        let asked = async { Ok(self.origin.send(ask?).await?) };
        let answer = asked.await.map_err(|error: RemoteError| RegistryError::Remote(Box::new(error)))?;
        let is_same = |there: Digest| there == *digest || oci::is_schema1(&put.bytes, &there);
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(()),
            StatusCode::OK if header_digest(answer.headers()).is_some_and(is_same) => Ok(()),
            StatusCode::OK => Err(RegistryError::TagExists(tag)),
            status => Err(RegistryError::Remote(Box::new(self.unexpected(reach, status)))),
        }
    }

    async fn store_manifest(
        self: &Arc<Self>,
        reach: &Reach,
        put: ManifestPut,
        digest: Digest,
    ) -> Result<Pushed, RemoteError> {
        let query = put.tags.iter().map(|tag| format!("tag={tag}")).collect::<Vec<_>>().join("&");
        let query = if query.is_empty() { query } else { format!("?{query}") };
        let mut ask = self.write(Method::PUT, reach, &format!("/manifests/{}{query}", put.reference))?;
        if let Some(value) = put.content_type.as_deref().and_then(|text| HeaderValue::from_str(text).ok()) {
            ask.headers.insert(CONTENT_TYPE, value);
        }
        ask.body = full(put.bytes.clone());
        let subject = serde_json::from_slice::<Subject>(&put.bytes).ok().and_then(|manifest| manifest.subject);
        let subject = subject.and_then(|subject| subject.digest.parse().ok());
        // What it refers to has other referrers then, too.
        let changed = put.all_tags().into_iter().map(Pointer::Tag).chain(subject.map(Pointer::Referrers));
        let changed: Vec<Key> = changed.map(|pointer| (reach.repository.clone(), pointer)).collect();
        self.forget_changed(&changed).await?;
        let answer = self.origin.send(ask).await;
        self.forget_changed(&changed).await?;
        let answer = answer?;
        if !matches!(answer.status(), StatusCode::CREATED | StatusCode::ACCEPTED | StatusCode::OK) {
            return Err(self.rejected(reach, answer).await);
        }
        // Docker's registry names a signed manifest of schema 1 by what was signed, others name it by its bytes.
        let there = header_digest(answer.headers()).filter(|there| oci::is_schema1(&put.bytes, there));
        let digest = there.unwrap_or(digest);
        let subject = subject.filter(|_| answer.headers().contains_key("oci-subject"));
        // Whoever knows nothing of several tags says nothing of them, and the client pushes each by itself.
        let tags = put.tags.into_iter().filter(|tag| is_named(answer.headers(), tag)).collect();
        self.keep_manifest(reach, &digest, put.bytes, put.content_type).await?;
        Ok(Pushed { digest, tags, subject })
    }

    /// To be called before a manifest is pushed and again after.
    async fn forget_changed(&self, changed: &[Key]) -> Result<(), RemoteError> {
        for key in changed {
            self.forget_known(key).await?;
        }
        Ok(())
    }

    /// Deletes a tag, or a manifest, there.
    pub async fn delete_manifest(
        self: &Arc<Self>,
        target: Target<Permit<Delete>>,
        reference: &Reference,
    ) -> Result<(), RegistryError> {
        let missing = || RegistryError::ManifestUnknown(reference.clone());
        let reach = self.reach(&target);
        let deleted =
            self.delete(target, &format!("/manifests/{reference}"), reference_parts(reference), missing).await;
        match deleted {
            // It is there for as long as there is anything to list; who deletes it wants to be told that this was done.
            Err(RegistryError::ManifestUnknown(_)) if self.listed_as_manifest(&reach, reference).await.is_some() => {
                Ok(())
            }
            deleted => deleted,
        }
    }

    /// Takes a blob out of a repository there.
    pub async fn delete_blob(
        self: &Arc<Self>,
        target: Target<Permit<Delete>>,
        digest: &Digest,
    ) -> Result<(), RegistryError> {
        let missing = || RegistryError::BlobUnknown(*digest);
        self.delete(target, &format!("/blobs/{digest}"), (None, Some(*digest)), missing).await
    }

    async fn delete(
        self: &Arc<Self>,
        target: Target<Permit<Delete>>,
        path: &str,
        (tag, digest): (Option<Tag>, Option<Digest>),
        missing: impl FnOnce() -> RegistryError,
    ) -> Result<(), RegistryError> {
        self.check_writable()?;
        let (remote, reach, path) = (Arc::clone(self), self.reach(&target), path.to_owned());
        let task = tokio::spawn(async move {
            let mut ask = remote.write(Method::DELETE, &reach, &path)?;
            ask.scope = format!("repository:{}:delete", reach.repository);
            remote.forget_lists(&reach.repository).await?;
            let answer = remote.origin.send(ask).await?;
            match answer.status() {
                StatusCode::ACCEPTED | StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::NOT_FOUND => {
                    if let Some(tag) = &tag {
                        remote.forget_tag(&reach.repository, tag).await?;
                    }
                    remote.forget_lists(&reach.repository).await?;
                    if let Some(digest) = &digest {
                        remote.forget_member(&reach.repository, digest).await?;
                    }
                    let gone = answer.status() == StatusCode::NOT_FOUND;
                    if gone { Err(RemoteError::Missing) } else { Ok(()) }
                }
                _ => Err(remote.rejected(&reach, answer).await),
            }
        });
        let deleted = task.await.map_err(|error| RegistryError::Internal(error.to_string()))?;
        deleted.map_err(|error| match error {
            RemoteError::Missing => missing(),
            error => RegistryError::Remote(Box::new(error)),
        })
    }

    /// A change of something in the repository.
    pub(super) fn write(&self, method: Method, reach: &Reach, path: &str) -> Result<Ask, RemoteError> {
        let mut ask = self.read(method, reach, path)?;
        ask.scope = format!("repository:{}:pull,push", reach.repository);
        ask.follow = false;
        Ok(ask)
    }
}

/// Whether an upstream says that a tag names what was pushed (distribution-spec, end-7b: a list).
fn is_named(headers: &HeaderMap, tag: &Tag) -> bool {
    let values = headers.get_all("oci-tag").iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|name| name.trim() == tag.as_str())
}

fn reference_parts(reference: &Reference) -> (Option<Tag>, Option<Digest>) {
    match reference {
        Reference::Tag(tag) => (Some(tag.clone()), None),
        Reference::Digest(digest) => (None, Some(*digest)),
    }
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}
