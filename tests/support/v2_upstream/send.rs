//! How an answer is sent, right or wrong.

use std::io::{Read, Write};
use std::time::Duration;

use super::fault::{Fault, Latch};
use super::{Asked, Wire};

/// What is appended where more comes than was asked for.
const EXTRA: &[u8] = b"and more";
/// An answer that nobody asked for.
const UNASKED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong";

/// An answer before it goes wrong.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// How the body is framed.
#[derive(Clone, Copy, PartialEq)]
enum Framing {
    /// The length, and how far it is off.
    Length(i64),
    Chunked,
    Close,
}

/// What happens at a place of the body.
enum Act {
    Hold(Latch),
    End,
    Reset,
    Silent,
}

impl Reply {
    pub(super) fn new(status: u16) -> Self {
        Self { status, headers: vec![], body: vec![] }
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        if !value.is_empty() {
            self.headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    pub(super) fn body(self, bytes: &[u8]) -> Self {
        Self { body: bytes.to_vec(), ..self }
    }

    pub(super) fn error(status: u16, code: &str) -> Self {
        let text = format!("{{\"errors\":[{{\"code\":\"{code}\",\"message\":\"the upstream says {code}\"}}]}}");
        Self::new(status).header("Content-Type", "application/json").body(text.as_bytes())
    }

    /// The same from a registry whose paths begin with `base`.
    pub(super) fn below(mut self, base: &str) -> Self {
        for (name, value) in self.headers.iter_mut().filter(|(_, value)| value.contains("/v2/")) {
            if matches!(name.as_str(), "Location" | "Link") {
                *value = value.replacen("/v2/", &format!("{base}/v2/"), 1);
            }
        }
        self
    }

    /// The part that was asked for, of an answer that has the whole.
    fn ranged(self, asked: &Asked, shift: usize) -> Self {
        let range = asked.header("range").filter(|_| self.status == 200 && asked.path.contains("/blobs/"));
        let Some((first, last)) = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) else {
            return self;
        };
        let length = self.body.len();
        let first = first.parse::<usize>().unwrap() - shift;
        if first >= length {
            return Self::error(416, "RANGE_INVALID").header("Content-Range", &format!("bytes */{length}"));
        }
        let last = last.parse::<usize>().unwrap_or(length - 1).min(length - 1) - shift;
        let part = self.body[first..=last].to_vec();
        let range = format!("bytes {first}-{last}/{length}");
        Self { status: 206, body: part, ..self }.header("Content-Range", &range)
    }

    fn spoilt(self, asked: &Asked, fault: &Fault) -> Self {
        match fault {
            Fault::WrongBytes => {
                let body = self.body.iter().map(|byte| byte ^ 0x55).collect();
                Self { body, ..self }
            }
            Fault::Extra | Fault::ExtraChunked => {
                let body = [&self.body, EXTRA].concat();
                Self { body, ..self }
            }
            Fault::Status(status) => Self::error(*status, "TOOMANYREQUESTS"),
            Fault::Bare(status) => Self::new(*status),
            Fault::StatusForRange(status) if asked.header("range").is_some() => Self::error(*status, "UNSUPPORTED"),
            Fault::StatusRetryAfter(status, after) => {
                Self::error(*status, "TOOMANYREQUESTS").header("Retry-After", &after.to_string())
            }
            Fault::Instead(kind, body) => Self::new(200).header("Content-Type", kind).body(body.as_bytes()),
            Fault::Header(name, value) => self.header(name, value),
            Fault::Type(kind) => self.header("Content-Type", kind),
            Fault::Redirect(to) => Self::new(307).header("Location", to),
            Fault::RedirectHost(host) => Self::new(307).header("Location", &format!("{host}{}", asked.path)),
            Fault::Digest(digest) => self.header("Docker-Content-Digest", digest),
            _ => self,
        }
    }
}

/// Sends it; `None`, if the connection is over.
pub(super) fn send(wire: &mut Wire, asked: &Asked, reply: Reply, faults: &[Fault]) -> Option<()> {
    let is = |wanted: fn(&Fault) -> bool| faults.iter().any(wanted);
    let mut reply = reply;
    if !is(|fault| matches!(fault, Fault::WholeForRange)) {
        let is_shifted = is(|fault| matches!(fault, Fault::WrongRange)) && asked.header("range").is_some();
        reply = reply.ranged(asked, usize::from(is_shifted));
    }
    reply = faults.iter().fold(reply, |reply, fault| reply.spoilt(asked, fault));
    for fault in faults {
        match fault {
            Fault::Hold(latch) => latch.wait().then_some(())?,
            Fault::Silent => return until_closed(wire),
            _ => {}
        }
    }
    let framing = framing(faults);
    write(wire, head(&reply, framing).as_bytes())?;
    if asked.method == "HEAD" || matches!(reply.status, 204 | 304) {
        return Some(());
    }
    send_body(wire, &reply.body, framing, faults)?;
    if is(|fault| matches!(fault, Fault::Unasked)) {
        write(wire, UNASKED)?;
    }
    match framing {
        Framing::Length(off) if off <= 0 => asked.whole.then_some(()),
        Framing::Chunked => Some(()),
        _ => None,
    }
}

fn framing(faults: &[Fault]) -> Framing {
    let found = faults.iter().find_map(|fault| match fault {
        Fault::NoLength => Some(Framing::Close),
        Fault::ExtraChunked => Some(Framing::Chunked),
        Fault::Length(off) => Some(Framing::Length(*off)),
        _ => None,
    });
    found.unwrap_or(Framing::Length(0))
}

fn head(reply: &Reply, framing: Framing) -> String {
    let mut head = format!("HTTP/1.1 {} X\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let length = i64::try_from(reply.body.len()).unwrap();
    head += &match framing {
        Framing::Length(off) => format!("Content-Length: {}\r\n\r\n", length + off),
        Framing::Chunked => "Transfer-Encoding: chunked\r\n\r\n".to_owned(),
        Framing::Close => "Connection: close\r\n\r\n".to_owned(),
    };
    head
}

fn send_body(wire: &mut Wire, body: &[u8], framing: Framing, faults: &[Fault]) -> Option<()> {
    let mut sent = 0;
    for (end, act) in acts(body.len(), faults) {
        send_part(wire, &body[sent..end], framing, faults)?;
        sent = end;
        match act {
            Act::Hold(latch) => latch.wait().then_some(())?,
            Act::End => return None,
            Act::Silent => return until_closed(wire),
            Act::Reset => {
                // What the peer has by now stays readable there; what is left to send is lost.
                let _ = rustix::net::sockopt::set_socket_linger(&wire.socket, Some(Duration::ZERO));
                return None;
            }
        }
    }
    send_part(wire, &body[sent..], framing, faults)?;
    if framing == Framing::Chunked { write(wire, b"0\r\n\r\n") } else { Some(()) }
}

/// What happens where, in order.
fn acts(length: usize, faults: &[Fault]) -> Vec<(usize, Act)> {
    let mut acts: Vec<(usize, Act)> = faults
        .iter()
        .filter_map(|fault| match fault {
            Fault::HoldAt(at, latch) => Some((length * at / 100, Act::Hold(latch.clone()))),
            Fault::Truncated(at) => Some((length * at / 100, Act::End)),
            Fault::TruncatedAfter(bytes) => (length > *bytes).then_some((*bytes, Act::End)),
            Fault::Reset(at) => Some((length * at / 100, Act::Reset)),
            Fault::SilentAt(at) => Some((length * at / 100, Act::Silent)),
            _ => None,
        })
        .collect();
    acts.sort_by_key(|(at, _)| *at);
    acts
}

fn send_part(wire: &mut Wire, part: &[u8], framing: Framing, faults: &[Fault]) -> Option<()> {
    let pause = faults.iter().find_map(|fault| if let Fault::Trickle(pause) = fault { Some(*pause) } else { None });
    if let Some(pause) = pause {
        wire.socket.set_read_timeout(Some(pause)).ok()?;
        for byte in part {
            write(wire, &[*byte])?;
            // The pause is the time in which the peer's end would be read.
            match wire.socket.read(&mut [0]) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                _ => return None,
            }
        }
        return Some(());
    }
    if framing == Framing::Chunked && !part.is_empty() {
        write(wire, format!("{:x}\r\n", part.len()).as_bytes())?;
        write(wire, part)?;
        return write(wire, b"\r\n");
    }
    write(wire, part)
}

fn write(wire: &mut Wire, bytes: &[u8]) -> Option<()> {
    let stream = wire.stream.get_mut();
    stream.write_all(bytes).and_then(|()| stream.flush()).ok()
}

/// Says nothing until the peer has enough of it.
fn until_closed(wire: &mut Wire) -> Option<()> {
    let _ = wire.stream.read(&mut [0]);
    None
}
