//! Floods: 50 connections that send as fast as they are accepted, at the gateway and at a sink.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::Outcome;
use crate::client::Way;
use crate::flood_kinds::{Flood, floods};
use crate::frames::{GOAWAY, take};
use crate::gateway::{Gateway, Setup};
use crate::neighbours::{Neighbours, Seen};
use crate::report::Figure;
use crate::siege::{Context, all, memory, slower};
use crate::sink::Sink;

const CONNECTIONS: u8 = 50;
/// How often each is flooded for [`Times::flood`](crate::siege::Times), where speed is judged.
const TURNS: usize = 3;
/// A connection that was ended is opened again so long after its beginning.
const AGAIN: Duration = Duration::from_millis(250);
/// How long the answer to a flood is waited for when all of it is sent.
const LAST: Duration = Duration::from_millis(200);
/// Of what is read and thrown away, in bytes.
const READ: usize = 16 << 10;

/// How often connections ended in which way.
type Endings = Arc<Mutex<BTreeMap<String, usize>>>;

pub async fn run(context: &Context<'_>) -> Outcome<Vec<Figure>> {
    let (mut gateway, neighbours) = context.start(&Setup::default()).await?;
    let kinds = floods(gateway.address, &context.content.large_path())?;
    let mut figures = Vec::new();
    for flood in kinds.into_iter().filter(|flood| flood.name.contains(context.flood)) {
        let new = one(context, &gateway, &neighbours, flood).await?;
        if gateway.has_ended() {
            return Err(format!("the gateway ended under a flood:\n{}", gateway.log_end()).into());
        }
        new.iter().for_each(|figure| println!("{}", figure.line()));
        figures.extend(new);
    }
    Ok(figures)
}

/// In turn with the same at the sink, so that what else the machine does is in both.
async fn one(context: &Context<'_>, gateway: &Gateway, neighbours: &Neighbours, flood: Flood) -> Outcome<Vec<Figure>> {
    let name = flood.name;
    let flood = Arc::new(flood);
    let endings = Endings::default();
    let sink = Sink::start(false)?;
    let (mut sunk, mut seen, mut growth) = (Seen::default(), Seen::default(), 0);
    for _ in 0..if context.speed { TURNS } else { 1 } {
        if context.speed {
            let way = |from| Way { from, to: sink.address };
            sunk.join(under(context, neighbours, &flood, way, &Endings::default()).await?);
        }
        gateway.forget_peak()?;
        let before = gateway.memory().peak;
        seen.join(under(context, neighbours, &flood, |from| gateway.way(from), &endings).await?);
        growth = growth.max(gateway.memory().peak.saturating_sub(before));
    }
    let ending = usual(&endings);
    let mut figures = Vec::new();
    if context.speed {
        figures.push(slower(name, "good pulls' p99, beside a sink", &sunk.pulls, &seen.pulls));
    }
    figures.push(all(name, "good pulls that failed", &seen.pulls));
    figures.push(all(name, "good pushes that failed", &seen.pushes));
    figures.push(memory(name, growth));
    figures.push(Figure::speed(name, "how its connections end", "", ending, true));
    if seen.commands.all() > 0 {
        figures.push(all(name, "real clients' pulls that failed", &seen.commands));
    }
    Ok(figures)
}

async fn under(
    context: &Context<'_>,
    neighbours: &Neighbours,
    flood: &Arc<Flood>,
    way: impl Fn(Ipv4Addr) -> Way,
    endings: &Endings,
) -> Outcome<Seen> {
    let mut besiegers = JoinSet::new();
    for number in 1..=CONNECTIONS {
        let way = way(Ipv4Addr::new(127, 0, 11, number));
        besiegers.spawn(flood_on(way, flood.clone(), endings.clone()));
    }
    neighbours.call(&context.thread, context.times.flood, true).await
}

async fn flood_on(way: Way, flood: Arc<Flood>, endings: Endings) {
    loop {
        let began = Instant::now();
        let ending = once(way, &flood).await;
        *endings.lock().unwrap_or_else(PoisonError::into_inner).entry(ending).or_default() += 1;
        sleep_until(began + AGAIN).await;
    }
}

/// Sends all of it, and says how the connection ended.
async fn once(way: Way, flood: &Flood) -> String {
    let Ok(mut stream) = way.connect().await else { return "not accepted".into() };
    let ending = {
        let (mut from, mut to) = stream.split();
        let write = async {
            to.write_all(&flood.opening).await?;
            for _ in 0..flood.times {
                for piece in flood.unit.chunks(flood.piece) {
                    to.write_all(piece).await?;
                }
            }
            std::io::Result::Ok(())
        };
        let read = read(&mut from, flood.http2);
        tokio::pin!(read);
        tokio::select! {
            ending = &mut read => ending,
            // Why it was not taken stands in what comes back.
            _ = write => timeout(LAST, &mut read).await.unwrap_or_else(|_| "all of it is taken".into()),
        }
    };
    // Closed by a reset: otherwise each leaves its port unusable for a minute.
    let _ = stream.set_zero_linger();
    ending
}

async fn read(from: &mut (impl AsyncReadExt + Unpin), http2: bool) -> String {
    let mut bytes = BytesMut::with_capacity(READ);
    let mut status = None;
    loop {
        if !matches!(from.read_buf(&mut bytes).await, Ok(1..)) {
            return status.map_or_else(|| "closed".to_owned(), |status| format!("closed after {status}"));
        }
        if !http2 {
            status = status.or_else(|| first_status(&bytes));
            bytes.clear();
        }
        while let Some(frame) = http2.then(|| take(&mut bytes)).flatten() {
            if frame.kind == GOAWAY
                && let Some(code) = frame.payload.get(4..8)
            {
                let code = code.iter().fold(0, |code, byte| code << 8 | u32::from(*byte));
                return format!("GOAWAY {code}");
            }
        }
    }
}

fn first_status(bytes: &[u8]) -> Option<String> {
    let text = bytes.strip_prefix(b"HTTP/1.1 ")?;
    Some(String::from_utf8_lossy(text.get(..3)?).into_owned())
}

/// How most of them ended.
fn usual(endings: &Endings) -> String {
    let endings = endings.lock().unwrap_or_else(PoisonError::into_inner);
    let all: usize = endings.values().sum();
    let most = endings.iter().max_by_key(|(_, times)| **times);
    most.map_or_else(|| "none has ended".into(), |(ending, times)| format!("{ending} ({times} of {all})"))
}
