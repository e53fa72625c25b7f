//! A download into the cache: a task of its own that no client can cancel or slow down.

use std::pin::pin;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::sync::SemaphorePermit;

use crate::cache::{CachedFile, Fill, FillError};
use crate::oci::{ByteRange, Digest, RepositoryName};
use crate::store::Member;
use crate::upstream::Body;

use super::error::number;
use super::manifests::is_web_page;
use super::members::{Asker, Kind};
use super::{Reach, Remote, RemoteError};

/// So many bytes are progress: an upstream that breaks off after that is asked for the rest as often as it takes.
const PROGRESS_BYTES: u64 = 1 << 20;

/// Why a download stopped before its end.
enum Stop {
    /// The upstream does not give it: whoever waits is told.
    Failed(RemoteError),
    /// The upstream broke off; what came is kept, and it can be taken up from there.
    Broken(String),
    /// It does not give the rest alone; all of it may be had.
    NoRanges(String),
    /// It announced so many bytes, and a manifest says otherwise.
    OtherSize(u64),
    /// The cache took no more of it.
    Cache,
    /// Nobody waits, and as many such downloads run as may.
    Abandoned,
}

/// What is known of a download that goes on.
struct Progress {
    /// Of all of it, in bytes.
    size: Option<u64>,
    /// Whether that is only what a manifest said, which may be wrong.
    is_claim: bool,
    /// Whether the upstream may be asked for a part.
    ranges: bool,
}

/// What was asked of an upstream.
#[derive(Clone, Copy)]
struct Asked {
    /// Whether only for the rest.
    rest: bool,
    /// Whether anybody may be reading what came already.
    has_begun: bool,
    /// How much that is.
    offset: u64,
}

impl Remote {
    /// Fills the cache. Whoever reads is told of the end by the fill itself.
    pub(super) async fn download(
        self: Arc<Self>,
        reach: Reach,
        digest: Digest,
        expected: Option<u64>,
        mut fill: Fill<RemoteError>,
    ) {
        let repository = reach.repository.clone();
        let outcome = match self.take_all(reach, &digest, expected, &mut fill).await {
            Ok(()) => match self.finish(&digest, fill).await {
                Ok(file) => {
                    if expected != Some(file.size()) {
                        self.learn_size(&repository, &digest, file.size()).await;
                    }
                    "done"
                }
                Err(FillError::Mismatch(mismatch)) => {
                    self.told_mismatch(&digest, &mismatch);
                    "mismatch"
                }
                Err(FillError::Size { expected, received }) => {
                    tracing::error!(upstream = self.name(), %digest, expected, received, "an upstream sent a blob of another size; nothing was kept");
                    "mismatch"
                }
                Err(_) => "cache",
            },
            Err(Stop::Failed(error)) => {
                if error.is_passing() {
                    tracing::warn!(upstream = self.name(), %digest, %error, "a blob could not be downloaded");
                }
                // What the upstream sent may be what was wrong, and so may what came of it before.
                if matches!(error, RemoteError::Answer { .. } | RemoteError::Unsupported { .. }) {
                    self.forget_size(&repository, &digest).await;
                    fill.fail(error);
                } else {
                    fill.break_off(error).await;
                }
                "failed"
            }
            Err(Stop::Broken(reason) | Stop::NoRanges(reason)) => {
                let error = RemoteError::Broken { upstream: self.name().to_owned(), reason };
                tracing::warn!(upstream = self.name(), %digest, %error, "a blob could not be downloaded");
                self.forget_size(&repository, &digest).await;
                fill.break_off(error).await;
                "failed"
            }
            Err(Stop::Cache | Stop::OtherSize(_)) => "cache",
            Err(Stop::Abandoned) => "abandoned",
        };
        self.shelves.metrics.fill(self.name(), outcome);
    }

    /// What is right was sent by this upstream: known before its last byte is read, so that whoever asks then finds it.
    async fn finish(&self, digest: &Digest, mut fill: Fill<RemoteError>) -> Result<CachedFile, FillError<RemoteError>> {
        fill.verify().await?;
        let ((), finished) = tokio::join!(self.has_sent(digest), fill.finish());
        finished
    }

    /// It is known now, for the whole was verified.
    pub(super) async fn learn_size(&self, repository: &RepositoryName, digest: &Digest, size: u64) {
        let member = Member { digest: *digest, size: Some(size), media_type: None, proven: true };
        if let Err(error) = self.learn_members(repository, vec![member]).await {
            tracing::error!(upstream = self.name(), %digest, %error, "the size of a blob could not be remembered");
        }
    }

    /// What a manifest or a HEAD said of it may be what was wrong: whoever asks next begins without it.
    async fn forget_size(&self, repository: &RepositoryName, digest: &Digest) {
        if let Err(error) = self.forget_member(repository, digest).await {
            tracing::error!(upstream = self.name(), %digest, %error, "what is known of a blob could not be forgotten");
        }
    }

    /// Takes the blob from the upstream, and goes on where it broke off.
    async fn take_all(
        self: &Arc<Self>,
        mut reach: Reach,
        digest: &Digest,
        expected: Option<u64>,
        fill: &mut Fill<RemoteError>,
    ) -> Result<(), Stop> {
        let mut spare = None;
        let slot = self.while_wanted(fill, &mut spare, self.download_slot(&reach)).await?;
        let _slot = slot.map_err(Stop::Failed)?;
        let size = fill.take_over(expected);
        let mut progress = Progress { size, is_claim: size.is_some(), ranges: true };
        let mut fruitless = 0;
        loop {
            let before = fill.offset();
            let (reason, ranges) = match self.take(&reach, digest, &mut progress, fill, &mut spare).await {
                Err(Stop::Broken(reason)) if progress.size.is_some() => (reason, progress.ranges),
                // All of it is another question.
                Err(Stop::NoRanges(_)) if progress.ranges => {
                    progress.ranges = false;
                    reach = self.reach_anew(&reach);
                    continue;
                }
                Err(Stop::NoRanges(reason)) => (reason, false),
                Err(Stop::OtherSize(announced)) => {
                    let claimed = progress.size.unwrap_or_default();
                    let asked = self.ask_member(&reach, digest, Kind::Blob, Asker::Gateway).await;
                    if !progress.is_claim || asked.map_err(Stop::Failed)?.size != Some(announced) {
                        let reason = format!("it announced {announced} bytes of a blob that has {claimed}");
                        return Err(Stop::Failed(self.answer(reason)));
                    }
                    progress = Progress { size: Some(announced), is_claim: false, ..progress };
                    continue;
                }
                other => return other,
            };
            if fill.offset() - before >= PROGRESS_BYTES {
                fruitless = 0;
            } else if fruitless < self.config.transport.retries {
                fruitless += 1;
            } else {
                return Err(Stop::Broken(reason));
            }
            progress.ranges = ranges;
            tracing::info!(upstream = self.name(), %digest, offset = fill.offset(), reason, "a download broke off and is taken up again");
            reach = self.reach_anew(&reach);
        }
    }

    /// Does a part of a download. When nobody waits for it any more it goes on, but only so many do at a time: they must not
    /// take the slots of those that somebody waits for.
    async fn while_wanted<'a, T>(
        &'a self,
        fill: &Fill<RemoteError>,
        spare: &mut Option<SemaphorePermit<'a>>,
        part: impl Future<Output = T>,
    ) -> Result<T, Stop> {
        if spare.is_some() && fill.readers() > 0 {
            *spare = None;
        }
        let mut part = pin!(part);
        loop {
            tokio::select! {
                biased;
                done = &mut part => return Ok(done),
                () = fill.abandoned(), if spare.is_none() => {
                    *spare = Some(self.abandoned.try_acquire().map_err(|_| Stop::Abandoned)?);
                }
            }
        }
    }

    /// One exchange: from where the fill is to the end.
    async fn take<'a>(
        &'a self,
        reach: &Reach,
        digest: &Digest,
        progress: &mut Progress,
        fill: &mut Fill<RemoteError>,
        spare: &mut Option<SemaphorePermit<'a>>,
    ) -> Result<(), Stop> {
        let Progress { size, ranges, .. } = progress;
        let expected = *size;
        let offset = fill.offset();
        let mut ask = self.read(Method::GET, reach, &format!("/blobs/{digest}")).map_err(Stop::Failed)?;
        let rest = rest_of(offset, *size).filter(|_| *ranges);
        let asked = Asked { rest: rest.is_some(), has_begun: fill.has_begun(), offset };
        if let Some(rest) = rest {
            ask.headers.insert(RANGE, rest);
        }
        let answer = match self.while_wanted(fill, spare, self.origin.send(ask)).await? {
            Ok(answer) => answer,
            // Those who wait have a part already: it may come back.
            Err(error) if fill.has_begun() => return Err(Stop::Broken(error.to_string())),
            Err(error) => return Err(Stop::Failed(error.into())),
        };
        let is_announced = number(answer.headers(), CONTENT_LENGTH).is_some();
        let (body, skip) = self.check_head(reach, answer, asked, size).await?;
        if is_announced {
            fill.announced();
        }
        if !fill.has_begun() {
            self.given(reach, digest, expected).await?;
            fill.begin(*size).await.map_err(|_| Stop::Cache)?;
        }
        self.pour(body, skip, *size, fill, spare).await
    }

    /// The upstream gives it, so it belongs to the repository. How long it is, is not known before all of it was verified.
    async fn given(&self, reach: &Reach, digest: &Digest, expected: Option<u64>) -> Result<(), Stop> {
        let member = Member { digest: *digest, size: expected, media_type: None, proven: true };
        self.learn_members(&reach.repository, vec![member]).await.map_err(Stop::Failed)?;
        self.prove(reach, digest);
        Ok(())
    }

    /// The body, and how many of its first bytes are there already.
    async fn check_head(
        &self,
        reach: &Reach,
        answer: Response<Body>,
        Asked { rest, has_begun, offset }: Asked,
        size: &mut Option<u64>,
    ) -> Result<(Body, u64), Stop> {
        let announced = number(answer.headers(), CONTENT_LENGTH);
        let wrong = |reason: String| Err(Stop::Failed(self.answer(reason)));
        match (answer.status(), *size) {
            // A page for a browser is no blob, and no proof that the repository has it.
            (StatusCode::OK, _) if is_web_page(answer.headers()) => wrong("a web page in place of a blob".to_owned()),
            (StatusCode::OK, Some(size)) if announced.is_some_and(|announced| announced != size) => {
                Err(Stop::OtherSize(announced.unwrap_or_default()))
            }
            // A server that knows no ranges sends all of it again.
            (StatusCode::OK, _) => {
                *size = size.or(announced);
                Ok((answer.into_body(), offset))
            }
            (StatusCode::PARTIAL_CONTENT, Some(size)) if offset > 0 && is_rest(answer.headers(), offset, size) => {
                Ok((answer.into_body(), 0))
            }
            (StatusCode::PARTIAL_CONTENT, _) if rest && !has_begun => {
                Err(Stop::NoRanges("it sent another range than was asked for".to_owned()))
            }
            (StatusCode::PARTIAL_CONTENT, _) => wrong("it sent another range than was asked for".to_owned()),
            // Before anybody reads what came of an earlier try, a refusal of all of it is one.
            (status, _) if rest || has_begun => {
                Err(Stop::NoRanges(format!("it answered {status} to a question for the rest")))
            }
            _ => Err(Stop::Failed(self.not_given(reach, answer).await)),
        }
    }

    /// Hands the body to the fill, but for its first `skip` bytes.
    async fn pour<'a>(
        &'a self,
        mut body: Body,
        mut skip: u64,
        size: Option<u64>,
        fill: &mut Fill<RemoteError>,
        spare: &mut Option<SemaphorePermit<'a>>,
    ) -> Result<(), Stop> {
        loop {
            match self.while_wanted(fill, spare, body.frame()).await? {
                None if size.is_none_or(|size| fill.offset() >= size) => return Ok(()),
                None => return Err(Stop::Broken("it ended before its end".to_owned())),
                Some(Err(error)) => return Err(Stop::Broken(error.to_string())),
                Some(Ok(frame)) => {
                    let Ok(mut data) = frame.into_data() else { continue };
                    let known = skip.min(data.len() as u64);
                    skip -= known;
                    let _ = data.split_to(usize::try_from(known).unwrap_or(data.len()));
                    if !data.is_empty() {
                        fill.write(data).await.map_err(|error| self.refused(&error))?;
                    }
                }
            }
        }
    }

    fn refused(&self, error: &FillError<RemoteError>) -> Stop {
        match error {
            FillError::Size { expected, received } => {
                Stop::Failed(self.answer(format!("it sent {received} bytes of a blob that has {expected}")))
            }
            _ => Stop::Cache,
        }
    }
}

/// A closed range: some servers know no other.
fn rest_of(offset: u64, size: Option<u64>) -> Option<HeaderValue> {
    let last = size.filter(|_| offset > 0)?.checked_sub(1)?;
    HeaderValue::try_from(format!("bytes={offset}-{last}")).ok()
}

/// Whether an answer is just what is missing (RFC 9110, section 14.4).
fn is_rest(headers: &HeaderMap, offset: u64, size: u64) -> bool {
    content_range(headers) == ByteRange::new(offset, size.saturating_sub(1)).map(|range| (range, Some(size)))
}

/// `bytes FIRST-LAST/SIZE`; the size may be `*`.
pub(super) fn content_range(headers: &HeaderMap) -> Option<(ByteRange, Option<u64>)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let range = ByteRange::parse_content_range(range)?;
    match size {
        "*" => Some((range, None)),
        size => size.parse().ok().map(|size| (range, Some(size))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(range: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_RANGE, HeaderValue::from_static(range))])
    }

    #[test]
    fn the_rest_is_asked_for_by_a_closed_range() {
        assert_eq!(rest_of(5, Some(10)), Some(HeaderValue::from_static("bytes=5-9")));
        assert_eq!(rest_of(0, Some(10)), None);
        assert_eq!(rest_of(5, None), None);
    }

    #[test]
    fn only_the_very_rest_is_taken() {
        assert!(is_rest(&headers("bytes 5-9/10"), 5, 10));
        for other in ["bytes 4-9/10", "bytes 5-8/10", "bytes 5-9/11", "bytes 5-9/*", "5-9/10", "bytes */10", ""] {
            assert!(!is_rest(&headers(other), 5, 10), "{other}");
        }
    }
}
