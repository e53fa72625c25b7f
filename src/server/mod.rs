//! Floor 7: sockets, from the bind to the last byte of the last connection.
//!
//! accept → budget → PROXY header → first byte → TLS handshake → framing → HTTP, each connection in a task of its own. What a
//! request means is the [`Handler`]'s business.

mod accept;
mod activity;
pub mod admin;
mod bind;
mod budget;
mod connection;
pub mod descriptors;
mod frames;
mod framing;
mod guarded;
mod handshake;
mod opening;
mod pace;
mod proxy;
mod settings;
mod socket;
mod stall;
mod streams;
mod watch;

#[cfg(test)]
mod tests;

use std::io;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;

use crate::gateway::{Arrival, Pressure};

pub use bind::{BindError, Drained, Listeners};
pub use handshake::HandshakeFault;
pub use settings::{Limits, Listener, Protocol};

/// Who answers requests. A clone is made for each.
pub trait Handler: Clone + Send + Sync + 'static {
    /// What answers carry.
    type Body: Body<Data = Bytes, Error = io::Error> + Send + 'static;

    /// Answer `request`. Dropped when the client leaves. Where `arrival` has a [`BadHead`](crate::gateway::BadHead), the
    /// request is to be refused: nothing but its request line is there. The server closes the connection after that.
    fn handle(&self, arrival: Arrival, request: Request<Incoming>)
    -> impl Future<Output = Response<Self::Body>> + Send;

    /// Whether clients wait for memory that answers to others hold.
    fn pressure(&self) -> Pressure {
        Pressure::default()
    }

    /// Count what happens to connections.
    fn observe(&self, _event: ConnectionEvent) {}
}

/// Something that happened to a connection. Each connection that was accepted ends in exactly one of those after
/// `Opened`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectionEvent {
    /// It was accepted.
    Opened,
    /// It ended as connections do.
    Closed,
    /// It broke, or what came was not HTTP.
    Broken,
    /// It was closed at once: `limits.connections` are open.
    OverConnections,
    /// It was closed: `limits.connections_per_client` are open from there.
    OverConnectionsPerClient,
    /// It said nothing, and others needed its place.
    MadeRoom,
    /// A trusted proxy sent no good PROXY header.
    BadProxyHeader,
    /// Neither TLS nor HTTP, or what this listener does not speak.
    WrongProtocol,
    /// The TLS handshake failed.
    HandshakeFailed(HandshakeFault),
    /// The handshake, or the first byte, did not come within `limits.tls_handshake_timeout`.
    HandshakeTimedOut,
    /// A request's head did not come within `limits.header_read_timeout`.
    HeaderTimedOut,
    /// There was no request for `limits.keep_alive_timeout`.
    Idle,
    /// The client took nothing for `limits.body_idle_timeout`.
    Stalled,
    /// What it sent by HTTP/2 was a flood, and it was told to be calm (RFC 9113 §10.5).
    Flooded,
    /// What it sent broke the rules of HTTP/2 (RFC 9113 §5.4.1).
    BadHttp2,
    /// It was cut off at the end of `limits.drain_timeout`.
    Forced,
}
