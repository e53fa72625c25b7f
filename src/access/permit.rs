//! Permits: values that only [`Rules`] can make, each for one thing and one repository. Every operation of a registry takes the
//! permit that it needs, so what was not authorised does not compile.
//!
//! Leave to read is not leave to delete:
//! ```compile_fail,E0308
//! # use dockgate::{access::{Permit, Pull}, oci::Digest, registry::Hosted};
//! async fn delete(hosted: &Hosted, permit: &Permit<Pull>, digest: &Digest) {
//!     let _ = hosted.delete_blob(permit, digest).await;
//! }
//! ```
//! Nobody but the rules makes a permit:
//! ```compile_fail,E0451
//! # use dockgate::{access::{Delete, Permit, Principal}, oci::RepositoryName};
//! fn forge(principal: Principal, repository: RepositoryName) -> Permit<Delete> {
//!     Permit { principal, repository, purpose: std::marker::PhantomData }
//! }
//! ```

use std::marker::PhantomData;
use std::sync::Arc;

use crate::oci::RepositoryName;

use super::{Action, Principal, Rules};

/// To read.
#[derive(Debug)]
pub enum Pull {}
/// To write blobs, manifests and new tags, and never to move a tag.
#[derive(Debug)]
pub enum Create {}
/// To write, and to move tags.
#[derive(Debug)]
pub enum Push {}
/// To delete.
#[derive(Debug)]
pub enum Delete {}

/// What there can be a permit for.
pub trait Purpose {
    /// What a rule must allow for it.
    const ACTION: Action;
}

impl Purpose for Pull {
    const ACTION: Action = Action::Pull;
}

impl Purpose for Create {
    const ACTION: Action = Action::Create;
}

impl Purpose for Push {
    const ACTION: Action = Action::Push;
}

impl Purpose for Delete {
    const ACTION: Action = Action::Delete;
}

/// Leave to do `A` to one repository.
#[derive(Debug)]
pub struct Permit<A> {
    principal: Principal,
    repository: RepositoryName,
    purpose: PhantomData<A>,
}

impl<A: Purpose> Permit<A> {
    pub(super) fn new(principal: &Principal, repository: &RepositoryName) -> Self {
        Self { principal: principal.clone(), repository: repository.clone(), purpose: PhantomData }
    }
}

/// Leave to write to one repository, with as much as its holder may do there.
#[derive(Debug)]
pub enum WritePermit {
    /// Tags that exist stay where they are.
    Create(Permit<Create>),
    /// Tags may be moved.
    Push(Permit<Push>),
}

impl WritePermit {
    /// Whether a tag that exists may be moved to another manifest.
    pub const fn may_overwrite(&self) -> bool {
        matches!(self, Self::Push(_))
    }
}

/// What every permit for a repository says.
pub trait Leave {
    /// Who has it.
    fn principal(&self) -> &Principal;

    /// Which repository it is for.
    fn repository(&self) -> &RepositoryName;
}

impl<A> Leave for Permit<A> {
    fn principal(&self) -> &Principal {
        &self.principal
    }

    fn repository(&self) -> &RepositoryName {
        &self.repository
    }
}

impl Leave for WritePermit {
    fn principal(&self) -> &Principal {
        match self {
            Self::Create(permit) => permit.principal(),
            Self::Push(permit) => permit.principal(),
        }
    }

    fn repository(&self) -> &RepositoryName {
        match self {
            Self::Create(permit) => permit.repository(),
            Self::Push(permit) => permit.repository(),
        }
    }
}

/// Leave to list repositories: those that [`CatalogPermit::shows`].
#[derive(Debug)]
pub struct CatalogPermit {
    pub(super) rules: Arc<Rules>,
    pub(super) principal: Principal,
}

impl CatalogPermit {
    /// Whether `repository` may be seen.
    pub fn shows(&self, repository: &RepositoryName) -> bool {
        self.rules.allowed(&self.principal, repository).allow(Action::Pull)
    }
}
