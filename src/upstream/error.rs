//! What goes wrong with an upstream, and whose fault it is.

use std::fmt;
use std::time::Duration;

/// Whose fault a failed exchange was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The caller broke off or fell silent while sending.
    Caller,
    /// The upstream cannot be reached, is silent or breaks off.
    Upstream,
    /// We have more to do than we may.
    Gateway,
}

/// Whose credentials an upstream was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// None: there are none in its file.
    Nothing,
    /// Those of its file.
    Ours,
    /// The caller's own.
    Callers,
}

/// An upstream cannot be used as it was configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenError {
    /// Its certificate authorities cannot be read.
    Client {
        /// The upstream's name.
        upstream: String,
        /// What is wrong with them.
        reason: String,
    },
    /// A peer's address cannot stand in a URL.
    Authority {
        /// The upstream's name.
        upstream: String,
        /// The peer, as it was written.
        peer: String,
    },
    /// There are none, or more than [`PEERS_MAX`](super::peers::PEERS_MAX).
    Peers {
        /// The upstream's name.
        upstream: String,
        /// How many there are.
        found: usize,
    },
}

/// A request was not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendError {
    /// Every peer failed its health checks.
    NoHealthyPeer {
        /// The upstream's name.
        upstream: String,
        /// The peers, as they were written.
        peers: Vec<String>,
    },
    /// No healthy peer took a connection; nothing was sent.
    Unreachable {
        /// The upstream's name.
        upstream: String,
        /// The peer that was tried last, as it was written.
        peer: String,
        /// What the last connection failed with.
        reason: String,
    },
    /// As many requests as are allowed were under way, and none ended in time.
    Busy {
        /// The upstream's name.
        upstream: String,
        /// How many requests may be under way at once.
        concurrency: usize,
        /// How long we waited.
        waited: Duration,
    },
    /// The peer took the request and said nothing, or stopped taking it.
    Silent {
        /// The upstream's name.
        upstream: String,
        /// The peer, as it was written.
        peer: String,
        /// How long it was silent.
        waited: Duration,
    },
    /// The peer did nothing of the request and says so, or the connection ended before anything of it was sent; more often than
    /// is tried again, or the body cannot be sent again.
    Refused {
        /// The upstream's name.
        upstream: String,
        /// The peer, as it was written.
        peer: String,
        /// What happened.
        reason: String,
    },
    /// The peer broke off before its answer began, or what it said was not HTTP.
    Broken {
        /// The upstream's name.
        upstream: String,
        /// The peer, as it was written.
        peer: String,
        /// What happened.
        reason: String,
    },
    /// It answers, but has no answer to give now: 429, or a status of the kind 5xx, more often than is tried again.
    Failing {
        /// The upstream's name.
        upstream: String,
        /// Who answered, as it was written, or the host of its token service.
        peer: String,
        /// The last status.
        status: u16,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// Its token service does not take the credentials.
    Denied {
        /// The upstream's name.
        upstream: String,
        /// The host of the token service.
        realm: String,
        /// 400, 401 or 403.
        status: u16,
        /// Whose credentials it was shown.
        shown: Shown,
    },
    /// It names a token service that is not to be trusted with credentials.
    Realm {
        /// The upstream's name.
        upstream: String,
        /// The host of the token service.
        realm: String,
    },
    /// What its token service answers is no token.
    Token {
        /// The upstream's name.
        upstream: String,
        /// The host of the token service.
        realm: String,
    },
    /// It sends us somewhere that we do not go.
    Redirect {
        /// The upstream's name.
        upstream: String,
        /// Why not.
        reason: String,
    },
    /// The command that prints its credentials does not.
    CredentialCommand {
        /// The upstream's name.
        upstream: String,
        /// Why not.
        reason: String,
    },
    /// All tries together took too long.
    Deadline {
        /// The upstream's name.
        upstream: String,
    },
    /// The request's own body failed.
    Caller {
        /// What happened.
        reason: String,
    },
}

/// A body that is not whole. It ends in an error at whoever reads it, never in a clean end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyError {
    /// The upstream sent nothing for this long.
    UpstreamSilent(Duration),
    /// The caller sent nothing for this long.
    CallerSilent(Duration),
    /// It broke off.
    Broken(String),
    /// It came more slowly than is waited for.
    TooSlow,
    /// It ended before its announced length.
    Short {
        /// How many bytes are missing.
        missing: u64,
    },
}

impl SendError {
    /// The name of the upstream, unless it never came to ask one.
    pub fn upstream(&self) -> Option<&str> {
        match self {
            Self::NoHealthyPeer { upstream, .. }
            | Self::Unreachable { upstream, .. }
            | Self::Busy { upstream, .. }
            | Self::Silent { upstream, .. }
            | Self::Refused { upstream, .. }
            | Self::Broken { upstream, .. }
            | Self::Failing { upstream, .. }
            | Self::Denied { upstream, .. }
            | Self::Realm { upstream, .. }
            | Self::Token { upstream, .. }
            | Self::Redirect { upstream, .. }
            | Self::CredentialCommand { upstream, .. }
            | Self::Deadline { upstream } => Some(upstream),
            Self::Caller { .. } => None,
        }
    }

    /// Whose fault it was.
    pub const fn fault(&self) -> Fault {
        match self {
            Self::Caller { .. } => Fault::Caller,
            Self::Busy { .. } => Fault::Gateway,
            _ => Fault::Upstream,
        }
    }

    /// When the upstream wants to be asked again, if it says so.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Failing { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the same request can be sent again without harm: no peer did anything of it.
    pub const fn retry(&self) -> bool {
        matches!(self, Self::NoHealthyPeer { .. } | Self::Unreachable { .. } | Self::Busy { .. } | Self::Refused { .. })
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHealthyPeer { upstream, peers } => {
                let peers = peers.join(", ");
                write!(
                    f,
                    "no peer of upstream {upstream} is healthy ({peers}): start one, or mend upstreams/{upstream}.toml"
                )
            }
            Self::Unreachable { upstream, peer, reason } => {
                write!(
                    f,
                    "upstream {upstream} cannot be reached, last at {peer} ({reason}): start it, or mend upstreams/{upstream}.toml"
                )
            }
            Self::Busy { upstream, concurrency, waited } => {
                let waited = waited.as_secs_f32();
                write!(
                    f,
                    "upstream {upstream} had {concurrency} requests under way for {waited} s: try again, or raise concurrency in upstreams/{upstream}.toml"
                )
            }
            Self::Silent { upstream, peer, waited } => {
                let waited = waited.as_secs_f32();
                write!(
                    f,
                    "upstream {upstream} at {peer} was silent for {waited} s: look at its log, or raise its timeouts in upstreams/{upstream}.toml"
                )
            }
            Self::Refused { upstream, peer, reason } => {
                write!(
                    f,
                    "upstream {upstream} at {peer} did not take the request ({reason}): try again, or look at its log and at how many requests it takes at once"
                )
            }
            Self::Broken { upstream, peer, reason } => {
                write!(
                    f,
                    "upstream {upstream} at {peer} broke off before it answered ({reason}): look at its log, and try again"
                )
            }
            Self::Caller { reason } => write!(f, "the request's body did not arrive whole ({reason}): send it again"),
            other => other.explain(f),
        }
    }
}

impl SendError {
    /// What went wrong after an upstream was reached.
    fn explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failing { upstream, peer, status: 429, .. } => {
                write!(
                    f,
                    "upstream {upstream} at {peer} lets us ask no more for now (429): wait, or write username and password_file in upstreams/{upstream}.toml"
                )
            }
            Self::Failing { upstream, peer, status: 508, .. } => {
                write!(
                    f,
                    "upstream {upstream} at {peer} leads back to this gateway: mend its url in upstreams/{upstream}.toml"
                )
            }
            Self::Failing { upstream, peer, status, .. } => {
                write!(f, "upstream {upstream} at {peer} answered {status}: look at its log, and try again")
            }
            Self::Denied { upstream, realm, status, shown: Shown::Nothing } => {
                write!(
                    f,
                    "the token service {realm} of upstream {upstream} answered {status}: it is not there, or not public; for what is not public write username and password_file in upstreams/{upstream}.toml"
                )
            }
            Self::Denied { upstream, realm, status, .. } => {
                write!(
                    f,
                    "the token service {realm} of upstream {upstream} answered {status}: if the credentials are not right, mend username and password_file in upstreams/{upstream}.toml"
                )
            }
            Self::Realm { upstream, realm } => {
                write!(
                    f,
                    "upstream {upstream} names {realm} as its token service, which gets no credentials: if it is right, list it in realms in upstreams/{upstream}.toml"
                )
            }
            Self::Token { upstream, realm } => {
                write!(
                    f,
                    "the token service {realm} of upstream {upstream} answered without a token: check url in upstreams/{upstream}.toml"
                )
            }
            Self::Redirect { upstream, reason } => {
                write!(f, "upstream {upstream} redirects us, and we do not follow: {reason}")
            }
            Self::CredentialCommand { upstream, reason } => {
                write!(
                    f,
                    "credential_command of upstream {upstream} failed ({reason}): mend it in upstreams/{upstream}.toml"
                )
            }
            Self::Deadline { upstream } => {
                write!(
                    f,
                    "upstream {upstream} gave no answer in time, all tries together: look at its log, or raise deadline in upstreams/{upstream}.toml"
                )
            }
            _ => Ok(()),
        }
    }
}

impl std::error::Error for SendError {}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UpstreamSilent(waited) => {
                write!(f, "the upstream sent nothing for {} s; ask again", waited.as_secs_f32())
            }
            Self::CallerSilent(waited) => {
                write!(f, "the caller sent nothing for {} s; send it again", waited.as_secs_f32())
            }
            Self::Broken(reason) => write!(f, "the body broke off ({reason}); ask again"),
            Self::TooSlow => f.write_str("the upstream sent less than rate_bytes a second over rate_window; ask again"),
            Self::Short { missing } => write!(f, "the body ended {missing} bytes too early; ask again"),
        }
    }
}

impl std::error::Error for BodyError {}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client { upstream, reason } => {
                write!(
                    f,
                    "upstream {upstream}: no client can be made ({reason}): mend `ca` in upstreams/{upstream}.toml"
                )
            }
            Self::Authority { upstream, peer } => {
                write!(
                    f,
                    "upstream {upstream}: {peer} is no address: write `http://host:port` in upstreams/{upstream}.toml"
                )
            }
            Self::Peers { upstream, found } => {
                let most = super::peers::PEERS_MAX;
                write!(f, "upstream {upstream} has {found} peers: give it 1 to {most} in upstreams/{upstream}.toml")
            }
        }
    }
}

impl std::error::Error for OpenError {}
