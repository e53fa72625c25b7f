use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::DuplexStream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::*;
use crate::gateway::Transport;
use crate::server::activity::Activity;
use crate::server::connection::{self, Phase, Setting};
use crate::server::opening::HttpVersion;
use crate::server::pace::Turnstile;

/// The defaults, with a pipe of `pipe_bytes` in place of a socket. The clock runs only while all are waiting for it.
struct Piped {
    client: DuplexStream,
    told: Told,
    served: JoinHandle<ConnectionEvent>,
    phase: watch::Sender<Phase>,
    begin: Instant,
}

fn piped(version: HttpVersion, pipe_bytes: usize) -> Piped {
    let (client, server) = tokio::io::duplex(pipe_bytes);
    let (mirror, told) = mirror();
    let (phase, phases) = watch::channel(Phase::Serving);
    let arrival = Arrival {
        peer: "192.0.2.1:4711".parse().unwrap(),
        local: "192.0.2.2:5000".parse().unwrap(),
        listener: "main".into(),
        transport: Transport::Plain,
        certificate: None,
        bad_head: None,
    };
    let activity = Arc::new(Activity::start());
    let setting = Setting {
        handler: mirror,
        listener: Arc::new(listener(Protocol::Auto)),
        limits: Arc::default(),
        tls: None,
        phases,
        turnstile: Turnstile::default(),
        handshakes: Arc::default(),
    };
    let served = tokio::spawn(async move { connection::serve(server, version, arrival, &setting, activity).await });
    Piped { client, told, served, phase, begin: Instant::now() }
}

impl Piped {
    /// How the connection ended, and after how many seconds.
    async fn end(self) -> (ConnectionEvent, u64) {
        let event = self.served.await.unwrap();
        (event, self.begin.elapsed().as_secs())
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_lives_as_long_as_keep_alive_not_as_long_as_a_head() {
    let mut piped = piped(HttpVersion::One, 4096);
    for _ in 0..3 {
        get(&mut piped.client, "/").await;
        tokio::time::sleep(Duration::from_secs(50)).await;
    }
    get(&mut piped.client, "/").await;
    assert_eq!(rest(&mut piped.client).await, "");
    assert_eq!(piped.end().await, (ConnectionEvent::Idle, 150 + 60));
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_request_is_closed_when_the_first_head_is_due() {
    for version in [HttpVersion::One, HttpVersion::Two] {
        let piped = piped(version, 4096);
        assert_eq!(piped.end().await, (ConnectionEvent::HeaderTimedOut, 10), "{version:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_trickles_is_cut_off() {
    let mut piped = piped(HttpVersion::One, 4096);
    get(&mut piped.client, "/").await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    piped.client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    while piped.client.write_all(b"X: y\r\n").await.is_ok() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(piped.end().await.0, ConnectionEvent::HeaderTimedOut);
}

#[tokio::test(start_paused = true)]
async fn half_a_head_is_waited_for_from_its_first_byte() {
    let mut piped = piped(HttpVersion::One, 4096);
    get(&mut piped.client, "/").await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    piped.client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    assert_eq!(piped.end().await, (ConnectionEvent::HeaderTimedOut, 40));
}

#[tokio::test(start_paused = true)]
async fn half_a_head_that_came_during_a_request_is_waited_for_from_its_end() {
    let mut piped = piped(HttpVersion::One, 4096);
    let requests = b"GET /hold HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\n";
    piped.client.write_all(requests).await.unwrap();
    tokio::time::sleep(Duration::from_secs(100)).await;
    piped.told.gate.add_permits(1);
    answer(&mut piped.client).await;
    assert_eq!(piped.end().await, (ConnectionEvent::HeaderTimedOut, 110));
}

#[tokio::test(start_paused = true)]
async fn a_request_may_run_for_as_long_as_it_takes() {
    let mut piped = piped(HttpVersion::One, 4096);
    piped.client.write_all(b"GET /hold HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    piped.told.begun.recv().await.unwrap();
    tokio::time::sleep(Duration::from_secs(7200)).await;
    piped.told.gate.add_permits(1);
    assert_eq!(answer(&mut piped.client).await, "HTTP/1.1 main 192.0.2.1 Plain None");
    assert_eq!(piped.end().await, (ConnectionEvent::Idle, 7260));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_cut_off() {
    let mut piped = piped(HttpVersion::One, 1024);
    piped.client.write_all(b"GET /bytes/100000 HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_secs(50)).await;
    piped.client.read_exact(&mut [0; 512]).await.unwrap();
    assert_eq!(piped.end().await, (ConnectionEvent::Stalled, 110));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_little_by_little_gets_all() {
    let mut piped = piped(HttpVersion::One, 1024);
    piped.client.write_all(b"GET /bytes/20000 HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut taken = 0;
    while taken < 20_000 {
        tokio::time::sleep(Duration::from_secs(50)).await;
        taken += piped.client.read(&mut [0; 1024]).await.unwrap();
    }
    assert_eq!(get(&mut piped.client, "/").await, "HTTP/1.1 main 192.0.2.1 Plain None");
}

#[tokio::test(start_paused = true)]
async fn an_idle_http_2_connection_is_closed_however_lively_its_client() {
    let Piped { client, served, begin, told: _told, phase: _phase } = piped(HttpVersion::Two, 4096);
    let (mut requests, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .timer(hyper_util::rt::TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(client))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(9)).await;
        let request = Request::get("https://localhost/").body(Empty::<Bytes>::new()).unwrap();
        requests.ready().await.unwrap();
        let response = requests.send_request(request).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    assert_eq!(served.await.unwrap(), ConnectionEvent::Idle);
    assert_eq!(begin.elapsed().as_secs(), 18 + 60);
    connection.await.unwrap().unwrap();
    assert!(requests.is_closed());
}

#[tokio::test(start_paused = true)]
async fn an_http_2_stream_of_which_nothing_is_taken_is_reset_and_the_others_go_on() {
    let Piped { client, told: _told, phase: _phase, .. } = piped(HttpVersion::Two, 4096);
    let mut requests = http_2(client, 64 << 10).await;
    let untaken = requests.send_request(get_2("/bytes/10000000")).await.unwrap();
    let mut slow = requests.send_request(get_2("/bytes/10000000")).await.unwrap().into_body();
    let mut taken = 0;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        taken += slow.frame().await.unwrap().unwrap().into_data().unwrap().len();
        let other = requests.send_request(get_2("/")).await.unwrap();
        assert_eq!(other.into_body().collect().await.unwrap().to_bytes(), "HTTP/2.0 main 192.0.2.1 Plain None");
    }
    let error = untaken.into_body().collect().await.unwrap_err();
    assert!(format!("{error:?}").contains("CANCEL"), "{error:?}");
    assert_eq!(taken + slow.collect().await.unwrap().to_bytes().len(), 10_000_000);
}

#[tokio::test(start_paused = true)]
async fn an_http_2_client_that_has_room_for_nothing_is_left() {
    let Piped { client, served, begin, told: _told, phase: _phase } = piped(HttpVersion::Two, 4096);
    let mut requests = http_2(client, 0).await;
    let answer = requests.send_request(get_2("/bytes/10")).await.unwrap();
    let error = answer.into_body().collect().await.unwrap_err();
    assert!(format!("{error:?}").contains("CANCEL"), "{error:?}");
    assert_eq!(begin.elapsed().as_secs(), 60);
    assert_eq!(served.await.unwrap(), ConnectionEvent::Idle);
}

async fn http_2(client: DuplexStream, window: u32) -> hyper::client::conn::http2::SendRequest<Empty<Bytes>> {
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let client = builder.initial_stream_window_size(window).handshake(TokioIo::new(client)).await;
    let (requests, connection) = client.unwrap();
    tokio::spawn(connection);
    requests
}

fn get_2(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("https://localhost{path}")).body(Empty::new()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_request_that_has_begun_to_come_is_answered_before_the_end() {
    for already in ["", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        let mut piped = piped(HttpVersion::One, 4096);
        let request = format!("{already}GET / HTTP/1.1\r\n");
        piped.client.write_all(request.as_bytes()).await.unwrap();
        if !already.is_empty() {
            answer(&mut piped.client).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        piped.phase.send_replace(Phase::Draining);
        tokio::time::sleep(Duration::from_secs(1)).await;
        piped.client.write_all(b"Host: localhost\r\n\r\n").await.unwrap();
        assert_eq!(answer(&mut piped.client).await, "HTTP/1.1 main 192.0.2.1 Plain None");
        assert_eq!(rest(&mut piped.client).await, "");
        assert_eq!(piped.end().await, (ConnectionEvent::Closed, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_ignores_the_end_is_not_waited_for() {
    for beginning in ["", "GET /", "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"] {
        let mut piped = piped(HttpVersion::One, 4096);
        piped.client.write_all(beginning.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        piped.phase.send_replace(Phase::Draining);
        let (event, seconds) = piped.end().await;
        match beginning {
            "" => assert_eq!((event, seconds), (ConnectionEvent::Closed, 1)),
            "GET /" => assert_eq!((event, seconds), (ConnectionEvent::HeaderTimedOut, 10)),
            _ => assert_eq!((event, seconds), (ConnectionEvent::Closed, 10)),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_stops_sending_is_left_all_the_same() {
    let mut piped = piped(HttpVersion::One, 4096);
    piped.client.write_all(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").await.unwrap();
    answer(&mut piped.client).await;
    while piped.client.write_all(b"x").await.is_ok() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // Closed after 10 s, which the client finds out with its next byte.
    assert_eq!(piped.end().await, (ConnectionEvent::Closed, 11));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_more_than_is_thrown_away_is_left_before_its_time() {
    let mut piped = piped(HttpVersion::One, 1 << 20);
    piped.client.write_all(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n").await.unwrap();
    answer(&mut piped.client).await;
    let (part, mut sent) = (vec![b'x'; 1 << 20], 0);
    while piped.client.write_all(&part).await.is_ok() {
        sent += 1;
    }
    assert!((64..70).contains(&sent), "{sent} MiB");
    assert_eq!(piped.end().await, (ConnectionEvent::Closed, 0));
}
