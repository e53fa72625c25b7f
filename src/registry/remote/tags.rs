//! Which manifest a tag elsewhere names: remembered for a while, asked for again by HEAD, which no registry counts as a
//! pull, and answered from memory while the registry cannot be asked.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};
use tokio::time::{Instant, timeout_at};

use crate::oci::{Digest, RepositoryName, Tag};
use crate::store::{KnownTag, Member, StoreError};

use super::super::Older;
use super::error::number;
use super::manifests::{is_web_page, media_type_of};
use super::{Reach, Remote, RemoteError, too_late};

/// How an upstream names what it sends.
pub(super) const CONTENT_DIGEST: &str = "docker-content-digest";

/// What a tag names.
pub(super) struct Named {
    pub(super) digest: Digest,
    /// Since when that is known, if the upstream could not be asked.
    pub(super) older: Option<Older>,
}

impl Remote {
    /// The manifest that a tag names. One question to the upstream, however many ask here.
    pub(super) async fn resolve(self: &Arc<Self>, reach: &Reach, tag: &Tag) -> Result<Named, RemoteError> {
        let known = self.known_tag(&reach.repository, tag).await?;
        if let Some(known) = &known
            && reach.caller.is_none()
            && self.is_fresh(known)
        {
            return Named::now(known);
        }
        let older = known.filter(|known| age(known) < self.config.stale);
        match older.and_then(|known| self.older(&known)) {
            Some(older) => self.resolve_anew_or(older, reach, tag).await,
            None => {
                let asked = timeout_at(reach.deadline, self.ask_together(reach, tag)).await;
                Named::now(&asked.map_err(|_| too_late(self.name()))??)
            }
        }
    }

    /// The answer of the upstream, or `older` where it cannot be asked now, or takes its time.
    async fn resolve_anew_or(self: &Arc<Self>, older: Named, reach: &Reach, tag: &Tag) -> Result<Named, RemoteError> {
        if self.is_resting() {
            self.shelves.metrics.stale_answer(self.name());
            return Ok(older);
        }
        let patience = (Instant::now() + self.config.revalidate_timeout).min(reach.deadline);
        let error = match timeout_at(patience, self.ask_together(&self.reach_anew(reach), tag)).await {
            Ok(Ok(known)) => return Named::now(&known),
            Ok(Err(error)) => error,
            // It goes on asking; those who come meanwhile need not wait as long.
            Err(_) => too_late(self.name()),
        };
        let refused = matches!(error, RemoteError::Refused { .. } | RemoteError::Rejected { status: 403, .. });
        if error.is_passing() {
            self.rest();
        }
        if error.is_passing() || refused && self.config.stale_when_refused {
            tracing::warn!(upstream = self.name(), repository = %reach.repository, %tag, %error, "an older answer is given for a tag");
            self.shelves.metrics.stale_answer(self.name());
            return Ok(older);
        }
        Err(error)
    }

    fn older(&self, known: &KnownTag) -> Option<Named> {
        let older = Older { upstream: self.name().to_owned(), since: known.checked_at };
        known.digest.map(|digest| Named { digest, older: Some(older) })
    }

    async fn ask_together(self: &Arc<Self>, reach: &Reach, tag: &Tag) -> Result<KnownTag, RemoteError> {
        let asked = self.resolving.run((reach.way(), tag.clone()), || {
            let (remote, reach, tag) = (Arc::clone(self), reach.clone(), tag.clone());
            async move { remote.ask_tag(&reach, &tag).await }
        });
        asked.await
    }

    async fn ask_tag(self: &Arc<Self>, reach: &Reach, tag: &Tag) -> Result<KnownTag, RemoteError> {
        let key = (reach.repository.clone(), tag.clone());
        let ticket = self.tags.ticket(&key);
        let digest = match self.head_of_tag(reach, &key).await {
            Ok(Some(digest)) => Some(digest),
            Err(error) if !error.is_answer() => return Err(error),
            // There are registries that answer nothing but GET, so that alone says what there is.
            _ => match self.fetch_by_tag(reach, tag).await {
                Ok(digest) => Some(digest),
                Err(RemoteError::Missing) => None,
                Err(error) => return Err(error),
            },
        };
        let known = KnownTag { digest, checked_at: SystemTime::now() };
        // What was pushed here meanwhile is newer than what the upstream said before.
        if self.tags.holds(ticket) {
            self.remember_tag(&key, digest).await;
            self.tags.insert(ticket, key, known.clone());
        }
        Ok(known)
    }

    /// What HEAD says; none, if it does not say it all.
    async fn head_of_tag(
        self: &Arc<Self>,
        reach: &Reach,
        key: &(RepositoryName, Tag),
    ) -> Result<Option<Digest>, RemoteError> {
        let answer = self.origin.send(self.read_manifest_of(Method::HEAD, reach, key.1.as_str())?).await?;
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
        key: &(RepositoryName, Tag),
        digest: &Digest,
    ) -> Result<(), RemoteError> {
        let older = self.known_tag(&key.0, &key.1).await?.filter(|known| age(known) < self.config.stale);
        let older = older.and_then(|known| known.digest).filter(|older| older != digest);
        let is_here = |older: &Digest| self.shelves.disk.has(older) || self.shelves.memory.get(older).is_some();
        if older.is_some_and(|older| is_here(&older)) {
            self.manifest_by_digest(reach, digest).await?;
        }
        Ok(())
    }

    /// For after a restart, so it can be done without. That there is no such tag is not worth a row: anybody may ask for any.
    async fn remember_tag(&self, (repository, tag): &(RepositoryName, Tag), digest: Option<Digest>) {
        let store = &self.shelves.store;
        let remembered = match digest {
            Some(_) => store.put_known_tag(self.name(), repository, tag, digest).await,
            None => match store.known_tag(self.name(), repository, tag).await {
                Ok(Some(_)) => store.forget_tag(self.name(), repository, tag).await,
                other => other.map(drop),
            },
        };
        if let Err(error) = remembered {
            tracing::warn!(upstream = self.name(), %repository, %tag, %error, "what a tag names could not be written down; it is asked for again after a restart");
        }
    }

    async fn known_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<Option<KnownTag>, RemoteError> {
        let key = (repository.clone(), tag.clone());
        if let Some(known) = self.tags.get(&key) {
            return Ok(Some(known));
        }
        let ticket = self.tags.ticket(&key);
        let known = self.shelves.store.known_tag(self.name(), repository, tag).await.map_err(internal)?;
        if let Some(known) = &known {
            self.tags.insert(ticket, key, known.clone());
        }
        Ok(known)
    }

    /// The tag was moved, or is not what was said: the next who asks has the upstream asked.
    pub(super) async fn forget_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<(), RemoteError> {
        let key = (repository.clone(), tag.clone());
        self.tags.forget(&key);
        let forgotten = self.shelves.store.forget_tag(self.name(), repository, tag).await;
        self.tags.forget(&key);
        forgotten.map_err(internal)
    }

    fn is_fresh(&self, known: &KnownTag) -> bool {
        let good_for = if known.digest.is_some() { self.config.tag_ttl } else { self.config.negative_ttl };
        age(known) < good_for
    }
}

impl Named {
    fn now(known: &KnownTag) -> Result<Self, RemoteError> {
        known.digest.map(|digest| Self { digest, older: None }).ok_or(RemoteError::Missing)
    }
}

/// A clock that went backwards makes an answer young, for as long as it is behind at the most.
fn age(known: &KnownTag) -> Duration {
    known.checked_at.elapsed().unwrap_or_default()
}

/// What the upstream says the digest is.
pub(super) fn header_digest(headers: &http::HeaderMap) -> Option<Digest> {
    headers.get(CONTENT_DIGEST)?.to_str().ok()?.parse().ok()
}

/// The store failed; that is nothing the upstream did.
#[expect(clippy::needless_pass_by_value, reason = "it stands where an error is mapped")]
pub(super) fn internal(error: StoreError) -> RemoteError {
    RemoteError::Internal(error.to_string())
}
