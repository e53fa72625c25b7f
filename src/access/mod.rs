//! Floor 1: who may do what, in plain words and one pure function, [`Rules::authorize`].
//!
//! How it was found out who somebody is, is no business of this room.

mod action;
mod pattern;
mod permit;
mod principal;
mod rules;

pub use action::{Action, ActionError, Actions};
pub use pattern::{PatternError, RepositoryPattern};
pub use permit::{CatalogPermit, Create, Delete, Leave, Permit, Pull, Purpose, Push, WritePermit};
pub use principal::{Grant, Principal};
pub use rules::{Denied, Rule, Rules, Who, WhoError};
