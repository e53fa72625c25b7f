//! Which digests belong to which repository elsewhere. Nobody gets through the cache what they could not have got from
//! the upstream: a digest is given out only through an upstream that itself sent its bytes, through a repository only if it
//! belongs to it, and, where the upstream gets the callers' own credentials, only to those whom it lets have it (ADR 9).

use std::sync::Arc;

use http::header::CONTENT_LENGTH;
use http::{Method, StatusCode};
use tokio::time::timeout_at;

use crate::oci::{Digest, RepositoryName};
use crate::store::Member;

use super::error::number;
use super::known::internal;
use super::manifests::{is_web_page, media_type_of};
use super::{Reach, Remote, RemoteError, SENT_REMEMBERED, too_late};

/// Whose question it is whether the upstream has something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Asker {
    /// The caller's, by HEAD: that it is not there is what the upstream would tell them, too.
    Caller,
    /// Ours, before the caller gets what GET alone may give: that HEAD does not find it is no verdict.
    Gateway,
}

/// What a digest names, as it stands in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Blob,
    Manifest,
}

impl Remote {
    /// Whether all of a digest is here and the upstream itself sent it. What only others sent is not for its readers,
    /// whatever it says.
    pub(super) async fn is_ours(&self, digest: &Digest) -> Result<bool, RemoteError> {
        let is_here = || self.shelves.memory.get(digest).is_some() || self.shelves.disk.has(digest);
        if self.sent.contains_key(digest) || !is_here() {
            return Ok(is_here());
        }
        let used_at = self.shelves.store.sent(self.name(), digest).await.map_err(internal)?;
        // A download may have come to its end meanwhile.
        let Some(used_at) = used_at else { return Ok(self.sent.contains_key(digest) && is_here()) };
        self.sent.insert(*digest, ());
        if used_at.elapsed().is_ok_and(|age| age > SENT_REMEMBERED) {
            self.write_sent(digest).await;
        }
        Ok(is_here())
    }

    /// The upstream itself sent bytes that hashed right.
    pub(super) async fn has_sent(&self, digest: &Digest) {
        if !self.sent.contains_key(digest) {
            self.sent.insert(*digest, ());
            self.write_sent(digest).await;
        }
    }

    /// Where it cannot be written down it is known until a restart, and for a day at the most.
    async fn write_sent(&self, digest: &Digest) {
        if let Err(error) = self.shelves.store.put_sent(self.name(), digest).await {
            tracing::warn!(upstream = self.name(), %digest, %error, "what an upstream sent could not be written down");
        }
    }

    /// What is known of a digest of the repository; the upstream is asked where it was not proven to belong there. That a
    /// manifest names it is no proof: whoever can push a manifest could name what is another's.
    pub(super) async fn belongs(
        self: &Arc<Self>,
        reach: &Reach,
        digest: &Digest,
        kind: Kind,
    ) -> Result<Member, RemoteError> {
        match self.known_member(reach, digest).await? {
            Some(member) if member.proven => Ok(member),
            _ => self.ask_member(reach, digest, kind, Asker::Gateway).await,
        }
    }

    /// What is known of a member of a repository, without asking anybody.
    pub(super) async fn known_member(&self, reach: &Reach, digest: &Digest) -> Result<Option<Member>, RemoteError> {
        if let Some(caller) = &reach.caller
            && !self.proofs.contains_key(&(caller.clone(), reach.repository.clone(), *digest))
        {
            return Ok(None);
        }
        let key = (reach.repository.clone(), *digest);
        if let Some(member) = self.members.get(&key) {
            return Ok(Some(member));
        }
        let ticket = self.members.ticket(&key);
        let member = self.shelves.store.member(self.name(), &reach.repository, digest).await.map_err(internal)?;
        if let Some(member) = &member {
            self.members.insert(ticket, key, member.clone());
        }
        Ok(member)
    }

    /// One question, however many ask: whether the digest belongs to the repository, and what it is.
    pub(super) async fn ask_member(
        self: &Arc<Self>,
        reach: &Reach,
        digest: &Digest,
        kind: Kind,
        asker: Asker,
    ) -> Result<Member, RemoteError> {
        let asked = self.asking.run((reach.way(), *digest, kind, asker), || {
            let (remote, again, name) = (Arc::clone(self), self.reach_anew(reach), *digest);
            async move { remote.ask_whichever_way(&again, &name, kind, asker).await }
        });
        timeout_at(reach.deadline, asked).await.map_err(|_| too_late(self.name()))?
    }

    /// HEAD, and where that is not answered as it should be, GET, of which the head is all that is read: there are registries
    /// (Harbor's proxies, GitLab's virtual ones) and stores behind signed URLs that answer only that.
    async fn ask_whichever_way(
        &self,
        reach: &Reach,
        digest: &Digest,
        kind: Kind,
        asker: Asker,
    ) -> Result<Member, RemoteError> {
        let asked = match self.ask_by(Method::HEAD, reach, digest, kind).await {
            Err(RemoteError::Missing) if asker == Asker::Caller => Err(RemoteError::Missing),
            Err(error) if !error.is_answer() => Err(error),
            Ok(member) if member.size.is_some() => Ok(member),
            _ => self.ask_by(Method::GET, reach, digest, kind).await,
        };
        if matches!(asked, Err(RemoteError::Missing)) {
            self.forget_member(&reach.repository, digest).await?;
        }
        asked
    }

    async fn ask_by(&self, method: Method, reach: &Reach, digest: &Digest, kind: Kind) -> Result<Member, RemoteError> {
        let ask = match kind {
            Kind::Blob => self.read(method, reach, &format!("/blobs/{digest}"))?,
            Kind::Manifest => self.read_manifest_of(method, reach, &digest.to_string())?,
        };
        let answer = self.origin.send(ask).await?;
        match answer.status() {
            StatusCode::OK if is_web_page(answer.headers()) => return Err(self.answer("a web page in place of it")),
            StatusCode::OK => {}
            _ => return Err(self.not_given(reach, answer).await),
        }
        let media_type = media_type_of(answer.headers()).filter(|_| kind == Kind::Manifest);
        let member =
            Member { digest: *digest, size: number(answer.headers(), CONTENT_LENGTH), media_type, proven: true };
        self.learn_members(&reach.repository, vec![member.clone()]).await?;
        self.prove(reach, digest);
        Ok(member)
    }

    /// The upstream itself let the caller have it.
    pub(super) fn prove(&self, reach: &Reach, digest: &Digest) {
        if let Some(caller) = &reach.caller {
            self.proofs.insert((caller.clone(), reach.repository.clone(), *digest), ());
        }
    }

    /// The upstream said that these belong to the repository. Where that cannot be written down it is known until a restart:
    /// a full disk must not stop pulls.
    pub(super) async fn learn_members(
        &self,
        repository: &RepositoryName,
        members: Vec<Member>,
    ) -> Result<(), RemoteError> {
        let Err(error) = self.shelves.store.put_members(self.name(), repository, members.clone()).await else {
            members.iter().for_each(|member| self.members.forget(&(repository.clone(), member.digest)));
            return Ok(());
        };
        tracing::warn!(upstream = self.name(), %repository, %error, "what belongs to a repository could not be written down");
        self.note_members(repository, members);
        Ok(())
    }

    /// Remembers members of a repository without writing them down.
    pub(super) fn note_members(&self, repository: &RepositoryName, members: Vec<Member>) {
        for member in members {
            let key = (repository.clone(), member.digest);
            let is_better = |known: &Member| known.proven && !member.proven;
            if !self.members.get(&key).as_ref().is_some_and(is_better) {
                let ticket = self.members.ticket(&key);
                self.members.insert(ticket, key, member);
            }
        }
    }

    /// The upstream does not have it there any more.
    pub(super) async fn forget_member(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), RemoteError> {
        let key = (repository.clone(), *digest);
        self.members.forget(&key);
        let forgotten = self.shelves.store.forget_member(self.name(), repository, digest).await;
        self.members.forget(&key);
        forgotten.map_err(internal)
    }
}
