//! A v2 registry in place of an upstream: it holds what a test gives it, remembers everything that it is asked, and goes
//! wrong where, when and how the test says.

mod content;
mod door;
mod fault;
mod send;

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

pub use door::Door;
pub use fault::{Fault, Latch};

use super::client::Stream;
use super::content::{OCI_MANIFEST, digest, manifest};
use super::gate::{PATIENCE, wait_until};
use content::Content;
use fault::Rule;
use send::Reply;

/// One request, as it arrived.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub query: String,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether the body came to its announced end.
    pub whole: bool,
}

/// It listens until it is dropped.
pub struct V2Upstream {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    stopped: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    asked: Vec<Asked>,
    connections: usize,
    content: Content,
    door: Door,
    rules: Vec<Rule>,
    /// What all paths begin with.
    base: String,
}

impl State {
    fn answer(&mut self, asked: &Asked) -> Reply {
        match asked.path.strip_prefix(&self.base) {
            Some(path) => self.content.answer(&Asked { path: path.to_owned(), ..asked.clone() }).below(&self.base),
            None => Reply::new(404).body(b"no registry is here"),
        }
    }
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The value of a parameter of the query, as it was written.
    fn parameter(&self, name: &str) -> Option<&str> {
        self.query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }
}

impl V2Upstream {
    /// Over plain HTTP, on a port of the system's choice.
    pub fn start() -> Self {
        Self::at("127.0.0.1")
    }

    /// The same at another address of this machine.
    pub fn at(ip: &str) -> Self {
        Self::listen(SocketAddr::new(ip.parse().unwrap(), 0), None)
    }

    /// Over TLS.
    pub fn tls(certificate: &Path, key: &Path) -> Self {
        let certificates = CertificateDer::pem_file_iter(certificate).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(certificates, key).unwrap();
        Self::listen("127.0.0.1:0".parse().unwrap(), Some(Arc::new(config)))
    }

    fn listen(address: SocketAddr, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (state, stopped) = (Arc::<Mutex<State>>::default(), Arc::new(AtomicBool::new(false)));
        let (shared, stop) = (Arc::clone(&state), Arc::clone(&stopped));
        let accepting = std::thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                if stop.load(Ordering::Acquire) {
                    return;
                }
                let (state, tls, stop) = (Arc::clone(&shared), tls.clone(), Arc::clone(&stop));
                lock(&state).connections += 1;
                std::thread::spawn(move || serve(socket, tls, &state, &stop));
            }
        });
        Self { address, state, stopped, accepting: Some(accepting) }
    }

    /// Its URL, without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it answers below `path` alone, as docker's registry with `http.prefix` and Nexus; its URL there.
    pub fn url_below(&self, path: &str) -> String {
        self.lock().base = path.to_owned();
        self.url() + path
    }

    /// Gives a repository a blob; its digest.
    pub fn blob(&self, repository: &str, bytes: &[u8]) -> String {
        self.lock().content.blob(repository, bytes)
    }

    /// Gives a repository a manifest under a tag; its digest.
    pub fn manifest(&self, repository: &str, tag: &str, bytes: &[u8]) -> String {
        self.lock().content.manifest(repository, Some(tag), OCI_MANIFEST, bytes)
    }

    /// Gives a repository an image of one layer: the digests of its manifest and of the layer.
    pub fn image(&self, repository: &str, tag: &str, layer: &[u8]) -> (String, String) {
        let config = format!("{{\"of\":\"{}\"}}", digest(layer));
        self.blob(repository, config.as_bytes());
        let layer_digest = self.blob(repository, layer);
        (self.manifest(repository, tag, &manifest(&[config.as_bytes(), layer])), layer_digest)
    }

    /// Takes a tag away.
    pub fn untag(&self, repository: &str, tag: &str) {
        self.lock().content.untag(repository, tag);
    }

    /// From now on its lists have pages.
    pub fn has_pages(&self) {
        self.lock().content.has_pages = true;
    }

    /// Whether a repository has a blob.
    pub fn has_blob(&self, repository: &str, digest: &str) -> bool {
        self.lock().content.has_blob(repository, digest)
    }

    /// How many uploads are open.
    pub fn uploads(&self) -> usize {
        self.lock().content.uploads()
    }

    /// From now on whoever comes is looked at.
    pub fn guard(&self, door: Door) {
        self.lock().door = door;
    }

    /// Tokens that were given out are good no longer.
    pub fn expire_tokens(&self) {
        self.lock().door.expire();
    }

    /// All requests of this method whose path holds `path` go wrong so.
    pub fn fault(&self, method: &'static str, path: &str, fault: Fault) {
        self.fault_some(method, path, 0..usize::MAX, fault);
    }

    /// The same for GET and HEAD.
    pub fn fault_reads(&self, path: &str, fault: Fault) {
        self.fault("GET", path, fault.clone());
        self.fault("HEAD", path, fault);
    }

    /// Only those of these numbers go wrong, counted from 0 and from now on.
    pub fn fault_some(&self, method: &'static str, path: &str, numbers: std::ops::Range<usize>, fault: Fault) {
        self.lock().rules.push(Rule { method, path: path.to_owned(), numbers, seen: 0, fault });
    }

    /// Nothing goes wrong any more.
    pub fn heal(&self) {
        self.lock().rules.clear();
    }

    /// All that it was asked.
    pub fn asked(&self) -> Vec<Asked> {
        self.lock().asked.clone()
    }

    /// All that it was asked of this method whose path holds `path`.
    pub fn asked_for(&self, method: &str, path: &str) -> Vec<Asked> {
        self.asked().into_iter().filter(|asked| asked.method == method && asked.path.contains(path)).collect()
    }

    /// How often it was.
    pub fn count(&self, method: &str, path: &str) -> usize {
        self.asked_for(method, path).len()
    }

    /// Waits until it was asked so often.
    pub fn wait_for(&self, method: &str, path: &str, count: usize) {
        wait_until(&format!("{count} {method} of {path} at the upstream"), || self.count(method, path) >= count);
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> usize {
        self.lock().connections
    }

    /// Forgets what it was asked.
    pub fn forget_asked(&self) {
        self.lock().asked.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for V2Upstream {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

/// A thread that panicked had no claim on it.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// One connection.
struct Wire {
    stream: BufReader<Box<dyn Stream>>,
    /// The same without TLS.
    socket: TcpStream,
}

fn serve(socket: TcpStream, tls: Option<Arc<ServerConfig>>, state: &Mutex<State>, stopped: &AtomicBool) {
    let _ = socket.set_read_timeout(Some(PATIENCE));
    let _ = socket.set_nodelay(true);
    let Ok(copy) = socket.try_clone() else { return };
    let stream: Box<dyn Stream> = match tls {
        None => Box::new(copy),
        Some(config) => Box::new(StreamOwned::new(ServerConnection::new(config).unwrap(), copy)),
    };
    let mut wire = Wire { stream: BufReader::new(stream), socket };
    while let Some(asked) = read(&mut wire.stream) {
        // Who is gone answers nobody, also on connections that are open.
        if stopped.load(Ordering::Acquire) {
            return;
        }
        let (reply, faults) = {
            let mut state = lock(state);
            state.asked.push(asked.clone());
            let faults = fault::matching(&mut state.rules, &asked);
            let refused = state.door.check(&asked);
            let reply = refused.unwrap_or_else(|| state.answer(&asked));
            (reply, faults)
        };
        if send::send(&mut wire, &asked, reply, &faults).is_none() {
            return;
        }
    }
}

fn read(reader: &mut impl BufRead) -> Option<Asked> {
    let mut asked = Asked::default();
    let first = line(reader)?;
    let mut words = first.split(' ');
    asked.method = words.next()?.to_owned();
    let target = words.next()?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    (asked.path, asked.query) = (path.to_owned(), query.replace("%3A", ":").replace("%2F", "/"));
    loop {
        let text = line(reader)?;
        let Some((name, value)) = text.split_once(": ") else { break };
        asked.headers.push((name.to_lowercase(), value.to_owned()));
    }
    asked.whole = body(reader, &mut asked).is_some();
    Some(asked)
}

fn body(reader: &mut impl BufRead, asked: &mut Asked) -> Option<()> {
    if asked.header("transfer-encoding") == Some("chunked") {
        loop {
            let size = usize::from_str_radix(&line(reader)?, 16).ok()?;
            let mut chunk = vec![0; size];
            reader.read_exact(&mut chunk).ok()?;
            asked.body.extend_from_slice(&chunk);
            line(reader)?;
            if size == 0 {
                return Some(());
            }
        }
    }
    let length: u64 = asked.header("content-length").map_or(Some(0), |length| length.parse().ok())?;
    let read = reader.by_ref().take(length).read_to_end(&mut asked.body).ok()?;
    (read as u64 == length).then_some(())
}

fn line(reader: &mut impl BufRead) -> Option<String> {
    let mut text = String::new();
    let read = reader.read_line(&mut text).ok()?;
    (read > 0).then(|| text.trim_end_matches(['\r', '\n']).to_owned())
}
