//! Blobs that cannot be kept: what the upstream sends goes to one caller, hashed on the way where it is the whole.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, RANGE};
use http::{HeaderValue, Method, StatusCode};
use http_body::Body as _;
use tokio::sync::OwnedSemaphorePermit;

use crate::oci::{ByteRange, Digest, Mismatch, RepositoryName, Verifier};
use crate::store::Member;
use crate::upstream::Body;

use super::download::content_range;
use super::error::number;
use super::manifests::is_web_page;
use super::{Reach, Remote, RemoteError};

/// What an upstream sends, on its way to one caller.
///
/// Of a whole blob the last bytes are held back until the digest is right; a part of one is not verified, since its
/// caller hashes the whole.
pub struct Passing {
    remote: Arc<Remote>,
    body: Body,
    digest: Digest,
    /// Where it is to be remembered how long it is, if nobody said so.
    unsized_in: Option<RepositoryName>,
    /// How many bytes come before those that were asked for.
    skip: u64,
    /// How many of those are still to come, if that is known.
    left: Option<u64>,
    /// Of the whole blob alone.
    verifier: Option<Verifier>,
    held: Option<Bytes>,
    ended: bool,
    _slots: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl Remote {
    /// Asks the upstream for a blob, or a range of one, for this caller alone.
    pub(super) async fn pass(
        self: &Arc<Self>,
        reach: &Reach,
        digest: &Digest,
        size: Option<u64>,
        range: Option<ByteRange>,
    ) -> Result<Passing, RemoteError> {
        let slots = (self.passing_slot(reach).await?, self.download_slot(reach).await?);
        let mut ask = self.read(Method::GET, reach, &format!("/blobs/{digest}"))?;
        if let Some(range) = range
            && let Ok(value) = HeaderValue::try_from(format!("bytes={range}"))
        {
            ask.headers.insert(RANGE, value);
        }
        let answer = self.origin.send(ask).await?;
        let announced = number(answer.headers(), CONTENT_LENGTH);
        let (found, total) = content_range(answer.headers()).unzip();
        let total = if answer.status() == StatusCode::PARTIAL_CONTENT { total.flatten() } else { announced };
        let skip = match (answer.status(), range) {
            (StatusCode::OK | StatusCode::PARTIAL_CONTENT, _) if is_web_page(answer.headers()) => {
                return Err(self.answer("a web page in place of a blob"));
            }
            (StatusCode::OK | StatusCode::PARTIAL_CONTENT, _) if size.is_some() && total.is_some() && size != total => {
                // Either may be wrong: whoever asks next begins without it.
                self.forget_member(&reach.repository, digest).await?;
                return Err(self.answer("it announced another length than the blob has"));
            }
            (StatusCode::OK, range) => range.map_or(0, |range| range.start()),
            (StatusCode::PARTIAL_CONTENT, Some(_)) if found == range => 0,
            (StatusCode::PARTIAL_CONTENT, _) => return Err(self.answer("it sent another range than was asked for")),
            _ => return Err(self.not_given(reach, answer).await),
        };
        let member = Member { digest: *digest, size: total, media_type: None, proven: true };
        self.learn_members(&reach.repository, vec![member]).await?;
        self.prove(reach, digest);
        let size = size.or(total);
        let is_whole = |range: ByteRange| range.start() == 0 && size.is_some_and(|size| range.length() >= size);
        let verifier = range.is_none_or(is_whole).then(|| Verifier::new(digest.algorithm()));
        let left = range.map(|range| range.length()).or(size);
        let (remote, body, digest) = (Arc::clone(self), answer.into_body(), *digest);
        let unsized_in = size.is_none().then(|| reach.repository.clone());
        Ok(Passing { remote, body, digest, unsized_in, skip, left, verifier, held: None, ended: false, _slots: slots })
    }
}

impl Passing {
    /// The next bytes; `None` after the last of them only.
    pub fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, RemoteError>>> {
        while !self.ended {
            match ready!(self.poll_data(context)) {
                None => {
                    self.ended = true;
                    return Poll::Ready(self.end());
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                Some(Ok(data)) => {
                    if let Some(verifier) = &mut self.verifier {
                        verifier.update(&data);
                        let Some(before) = self.held.replace(data) else { continue };
                        return Poll::Ready(Some(Ok(before)));
                    }
                    return Poll::Ready(Some(Ok(data)));
                }
            }
        }
        Poll::Ready(None)
    }

    /// The next bytes that were asked for.
    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, RemoteError>>> {
        loop {
            if self.left == Some(0) {
                return Poll::Ready(None);
            }
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(self.broken(error.to_string())))),
                Some(Ok(frame)) => frame,
            };
            let Ok(mut data) = frame.into_data() else { continue };
            let skipped = self.skip.min(data.len() as u64);
            self.skip -= skipped;
            let _ = data.split_to(usize::try_from(skipped).unwrap_or(data.len()));
            if let Some(left) = &mut self.left {
                data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= data.len() as u64;
            }
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(data)));
            }
        }
    }

    /// What is told at the end: the bytes that were held back, or why they are not.
    fn end(&mut self) -> Option<Result<Bytes, RemoteError>> {
        if let Some(missing) = self.left.filter(|left| *left > 0) {
            return Some(Err(self.broken(format!("{missing} bytes are missing"))));
        }
        match self.verifier.take().map(|verifier| verifier.verify(&self.digest)) {
            Some(Err(mismatch)) => Some(Err(self.mismatch(mismatch))),
            Some(Ok(verified)) => {
                let (remote, digest, unsized_in) = (Arc::clone(&self.remote), self.digest, self.unsized_in.take());
                tokio::spawn(async move {
                    remote.has_sent(&digest).await;
                    if let Some(repository) = unsized_in {
                        remote.learn_size(&repository, &digest, verified.size()).await;
                    }
                });
                self.held.take().map(Ok)
            }
            None => self.held.take().map(Ok),
        }
    }

    fn broken(&self, reason: String) -> RemoteError {
        RemoteError::Broken { upstream: self.remote.name().to_owned(), reason }
    }

    fn mismatch(&self, mismatch: Mismatch) -> RemoteError {
        self.remote.told_mismatch(&self.digest, &mismatch);
        RemoteError::Mismatch { upstream: self.remote.name().to_owned(), mismatch: Box::new(mismatch) }
    }
}
