//! Permits: values that only [`Rules`](super::Rules) can make, and that every operation of a registry takes. What was not
//! authorised does not compile.

use std::sync::Arc;

use crate::oci::RepositoryName;

use super::{Action, Principal, Rules};

/// Leave to do one thing to one repository.
#[derive(Debug)]
pub struct Permit {
    pub(super) principal: Principal,
    pub(super) action: Action,
    pub(super) repository: RepositoryName,
    pub(super) overwrite: bool,
}

impl Permit {
    /// Who has it.
    pub const fn principal(&self) -> &Principal {
        &self.principal
    }

    /// What it is for: `Push` for any writing, whether or not tags may be moved.
    pub const fn action(&self) -> Action {
        self.action
    }

    /// Which repository it is for.
    pub const fn repository(&self) -> &RepositoryName {
        &self.repository
    }

    /// Whether a tag that exists may be moved to another manifest.
    pub const fn may_overwrite(&self) -> bool {
        self.overwrite
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

/// Leave to do one thing to whatever there is, by a rule for `**`.
#[derive(Debug)]
pub struct EverywherePermit {
    pub(super) action: Action,
}

impl EverywherePermit {
    /// What it is for.
    pub const fn action(&self) -> Action {
        self.action
    }
}
