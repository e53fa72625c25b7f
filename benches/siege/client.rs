//! The plainest client of HTTP/1.1: one request on a connection of its own, from an address that is chosen.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::Outcome;

/// Who waits longer than this for a whole answer has failed.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// From where to where. All of 127.0.0.0/8 is this machine, so one driver can be many clients.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    pub from: Ipv4Addr,
    pub to: SocketAddr,
}

pub struct Answer {
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    pub fn expect(self, status: u16) -> Outcome<Self> {
        if self.status == status { Ok(self) } else { Err(format!("status {}, not {status}", self.status).into()) }
    }
}

impl Way {
    pub async fn connect(self) -> io::Result<TcpStream> {
        self.connect_with(None).await
    }

    /// A small receive buffer makes a reader that does not read felt at once.
    pub async fn connect_with(self, receive_buffer: Option<u32>) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.bind((self.from, 0).into())?;
        let stream = socket.connect(self.to).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// `headers` are whole lines, each with its end.
    pub async fn ask(self, method: &str, path: &str, headers: &str, body: &[u8]) -> Outcome<Answer> {
        tokio::time::timeout(PATIENCE, self.exchange(method, path, headers, body))
            .await
            .map_err(|_| format!("{method} {path}: no answer in {} s", PATIENCE.as_secs()))?
            .map_err(|error| format!("{method} {path}: {error}").into())
    }

    async fn exchange(self, method: &str, path: &str, headers: &str, body: &[u8]) -> Outcome<Answer> {
        let mut stream = self.connect().await?;
        let length = match method {
            "PUT" | "POST" | "PATCH" => format!("Content-Length: {}\r\n", body.len()),
            _ => String::new(),
        };
        let host = self.to;
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{length}{headers}\r\n");
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body).await?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await?;
        answer(&bytes, method)
    }
}

fn answer(bytes: &[u8], method: &str) -> Outcome<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").ok_or("closed without an answer")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or("not an answer of HTTP/1.1")?;
    let answer = Answer { status, head, body: bytes[end + 4..].to_vec() };
    let length = answer.header("content-length").and_then(|text| text.parse::<usize>().ok());
    match length {
        Some(length) if method != "HEAD" && length != answer.body.len() => {
            Err(format!("{} of {length} bytes of the body", answer.body.len()).into())
        }
        _ => Ok(answer),
    }
}
