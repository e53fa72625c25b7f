//! A client that pulls as containers/image and containerd do: a ping, the manifest, then three blobs at a time over
//! connections that are kept, and again from where it broke.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::header::{ACCEPT, HOST, RANGE, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::content::{Blob, Image, MANIFEST_TYPE};

const BLOBS_AT_ONCE: usize = 3;
/// How often a request is made, and how long a client waits before it makes the next one: as containerd and podman do.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// Why a pull failed.
#[derive(Debug)]
pub enum Fault {
    /// Not what was asked for: never tried again.
    Wrong(String),
    /// Refused or broken off: tried again.
    Broken(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(what) => write!(f, "wrong content: {what}"),
            Self::Broken(what) => write!(f, "given up: {what}"),
        }
    }
}

/// What all runners saw.
#[derive(Default)]
pub struct Seen {
    /// From the request for a blob to the first byte of its body; `MAX` where none came before the end.
    pub first_bytes: Mutex<Vec<Duration>>,
    pub retries: AtomicU64,
}

impl Seen {
    pub fn take_first_bytes(&self) -> Vec<Duration> {
        std::mem::take(&mut self.first_bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Notes when the first byte came, also when the runner is stopped before.
struct FirstByte<'a> {
    seen: &'a Seen,
    began: Instant,
    took: Option<Duration>,
}

impl Drop for FirstByte<'_> {
    fn drop(&mut self) {
        let took = self.took.unwrap_or(Duration::MAX);
        self.seen.first_bytes.lock().unwrap_or_else(PoisonError::into_inner).push(took);
    }
}

pub struct Runner<'a> {
    client: Client<HttpConnector, Full<Bytes>>,
    /// `http://ADDRESS`
    pub(super) server: String,
    seen: &'a Seen,
}

impl<'a> Runner<'a> {
    pub fn new(server: &str, seen: &'a Seen) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Self { client, server: server.into(), seen }
    }

    /// Pulls all of the image and compares every byte with the original.
    pub async fn pull(&self, repository: &str, image: &Image) -> Result<(), Fault> {
        self.whole(Method::GET, "/v2/", None).await?;
        let tag = format!("/v2/{repository}/manifests/{}", image.tag);
        self.whole(Method::HEAD, &tag, None).await?;
        let by_digest = format!("/v2/{repository}/manifests/{}", image.manifest.digest);
        self.whole(Method::GET, &by_digest, Some(&image.manifest)).await?;
        let blobs = stream::iter(&image.blobs).map(|blob| self.blob(repository, blob));
        blobs.buffer_unordered(BLOBS_AT_ONCE).try_collect().await
    }

    /// A ping or a manifest.
    pub async fn whole(&self, method: Method, path: &str, expected: Option<&Blob>) -> Result<(), Fault> {
        let mut attempt = 1;
        loop {
            match self.once(&method, path, expected).await {
                Err(Fault::Broken(what)) => self.pause(&mut attempt, what).await?,
                done => return done,
            }
        }
    }

    async fn once(&self, method: &Method, path: &str, expected: Option<&Blob>) -> Result<(), Fault> {
        let answer = self.ask(method, path, 0).await?;
        if answer.status() != StatusCode::OK {
            return Err(Fault::Broken(format!("{method} {path}: {}", answer.status())));
        }
        let body = answer.into_body().collect().await.map_err(|error| broken(path, &error))?.to_bytes();
        match expected {
            Some(expected) if expected.len() != body.len() || !expected.matches(0, &body) => {
                Err(Fault::Wrong(path.into()))
            }
            _ => Ok(()),
        }
    }

    pub async fn blob(&self, repository: &str, blob: &Blob) -> Result<(), Fault> {
        let path = format!("/v2/{repository}/blobs/{}", blob.digest);
        let mut first_byte = FirstByte { seen: self.seen, began: Instant::now(), took: None };
        let (mut offset, mut attempt) = (0, 1);
        while offset < blob.len() {
            match self.rest(&path, blob, &mut offset, &mut first_byte).await {
                Err(Fault::Broken(what)) => self.pause(&mut attempt, what).await?,
                done => done?,
            }
        }
        Ok(())
    }

    /// What is missing from `offset`, which moves on as bytes come.
    async fn rest(
        &self,
        path: &str,
        blob: &Blob,
        offset: &mut usize,
        first_byte: &mut FirstByte<'_>,
    ) -> Result<(), Fault> {
        let answer = self.ask(&Method::GET, path, *offset).await?;
        match answer.status() {
            StatusCode::OK => *offset = 0,
            StatusCode::PARTIAL_CONTENT if *offset > 0 => {}
            status => return Err(Fault::Broken(format!("GET {path}: {status}"))),
        }
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            let Ok(bytes) = frame.map_err(|error| broken(path, &error))?.into_data() else { continue };
            first_byte.took.get_or_insert_with(|| first_byte.began.elapsed());
            if !blob.matches(*offset, &bytes) {
                return Err(Fault::Wrong(format!("{path} at {offset}")));
            }
            *offset += bytes.len();
        }
        if *offset < blob.len() {
            return Err(Fault::Broken(format!("{path} ends at {offset}")));
        }
        Ok(())
    }

    async fn ask(&self, method: &Method, path: &str, offset: usize) -> Result<Response<Incoming>, Fault> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.server))
            .header(HOST, self.server.trim_start_matches("http://"))
            .header(USER_AGENT, "containerd/2.0.0")
            .header(ACCEPT, format!("{MANIFEST_TYPE}, */*"));
        if offset > 0 {
            request = request.header(RANGE, format!("bytes={offset}-"));
        }
        self.send(request.body(Full::default()), path).await
    }

    pub(super) async fn send(
        &self,
        request: http::Result<Request<Full<Bytes>>>,
        path: &str,
    ) -> Result<Response<Incoming>, Fault> {
        let request = request.map_err(|error| Fault::Wrong(error.to_string()))?;
        self.client.request(request).await.map_err(|error| broken(path, &error))
    }

    async fn pause(&self, attempt: &mut u32, what: String) -> Result<(), Fault> {
        self.seen.retries.fetch_add(1, Ordering::Relaxed);
        if *attempt == ATTEMPTS {
            return Err(Fault::Broken(what));
        }
        *attempt += 1;
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }
}

/// With its causes, which say more than itself.
pub(super) fn broken(path: &str, error: &dyn std::error::Error) -> Fault {
    let mut text = format!("{path}: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    Fault::Broken(text)
}
