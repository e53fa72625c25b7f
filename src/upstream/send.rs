//! One exchange with one of the peers.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};

use crate::net::client::{Body, ClientError, Retry};

use super::answer::Answer;
use super::error::{BodyError, SendError};
use super::outgoing::{Outgoing, Phase};
use super::peers::{Peer, Peers};

impl Peers {
    /// Sends `request` to a healthy peer; of its URI only path and query count. Waits for a free slot, at most as long as
    /// an answer may take to begin. A peer that takes no connection is put aside and the next is asked; once a byte of the
    /// body was read there is only that one. The answer's extensions carry the `Arc<Peer>` that gave it.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, SendError> {
        let slot = self.slot().await?;
        let (parts, body) = request.into_parts();
        let outgoing = Outgoing::new(body, self.idle_timeout);
        let mut tried = Vec::new();
        let mut repeatable = is_read(&parts, &outgoing);
        let mut last = None;
        while let Some(peer) = self.pick_except(&tried) {
            match self.exchange(&peer, &parts, &outgoing).await {
                Ok(answer) => return Ok(self.receive(answer, peer, slot)),
                Err(error @ SendError::Unreachable { .. }) if outgoing.is_untouched() => {
                    tracing::warn!(upstream = self.name, peer = peer.url(), %error, "a peer takes no connection");
                    peer.set_aside(true);
                    tried.push(peer);
                    last = Some(error);
                }
                // A connection from the pool may have been closed while the request was on its way.
                Err(SendError::Broken { .. }) if repeatable => repeatable = false,
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| self.no_healthy_peer()))
    }

    async fn slot(&self) -> Result<OwnedSemaphorePermit, SendError> {
        let waiting = Semaphore::acquire_owned(Arc::clone(&self.slots));
        let slot = timeout(self.first_byte_timeout, waiting).await.ok().and_then(Result::ok);
        slot.ok_or_else(|| SendError::Busy {
            upstream: self.name.clone(),
            concurrency: self.concurrency,
            waited: self.first_byte_timeout,
        })
    }

    /// One attempt at one peer, with a clock that follows who has to do the next thing.
    async fn exchange(&self, peer: &Peer, parts: &Parts, outgoing: &Outgoing) -> Result<Response<Incoming>, SendError> {
        let mut request = Request::new(outgoing.attempt().boxed());
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = peer.uri_of(path_of(parts));
        *request.headers_mut() = parts.headers.clone();
        // What cannot be sent twice takes no connection that the peer may be about to close.
        let client = if is_read(parts, outgoing) { &self.pooled } else { &self.fresh };
        let mut answer = pin!(client.send(request));
        loop {
            let (phase, since) = outgoing.phase();
            let limit = self.limit(&phase);
            if since + limit <= Instant::now() {
                return Err(self.silent(peer, &phase, limit));
            }
            // A phase that begins later ends no earlier than this.
            let next = Instant::now() + self.idle_timeout.min(self.first_byte_timeout);
            tokio::select! {
                answer = &mut answer => return answer.map_err(|error| self.broken(peer, outgoing, &error)),
                () = sleep_until(next.min(since + limit)) => {}
            }
        }
    }

    fn silent(&self, peer: &Peer, phase: &Phase, waited: Duration) -> SendError {
        match phase {
            Phase::Caller => SendError::Caller { reason: BodyError::CallerSilent(waited).to_string() },
            Phase::Failed(reason) => SendError::Caller { reason: reason.clone() },
            Phase::Untouched | Phase::Peer | Phase::Sent => {
                SendError::Silent { upstream: self.name.clone(), peer: peer.url().to_owned(), waited }
            }
        }
    }

    /// How long a phase may last. The first byte of the answer has its time from when the whole request was sent.
    const fn limit(&self, phase: &Phase) -> Duration {
        match phase {
            Phase::Untouched | Phase::Sent => self.first_byte_timeout,
            Phase::Caller | Phase::Peer | Phase::Failed(_) => self.idle_timeout,
        }
    }

    fn broken(&self, peer: &Peer, outgoing: &Outgoing, error: &ClientError) -> SendError {
        let (upstream, peer, reason) = (self.name.clone(), peer.url().to_owned(), error.to_string());
        match outgoing.phase().0 {
            Phase::Failed(reason) => SendError::Caller { reason },
            _ if error.retry() == Retry::Safe => SendError::Unreachable { upstream, peer, reason },
            _ => SendError::Broken { upstream, peer, reason },
        }
    }

    fn no_healthy_peer(&self) -> SendError {
        let peers = self.peers.iter().map(|peer| peer.url().to_owned()).collect();
        SendError::NoHealthyPeer { upstream: self.name.clone(), peers }
    }

    fn receive(&self, answer: Response<Incoming>, peer: Arc<Peer>, slot: OwnedSemaphorePermit) -> Response<Body> {
        let (parts, incoming) = answer.into_parts();
        let mut response = Response::new(Answer::new(incoming, self.idle_timeout, slot).boxed());
        *response.status_mut() = parts.status;
        *response.headers_mut() = parts.headers;
        response.extensions_mut().insert(peer);
        response
    }
}

/// Whether the request can be sent twice without harm (RFC 9110 section 9.2.2) and without keeping its body.
fn is_read(parts: &Parts, outgoing: &Outgoing) -> bool {
    matches!(parts.method, Method::GET | Method::HEAD) && outgoing.is_empty()
}

fn path_of(parts: &Parts) -> PathAndQuery {
    parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
}
