//! The rooms that answer, as the server knows them.

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::runtime::Handle;

use dockgate::gateway::admin::{Admin, AdminBody};
use dockgate::gateway::{Arrival, Gateway, Observed, Pressure};
use dockgate::server::admin::{Caller, Operator};
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
        match event {
            ConnectionEvent::HandshakeFailed(fault) => self.metrics.handshake_failed(fault.label()),
            ConnectionEvent::HandshakeTimedOut => self.metrics.handshake_failed("timed_out"),
            _ => {}
        }
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
        ConnectionEvent::HandshakeFailed(_) => "handshake_failed",
        ConnectionEvent::HandshakeTimedOut => "handshake_timed_out",
        ConnectionEvent::HeaderTimedOut => "header_timed_out",
        ConnectionEvent::Idle => "idle",
        ConnectionEvent::Stalled => "stalled",
        ConnectionEvent::Flooded => "flooded",
        ConnectionEvent::BadHttp2 => "bad_http2",
        ConnectionEvent::Forced => "forced",
    })
}

/// The operator's side.
#[derive(Clone)]
pub(super) struct AdminHandler {
    pub(super) admin: Admin,
    /// Where commands run: they must not keep the operator's own thread busy.
    pub(super) runtime: Handle,
}

impl Operator for AdminHandler {
    type Body = AdminBody;

    fn look(&self, request: &Request<Incoming>) -> Response<AdminBody> {
        self.admin.look(request.method(), request.uri().path())
    }

    async fn command(&self, caller: Caller, request: Request<Incoming>) -> Response<AdminBody> {
        let (admin, may) = (self.admin.clone(), caller == Caller::Operator);
        let (request, _) = request.into_parts();
        let work = async move { admin.command(may, &request.method, &request.uri).await };
        self.runtime.spawn(work).await.unwrap_or_else(|error| Admin::failed(&error))
    }
}
