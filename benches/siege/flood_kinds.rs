//! The eighteen floods: what each sends on one connection.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::Outcome;
use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE, PADDED, PAYLOAD_MAX, PING,
    PREFACE, PRIORITY, RST_STREAM, UNKNOWN, frame, request, settings, window_update,
};

/// Frames, requests or pieces of one connection.
pub const FRAMES: u32 = 20_000;
/// How often the entries of a full SETTINGS frame are sent: they are long.
const LONG_FRAMES: usize = 2_000;
/// A stream for what needs one that is open.
const OPEN: u32 = 1;

/// What one connection sends.
pub struct Flood {
    pub name: &'static str,
    pub http2: bool,
    pub opening: Vec<u8>,
    /// Sent so many times.
    pub unit: Vec<u8>,
    pub times: usize,
    /// How much of it is written at a time.
    pub piece: usize,
}

/// Written at a time where nothing else is said.
const PIECE: usize = 64 << 10;

/// `large` is the path of something large that may be pulled; all may push to `open/`.
pub fn floods(authority: SocketAddr, large: &str) -> Outcome<Vec<Flood>> {
    let mut all = frames_of_no_stream();
    all.extend(frames_of_streams(authority, large));
    all.extend(http_1(authority));
    let hello = client_hello()?;
    all.push(Flood {
        name: "TLS handshakes, dropped",
        http2: false,
        opening: hello,
        unit: Vec::new(),
        times: 0,
        piece: PIECE,
    });
    Ok(all)
}

fn start(more: &[u8]) -> Vec<u8> {
    [PREFACE, &settings(&[]), more].concat()
}

fn many(one: &[u8]) -> Vec<u8> {
    one.repeat(FRAMES as usize)
}

/// For each of many streams, in the order in which they may be opened.
fn streams(frames: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (0..FRAMES).flat_map(|number| frames(2 * number + 1)).collect()
}

fn frames_of_no_stream() -> Vec<Flood> {
    let flood = |name, unit: Vec<u8>| Flood { name, http2: true, opening: start(&[]), unit, times: 1, piece: PIECE };
    let entries = settings(&vec![(UNKNOWN.into(), 1); PAYLOAD_MAX / 6]);
    vec![
        flood("PING", many(&frame(PING, 0, 0, &[0; 8]))),
        flood("SETTINGS", many(&settings(&[]))),
        Flood { times: LONG_FRAMES, ..flood("SETTINGS, full of entries", entries) },
        flood("PRIORITY", streams(|stream| frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 1]))),
        flood("WINDOW_UPDATE, connection", many(&window_update(0, 1))),
        flood("unknown frames", many(&frame(UNKNOWN, 0, 0, &[]))),
        flood("GOAWAY", many(&frame(GOAWAY, 0, 0, &[0; 8]))),
    ]
}

fn frames_of_streams(authority: SocketAddr, large: &str) -> Vec<Flood> {
    let get = request("GET", "/v2/", authority, &[]);
    let stalled = [
        settings(&[(INITIAL_WINDOW_SIZE, 0)]),
        frame(HEADERS, END_HEADERS | END_STREAM, OPEN, &request("GET", large, authority, &[])),
    ]
    .concat();
    let post = request("PUT", "/v2/open/flood/manifests/latest", authority, &[("content-type", "application/json")]);
    let padded = [&[1][..], &get, &[0]].concat();
    let flood =
        |name, opening: &[u8], unit| Flood { name, http2: true, opening: start(opening), unit, times: 1, piece: PIECE };
    vec![
        flood(
            "HEADERS and RST_STREAM (rapid reset)",
            &[],
            streams(|stream| {
                let reset = frame(RST_STREAM, 0, stream, &8u32.to_be_bytes());
                [frame(HEADERS, END_HEADERS | END_STREAM, stream, &get), reset].concat()
            }),
        ),
        flood("CONTINUATION", &frame(HEADERS, 0, OPEN, &get), many(&frame(CONTINUATION, 0, OPEN, &[]))),
        flood("WINDOW_UPDATE, stream", &stalled, many(&window_update(OPEN, 1))),
        flood("WINDOW_UPDATE of 0", &stalled, many(&window_update(OPEN, 0))),
        flood("empty DATA", &frame(HEADERS, END_HEADERS, OPEN, &post), many(&frame(DATA, 0, OPEN, &[]))),
        flood("empty HEADERS", &[], streams(|stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &[]))),
        flood(
            "padded HEADERS",
            &[],
            streams(|stream| frame(HEADERS, END_HEADERS | END_STREAM | PADDED, stream, &padded)),
        ),
    ]
}

fn http_1(authority: SocketAddr) -> Vec<Flood> {
    let flood = |name, opening: String, unit: Vec<u8>, piece| Flood {
        name,
        http2: false,
        opening: opening.into_bytes(),
        unit,
        times: 1,
        piece,
    };
    let put = format!(
        "PUT /v2/open/flood/manifests/latest HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    vec![
        flood(
            "pipelined requests",
            String::new(),
            many(format!("GET /v2/ HTTP/1.1\r\nHost: {authority}\r\n\r\n").as_bytes()),
            PIECE,
        ),
        flood("a head, byte by byte", format!("GET /v2/ HTTP/1.1\r\nHost: {authority}\r\nX: "), many(b"x"), 1),
        flood("chunks of a byte, with extensions", put, many(b"1;a=b\r\n \r\n"), PIECE),
    ]
}

/// The first bytes of a TLS client.
fn client_hello() -> Outcome<Vec<u8>> {
    let configuration = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut connection = ClientConnection::new(Arc::new(configuration), ServerName::try_from("localhost")?)?;
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes)?;
    Ok(bytes)
}
