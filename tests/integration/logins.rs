//! Logins beside those who guess (threats A9 and A10): the good ones get in, and the others learn nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;

use super::support::Gate;

/// How many wrong logins come in a second.
const RATE: u32 = 100;

/// How long they come.
const SIEGE: Duration = Duration::from_secs(2);

/// One good login comes with so many wrong ones.
const GOOD_EVERY: u32 = 20;

/// The costs of bcrypt of the first and of all other users.
const COSTS: [u32; 2] = [5, 9];

/// `user0` and as many others as are needed, all with the password "good".
fn house(limits: &str) -> Gate {
    let hashes = COSTS.map(|cost| bcrypt::hash("good", cost).unwrap());
    let line = |user: usize| format!("user{user}:{}\n", hashes[user.min(1)]);
    let prepared = Gate::prepare(&format!("[limits]\n{limits}"));
    prepared.write("htpasswd", &(0..100).map(line).collect::<String>());
    prepared.start()
}

/// Asks for `/v2/` from one of the addresses of this machine: the status, and how long that took.
async fn log_in(gate: SocketAddr, from: [u8; 4], user: String, password: &str) -> (u16, Duration) {
    let began = Instant::now();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::from(from), 0).into()).unwrap();
    let mut stream = socket.connect(gate).await.unwrap();
    let credentials = STANDARD.encode(format!("{user}:{password}"));
    let port = gate.port();
    let head = format!(
        "GET /v2/ HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\nAuthorization: Basic {credentials}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    (answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap(), began.elapsed())
}

/// The good logins, and the wrong ones, which go on.
async fn siege(gate: SocketAddr, addresses: u32) -> [Vec<JoinHandle<(u16, Duration)>>; 2] {
    let (mut good, mut wrong) = (Vec::new(), Vec::new());
    let mut clock = tokio::time::interval(Duration::from_secs(1) / RATE);
    for attempt in 0..RATE * u32::try_from(SIEGE.as_secs()).unwrap() {
        clock.tick().await;
        let from = [127, 1, 0, u8::try_from(attempt % addresses).unwrap()];
        // Ever-new names, and some that are users'.
        let name = if attempt % 10 == 9 { format!("user{}", attempt % 100) } else { format!("new{attempt}") };
        wrong.push(tokio::spawn(log_in(gate, from, name, "wrong")));
        if attempt % GOOD_EVERY == 0 {
            let from = [127, 2, 0, u8::try_from(attempt / GOOD_EVERY % 5).unwrap()];
            good.push(tokio::spawn(log_in(gate, from, format!("user{}", 1 + attempt / GOOD_EVERY), "good")));
        }
    }
    [good, wrong]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn good_logins_get_in_beside_a_hundred_wrong_ones_a_second() {
    for addresses in [1, 250] {
        // Those who wait are sent away sooner, so that the test is.
        let gate = house("bcrypt_wait_timeout = \"2s\"");
        let [good, wrong] = siege(gate.main, addresses).await;
        for login in good {
            let (status, took) = login.await.unwrap();
            assert_eq!(status, 200, "after {took:?}, beside wrong logins from {addresses} addresses");
        }
        let mut statuses = Vec::new();
        for login in wrong {
            statuses.push(login.await.unwrap().0);
        }
        assert!(statuses.contains(&401) && statuses.iter().all(|status| [401, 503].contains(status)), "{statuses:?}");
    }
}

#[tokio::test]
async fn a_failure_takes_as_long_for_a_cheap_hash_as_for_a_costly_one_and_for_none() {
    let gate = house("login_failures = 1000");
    let mut ratios = [const { Vec::new() }; 2];
    let wrong = async |name: &str| {
        let (status, took) = log_in(gate.main, [127, 0, 0, 1], name.into(), "wrong").await;
        assert_eq!(status, 401);
        took.as_secs_f64()
    };
    for _ in 0..30 {
        // One after the other, for how long a hash takes here changes with all else that runs.
        let nobody = wrong("nobody").await;
        for (name, ratios) in ["user0", "user1"].into_iter().zip(&mut ratios) {
            ratios.push(wrong(name).await / nobody);
        }
    }
    // Without waiting the cheap one would be at a sixteenth. That it is three percent is for an idle machine to show.
    for mut ratios in ratios {
        ratios.sort_unstable_by(f64::total_cmp);
        let median = ratios[ratios.len() / 2];
        assert!((0.8..1.25).contains(&median), "{ratios:?}");
    }
}
