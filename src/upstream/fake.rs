//! Small upstreams in this process, for tests.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::Body;
use crate::config::{Health, Legacy, Peer, Transport};

/// An upstream that is there until this is dropped.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    _connections: JoinSet<()>,
}

impl Fake {
    /// Answers each request by `handler`.
    pub(crate) async fn start<F, A>(handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
        A: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::accept(move |stream| {
            let handler = handler.clone();
            let service = service_fn(move |request| {
                let answer = handler(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            async move {
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            }
        })
        .await
    }

    /// Lets `handler` do as it likes with each connection.
    pub(crate) async fn accept<F, A>(handler: F) -> Self
    where
        F: Fn(TcpStream) -> A + Send + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                open.spawn(handler(stream));
            }
        });
        Self { address, _connections: connections }
    }

    /// Reads a request's head, writes `answer` and, if it should `hang`, keeps the connection open and silent.
    pub(crate) async fn raw(answer: impl Into<Bytes>, hang: bool) -> Self {
        let answer = answer.into();
        Self::accept(move |mut stream| {
            let answer = answer.clone();
            async move {
                read_head(&mut stream).await;
                let _ = stream.write_all(&answer).await;
                if hang {
                    std::future::pending::<()>().await;
                }
            }
        })
        .await
    }
}

/// Reads up to the empty line; false when the connection ended before.
pub(crate) async fn read_head(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return false,
        }
    }
    true
}

/// An address where nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// An upstream called `old`, with timeouts that no test should meet unless it shortens them.
pub(crate) fn config(peers: &[SocketAddr]) -> Transport {
    let health = Health {
        path: "/v1/_ping".to_owned(),
        interval: Duration::from_secs(30),
        failures: 2,
        successes: 2,
        accepts_refusal: false,
    };
    let peer = |address: &SocketAddr| Peer {
        url: format!("http://{address}"),
        https: false,
        authority: address.to_string(),
        path: String::new(),
    };
    Transport {
        name: "old".to_owned(),
        peers: peers.iter().map(peer).collect(),
        health: Some(health),
        ca: None,
        client_certificate: None,
        http2: false,
        proxy: false,
        connect_timeout: Duration::from_secs(30),
        first_byte_timeout: Duration::from_secs(30),
        idle_timeout: Duration::from_secs(30),
        rate_bytes: 0,
        rate_window: Duration::from_secs(30),
        retries: 1,
        concurrency: 64,
        bytes_per_second: 0,
    }
}

/// A v1 upstream of that kind.
pub(crate) fn legacy(peers: &[SocketAddr]) -> Legacy {
    Legacy {
        transport: config(peers),
        clients: crate::docker::LegacyClients::default(),
        standalone: true,
        forward_basic: false,
        credentials: None,
    }
}

pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(crate) async fn text(body: Body) -> String {
    String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
}
