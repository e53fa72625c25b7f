//! How a request reached us, as far as the server can tell.

use std::net::SocketAddr;
use std::sync::Arc;

/// How a request reached us. All requests of a connection share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Who sent it: the other end of the connection, or whom a trusted proxy announced with the PROXY protocol.
    /// An IPv4 address is never written as an IPv6 one.
    pub peer: SocketAddr,
    /// The address that it was sent to.
    pub local: SocketAddr,
    /// The name of the listener, as in `[listen.NAME]`.
    pub listener: Arc<str>,
    /// Whether it was encrypted on its way here.
    pub transport: Transport,
    /// The name in the client certificate, if one was shown and found good.
    pub certificate: Option<Arc<str>>,
}

/// What carried a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TLS, ended here.
    Tls,
    /// Plain HTTP.
    Plain,
}
