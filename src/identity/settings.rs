//! What this room is told by the configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The `[identity]` table, and those of the `[limits]` that bound the work of logging in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The name of this registry: the realm of challenges, and the issuer and audience of tokens.
    pub realm: String,
    /// The file of users.
    pub htpasswd: PathBuf,
    /// Groups, and the users in each.
    pub groups: BTreeMap<String, Vec<String>>,
    /// How long a token lives.
    pub token_lifetime: Duration,
    /// How long a refresh token lives.
    pub refresh_lifetime: Duration,
    /// How long a token of the v1 protocol lives.
    pub legacy_lifetime: Duration,
    /// Whether whoever asks becomes a user.
    pub registration: bool,
    /// Whether users may give themselves another password.
    pub password_changes: bool,
    /// How long a key signs tokens until the next one does; zero means for ever.
    pub key_lifetime: Duration,
    /// The other services that tokens are made for.
    pub services: Vec<String>,
    /// Whether tokens for other services carry the certificate of their key.
    pub chain: bool,
    /// How many bcrypt hashes are computed at once.
    pub bcrypt_concurrency: usize,
    /// How many logins may wait for their turn; where more come, those wait who asked for less of late.
    pub bcrypt_queue: usize,
    /// How long one of them waits before it is told to come back.
    pub bcrypt_wait_timeout: Duration,
    /// How long a verified credential is good without hashing it again.
    pub credential_lifetime: Duration,
    /// How many failures one address may have with one user in a minute.
    pub login_failures: u32,
}
