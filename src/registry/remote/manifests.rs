//! Manifests from elsewhere. By digest they are asked for once; what a tag names is looked up first (`tags`).

use std::borrow::Cow;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::time::timeout_at;

use crate::access::{Permit, Pull};
use crate::cache::Lookup;
use crate::oci::{self, Digest, Reference, Tag, Verified};
use crate::registry::{Manifest, RegistryError, Tier};
use crate::store::Member;
use crate::upstream::Body;

use super::error::number;
use super::learn::learn;
use super::members::Kind;
use super::tags::header_digest;
use super::{Reach, Remote, RemoteError, Target, too_late};

/// Types that say nothing of what a manifest is; what it says itself holds then.
const GENERIC: [&str; 3] = ["application/octet-stream", "binary/octet-stream", "application/json"];

impl Remote {
    /// A manifest to read.
    pub async fn manifest(
        self: &Arc<Self>,
        target: Target<Permit<Pull>>,
        reference: &Reference,
    ) -> Result<Manifest, RegistryError> {
        let reach = self.reach(&target);
        let found = match reference {
            Reference::Digest(digest) => self.manifest_by_digest(&reach, digest).await,
            Reference::Tag(tag) => self.manifest_by_tag(&reach, tag).await,
        };
        let found = match found {
            Err(error) if matches!(error, RemoteError::Missing) || error.is_passing() => {
                self.listed_or(error, &reach, reference).await
            }
            found => found,
        };
        found.map_err(|error| match error {
            RemoteError::Missing => RegistryError::ManifestUnknown(reference.clone()),
            error => RegistryError::Remote(Box::new(error)),
        })
    }

    async fn manifest_by_tag(self: &Arc<Self>, reach: &Reach, tag: &Tag) -> Result<Manifest, RemoteError> {
        let (digest, older) = self.resolve(reach, tag).await?;
        let found = self.manifest_by_digest(reach, &digest).await.map(|manifest| Manifest { older, ..manifest });
        // What the upstream said of the tag is not so: ask it again next time.
        if matches!(found, Err(RemoteError::Missing | RemoteError::Mismatch { .. })) {
            self.forget_tag(&reach.repository, tag).await?;
        }
        found
    }

    pub(super) async fn manifest_by_digest(
        self: &Arc<Self>,
        reach: &Reach,
        digest: &Digest,
    ) -> Result<Manifest, RemoteError> {
        if let Some(found) = self.kept_manifest(reach, digest).await? {
            return Ok(found);
        }
        let fetched = self.fetching.run((reach.way(), *digest), || {
            let (remote, again, name) = (Arc::clone(self), self.reach_anew(reach), *digest);
            async move { remote.fetch(&again, &name).await }
        });
        timeout_at(reach.deadline, fetched).await.map_err(|_| too_late(self.name()))?
    }

    /// From memory or disk, if the upstream itself sent it and it belongs to the repository.
    pub(super) async fn kept_manifest(
        self: &Arc<Self>,
        reach: &Reach,
        digest: &Digest,
    ) -> Result<Option<Manifest>, RemoteError> {
        if !self.is_ours(digest).await? {
            return Ok(None);
        }
        let member = self.belongs(reach, digest, Kind::Manifest).await?;
        let (bytes, tier) = match self.shelves.memory.get(digest) {
            Some(bytes) => (bytes, Tier::Memory),
            None => {
                let lookup = timeout_at(reach.deadline, self.look(digest, true)).await;
                let Lookup::Hit(file) = lookup.map_err(|_| too_late(self.name()))? else { return Ok(None) };
                if file.size() > self.limits.manifest_bytes {
                    return Ok(None);
                }
                let Ok(bytes) = file.read_all().await else { return Ok(None) };
                // Its pieces were checked; a manifest is hashed all the same, since all that is pulled follows from it.
                if Verified::check(&bytes, digest).is_err() {
                    return Ok(None);
                }
                (bytes, Tier::Disk)
            }
        };
        self.shelves.memory.insert(*digest, bytes.clone());
        let Some(media_type) = member.media_type.or_else(|| learn(&bytes).map(|learnt| learnt.media_type)) else {
            return Ok(None);
        };
        Ok(Some(Manifest { digest: *digest, media_type: Cow::Owned(media_type), bytes, tier, older: None }))
    }

    async fn fetch(self: &Arc<Self>, reach: &Reach, digest: &Digest) -> Result<Manifest, RemoteError> {
        let answer = self.origin.send(self.read_manifest_of(Method::GET, reach, &digest.to_string())?).await?;
        let (bytes, media_type) = self.body_of(reach, answer).await?;
        self.keep_manifest(reach, digest, bytes, media_type).await
    }

    /// For upstreams that do not say a digest: what the tag names now, by its bytes.
    pub(super) async fn fetch_by_tag(self: &Arc<Self>, reach: &Reach, tag: &Tag) -> Result<Digest, RemoteError> {
        let answer = self.origin.send(self.read_manifest_of(Method::GET, reach, tag.as_str())?).await?;
        let stated = header_digest(answer.headers());
        let (bytes, media_type) = self.body_of(reach, answer).await?;
        let digest = stated.unwrap_or_else(|| Digest::sha256(&bytes));
        self.keep_manifest(reach, &digest, bytes, media_type).await?;
        Ok(digest)
    }

    /// The bytes of a manifest, and what it is.
    async fn body_of(&self, reach: &Reach, answer: Response<Body>) -> Result<(Bytes, Option<String>), RemoteError> {
        if answer.status() != StatusCode::OK {
            return Err(self.not_given(reach, answer).await);
        }
        let media_type = media_type_of(answer.headers());
        let announced = number(answer.headers(), CONTENT_LENGTH);
        let bytes = self.whole(answer.into_body(), announced).await?;
        Ok((bytes, media_type))
    }

    /// A body that must fit into memory.
    pub(super) async fn whole(&self, mut body: Body, announced: Option<u64>) -> Result<Bytes, RemoteError> {
        let limit = self.limits.manifest_bytes;
        let too_large = || self.answer(format!("more than limits.manifest_bytes, {limit} bytes"));
        if announced.is_some_and(|announced| announced > limit) {
            return Err(too_large());
        }
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let broken = |error: crate::net::client::BoxError| RemoteError::Broken {
                upstream: self.name().to_owned(),
                reason: error.to_string(),
            };
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            whole.extend_from_slice(&data);
            if whole.len() as u64 > limit {
                return Err(too_large());
            }
        }
        Ok(whole.freeze())
    }

    /// Verifies a manifest, remembers that it and what it names belong to the repository, and keeps it.
    pub(super) async fn keep_manifest(
        self: &Arc<Self>,
        reach: &Reach,
        digest: &Digest,
        bytes: Bytes,
        media_type: Option<String>,
    ) -> Result<Manifest, RemoteError> {
        let tier = Tier::Upstream;
        let named = |media_type| Manifest { digest: *digest, media_type, bytes: bytes.clone(), tier, older: None };
        if let Err(mismatch) = Verified::check(&bytes, digest) {
            // Schema 1 is signed: its digest is that of what was signed, and it is not kept.
            if oci::is_schema1(&bytes, digest)
                && let Some(learnt) = learn(&bytes)
            {
                return Ok(named(Cow::Owned(media_type.unwrap_or(learnt.media_type))));
            }
            self.told_mismatch(digest, &mismatch);
            return Err(RemoteError::Mismatch { upstream: self.name().to_owned(), mismatch: Box::new(mismatch) });
        }
        let learnt = learn(&bytes).ok_or_else(|| self.answer("200 with what is no manifest"))?;
        let media_type = media_type.unwrap_or(learnt.media_type);
        let (size, own_type) = (Some(bytes.len() as u64), Some(media_type.clone()));
        let mut members = learnt.members;
        members.push(Member { digest: *digest, size, media_type: own_type, proven: true });
        let (learnt, ()) = tokio::join!(self.learn_members(&reach.repository, members), self.has_sent(digest));
        learnt?;
        self.prove(reach, digest);
        self.shelves.memory.insert(*digest, bytes.clone());
        self.keep_on_disk(digest, &bytes).await;
        Ok(named(Cow::Owned(media_type)))
    }

    /// Keeps a manifest that is worth neither a row nor a file: it is known as long as it is asked for.
    pub(super) fn keep_in_memory(&self, reach: &Reach, digest: &Digest, bytes: Bytes, media_type: String) -> Manifest {
        let (size, own_type) = (Some(bytes.len() as u64), Some(media_type.clone()));
        let member = Member { digest: *digest, size, media_type: own_type, proven: true };
        self.note_members(&reach.repository, vec![member]);
        self.sent.insert(*digest, ());
        self.prove(reach, digest);
        self.shelves.memory.insert(*digest, bytes.clone());
        Manifest { digest: *digest, media_type: Cow::Owned(media_type), bytes, tier: Tier::Upstream, older: None }
    }

    /// A cache may do without.
    async fn keep_on_disk(&self, digest: &Digest, bytes: &Bytes) {
        let Lookup::Lead(mut fill) = self.shelves.disk.lookup(digest, self.name()).await else { return };
        let filled = async {
            fill.begin(Some(bytes.len() as u64)).await?;
            fill.write(bytes.clone()).await?;
            fill.finish().await
        };
        if let Err(error) = filled.await {
            tracing::debug!(%digest, ?error, "a manifest was not kept on disk");
        }
    }

    /// The operator must know who sends wrong bytes.
    pub(super) fn told_mismatch(&self, digest: &Digest, mismatch: &oci::Mismatch) {
        self.shelves.metrics.upstream_mismatch(self.name());
        tracing::error!(upstream = self.name(), %digest, actual = %mismatch.actual, bytes = mismatch.size, "an upstream sent other bytes than its digest says; nothing was kept");
    }
}

/// What the upstream says that it is, if that tells anything.
pub(super) fn media_type_of(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let essence = text.split(';').next().unwrap_or(text).trim();
    let tells = !essence.is_empty() && !essence.starts_with("text/") && !GENERIC.contains(&essence);
    tells.then(|| text.to_owned())
}

/// Whether it is meant for a browser: a portal, a login, a page that says that something is down or forbidden.
pub(super) fn is_web_page(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|text| text.as_bytes().starts_with(b"text/html"))
}
