//! A small, strict HTTP/1.1 client: one connection per request, every header of an answer known.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::gate::PATIENCE;

/// Headers that the gateway may send. One that is not here was not meant to be sent.
const KNOWN_HEADERS: [&str; 31] = [
    "accept-ranges",
    "allow",
    "cache-control",
    "connection",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "docker-content-digest",
    "docker-distribution-api-version",
    "docker-upload-uuid",
    "etag",
    "link",
    "location",
    "oci-chunk-min-length",
    "oci-filters-applied",
    "oci-namespace",
    "oci-subject",
    "oci-tag",
    "range",
    "retry-after",
    "strict-transport-security",
    "transfer-encoding",
    "vary",
    "warning",
    "www-authenticate",
    "x-content-type-options",
    "x-docker-endpoints",
    "x-docker-registry-standalone",
    "x-docker-token",
    "x-request-id",
];

#[derive(Clone)]
pub struct Client {
    pub(crate) address: SocketAddr,
    ca: Option<PathBuf>,
    headers: Vec<(String, String)>,
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

pub trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

impl Client {
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, ca: None, headers: Vec::new() }
    }

    pub fn tls(address: SocketAddr, ca: &Path) -> Self {
        Self { address, ca: Some(ca.to_owned()), headers: Vec::new() }
    }

    /// The same, as a user.
    pub fn user(&self, name: &str, password: &str) -> Self {
        use base64::Engine;
        let text = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
        self.with("Authorization", &format!("Basic {text}"))
    }

    /// The same, with a header on every request.
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.push((name.to_owned(), value.to_owned()));
        client
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }

    pub fn head(&self, path: &str) -> Answer {
        self.send("HEAD", path, &[], b"")
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], b"")
    }

    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_send(method, path, headers, body).unwrap_or_else(|text| panic!("{method} {path}: {text}"))
    }

    /// The same for a gateway that may end meanwhile; the error says how far the answer came.
    pub(crate) fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, String> {
        let mut stream = self.try_connect().map_err(|error| error.to_string())?;
        let request = self.request(method, path, headers, body);
        let _ = stream.write_all(&request).and_then(|()| stream.flush());
        let answer = Answer::read(&mut stream, method)?;
        for (name, _) in &answer.headers {
            assert!(KNOWN_HEADERS.contains(&name.as_str()), "{method} {path}: unknown header {name}");
        }
        Ok(answer)
    }

    fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\n", self.address.port());
        for (name, value) in self.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).chain(headers.iter().copied()) {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() || matches!(method, "PUT" | "POST" | "PATCH") {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        let mut request = (head + "\r\n").into_bytes();
        request.extend_from_slice(body);
        request
    }

    /// Sends bytes as they are and reads one answer. A server may close before it has read everything.
    pub fn raw(&self, request: &[u8], method: &str) -> Answer {
        let mut stream = self.connect();
        let _ = stream.write_all(request).and_then(|()| stream.flush());
        Answer::read(&mut stream, method).unwrap_or_else(|text| panic!("{method}: {text}"))
    }

    pub fn connect(&self) -> Box<dyn Stream> {
        self.try_connect().unwrap()
    }

    fn try_connect(&self) -> std::io::Result<Box<dyn Stream>> {
        let socket = TcpStream::connect(self.address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        Ok(match &self.ca {
            None => Box::new(socket),
            Some(ca) => Box::new(StreamOwned::new(connection(ca), socket)),
        })
    }
}

fn connection(ca: &Path) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap()
}

impl Answer {
    /// Reads one answer; the error says what was wrong with it.
    pub fn read(stream: &mut dyn Stream, method: &str) -> Result<Self, String> {
        let mut bytes = Vec::new();
        // An end without close_notify is an error of rustls; what was read until then is there.
        let end = stream.read_to_end(&mut bytes);
        let split = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let split = split.ok_or_else(|| format!("no head in {:?} ({end:?})", String::from_utf8_lossy(&bytes)))?;
        let head = String::from_utf8(bytes[..split].to_vec()).map_err(|error| error.to_string())?;
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).ok_or("no status")?;
        let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        let headers: Vec<_> = lines.filter_map(header).collect();
        let mut answer = Self { status, headers, body: bytes[split + 4..].to_vec() };
        answer.frame(method)?;
        Ok(answer)
    }

    /// Reads the next answer of several, and nothing after it; `None` where there is none.
    pub fn next(stream: &mut dyn Stream, method: &str) -> Option<Self> {
        let head = take_until(stream, b"\r\n\r\n")?;
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        let mut answer = Self { status, headers: lines.filter_map(header).collect(), body: Vec::new() };
        if answer.header("transfer-encoding") == Some("chunked") {
            let chunks = take_until(stream, b"0\r\n\r\n").unwrap();
            answer.body = unchunk(&chunks).unwrap();
        } else if method != "HEAD" && !matches!(status, 204 | 304) {
            answer.body = vec![0; answer.header("content-length").unwrap().parse().unwrap()];
            stream.read_exact(&mut answer.body).unwrap();
        }
        Some(answer)
    }

    /// Checks that the body has the length that was announced.
    fn frame(&mut self, method: &str) -> Result<(), String> {
        if self.header("transfer-encoding") == Some("chunked") {
            self.body = unchunk(&self.body).ok_or("the chunks do not end")?;
            return Ok(());
        }
        let length = self.header("content-length").map(|length| length.parse::<usize>().unwrap());
        let expected = if method == "HEAD" || self.status == 204 || self.status == 304 { Some(0) } else { length };
        match expected {
            Some(length) if length != self.body.len() => Err(format!("{} bytes of {length}", self.body.len())),
            _ => Ok(()),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The code of the first OCI error.
    pub fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap_or_else(|| panic!("no code: {}", self.text())).to_owned()
    }

    /// The message of the first OCI error, without the id of the request.
    pub fn message(&self) -> String {
        let message = self.whole_message();
        message.split(" (request ").next().unwrap().to_owned()
    }

    /// The same with it.
    pub fn whole_message(&self) -> String {
        self.json()["errors"][0]["message"].as_str().unwrap_or_else(|| panic!("no message: {}", self.text())).to_owned()
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?} {}", self.headers, self.text());
        self
    }
}

/// Reads up to `end`; `None` if nothing comes any more.
fn take_until(stream: &mut dyn Stream, end: &[u8]) -> Option<Vec<u8>> {
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    while !bytes.ends_with(end) {
        match stream.read(&mut byte) {
            Ok(1) => bytes.push(byte[0]),
            _ if bytes.is_empty() => return None,
            other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&bytes)),
        }
    }
    Some(bytes)
}

fn unchunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).ok()?.split(';').next()?, 16).ok()?;
        bytes = &bytes[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(bytes.get(..size)?);
        bytes = bytes.get(size + 2..)?;
    }
}
