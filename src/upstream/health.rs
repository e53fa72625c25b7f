//! Whether a peer is there: one small request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use pingora_error::{Error, ErrorType};
use pingora_load_balancing::Backend;
use pingora_load_balancing::health_check::HealthCheck;

use crate::net::client::{Client, ClientError};

use super::peers::Peer;

/// Asks a peer for the path of `health` in the upstream's file and expects a 2xx, or of a v2 registry any answer that
/// is not the server's fault.
pub(super) struct Check {
    pub(super) upstream: String,
    pub(super) client: Client,
    pub(super) path: String,
    /// How long a check may take.
    pub(super) timeout: Duration,
    pub(super) failures: usize,
    pub(super) successes: usize,
    /// Whether an answer that refuses us shows that the peer is well.
    pub(super) accepts_refusal: bool,
    /// Whether every peer was checked once: until then one failure is enough, since nothing spoke for the peer.
    pub(super) settled: Arc<AtomicBool>,
}

impl Check {
    fn accepts(&self, status: StatusCode) -> bool {
        status.is_success() || self.accepts_refusal && status.is_client_error()
    }

    async fn ask(&self, peer: &Peer) -> Result<(), String> {
        let asked = async {
            match self.send(peer).await {
                // A connection that the peer is done with says nothing of the peer.
                Err(ClientError::Refused { .. }) => self.send(peer).await,
                answered => answered,
            }
        };
        match tokio::time::timeout(self.timeout, asked).await {
            Err(_) => Err(format!("no answer within {} s", self.timeout.as_secs_f32())),
            Ok(Err(error)) => Err(error.to_string()),
            Ok(Ok(answer)) if self.accepts(answer.status()) => Ok(()),
            Ok(Ok(answer)) => Err(format!("it answered {}", answer.status())),
        }
    }

    async fn send(&self, peer: &Peer) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = peer.uri(&self.path);
        self.client.send(request).await
    }
}

#[async_trait]
impl HealthCheck for Check {
    async fn check(&self, target: &Backend) -> pingora_error::Result<()> {
        let Some(peer) = target.ext.get::<Arc<Peer>>() else {
            return Err(Error::explain(ErrorType::InternalError, "a backend without its peer"));
        };
        let outcome = self.ask(peer).await;
        peer.set_aside(outcome.is_err());
        outcome.map_err(|reason| {
            tracing::debug!(upstream = self.upstream, peer = peer.url(), reason, "a health check failed");
            Error::explain(ErrorType::CustomCode("health check", 0), reason)
        })
    }

    async fn health_status_change(&self, target: &Backend, healthy: bool) {
        let peer = target.ext.get::<Arc<Peer>>().map_or("", |peer| peer.url());
        if healthy {
            tracing::info!(upstream = self.upstream, peer, "a peer is healthy again");
        } else {
            tracing::warn!(upstream = self.upstream, peer, "a peer is unhealthy");
        }
    }

    fn health_threshold(&self, success: bool) -> usize {
        match success {
            true => self.successes,
            false if self.settled.load(Ordering::Acquire) => self.failures,
            false => 1,
        }
    }
}
