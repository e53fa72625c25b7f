//! The frames of an HTTP/2 connection, counted as they come. Those that carry no request and no data (PING, SETTINGS, PRIORITY,
//! WINDOW_UPDATE, RST_STREAM, unknown ones) are cheap to send and must be looked at; who sends many more of them than its
//! requests and answers need is told to go away (RFC 9113 §10.5: "ENHANCE_YOUR_CALM").

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pace::{Entrance, Pace};
use super::socket::Sleeper;

/// For so many bytes that go either way one such frame is no flood: clients acknowledge what they take by WINDOW_UPDATE, the
/// eager ones every 4 KiB, for the stream and for the connection.
const BYTES_PER_FRAME: u64 = 1 << 10;

/// RFC 9113 §3.4: what a client says first.
const PREFACE_BYTES: usize = 24;
/// RFC 9113 §4.1.
const HEADER_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
/// A header block in more pieces than this is refused whatever `limits.http2_header_list_bytes` is.
const PIECES: usize = 128;

pin_project! {
    /// The bytes of an HTTP/2 connection up to the frame that was one too many.
    #[derive(Debug)]
    pub(super) struct Frames<I> {
        #[pin]
        io: I,
        preface_left: usize,
        header: [u8; HEADER_BYTES],
        header_length: usize,
        payload_left: usize,
        pace: Pace,
        // A frame was one too many.
        flooded: bool,
        // What is handed on in place of all that comes after it, and how much of that was.
        farewell: Vec<u8>,
        said: usize,
    }
}

impl<I> Frames<I> {
    pub(super) fn new(io: I, entrance: Entrance) -> Self {
        Self {
            io,
            preface_left: PREFACE_BYTES,
            header: [0; HEADER_BYTES],
            header_length: 0,
            payload_left: 0,
            pace: Pace::new(BYTES_PER_FRAME, entrance),
            flooded: false,
            farewell: vec![],
            said: 0,
        }
    }
}

impl<I: AsyncRead + Sleeper> AsyncRead for Frames<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.as_mut().project();
        ready!(this.pace.poll_turn(this.io, context));
        let before = buffer.filled().len();
        if self.farewell.is_empty() {
            ready!(self.as_mut().project().io.poll_read(context, buffer))?;
            let good = self.as_mut().follow(&buffer.filled()[before..]);
            buffer.set_filled(before + good);
            if self.farewell.is_empty() || good > 0 {
                return Poll::Ready(Ok(()));
            }
        }
        // When all of it was said, this is the end: nothing that comes is read.
        let this = self.project();
        let length = buffer.remaining().min(this.farewell.len() - *this.said);
        buffer.put_slice(&this.farewell[*this.said..*this.said + length]);
        *this.said += length;
        Poll::Ready(Ok(()))
    }
}

impl<I> Frames<I> {
    /// Counts the frames of `came`; how many of its bytes may be handed on.
    fn follow(self: Pin<&mut Self>, came: &[u8]) -> usize {
        let this = self.project();
        let mut at = came.len().min(*this.preface_left);
        *this.preface_left -= at;
        while at < came.len() {
            let payload = (came.len() - at).min(*this.payload_left);
            at += payload;
            *this.payload_left -= payload;
            if *this.payload_left > 0 {
                break;
            }
            // Here a frame may begin; the one before it, which may have been one too many, is whole.
            if *this.flooded {
                *this.farewell = farewell();
                return at;
            }
            let part = (came.len() - at).min(HEADER_BYTES - *this.header_length);
            this.header[*this.header_length..*this.header_length + part].copy_from_slice(&came[at..at + part]);
            at += part;
            *this.header_length += part;
            if *this.header_length == HEADER_BYTES {
                *this.header_length = 0;
                let [a, b, c, kind, flags, ..] = *this.header;
                *this.payload_left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                if !count(this.pace, kind, flags, *this.payload_left) {
                    *this.flooded = true;
                }
            }
        }
        at
    }
}

/// Counts one frame; false: it is one too many.
fn count(pace: &mut Pace, kind: u8, flags: u8, length: usize) -> bool {
    match kind {
        DATA if length > 0 || flags & END_STREAM != 0 => {
            pace.carried(length as u64);
            true
        }
        // What a request may cost is limited elsewhere.
        HEADERS => true,
        _ => pace.spend(1),
    }
}

/// A header block that never ends, of which HTTP/2 itself makes a GOAWAY with ENHANCE_YOUR_CALM.
fn farewell() -> Vec<u8> {
    let frame = |kind| [0, 0, 0, kind, 0, 0x7f, 0xff, 0xff, 0xff];
    let pieces = std::iter::repeat_n(frame(CONTINUATION), PIECES);
    std::iter::once(frame(HEADERS)).chain(pieces).flatten().collect()
}

impl<I: AsyncWrite> AsyncWrite for Frames<I> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.project();
        let written = ready!(this.io.poll_write(context, bytes))?;
        this.pace.carried(written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let written = ready!(this.io.poll_write_vectored(context, slices))?;
        this.pace.carried(written as u64);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::pace::{BURST, PACED_PER_SECOND, Turnstile, UNPACED};
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    const PREFACE: &[u8; PREFACE_BYTES] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const PING: u8 = 6;
    const CLIENT: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let [.., a, b, c] = length.to_be_bytes();
        [&[a, b, c, kind, flags, 0, 0, 0, 1][..], &vec![0; length]].concat()
    }

    /// What is handed on of `bytes`, which come in pieces of `piece`.
    async fn handed_on(bytes: &[u8], piece: usize) -> (Vec<u8>, bool) {
        let (mut client, server) = tokio::io::duplex(piece);
        let mut frames = Frames::new(server, Turnstile::default().entrance(CLIENT));
        let mut on = vec![];
        let sent = async move {
            let _ = client.write_all(bytes).await;
        };
        let read = async { frames.read_to_end(&mut on).await };
        // Where nothing more is read, what is left to send stays with its sender.
        tokio::select! {
            biased;
            outcome = read => outcome.map(drop).unwrap(),
            () = async { sent.await; std::future::pending().await } => {}
        }
        let flooded = frames.flooded;
        drop(frames);
        (on, flooded)
    }

    #[tokio::test(start_paused = true)]
    async fn who_only_pings_is_told_to_go_away() {
        let pings = frame(PING, 0, 8).repeat(2 * BURST as usize);
        let (on, flooded) = handed_on(&[PREFACE, &pings[..]].concat(), 1_000).await;
        assert!(flooded);
        // The frame that was one too many is whole before the end is said.
        let good = on.strip_suffix(&farewell()[..]).unwrap();
        let frames = (good.len() - PREFACE_BYTES) / 17;
        assert_eq!(good, [PREFACE, &pings[..17 * frames]].concat());
        assert!(frames as u64 > BURST);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_flood_are_read_in_turn_and_nobody_else_waits() {
        let turnstile = Turnstile::default();
        let pings = |count: u64| [PREFACE, &frame(PING, 0, 8).repeat(count as usize)[..]].concat();
        let read = |count, client: u8| {
            let (bytes, entrance) = (pings(count), turnstile.entrance([192, 0, 2, client].into()));
            async move {
                let mut frames = Frames::new(&bytes[..], entrance);
                let (began, mut on) = (Instant::now(), vec![]);
                frames.read_to_end(&mut on).await.unwrap();
                assert_eq!(on, bytes);
                began.elapsed().as_secs_f64()
            }
        };
        assert_eq!(read(UNPACED, 1).await, 0.0);
        let (one, two, quiet) = tokio::join!(read(1_280, 2), read(1_280, 3), read(UNPACED, 4));
        let each = 1_024.0 / PACED_PER_SECOND as f64;
        assert_eq!(quiet, 0.0);
        assert!(one.max(two) > 1.5 * each && one.max(two) < 2.1 * each, "{one} {two} {each}");
    }

    proptest! {
        /// Few frames of any kind pass as they are, however they are cut.
        #[test]
        fn what_is_no_flood_passes_unchanged(
            frames in prop::collection::vec((0_u8..12, any::<u8>(), 0_usize..100), 0..50),
            piece in 1_usize..200,
        ) {
            let frames = frames.into_iter().flat_map(|(kind, flags, length)| frame(kind, flags, length));
            let bytes: Vec<u8> = PREFACE.iter().copied().chain(frames).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (on, flooded) = runtime.block_on(handed_on(&bytes, piece));
            prop_assert_eq!(on, bytes);
            prop_assert!(!flooded);
        }
    }
}
