//! One log line and the metrics for every request, on every way out: answered, failed half-way, or left by the client.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, Uri};
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::access::Principal;
use crate::config::redact;
use crate::registry::Tier;
use crate::telemetry::{Labels, Metrics, Sizes};

use super::body::{Body, CHUNK_BYTES};
use super::byte_budget::ByteBudget;
use super::intake::Count;
use super::outgoing::Outgoing;

/// What nginx calls it when the client leaves before there is an answer.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// How much of a header that a caller wrote goes into the log, in bytes.
const LOGGED_BYTES_MAX: usize = 256;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Makes request ids: counted, from a beginning that is random for each process.
pub(super) struct Ids(AtomicU64);

/// A request's name in the log, in errors and in a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestId(u64);

impl Ids {
    pub(super) const fn new(prefix: u32) -> Self {
        Self(AtomicU64::new((prefix as u64) << 32))
    }

    pub(super) fn next(&self) -> RequestId {
        RequestId(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What is known of a request; written when it is dropped.
pub(super) struct Record {
    pub(super) id: RequestId,
    pub(super) route: &'static str,
    pub(super) backend: &'static str,
    pub(super) tier: &'static str,
    pub(super) client: IpAddr,
    /// Whether the caller speaks TLS, as far as is known.
    pub(super) https: bool,
    pub(super) received: Count,
    pub(super) private: Option<String>,
    /// What only the access log tells; none where there is no log.
    told: Option<Told>,
    /// Whether it is HEAD.
    head: bool,
    began: Instant,
    status: u16,
    sent: u64,
    complete: bool,
    metrics: Metrics,
}

/// What was asked, and by whom. It is put into words when it is written.
struct Told {
    principal: Option<Principal>,
    method: Method,
    target: Uri,
    user_agent: Option<HeaderValue>,
}

impl Record {
    pub(super) fn begin(id: RequestId, client: IpAddr, request: &Parts, metrics: Metrics, access_log: bool) -> Self {
        let told = access_log.then(|| Told {
            principal: None,
            method: request.method.clone(),
            target: request.uri.clone(),
            user_agent: request.headers.get(header::USER_AGENT).cloned(),
        });
        metrics.request_began();
        Self {
            id,
            route: "none",
            backend: "gateway",
            tier: "none",
            client,
            https: false,
            received: Count::default(),
            private: None,
            told,
            head: request.method == Method::HEAD,
            began: Instant::now(),
            status: CLIENT_CLOSED_REQUEST,
            sent: 0,
            complete: false,
            metrics,
        }
    }

    /// It was found out who is asking.
    pub(super) fn identified(&mut self, principal: &Principal) {
        if let Some(told) = &mut self.told {
            told.principal = Some(principal.clone());
        }
    }

    pub(super) const fn tier(&mut self, tier: Tier) {
        self.tier = match tier {
            Tier::Memory => "memory",
            Tier::File => "file",
            Tier::Disk => "disk",
            Tier::Fill => "fill",
            Tier::Upstream => "upstream",
        };
    }

    /// The answer is known; the record goes on with its body.
    pub(super) fn answered(mut self, response: Response<Body>, budget: &ByteBudget) -> Response<Observed> {
        self.status = response.status().as_u16();
        let (mut parts, mut body) = response.into_parts();
        if self.head {
            body = leave_out(&mut parts.headers, &body);
        }
        self.complete = body.is_end_stream();
        if let Ok(id) = HeaderValue::try_from(self.id.to_string()) {
            parts.headers.insert(REQUEST_ID, id);
        }
        let outgoing = (!body.is_shared()).then(|| Outgoing::new(budget, self.client));
        if let Some(outgoing) = &outgoing {
            parts.extensions.insert(outgoing.flight());
        }
        Response::from_parts(parts, Observed { body, outgoing, record: self })
    }
}

/// To HEAD no body is sent, whatever there is; how long it would be is told all the same (RFC 9110, section 9.3.2). By HTTP/2
/// hyper would send it, and clients complain.
fn leave_out(headers: &mut HeaderMap, body: &Body) -> Body {
    let length = body.size_hint().exact().filter(|length| *length > 0);
    if let (Some(length), false) = (length, headers.contains_key(header::CONTENT_LENGTH)) {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    Body::empty()
}

impl Drop for Record {
    fn drop(&mut self) {
        let Self { route, backend, tier, status, .. } = *self;
        let (duration, sizes) = (self.began.elapsed(), Sizes { received: self.received.bytes(), sent: self.sent });
        self.metrics.request_ended(&Labels { route, status, backend, tier }, sizes, duration);
        if let Some(private) = &self.private {
            tracing::error!(request_id = %self.id, reason = %printable(private.as_bytes()), "request failed");
        }
        if let Some(Told { principal, method, target, user_agent }) = &self.told {
            let user = principal.as_ref().map(ToString::to_string);
            let target = target.path_and_query().map(|target| target.as_str());
            tracing::info!(
                target: "access",
                request_id = %self.id, client = %self.client,
                user = %printable(user.as_deref().unwrap_or("-").as_bytes()),
                method = %printable(method.as_str().as_bytes()),
                target = %printable(redact::target(target.unwrap_or_default()).as_bytes()),
                status, complete = self.complete,
                received = sizes.received, sent = sizes.sent, milliseconds = duration.as_millis() as u64,
                route, backend, tier,
                user_agent = %printable(user_agent.as_ref().map(|text| text.as_bytes()).unwrap_or_default()),
                "request"
            );
        }
    }
}

/// What a caller wrote, with everything that could steer a terminal or forge a line escaped.
fn printable(text: &[u8]) -> std::slice::EscapeAscii<'_> {
    text[..text.len().min(LOGGED_BYTES_MAX)].escape_ascii()
}

/// A body whose bytes are counted for its record.
pub struct Observed {
    body: Body,
    /// Of bodies whose chunks are memory of their own.
    outgoing: Option<Outgoing>,
    record: Record,
}

impl HttpBody for Observed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Self { body, outgoing, .. } = &mut *self;
        let frame = match outgoing {
            None => std::task::ready!(body.poll_frame(cx, CHUNK_BYTES)),
            Some(outgoing) => std::task::ready!(outgoing.poll_frame(body, cx)),
        };
        match &frame {
            Some(Ok(frame)) => self.record.sent += frame.data_ref().map_or(0, |bytes| bytes.len() as u64),
            Some(Err(error)) => self.record.private = Some(format!("the body ended early: {error}")),
            None => self.record.complete = true,
        }
        if self.is_end_stream() {
            self.record.complete = true;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && !self.outgoing.as_ref().is_some_and(Outgoing::has_rest)
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
        assert_eq!(printable(b"a\x1b[31m\r\nb\xff").to_string(), r"a\x1b[31m\r\nb\xff");
        assert_eq!(printable(&[b'x'; 1000]).count(), LOGGED_BYTES_MAX);
    }

    #[test]
    fn ids_differ() {
        let ids = Ids::new(7);
        let texts = [ids.next().to_string(), ids.next().to_string()];
        assert_eq!(texts, ["0000000700000000", "0000000700000001"]);
    }
}
