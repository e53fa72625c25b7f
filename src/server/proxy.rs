//! The PROXY protocol, versions 1 and 2: who a proxy says is at its other end (HAProxy's proxy-protocol.txt).

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The longest line of version 1, with its end (§2.1).
const LINE_BYTES_MAX: usize = 107;
/// The longest address block of version 2 that is read. The specification allows 64 KiB of extensions; those in use
/// take a few hundred bytes.
const BLOCK_BYTES_MAX: usize = 4096;
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Whom a proxy speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Announced {
    /// A client at the first address, which connected to the second.
    Client(SocketAddr, SocketAddr),
    /// Nobody, or nobody with an IP address: the connection is the proxy's own (a health check).
    Nobody,
}

/// Why there is no header.
#[derive(Debug)]
pub(super) enum HeaderError {
    /// What came is not one.
    Malformed,
    /// The connection broke.
    Io(io::Error),
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("no good PROXY header, which proxy_protocol = true demands"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for HeaderError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Read a header and nothing after it.
pub(super) async fn read_header(io: &mut (impl AsyncRead + Unpin)) -> Result<Announced, HeaderError> {
    // The shortest header of either version is longer than the signature.
    let mut start = [0; SIGNATURE.len()];
    io.read_exact(&mut start).await?;
    if start == SIGNATURE {
        return read_binary(io).await;
    }
    if !start.starts_with(b"PROXY ") {
        return Err(HeaderError::Malformed);
    }
    let mut line = Vec::with_capacity(LINE_BYTES_MAX);
    line.extend_from_slice(&start);
    while !line.ends_with(b"\r\n") {
        if line.len() == LINE_BYTES_MAX {
            return Err(HeaderError::Malformed);
        }
        line.push(io.read_u8().await?);
    }
    parse_line(&line).ok_or(HeaderError::Malformed)
}

async fn read_binary(io: &mut (impl AsyncRead + Unpin)) -> Result<Announced, HeaderError> {
    let mut head = [0; 4];
    io.read_exact(&mut head).await?;
    let [version_and_command, family, high, low] = head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > BLOCK_BYTES_MAX {
        return Err(HeaderError::Malformed);
    }
    let mut block = vec![0; length];
    io.read_exact(&mut block).await?;
    parse_block(version_and_command, family, &block).ok_or(HeaderError::Malformed)
}

/// `PROXY TCP4 source destination source-port destination-port\r\n`, TCP6 likewise, or `PROXY UNKNOWN…\r\n` (§2.1).
fn parse_line(line: &[u8]) -> Option<Announced> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix("\r\n")?;
    let mut words = line.strip_prefix("PROXY ")?.split(' ');
    let address: fn(&str) -> Option<IpAddr> = match words.next()? {
        "TCP4" => |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::from),
        "TCP6" => |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        "UNKNOWN" => return Some(Announced::Nobody),
        _ => return None,
    };
    let (source, destination) = (address(words.next()?)?, address(words.next()?)?);
    let (source_port, destination_port) = (port(words.next()?)?, port(words.next()?)?);
    let announced = Announced::Client((source, source_port).into(), (destination, destination_port).into());
    words.next().is_none().then_some(announced)
}

/// The specification forbids a sign and leading zeros, which `parse` would let through.
fn port(text: &str) -> Option<u16> {
    let plain = text == "0" || text.starts_with(|first| matches!(first, '1'..='9'));
    if plain { text.parse().ok() } else { None }
}

/// §2.2: what follows the signature; extensions after the addresses are passed over.
fn parse_block(version_and_command: u8, family: u8, block: &[u8]) -> Option<Announced> {
    match version_and_command {
        0x20 => return Some(Announced::Nobody),
        0x21 => {}
        _ => return None,
    }
    match family {
        0x11 => addresses::<4>(block),
        0x21 => addresses::<16>(block),
        // Unspecified, and UNIX sockets.
        0x00 | 0x31 => Some(Announced::Nobody),
        _ => None,
    }
}

/// Source address, destination address, source port, destination port.
fn addresses<const N: usize>(block: &[u8]) -> Option<Announced>
where
    IpAddr: From<[u8; N]>,
{
    let (source, block) = block.split_first_chunk::<N>()?;
    let (destination, block) = block.split_first_chunk::<N>()?;
    let (source_port, block) = block.split_first_chunk::<2>()?;
    let (destination_port, _) = block.split_first_chunk::<2>()?;
    let at = |address: [u8; N], port: [u8; 2]| SocketAddr::new(address.into(), u16::from_be_bytes(port));
    Some(Announced::Client(at(*source, *source_port), at(*destination, *destination_port)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is announced, and how many bytes are left for whoever reads next.
    fn read(mut bytes: &[u8]) -> Result<(Announced, usize), bool> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        match runtime.block_on(read_header(&mut bytes)) {
            Ok(announced) => Ok((announced, bytes.len())),
            Err(HeaderError::Malformed) => Err(true),
            Err(HeaderError::Io(_)) => Err(false),
        }
    }

    fn client(source: &str, destination: &str) -> Announced {
        Announced::Client(source.parse().unwrap(), destination.parse().unwrap())
    }

    #[test]
    fn lines_are_read_and_nothing_after_them() {
        let four = b"PROXY TCP4 192.0.2.1 198.51.100.2 40000 443\r\nGET / HTTP/1.1\r\n";
        assert_eq!(read(four), Ok((client("192.0.2.1:40000", "198.51.100.2:443"), 16)));
        let six = b"PROXY TCP6 2001:db8::1 2001:db8::2 0 65535\r\n\x16";
        assert_eq!(read(six), Ok((client("[2001:db8::1]:0", "[2001:db8::2]:65535"), 1)));
        assert_eq!(read(b"PROXY UNKNOWN\r\n\x16"), Ok((Announced::Nobody, 1)));
        assert_eq!(read(b"PROXY UNKNOWN ffff::1 what ever 1\r\n"), Ok((Announced::Nobody, 0)));
    }

    #[test]
    fn lines_that_are_none_are_refused() {
        for line in [
            "GET / HTTP/1.1\r\n\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 40000\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 40000 443 1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 +1 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 01 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 65536\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
            "PROXY TCP5 192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY  TCP4 192.0.2.1 198.51.100.2 1 2\r\n",
            &format!("PROXY UNKNOWN {}\r\n", "x".repeat(200)),
        ] {
            assert_eq!(read(line.as_bytes()), Err(true), "{line}");
        }
        assert_eq!(read(b"PROXY TCP4 192.0.2.1"), Err(false), "the connection ends first");
    }

    fn binary(version_and_command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[version_and_command, family], &length, block, b"\x16"].concat()
    }

    #[test]
    fn blocks_are_read_with_their_extensions() {
        let four = [192, 0, 2, 1, 198, 51, 100, 2, 0x9c, 0x40, 0x01, 0xbb, 4, 0, 1, 42];
        assert_eq!(read(&binary(0x21, 0x11, &four)), Ok((client("192.0.2.1:40000", "198.51.100.2:443"), 1)));
        let mut six = [0; 36];
        (six[15], six[31], six[33], six[35]) = (1, 2, 80, 81);
        assert_eq!(read(&binary(0x21, 0x21, &six)), Ok((client("[::1]:80", "[::2]:81"), 1)));
        assert_eq!(read(&binary(0x20, 0x11, &four)), Ok((Announced::Nobody, 1)), "LOCAL");
        assert_eq!(read(&binary(0x21, 0x00, &[])), Ok((Announced::Nobody, 1)), "UNSPEC");
        assert_eq!(read(&binary(0x21, 0x31, &[0; 216])), Ok((Announced::Nobody, 1)), "UNIX");
    }

    #[test]
    fn blocks_that_are_none_are_refused() {
        assert_eq!(read(&binary(0x11, 0x11, &[0; 12])), Err(true), "version");
        assert_eq!(read(&binary(0x22, 0x11, &[0; 12])), Err(true), "command");
        assert_eq!(read(&binary(0x21, 0x12, &[0; 12])), Err(true), "datagrams");
        assert_eq!(read(&binary(0x21, 0x11, &[0; 11])), Err(true), "short");
        assert_eq!(read(&binary(0x21, 0x11, &[0; BLOCK_BYTES_MAX + 1])), Err(true), "long");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(start in "(PROXY (TCP4|TCP6|UNKNOWN) ?)?", rest: Vec<u8>) {
            let _ = read(&[start.as_bytes(), &rest].concat());
            let _ = read(&[&SIGNATURE[..], &rest].concat());
        }
    }
}
