//! From an accepted socket to a stream of HTTP: the PROXY header, the first byte, the TLS handshake.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep_until;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::gateway::{Arrival, Transport};
use crate::net::tls;
use crate::oci::ErrorCode;

use super::budget::Slot;
use super::connection::Setting;
use super::handshake::HandshakeFault;
use super::proxy::{self, Announced};
use super::socket::Socket;
use super::{ConnectionEvent, Listener, Protocol};

/// A connection that is ready for HTTP.
pub(super) struct Opened {
    pub(super) stream: Stream,
    pub(super) version: HttpVersion,
    pub(super) arrival: Arrival,
}

/// What carries the bytes.
pub(super) enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

/// Which HTTP a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HttpVersion {
    One,
    Two,
}

/// Why a connection was closed before any HTTP.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) event: ConnectionEvent,
    /// For the log.
    pub(super) reason: Option<io::Error>,
}

impl From<ConnectionEvent> for Refused {
    fn from(event: ConnectionEvent) -> Self {
        Self { event, reason: None }
    }
}

/// The most that is read of a request which will not be answered.
const DISCARD_BYTES_MAX: u64 = 64 << 10;
/// How long a client has to read why it was not answered.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// Do all that comes before HTTP. The caller sets the deadline.
pub(super) async fn open<H>(
    mut stream: TcpStream,
    mut peer: SocketAddr,
    setting: &Setting<H>,
    slot: &mut Slot,
) -> Result<Opened, Refused> {
    let Setting { listener, limits, tls, turnstile, .. } = setting;
    let mut local = canonical(stream.local_addr().map_err(broken)?);
    if is_proxy(listener, peer) {
        let header = proxy::read_header(&mut stream).await;
        let bad = |error: proxy::HeaderError| Refused {
            event: ConnectionEvent::BadProxyHeader,
            reason: Some(io::Error::other(error.to_string())),
        };
        if let Announced::Client(source, destination) = header.map_err(bad)? {
            (peer, local) = (canonical(source), canonical(destination));
        }
    }
    if !slot.claim(peer.ip(), limits.connections_per_client) {
        return Err(ConnectionEvent::OverConnectionsPerClient.into());
    }
    if let Some(turn) = turnstile.entrance(peer.ip()).opening() {
        // Until then nobody is woken for what it sends.
        let asleep = stream.into_std().map_err(broken)?;
        sleep_until(turn).await;
        stream = TcpStream::from_std(asleep).map_err(broken)?;
    }
    let arrival = Arrival {
        peer,
        local,
        listener: Arc::clone(&listener.name),
        transport: Transport::Plain,
        certificate: None,
        bad_head: None,
    };
    match (first_bytes(&stream).await?, listener.protocol, tls.clone()) {
        (First::Tls, Protocol::Auto | Protocol::Tls, Some(tls)) => handshake(stream, tls, arrival).await,
        (First::Http(version), Protocol::Auto | Protocol::Plain, _) => {
            Ok(Opened { stream: Stream::Plain(Socket::new(stream)), version, arrival })
        }
        (First::Http(_), Protocol::Tls, _) => {
            // The client gets no TLS either way, so how well it listens changes nothing.
            let _ = tokio::time::timeout(DISCARD_TIMEOUT, tell_https(stream)).await;
            Err(ConnectionEvent::WrongProtocol.into())
        }
        _ => Err(ConnectionEvent::WrongProtocol.into()),
    }
}

/// Whether connections of `peer` begin with a PROXY header.
fn is_proxy(listener: &Listener, peer: SocketAddr) -> bool {
    listener.proxy_protocol && listener.trusted_proxies.iter().any(|proxies| proxies.contains(&peer.ip()))
}

/// On a socket for both families IPv4 clients look like `::ffff:192.0.2.1`.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

enum First {
    Tls,
    Http(HttpVersion),
    Other,
}

/// What is spoken, without taking a byte of it.
async fn first_bytes(stream: &TcpStream) -> Result<First, Refused> {
    // No method of HTTP/1 begins with PRI (RFC 9113 §3.4); who speaks HTTP/2 from the start sends it in one piece.
    let mut bytes = [0; 3];
    let length = stream.peek(&mut bytes).await.map_err(broken)?;
    Ok(match bytes.get(..length) {
        Some([]) | None => return Err(ConnectionEvent::Closed.into()),
        Some([22, ..]) => First::Tls,
        Some(b"PRI") => First::Http(HttpVersion::Two),
        // RFC 9112 §2.2: empty lines before a request are passed over.
        Some([b'A'..=b'Z' | b'a'..=b'z' | b'\r' | b'\n', ..]) => First::Http(HttpVersion::One),
        Some(_) => First::Other,
    })
}

async fn handshake(stream: TcpStream, tls: Arc<rustls::ServerConfig>, mut arrival: Arrival) -> Result<Opened, Refused> {
    let failed =
        |error| Refused { event: ConnectionEvent::HandshakeFailed(HandshakeFault::of(&error)), reason: Some(error) };
    let stream = TlsAcceptor::from(tls).accept(Socket::new(stream)).await.map_err(failed)?;
    let session = stream.get_ref().1;
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    arrival.certificate = certificate.and_then(tls::certificate_name).map(Arc::from);
    arrival.transport = Transport::Tls;
    let version = match session.alpn_protocol() {
        Some(b"h2") => HttpVersion::Two,
        _ => HttpVersion::One,
    };
    Ok(Opened { stream: Stream::Tls(Box::new(stream)), version, arrival })
}

/// Answer a plain request on a TLS port in words that docker prints.
async fn tell_https(mut stream: TcpStream) -> io::Result<()> {
    let body = format!(
        r#"{{"errors":[{{"code":"{}","message":"this port speaks HTTPS only: ask for https://, and do not list this registry under insecure-registries","detail":null}}]}}"#,
        ErrorCode::Unsupported.as_str()
    );
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Docker-Distribution-Api-Version: registry/2.0\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await?;
    stream.shutdown().await?;
    // Closing with bytes unread would reset the connection, and the client would not see the answer.
    tokio::io::copy(&mut stream.take(DISCARD_BYTES_MAX), &mut tokio::io::sink()).await?;
    Ok(())
}

fn broken(error: io::Error) -> Refused {
    Refused { event: ConnectionEvent::Broken, reason: Some(error) }
}
