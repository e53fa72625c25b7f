//! `dockgate cache`: what the running gateway keeps of registries elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use dockgate::gateway::admin::CONSENT;
use dockgate::net::client::{Client, Settings};

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
    /// The same, and keep them whatever else is asked for
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

/// The admin listener of the gateway that runs.
struct Gateway {
    client: Client,
    address: SocketAddr,
}

impl Gateway {
    fn of(common: &Common) -> Result<Self, Exit> {
        let address = common.load()?.admin.address.ok_or_else(|| {
            Exit::config("admin.address is \"\": the running gateway can only be asked there; give it an address")
        })?;
        let settings = Settings { connect_timeout: TIMEOUT, first_byte_timeout: TIMEOUT, ..Settings::default() };
        let client = Client::new(&settings).map_err(|error| Exit::new(Code::Software, error))?;
        Ok(Self { client, address: reachable(address) })
    }

    async fn send(&self, method: Method, target: &str) -> Result<Lines, Exit> {
        let request = Request::builder().method(method).uri(format!("http://{}{target}", self.address));
        let request = request.header(CONSENT, "1").body(Empty::<Bytes>::new());
        let request = request.map_err(|error| Exit::new(Code::Software, error))?;
        let answer = self.client.send(request).await.map_err(|error| {
            let address = self.address;
            Exit::new(
                Code::Unavailable,
                format_args!("the gateway does not answer at {address} ({error}): is it running?"),
            )
        })?;
        let is_good = answer.status().is_success();
        let mut lines = Lines { body: answer.into_body(), buffer: Vec::new() };
        if is_good {
            return Ok(lines);
        }
        while lines.more().await? {}
        Err(Exit::new(Code::Data, String::from_utf8_lossy(&lines.buffer).trim().to_owned()))
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

/// Where a listener for any address is reached from here.
fn reachable(address: SocketAddr) -> SocketAddr {
    let here = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(here, address.port())
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

    #[test]
    fn a_listener_for_any_address_is_reached_here() {
        assert_eq!(reachable("0.0.0.0:5001".parse().unwrap()).to_string(), "127.0.0.1:5001");
        assert_eq!(reachable("[::]:5001".parse().unwrap()).to_string(), "[::1]:5001");
        assert_eq!(reachable("10.0.0.1:1".parse().unwrap()).to_string(), "10.0.0.1:1");
    }
}
