//! A v2 registry that is asked by those who are measured: it shapes what it sends, and counts.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use dockgate::oci::Digest;
use futures_util::stream;
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::Outcome;
use crate::content::{Blob, Content, MANIFEST_TYPE};
use crate::link::{Link, Shape};

/// What is handed to the line at once: half a millisecond at 1 Gbit/s.
const CHUNK: usize = 64 << 10;

/// What was sent for one digest.
#[derive(Default, Clone, Copy)]
pub struct Sent {
    pub gets: u64,
    pub bytes: u64,
}

/// What was sent.
#[derive(Default)]
pub struct Tally {
    /// Bytes of bodies: manifests and blobs.
    pub bytes: AtomicU64,
    pub blobs: Mutex<HashMap<Digest, Sent>>,
}

impl Tally {
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The most GETs that one blob had.
    pub fn gets_max(&self) -> u64 {
        self.with_blobs(|blobs| blobs.values().map(|sent| sent.gets).max().unwrap_or_default())
    }

    /// GETs of blobs and the bytes sent for them.
    pub fn blobs(&self) -> Sent {
        self.with_blobs(|blobs| {
            blobs
                .values()
                .fold(Sent::default(), |sum, sent| Sent { gets: sum.gets + sent.gets, bytes: sum.bytes + sent.bytes })
        })
    }

    fn with_blobs<T>(&self, of: impl FnOnce(&mut HashMap<Digest, Sent>) -> T) -> T {
        of(&mut self.blobs.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Served {
    content: Arc<dyn Content>,
    link: Link,
    tally: Tally,
}

pub struct Upstream {
    pub address: SocketAddr,
    served: Arc<Served>,
    accepting: JoinHandle<()>,
}

impl Upstream {
    /// Listens on a port of the system's choice; serves on `threads`, which are not those of the clients.
    pub fn start(content: Arc<dyn Content>, shape: Shape, threads: &Handle) -> Outcome<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let served = Arc::new(Served { content, link: Link::new(shape), tally: Tally::default() });
        let (shared, inner) = (Arc::clone(&served), threads.clone());
        let accepting = threads.spawn(async move {
            let Ok(listener) = TcpListener::from_std(listener) else { return };
            while let Ok((stream, _)) = listener.accept().await {
                inner.spawn(connection(stream, Arc::clone(&shared)));
            }
        });
        Ok(Self { address, served, accepting })
    }

    pub fn tally(&self) -> &Tally {
        &self.served.tally
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn connection(stream: TcpStream, served: Arc<Served>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let served = Arc::clone(&served);
        async move { Ok::<_, Infallible>(answer(&served, &request).await) }
    });
    // A client that leaves is no matter: what it took is counted.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

type Body = UnsyncBoxBody<Bytes, Infallible>;
type Answer = Response<Body>;

async fn answer(served: &Arc<Served>, request: &Request<Incoming>) -> Answer {
    served.link.delay().await;
    let path = request.uri().path();
    if path == "/v2/" || path == "/v2" {
        return short(StatusCode::OK, "{}");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return short(StatusCode::METHOD_NOT_ALLOWED, r#"{"errors":[{"code":"UNSUPPORTED"}]}"#);
    }
    let found = path.strip_prefix("/v2/").and_then(|name| find(served, name));
    let Some((blob, is_manifest)) = found else {
        return short(StatusCode::NOT_FOUND, r#"{"errors":[{"code":"NOT_FOUND"}]}"#);
    };
    let range = request.headers().get(RANGE).and_then(|range| range.to_str().ok());
    send(served, blob, is_manifest, request.method() == Method::HEAD, range)
}

/// `REPOSITORY/manifests/REFERENCE` or `REPOSITORY/blobs/DIGEST`, and whether it is a manifest.
fn find(served: &Served, name: &str) -> Option<(Blob, bool)> {
    if let Some((repository, reference)) = name.split_once("/manifests/") {
        return served.content.manifest(repository, reference).map(|manifest| (manifest, true));
    }
    let (repository, digest) = name.split_once("/blobs/")?;
    served.content.blob(repository, &digest.parse().ok()?).map(|blob| (blob, false))
}

fn send(served: &Arc<Served>, blob: Blob, is_manifest: bool, is_head: bool, range: Option<&str>) -> Answer {
    let length = blob.len();
    let (status, first, end) = match range.map(|range| closed(range, length)) {
        None => (StatusCode::OK, 0, length),
        Some(Some((first, end))) => (StatusCode::PARTIAL_CONTENT, first, end),
        Some(None) => return short(StatusCode::RANGE_NOT_SATISFIABLE, r#"{"errors":[{"code":"RANGE_INVALID"}]}"#),
    };
    let mut answer = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, if is_manifest { MANIFEST_TYPE } else { "application/octet-stream" })
        .header(CONTENT_LENGTH, end - first)
        .header(ACCEPT_RANGES, "bytes")
        .header("docker-content-digest", blob.digest.to_string())
        .header("docker-distribution-api-version", "registry/2.0");
    if status == StatusCode::PARTIAL_CONTENT {
        answer = answer.header(CONTENT_RANGE, format!("bytes {first}-{}/{length}", end - 1));
    }
    if !is_head && !is_manifest {
        served.tally.with_blobs(|blobs| blobs.entry(blob.digest).or_default().gets += 1);
    }
    let body = if is_head { Full::default().boxed_unsync() } else { stream(served, blob, is_manifest, first, end) };
    answer.body(body).unwrap_or_default()
}

fn stream(served: &Arc<Served>, blob: Blob, is_manifest: bool, first: usize, end: usize) -> Body {
    let pieces = stream::unfold((Arc::clone(served), blob, first), move |(served, blob, offset)| async move {
        let piece = blob.piece(offset, CHUNK.min(end - offset));
        if piece.is_empty() {
            return None;
        }
        served.link.pass(piece.len()).await;
        let length = piece.len() as u64;
        served.tally.bytes.fetch_add(length, Ordering::Relaxed);
        if !is_manifest {
            served.tally.with_blobs(|blobs| blobs.entry(blob.digest).or_default().bytes += length);
        }
        let next = offset + piece.len();
        Some((Ok(Frame::data(piece)), (served, blob, next)))
    });
    BodyExt::boxed_unsync(StreamBody::new(pieces))
}

/// The range as its first byte and the one behind its last; `None` if there is nothing in it.
fn closed(range: &str, length: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (first, end) = match (first, last) {
        ("", suffix) => (length.saturating_sub(suffix.parse().ok()?), length),
        (first, "") => (first.parse().ok()?, length),
        (first, last) => (first.parse().ok()?, last.parse::<usize>().ok()?.saturating_add(1).min(length)),
    };
    (first < end).then_some((first, end))
}

fn short(status: StatusCode, text: &'static str) -> Answer {
    let answer = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/json")
        .header("docker-distribution-api-version", "registry/2.0");
    answer.body(Full::new(Bytes::from_static(text.as_bytes())).boxed_unsync()).unwrap_or_default()
}
