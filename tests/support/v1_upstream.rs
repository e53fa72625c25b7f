//! A small HTTP/1.1 server in place of a v1 registry: it answers as a test tells it, and remembers what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::json;

use super::gate::PATIENCE;

/// With this line in its answer a connection ends; without it, it is good for the next request.
const CLOSE: &[u8] = b"\r\nConnection: close\r\n";

/// One request, as it arrived.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    pub method: String,
    pub target: String,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether the body came to its announced end.
    pub whole: bool,
}

/// It listens until it is dropped.
pub struct V1Upstream {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// How many heads arrived, whatever becomes of their bodies.
    heads: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Asked {
    /// All values of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    }

    /// What a health check asks, which says nothing of a caller.
    fn is_check(&self) -> bool {
        self.all("x-forwarded-for").is_empty()
    }
}

impl V1Upstream {
    /// On a port of the system's choice; `answer` makes the bytes of each answer.
    pub fn start(answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), answer)
    }

    /// Where another one was before.
    pub fn start_at(address: SocketAddr, answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, heads, stopped) = (Arc::default(), Arc::default(), Arc::new(AtomicBool::new(false)));
        let (log, begun, stop, answer) =
            (Arc::clone(&asked), Arc::clone(&heads), Arc::clone(&stopped), Arc::new(answer));
        let accepting = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stop.load(Ordering::Acquire) {
                    return;
                }
                let (log, begun, answer) = (Arc::clone(&log), Arc::clone(&begun), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, &log, &begun, &*answer));
            }
        });
        Self { address, asked, heads, stopped, accepting: Some(accepting) }
    }

    /// One that tells what it was sent.
    pub fn echo() -> Self {
        Self::start(|asked| {
            let head = json!({ "line": format!("{} {}", asked.method, asked.target), "headers": asked.headers, "bytes": asked.body.len() });
            reply(200, &[("Content-Type", "application/json")], head.to_string().as_bytes())
        })
    }

    /// How many callers' requests have begun.
    pub fn heads(&self) -> usize {
        self.heads.load(Ordering::Acquire)
    }

    /// What it was asked by callers, without the health checks.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().iter().filter(|asked| !asked.is_check()).cloned().collect()
    }
}

impl Drop for V1Upstream {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

/// An address where nobody listens.
pub fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The bytes of an answer after which the connection ends.
pub fn reply(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!("HTTP/1.1 {status} X\r\n{lines}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn serve(
    stream: TcpStream,
    log: &Mutex<Vec<Asked>>,
    heads: &AtomicUsize,
    answer: &(dyn Fn(&Asked) -> Vec<u8> + Send + Sync),
) {
    let _ = stream.set_read_timeout(Some(PATIENCE));
    let Ok(mut writer) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    while let Some(asked) = read(&mut reader, heads) {
        log.lock().unwrap().push(asked.clone());
        let answer = answer(&asked);
        let closes = answer.windows(CLOSE.len()).any(|window| window == CLOSE);
        if writer.write_all(&answer).is_err() || closes {
            return;
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>, heads: &AtomicUsize) -> Option<Asked> {
    let mut asked = Asked::default();
    let first = line(reader)?;
    let mut words = first.split(' ');
    (asked.method, asked.target) = (words.next()?.to_owned(), words.next()?.to_owned());
    loop {
        let text = line(reader)?;
        let Some((name, value)) = text.split_once(": ") else { break };
        asked.headers.push((name.to_lowercase(), value.to_owned()));
    }
    if !asked.is_check() {
        heads.fetch_add(1, Ordering::AcqRel);
    }
    asked.whole = body(reader, &mut asked).is_some();
    Some(asked)
}

fn body(reader: &mut BufReader<TcpStream>, asked: &mut Asked) -> Option<()> {
    if asked.all("transfer-encoding") == ["chunked"] {
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
    let length = asked.all("content-length").first().map_or(Some(0), |length| length.parse().ok())?;
    asked.body = vec![0; length];
    reader.read_exact(&mut asked.body).ok()
}

fn line(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut text = String::new();
    let read = reader.read_line(&mut text).ok()?;
    (read > 0).then(|| text.trim_end_matches(['\r', '\n']).to_owned())
}
