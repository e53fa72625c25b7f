//! The v1 registry behind us: what goes to it and what comes back, under the header rules of its protocol.

mod headers;
mod images;
mod index;

use std::fmt;
use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Empty};

use crate::config;
use crate::docker::LegacyClients;
use crate::telemetry::Metrics;
use crate::upstream::{Body, Fault, Forwarded, OpenError, Peers, SendError};

pub use images::{Standings, Turn};
pub use index::{ANSWER_BYTES_MAX, Begin, Index, Presence, Understood, Visit, understood};

/// A v1 registry behind us.
#[derive(Debug)]
pub struct Legacy {
    peers: Arc<Peers>,
    clients: LegacyClients,
    standalone: bool,
    forward_basic: bool,
    /// What we say to the registry about ourselves, marked as sensitive.
    authorization: Option<HeaderValue>,
}

/// A v1 request was not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LegacyError {
    /// The exchange with the registry failed.
    Send(SendError),
    /// The name by which the caller knows us cannot stand in a header.
    Host,
    /// The registry answered what we asked it for ourselves with this status.
    Refused(u16),
    /// It did not let us in.
    Unauthorized,
    /// Its answer broke off, or was longer than is read.
    Answer(String),
    /// It did not answer what we asked it for ourselves within this many seconds.
    Late(u64),
}

impl Legacy {
    /// Makes the clients for its peers; asks nobody yet. Its peers are for their owner to check and to run.
    pub async fn open(config: &config::Legacy, metrics: &Metrics) -> Result<Self, OpenError> {
        let peers = Arc::new(Peers::open(&config.transport, metrics).await?);
        let authorization = config.credentials.as_ref().and_then(headers::basic);
        let config::Legacy { clients, standalone, forward_basic, .. } = *config;
        Ok(Self { peers, clients, standalone, forward_basic, authorization })
    }

    /// The servers that answer.
    pub const fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }

    /// Which clients it is there for.
    pub const fn clients(&self) -> LegacyClients {
        self.clients
    }

    /// Whether it is its own index; else it asks us about every request, by the token that goes with it.
    pub const fn is_standalone(&self) -> bool {
        self.standalone
    }

    /// Whether it is told the caller's password, so that callers must say it each time.
    pub const fn forwards_basic(&self) -> bool {
        self.forward_basic
    }

    /// Hands one v1 request on, and its answer back. Both bodies stream; one that breaks off ends in an error. `token` is what
    /// we say for the caller to a registry that asks its index.
    pub async fn forward(
        &self,
        request: Request<Body>,
        forwarded: &Forwarded,
        token: Option<&HeaderValue>,
    ) -> Result<Response<Body>, LegacyError> {
        let (mut parts, mut body) = request.into_parts();
        // It would mean nothing to the registry, and without one a request can be repeated.
        if matches!(parts.method, Method::GET | Method::HEAD | Method::DELETE) {
            parts.headers.remove(header::CONTENT_LENGTH);
            body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        }
        let mut request = Request::new(body);
        *request.method_mut() = parts.method;
        *request.uri_mut() = parts.uri;
        *request.extensions_mut() = parts.extensions;
        *request.headers_mut() = self.outgoing_headers(parts.headers, forwarded, token)?;
        let answer = self.peers.send(request).await.map_err(LegacyError::Send)?;
        Ok(self.rewritten(answer, forwarded))
    }
}

impl LegacyError {
    /// Whose fault it was.
    pub const fn fault(&self) -> Fault {
        match self {
            Self::Send(error) => error.fault(),
            Self::Host => Fault::Caller,
            Self::Refused(_) | Self::Unauthorized | Self::Answer(_) | Self::Late(_) => Fault::Upstream,
        }
    }

    /// Whether the same request can be sent again without harm.
    pub const fn retry(&self) -> bool {
        match self {
            Self::Send(error) => error.retry(),
            Self::Host | Self::Refused(_) | Self::Unauthorized => false,
            Self::Answer(_) | Self::Late(_) => true,
        }
    }
}

impl fmt::Display for LegacyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(error) => error.fmt(f),
            Self::Host => f.write_str("the Host of the request cannot stand in a header: use a plain host:port"),
            Self::Refused(status) => write!(f, "the v1 registry answered {status} to a question of the gateway's own"),
            Self::Unauthorized => f.write_str(
                "the v1 registry answered 401: if it runs with STANDALONE=false, write standalone = false into its file in upstreams/ \
                 and the gateway's address into its INDEX_ENDPOINT; if it wants a password, write username and password_file",
            ),
            Self::Answer(detail) => write!(f, "the v1 registry's answer could not be read: {detail}"),
            Self::Late(seconds) => write!(f, "the v1 registry did not answer within {seconds} s"),
        }
    }
}

impl std::error::Error for LegacyError {}

#[cfg(test)]
mod tests;
