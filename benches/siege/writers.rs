//! Clients that push manifests of the greatest size, all but the last byte, and then wait.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::Outcome;
use crate::client::Way;
use crate::content::MANIFEST_TYPE;
use crate::frames::{
    Connection, DATA, END_HEADERS, HEADERS, INITIAL_WINDOW_SIZE, PAYLOAD_MAX, RST_STREAM, SETTINGS, WINDOW,
    WINDOW_UPDATE, frame, request,
};
use crate::gateway::{Gateway, Setup};
use crate::readers::PAUSE;
use crate::report::Figure;
use crate::siege::Context;

const MANIFESTS: usize = 200;
/// What `limits.manifest_bytes` is by default.
const MANIFEST_BYTES: usize = 4 << 20;
/// 200 streams on so many connections of HTTP/2.
const CONNECTIONS: usize = 4;
const WRITER: Ipv4Addr = Ipv4Addr::new(127, 0, 9, 3);

pub async fn http_1(context: &Context<'_>) -> Outcome<Vec<Figure>> {
    let body: Arc<[u8]> = vec![b' '; MANIFEST_BYTES - 1].into();
    let besiege = |gateway: &Gateway| {
        let mut besiegers = JoinSet::new();
        for number in 0..MANIFESTS {
            let (way, body) = (gateway.way(WRITER), body.clone());
            besiegers.spawn(async move {
                loop {
                    let _ = write_1(way, number, &body).await;
                    sleep(PAUSE).await;
                }
            });
        }
        besiegers
    };
    Ok(context.round(&Setup::default(), besiege).await?.figures("200 stalled manifests, HTTP/1"))
}

pub async fn http_2(context: &Context<'_>) -> Outcome<Vec<Figure>> {
    let besiege = |gateway: &Gateway| {
        let mut besiegers = JoinSet::new();
        for number in 0..CONNECTIONS {
            let way = gateway.way(WRITER);
            besiegers.spawn(async move {
                loop {
                    let _ = write_2(way, number).await;
                    sleep(PAUSE).await;
                }
            });
        }
        besiegers
    };
    Ok(context.round(&Setup::default(), besiege).await?.figures("200 stalled manifests, HTTP/2"))
}

fn path(number: usize) -> String {
    format!("/v2/open/stalled/manifests/t-{number}")
}

async fn write_1(way: Way, number: usize, body: &[u8]) -> Outcome {
    let mut stream = way.connect().await?;
    let path = path(number);
    let host = way.to;
    let head = format!(
        "PUT {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {MANIFEST_TYPE}\r\nContent-Length: {MANIFEST_BYTES}\r\n\r\n"
    );
    let (mut from, mut to) = stream.split();
    let write = async {
        to.write_all(head.as_bytes()).await?;
        to.write_all(body).await?;
        std::future::pending().await
    };
    tokio::select! {
        outcome = write => outcome,
        // An answer before the body is over: it is refused.
        read = from.read_u8() => read.map(drop).map_err(Into::into),
    }
}

/// A body that is on its way: what its stream may still send, and what there is of it.
struct Body {
    window: i64,
    left: usize,
}

async fn write_2(way: Way, first: usize) -> Outcome {
    let mut connection = Connection::open(way, &[]).await?;
    let length = MANIFEST_BYTES.to_string();
    let mut bodies = BTreeMap::new();
    for number in 0..MANIFESTS / CONNECTIONS {
        let stream = u32::try_from(2 * number + 1)?;
        let path = path(first * MANIFESTS + number);
        let headers = [("content-type", MANIFEST_TYPE), ("content-length", length.as_str())];
        connection.send(&frame(HEADERS, END_HEADERS, stream, &request("PUT", &path, way.to, &headers))).await?;
        bodies.insert(stream, Body { window: WINDOW, left: MANIFEST_BYTES - 1 });
    }
    let (mut window, mut initial) = (WINDOW, WINDOW);
    loop {
        for (stream, body) in &mut bodies {
            while let Some(length) = payload(window, body) {
                connection.send(&frame(DATA, 0, *stream, &vec![b' '; length])).await?;
                window -= length as i64;
                body.window -= length as i64;
                body.left -= length;
            }
        }
        let received = connection.next().await?;
        connection.acknowledge(&received).await?;
        match received.kind {
            WINDOW_UPDATE => {
                let increment = number(&received.payload);
                match bodies.get_mut(&received.stream) {
                    Some(body) => body.window += increment,
                    None if received.stream == 0 => window += increment,
                    None => {}
                }
            }
            SETTINGS => {
                for entry in received.payload.chunks_exact(6) {
                    if entry.starts_with(&INITIAL_WINDOW_SIZE.to_be_bytes()) {
                        let value = number(&entry[2..]);
                        bodies.values_mut().for_each(|body| body.window += value - initial);
                        initial = value;
                    }
                }
            }
            RST_STREAM => drop(bodies.remove(&received.stream)),
            _ => {}
        }
        if bodies.is_empty() {
            return Err("all were refused".into());
        }
    }
}

/// How long the next frame of a body may be.
fn payload(window: i64, body: &Body) -> Option<usize> {
    let allowed = usize::try_from(window.min(body.window)).unwrap_or(0);
    Some(allowed.min(body.left).min(PAYLOAD_MAX)).filter(|length| *length > 0)
}

fn number(bytes: &[u8]) -> i64 {
    bytes.iter().take(4).fold(0, |number, byte| number << 8 | i64::from(*byte))
}
