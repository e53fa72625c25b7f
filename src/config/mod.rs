//! Floor 2: stands in for the room of the same name until that is merged: only what an upstream of kind `legacy` needs.

use std::path::PathBuf;
use std::time::Duration;

/// An upstream of kind `legacy`.
#[derive(Debug, Clone)]
pub struct Legacy {
    /// The file's name without its ending.
    pub name: String,
    /// Who is asked.
    pub peers: Vec<Peer>,
    /// How they are checked.
    pub health: Health,
    /// Which clients are sent here.
    pub clients: String,
    /// Whether the caller's Basic credentials go on to the upstream.
    pub forward_basic: bool,
    /// The credentials that are sent as Basic; never together with `forward_basic`.
    pub credentials: Option<BasicCredentials>,
    /// More certificate authorities that are trusted, as PEM.
    pub ca: Option<PathBuf>,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long an answer may take to begin, once the request was sent.
    pub first_byte_timeout: Duration,
    /// How long a body may be silent.
    pub idle_timeout: Duration,
    /// How many requests may be under way at once.
    pub concurrency: usize,
}

/// What Basic authentication (RFC 7617) sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasicCredentials {
    /// The user; without `:`.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(std::sync::Arc<str>);

impl Secret {
    /// From the text itself.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one who has to send it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// One server of an upstream.
#[derive(Debug, Clone)]
pub struct Peer {
    /// As it was written.
    pub url: String,
    /// Whether it is asked over TLS.
    pub https: bool,
    /// `host:port`.
    pub authority: String,
}

/// How peers are checked.
#[derive(Debug, Clone)]
pub struct Health {
    /// What is asked for.
    pub path: String,
    /// How often.
    pub interval: Duration,
    /// How many failures in a row make a peer unhealthy.
    pub failures: u32,
    /// How many successes in a row make it healthy again.
    pub successes: u32,
}
