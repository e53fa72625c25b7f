//! What the server has to be told. The configuration room has the same words; whoever wires the rooms copies them over.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

/// Where to listen, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its name, as in `[listen.NAME]`.
    pub name: Arc<str>,
    /// The address; port 0 takes any free one.
    pub address: SocketAddr,
    /// What is spoken.
    pub protocol: Protocol,
    /// Those whose PROXY header is believed, if `proxy_protocol` is set.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether connections from `trusted_proxies` begin with a PROXY header; without one they are closed.
    pub proxy_protocol: bool,
}

/// What is spoken on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// TLS and plain HTTP; the first byte tells which.
    #[default]
    Auto,
    /// TLS. Plain HTTP is answered with an error that says so.
    Tls,
    /// Plain HTTP.
    Plain,
}

/// The limits that the server keeps. A change is in force for the next connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Connections at a time from one client: one IPv4 address, or one IPv6 /64.
    pub connections_per_client: usize,
    /// Headers in a request (HTTP/1).
    pub headers: usize,
    /// Bytes of a request line and its headers (HTTP/1).
    pub header_bytes: u64,
    /// Bytes of a header list (HTTP/2, counted as in RFC 9113 §6.5.2).
    pub http2_header_list_bytes: u64,
    /// Requests at a time on one HTTP/2 connection.
    pub http2_streams: u32,
    /// Bytes that may be under way to us in one HTTP/2 request.
    pub http2_stream_window_bytes: u64,
    /// Bytes that may be under way to us in all requests of an HTTP/2 connection.
    pub http2_connection_window_bytes: u64,
    /// From the connection to the end of the TLS handshake, or to the first byte of plain HTTP.
    pub tls_handshake_timeout: Duration,
    /// From the first byte of a request's head (the first request: from the handshake) to the last.
    pub header_read_timeout: Duration,
    /// How long a connection may stay without a request.
    pub keep_alive_timeout: Duration,
    /// How long a client may take nothing of what is sent to it.
    pub body_idle_timeout: Duration,
    /// How long running requests have when the server stops.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_client: 4096,
            headers: 100,
            header_bytes: 32 << 10,
            http2_header_list_bytes: 64 << 10,
            http2_streams: 100,
            http2_stream_window_bytes: 1 << 20,
            http2_connection_window_bytes: 4 << 20,
            tls_handshake_timeout: Duration::from_secs(10),
            header_read_timeout: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(60),
            body_idle_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(60),
        }
    }
}
