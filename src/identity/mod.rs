//! Floor 4: who is asking. Credentials become an [`access::Principal`](crate::access::Principal); what a principal may do
//! is no business of this room.
//!
//! A file of users in htpasswd's form is read again when it changes. A password is hashed once, then remembered under a
//! keyed hash until the file changes or its time is up. Tokens are issued to those who are known, and accepted back; the keys
//! that sign them come and go.

mod accounts;
mod clock;
mod credentials;
mod failures;
mod flight;
mod hash_times;
mod htpasswd;
mod identify;
mod issue;
mod jwt;
mod legacy_token;
mod line;
mod logins;
mod password;
mod process_key;
mod refresh_token;
mod settings;
mod slots;
mod source;
mod state;
mod token;
mod token_authority;
mod token_key;
mod token_keys;
mod user_file;

pub use accounts::AccountError;
pub use credentials::{Credentials, MalformedCredentials};
pub use htpasswd::{
    BadLines, BadName, COSTS, HTPASSWD_BYTES_MAX, LineProblem, PROBLEMS_TOLD_MAX, Problem, Scheme, USER_BYTES_MAX,
};
pub use identify::{IdentifyError, Identity, Refreshed};
pub use legacy_token::LegacyUse;
pub use password::{NoRandomness, PASSWORD_BYTES_MAX, Password};
pub use settings::Settings;
pub use source::OpenError;
pub use token::{IssueError, IssuedToken, Wish};
pub use token_key::{TokenKey, TokenKeyError};
pub use token_keys::{KEY_SET_LIFETIME, TOKEN_KEYS_MAX, TokenKeys};
pub use user_file::{Added, COST_DEFAULT, COST_SENSIBLE_MAX, Listing, UserFile, UserFileError, UserLine};
