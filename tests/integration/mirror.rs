//! Mirrors and fronted registries before an upstream that goes wrong in every way: nothing wrong is kept or handed out,
//! nothing is asked more often than it must be, and nobody waits for ever.

mod blobs;
mod cache;
mod credentials;
mod disk;
mod elsewhere;
mod faults;
mod forward;
mod fronted;
mod lists;
mod loops;
mod manifests;
mod members;
mod names;
mod neighbours;
mod outage;
mod parallel;
mod paths;
mod peers;
mod proofs;
mod proxy;
mod readers;
mod refusals;
mod tags;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use dockgate::oci::{Algorithm, Digest};

use super::support::gate::{ADA, Prepared, files, wait_until};
use super::support::{Answer, Gate, V2Upstream};

/// Everyone may do everything.
const OPEN: &str = "[[access]]\nwho = [\"anyone\"]\nrepositories = [\"**\"]\nactions = [\"*\"]\n";
/// Short, so that the tests are.
const TIMES: &str = r#"
connect_timeout = "1s"
first_byte_timeout = "1s"
idle_timeout = "1s"
rate_window = "1s"
deadline = "3s"
revalidate_timeout = "500ms"
retries = 1
"#;
/// The longest that anybody waits for anything: the deadline, and one second.
const LONGEST_WAIT: Duration = Duration::from_secs(4);

/// A gateway that mirrors an upstream as `up`.
struct Mirror {
    gate: Gate,
    up: V2Upstream,
}

impl Mirror {
    /// Open to all; `more` is added to the upstream's file.
    fn start(more: &str) -> Self {
        Self::start_with(OPEN, more)
    }

    fn start_with(config: &str, more: &str) -> Self {
        let up = V2Upstream::start();
        let prepared = prepare(config, &mirror_of(&up.url(), more));
        Self { gate: prepared.start(), up }
    }

    fn pull(&self, path: &str) -> Answer {
        pull(self.gate.main, path, &[]).unwrap_or_else(|text| panic!("{path}: {text}"))
    }

    /// A counter or gauge of the upstream.
    fn metric(&self, name: &str) -> u64 {
        metric(&self.gate, name)
    }
}

/// The file of a mirror; what `more` says holds.
fn mirror_of(url: &str, more: &str) -> String {
    upstream("mirror", url, more)
}

fn upstream(kind: &str, url: &str, more: &str) -> String {
    let says = |key: &str| more.lines().any(|line| line.trim_start().starts_with(key));
    let times: Vec<&str> =
        TIMES.lines().filter(|line| !line.split(' ').next().is_some_and(|key| !key.is_empty() && says(key))).collect();
    format!("kind = \"{kind}\"\nurl = \"{url}\"\n{}\n{more}\n", times.join("\n"))
}

/// A directory with a user, so that no password has to be made, and the file of one upstream.
fn prepare(config: &str, upstream: &str) -> Prepared {
    let prepared = Gate::prepare(config);
    prepared.write("htpasswd", &format!("{ADA}\n{}\n", ADA.replace("ada:", "eve:")));
    prepared.write("upstreams/up.toml", upstream);
    prepared
}

fn metric(gate: &Gate, name: &str) -> u64 {
    let page = gate.admin().get("/metrics").expect(200).text();
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()).unwrap_or(0)
}

/// Bytes that no compression and no mistake of a place leaves as they are.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..length.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(length).collect()
}

/// A connection on which nobody waits for anything longer than is allowed.
struct Bounded(TcpStream);

impl Bounded {
    fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(LONGEST_WAIT)).unwrap();
        Self(socket)
    }

    fn ask(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut stream = Self::connect(address);
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let host = if headers.iter().any(|(name, _)| *name == "Host") { "" } else { "Host: localhost\r\n" };
        let head = format!("GET {path} HTTP/1.1\r\n{host}Connection: close\r\n{lines}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream
    }

    /// The next bytes, exactly so many.
    fn exactly(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Reads a head; its status.
    fn head(&mut self) -> u16 {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.exactly(1));
        }
        let head = String::from_utf8(head).unwrap();
        head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// All that comes, and whether it came to an end in order.
    fn rest(&mut self) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        let ended = self.read_to_end(&mut bytes);
        (bytes, ended.is_ok())
    }

    /// Whether nothing comes for a moment.
    fn is_quiet(&mut self) -> bool {
        self.0.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut byte = [0];
        let quiet = matches!(self.0.peek(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
        self.0.set_read_timeout(Some(LONGEST_WAIT)).unwrap();
        quiet
    }
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.0.read(buffer);
        if read.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock) {
            panic!("nothing came for longer than {LONGEST_WAIT:?}");
        }
        read
    }
}

impl Write for Bounded {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.0.write(buffer)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// A whole answer, or how it broke.
fn pull(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Result<Answer, String> {
    Answer::read(&mut Bounded::ask(address, path, headers), "GET")
}

/// Many who pull the same at once.
fn pullers(gate: &Gate, count: usize, path: &str) -> Vec<JoinHandle<Result<Answer, String>>> {
    let (address, path) = (gate.main, Arc::<str>::from(path));
    let pullers = (0..count).map(|_| {
        let path = Arc::clone(&path);
        std::thread::spawn(move || pull(address, &path, &[]))
    });
    pullers.collect()
}

/// The same, for what is held at the upstream; they are all there when this returns.
fn crowd(gate: &Gate, count: usize, path: &str) -> Vec<JoinHandle<Result<Answer, String>>> {
    wait_until("those who were there to be gone", || metric(gate, "dockgate_requests_in_flight") == 0);
    let pullers = pullers(gate, count, path);
    are_there(gate, count);
    pullers
}

/// Waits until so many have asked, and their requests are on their way.
fn are_there(gate: &Gate, count: usize) {
    wait_until("all requests to be there", || metric(gate, "dockgate_requests_in_flight") >= count as u64);
    // Whoever comes after them is answered after they went as far as they can.
    (0..3).for_each(|_| drop(gate.plain().get("/v2/").expect(200)));
}

/// The blobs in the directory of a cache, without their checksums.
fn kept_blobs(directory: &Path) -> Vec<PathBuf> {
    files(&directory.join("blobs")).into_iter().filter(|file| file.extension().is_none()).collect()
}

/// Every file of the cache holds what its name says, and nothing is half there.
#[track_caller]
fn cache_is_clean(directory: &Path) {
    wait_until("the spool to be empty", || files(&directory.join("spool")).is_empty());
    for file in kept_blobs(directory) {
        assert!(file.with_extension("sums").exists(), "{}", file.display());
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let algorithm = match file.display().to_string().contains("/sha512/") {
            true => Algorithm::Sha512,
            false => Algorithm::Sha256,
        };
        let named: Digest = format!("{}:{name}", algorithm.as_str()).parse().unwrap();
        assert_eq!(algorithm.digest(&std::fs::read(&file).unwrap()), named, "{}", file.display());
    }
}

/// An error as clients of registries read it, with a word for what to do.
#[track_caller]
fn is_error(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert!(answer.message().len() > 10, "{}", answer.text());
}
