//! What the operator asks: `/livez`, `/readyz` and `/metrics` at an address, where nothing can be changed, and `/cache` over a
//! socket that only the gateway's own system user can connect to. Never on the public port.

mod keeper;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};

use crate::registry::Hosted;
use crate::telemetry::Metrics;

pub use keeper::Keeper;

/// What an answer to the operator carries.
pub type AdminBody = UnsyncBoxBody<Bytes, Infallible>;

/// Answers the operator's questions. Cheap to clone.
#[derive(Clone)]
pub struct Admin {
    ready: Arc<AtomicBool>,
    hosted: Arc<Hosted>,
    keeper: Keeper,
    metrics: Metrics,
}

impl Admin {
    /// Not ready yet.
    pub fn new(hosted: Arc<Hosted>, keeper: Keeper, metrics: Metrics) -> Self {
        Self { ready: Arc::default(), hosted, keeper, metrics }
    }

    /// From now on requests should, or should no longer, be sent here.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// Answers a look: at once, whatever else is going on.
    pub fn look(&self, method: &Method, path: &str) -> Response<AdminBody> {
        let is_here = matches!(path, "/livez" | "/readyz" | "/metrics");
        if is_here && !matches!(*method, Method::GET | Method::HEAD) {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match path {
            "/livez" => text(StatusCode::OK, "live\n"),
            "/readyz" => self.readiness(),
            "/metrics" => self.page(),
            _ => text(StatusCode::NOT_FOUND, "only /livez, /readyz and /metrics are here\n"),
        }
    }

    /// Does what the operator asks. `may`: whether the caller is the operator.
    pub async fn command(&self, may: bool, method: &Method, uri: &Uri) -> Response<AdminBody> {
        if !may {
            let message = "only root and the system user that the gateway runs as may do this\n";
            return text(StatusCode::FORBIDDEN, message);
        }
        self.keeper.answer(method, uri).await
    }

    /// What is said where a command broke down.
    pub fn failed(error: &dyn std::error::Error) -> Response<AdminBody> {
        text(StatusCode::INTERNAL_SERVER_ERROR, format!("the command failed: {error}; look at the gateway's log\n"))
    }

    /// Whether requests should be sent here. It goes by what is known: nothing is tried while somebody waits.
    fn readiness(&self) -> Response<AdminBody> {
        let not_ready = |why: &str| text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n"));
        if !self.hosted.is_healthy() {
            return not_ready("the disk failed a sync; check it and start again");
        }
        if let Some(error) = self.hosted.unreadable() {
            return not_ready(&format!("the data directory cannot be read; check its disk ({error})"));
        }
        if !self.ready.load(Ordering::Relaxed) {
            return not_ready("starting or stopping");
        }
        let note = if self.hosted.is_read_only() { ": pulls only, the data directory is read-only" } else { "" };
        text(StatusCode::OK, format!("ready{note}\n"))
    }

    fn page(&self) -> Response<AdminBody> {
        self.keeper.count();
        self.metrics.memory_bytes(self.hosted.memory_bytes());
        let rotten = self.hosted.rotten();
        self.metrics.rotten("hosted", rotten.blobs);
        self.metrics.rotten("manifest", rotten.manifests);
        match self.metrics.encode() {
            Ok(page) => {
                let mut response = text(StatusCode::OK, page);
                let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(openmetrics));
                response
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("the metrics cannot be written: {error}\n")),
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<AdminBody> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
