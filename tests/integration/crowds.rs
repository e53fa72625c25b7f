//! Crowds that take nothing, send nothing, or send what nobody needs: they cost next to nothing, and the others are served.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::support::gate::{PATIENCE, wait_until};
use super::support::{Gate, content};

/// Everything is open to everybody, and nothing of 64 KiB and more is kept in memory.
const OPEN: &str = "[[access]]\nwho = [\"anyone\"]\nrepositories = [\"**\"]\nactions = [\"*\"]\n\
                    [cache]\nmemory_object_max = \"64KiB\"\n";

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// END_STREAM and END_HEADERS.
const WHOLE: u8 = 5;
const INITIAL_WINDOW_SIZE: u8 = 4;
const ENHANCE_YOUR_CALM: u8 = 11;
const PROTOCOL_ERROR: u8 = 1;

/// RFC 9113, section 4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [.., a, b, c] = payload.len().to_be_bytes();
    [&[a, b, c, kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

/// GET of `path`, as HPACK writes what it does not index (RFC 7541).
fn get(stream: u32, path: &str) -> Vec<u8> {
    let length = u8::try_from(path.len()).expect("a short path");
    let host = b"localhost";
    let block = [&[0x82, 0x86, 0x04, length][..], path.as_bytes(), &[0x01, host.len() as u8], host].concat();
    frame(HEADERS, WHOLE, stream, &block)
}

fn http2(gate: &Gate, window: u32) -> TcpStream {
    let mut socket = TcpStream::connect(gate.main).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let settings = [&[0, INITIAL_WINDOW_SIZE][..], &window.to_be_bytes()].concat();
    socket.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &settings)].concat()).unwrap();
    socket
}

/// The memory of the gateway that is in use, in KiB.
fn resident(gate: &Gate) -> u64 {
    memory(gate, "VmRSS:")
}

/// What the system says of the memory of the gateway under that name (proc_pid_status(5)), in KiB.
fn memory(gate: &Gate, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gate.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

#[test]
fn streams_whose_windows_stay_closed_hold_next_to_nothing() {
    let gate = Gate::start(OPEN);
    let blob: Vec<u8> = (0..4_u32 << 20).map(|at| (at % 251) as u8).collect();
    let path = format!("/v2/app/blobs/{}", content::push_blob(&gate.plain(), "app", &blob));
    let good = || assert_eq!(gate.plain().get(&path).expect(200).body, blob);
    good();
    let before = resident(&gate);
    let mut crowd = vec![];
    for window in [0, 1].repeat(5) {
        let mut socket = http2(&gate, window);
        let requests: Vec<u8> = (0..100).flat_map(|request| get(2 * request + 1, &path)).collect();
        socket.write_all(&requests).unwrap();
        // Its first answers have begun.
        socket.read_exact(&mut [0; 4096]).unwrap();
        crowd.push(socket);
    }
    good();
    let grown = resident(&gate).saturating_sub(before);
    // A chunk of 256 KiB for each would be 250 MiB.
    assert!(grown < 48 << 10, "{grown} KiB for 1,000 streams");
    gate.admin().get("/readyz").expect(200);
}

#[test]
fn who_floods_is_told_to_be_calm() {
    let gate = Gate::start(OPEN);
    let mut socket = http2(&gate, 65_535);
    let pings = frame(PING, 0, 0, &[0; 8]).repeat(20_000);
    let mut writer = socket.try_clone().unwrap();
    // The gateway stops reading before the end of them.
    let flood = std::thread::spawn(move || drop(writer.write_all(&pings)));
    let mut said = vec![];
    let _ = socket.read_to_end(&mut said);
    flood.join().unwrap();
    let goaway = frames(&said).find(|(kind, _)| *kind == GOAWAY).expect("a GOAWAY").1;
    assert_eq!(goaway[4..8], [0, 0, 0, ENHANCE_YOUR_CALM]);
    let counted = "dockgate_connections_closed_total{outcome=\"flooded\"} 1";
    wait_until("the flood to be counted", || gate.admin().get("/metrics").expect(200).text().contains(counted));
}

#[test]
fn who_broke_the_rules_of_http_2_was_not_told_apart_from_who_broke_off() {
    let gate = Gate::start(OPEN);
    let mut socket = http2(&gate, 65_535);
    socket.write_all(&frame(WINDOW_UPDATE, 0, 0, &[0; 4])).unwrap();
    let mut said = vec![];
    let _ = socket.read_to_end(&mut said);
    let goaway = frames(&said).find(|(kind, _)| *kind == GOAWAY).expect("a GOAWAY").1;
    assert_eq!(goaway[4..8], [0, 0, 0, PROTOCOL_ERROR]);
    let counted = "dockgate_connections_closed_total{outcome=\"bad_http2\"} 1";
    wait_until("it to be counted", || gate.admin().get("/metrics").expect(200).text().contains(counted));
}

/// The kind and the payload of each frame.
fn frames(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_at_checked(9)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (payload, rest) = rest.split_at_checked(length)?;
        bytes = rest;
        Some((head[3], payload))
    })
}

#[test]
fn manifests_that_stall_leave_room_for_those_of_others() {
    let gate = Gate::start(&format!("{OPEN}[limits]\nincoming_bytes = \"8MiB\"\n"));
    let length = 3 << 20;
    let head = format!("PUT /v2/app/manifests/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
    let stalled: Vec<TcpStream> = (0..4)
        .map(|_| {
            let mut socket = TcpStream::connect(gate.main).unwrap();
            socket.write_all(head.as_bytes()).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.write(&vec![b' '; length - 1]);
            socket.set_nonblocking(false).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        })
        .collect();
    let told = stalled.iter().filter(|socket| {
        let (mut said, mut socket) = ([0; 4096], *socket);
        let length = socket.read(&mut said).unwrap_or(0);
        let said = String::from_utf8_lossy(&said[..length]).into_owned();
        said.starts_with("HTTP/1.1 503") && said.to_lowercase().contains("retry-after: 5")
    });
    assert!(told.count() >= 2, "those that stand still make room, and who finds none is told when to come again");
}

#[test]
fn a_manifest_in_chunks_of_a_byte_took_a_hundred_times_its_length() {
    let gate = Gate::start(OPEN);
    let before = memory(&gate, "VmHWM:");
    let mut socket = TcpStream::connect(gate.main).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = "PUT /v2/app/manifests/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunks = b"1\r\n \r\n".repeat(100_000);
    socket.write_all(&[head.as_bytes(), &chunks, b"0\r\n\r\n"].concat()).unwrap();
    let mut said = [0; 12];
    socket.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"HTTP/1.1 400");
    let more = memory(&gate, "VmHWM:").saturating_sub(before);
    assert!(more < 4 << 10, "{more} KiB for a manifest of 98 KiB");
}
