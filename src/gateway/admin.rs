//! The admin listener: `/livez`, `/readyz`, `/metrics`. Never on the public port.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;

use crate::registry::Hosted;
use crate::telemetry::Metrics;

use super::arrival::Arrival;

/// Answers the operator's questions. Cheap to clone.
#[derive(Clone)]
pub struct Admin {
    ready: Arc<AtomicBool>,
    hosted: Arc<Hosted>,
    metrics: Metrics,
}

impl Admin {
    /// Not ready yet.
    pub fn new(hosted: Arc<Hosted>, metrics: Metrics) -> Self {
        Self { ready: Arc::default(), hosted, metrics }
    }

    /// From now on requests should, or should no longer, be sent here.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// Answers a request.
    pub fn handle<B>(&self, arrival: &Arrival, request: &Request<B>) -> Response<Full<Bytes>> {
        if arrival.bad_head.is_some() {
            return text(StatusCode::BAD_REQUEST, "the request can be read in two ways\n");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n");
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "live\n"),
            "/readyz" => self.readiness(),
            "/metrics" => self.page(),
            _ => text(StatusCode::NOT_FOUND, "/livez, /readyz and /metrics are here\n"),
        }
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        match (self.ready.load(Ordering::Relaxed), self.hosted.is_healthy()) {
            (true, true) => text(StatusCode::OK, "ready\n"),
            (_, false) => {
                text(StatusCode::SERVICE_UNAVAILABLE, "not ready: the disk failed a sync; check it and start again\n")
            }
            (false, _) => text(StatusCode::SERVICE_UNAVAILABLE, "not ready: starting or stopping\n"),
        }
    }

    fn page(&self) -> Response<Full<Bytes>> {
        self.metrics.memory_bytes(self.hosted.memory_bytes());
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

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
