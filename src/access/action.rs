//! What can be done to a repository.

use std::fmt;
use std::ops::BitOr;
use std::str::FromStr;

/// One thing that can be done to a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read manifests, blobs, tags and referrers.
    Pull,
    /// Write blobs and manifests, and move tags.
    Push,
    /// Write blobs and manifests, and make new tags, but never move one.
    Create,
    /// Delete manifests, tags and blobs.
    Delete,
}

/// A text is not an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActionError;

impl Action {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Pull, Self::Push, Self::Create, Self::Delete];

    /// As it stands in a rule.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Create => "create",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for ActionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an action is one of pull, push, create, delete, or \"*\" for all of them")
    }
}

impl std::error::Error for ActionError {}

impl FromStr for Action {
    type Err = ActionError;

    fn from_str(text: &str) -> Result<Self, ActionError> {
        Self::ALL.into_iter().find(|action| action.as_str() == text).ok_or(ActionError)
    }
}

/// A set of actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Actions(u8);

impl Actions {
    /// No action.
    pub const NONE: Self = Self(0);
    /// Every action.
    pub const ALL: Self = Self(0b1111);

    /// Whether `action` is in the set. Who may push may also create.
    pub const fn allow(self, action: Action) -> bool {
        match action {
            Action::Create => self.0 & (bit(Action::Create) | bit(Action::Push)) != 0,
            _ => self.0 & bit(action) != 0,
        }
    }

    /// Whether nothing is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

const fn bit(action: Action) -> u8 {
    1 << action as u8
}

impl From<Action> for Actions {
    fn from(action: Action) -> Self {
        Self(bit(action))
    }
}

impl BitOr for Actions {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl FromIterator<Action> for Actions {
    fn from_iter<I: IntoIterator<Item = Action>>(actions: I) -> Self {
        actions.into_iter().fold(Self::NONE, |set, action| set | action.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn push_includes_create_but_not_the_other_way_round() {
        assert!(Actions::from(Action::Push).allow(Action::Create));
        assert!(!Actions::from(Action::Create).allow(Action::Push));
        assert!(Action::ALL.into_iter().all(|action| Actions::ALL.allow(action) && !Actions::NONE.allow(action)));
    }

    #[test]
    fn actions_print_as_they_are_written() {
        for action in Action::ALL {
            assert_eq!(action.to_string().parse(), Ok(action));
        }
        assert_eq!("read".parse::<Action>(), Err(ActionError));
    }
}
