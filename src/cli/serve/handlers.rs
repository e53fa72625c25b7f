//! The rooms that answer, as the server knows them.

use std::convert::Infallible;
use std::io;

use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::combinators::MapErr;
use hyper::body::Incoming;

use dockgate::gateway::admin::{Admin, AdminBody};
use dockgate::gateway::{Arrival, Gateway, Observed, Pressure};
use dockgate::server::{ConnectionEvent, Handler};
use dockgate::telemetry::Metrics;

/// The public listeners.
#[derive(Clone)]
pub(super) struct GatewayHandler {
    pub(super) gateway: Gateway,
    pub(super) metrics: Metrics,
}

impl Handler for GatewayHandler {
    type Body = Observed;

    async fn handle(&self, arrival: Arrival, request: Request<Incoming>) -> Response<Observed> {
        self.gateway.handle(arrival, request).await
    }

    fn pressure(&self) -> Pressure {
        self.gateway.pressure()
    }

    fn observe(&self, event: ConnectionEvent) {
        match outcome(event) {
            None => self.metrics.connection_opened(),
            Some(outcome) => self.metrics.connection_closed(outcome),
        }
    }
}

/// How a connection ended, as a fixed word; `None` where it begins.
const fn outcome(event: ConnectionEvent) -> Option<&'static str> {
    Some(match event {
        ConnectionEvent::Opened => return None,
        ConnectionEvent::Closed => "closed",
        ConnectionEvent::Broken => "broken",
        ConnectionEvent::OverConnections => "over_connections",
        ConnectionEvent::OverConnectionsPerClient => "over_connections_per_client",
        ConnectionEvent::MadeRoom => "made_room",
        ConnectionEvent::BadProxyHeader => "bad_proxy_header",
        ConnectionEvent::WrongProtocol => "wrong_protocol",
        ConnectionEvent::HandshakeFailed => "handshake_failed",
        ConnectionEvent::HandshakeTimedOut => "handshake_timed_out",
        ConnectionEvent::HeaderTimedOut => "header_timed_out",
        ConnectionEvent::Idle => "idle",
        ConnectionEvent::Stalled => "stalled",
        ConnectionEvent::Flooded => "flooded",
        ConnectionEvent::Forced => "forced",
    })
}

/// The admin listener.
#[derive(Clone)]
pub(super) struct AdminHandler(pub(super) Admin);

impl Handler for AdminHandler {
    type Body = MapErr<AdminBody, fn(Infallible) -> io::Error>;

    async fn handle(&self, arrival: Arrival, request: Request<Incoming>) -> Response<Self::Body> {
        let never: fn(Infallible) -> io::Error = |never| match never {};
        self.0.handle(&arrival, &request).await.map(|body| body.map_err(never))
    }
}
