//! One connection, from the accepted socket to its end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{self, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::gateway::{Arrival, Flight};

use super::activity::{Activity, Answer, Monitored, Patience};
use super::budget::Slot;
use super::frames::Frames;
use super::framing::HeadLimits;
use super::guarded::{Guarded, Verdicts};
use super::handshake::HandshakeLog;
use super::opening::{self, HttpVersion, Opened, Refused, Stream};
use super::pace::Turnstile;
use super::socket::Sleeper;
use super::stall::Stall;
use super::streams::StreamExecutor;
use super::watch::Watched;
use super::{ConnectionEvent, Handler, Limits, Listener};

/// Streams that a client reset before we looked at them: more is the rapid-reset attack (CVE-2023-44487).
const HTTP2_PENDING_RESETS_MAX: usize = 20;
/// Streams that we had to reset for a client's mistakes.
const HTTP2_ERROR_RESETS_MAX: usize = 100;
/// Bytes of an answer that wait for an HTTP/2 client's window.
const HTTP2_SEND_BUFFER_BYTES: usize = 256 << 10;

/// How far the server is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Not at all.
    Serving,
    /// What is running is finished.
    Draining,
    /// All is cut off.
    Forced,
}

/// Wait until the server is in `phase`, or gone.
pub(super) async fn reached(mut phases: watch::Receiver<Phase>, phase: Phase) {
    let _ = phases.wait_for(|now| *now >= phase).await;
}

/// What a connection needs to know.
pub(super) struct Setting<H> {
    pub(super) handler: H,
    pub(super) listener: Arc<Listener>,
    pub(super) limits: Arc<Limits>,
    pub(super) tls: Option<Arc<rustls::ServerConfig>>,
    pub(super) phases: watch::Receiver<Phase>,
    pub(super) turnstile: Turnstile,
    pub(super) handshakes: Arc<HandshakeLog>,
}

/// Serve `stream` to its end, and say which that was.
pub(super) async fn run<H: Handler>(
    setting: &Setting<H>,
    stream: TcpStream,
    peer: SocketAddr,
    mut slot: Slot,
) -> ConnectionEvent {
    let Setting { listener, limits, phases, .. } = setting;
    // Each phase in a box of its own, so that a connection that says nothing takes no memory for what may come.
    let opening = Box::pin(opening::open(stream, peer, setting, &mut slot));
    let opened = tokio::select! {
        biased;
        opened = tokio::time::timeout(limits.tls_handshake_timeout, opening) => opened,
        // Nothing was promised to it yet.
        () = reached(phases.clone(), Phase::Draining) => return ConnectionEvent::Closed,
    };
    let Opened { stream, version, arrival } = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(Refused { event: event @ ConnectionEvent::HandshakeFailed(fault), reason: Some(error) })) => {
            setting.handshakes.failed(&listener.name, peer, fault, &error);
            return event;
        }
        Ok(Err(Refused { event, reason })) => {
            let reason = reason.map(tracing::field::display);
            tracing::debug!(listener = &*listener.name, %peer, ?event, reason, "connection refused");
            return event;
        }
        Err(_) => return ConnectionEvent::HandshakeTimedOut,
    };
    let activity = Arc::new(Activity::start());
    slot.speaks(&activity);
    match stream {
        Stream::Plain(stream) => Box::pin(serve(stream, version, arrival, setting, activity)).await,
        Stream::Tls(stream) => Box::pin(serve(stream, version, arrival, setting, activity)).await,
    }
}

/// Speak HTTP until the connection ends, waits too long, or the server stops.
pub(super) async fn serve<H: Handler>(
    stream: impl AsyncRead + AsyncWrite + Sleeper + Unpin + Send + 'static,
    version: HttpVersion,
    arrival: Arrival,
    setting: &Setting<H>,
    activity: Arc<Activity>,
) -> ConnectionEvent {
    let Setting { handler, limits, phases, turnstile, .. } = setting;
    let stall = Stall { timeout: limits.body_idle_timeout, pressure: handler.pressure() };
    let patience = Patience {
        header_read: limits.header_read_timeout,
        keep_alive: limits.keep_alive_timeout,
        stall: stall.clone(),
    };
    let io = Monitored::new(stream, Arc::clone(&activity));
    let verdicts = Arc::new(Verdicts::default());
    let peer = arrival.peer;
    let entrance = turnstile.entrance(peer.ip());
    let service = {
        let (activity, verdicts, handler) = (Arc::clone(&activity), Arc::clone(&verdicts), handler.clone());
        service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let running = activity.begin(request.version());
            let bad_head = verdicts.next();
            let (handler, arrival) = (handler.clone(), Arrival { bad_head, ..arrival.clone() });
            async move {
                let mut response = handler.handle(arrival, request).await;
                if bad_head.is_some() {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                let flight = response.extensions_mut().remove::<Flight>();
                Ok::<_, Infallible>(response.map(|body| Answer::new(body, running, flight)))
            }
        })
    };
    match version {
        HttpVersion::One => {
            let io = Guarded::new(io, head_limits(limits), verdicts, Arc::clone(&activity), entrance);
            let connection = http1(limits).serve_connection(TokioIo::new(io), service);
            drive(connection, activity, patience, phases, peer).await
        }
        HttpVersion::Two => {
            let io = Frames::new(io, entrance.clone());
            let connection = http2(limits, stall).serve_connection(TokioIo::new(io), service);
            let event = drive(connection, activity, patience, phases, peer).await;
            if matches!(event, ConnectionEvent::Flooded | ConnectionEvent::BadHttp2) {
                entrance.mark_loud();
            }
            event
        }
    }
}

async fn drive<C: GracefulConnection<Error = hyper::Error>>(
    connection: C,
    activity: Arc<Activity>,
    patience: Patience,
    phases: &watch::Receiver<Phase>,
    peer: SocketAddr,
) -> ConnectionEvent {
    let stop = reached(phases.clone(), Phase::Draining);
    tokio::select! {
        biased;
        outcome = Watched::new(connection, stop, activity, patience) => outcome.unwrap_or_else(|error| {
            tracing::debug!(%peer, %error, "connection broken");
            told_to_go(&error)
        }),
        () = reached(phases.clone(), Phase::Forced) => ConnectionEvent::Forced,
    }
}

/// Why HTTP/2, or [`Frames`] through it, ended the connection, if it did.
fn told_to_go(error: &hyper::Error) -> ConnectionEvent {
    let error = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    match error.filter(|error| !error.is_remote()).and_then(h2::Error::reason) {
        Some(h2::Reason::ENHANCE_YOUR_CALM) => ConnectionEvent::Flooded,
        Some(_) => ConnectionEvent::BadHttp2,
        None => ConnectionEvent::Broken,
    }
}

fn http1(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // `Watched` has the timeouts.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(limits.headers)
        .max_header_size(head_limits(limits).bytes);
    builder
}

fn head_limits(limits: &Limits) -> HeadLimits {
    HeadLimits { bytes: usize::try_from(limits.header_bytes).unwrap_or(usize::MAX), headers: limits.headers }
}

fn http2(limits: &Limits, stall: Stall) -> http2::Builder<StreamExecutor> {
    let mut builder = http2::Builder::new(StreamExecutor { stall });
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_streams)
        .initial_stream_window_size(bits_31(limits.http2_stream_window_bytes))
        .initial_connection_window_size(bits_31(limits.http2_connection_window_bytes))
        .max_header_list_size(bits_31(limits.http2_header_list_bytes))
        .max_pending_accept_reset_streams(HTTP2_PENDING_RESETS_MAX)
        .max_local_error_reset_streams(HTTP2_ERROR_RESETS_MAX)
        .max_send_buf_size(HTTP2_SEND_BUFFER_BYTES)
        // A client that is gone without a word is found out by a ping as early as an idle one is closed.
        .keep_alive_interval(limits.keep_alive_timeout)
        .keep_alive_timeout(limits.header_read_timeout);
    builder
}

/// HTTP/2 counts these in 31 bits (RFC 9113 §6.9.1).
fn bits_31(limit: u64) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX).min(u32::MAX >> 1)
}
