//! The server from outside: real sockets, and for the deadlines a pipe and a clock that can be turned.

mod deadlines;
mod drain;
mod guard;
mod sockets;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use http_body::{Frame, SizeHint};
use http_body_util::Full;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::net::{certificates, tls};

/// Nothing wakes anybody there.
impl socket::Sleeper for &[u8] {
    fn sleep(self: Pin<&mut Self>) {}
}

impl socket::Sleeper for tokio::io::DuplexStream {
    fn sleep(self: Pin<&mut Self>) {}
}

/// Far longer than any test runs.
const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(50);

/// Limits that no test runs into unless it lowers one.
fn generous() -> Limits {
    Limits {
        tls_handshake_timeout: LONG,
        header_read_timeout: LONG,
        keep_alive_timeout: LONG,
        body_idle_timeout: LONG,
        drain_timeout: LONG,
        ..Limits::default()
    }
}

/// Answers with what it saw; to `/hold` only when the gate lets it.
#[derive(Clone)]
struct Mirror {
    gate: Arc<Semaphore>,
    begun: mpsc::UnboundedSender<()>,
    events: mpsc::UnboundedSender<ConnectionEvent>,
}

impl Handler for Mirror {
    type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, io::Error>;

    async fn handle(&self, arrival: Arrival, request: Request<Incoming>) -> Response<Self::Body> {
        use http_body_util::BodyExt as _;
        self.begun.send(()).unwrap();
        if request.uri().path() == "/hold" {
            self.gate.acquire().await.unwrap().forget();
        }
        let size = request.uri().path().strip_prefix("/bytes/").and_then(|size| size.parse().ok());
        let Arrival { peer, listener, transport, certificate, bad_head, .. } = arrival;
        if let Some(reason) = bad_head {
            return Response::new(Full::from(format!("{reason:?}")).map_err(|never| match never {}).boxed_unsync());
        }
        let text = format!("{:?} {listener} {} {transport:?} {certificate:?}", request.version(), peer.ip());
        Response::new(Parts(size.map_or(Bytes::from(text), |size| vec![b'x'; size].into())).boxed_unsync())
    }

    fn observe(&self, event: ConnectionEvent) {
        self.events.send(event).unwrap();
    }
}

/// A body that comes in parts, as those from files do.
struct Parts(Bytes);

impl Body for Parts {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let length = self.0.len().min(64 << 10);
        Poll::Ready((length > 0).then(|| Ok(Frame::data(self.0.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

/// What a [`Mirror`] tells.
struct Told {
    gate: Arc<Semaphore>,
    begun: mpsc::UnboundedReceiver<()>,
    events: mpsc::UnboundedReceiver<ConnectionEvent>,
}

fn mirror() -> (Mirror, Told) {
    let gate = Arc::new(Semaphore::new(0));
    let (begun_sender, begun) = mpsc::unbounded_channel();
    let (events_sender, events) = mpsc::unbounded_channel();
    (Mirror { gate: Arc::clone(&gate), begun: begun_sender, events: events_sender }, Told { gate, begun, events })
}

impl Told {
    /// The next request has come.
    async fn began(&mut self) {
        self.begun.recv().await.unwrap();
    }

    /// The next event that is not `Opened`.
    async fn end(&mut self) -> ConnectionEvent {
        loop {
            match self.events.recv().await.unwrap() {
                ConnectionEvent::Opened => {}
                event => return event,
            }
        }
    }
}

/// A server that runs, with all that a test may want to turn.
struct Running {
    address: SocketAddr,
    told: Told,
    limits: Arc<ArcSwap<Limits>>,
    tls: Arc<ArcSwap<ServerConfig>>,
    certs: Certs,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Drained>,
}

async fn start(listener: Listener, limits: Limits) -> Running {
    let certs = Certs::make();
    let (mirror, told) = mirror();
    let listeners = Listeners::bind(&[listener]).unwrap();
    let address = listeners.addresses().next().unwrap().1;
    let limits = Arc::new(ArcSwap::from_pointee(limits));
    let tls = Arc::new(ArcSwap::new(tls::load(&certs.settings).unwrap()));
    let (stop, stopped) = oneshot::channel();
    let served = tokio::spawn(listeners.serve(mirror, Arc::clone(&limits), Arc::clone(&tls), stopped));
    Running { address, told, limits, tls, certs, stop, served }
}

fn listener(protocol: Protocol) -> Listener {
    Listener {
        name: "main".into(),
        address: "127.0.0.1:0".parse().unwrap(),
        protocol,
        trusted_proxies: Vec::new(),
        proxy_protocol: false,
    }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn connect_tls(&self, protocols: &[&str]) -> TlsStream<TcpStream> {
        let mut config = self.certs.client();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, self.connect().await).await.unwrap()
    }
}

/// A server's certificate and who vouches for it.
struct Certs {
    settings: tls::Settings,
    authority: PathBuf,
    _directory: TempDir,
}

impl Certs {
    fn make() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let made = certificates::ensure(directory.path(), &[], &[]).unwrap();
        let settings = tls::Settings {
            certificate: made.certificate,
            key: made.key,
            min_version: tls::MinVersion::Tls12,
            client_ca: None,
            client_auth: tls::ClientAuth::Optional,
        };
        Self { settings, authority: made.authority, _directory: directory }
    }

    fn client(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.authority).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots).with_no_client_auth()
    }
}

/// Plain or TLS.
trait AsyncReadWrite: AsyncRead + AsyncWrite {}
impl<S: AsyncRead + AsyncWrite> AsyncReadWrite for S {}

/// Send a request by HTTP/1.1 and read the answer's body; the connection stays open.
async fn get(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), path: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    answer(stream).await
}

/// Read an answer with a Content-Length.
async fn answer(stream: &mut (impl AsyncRead + Unpin + ?Sized)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    String::from_utf8(body).unwrap()
}

/// All that comes until the other end closes or resets.
async fn rest(stream: &mut (impl AsyncRead + Unpin + ?Sized)) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8(bytes).unwrap()
}
