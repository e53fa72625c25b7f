//! Bodies of answers.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;

use crate::registry::Content;

/// How much of a body in memory goes out at once: as good as 1 MiB and better than 64 KiB (docs/performance.md).
const CHUNK_BYTES: usize = 256 * 1024;

/// The body of an answer.
pub(super) enum Body {
    /// Bytes in memory, sent in slices without a copy.
    Memory(Bytes),
    /// A blob, or a part of one; ends in an error if it is shorter than it should be.
    Blob {
        /// Gives the bytes.
        content: Box<Content>,
        /// How many are still to come, if that is known.
        left: Option<u64>,
    },
    /// What a v1 registry sends.
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
            Self::Blob { left: Some(0), .. } => Poll::Ready(None),
            Self::Blob { content, left } => content.poll_chunk(cx, CHUNK_BYTES).map(|chunk| match (chunk, left) {
                (Some(Ok(chunk)), left) => {
                    *left = left.map(|left| left.saturating_sub(chunk.len() as u64));
                    Some(Ok(Frame::data(chunk)))
                }
                (Some(Err(error)), _) => Some(Err(error)),
                (None, Some(_)) => Some(Err(io::ErrorKind::UnexpectedEof.into())),
                (None, None) => None,
            }),
            Self::Upstream(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Memory(bytes) => bytes.is_empty(),
            Self::Blob { left, .. } => *left == Some(0),
            Self::Upstream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Memory(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Blob { left, .. } => left.map_or_else(SizeHint::default, SizeHint::with_exact),
            Self::Upstream(body) => body.size_hint(),
        }
    }
}
