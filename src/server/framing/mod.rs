//! Where the requests of an HTTP/1 connection begin and end, as strictly as RFC 9112 can be read.
//!
//! hyper reads more than that: of a request with both Content-Length and Transfer-Encoding it shows one, two equal
//! lengths it makes one, and a line may end in a bare LF. Whoever stands before or behind us may read such bytes in
//! another way, and then sees other requests than we do. So the bytes pass here first, and what has two readings goes no
//! further. No byte is kept here, and whichever way a connection is cut into reads, the outcome is the same.

mod chunks;
mod head;

#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::gateway::BadHead;

use chunks::{Chunks, Progress};
use head::{Following, Head};

/// How large a head may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeadLimits {
    /// Bytes from the request line to the empty line, both with their ends. The extensions and trailers of a chunked body
    /// may together have as many.
    pub(super) bytes: usize,
    /// Header lines.
    pub(super) headers: usize,
}

/// Follows a connection from request to request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Framing {
    limits: HeadLimits,
    place: Place,
    heads: u64,
    chunks: u64,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Head(Head),
    /// A body of which so many bytes are still to come.
    Body(u64),
    Chunks(Chunks),
    /// Nothing that can be known.
    Lost,
}

/// What became of bytes that were shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Followed {
    /// So many of them, from the first on, are good and need not be shown again. The others have to be, with what comes
    /// after them: they are a head that is not complete.
    pub(super) good: usize,
    /// Why none after those is ever good.
    pub(super) refusal: Option<Refusal>,
}

/// What has two readings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The head that begins behind the good bytes.
    Head {
        /// What is wrong with it.
        reason: BadHead,
        /// Where its request line is, counted from the first byte that is not good and without the line's end; `None` if
        /// that is what is wrong.
        request_line: Option<Range<usize>>,
    },
    /// A chunked body.
    Body,
}

impl Framing {
    /// Of a connection from which nothing came yet.
    pub(super) fn new(limits: HeadLimits) -> Self {
        Self { limits, place: Place::Head(Head::default()), heads: 0, chunks: 0 }
    }

    /// How many heads there were; one that was refused counts.
    pub(super) const fn heads(&self) -> u64 {
        self.heads
    }

    /// How many chunks there were.
    pub(super) const fn chunks(&self) -> u64 {
        self.chunks
    }

    /// Whether all requests that were begun are complete.
    pub(super) fn is_between_requests(&self) -> bool {
        matches!(&self.place, Place::Head(head) if *head == Head::default())
    }

    /// Looks at `bytes`: those that were not good yet the last time, and all that came since.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Followed {
        let mut good = 0;
        let refusal = loop {
            let rest = &bytes[good..];
            let next = match &mut self.place {
                Place::Head(head) => match head.follow(rest, self.limits) {
                    Ok(None) => break None,
                    Ok(Some((length, following))) => {
                        good += length;
                        self.heads += 1;
                        Place::from(following)
                    }
                    Err(reason) => {
                        self.heads += 1;
                        break Some(Refusal::Head { reason, request_line: head.request_line() });
                    }
                },
                Place::Body(left) => {
                    let taken = usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
                    good += taken;
                    *left -= taken as u64;
                    if *left > 0 {
                        break None;
                    }
                    Place::Head(Head::default())
                }
                Place::Chunks(chunks) => {
                    let before = chunks.count();
                    let (taken, progress) = chunks.follow(rest, self.limits.bytes);
                    good += taken;
                    self.chunks += chunks.count() - before;
                    match progress {
                        Progress::More => break None,
                        Progress::Malformed => break Some(Refusal::Body),
                        Progress::Complete => Place::Head(Head::default()),
                    }
                }
                Place::Lost => break None,
            };
            self.place = next;
        };
        if refusal.is_some() {
            self.place = Place::Lost;
        }
        Followed { good, refusal }
    }
}

impl From<Following> for Place {
    fn from(following: Following) -> Self {
        match following {
            Following::Bytes(length) => Self::Body(length),
            Following::Chunks => Self::Chunks(Chunks::default()),
        }
    }
}
