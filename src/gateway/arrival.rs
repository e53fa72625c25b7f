//! How a request reached us, as far as the server can tell.

use std::net::SocketAddr;
use std::sync::Arc;

/// How a request reached us. All requests of a connection share it, but for `bad_head`.
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
    /// Why the request must be refused: its head can be read in two ways. Of such a request there is no more than the
    /// method and the target, and neither means anything.
    pub bad_head: Option<BadHead>,
}

/// What is wrong with the head of a request (RFC 9112, sections 2 to 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BadHead {
    /// Its first line is not a method, a target and HTTP/1.0 or HTTP/1.1, with one space between them.
    RequestLine,
    /// A line that does not end in CR LF.
    LineEnd,
    /// A NUL, or another byte that does not stand in a line.
    ControlByte,
    /// A header line without a name, with a space before its colon, or folded.
    Field,
    /// A Content-Length that is not one number, two of them, or one beside Transfer-Encoding.
    Length,
    /// A transfer coding that is not `chunked`, two of them, or one in HTTP/1.0.
    TransferCoding,
    /// More bytes or more headers than are taken.
    TooLarge,
}

/// What carried a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TLS, ended here.
    Tls,
    /// Plain HTTP.
    Plain,
}
