//! The frames of an HTTP/2 connection, counted as they come. Those that carry no request and no data (PING, SETTINGS, PRIORITY,
//! WINDOW_UPDATE, RST_STREAM, unknown ones) are cheap to send and must be looked at; who sends many more of them than its
//! requests and answers need is told to go away (RFC 9113 §10.5: "ENHANCE_YOUR_CALM").

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// How many such frames a connection may send at once.
const OVERHEAD_FRAMES_BURST: u64 = 4_096;
/// How many it may send each second, for ever.
const OVERHEAD_FRAMES_PER_SECOND: u64 = 512;
/// For so many bytes that go either way it may send one more: clients acknowledge what they take by WINDOW_UPDATE, the eager ones
/// every 4 KiB, for the stream and for the connection.
const BYTES_PER_OVERHEAD_FRAME: u64 = 1 << 10;
/// So many more than it earned are read as fast as they come. A connection that sends more is served last: all of those together
/// are read at so many of these frames a second.
const OVERHEAD_FRAMES_UNPACED: u64 = 256;
const PACED_FRAMES_PER_SECOND: u64 = 8_192;

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

/// Whether a connection was told to go away. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Flooded(Arc<AtomicBool>);

impl Flooded {
    pub(super) fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// When the next frames of connections that flood are read, in turn. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Turnstile(Arc<Mutex<Option<Instant>>>);

impl Turnstile {
    /// When whoever sent `frames` may go on.
    fn pass(&self, frames: u64) -> Instant {
        let now = Instant::now();
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let turn =
            next.map_or(now, |next| next.max(now)) + Duration::from_secs(frames) / PACED_FRAMES_PER_SECOND as u32;
        *next = Some(turn);
        turn
    }
}

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
        allowance: Allowance,
        flooded: Flooded,
        turnstile: Turnstile,
        // Until it is read from again, if it must wait.
        turn: Option<Pin<Box<Sleep>>>,
        // What is handed on in place of all that comes after it, and how much of that was.
        farewell: Vec<u8>,
        said: usize,
    }
}

impl<I> Frames<I> {
    pub(super) fn new(io: I, flooded: Flooded, turnstile: Turnstile) -> Self {
        Self {
            io,
            preface_left: PREFACE_BYTES,
            header: [0; HEADER_BYTES],
            header_length: 0,
            payload_left: 0,
            allowance: Allowance::new(Instant::now()),
            flooded,
            turnstile,
            turn: None,
            farewell: vec![],
            said: 0,
        }
    }
}

impl<I: AsyncRead> AsyncRead for Frames<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_turn(context));
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
    /// Waits for what was read of it too fast.
    fn poll_turn(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if let owed @ 1.. = std::mem::take(&mut this.allowance.owed) {
            *this.turn = Some(Box::pin(sleep_until(this.turnstile.pass(owed))));
        }
        if let Some(turn) = this.turn {
            ready!(turn.as_mut().poll(context));
            *this.turn = None;
        }
        Poll::Ready(())
    }

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
            if this.flooded.is_so() {
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
                if !this.allowance.take(kind, flags, *this.payload_left) {
                    this.flooded.0.store(true, Ordering::Relaxed);
                }
            }
        }
        at
    }
}

/// A header block that never ends, of which HTTP/2 itself makes a GOAWAY with ENHANCE_YOUR_CALM.
fn farewell() -> Vec<u8> {
    let frame = |kind| [0, 0, 0, kind, 0, 0x7f, 0xff, 0xff, 0xff];
    let pieces = std::iter::repeat_n(frame(CONTINUATION), PIECES);
    std::iter::once(frame(HEADERS)).chain(pieces).flatten().collect()
}

/// How many frames of overhead a connection may send now.
#[derive(Debug)]
struct Allowance {
    frames: u64,
    /// Those of them that others must not wait for, since the last were waited for.
    owed: u64,
    /// Bytes that went either way, and do not make up a frame yet.
    bytes: u64,
    refilled: Instant,
}

impl Allowance {
    const fn new(now: Instant) -> Self {
        Self { frames: OVERHEAD_FRAMES_BURST, owed: 0, bytes: 0, refilled: now }
    }

    /// Counts one frame; false: it is one too many.
    fn take(&mut self, kind: u8, flags: u8, length: usize) -> bool {
        match kind {
            DATA if length > 0 || flags & END_STREAM != 0 => {
                self.carried(length as u64);
                return true;
            }
            // What a request may cost is limited elsewhere.
            HEADERS => return true,
            _ => {}
        }
        if self.is_loud() {
            self.refill(Instant::now());
        }
        self.frames = match self.frames.checked_sub(1) {
            None => return false,
            Some(left) => left,
        };
        self.owed += u64::from(self.is_loud());
        true
    }

    const fn is_loud(&self) -> bool {
        self.frames < OVERHEAD_FRAMES_BURST - OVERHEAD_FRAMES_UNPACED
    }

    /// So many bytes of requests or answers went by.
    const fn carried(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.add(self.bytes / BYTES_PER_OVERHEAD_FRAME);
        self.bytes %= BYTES_PER_OVERHEAD_FRAME;
    }

    fn refill(&mut self, now: Instant) {
        let milliseconds = u64::try_from(now.duration_since(self.refilled).as_millis()).unwrap_or(u64::MAX);
        let frames = milliseconds.saturating_mul(OVERHEAD_FRAMES_PER_SECOND) / 1_000;
        if frames > 0 {
            self.refilled = now;
            self.add(frames);
        }
    }

    const fn add(&mut self, frames: u64) {
        let all = self.frames.saturating_add(frames);
        self.frames = if all < OVERHEAD_FRAMES_BURST { all } else { OVERHEAD_FRAMES_BURST };
    }
}

impl<I: AsyncWrite> AsyncWrite for Frames<I> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.project();
        let written = ready!(this.io.poll_write(context, bytes))?;
        this.allowance.carried(written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let written = ready!(this.io.poll_write_vectored(context, slices))?;
        this.allowance.carried(written as u64);
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
    use proptest::prelude::*;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const PREFACE: &[u8; PREFACE_BYTES] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const PING: u8 = 6;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let [.., a, b, c] = length.to_be_bytes();
        [&[a, b, c, kind, flags, 0, 0, 0, 1][..], &vec![0; length]].concat()
    }

    /// What is handed on of `bytes`, which come in pieces of `piece`.
    async fn handed_on(bytes: &[u8], piece: usize) -> (Vec<u8>, bool) {
        let (mut client, server) = tokio::io::duplex(piece);
        let flooded = Flooded::default();
        let mut frames = Frames::new(server, flooded.clone(), Turnstile::default());
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
        drop(frames);
        (on, flooded.is_so())
    }

    #[tokio::test(start_paused = true)]
    async fn who_only_pings_is_told_to_go_away() {
        let pings = frame(PING, 0, 8).repeat(2 * OVERHEAD_FRAMES_BURST as usize);
        let (on, flooded) = handed_on(&[PREFACE, &pings[..]].concat(), 1_000).await;
        assert!(flooded);
        // The frame that was one too many is whole before the end is said.
        let good = on.strip_suffix(&farewell()[..]).unwrap();
        let frames = (good.len() - PREFACE_BYTES) / 17;
        assert_eq!(good, [PREFACE, &pings[..17 * frames]].concat());
        assert!(frames as u64 > OVERHEAD_FRAMES_BURST);
    }

    #[test]
    fn who_takes_what_it_asked_for_may_acknowledge_all_of_it() {
        let mut allowance = Allowance::new(Instant::now());
        for _ in 0..10 * OVERHEAD_FRAMES_BURST {
            allowance.carried(4 << 10);
            assert!(allowance.take(8, 0, 4) && allowance.take(8, 0, 4));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_quiet_may_send_more() {
        let mut allowance = Allowance::new(Instant::now());
        while allowance.take(PING, 0, 8) {}
        tokio::time::advance(Duration::from_secs(1)).await;
        let more = std::iter::from_fn(|| allowance.take(PING, 0, 8).then_some(())).count() as u64;
        assert_eq!(more, OVERHEAD_FRAMES_PER_SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_flood_are_read_in_turn_and_nobody_else_waits() {
        let turnstile = Turnstile::default();
        let pings = |count: u64| [PREFACE, &frame(PING, 0, 8).repeat(count as usize)[..]].concat();
        let read = |count| {
            let (bytes, turnstile) = (pings(count), turnstile.clone());
            async move {
                let mut frames = Frames::new(&bytes[..], Flooded::default(), turnstile);
                let (began, mut on) = (Instant::now(), vec![]);
                frames.read_to_end(&mut on).await.unwrap();
                assert_eq!(on, bytes);
                began.elapsed().as_secs_f64()
            }
        };
        assert_eq!(read(OVERHEAD_FRAMES_UNPACED).await, 0.0);
        let (one, two, quiet) = tokio::join!(read(1_280), read(1_280), read(OVERHEAD_FRAMES_UNPACED));
        let each = 1_024.0 / PACED_FRAMES_PER_SECOND as f64;
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
