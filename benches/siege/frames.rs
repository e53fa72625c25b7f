//! HTTP/2 by hand (RFC 9113), so that what no library would send can be sent.

use std::io;
use std::net::SocketAddr;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::Way;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const FRAME_HEAD: usize = 9;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
/// A type that nobody has given a meaning.
pub const UNKNOWN: u8 = 0xfa;

pub const END_STREAM: u8 = 0x1;
/// Of SETTINGS and PING.
pub const ACK: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;

pub const INITIAL_WINDOW_SIZE: u16 = 4;
/// What a window is before anybody says otherwise, in bytes.
pub const WINDOW: i64 = 65_535;
/// The longest payload of a frame that everybody takes.
pub const PAYLOAD_MAX: usize = 16_384;

pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

pub fn settings(entries: &[(u16, u32)]) -> Vec<u8> {
    let entry = |(name, value): &(u16, u32)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(SETTINGS, 0, 0, &entries.iter().flat_map(entry).collect::<Vec<_>>())
}

pub fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

/// The header list of a request; nothing of it enters the other side's table (RFC 7541, 6.2.2).
pub fn request(method: &str, path: &str, authority: SocketAddr, headers: &[(&str, &str)]) -> Vec<u8> {
    /// Where the static table has these names (RFC 7541, appendix A).
    const AUTHORITY: u8 = 1;
    const METHOD: u8 = 2;
    const PATH: u8 = 4;
    /// `:scheme: http`, name and value.
    const SCHEME_HTTP: u8 = 0x80 | 6;
    let mut block = vec![METHOD];
    text(&mut block, method);
    block.extend([SCHEME_HTTP, PATH]);
    text(&mut block, path);
    block.push(AUTHORITY);
    text(&mut block, &authority.to_string());
    for (name, value) in headers {
        block.push(0);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

/// A string without Huffman's code; its length has a prefix of seven bits.
fn text(block: &mut Vec<u8>, text: &str) {
    const PREFIX_MAX: usize = 127;
    let mut length = text.len();
    if length < PREFIX_MAX {
        block.push(length as u8);
    } else {
        block.push(PREFIX_MAX as u8);
        length -= PREFIX_MAX;
        while length >= 128 {
            block.push((length % 128) as u8 | 0x80);
            length /= 128;
        }
        block.push(length as u8);
    }
    block.extend_from_slice(text.as_bytes());
}

/// Takes the first whole frame out of what has come.
pub fn take(bytes: &mut BytesMut) -> Option<Frame> {
    let head: [u8; FRAME_HEAD] = bytes.get(..FRAME_HEAD)?.try_into().ok()?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    if bytes.len() < FRAME_HEAD + length {
        return None;
    }
    bytes.advance(FRAME_HEAD);
    let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
    Some(Frame { kind: head[3], flags: head[4], stream, payload: bytes.split_to(length).to_vec() })
}

pub struct Connection {
    pub stream: TcpStream,
    bytes: BytesMut,
}

impl Connection {
    pub async fn open(way: Way, entries: &[(u16, u32)]) -> io::Result<Self> {
        let mut stream = way.connect().await?;
        stream.write_all(&[PREFACE, &settings(entries)].concat()).await?;
        Ok(Self { stream, bytes: BytesMut::new() })
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The next frame. Whoever stops waiting loses nothing of it.
    pub async fn next(&mut self) -> io::Result<Frame> {
        loop {
            if let Some(frame) = take(&mut self.bytes) {
                return Ok(frame);
            }
            if self.stream.read_buf(&mut self.bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Says that SETTINGS came, as everybody must.
    pub async fn acknowledge(&mut self, received: &Frame) -> io::Result<()> {
        match (received.kind, received.flags & ACK) {
            (SETTINGS, 0) => self.send(&frame(SETTINGS, ACK, 0, &[])).await,
            (PING, 0) => self.send(&frame(PING, ACK, 0, &received.payload)).await,
            _ => Ok(()),
        }
    }
}
