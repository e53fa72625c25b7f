//! One log line and the metrics for every request, on every way out: answered, failed half-way, or left by the client.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, header};
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::registry::Tier;
use crate::telemetry::{Labels, Metrics, Sizes};

use super::body::Body;
use super::intake::Count;

/// What nginx calls it when the client leaves before there is an answer.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// How much of a header that a caller wrote goes into the log, in bytes.
const LOGGED_BYTES_MAX: usize = 256;

/// Makes request ids: random per process, counted per request.
pub(super) struct Ids {
    prefix: u32,
    next: AtomicU64,
}

impl Ids {
    pub(super) fn new(prefix: u32) -> Self {
        Self { prefix, next: AtomicU64::new(0) }
    }

    pub(super) fn next(&self) -> String {
        format!("{:08x}{:08x}", self.prefix, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// What is known of a request; written when it is dropped.
pub(super) struct Record {
    pub(super) id: String,
    pub(super) route: &'static str,
    pub(super) backend: &'static str,
    pub(super) tier: &'static str,
    pub(super) principal: String,
    pub(super) client: IpAddr,
    pub(super) received: Count,
    pub(super) private: Option<String>,
    method: String,
    target: String,
    user_agent: String,
    began: Instant,
    status: u16,
    sent: u64,
    complete: bool,
    metrics: Metrics,
    access_log: bool,
}

impl Record {
    pub(super) fn begin(id: String, client: IpAddr, request: &Parts, metrics: Metrics, access_log: bool) -> Self {
        let user_agent = request.headers.get(header::USER_AGENT).map(|text| text.as_bytes()).unwrap_or_default();
        let target = request.uri.path_and_query().map(|target| target.as_str()).unwrap_or_default();
        Self {
            id,
            route: "none",
            backend: "gateway",
            tier: "none",
            principal: "-".into(),
            client,
            received: Count::default(),
            private: None,
            method: printable(request.method.as_str().as_bytes()),
            target: printable(target.as_bytes()),
            user_agent: printable(user_agent),
            began: Instant::now(),
            status: CLIENT_CLOSED_REQUEST,
            sent: 0,
            complete: false,
            metrics,
            access_log,
        }
    }

    pub(super) const fn tier(&mut self, tier: Tier) {
        self.tier = match tier {
            Tier::Memory => "memory",
            Tier::File => "file",
        };
    }

    /// The answer is known; the record goes on with its body.
    pub(super) fn answered(mut self, response: Response<Body>) -> Response<Observed> {
        self.status = response.status().as_u16();
        // To HEAD no body is sent, whatever there is.
        self.complete = response.body().is_end_stream() || self.method == Method::HEAD.as_str();
        let (mut parts, body) = response.into_parts();
        if let Ok(id) = self.id.parse() {
            parts.headers.insert("x-request-id", id);
        }
        Response::from_parts(parts, Observed { body, record: self })
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let Self { route, backend, tier, status, .. } = *self;
        let (duration, sizes) = (self.began.elapsed(), Sizes { received: self.received.bytes(), sent: self.sent });
        self.metrics.request(&Labels { route, status, backend, tier }, sizes, duration);
        if let Some(private) = &self.private {
            tracing::error!(request_id = %self.id, reason = %printable(private.as_bytes()), "request failed");
        }
        if self.access_log {
            tracing::info!(
                target: "access",
                request_id = %self.id, client = %self.client, user = %printable(self.principal.as_bytes()),
                method = %self.method, target = %self.target, status, complete = self.complete,
                received = sizes.received, sent = sizes.sent, milliseconds = duration.as_millis() as u64,
                route, backend, tier, user_agent = %self.user_agent,
                "request"
            );
        }
    }
}

/// What a caller wrote, with everything that could steer a terminal or forge a line escaped.
fn printable(text: &[u8]) -> String {
    text[..text.len().min(LOGGED_BYTES_MAX)].escape_ascii().to_string()
}

/// A body whose bytes are counted for its record.
pub struct Observed {
    body: Body,
    record: Record,
}

impl HttpBody for Observed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => self.record.sent += frame.data_ref().map_or(0, |bytes| bytes.len() as u64),
            Some(Err(error)) => self.record.private = Some(format!("the body ended early: {error}")),
            None => self.record.complete = true,
        }
        if self.body.is_end_stream() {
            self.record.complete = true;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_callers_write_cannot_steer_a_terminal() {
        assert_eq!(printable(b"a\x1b[31m\r\nb\xff"), r"a\x1b[31m\r\nb\xff");
        assert_eq!(printable(&[b'x'; 1000]).len(), LOGGED_BYTES_MAX);
    }

    #[test]
    fn ids_differ() {
        let ids = Ids::new(7);
        assert_eq!((ids.next(), ids.next()), ("0000000700000000".into(), "0000000700000001".into()));
    }
}
