//! The v1 client of the tests and the real docker-registry 0.9.1: straight, and with our v1 side between them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::support::v1_client::{AGENT, Image, PING_AGENT, V1Client, nothing};
use super::support::v1_registry::V1Registry;
use bytes::Bytes;
use dockgate::config;
use dockgate::registry::Legacy;
use dockgate::telemetry::Metrics;
use dockgate::upstream::{Body, Forwarded};
use http::header::HeaderValue;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

fn images(seed: &str) -> Vec<Image> {
    let noise = |length: usize| -> Bytes { (0..length).map(|i| ((i * i) >> 7) as u8).collect::<Vec<_>>().into() };
    let base = Image::new(&format!("{seed} base"), None, noise(300_000));
    let top = Image::new(&format!("{seed} top"), Some(&base), noise(1_000));
    vec![base, top]
}

/// Who may pass, as a gateway in front of a v1 registry would have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guard {
    Nobody,
    /// Over TLS: the password on every call.
    Basic,
    /// Over plain HTTP: the password on index calls, and on all others the token that those gave.
    Token,
}

const BASIC: &str = "Basic ZGV2OnMzY3JldA==";

/// An HTTP server in this process that hands everything to a [`Legacy`], as the gateway will. Returns its `host:port`.
async fn front(registry: &V1Registry, guard: Guard, tls: Option<TlsAcceptor>) -> String {
    let address = registry.address().to_string();
    let legacy = Arc::new(Legacy::open(&upstream(&address), &Metrics::new()).await.expect("an upstream"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let host = listener.local_addr().expect("an address").to_string();
    tokio::spawn({
        let host = host.clone();
        async move {
            while let Ok((stream, client)) = listener.accept().await {
                let (legacy, host, tls) = (Arc::clone(&legacy), host.clone(), tls.clone());
                let forwarded = Forwarded { client: client.ip(), host, https: tls.is_some() };
                let service = service_fn(move |request| answer(Arc::clone(&legacy), guard, forwarded.clone(), request));
                let http = hyper::server::conn::http1::Builder::new();
                tokio::spawn(async move {
                    let _ = match tls {
                        None => http.serve_connection(TokioIo::new(stream), service).await,
                        Some(tls) => {
                            let stream = tls.accept(stream).await.expect("a TLS handshake");
                            http.serve_connection(TokioIo::new(stream), service).await
                        }
                    };
                });
            }
        }
    });
    host
}

async fn answer(
    legacy: Arc<Legacy>,
    guard: Guard,
    forwarded: Forwarded,
    request: Request<Incoming>,
) -> Result<Response<Body>, http::Error> {
    let path = request.uri().path();
    let said = request.headers().get(header::AUTHORIZATION).map_or("", |value| value.to_str().expect("a text"));
    let index = path.ends_with("/images") || (path.starts_with("/v1/repositories/") && path.ends_with('/'));
    let passes = match guard {
        Guard::Nobody => true,
        Guard::Basic => said == BASIC,
        Guard::Token if index => said == BASIC,
        Guard::Token => said.starts_with("Token Token signature="),
    };
    let open = matches!(path, "/v2/" | "/v1/_ping");
    if !passes && !open {
        return Response::builder().status(StatusCode::UNAUTHORIZED).body(text("who are you?"));
    }
    let ping = path == "/v1/_ping";
    let mut answer = legacy.forward(request.map(incoming), forwarded).await.or_else(refused)?;
    if guard == Guard::Token && ping {
        answer.headers_mut().insert("x-docker-registry-standalone", HeaderValue::from_static("false"));
    }
    Ok(answer)
}

/// A server's TLS with a certificate for 127.0.0.1, and the file of the authority to trust.
fn tls(directory: &Path) -> (TlsAcceptor, PathBuf) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let ca = directory.join("ca.pem");
    std::fs::write(&ca, made.cert.pem()).expect("the authority's file");
    let key = made.signing_key.serialize_der().try_into().expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a certificate with its key");
    (TlsAcceptor::from(Arc::new(config)), ca)
}

fn text(text: &str) -> Body {
    Full::new(Bytes::from(text.to_owned())).map_err(|never| match never {}).boxed_unsync()
}

fn incoming(body: Incoming) -> Body {
    body.map_err(Into::into).boxed_unsync()
}

fn refused(error: dockgate::registry::LegacyError) -> Result<Response<Body>, http::Error> {
    Response::builder().status(StatusCode::BAD_GATEWAY).body(text(&error.to_string()))
}

fn upstream(authority: &str) -> config::Legacy {
    const PATIENCE: Duration = Duration::from_secs(30);
    let health = config::Health {
        path: "/v1/_ping".to_owned(),
        interval: PATIENCE,
        failures: 3,
        successes: 1,
        accepts_refusal: false,
    };
    let transport = config::Transport {
        name: "legacy-v1".to_owned(),
        peers: vec![config::Peer { url: format!("http://{authority}"), https: false, authority: authority.to_owned() }],
        health: Some(health),
        ca: None,
        client_certificate: None,
        http2: false,
        proxy: false,
        connect_timeout: PATIENCE,
        first_byte_timeout: PATIENCE,
        idle_timeout: PATIENCE,
        rate_bytes: 0,
        rate_window: PATIENCE,
        retries: 1,
        concurrency: 16,
        bytes_per_second: 0,
    };
    config::Legacy { transport, clients: "docker < 1.6".to_owned(), forward_basic: false, credentials: None }
}

/// Everything that docker 1.5 does, at `host`.
async fn walk(host: &str, seed: &str) {
    let mut client = V1Client::plain(host);
    push_and_pull(&mut client, seed).await;
    assert_eq!(client.login("somebody", "secret").await, StatusCode::CREATED);
    assert_eq!(client.search("app").await["results"][0]["name"], "team/app");

    // A tag remembers the User-Agent that set it, so that has to arrive.
    let tag = client.call(Method::GET, "/v1/repositories/team/app/json", AGENT, &[], nothing()).await;
    let tag: serde_json::Value = serde_json::from_slice(&tag.body).expect("tag JSON");
    assert_eq!((&tag["docker_version"], &tag["docker_go_version"]), (&"1.5.0".into(), &"go1.4.1".into()));
    assert_eq!((&tag["arch"], &tag["kernel"]), (&"amd64".into(), &"3.16.0".into()));

    let moved = client.call(Method::GET, "/v1/users", PING_AGENT, &[], nothing()).await;
    assert_eq!((moved.status.as_u16(), moved.header("location")), (301, &*format!("http://{host}/v1/users/")));
}

async fn push_and_pull(client: &mut V1Client, seed: &str) {
    let images = images(seed);
    client.push("team/app", "1.0", &images).await;
    let mut expected = images.clone();
    expected.reverse();
    assert_eq!(client.pull("team/app", "1.0").await, expected);
    // A second push finds its images there and sends no layer again.
    let before = client.seen().len();
    client.push("team/app", "latest", &images).await;
    assert!(client.seen()[before..].iter().all(|seen| !seen.path.ends_with("/layer")), "a layer was sent twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn straight_to_the_registry() {
    let registry = V1Registry::start();
    let host = registry.address().to_string();
    walk(&host, "straight").await;

    // The oddities that our side has to mend, so that this test says when they are gone.
    let images = images("straight");
    let mut client = V1Client::plain(&host);
    let layer = &images[0].layer;
    assert_eq!(client.resume(&images[0].id, 1_000, layer.len()).await, layer.slice(1_000..));
    let [part, rest] = client.seen() else { panic!("{:?}", client.seen()) };
    assert_eq!(part.header("content-range"), format!("1000-{0}/{0}", layer.len()));
    assert_eq!(part.header("content-length"), (layer.len() - 1_000 + 1).to_string());
    assert!(part.broken.is_some(), "one byte more was announced than there is");
    assert_eq!((rest.status, rest.header("content-length")), (StatusCode::RANGE_NOT_SATISFIABLE, "0"));
    let put = client.call(Method::PUT, "/v1/users/somebody/", AGENT, &json(), nothing()).await;
    assert_eq!((put.status, put.header("content-length")), (StatusCode::NO_CONTENT, "2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn through_our_side() {
    let registry = V1Registry::start();
    let host = front(&registry, Guard::Nobody, None).await;
    walk(&host, "through").await;

    let images = images("through");
    let mut client = V1Client::plain(&host);
    let layer = &images[0].layer;
    assert_eq!(client.resume(&images[0].id, 1_000, layer.len()).await, layer.slice(1_000..));
    let [part] = client.seen() else { panic!("{:?}", client.seen()) };
    assert_eq!(part.header("content-length"), (layer.len() - 1_000).to_string(), "the range ends where the layer does");
    assert_eq!(part.broken, None);
    assert_eq!(client.resume(&images[0].id, layer.len(), layer.len()).await, "", "at the end only 416 counts as done");
    let put = client.call(Method::PUT, "/v1/users/somebody/", AGENT, &json(), nothing()).await;
    assert_eq!((put.status, put.headers.get(header::CONTENT_LENGTH)), (StatusCode::NO_CONTENT, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_with_a_password() {
    let registry = V1Registry::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (acceptor, ca) = tls(directory.path());
    let host = front(&registry, Guard::Basic, Some(acceptor)).await;
    let mut client = V1Client::tls(&host, &ca).with_basic("dev", "s3cret");
    push_and_pull(&mut client, "tls").await;
    assert_eq!(client.search("app").await["results"][0]["name"], "team/app");
    let moved =
        client.call(Method::GET, "/v1/users", AGENT, &[(header::AUTHORIZATION, BASIC.to_owned())], nothing()).await;
    assert_eq!((moved.status.as_u16(), moved.header("location")), (301, &*format!("https://{host}/v1/users/")));
}

#[tokio::test(flavor = "multi_thread")]
async fn over_plain_http_with_the_token_of_the_index() {
    let registry = V1Registry::start();
    let host = front(&registry, Guard::Token, None).await;
    push_and_pull(&mut V1Client::plain(&host).with_basic("dev", "s3cret"), "token").await;
}

fn json() -> [(header::HeaderName, String); 1] {
    [(header::CONTENT_TYPE, "application/json".to_owned())]
}
