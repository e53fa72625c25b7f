//! Uploads of ours that stand for uploads at a fronted registry: who began them, where they go on, and the hash so far.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::uri::{Authority, PathAndQuery};
use tokio::time::Instant;

use crate::access::{Create, Leave as _, Permit};
use crate::oci::{RepositoryName, UploadId, Verifier};
use crate::registry::RegistryError;

use super::{Target, new_upload_id};

/// One caller may have one of so many uploads, so that others can push.
const PRINCIPAL_SHARE: usize = 2;

/// All uploads that are open at one registry. They do not survive a restart: whoever pushes begins anew.
pub(super) struct Sessions {
    open: Arc<Mutex<HashMap<UploadId, Slot>>>,
    most: usize,
    lifetime: Duration,
}

struct Slot {
    owner: Owner,
    touched: Instant,
    /// None, while a request has it.
    session: Option<Session>,
}

/// Who may go on with an upload: the one who began it, in the same repository.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owner {
    repository: RepositoryName,
    principal: String,
}

impl Owner {
    fn of(target: &Target<Permit<Create>>) -> Self {
        Self { repository: target.repository.clone(), principal: target.permit.principal().to_string() }
    }
}

/// Where an upload is.
#[derive(Clone)]
pub(super) struct Session {
    /// Which peer has it.
    pub(super) peer: Authority,
    /// Where it goes on there.
    pub(super) path: PathAndQuery,
    /// How many bytes it has.
    pub(super) offset: u64,
    /// Whether that is so: the registry said that it took all that was sent.
    pub(super) is_sure: bool,
    /// What they hash to so far; none, if that is not known any more.
    pub(super) verifier: Option<Verifier>,
}

/// An upload at a fronted registry, held by one request with leave for its repository. Dropped, it can be taken up again.
pub struct RemoteUpload {
    pub(super) target: Target<Permit<Create>>,
    pub(super) id: UploadId,
    pub(super) session: Session,
    open: Arc<Mutex<HashMap<UploadId, Slot>>>,
    is_over: bool,
}

impl Sessions {
    pub(super) fn new(most: usize, lifetime: Duration) -> Self {
        Self { open: Arc::default(), most, lifetime }
    }

    /// A new one, held.
    pub(super) fn begin(
        &self,
        target: Target<Permit<Create>>,
        session: Session,
    ) -> Result<RemoteUpload, RegistryError> {
        let (id, owner) = (new_upload_id()?, Owner::of(&target));
        let mut open = lock(&self.open);
        self.check(&mut open, &owner)?;
        open.insert(id, Slot { owner, touched: Instant::now(), session: None });
        drop(open);
        Ok(RemoteUpload { target, id, session, open: Arc::clone(&self.open), is_over: false })
    }

    /// An error, where the caller may not begin another one: nobody has more than a part of them.
    pub(super) fn check_room(&self, target: &Target<Permit<Create>>) -> Result<(), RegistryError> {
        self.check(&mut lock(&self.open), &Owner::of(target))
    }

    fn check(&self, open: &mut HashMap<UploadId, Slot>, owner: &Owner) -> Result<(), RegistryError> {
        open.retain(|_, slot| slot.session.is_none() || slot.touched.elapsed() < self.lifetime);
        let own = open.values().filter(|slot| slot.owner.principal == owner.principal).count();
        let is_full = open.len() >= self.most || own >= self.most.div_ceil(PRINCIPAL_SHARE);
        if is_full { Err(RegistryError::TooManyUploads) } else { Ok(()) }
    }

    /// Where one is that no request has.
    pub(super) fn look(&self, target: &Target<Permit<Create>>, id: UploadId) -> Result<Session, RegistryError> {
        let mut open = lock(&self.open);
        let slot = self.find(&mut open, target, id)?;
        slot.touched = Instant::now();
        slot.session.clone().ok_or(RegistryError::UploadBusy(id))
    }

    /// Takes one up.
    pub(super) fn take(&self, target: Target<Permit<Create>>, id: UploadId) -> Result<RemoteUpload, RegistryError> {
        let mut open = lock(&self.open);
        let session = self.find(&mut open, &target, id)?.session.take().ok_or(RegistryError::UploadBusy(id))?;
        drop(open);
        Ok(RemoteUpload { target, id, session, open: Arc::clone(&self.open), is_over: false })
    }

    fn find<'o>(
        &self,
        open: &'o mut HashMap<UploadId, Slot>,
        target: &Target<Permit<Create>>,
        id: UploadId,
    ) -> Result<&'o mut Slot, RegistryError> {
        let owner = Owner::of(target);
        let slot = open.get_mut(&id).filter(|slot| slot.owner == owner && slot.touched.elapsed() < self.lifetime);
        slot.ok_or(RegistryError::UploadUnknown(id))
    }
}

impl RemoteUpload {
    /// Its name here.
    pub const fn id(&self) -> UploadId {
        self.id
    }

    /// How many bytes it has.
    pub const fn offset(&self) -> u64 {
        self.session.offset
    }

    /// It became a blob, or was given up.
    pub(super) const fn end(&mut self) {
        self.is_over = true;
    }
}

impl Drop for RemoteUpload {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        if self.is_over {
            open.remove(&self.id);
        } else if let Some(slot) = open.get_mut(&self.id) {
            slot.touched = Instant::now();
            slot.session = Some(self.session.clone());
        }
    }
}

/// No critical section can panic half-way.
fn lock(open: &Mutex<HashMap<UploadId, Slot>>) -> MutexGuard<'_, HashMap<UploadId, Slot>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::remote::target::tests::target;

    fn session() -> Session {
        let path = PathAndQuery::from_static("/v2/team/app/blobs/uploads/1");
        Session { peer: Authority::from_static("registry:5000"), path, offset: 7, is_sure: true, verifier: None }
    }

    #[test]
    fn an_upload_is_for_who_began_it_one_request_at_a_time() {
        let sessions = Sessions::new(10, Duration::from_secs(60));
        let held = sessions.begin(target("ada"), session()).unwrap();
        let id = held.id();
        assert_eq!(sessions.take(target("ada"), id).err(), Some(RegistryError::UploadBusy(id)));
        drop(held);
        assert_eq!(sessions.take(target("bob"), id).err(), Some(RegistryError::UploadUnknown(id)));
        let mut held = sessions.take(target("ada"), id).unwrap();
        assert_eq!(held.offset(), 7);
        held.end();
        drop(held);
        assert_eq!(sessions.take(target("ada"), id).err(), Some(RegistryError::UploadUnknown(id)));
    }

    #[test]
    fn one_user_took_all_uploads() {
        let sessions = Sessions::new(4, Duration::from_secs(60));
        (0..2).for_each(|_| drop(sessions.begin(target("ada"), session()).unwrap()));
        assert_eq!(sessions.check_room(&target("ada")).err(), Some(RegistryError::TooManyUploads));
        assert_eq!(sessions.begin(target("ada"), session()).err(), Some(RegistryError::TooManyUploads));
        assert!(sessions.check_room(&target("bob")).is_ok());
        assert!(sessions.begin(target("bob"), session()).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_an_end_to_uploads_and_they_end_by_themselves() {
        let sessions = Sessions::new(1, Duration::from_secs(60));
        drop(sessions.begin(target("ada"), session()).unwrap());
        assert_eq!(sessions.begin(target("bob"), session()).err(), Some(RegistryError::TooManyUploads));
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(sessions.begin(target("bob"), session()).is_ok());
    }
}
