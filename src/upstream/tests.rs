//! An upstream's peers against small servers in this process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{mpsc, oneshot};

use crate::telemetry::Metrics;

use super::fake::{Fake, config, empty, full, nobody, read_head, text};
use super::*;

const SHORT: Duration = Duration::from_millis(60);
const MEBIBYTE: usize = 1 << 20;

/// Says its name, and what it was sent.
async fn echo(name: &'static str) -> Fake {
    Fake::start(move |request| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(full([name.as_bytes(), &body].concat()))
    })
    .await
}

async fn open(peers: &[SocketAddr]) -> Peers {
    Peers::open(&config(peers), &Metrics::new()).await.unwrap()
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(empty()).unwrap()
}

fn put(body: Body) -> Request<Body> {
    Request::put("/v1/images/a/layer").body(body).unwrap()
}

fn streamed(frames: impl futures_util::Stream<Item = Bytes> + Send + Sync + 'static) -> Body {
    BodyExt::boxed_unsync(StreamBody::new(frames.map(|bytes| Ok::<_, BoxError>(Frame::data(bytes)))))
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// What comes long before the timeouts that were not shortened.
async fn soon<T>(awaited: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), awaited).await.expect("it was waited for too long")
}

async fn body_error(answer: Response<Body>) -> BodyError {
    let error = soon(answer.into_body().collect()).await.expect_err("the body ended cleanly");
    *error.downcast::<BodyError>().unwrap()
}

#[tokio::test]
async fn peers_take_turns() {
    let (one, two) = (echo("one").await, echo("two").await);
    let peers = open(&[one.address, two.address]).await;
    let mut names = Vec::new();
    for _ in 0..4 {
        names.push(text(peers.send(get("/")).await.unwrap().into_body()).await);
    }
    names.sort();
    assert_eq!(names, ["one", "one", "two", "two"]);
}

#[tokio::test]
async fn a_dead_peer_is_passed_over_with_the_body_unharmed() {
    let alive = echo("alive ").await;
    let dead = nobody().await;
    let peers = open(&[dead, alive.address]).await;
    for _ in 0..4 {
        let answer = peers.send(put(full("layer"))).await.unwrap();
        assert_eq!(answer.extensions().get::<Arc<Peer>>().unwrap().url(), url(alive.address));
        assert_eq!(text(answer.into_body()).await, "alive layer");
    }
    assert_eq!(peers.pick().unwrap().url(), url(alive.address), "the dead one stands aside");
}

#[tokio::test]
async fn the_first_check_needs_one_failure_only() {
    let (alive, dead) = (echo("alive").await, nobody().await);
    let peers = open(&[alive.address, dead]).await;
    assert!(peers.states().iter().all(|state| state.healthy), "unchecked ones count as healthy");
    peers.check_once().await;
    let mut states = peers.states();
    states.sort_by_key(|state| !state.healthy);
    assert_eq!(states, [State { peer: url(alive.address), healthy: true }, State { peer: url(dead), healthy: false }]);
}

#[tokio::test]
async fn a_peer_turns_unhealthy_and_healthy_again() {
    let broken = Arc::new(AtomicBool::new(false));
    let fake = Fake::start({
        let broken = Arc::clone(&broken);
        move |request| {
            let broken = broken.load(Ordering::Acquire) && request.uri().path() == "/v1/_ping";
            let mut answer = Response::new(full("{}"));
            *answer.status_mut() = if broken { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
            async move { answer }
        }
    })
    .await;
    let peers = open(&[fake.address]).await;
    peers.check_once().await;

    broken.store(true, Ordering::Release);
    peers.check_once().await;
    assert!(peers.pick().is_some(), "one failure of two, and there is no other");
    peers.check_once().await;
    let error = peers.send(get("/")).await.unwrap_err();
    assert_eq!(error, SendError::NoHealthyPeer { upstream: "old".to_owned(), peers: vec![url(fake.address)] });
    assert_eq!((error.fault(), error.retry()), (Fault::Upstream, true));
    assert!(error.to_string().contains("upstreams/old.toml") && error.to_string().contains(&url(fake.address)));

    broken.store(false, Ordering::Release);
    peers.check_once().await;
    assert!(peers.pick().is_none(), "one success of two");
    peers.check_once().await;
    assert_eq!(peers.send(get("/")).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_check_that_takes_too_long_fails() {
    let hanging = Fake::raw("", true).await;
    let mut config = config(&[hanging.address]);
    config.health.as_mut().unwrap().interval = SHORT;
    let peers = Peers::open(&config, &Metrics::new()).await.unwrap();
    soon(peers.check_once()).await;
    assert!(peers.pick().is_none());
}

#[tokio::test]
async fn the_task_checks_until_it_is_stopped() {
    let (checked, mut checks) = mpsc::unbounded_channel();
    let fake = Fake::start(move |request| {
        let _ = checked.send(request.uri().path().to_owned());
        async { Response::new(empty()) }
    })
    .await;
    let mut config = config(&[fake.address]);
    config.health.as_mut().unwrap().interval = SHORT;
    let peers = Arc::new(Peers::open(&config, &Metrics::new()).await.unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(peers.run(async move { drop(stopped.await) }));
    for _ in 0..3 {
        assert_eq!(checks.recv().await.unwrap(), "/v1/_ping");
    }
    drop(stop);
    task.await.unwrap();
}

#[tokio::test]
async fn nobody_there_says_where_it_looked() {
    let dead = nobody().await;
    let error = open(&[dead]).await.send(get("/")).await.unwrap_err();
    let SendError::Unreachable { upstream, peer, .. } = &error else { panic!("{error:?}") };
    assert_eq!((upstream.as_str(), peer), ("old", &url(dead)));
    assert_eq!((error.fault(), error.retry()), (Fault::Upstream, true));
}

#[tokio::test]
async fn a_slot_is_held_until_the_answer_was_read() {
    let fake = echo("here").await;
    let mut config = config(&[fake.address]);
    config.concurrency = 1;
    config.first_byte_timeout = SHORT;
    let peers = Peers::open(&config, &Metrics::new()).await.unwrap();
    let first = peers.send(get("/")).await.unwrap();
    let busy = SendError::Busy { upstream: "old".to_owned(), concurrency: 1, waited: SHORT };
    assert_eq!(peers.send(get("/")).await.unwrap_err(), busy);
    assert_eq!(text(first.into_body()).await, "here");
    assert_eq!(text(peers.send(get("/")).await.unwrap().into_body()).await, "here");
}

#[tokio::test]
async fn a_silent_upstream_is_given_up() {
    let fake = Fake::raw("", true).await;
    let mut config = config(&[fake.address]);
    config.first_byte_timeout = SHORT;
    config.connect_timeout = SHORT;
    let peers = Peers::open(&config, &Metrics::new()).await.unwrap();
    let silent = SendError::Silent { upstream: "old".to_owned(), peer: url(fake.address), waited: SHORT };
    assert_eq!(peers.send(get("/")).await.unwrap_err(), silent);
    assert_eq!((silent.fault(), silent.retry()), (Fault::Upstream, false));
}

#[tokio::test]
async fn an_upstream_that_stops_reading_is_given_up() {
    let fake = Fake::accept(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let mut config = config(&[fake.address]);
    config.first_byte_timeout = SHORT;
    config.connect_timeout = SHORT;
    let peers = Peers::open(&config, &Metrics::new()).await.unwrap();
    let endless = streamed(stream::repeat(Bytes::from(vec![0; MEBIBYTE])));
    let silent = SendError::Silent { upstream: "old".to_owned(), peer: url(fake.address), waited: SHORT };
    assert_eq!(soon(peers.send(put(endless))).await.unwrap_err(), silent);
}

#[tokio::test]
async fn a_long_upload_does_not_use_up_the_time_for_the_answer() {
    let fake = echo("").await;
    let mut config = config(&[fake.address]);
    config.first_byte_timeout = SHORT;
    let peers = Peers::open(&config, &Metrics::new()).await.unwrap();
    let mut ticks = tokio::time::interval(SHORT / 3);
    let slow = stream::poll_fn(move |context| ticks.poll_tick(context).map(|_| Some(Bytes::from_static(b"x"))));
    let answer = peers.send(put(streamed(slow.take(9)))).await.unwrap();
    assert_eq!(text(answer.into_body()).await, "xxxxxxxxx");
}

#[tokio::test]
async fn a_caller_that_falls_silent_or_breaks_off_is_at_fault() {
    let fake = echo("").await;
    let mut config = config(&[fake.address]);
    config.idle_timeout = SHORT;
    let peers = Peers::open(&config, &Metrics::new()).await.unwrap();

    let silent = streamed(stream::once(async { Bytes::from_static(b"half") }).chain(stream::pending()));
    let error = soon(peers.send(put(silent))).await.unwrap_err();
    assert_eq!(error, SendError::Caller { reason: BodyError::CallerSilent(SHORT).to_string() });

    let frames = [Ok(Frame::data(Bytes::from_static(b"half"))), Err(BoxError::from("reset"))];
    let error = peers.send(put(BodyExt::boxed_unsync(StreamBody::new(stream::iter(frames))))).await.unwrap_err();
    assert_eq!(error, SendError::Caller { reason: BodyError::Broken("reset".to_owned()).to_string() });
    assert_eq!((error.fault(), error.retry()), (Fault::Caller, false));
}

#[tokio::test]
async fn half_an_answer_is_an_error_and_never_a_clean_end() {
    for half in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf!",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhalf!\r\n",
    ] {
        let fake = Fake::raw(half, false).await;
        let answer = open(&[fake.address]).await.send(get("/")).await.unwrap();
        assert!(matches!(body_error(answer).await, BodyError::Broken(_)), "{half}");

        let fake = Fake::raw(half, true).await;
        let mut config = config(&[fake.address]);
        config.idle_timeout = SHORT;
        let answer = Peers::open(&config, &Metrics::new()).await.unwrap().send(get("/")).await.unwrap();
        assert_eq!(body_error(answer).await, BodyError::UpstreamSilent(SHORT), "{half}");
    }
}

#[tokio::test]
async fn what_is_not_http_is_the_upstreams_fault() {
    for answer in ["", "SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 200 OK\r\nbroken"] {
        let fake = Fake::raw(answer, false).await;
        let error = open(&[fake.address]).await.send(put(full("layer"))).await.unwrap_err();
        assert!(matches!(error, SendError::Broken { .. }), "{answer}: {error:?}");
        assert_eq!((error.fault(), error.retry()), (Fault::Upstream, false));
    }
}

/// Closes a connection when its second request comes, as a server does whose keep-alive ran out at that moment.
#[tokio::test]
async fn a_connection_that_was_just_closed_costs_no_request() {
    let connections = Arc::new(AtomicUsize::new(0));
    let fake = Fake::accept({
        let connections = Arc::clone(&connections);
        move |mut stream| {
            connections.fetch_add(1, Ordering::AcqRel);
            async move {
                read_head(&mut stream).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                read_head(&mut stream).await;
            }
        }
    })
    .await;
    let peers = open(&[fake.address]).await;
    for _ in 0..4 {
        assert_eq!(text(peers.send(get("/")).await.unwrap().into_body()).await, "ok");
    }
    let before = connections.load(Ordering::Acquire);
    for _ in 0..4 {
        assert_eq!(text(peers.send(put(full(""))).await.unwrap().into_body()).await, "ok");
        assert_eq!(text(peers.send(put(full("layer"))).await.unwrap().into_body()).await, "ok");
    }
    assert!(connections.load(Ordering::Acquire) >= before + 8, "what writes takes a connection of its own");
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    const CHUNKS: u64 = 64;
    const AHEAD: u64 = 24;
    let chunks = |count: Arc<AtomicU64>| {
        let chunk = Bytes::from(vec![7; MEBIBYTE]);
        streamed(stream::iter(0..CHUNKS).map(move |_| {
            count.fetch_add(1, Ordering::AcqRel);
            chunk.clone()
        }))
    };
    let read = |mut body: Body, sent: Arc<AtomicU64>| async move {
        let mut received = 0;
        while let Some(frame) = body.frame().await {
            received += frame.unwrap().into_data().unwrap().len() as u64;
            let ahead = sent.load(Ordering::Acquire).saturating_sub(received / MEBIBYTE as u64);
            assert!(ahead <= AHEAD, "{ahead} MiB were sent and not received");
        }
        received
    };
    let (up, down) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let fake = Fake::start({
        let (up, down) = (Arc::clone(&up), Arc::clone(&down));
        move |request| {
            let (up, down) = (Arc::clone(&up), Arc::clone(&down));
            async move {
                let body = request.into_body().map_err(BoxError::from).boxed_unsync();
                assert_eq!(read(body, up).await, CHUNKS * MEBIBYTE as u64);
                Response::new(chunks(down))
            }
        }
    })
    .await;
    let peers = open(&[fake.address]).await;
    let answer = peers.send(put(chunks(up))).await.unwrap();
    assert_eq!(read(answer.into_body(), down).await, CHUNKS * MEBIBYTE as u64);
}

#[tokio::test]
async fn what_cannot_be_asked_is_told_at_the_start() {
    let found = |found| OpenError::Peers { upstream: "old".to_owned(), found };
    assert_eq!(Peers::open(&config(&[]), &Metrics::new()).await.unwrap_err(), found(0));
    let mut odd = config(&[nobody().await]);
    odd.peers[0].authority = "a b".to_owned();
    let expected = OpenError::Authority { upstream: "old".to_owned(), peer: odd.peers[0].url.clone() };
    assert_eq!(Peers::open(&odd, &Metrics::new()).await.unwrap_err(), expected);
    let mut missing = config(&[nobody().await]);
    missing.ca = Some("/nowhere/ca.pem".into());
    assert!(Peers::open(&missing, &Metrics::new()).await.unwrap_err().to_string().contains("/nowhere/ca.pem"));
}

#[tokio::test]
async fn exactly_takes_no_less_and_no_more() {
    let frames = || streamed(stream::iter([Bytes::from_static(b"abc"), Bytes::from_static(b"def")]));
    let bytes = Exactly::new(frames(), 4).collect().await.unwrap().to_bytes();
    assert_eq!(bytes, "abcd");
    let error = Exactly::new(frames(), 9).collect().await.unwrap_err().downcast::<BodyError>().unwrap();
    assert_eq!(*error, BodyError::Short { missing: 3 });
}
