//! What an upstream said of what can change: what its tags name, and its lists of referrers. For how long that is good, and
//! what is given while it cannot be asked.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout_at};

use crate::cache::{Ticket, Volatile};
use crate::oci::{Digest, RepositoryName, Tag};
use crate::registry::Older;
use crate::store::{Known, Pointer, StoreError};

use super::{Reach, Remote, RemoteError, too_late};

/// How long an upstream that could not be asked is left alone where an older answer will do.
const REST: Duration = Duration::from_secs(5);

/// What an upstream said of one kind of things, tags or lists.
pub(super) struct Sayings {
    said: Volatile<Key, Known<Digest>>,
    rest: Rest,
}

/// Until when an upstream is left alone.
#[derive(Default)]
struct Rest(Mutex<Option<Instant>>);

/// What may change, and where.
pub(super) type Key = (RepositoryName, Pointer);

impl Sayings {
    /// Holds at most `capacity` bytes.
    pub(super) fn new(capacity: u64) -> Self {
        let said = Volatile::new(capacity, |(name, pointer): &Key, _| match pointer {
            Pointer::Tag(tag) => name.as_str().len() + tag.as_str().len(),
            Pointer::Referrers(_) => name.as_str().len(),
        });
        Self { said, rest: Rest::default() }
    }
}

impl Remote {
    /// What the upstream says, or what it said before where that is good still. It is good for longer where the upstream
    /// cannot be asked now, or takes its time. What callers may see who show credentials of their own, only the upstream knows.
    pub(super) async fn current<T, Asked>(
        &self,
        reach: &Reach,
        pointer: &Pointer,
        known: Option<Known<T>>,
        ask: impl Fn(Reach) -> Asked,
    ) -> Result<(T, Option<Older>), RemoteError>
    where
        Asked: Future<Output = Result<Known<T>, RemoteError>>,
    {
        match known {
            Some(known) if reach.caller.is_none() && self.is_fresh(&known) => now(known),
            Some(Known { what: Some(what), checked_at }) if age(checked_at) < self.config.stale => {
                let older = (what, Older { upstream: self.name().to_owned(), since: checked_at });
                self.anew_or(older, reach, pointer, ask).await
            }
            _ => {
                let asked = timeout_at(reach.deadline, ask(reach.clone())).await;
                now(asked.map_err(|_| too_late(self.name()))??)
            }
        }
    }

    /// The answer of the upstream, or the older one where it cannot be asked now, or takes its time.
    async fn anew_or<T, Asked>(
        &self,
        (what, older): (T, Older),
        reach: &Reach,
        pointer: &Pointer,
        ask: impl Fn(Reach) -> Asked,
    ) -> Result<(T, Option<Older>), RemoteError>
    where
        Asked: Future<Output = Result<Known<T>, RemoteError>>,
    {
        let rest = &self.sayings(pointer).rest;
        if rest.is_on() {
            self.shelves.metrics.stale_answer(self.name());
            return Ok((what, Some(older)));
        }
        let patience = (Instant::now() + self.config.revalidate_timeout).min(reach.deadline);
        let error = match timeout_at(patience, ask(self.reach_anew(reach))).await {
            Ok(Ok(known)) => return now(known),
            Ok(Err(error)) => error,
            // It goes on asking; those who come meanwhile need not wait as long.
            Err(_) => too_late(self.name()),
        };
        let refused = matches!(error, RemoteError::Refused { .. } | RemoteError::Rejected { status: 403, .. });
        if error.is_passing() {
            rest.begin();
        }
        // Of callers the upstream alone knows whether they may still see it.
        let stale_when_refused = self.config.stale_when_refused && reach.caller.is_none();
        if error.is_passing() || refused && stale_when_refused {
            tracing::warn!(upstream = self.name(), repository = %reach.repository, asked = %pointer, %error, "an older answer is given");
            self.shelves.metrics.stale_answer(self.name());
            return Ok((what, Some(older)));
        }
        Err(error)
    }

    /// What is known, in memory or since before a restart.
    pub(super) async fn known(&self, key: &Key) -> Result<Option<Known<Digest>>, RemoteError> {
        let said = &self.sayings(&key.1).said;
        if let Some(known) = said.get(key) {
            return Ok(Some(known));
        }
        let ticket = said.ticket(key);
        let known = self.shelves.store.known(self.name(), &key.0, &key.1).await.map_err(internal)?;
        if let Some(known) = &known {
            said.insert(ticket, key.clone(), known.clone());
        }
        Ok(known)
    }

    /// To be taken before the upstream is asked.
    pub(super) fn ticket(&self, key: &Key) -> Ticket {
        self.sayings(&key.1).said.ticket(key)
    }

    /// The upstream said so just now. Only what `lasts` is worth a row, which is for after a restart and can be done without:
    /// for what is not there, and for what refers to nothing, anybody may ask by any name.
    pub(super) async fn remember(&self, reach: &Reach, ticket: Ticket, key: Key, what: Option<Digest>, lasts: bool) {
        let said = &self.sayings(&key.1).said;
        // What was pushed here meanwhile is newer than what the upstream said before; and that there is nothing for one caller
        // says nothing of what there is for others.
        if !said.holds(ticket) || what.is_none() && reach.caller.is_some() {
            return;
        }
        let (store, (repository, pointer)) = (&self.shelves.store, &key);
        let mut written = match what.filter(|_| lasts) {
            Some(digest) => store.put_known(self.name(), repository, pointer, &digest).await,
            None => match store.known(self.name(), repository, pointer).await {
                Ok(Some(_)) => store.forget_known(self.name(), repository, pointer).await,
                other => other.map(drop),
            },
        };
        if !said.holds(ticket) {
            written = written.and(store.forget_known(self.name(), repository, pointer).await);
            // Somebody may have read the row meanwhile.
            said.forget(&key);
        }
        if let Err(error) = written {
            tracing::warn!(upstream = self.name(), %repository, asked = %pointer, %error, "what an upstream said could not be written down; it is asked again after a restart");
        }
        said.insert(ticket, key, Known { what, checked_at: SystemTime::now() });
    }

    /// It changed, or is not what was said: the next who asks has the upstream asked.
    pub(super) async fn forget_known(&self, key: &Key) -> Result<(), RemoteError> {
        let said = &self.sayings(&key.1).said;
        said.forget(key);
        let forgotten = self.shelves.store.forget_known(self.name(), &key.0, &key.1).await;
        said.forget(key);
        forgotten.map_err(internal)
    }

    pub(super) async fn forget_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<(), RemoteError> {
        self.forget_known(&(repository.clone(), Pointer::Tag(tag.clone()))).await
    }

    /// Any list of the repository may have changed.
    pub(super) async fn forget_lists(&self, repository: &RepositoryName) -> Result<(), RemoteError> {
        self.lists.said.forget_all();
        let forgotten = self.shelves.store.forget_lists(self.name(), repository).await;
        self.lists.said.forget_all();
        forgotten.map_err(internal)
    }

    /// That lists fail, take long or may have changed says nothing of tags.
    const fn sayings(&self, pointer: &Pointer) -> &Sayings {
        match pointer {
            Pointer::Tag(_) => &self.tags,
            Pointer::Referrers(_) => &self.lists,
        }
    }

    fn is_fresh<T>(&self, known: &Known<T>) -> bool {
        let good_for = if known.what.is_some() { self.config.tag_ttl } else { self.config.negative_ttl };
        age(known.checked_at) < good_for
    }

    /// Whether it may still be given while the upstream cannot be asked.
    pub(super) fn is_good_still<T>(&self, known: &Known<T>) -> bool {
        age(known.checked_at) < self.config.stale
    }
}

impl Rest {
    /// It could not be asked: for a while only those who have no other answer wait for it.
    fn begin(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + REST);
    }

    fn is_on(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| Instant::now() < until)
    }
}

fn now<T>(known: Known<T>) -> Result<(T, Option<Older>), RemoteError> {
    known.what.map(|what| (what, None)).ok_or(RemoteError::Missing)
}

/// A clock that went backwards makes an answer young, for as long as it is behind at the most.
fn age(checked_at: SystemTime) -> Duration {
    checked_at.elapsed().unwrap_or_default()
}

/// The store failed; that is nothing the upstream did.
#[expect(clippy::needless_pass_by_value, reason = "it stands where an error is mapped")]
pub(super) fn internal(error: StoreError) -> RemoteError {
    RemoteError::Internal(error.to_string())
}
