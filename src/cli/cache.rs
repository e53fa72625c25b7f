//! `dockgate cache`: what the running gateway keeps of registries elsewhere, asked over the socket in its data directory.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::header::HOST;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::time::timeout;

use dockgate::server::admin::{SocketError, connect};

use super::Common;
use super::exit::{Code, Exit};

/// How long the gateway may take to begin an answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What to do with the cache.
#[derive(Subcommand)]
pub(super) enum Command {
    /// List what is kept on disk, what was used last first
    Ls(List),
    /// Throw an image, a digest or everything out; what is pinned stays
    Purge(Purge),
    /// Take images into the cache before anybody asks for them, all platforms
    Warm(Images),
    /// Take images into the cache, and keep them whatever else is asked for
    Pin(Images),
    /// Keep images no longer
    Unpin(Images),
}

#[derive(Args)]
pub(super) struct List {
    #[command(flatten)]
    common: Common,
    /// Print the gateway's own JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Purge {
    #[command(flatten)]
    common: Common,
    /// PREFIX/NAME:TAG, as clients write it after the gateway's name, or a digest
    #[arg(value_name = "IMAGE|DIGEST", required_unless_present = "all")]
    what: Vec<String>,
    /// Everything that is not pinned
    #[arg(long, conflicts_with = "what")]
    all: bool,
}

#[derive(Args)]
pub(super) struct Images {
    #[command(flatten)]
    common: Common,
    /// PREFIX/NAME:TAG, as clients write it after the gateway's name, such as docker.io/library/alpine:3.20
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

pub(super) fn run(command: &Command) -> Result<(), Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Exit::new(Code::Software, format_args!("no runtime can be started: {error}")))?;
    runtime.block_on(async {
        match command {
            Command::Ls(list) => ls(list).await,
            Command::Purge(purge) => self::purge(purge).await,
            Command::Warm(images) => warm(images, "/cache/warm").await,
            Command::Pin(images) => warm(images, "/cache/pin").await,
            Command::Unpin(images) => unpin(images).await,
        }
    })
}

async fn ls(list: &List) -> Result<(), Exit> {
    let page = Gateway::of(&list.common)?.json(Method::GET, "/cache").await?;
    if list.json {
        return print(&format!("{page}\n"));
    }
    let mut text = String::from(
        "DIGEST                                                                        SIZE  UNUSED FOR\n",
    );
    for entry in page["entries"].as_array().into_iter().flatten() {
        let mark = match (entry["pinned"].as_bool(), entry["in_use"].as_bool()) {
            (Some(true), _) => "  pinned",
            (_, Some(true)) => "  in use",
            _ => "",
        };
        let size = bytes(entry["size"].as_u64().unwrap_or_default());
        let unused = format!("{} s", entry["unused_seconds"]);
        text += &format!("{:<72} {size:>9} {unused:>11}{mark}\n", entry["digest"].as_str().unwrap_or_default());
    }
    let (used, capacity) = (page["bytes"].as_u64().unwrap_or_default(), page["capacity"].as_u64().unwrap_or_default());
    text += &format!("{} of {}\n", bytes(used), bytes(capacity));
    for image in page["pins"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        text += &format!("pinned: {image}\n");
    }
    print(&text)
}

async fn purge(purge: &Purge) -> Result<(), Exit> {
    let gateway = Gateway::of(&purge.common)?;
    let targets = match purge.all {
        true => vec![("everything that is not pinned", "/cache?all=1".to_owned())],
        false => purge.what.iter().map(|what| (what.as_str(), with_image("/cache", what))).collect(),
    };
    for (what, target) in targets {
        let done = gateway.json(Method::DELETE, &target).await?;
        print(&format!(
            "{what}: {} removed, {}\n",
            done["removed"],
            bytes(done["bytes"].as_u64().unwrap_or_default())
        ))?;
    }
    Ok(())
}

async fn unpin(images: &Images) -> Result<(), Exit> {
    let gateway = Gateway::of(&images.common)?;
    for image in &images.images {
        let done = gateway.json(Method::DELETE, &with_image("/cache/pin", image)).await?;
        let text = if done["unpinned"] == true { "may go" } else { "was not pinned under this name" };
        print(&format!("{image}: {text}\n"))?;
    }
    Ok(())
}

async fn warm(images: &Images, path: &str) -> Result<(), Exit> {
    let gateway = Gateway::of(&images.common)?;
    for image in &images.images {
        let mut progress =
            Progress { image, parts: 0, bytes: 0, failed: 0, on_terminal: std::io::stderr().is_terminal() };
        let mut lines = gateway.lines(Method::POST, &with_image(path, image)).await?;
        let mut last = Value::Null;
        while let Some(line) = lines.next().await? {
            progress.tell(&line);
            last = line;
        }
        progress.end(&last)?;
    }
    Ok(())
}

/// How far a warming is: one line that moves on a terminal, a line for each part elsewhere.
struct Progress<'a> {
    image: &'a str,
    parts: usize,
    bytes: u64,
    failed: usize,
    on_terminal: bool,
}

impl Progress<'_> {
    fn tell(&mut self, line: &Value) {
        let Some(digest) = line["digest"].as_str() else { return };
        self.parts += 1;
        self.bytes += line["size"].as_u64().unwrap_or_default();
        let mut out = std::io::stderr().lock();
        // A closed standard error is no reason to stop.
        let _ = match line["error"].as_str() {
            Some(error) => {
                self.failed += 1;
                writeln!(out, "{}{digest}: {error}", if self.on_terminal { "\r\x1b[K" } else { "" })
            }
            None if self.on_terminal => {
                write!(out, "\r\x1b[K{}: {} parts, {}", self.image, self.parts, bytes(self.bytes))
            }
            None => writeln!(out, "{}: {digest} {}", self.image, bytes(line["size"].as_u64().unwrap_or_default())),
        };
        let _ = out.flush();
    }

    fn end(&self, last: &Value) -> Result<(), Exit> {
        if self.on_terminal {
            eprint!("\r\x1b[K");
        }
        if last["done"] != true {
            let reason = last["error"].as_str().unwrap_or("the gateway broke off; look at its log");
            return Err(Exit::new(Code::Unavailable, format_args!("{}: {reason}", self.image)));
        }
        if self.failed > 0 {
            return Err(Exit::new(
                Code::Unavailable,
                format_args!("{}: {} parts are missing", self.image, self.failed),
            ));
        }
        print(&format!("{}: {} parts, {} in the cache\n", self.image, self.parts, bytes(self.bytes)))
    }
}

/// The gateway that runs on a data directory.
struct Gateway {
    data: PathBuf,
}

impl Gateway {
    fn of(common: &Common) -> Result<Self, Exit> {
        Ok(Self { data: common.load()?.registry.data })
    }

    async fn send(&self, method: Method, target: &str) -> Result<Lines, Exit> {
        let stream = connect(&self.data).await.map_err(|error| match error {
            SocketError::Forbidden { .. } => Exit::new(Code::NoPermission, error),
            error => Exit::new(Code::Unavailable, error),
        })?;
        let broke = |error| Exit::new(Code::Unavailable, format_args!("the gateway broke off: {error}"));
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(broke)?;
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(target).header(HOST, "admin.sock");
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| Exit::new(Code::Software, error))?;
        let answer = timeout(TIMEOUT, sender.send_request(request)).await.map_err(|_| {
            Exit::new(
                Code::Unavailable,
                format_args!("the gateway does not answer within {TIMEOUT:?}; look at its log"),
            )
        })?;
        let answer = answer.map_err(broke)?;
        let status = answer.status();
        let mut lines = Lines { body: answer.into_body(), buffer: Vec::new() };
        if status.is_success() {
            return Ok(lines);
        }
        while lines.more().await? {}
        let code = if status == StatusCode::FORBIDDEN { Code::NoPermission } else { Code::Data };
        Err(Exit::new(code, String::from_utf8_lossy(&lines.buffer).trim().to_owned()))
    }

    async fn lines(&self, method: Method, target: &str) -> Result<Lines, Exit> {
        self.send(method, target).await
    }

    async fn json(&self, method: Method, target: &str) -> Result<Value, Exit> {
        let mut lines = self.send(method, target).await?;
        Ok(lines.next().await?.unwrap_or_default())
    }
}

/// Lines of JSON, as they come.
struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    async fn next(&mut self) -> Result<Option<Value>, Exit> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return serde_json::from_slice(&line).map(Some).map_err(|error| Exit::new(Code::Data, error));
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    async fn more(&mut self) -> Result<bool, Exit> {
        let Some(frame) = self.body.frame().await else { return Ok(false) };
        let frame =
            frame.map_err(|error| Exit::new(Code::Unavailable, format_args!("the gateway broke off: {error}")))?;
        if let Ok(data) = frame.into_data() {
            self.buffer.extend_from_slice(&data);
        }
        Ok(true)
    }
}

fn with_image(path: &str, image: &str) -> String {
    format!("{path}?image={}", utf8_percent_encode(image, NON_ALPHANUMERIC))
}

/// In the largest unit of which there is one.
fn bytes(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.into_iter().find(|(_, bits)| bytes >> bits > 0) {
        Some((unit, bits)) => {
            let tenths = (u128::from(bytes) * 10) >> bits;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

fn print(text: &str) -> Result<(), Exit> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| Exit::new(Code::Software, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_people() {
        for (size, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 30, "1.0 GiB"), (u64::MAX, "17179869183.9 GiB")]
        {
            assert_eq!(bytes(size), text);
        }
    }
}
