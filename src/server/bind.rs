//! Listeners: bound, then served until told to stop.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustix::io::Errno;
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

use super::accept::{self, Shared};
use super::budget::Budget;
use super::connection::Phase;
use super::pace::Turnstile;
use super::socket::keep_little;
use super::{Handler, Limits, Listener};

/// Connections that the system holds for us until they are accepted; it has its own limit below that
/// (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;
/// How long connections that are cut off have to notice it.
const FORCE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);

/// Why an address cannot be listened on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindError {
    /// The listener, as in `[listen.NAME]`.
    pub listener: Arc<str>,
    /// The address.
    pub address: SocketAddr,
    /// Why.
    pub kind: io::ErrorKind,
    /// What the system said.
    pub reason: String,
}

impl BindError {
    /// What happened and what to do, where `key` is what set the address.
    pub fn explain(&self, key: &str) -> String {
        let Self { listener, address, kind, reason } = self;
        let advice = match kind {
            io::ErrorKind::AddrInUse => format!(
                "another program listens there; stop it (ss -ltnp 'sport = :{}' names it), or change {key}",
                address.port()
            ),
            io::ErrorKind::PermissionDenied => format!(
                "the system keeps ports below 1024 for root; take a higher one in {key}, or give the program the \
                 capability CAP_NET_BIND_SERVICE"
            ),
            io::ErrorKind::AddrNotAvailable => format!(
                "this machine has no such address; use 0.0.0.0 or [::] for all of its addresses, or one that it has, \
                 in {key}"
            ),
            _ => format!("{reason}; change {key}"),
        };
        format!("cannot listen on {address} ({listener}): {advice}")
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.explain(&format!("listen.{}.address", self.listener)))
    }
}

impl std::error::Error for BindError {}

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut off because they did not end within `limits.drain_timeout`.
    pub forced: usize,
}

/// Sockets that clients can connect to; they are answered once they are [served](Self::serve).
#[derive(Debug)]
pub struct Listeners(Vec<(Arc<Listener>, TcpListener, SocketAddr)>);

impl Listeners {
    /// Bind all of `listeners`, or none. Needs a tokio runtime around it.
    pub fn bind(listeners: &[Listener]) -> Result<Self, BindError> {
        let bind = |listener: &Listener| {
            let (socket, address) = bind(listener.address).map_err(|error| BindError {
                listener: Arc::clone(&listener.name),
                address: listener.address,
                kind: error.kind(),
                reason: error.to_string(),
            })?;
            Ok((Arc::new(listener.clone()), socket, address))
        };
        listeners.iter().map(bind).collect::<Result<_, _>>().map(Self)
    }

    /// The name and the address of each, with the port that was found for port 0.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.0.iter().map(|(listener, _, address)| (&*listener.name, *address))
    }

    /// Answer connections until `shutdown`, then take no more, close the idle ones, let running requests finish for at
    /// most `limits.drain_timeout`, and cut off the rest.
    ///
    /// `limits` and `tls` are read anew for each connection. Without `tls` only plain HTTP is spoken.
    pub async fn serve<H: Handler>(
        self,
        handler: H,
        limits: Arc<ArcSwap<Limits>>,
        tls: impl Into<Option<Arc<ArcSwap<ServerConfig>>>>,
        shutdown: impl Future,
    ) -> Drained {
        let (phase, phases) = watch::channel(Phase::Serving);
        let budget = Arc::new(Budget::default());
        let shared = Shared {
            handler,
            limits: Arc::clone(&limits),
            tls: tls.into(),
            budget: Arc::clone(&budget),
            turnstile: Turnstile::default(),
            handshakes: Arc::default(),
        };
        for (listener, socket, _) in self.0 {
            tokio::spawn(accept::accept(listener, socket, shared.clone(), phases.clone()));
        }
        drop((shared, phases));
        shutdown.await;
        phase.send_replace(Phase::Draining);
        if tokio::time::timeout(limits.load().drain_timeout, phase.closed()).await.is_ok() {
            return Drained { forced: 0 };
        }
        let forced = budget.open();
        phase.send_replace(Phase::Forced);
        let _ = tokio::time::timeout(FORCE_TIMEOUT, phase.closed()).await;
        Drained { forced }
    }
}

/// `[::]` is every address of the machine; one that does not speak IPv6 has those of IPv4.
fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    match bind_to(address) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && is_without_ipv6(&error) => {
            bind_to((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        bound => bound,
    }
}

fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

fn bind_to(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        // Whatever the system does by itself (`net.ipv6.bindv6only`).
        SockRef::from(&socket).set_only_v6(false)?;
    }
    // Connections of a former run that linger in TIME_WAIT must not keep the port.
    socket.set_reuseaddr(true)?;
    // Whoever is accepted inherits it.
    keep_little(&socket);
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_machine_without_ipv6_is_left_with_ipv4() {
        for (errno, expected) in
            [(Errno::AFNOSUPPORT, true), (Errno::ADDRNOTAVAIL, true), (Errno::ADDRINUSE, false), (Errno::ACCESS, false)]
        {
            assert_eq!(is_without_ipv6(&errno.into()), expected, "{errno}");
        }
    }

    #[tokio::test]
    async fn all_addresses_are_those_of_both_families() {
        let Ok((listener, address)) = bind("[::]:0".parse().unwrap()) else { panic!("not bound") };
        // Else this machine has no IPv6.
        if address.is_ipv6() {
            assert!(!SockRef::from(&listener).only_v6().unwrap());
        }
        tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, address.port())).await.unwrap();
        let taken = bind((Ipv4Addr::UNSPECIFIED, address.port()).into()).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }
}
