//! One exchange with one of the peers.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::net::client::ClientError;

use super::Body;
use super::answer::{Answer, Limits};
use super::error::SendError;
use super::outgoing::Outgoing;
use super::peers::{Peer, Peers};
use super::throttle::Pace;

/// How long a request waits for a free slot, as an extension of it: for callers who want an answer at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotPatience(pub Duration);

impl Peers {
    /// Sends `request` to a healthy peer; of its URI only path and query count. Waits for a free slot, at most as long as
    /// an answer may take to begin, or as its [`SlotPatience`] says. A peer that takes no connection is put aside and the next is asked; once a byte of the
    /// body was read there is only that one. The answer's extensions carry the `Arc<Peer>` that gave it.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, SendError> {
        let patience = request.extensions().get().map(|SlotPatience(patience)| *patience);
        let slot = self.slot(patience.unwrap_or(self.first_byte_timeout).min(self.first_byte_timeout)).await?;
        let (parts, body) = request.into_parts();
        let outgoing = Outgoing::new(body, self.idle_timeout);
        let mut tried = Vec::new();
        let mut repeats = self.retries;
        let mut last = None;
        while let Some(peer) = self.pick_except(&tried) {
            match self.exchange(&peer, &parts, &outgoing).await {
                Ok(answer) => return Ok(self.receive(answer, peer, slot)),
                Err(error @ SendError::Unreachable { .. }) if outgoing.take_back() => {
                    tracing::warn!(upstream = self.name, peer = peer.url(), %error, "a peer takes no connection");
                    peer.set_aside(true);
                    tried.push(peer);
                    last = Some(error);
                }
                // A connection from the pool may have been closed while the request was on its way.
                Err(SendError::Broken { .. }) if repeats > 0 && is_read(&parts, &outgoing) => repeats -= 1,
                Err(SendError::Refused { .. }) if repeats > 0 && outgoing.take_back() => repeats -= 1,
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| self.no_healthy_peer()))
    }

    pub(super) async fn slot(&self, patience: Duration) -> Result<OwnedSemaphorePermit, SendError> {
        let waiting = Semaphore::acquire_owned(Arc::clone(&self.slots));
        let slot = timeout(patience, waiting).await.ok().and_then(Result::ok);
        slot.ok_or_else(|| SendError::Busy {
            upstream: self.name.clone(),
            concurrency: self.concurrency,
            waited: patience,
        })
    }

    /// One attempt at one peer.
    pub(super) async fn exchange(
        &self,
        peer: &Peer,
        parts: &Parts,
        outgoing: &Outgoing,
    ) -> Result<Response<Incoming>, SendError> {
        let mut request = Request::new(outgoing.attempt());
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = peer.uri_of(path_of(parts));
        *request.headers_mut() = parts.headers.clone();
        // What cannot be sent twice takes no connection that the peer may be about to close.
        let client = if is_read(parts, outgoing) { &self.pooled } else { &self.fresh };
        let began = Instant::now();
        let answer = client.send(request).await.map_err(|error| match outgoing.failure() {
            Some(failure) => SendError::Caller { reason: failure.to_string() },
            None => self.failed(peer.url(), &error),
        });
        self.counted.answered(answer.as_ref().map(|answer| answer.status().as_u16()).ok(), began.elapsed());
        answer
    }

    /// A server of the upstream, or one that it named, gave no answer.
    pub(super) fn failed(&self, peer: &str, error: &ClientError) -> SendError {
        let (upstream, peer, reason) = (self.name.clone(), peer.to_owned(), error.to_string());
        match error {
            ClientError::FirstByteTimeout => SendError::Silent { upstream, peer, waited: self.first_byte_timeout },
            ClientError::Connect { .. } | ClientError::ConnectTimeout | ClientError::Tls { .. } => {
                SendError::Unreachable { upstream, peer, reason }
            }
            ClientError::Refused { reason } => SendError::Refused { upstream, peer, reason: reason.clone() },
            _ => SendError::Broken { upstream, peer, reason },
        }
    }

    pub(super) fn no_healthy_peer(&self) -> SendError {
        let peers = self.peers.iter().map(|peer| peer.url().to_owned()).collect();
        SendError::NoHealthyPeer { upstream: self.name.clone(), peers }
    }

    pub(super) fn receive(
        &self,
        answer: Response<Incoming>,
        peer: Arc<Peer>,
        slot: OwnedSemaphorePermit,
    ) -> Response<Body> {
        let (parts, incoming) = answer.into_parts();
        let limits = Limits {
            idle_timeout: self.idle_timeout,
            pace: Pace::new(self.rate_bytes, self.rate_window),
            throttle: Arc::clone(&self.throttle),
            counted: self.counted.clone(),
        };
        let mut response = Response::new(Answer::new(incoming, limits, slot).boxed_unsync());
        *response.status_mut() = parts.status;
        *response.headers_mut() = parts.headers;
        response.extensions_mut().insert(peer);
        response
    }
}

/// Whether the request can be sent twice without harm (RFC 9110 section 9.2.2) and without keeping its body.
pub(super) fn is_read(parts: &Parts, outgoing: &Outgoing) -> bool {
    matches!(parts.method, Method::GET | Method::HEAD) && outgoing.is_empty()
}

fn path_of(parts: &Parts) -> PathAndQuery {
    parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
}
