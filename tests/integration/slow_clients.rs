//! Clients that are slow, or gone (threat B3): they are cut off, and the others notice nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::support::gate::{PATIENCE, wait_until};
use super::support::{Answer, Gate, content};

/// Everything is open to everybody.
const OPEN: &str = "[[access]]\nwho = [\"anyone\"]\nrepositories = [\"**\"]\nactions = [\"*\"]\n";
/// A pause between two bytes of a client that trickles; much shorter than the deadlines here.
const PAUSE: Duration = Duration::from_millis(20);

/// How many connections ended so.
fn closed(gate: &Gate, outcome: &str) -> u64 {
    metric(gate, &format!("dockgate_connections_closed_total{{outcome=\"{outcome}\"}}"))
}

fn metric(gate: &Gate, name: &str) -> u64 {
    let page = gate.admin().get("/metrics").expect(200).text();
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()).unwrap_or(0)
}

fn socket(gate: &Gate) -> TcpStream {
    let socket = TcpStream::connect(gate.main).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Reads until the gateway closes; what it said.
fn rest(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => bytes,
        Err(error) => panic!("the gateway does not close the connection: {error}"),
    }
}

/// Sends `bytes` again and again, with a pause after each time, until the gateway closes.
fn trickle(mut socket: TcpStream, bytes: &[u8]) {
    socket.set_read_timeout(Some(PAUSE)).unwrap();
    wait_until("the gateway to close the connection", || {
        let is_open = socket.write_all(bytes).is_ok();
        // The pause is the time in which the gateway's end would be read.
        !is_open || !matches!(socket.read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    });
}

#[test]
fn a_client_that_sends_no_head_is_cut_off() {
    let gate = Gate::start("[limits]\nheader_read_timeout = \"300ms\"\n");
    for beginning in [&b"GET /v2/ HT"[..], b"GET /v2/ HTTP/1.1\r\nHost: a\r\n", b"\r\n"] {
        for client in [gate.plain(), gate.tls()] {
            let mut stream = client.connect();
            stream.write_all(beginning).and_then(|()| stream.flush()).unwrap();
            let mut said = Vec::new();
            // An end without a word is an error of rustls.
            let _ = stream.read_to_end(&mut said);
            assert_eq!(said, b"", "{beginning:?}");
        }
    }
    let slow = socket(&gate);
    (&slow).write_all(b"GET /v2/ HTTP/1.1\r\n").unwrap();
    trickle(slow, b"X: y\r\n");
    wait_until("all to be counted", || closed(&gate, "header_timed_out") == 7);
}

#[test]
fn a_handshake_that_does_not_end_is_cut_off() {
    let gate = Gate::start("[limits]\ntls_handshake_timeout = \"300ms\"\n");
    for beginning in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01"] {
        let mut socket = socket(&gate);
        socket.write_all(beginning).unwrap();
        assert_eq!(rest(&mut socket), b"");
    }
    let slow = socket(&gate);
    (&slow).write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").unwrap();
    trickle(slow, b"x");
    wait_until("all to be counted", || closed(&gate, "handshake_timed_out") == 4);
    gate.tls().get("/v2/").expect(401);
}

#[test]
fn many_slow_clients_keep_nobody_else_out() {
    const SLOW: usize = 200;
    let gate = Gate::start(&format!("{OPEN}[limits]\nheader_read_timeout = \"2s\"\n"));
    let digest = content::push_blob(&gate.tls(), "app", b"a blob");
    let slow: Vec<TcpStream> = (0..SLOW).map(|_| socket(&gate)).collect();
    for mut socket in &slow {
        socket.write_all(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n").unwrap();
    }
    for _ in 0..50 {
        assert_eq!(gate.tls().get(&format!("/v2/app/blobs/{digest}")).expect(200).body, b"a blob");
    }
    for mut socket in slow {
        assert_eq!(rest(&mut socket), b"");
    }
    wait_until("all to be counted", || closed(&gate, "header_timed_out") == SLOW as u64);
}

/// More than the kernel and the gateway hold of an answer that is not read.
fn large() -> Vec<u8> {
    vec![b'x'; 24 << 20]
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let gate = Gate::start(&format!("{OPEN}[limits]\nbody_idle_timeout = \"300ms\"\n"));
    let large = large();
    let digest = content::push_blob(&gate.tls(), "app", &large);
    let request = format!("GET /v2/app/blobs/{digest} HTTP/1.1\r\nHost: a\r\n\r\n");
    for (client, count) in [(gate.plain(), 1), (gate.tls(), 2)] {
        let mut stream = client.connect();
        stream.write_all(request.as_bytes()).and_then(|()| stream.flush()).unwrap();
        wait_until("it to be cut off", || closed(&gate, "stalled") == count);
        let mut part = Vec::new();
        let _ = stream.read_to_end(&mut part);
        assert!(part.len() < large.len(), "{} bytes came", part.len());
    }
    gate.wait_for_log("complete=false");
    assert_eq!(gate.tls().get(&format!("/v2/app/blobs/{digest}")).expect(200).body, large);
}

#[test]
fn a_client_that_leaves_is_not_served_any_longer() {
    let gate = Gate::start(OPEN);
    let digest = content::push_blob(&gate.tls(), "app", &large());
    let location = content::begin(&gate.tls(), "app");
    let get = format!("GET /v2/app/blobs/{digest} HTTP/1.1\r\nHost: a\r\n\r\n");
    let patch = format!("PATCH {location} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n");
    let open = || metric(&gate, "dockgate_connections");
    for client in [gate.plain(), gate.tls()] {
        for request in [&get, &patch] {
            wait_until("all connections to be gone", || open() == 0);
            let mut stream = client.connect();
            stream.write_all(request.as_bytes()).and_then(|()| stream.flush()).unwrap();
            // The first part of the answer, or that the body is awaited.
            let expected: &[u8] = if request == &get { b"HTTP/1.1 200 OK\r\n" } else { b"HTTP/1.1 100 Continue\r\n" };
            let mut said = vec![0; expected.len()];
            stream.read_exact(&mut said).unwrap();
            assert_eq!(said, expected);
            drop(stream);
        }
    }
    wait_until("all connections to be gone", || open() == 0);
    gate.tls().send("PATCH", &location, &[], b"").expect(202);
}

#[test]
fn an_early_refusal_reaches_a_client_that_is_still_sending() {
    let gate = Gate::start("");
    let body = vec![b'x'; 1 << 20];
    let chunked = [format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    let upload = format!("/v2/app/blobs/uploads/{}?digest={}", "0".repeat(32), content::digest(&body));
    for path in [&*upload, "/v2/app/manifests/x"] {
        for (length, body) in
            [(format!("Content-Length: {}", body.len()), &body), ("Transfer-Encoding: chunked".into(), &chunked)]
        {
            for client in [gate.plain(), gate.tls()] {
                for _ in 0..5 {
                    let mut stream = client.connect();
                    let head = format!("PUT {path} HTTP/1.1\r\nHost: a\r\n{length}\r\n\r\n");
                    stream.write_all(head.as_bytes()).and_then(|()| stream.flush()).unwrap();
                    // The answer is there before the body is.
                    stream.write_all(body).and_then(|()| stream.flush()).unwrap();
                    let answer = Answer::next(&mut *stream, "PUT").unwrap();
                    assert_eq!(answer.status, 401, "{}", answer.text());
                    assert_eq!(answer.code(), "UNAUTHORIZED");
                    assert!(Answer::next(&mut *stream, "PUT").is_none());
                }
            }
        }
    }
}

#[test]
fn a_body_that_stops_is_cut_off() {
    let gate = Gate::start(&format!("{OPEN}[limits]\nbody_idle_timeout = \"300ms\"\n"));
    let location = content::begin(&gate.tls(), "app");
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc");
    let answer = gate.tls().raw(head.as_bytes(), "PATCH").expect(408);
    assert_eq!(answer.code(), "BLOB_UPLOAD_INVALID");
    // What arrived before the silence is there, to go on from.
    assert_eq!(gate.tls().get(&location).expect(204).header("range"), Some("0-2"));
}
