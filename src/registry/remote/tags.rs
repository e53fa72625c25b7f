//! Which manifest a tag elsewhere names: asked for by HEAD, which no registry counts as a pull, and by GET where that does not
//! tell. `known` says for how long it is remembered.

use std::sync::Arc;
use std::time::SystemTime;

use http::{Method, StatusCode};

use crate::oci::{Digest, Tag};
use crate::registry::Older;
use crate::store::{Known, Member, Pointer};

use super::error::number;
use super::known::Key;
use super::manifests::{is_web_page, media_type_of};
use super::{Reach, Remote, RemoteError};

/// How an upstream names what it sends.
pub(super) const CONTENT_DIGEST: &str = "docker-content-digest";

impl Remote {
    /// The manifest that a tag names, and since when that is known, if the upstream could not be asked. One question to it,
    /// however many ask here.
    pub(super) async fn resolve(
        self: &Arc<Self>,
        reach: &Reach,
        tag: &Tag,
    ) -> Result<(Digest, Option<Older>), RemoteError> {
        let key = (reach.repository.clone(), Pointer::Tag(tag.clone()));
        let known = self.known(&key).await?;
        self.current(reach, &key.1, known, move |reach| async move { self.ask_together(&reach, tag).await }).await
    }

    async fn ask_together(self: &Arc<Self>, reach: &Reach, tag: &Tag) -> Result<Known<Digest>, RemoteError> {
        let asked = self.resolving.run((reach.way(), tag.clone()), || {
            let (remote, reach, tag) = (Arc::clone(self), reach.clone(), tag.clone());
            async move { remote.ask_tag(&reach, &tag).await }
        });
        asked.await
    }

    async fn ask_tag(self: &Arc<Self>, reach: &Reach, tag: &Tag) -> Result<Known<Digest>, RemoteError> {
        let key = (reach.repository.clone(), Pointer::Tag(tag.clone()));
        let ticket = self.ticket(&key);
        let what = match self.head_of_tag(reach, &key, tag).await {
            Ok(Some(digest)) => Some(digest),
            Err(error) if !error.is_answer() => return Err(error),
            // There are registries that answer nothing but GET, so that alone says what there is.
            _ => match self.fetch_by_tag(reach, tag).await {
                Ok(digest) => Some(digest),
                Err(RemoteError::Missing) => None,
                Err(error) => return Err(error),
            },
        };
        self.remember(reach, ticket, key, what, true).await;
        Ok(Known { what, checked_at: SystemTime::now() })
    }

    /// What HEAD says; none, if it does not say it all.
    async fn head_of_tag(self: &Arc<Self>, reach: &Reach, key: &Key, tag: &Tag) -> Result<Option<Digest>, RemoteError> {
        let answer = self.origin.send(self.read_manifest_of(Method::HEAD, reach, tag.as_str())?).await?;
        let headers = answer.headers();
        if answer.status() != StatusCode::OK {
            return Err(self.unexpected(reach, answer.status()));
        }
        let Some(digest) = header_digest(headers).filter(|_| !is_web_page(headers)) else { return Ok(None) };
        let size = number(headers, http::header::CONTENT_LENGTH);
        let member = Member { digest, size, media_type: media_type_of(headers), proven: true };
        self.learn_members(&reach.repository, vec![member]).await?;
        self.take_before_older_goes(reach, key, &digest).await?;
        Ok(Some(digest))
    }

    /// While an older manifest can be given, the tag is not moved to one that cannot be had: HEAD is free where GET is counted.
    async fn take_before_older_goes(
        self: &Arc<Self>,
        reach: &Reach,
        key: &Key,
        digest: &Digest,
    ) -> Result<(), RemoteError> {
        let older = self.known(key).await?.filter(|known| self.is_good_still(known));
        let older = older.and_then(|known| known.what).filter(|older| older != digest);
        let is_here = |older: &Digest| self.shelves.disk.has(older) || self.shelves.memory.get(older).is_some();
        if older.is_some_and(|older| is_here(&older)) {
            self.manifest_by_digest(reach, digest).await?;
        }
        Ok(())
    }
}

/// What the upstream says the digest is.
pub(super) fn header_digest(headers: &http::HeaderMap) -> Option<Digest> {
    headers.get(CONTENT_DIGEST)?.to_str().ok()?.parse().ok()
}
