//! What can go wrong with a registry elsewhere, and what its statuses mean to us.

use std::fmt;

use http::{HeaderMap, StatusCode};

use crate::oci::Mismatch;
use crate::upstream::{Fault, SendError};

pub use crate::upstream::Shown;

/// A registry elsewhere did not give what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteError {
    /// It does not have it.
    Missing,
    /// It does not let us have it.
    Refused {
        /// The upstream's name.
        upstream: String,
        /// 401 or 403.
        status: u16,
        /// Whose credentials it was shown.
        shown: Shown,
    },
    /// It was reached, and said no to what the caller wrote.
    Rejected {
        /// The upstream's name.
        upstream: String,
        /// Its status, 4xx.
        status: u16,
        /// Its error code, in the words of the protocol; empty if it gave none.
        code: String,
        /// Its message.
        message: String,
    },
    /// There is no list of what refers to a manifest.
    NoReferrers {
        /// The upstream's name.
        upstream: String,
        /// Why there is none.
        reason: &'static str,
    },
    /// It does not know such a request.
    Unsupported {
        /// The upstream's name.
        upstream: String,
        /// 400, 405 or 501.
        status: u16,
    },
    /// It could not be asked.
    Send(SendError),
    /// Its answer cannot be used.
    Answer {
        /// The upstream's name.
        upstream: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What it sent is not what its digest says.
    Mismatch {
        /// The upstream's name.
        upstream: String,
        /// What was asked for and what came.
        mismatch: Box<Mismatch>,
    },
    /// It broke off, more often than is tried again.
    Broken {
        /// The upstream's name.
        upstream: String,
        /// What happened last.
        reason: String,
    },
    /// Our own fault; the text is for the log only.
    Internal(String),
}

impl RemoteError {
    /// Whether the upstream may well have what was asked for, and only cannot say so now.
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Send(error) => matches!(error.fault(), Fault::Upstream | Fault::Gateway),
            Self::Answer { .. } | Self::Unsupported { .. } | Self::Mismatch { .. } | Self::Broken { .. } => true,
            Self::Missing
            | Self::Refused { .. }
            | Self::Rejected { .. }
            | Self::NoReferrers { .. }
            | Self::Internal(_) => false,
        }
    }
}

impl RemoteError {
    /// Whether the upstream answered, so that it may answer otherwise what is asked otherwise. One that wants to be left alone
    /// is.
    pub(super) const fn is_answer(&self) -> bool {
        match self {
            Self::Missing
            | Self::Refused { .. }
            | Self::Rejected { .. }
            | Self::Unsupported { .. }
            | Self::Answer { .. } => true,
            Self::Send(SendError::Failing { status, .. }) => *status != 429,
            Self::Send(SendError::Redirect { .. }) => true,
            _ => false,
        }
    }
}

impl From<SendError> for RemoteError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Denied { upstream, status, shown, .. } => Self::Refused { upstream, status, shown },
            error => Self::Send(error),
        }
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("the upstream does not have it"),
            Self::Refused { upstream, status, shown } => {
                let what = match shown {
                    Shown::Nothing => {
                        "it is not there, or not public; for what is not public write username and password_file"
                    }
                    Shown::Ours => {
                        "it is not there, or not for the credentials that we have; if they are not right, mend username and password_file"
                    }
                    Shown::Callers => {
                        "it is not there, or the caller's own user and password are not good for it; log in with those that are, or look at authorization"
                    }
                };
                write!(f, "upstream {upstream} answered {status}: {what} in upstreams/{upstream}.toml")
            }
            Self::Rejected { upstream, status, message, .. } => {
                write!(f, "upstream {upstream} answered {status}: {message}")
            }
            Self::NoReferrers { upstream, reason } => {
                write!(f, "upstream {upstream} {reason}; look for them under the tag that the digest makes")
            }
            Self::Unsupported { upstream, status } => {
                write!(f, "upstream {upstream} answered {status}: it does not know such a request, check its url")
            }
            Self::Send(error) => error.fmt(f),
            Self::Answer { upstream, reason } => {
                write!(f, "the answer of upstream {upstream} cannot be used ({reason}): check its url")
            }
            Self::Mismatch { upstream, mismatch } => {
                write!(f, "upstream {upstream} sent something else than was asked for: {mismatch}; nothing was kept")
            }
            Self::Broken { upstream, reason } => {
                write!(f, "upstream {upstream} broke off ({reason}): try again")
            }
            Self::Internal(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for RemoteError {}

/// What a status that is not the one hoped for means.
pub(super) fn unexpected(upstream: &str, status: StatusCode, shown: Shown) -> RemoteError {
    let upstream = upstream.to_owned();
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => RemoteError::Missing,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            RemoteError::Refused { upstream, status: status.as_u16(), shown }
        }
        StatusCode::BAD_REQUEST | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
            RemoteError::Unsupported { upstream, status: status.as_u16() }
        }
        _ => RemoteError::Answer { upstream, reason: format!("status {status}") },
    }
}

/// A number in a header.
pub(super) fn number(headers: &HeaderMap, name: http::header::HeaderName) -> Option<u64> {
    let text = headers.get(name)?.to_str().ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}
