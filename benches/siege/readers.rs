//! Clients that ask and do not read, and clients that connect and say nothing.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use crate::Outcome;
use crate::client::Way;
use crate::content::Content;
use crate::frames::{Connection, END_HEADERS, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, frame, request, window_update};
use crate::gateway::{Gateway, Setup};
use crate::report::Figure;
use crate::siege::Context;

const CONNECTIONS: u8 = 50;
const STREAMS: u32 = 100;
const SILENT: usize = 2000;
/// With so few descriptors the silent ones alone take them all.
const FEW_DESCRIPTORS: u32 = 1024;
const SILENT_FEW: usize = 1100;
/// Whoever is cut comes again after that.
pub const PAUSE: Duration = Duration::from_secs(1);
/// Between two bytes of those that take a byte a second.
const BYTE: Duration = Duration::from_secs(1);
/// Of a reader of HTTP/1, in bytes: the kernel's least is about as much.
const RECEIVE_BUFFER: u32 = 2304;

/// The readers of HTTP/2 and the silent ones each have one address, as a single attacker would.
const READER: Ipv4Addr = Ipv4Addr::new(127, 0, 9, 1);
const SILENT_ONE: Ipv4Addr = Ipv4Addr::new(127, 0, 9, 2);

/// How a reader does not read.
#[derive(Debug, Clone, Copy)]
enum Reader {
    /// HTTP/2 with an initial window of so many bytes, and no byte more.
    Window(u32),
    /// HTTP/2, a byte a second for each stream.
    Byte2,
    /// HTTP/1, a byte a second for each connection.
    Byte1,
}

pub async fn windows_0(context: &Context<'_>) -> Outcome<Vec<Figure>> {
    readers(context, "windows of 0", Reader::Window(0), None).await
}

pub async fn windows_0_few(context: &Context<'_>) -> Outcome<Vec<Figure>> {
    readers(context, "windows of 0, 1,024 descriptors", Reader::Window(0), Some(FEW_DESCRIPTORS)).await
}

pub async fn windows_1(context: &Context<'_>) -> Outcome<Vec<Figure>> {
    readers(context, "windows of 1", Reader::Window(1), None).await
}

pub async fn bytes_2(context: &Context<'_>) -> Outcome<Vec<Figure>> {
    readers(context, "a byte a second, HTTP/2", Reader::Byte2, None).await
}

pub async fn bytes_1(context: &Context<'_>) -> Outcome<Vec<Figure>> {
    readers(context, "a byte a second, HTTP/1", Reader::Byte1, None).await
}

pub async fn silent(context: &Context<'_>) -> Outcome<Vec<Figure>> {
    let setup = Setup { descriptors: Some(FEW_DESCRIPTORS), ..Setup::default() };
    let besiege = |gateway: &Gateway| {
        let mut besiegers = JoinSet::new();
        add_silent(&mut besiegers, gateway, SILENT_FEW);
        besiegers
    };
    Ok(context.round(&setup, besiege).await?.figures("1,100 silent connections, 1,024 descriptors"))
}

async fn readers(context: &Context<'_>, siege: &str, reader: Reader, descriptors: Option<u32>) -> Outcome<Vec<Figure>> {
    let setup = Setup { descriptors, ..Setup::default() };
    let besiege = |gateway: &Gateway| {
        let mut besiegers = JoinSet::new();
        add_readers(&mut besiegers, gateway, &context.content, reader);
        add_silent(&mut besiegers, gateway, SILENT);
        besiegers
    };
    Ok(context.round(&setup, besiege).await?.figures(siege))
}

fn add_readers(besiegers: &mut JoinSet<()>, gateway: &Gateway, content: &Content, reader: Reader) {
    let path: Arc<str> = content.large_path().into();
    for number in 1..=CONNECTIONS {
        let (window, bytes) = match reader {
            Reader::Window(window) => (window, false),
            Reader::Byte2 => (1, true),
            Reader::Byte1 => {
                // A single address may not have as many connections as this takes.
                let way = gateway.way(Ipv4Addr::new(127, 0, 10, number));
                for _ in 0..STREAMS {
                    besiegers.spawn(again(way, path.clone(), |way, path| async move { read_1(way, &path).await }));
                }
                continue;
            }
        };
        let way = gateway.way(READER);
        besiegers.spawn(again(
            way,
            path.clone(),
            move |way, path| async move { read_2(way, &path, window, bytes).await },
        ));
    }
}

fn add_silent(besiegers: &mut JoinSet<()>, gateway: &Gateway, number: usize) {
    for _ in 0..number {
        let way = gateway.way(SILENT_ONE);
        besiegers.spawn(again(way, "".into(), |way, _| async move { say_nothing(way).await }));
    }
}

/// Does it again whenever it was cut.
async fn again<F: Future<Output = Outcome>>(way: Way, path: Arc<str>, once: impl Fn(Way, Arc<str>) -> F) {
    loop {
        let _ = once(way, path.clone()).await;
        sleep(PAUSE).await;
    }
}

async fn say_nothing(way: Way) -> Outcome {
    let mut stream = way.connect().await?;
    stream.read_u8().await?;
    Ok(())
}

async fn read_1(way: Way, path: &str) -> Outcome {
    let mut stream = way.connect_with(Some(RECEIVE_BUFFER)).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", way.to).as_bytes()).await?;
    loop {
        sleep(BYTE).await;
        stream.read_u8().await?;
    }
}

/// 100 streams, each with a window of so many bytes, that grows by one a second where `bytes` says so.
async fn read_2(way: Way, path: &str, window: u32, bytes: bool) -> Outcome {
    let mut connection = Connection::open(way, &[(INITIAL_WINDOW_SIZE, window)]).await?;
    let block = request("GET", path, way.to, &[]);
    let streams = || (0..STREAMS).map(|number| 2 * number + 1);
    let asked: Vec<u8> =
        streams().flat_map(|stream| frame(HEADERS, END_STREAM | END_HEADERS, stream, &block)).collect();
    connection.send(&asked).await?;
    let mut more = window_update(0, STREAMS);
    streams().for_each(|stream| more.extend(window_update(stream, 1)));
    let mut second = interval(BYTE);
    loop {
        tokio::select! {
            frame = connection.next() => connection.acknowledge(&frame?).await?,
            _ = second.tick(), if bytes => connection.send(&more).await?,
        }
    }
}
