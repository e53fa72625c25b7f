//! How a request arrived: what the server knows of it beside the request itself.

use std::net::SocketAddr;
use std::sync::Arc;

/// How a request arrived.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The other end of the connection; with the PROXY protocol, whom the proxy named.
    pub peer: SocketAddr,
    /// Our end of the connection.
    pub local: SocketAddr,
    /// The name of the listener, as in `gateway.toml`.
    pub listener: Arc<str>,
    /// What the connection speaks.
    pub transport: Transport,
    /// The name in the verified client certificate, if there was one.
    pub certificate: Option<Arc<str>>,
}

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TLS.
    Tls,
    /// Plain HTTP.
    Plain,
}
