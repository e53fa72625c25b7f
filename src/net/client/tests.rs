use std::io::ErrorKind;

use http_body_util::{Empty, Full, StreamBody};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::net::{certificates, tls};

fn client(ca: Option<PathBuf>, timeout: Duration) -> Client {
    let settings = Settings {
        ca,
        connect_timeout: timeout,
        first_byte_timeout: timeout,
        idle_timeout: Duration::from_secs(60),
        idle_connections: 4,
        http2: true,
        ..Settings::default()
    };
    Client::new(&settings).unwrap()
}

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(50);

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    (listener, authority)
}

fn get(url: String) -> Request<Empty<Bytes>> {
    Request::get(url).body(Empty::new()).unwrap()
}

/// Read a request's head, then answer with `answer`.
async fn answer(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, answer: &str) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn an_answer_comes_as_it_was_sent() {
    let (listener, authority) = listen().await;
    let server = tokio::spawn(async move {
        answer(listener.accept().await.unwrap().0, "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno").await
    });
    let response = client(None, LONG).send(get(format!("http://{authority}/v1/_ping"))).await.unwrap();
    assert_eq!(response.status(), 404);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "no");
    assert_eq!(server.await.unwrap(), format!("GET /v1/_ping HTTP/1.1\r\nhost: {authority}\r\n\r\n"));
}

#[tokio::test]
async fn https_is_for_those_whom_the_given_authority_vouches_for() {
    let directory = tempfile::tempdir().unwrap();
    let made = certificates::ensure(directory.path(), &[], &[]).unwrap();
    let config = tls::load(&tls::Settings {
        certificate: made.certificate,
        key: made.key,
        min_version: tls::MinVersion::Tls12,
        client_ca: None,
        client_auth: tls::ClientAuth::Optional,
    });
    let mut config = Arc::unwrap_or_clone(config.unwrap());
    config.alpn_protocols.clear();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (listener, authority) = listen().await;
    let server = tokio::spawn(async move {
        assert!(acceptor.accept(listener.accept().await.unwrap().0).await.is_err(), "the client turns away");
        let stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
        answer(stream, "HTTP/1.1 204 No Content\r\n\r\n").await
    });
    let url = format!("https://{authority}/");
    let error = client(None, LONG).send(get(url.clone())).await.unwrap_err();
    assert!(matches!(&error, ClientError::Tls { reason } if reason.contains("UnknownIssuer")), "{error:?}");
    assert_eq!((error.fault(), error.retry()), (Fault::Server, Retry::Never));
    assert_eq!(client(Some(made.authority), LONG).send(get(url)).await.unwrap().status(), 204);
    server.await.unwrap();
}

#[tokio::test]
async fn nobody_at_the_address_is_safe_to_retry() {
    let (listener, authority) = listen().await;
    drop(listener);
    let error = client(None, LONG).send(get(format!("http://{authority}/"))).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error:?}");
    assert_eq!((error.fault(), error.retry()), (Fault::Server, Retry::Safe));
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_a_connection_that_does_not_come() {
    let (listener, authority) = listen().await;
    let error = client(None, SHORT).send(get(format!("https://{authority}/"))).await;
    assert_eq!(error.map(|_| ()), Err(ClientError::ConnectTimeout));
    drop(listener);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let (listener, authority) = listen().await;
    let error = client(None, SHORT).send(get(format!("http://{authority}/"))).await;
    assert_eq!(error.map(|_| ()), Err(ClientError::FirstByteTimeout));
    drop(listener);
}

async fn error_after(first: impl AsyncFnOnce(TcpStream) + 'static) -> ClientError {
    let (listener, authority) = listen().await;
    let local = tokio::task::LocalSet::new();
    local.spawn_local(async move { first(listener.accept().await.unwrap().0).await });
    let send = async { client(None, LONG).send(get(format!("http://{authority}/"))).await.unwrap_err() };
    local.run_until(send).await
}

#[tokio::test]
async fn a_broken_connection_and_a_broken_answer_are_told_apart() {
    let broken = error_after(async |stream| _ = answer(stream, "").await).await;
    assert!(matches!(broken, ClientError::Broken { .. }), "{broken:?}");
    assert_eq!(broken.retry(), Retry::Idempotent);
    let malformed = error_after(async |stream| _ = answer(stream, "220 smtp.example ESMTP\r\n").await).await;
    assert!(matches!(malformed, ClientError::Malformed { .. }), "{malformed:?}");
}

#[tokio::test]
async fn a_body_that_fails_is_the_callers_fault() {
    let (listener, authority) = listen().await;
    let failing = futures_util::stream::iter([
        Ok(http_body::Frame::data(Bytes::from_static(b"half"))),
        Err(std::io::Error::from(ErrorKind::UnexpectedEof)),
    ]);
    let request = Request::put(format!("http://{authority}/")).body(StreamBody::new(failing)).unwrap();
    let error = client(None, LONG).send(request).await.unwrap_err();
    assert_eq!((&error, error.fault(), error.retry()), (&ClientError::RequestBody, Fault::Caller, Retry::Never));
    drop(listener);
}

#[tokio::test]
async fn a_request_that_cannot_be_sent_is_ours() {
    for url in ["/relative", "ftp://localhost/"] {
        let request = Request::get(url).body(Full::new(Bytes::new())).unwrap();
        let error = client(None, LONG).send(request).await.unwrap_err();
        assert_eq!((error.fault(), error.retry()), (Fault::Ours, Retry::Never), "{url}: {error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_slow_is_not_held_against_the_server() {
    let progress = Arc::new(Progress::start(LONG));
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let source = futures_util::stream::once(async { receiver.await.map(http_body::Frame::data) });
    let mut body = std::pin::pin!(Watched::new(StreamBody::new(source).map_err(BoxError::from), Arc::clone(&progress)));
    assert!(futures_util::poll!(body.frame()).is_pending());
    tokio::time::advance(LONG * 10).await;
    assert!(!progress.is_overdue(SHORT));
    sender.send(Bytes::new()).unwrap();
    assert!(body.frame().await.is_some());
    tokio::time::advance(SHORT).await;
    assert!(progress.is_overdue(SHORT), "now it is the server's turn");
}
