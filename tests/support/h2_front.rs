//! HTTP/2 over TLS before a [`V2Upstream`](super::V2Upstream), by a server that refuses: single requests, or whole connections.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

/// It listens until it is dropped.
pub struct H2Front {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    _runtime: tokio::runtime::Runtime,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy)]
pub enum End {
    /// By a GOAWAY, before there is a request.
    AtOnce,
    /// By a GOAWAY below the request, once so many bytes of its body were taken.
    Below(usize),
    /// By a GOAWAY that leaves the request in, and no answer to it.
    Beyond,
}

#[derive(Default)]
struct State {
    /// The method of requests that are refused (RST_STREAM with REFUSED_STREAM), and how many of them.
    streams: Option<(&'static str, usize)>,
    /// How connections end, and how many of them.
    connections: Option<(End, usize)>,
    /// How many requests found no answer.
    refused: usize,
    open: Vec<AbortHandle>,
}

impl H2Front {
    /// Hands on to the server at `behind`, which speaks HTTP/1.1.
    pub fn start(behind: SocketAddr, certificate: &Path, key: &Path) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(tls(certificate, key)));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, state) = (acceptor.clone(), Arc::clone(&shared));
                let serving = tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(socket).await {
                        serve(stream, behind, state).await;
                    }
                });
                lock(&shared).open.push(serving.abort_handle());
            }
        });
        Self { address, state, _runtime: runtime }
    }

    /// The next so many requests of this method are refused.
    pub fn refuse(&self, method: &'static str, times: usize) {
        lock(&self.state).streams = Some((method, times));
    }

    /// The next so many connections end so; those that are there are closed, so that there are new ones.
    pub fn end(&self, end: End, times: usize) {
        let mut state = lock(&self.state);
        state.connections = Some((end, times));
        state.open.drain(..).for_each(|open| open.abort());
    }

    /// How many requests found no answer, since this was asked last.
    pub fn refused(&self) -> usize {
        std::mem::take(&mut lock(&self.state).refused)
    }
}

fn tls(certificate: &Path, key: &Path) -> ServerConfig {
    let certificates = CertificateDer::pem_file_iter(certificate).unwrap().map(Result::unwrap).collect();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let mut config = config.with_no_client_auth().with_single_cert(certificates, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    behind: SocketAddr,
    state: Arc<Mutex<State>>,
) {
    let end = take(&mut lock(&state).connections);
    if let Some(end) = end {
        let _ = go_away(stream, end, &state).await;
        return;
    }
    let service = service_fn(move |request: Request<Incoming>| {
        let is_refused = {
            let mut state = lock(&state);
            let is_meant = state.streams.is_some_and(|(method, _)| request.method() == method);
            let is_refused = is_meant && take(&mut state.streams).is_some();
            state.refused += usize::from(is_refused);
            is_refused
        };
        async move {
            if is_refused {
                Err(h2::Error::from(h2::Reason::REFUSED_STREAM))
            } else {
                Ok(hand_on(request, behind).await)
            }
        }
    });
    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

/// One less of what is left of it.
fn take<T: Copy>(left: &mut Option<(T, usize)>) -> Option<T> {
    let (what, times) = (*left)?;
    *left = (times > 1).then_some((what, times - 1));
    (times > 0).then_some(what)
}

async fn hand_on(request: Request<Incoming>, behind: SocketAddr) -> Response<Full<Bytes>> {
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    parts.uri = parts.uri.path_and_query().unwrap().as_str().parse().unwrap();
    parts.version = hyper::Version::HTTP_11;
    parts.headers.insert("host", behind.to_string().parse().unwrap());
    let socket = TokioIo::new(TcpStream::connect(behind).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let answer = sender.send_request(Request::from_parts(parts, Full::new(body))).await.unwrap();
    let (mut parts, body) = answer.into_parts();
    // Of one connection, which is not this one.
    parts.headers.remove("connection");
    Response::from_parts(parts, Full::new(body.collect().await.unwrap().to_bytes()))
}

/// Ends a connection, frame by frame: a server that speaks well does not know how to leave a request out.
async fn go_away(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    end: End,
    state: &Mutex<State>,
) -> std::io::Result<()> {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const WINDOW: u32 = 1 << 24;
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await?;
    // SETTINGS with a large window for each stream, and WINDOW_UPDATE for all of them.
    stream.write_all(&[&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4][..], &WINDOW.to_be_bytes()].concat()).await?;
    stream.write_all(&[&[0, 0, 4, 8, 0, 0, 0, 0, 0][..], &WINDOW.to_be_bytes()].concat()).await?;
    let (last, wanted) = match end {
        End::AtOnce => (0_u32, 0),
        End::Below(bytes) => (0, bytes),
        End::Beyond => (1, 0),
    };
    let (mut has_begun, mut taken) = (matches!(end, End::AtOnce), 0);
    while !has_begun || taken < wanted {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await?;
        has_begun |= head[3] == HEADERS;
        taken += if head[3] == DATA { payload.len() } else { 0 };
    }
    lock(state).refused += 1;
    stream.write_all(&[&[0, 0, 8, 7, 0, 0, 0, 0, 0][..], &last.to_be_bytes(), &[0; 4]].concat()).await?;
    if !matches!(end, End::Beyond) {
        // Until the client has gone: were it reset, it would not read what was said.
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    }
    stream.shutdown().await
}

/// A task that panicked had no claim on it.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
