//! What holds until the configuration or the file of users changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::access::Principal;

use super::Settings;
use super::logins::Generation;
use super::slots::Slots;

/// The settings, the users, and who each of them is.
#[derive(Debug)]
pub(super) struct State {
    pub(super) settings: Settings,
    pub(super) slots: Arc<Slots>,
    pub(super) generation: Arc<Generation>,
    principals: HashMap<String, Principal>,
}

impl State {
    /// Puts users and groups together.
    pub(super) fn new(settings: Settings, slots: Arc<Slots>, generation: Arc<Generation>) -> Self {
        let mut groups = groups_by_user(&settings.groups);
        let mut principal = |name: &String| Principal::user(name, groups.remove(name.as_str()).unwrap_or_default());
        let principals = generation.users.hashes.keys().map(|name| (name.clone(), principal(name))).collect();
        Self { settings, slots, generation, principals }
    }

    /// The user of this name, in all of their groups.
    pub(super) fn principal(&self, user: &str) -> Option<Principal> {
        self.principals.get(user).cloned()
    }
}

fn groups_by_user(groups: &BTreeMap<String, Vec<String>>) -> HashMap<&str, Vec<Arc<str>>> {
    let mut by_user: HashMap<&str, Vec<Arc<str>>> = HashMap::new();
    for (group, users) in groups {
        let group: Arc<str> = group.as_str().into();
        for user in users {
            let groups = by_user.entry(user).or_default();
            // Groups come in order, so one that names a user twice has just been added.
            if groups.last() != Some(&group) {
                groups.push(Arc::clone(&group));
            }
        }
    }
    by_user
}
