//! Bodies of answers.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;

use crate::registry::BlobReader;

/// How much of a body in memory goes out at once: as good as 1 MiB and better than 64 KiB (docs/performance.md).
const CHUNK_BYTES: usize = 256 * 1024;

/// The body of an answer.
pub(super) enum Body {
    /// Bytes in memory, sent in slices without a copy.
    Memory(Bytes),
    /// A part of a file; ends in an error if the file is shorter than it should be.
    File {
        /// Gives the bytes.
        reader: BlobReader,
        /// How many are still to come.
        left: u64,
    },
    /// What an upstream sends.
    Upstream(UnsyncBoxBody<Bytes, io::Error>),
}

impl Body {
    /// No body.
    pub(super) const fn empty() -> Self {
        Self::Memory(Bytes::new())
    }
}

impl<B: Into<Bytes>> From<B> for Body {
    fn from(bytes: B) -> Self {
        Self::Memory(bytes.into())
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Memory(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Memory(bytes) => {
                let chunk = bytes.split_to(bytes.len().min(CHUNK_BYTES));
                Poll::Ready(Some(Ok(Frame::data(chunk))))
            }
            Self::File { left: 0, .. } => Poll::Ready(None),
            Self::File { reader, left } => reader.poll_chunk(cx).map(|chunk| match chunk {
                Some(Ok(chunk)) => {
                    *left = left.saturating_sub(chunk.len() as u64);
                    Some(Ok(Frame::data(chunk)))
                }
                Some(Err(error)) => Some(Err(error)),
                None => Some(Err(io::ErrorKind::UnexpectedEof.into())),
            }),
            Self::Upstream(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Memory(bytes) => bytes.is_empty(),
            Self::File { left, .. } => *left == 0,
            Self::Upstream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Memory(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::File { left, .. } => SizeHint::with_exact(*left),
            Self::Upstream(body) => body.size_hint(),
        }
    }
}
