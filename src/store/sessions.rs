//! The open upload sessions. This process holds the data directory alone, so what is known here is all there is.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::files::Prover;
use crate::oci::{RepositoryName, UploadId};

use super::UploadError;

/// One principal may have the first part of so many of all sessions, so that nobody takes them all.
const PRINCIPAL_SHARE: usize = 2;

pub(super) struct Sessions {
    open: Mutex<HashMap<UploadId, Session>>,
    limit: usize,
    lifetime: Duration,
}

struct Session {
    repository: RepositoryName,
    principal: Box<str>,
    expires_at: Instant,
    state: State,
}

enum State {
    /// Waits for the next request; with the hash of what its file holds, if that is known.
    Idle(Option<Box<Prover>>),
    /// A request has it.
    Taken,
}

impl Sessions {
    pub(super) fn new(limit: usize, lifetime: Duration) -> Self {
        Self { open: Mutex::default(), limit, lifetime }
    }

    /// How long after its last write a session is kept.
    pub(super) const fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// A new session, taken by whoever began it.
    pub(super) fn begin(&self, id: UploadId, repository: RepositoryName, principal: &str) -> Result<(), UploadError> {
        let mut open = self.lock();
        let own = open.values().filter(|session| *session.principal == *principal).count();
        if open.len() >= self.limit || own >= self.limit.div_ceil(PRINCIPAL_SHARE) {
            return Err(UploadError::TooManyUploads);
        }
        let expires_at = Instant::now() + self.lifetime;
        open.insert(id, Session { repository, principal: principal.into(), expires_at, state: State::Taken });
        Ok(())
    }

    /// A session that an earlier process began, and last wrote to `age` ago.
    pub(super) fn restore(&self, id: UploadId, repository: RepositoryName, principal: &str, age: Duration) {
        let expires_at = Instant::now() + self.lifetime.saturating_sub(age);
        let session = Session { repository, principal: principal.into(), expires_at, state: State::Idle(None) };
        self.lock().insert(id, session);
    }

    /// Takes a session, with the hash of what was written, if that is known. Whoever it does not belong to cannot tell
    /// whether it exists.
    pub(super) fn take(
        &self,
        id: UploadId,
        repository: &RepositoryName,
        principal: &str,
    ) -> Result<Option<Box<Prover>>, UploadError> {
        let mut open = self.lock();
        let session = find(&mut open, id, repository, principal)?;
        match std::mem::replace(&mut session.state, State::Taken) {
            State::Idle(prover) => Ok(prover),
            State::Taken => Err(UploadError::Busy),
        }
    }

    /// Whether a session waits for its next request.
    pub(super) fn check_idle(
        &self,
        id: UploadId,
        repository: &RepositoryName,
        principal: &str,
    ) -> Result<(), UploadError> {
        match find(&mut self.lock(), id, repository, principal)?.state {
            State::Idle(_) => Ok(()),
            State::Taken => Err(UploadError::Busy),
        }
    }

    /// Gives a session back.
    pub(super) fn release(&self, id: UploadId, prover: Option<Box<Prover>>) {
        if let Entry::Occupied(mut entry) = self.lock().entry(id) {
            let session = entry.get_mut();
            session.state = State::Idle(prover);
            session.expires_at = Instant::now() + self.lifetime;
        }
    }

    /// Ends a session.
    pub(super) fn end(&self, id: UploadId) {
        self.lock().remove(&id);
    }

    /// Ends every session that nobody has used for its lifetime.
    pub(super) fn end_expired(&self) -> Vec<UploadId> {
        let now = Instant::now();
        let expired = |session: &Session| matches!(session.state, State::Idle(_)) && session.expires_at <= now;
        self.lock().extract_if(|_, session| expired(session)).map(|(id, _)| id).collect()
    }

    /// Whether there is such a session.
    pub(super) fn contains(&self, id: UploadId) -> bool {
        self.lock().contains_key(&id)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UploadId, Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find<'o>(
    open: &'o mut HashMap<UploadId, Session>,
    id: UploadId,
    repository: &RepositoryName,
    principal: &str,
) -> Result<&'o mut Session, UploadError> {
    let session = open.get_mut(&id).ok_or(UploadError::Unknown)?;
    let is_theirs = session.repository == *repository && *session.principal == *principal;
    if is_theirs { Ok(session) } else { Err(UploadError::Unknown) }
}
