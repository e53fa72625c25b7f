//! What a request to a registry elsewhere is about.

use crate::access::Leave;
use crate::oci::RepositoryName;

use super::CallerCredentials;

/// A repository elsewhere, and leave to do something to it.
///
/// Only [`Target::new`] makes one, which looks whether the permit is for this repository:
/// ```compile_fail,E0451
/// # use dockgate::{access::{Permit, Pull}, oci::RepositoryName, registry::Target};
/// fn other(permit: Permit<Pull>, repository: RepositoryName) -> Target<Permit<Pull>> {
///     Target { permit, repository, caller: None }
/// }
/// ```
#[derive(Debug)]
pub struct Target<P> {
    /// The repository in it is the name by which the gateway knows it.
    pub(super) permit: P,
    /// The name by which the upstream knows it.
    pub(super) repository: RepositoryName,
    /// What the caller showed, where the upstream gets it.
    pub(super) caller: Option<CallerCredentials>,
}

impl<P: Leave> Target<P> {
    /// The repository that is called `here` by the rules and `there` by the upstream; `None`, if the permit is for another.
    pub fn new(
        permit: P,
        here: &RepositoryName,
        there: &RepositoryName,
        caller: Option<CallerCredentials>,
    ) -> Option<Self> {
        (permit.repository() == here).then(|| Self { permit, repository: there.clone(), caller })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::access::{Actions, Create, Permit, Principal, Rule, Rules};

    /// The repository `team/app` there, which the rules know by the same name, for this user to write to.
    pub(in crate::registry::remote) fn target(user: &str) -> Target<Permit<Create>> {
        let name: RepositoryName = "team/app".parse().unwrap();
        Target::new(permit(user, &name), &name, &name, None).unwrap()
    }

    fn permit(user: &str, name: &RepositoryName) -> Permit<Create> {
        let who = vec!["anyone".parse().unwrap()];
        let all = Rule { who, repositories: vec!["**".parse().unwrap()], actions: Actions::ALL };
        Rules::new(vec![all]).authorize(&Principal::user(user, vec![]), name).unwrap()
    }

    #[test]
    fn a_permit_is_for_its_own_repository() {
        let [ours, theirs]: [RepositoryName; 2] = ["hub/app", "hub/other"].map(|name| name.parse().unwrap());
        let there: RepositoryName = "app".parse().unwrap();
        assert!(Target::new(permit("ada", &ours), &theirs, &there, None).is_none());
        assert_eq!(Target::new(permit("ada", &ours), &ours, &there, None).unwrap().repository, there);
    }
}
