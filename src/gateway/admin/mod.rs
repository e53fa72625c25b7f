//! The admin listener: `/livez`, `/readyz`, `/metrics`, `/cache`. Never on the public port.

mod keeper;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};

use crate::registry::Hosted;
use crate::telemetry::Metrics;

use super::arrival::Arrival;

pub use keeper::{CONSENT, Keeper};

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

    /// Answers a request.
    pub async fn handle<B>(&self, arrival: &Arrival, request: &Request<B>) -> Response<AdminBody> {
        if arrival.bad_head.is_some() {
            return text(StatusCode::BAD_REQUEST, "the request can be read in two ways\n");
        }
        let path = request.uri().path();
        if path == "/cache" || path.starts_with("/cache/") {
            let consents = request.headers().contains_key(CONSENT);
            return self.keeper.answer(request.method(), request.uri(), consents).await;
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n");
        }
        match path {
            "/livez" => text(StatusCode::OK, "live\n"),
            "/readyz" => self.readiness(),
            "/metrics" => self.page(),
            _ => text(StatusCode::NOT_FOUND, "/livez, /readyz, /metrics and /cache are here\n"),
        }
    }

    fn readiness(&self) -> Response<AdminBody> {
        match (self.ready.load(Ordering::Relaxed), self.hosted.is_healthy()) {
            (true, true) => text(StatusCode::OK, "ready\n"),
            (_, false) => {
                text(StatusCode::SERVICE_UNAVAILABLE, "not ready: the disk failed a sync; check it and start again\n")
            }
            (false, _) => text(StatusCode::SERVICE_UNAVAILABLE, "not ready: starting or stopping\n"),
        }
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
