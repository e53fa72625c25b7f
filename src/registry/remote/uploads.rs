//! Uploads to a fronted registry: streamed through, hashed on the way, and never ended there with other bytes than their
//! digest says.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, LOCATION, RANGE};
use http::uri::{Authority, PathAndQuery, Uri};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

use crate::access::{Create, Permit, Pull};
use crate::net::client::BoxError;
use crate::oci::{Algorithm, ByteRange, Digest, Mismatch, RepositoryName, UploadId, Verifier};
use crate::registry::RegistryError;
use crate::store::Member;
use crate::upstream::{Ask, Body, Peer, SendError, resolve};

use super::sessions::{RemoteUpload, Session};
use super::{Reach, Remote, RemoteError, Target, empty};

/// How long bytes wait until the upstream takes them; clients wait long for an answer to a push.
const UPLOAD_SLOT_PATIENCE: Duration = Duration::from_secs(5 * 60);

/// What comes in one request of an upload.
pub struct Piece {
    /// Its bytes.
    pub body: Body,
    /// How many there are, if the caller said so.
    pub length: Option<u64>,
    /// Where they belong, if the caller said so.
    pub range: Option<ByteRange>,
}

impl Remote {
    /// Begins an upload there.
    pub async fn begin_upload(
        self: &Arc<Self>,
        target: Target<Permit<Create>>,
        algorithm: Algorithm,
    ) -> Result<RemoteUpload, RegistryError> {
        self.check_writable()?;
        let reach = self.reach(&target);
        // Of the usual one nothing is said: not every registry knows the word.
        let path = match algorithm {
            Algorithm::Sha256 => "/blobs/uploads/".to_owned(),
            Algorithm::Sha512 => format!("/blobs/uploads/?digest-algorithm={}", algorithm.as_str()),
        };
        let begun = self.post_upload(&reach, target, &path, algorithm, None).await?;
        begun.ok_or_else(|| remote(self.answer("it mounted what was not to be mounted")))
    }

    /// Asks for a blob of another repository there; `None`, if it is in this one now. `from`: leave to read it there, and
    /// its name there.
    pub async fn mount(
        self: &Arc<Self>,
        target: Target<Permit<Create>>,
        from: Option<Target<Permit<Pull>>>,
        digest: &Digest,
    ) -> Result<Option<RemoteUpload>, RegistryError> {
        let Some(from) = from else {
            return self.begin_upload(target, digest.algorithm()).await.map(Some);
        };
        self.check_writable()?;
        let reach = self.reach(&target);
        let path = format!("/blobs/uploads/?mount={digest}&from={}", from.repository);
        let begun = self.post_upload(&reach, target, &path, digest.algorithm(), Some(&from.repository)).await?;
        if begun.is_none() {
            let member = Member { digest: *digest, size: None, media_type: None, proven: true };
            self.learn_members(&reach.repository, vec![member]).await.map_err(remote)?;
        }
        Ok(begun)
    }

    async fn post_upload(
        self: &Arc<Self>,
        reach: &Reach,
        target: Target<Permit<Create>>,
        path: &str,
        algorithm: Algorithm,
        from: Option<&RepositoryName>,
    ) -> Result<Option<RemoteUpload>, RegistryError> {
        // Before it is begun there, where nobody would end it.
        self.sessions.check_room(&target)?;
        let mut ask = self.write(Method::POST, reach, path).map_err(remote)?;
        if let Some(from) = from {
            ask.scope += &format!(" repository:{from}:pull");
        }
        ask.headers.insert(CONTENT_LENGTH, 0.into());
        let asked = ask.path.clone();
        let answer = self.send(ask).await?;
        match answer.status() {
            StatusCode::CREATED if from.is_some() => Ok(None),
            StatusCode::ACCEPTED => {
                let (peer, path) = self.location(&answer, &asked, false).map_err(remote)?;
                let verifier = Some(Verifier::new(algorithm));
                let session = Session { peer, path, offset: 0, is_sure: true, verifier };
                self.sessions.begin(target, session).map(Some)
            }
            _ => Err(self.not_uploaded(reach, answer).await),
        }
    }

    /// Takes an upload up. Only who began it may.
    pub fn upload(&self, target: Target<Permit<Create>>, id: UploadId) -> Result<RemoteUpload, RegistryError> {
        self.check_writable()?;
        self.sessions.take(target, id)
    }

    /// How many bytes an upload has, as the registry there counts them. Nobody who writes has to wait until that is known.
    pub async fn upload_offset(
        self: &Arc<Self>,
        target: Target<Permit<Create>>,
        id: UploadId,
    ) -> Result<u64, RegistryError> {
        self.check_writable()?;
        let session = self.sessions.look(&target, id)?;
        let reach = self.reach(&target);
        let answer = self.send(self.go_on(Method::GET, &reach, &session).map_err(remote)?).await?;
        if answer.status() != StatusCode::NO_CONTENT {
            return Err(self.gone(&reach, answer, self.upload(target, id)?).await);
        }
        // What it took is known better here than from registries that count otherwise.
        if session.is_sure {
            return Ok(session.offset);
        }
        let mut upload = self.upload(target, id)?;
        if upload.session.path == session.path && !upload.session.is_sure {
            upload.session.know_offset(end_of(answer.headers()).unwrap_or(session.offset));
        }
        Ok(upload.session.offset)
    }

    /// More bytes; how many there are then.
    pub async fn patch_upload(self: &Arc<Self>, mut upload: RemoteUpload, piece: Piece) -> Result<u64, RegistryError> {
        let reach = self.reach(&upload.target);
        upload.check_range(&piece)?;
        let has_bytes = !http_body::Body::is_end_stream(&piece.body);
        let _slot = self.upload_slot(has_bytes).await.map_err(remote)?;
        let before = upload.session.clone();
        let (ask, passed) = self.send_piece(Method::PATCH, &reach, &mut upload.session, piece, None).map_err(remote)?;
        // Until it is known what arrived there, the hash is good for nothing.
        let answer = self.origin.send(ask).await.map_err(|error| not_taken(error, &mut upload, before))?;
        // Some answer 204, such as go-containerregistry's.
        if !matches!(answer.status(), StatusCode::ACCEPTED | StatusCode::NO_CONTENT) {
            return Err(self.gone(&reach, answer, upload).await);
        }
        let (verifier, length) = passed.so_far();
        let (peer, path) = self.location(&answer, &upload.session.path, true).map_err(remote)?;
        let offset = upload.session.offset + length;
        let said = end_of(answer.headers());
        let is_known = said.is_none_or(|end| end == offset || end == 0);
        // Less than was sent may be so; more, or nothing, is another way of counting.
        let is_sure = said.is_none_or(|end| end == 0 || end >= offset);
        upload.session = Session { peer, path, offset, is_sure, verifier: verifier.filter(|_| is_known) };
        Ok(offset)
    }

    /// The last bytes, and what the whole must hash to.
    pub async fn commit_upload(
        self: &Arc<Self>,
        mut upload: RemoteUpload,
        digest: &Digest,
        piece: Piece,
    ) -> Result<(), RegistryError> {
        let reach = self.reach(&upload.target);
        upload.check_range(&piece)?;
        let has_bytes = !http_body::Body::is_end_stream(&piece.body);
        let _slot = self.upload_slot(has_bytes).await.map_err(remote)?;
        let before = upload.session.clone();
        let (ask, passed) =
            self.send_piece(Method::PUT, &reach, &mut upload.session, piece, Some(*digest)).map_err(remote)?;
        // Without a body it is known before anything is sent.
        let answer = if passed.mismatch().is_none() { Some(self.origin.send(ask).await) } else { None };
        let answer = match (passed.mismatch(), answer) {
            (Some(mismatch), _) => {
                // It was broken off there; what is left of it goes too.
                let _ = self.give_up(&reach, upload).await;
                return Err(RegistryError::DigestMismatch(Box::new(mismatch)));
            }
            (None, Some(answer)) => answer.map_err(|error| not_taken(error, &mut upload, before))?,
            (None, None) => return Err(RegistryError::UploadUnknown(upload.id)),
        };
        if answer.status() != StatusCode::CREATED {
            return Err(self.gone(&reach, answer, upload).await);
        }
        let size = passed.size();
        upload.end();
        let member = Member { digest: *digest, size, media_type: None, proven: true };
        self.learn_members(&reach.repository, vec![member]).await.map_err(remote)
    }

    /// Leave to send bytes: pushes leave some of the upstream's slots to what is small, as downloads do. Nothing of the body is
    /// read while one waits.
    async fn upload_slot(&self, has_bytes: bool) -> Result<Option<OwnedSemaphorePermit>, RemoteError> {
        if !has_bytes {
            return Ok(None);
        }
        let slot = timeout(UPLOAD_SLOT_PATIENCE, Arc::clone(&self.downloads).acquire_owned()).await;
        slot.ok().and_then(Result::ok).map(Some).ok_or_else(|| {
            let (upstream, concurrency) = (self.name().to_owned(), self.config.transport.concurrency);
            SendError::Busy { upstream, concurrency, waited: UPLOAD_SLOT_PATIENCE }.into()
        })
    }

    /// Gives an upload up.
    pub async fn cancel_upload(self: &Arc<Self>, upload: RemoteUpload) -> Result<(), RegistryError> {
        let reach = self.reach(&upload.target);
        self.give_up(&reach, upload).await
    }

    async fn give_up(&self, reach: &Reach, mut upload: RemoteUpload) -> Result<(), RegistryError> {
        upload.end();
        let reach = self.reach_anew(reach);
        let ask = self.go_on(Method::DELETE, &reach, &upload.session).map_err(remote)?;
        self.send(ask).await.map(drop)
    }

    /// A request of an upload that was begun, to the peer that has it.
    fn go_on(&self, method: Method, reach: &Reach, session: &Session) -> Result<Ask, RemoteError> {
        let mut ask = self.write(method, reach, "/blobs/uploads/")?;
        ask.path = session.path.clone();
        ask.peer = Some(session.peer.clone());
        Ok(ask)
    }

    /// A request that carries bytes. The session does not know its hash any more until [`Passed`] says it.
    fn send_piece(
        &self,
        method: Method,
        reach: &Reach,
        session: &mut Session,
        piece: Piece,
        digest: Option<Digest>,
    ) -> Result<(Ask, Passed), RemoteError> {
        let mut ask = self.go_on(method, reach, session)?;
        // How long a body may take is for those to limit who wait for its bytes.
        ask.deadline = Instant::now() + self.limits.upload_lifetime;
        if let Some(digest) = digest {
            let separator = if ask.path.query().is_some() { '&' } else { '?' };
            ask.path = self.path(&format!("{}{separator}digest={digest}", ask.path))?;
        }
        set_length(&mut ask.headers, &piece);
        let verifier = session.verifier.take();
        session.is_sure = false;
        // The hash was begun before it was known which one is asked for.
        let verifier = match digest {
            Some(digest) if session.offset == 0 => Some(Verifier::new(digest.algorithm())),
            Some(digest) => verifier.filter(|verifier| verifier.algorithm() == digest.algorithm()),
            None => verifier,
        };
        let state = Arc::new(Mutex::new(Hash { verifier, length: 0, mismatch: None }));
        let mut body = Checked { body: piece.body, state: Arc::clone(&state), digest, held: None, ended: false };
        // Nobody would read it.
        if http_body::Body::is_end_stream(&body.body) {
            body.end();
        }
        ask.body = body.boxed_unsync();
        Ok((ask, Passed(state)))
    }

    async fn send(&self, ask: Ask) -> Result<Response<Body>, RegistryError> {
        self.origin.send(ask).await.map_err(|error| remote(error.into()))
    }

    /// The upload went wrong there: one that is not there any more is not here either.
    async fn gone(&self, reach: &Reach, answer: Response<Body>, mut upload: RemoteUpload) -> RegistryError {
        if answer.status() == StatusCode::NOT_FOUND {
            upload.end();
            return RegistryError::UploadUnknown(upload.id);
        }
        remote(self.rejected(reach, answer).await)
    }

    async fn not_uploaded(&self, reach: &Reach, answer: Response<Body>) -> RegistryError {
        match self.rejected(reach, answer).await {
            RemoteError::Missing => RegistryError::NameUnknown(reach.repository.clone()),
            error => remote(error),
        }
    }

    /// Where an upload goes on that was asked for at `path`, as it is in an [`Ask`]: only ever at a peer of this upstream.
    fn location(
        &self,
        answer: &Response<Body>,
        path: &PathAndQuery,
        is_named: bool,
    ) -> Result<(Authority, PathAndQuery), RemoteError> {
        let peer = answer.extensions().get::<Arc<Peer>>().ok_or_else(|| self.answer("an answer of nobody"))?;
        let text = answer.headers().get(LOCATION).and_then(|text| text.to_str().ok());
        let step = text.and_then(|text| resolve(&peer.asked(path, is_named), text));
        let uri: Option<Uri> = step.and_then(|step| step.url.as_str().parse().ok());
        let uri = uri.ok_or_else(|| self.answer("no Location of an upload"))?;
        let path = uri.path_and_query().cloned().ok_or_else(|| self.answer("a Location without a path"))?;
        match self.origin.peer_of(&uri) {
            Some(peer) => Ok((peer.authority().clone(), path)),
            None => {
                let host = uri.authority().map_or("", Authority::as_str);
                Err(self.answer(format!("it sends uploads to {host}, which is none of its peers")))
            }
        }
    }
}

impl RemoteUpload {
    fn check_range(&self, piece: &Piece) -> Result<(), RegistryError> {
        match piece.range {
            Some(range) if range.start() != self.session.offset => {
                Err(RegistryError::UploadOffset { expected: self.session.offset, found: range.start() })
            }
            _ => Ok(()),
        }
    }
}

impl Session {
    fn know_offset(&mut self, offset: u64) {
        self.is_sure = true;
        if offset != self.offset {
            (self.offset, self.verifier) = (offset, None);
        }
    }
}

fn set_length(headers: &mut HeaderMap, piece: &Piece) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if let Some(length) = piece.length {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    if let Some(range) = piece.range.and_then(|range| HeaderValue::try_from(range.to_string()).ok()) {
        headers.insert(CONTENT_RANGE, range);
    }
}

/// `Range: 0-LAST`, as an upload's answers have it: how many bytes there are.
fn end_of(headers: &HeaderMap) -> Option<u64> {
    let (_, last) = headers.get(RANGE)?.to_str().ok()?.rsplit_once('-')?;
    let last: u64 = last.parse().ok()?;
    Some(if last == 0 { 0 } else { last + 1 })
}

/// Where the registry did nothing at all, the upload is as it was before.
fn not_taken(error: SendError, upload: &mut RemoteUpload, before: Session) -> RegistryError {
    if matches!(error, SendError::Refused { .. }) {
        upload.session = before;
    }
    remote(error.into())
}

fn remote(error: RemoteError) -> RegistryError {
    RegistryError::Remote(Box::new(error))
}

/// No piece: for the end of an upload that has all its bytes.
impl Piece {
    /// Without any bytes.
    pub fn nothing() -> Self {
        Self { body: empty(), length: Some(0), range: None }
    }
}

/// The hash of what passes.
struct Hash {
    verifier: Option<Verifier>,
    length: u64,
    mismatch: Option<Mismatch>,
}

/// What is known of a piece once it was sent.
struct Passed(Arc<Mutex<Hash>>);

impl Passed {
    fn with<T>(&self, look: impl FnOnce(&Hash) -> T) -> T {
        look(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn so_far(&self) -> (Option<Verifier>, u64) {
        self.with(|hash| (hash.verifier.clone(), hash.length))
    }

    fn mismatch(&self) -> Option<Mismatch> {
        self.with(|hash| hash.mismatch)
    }

    /// How long the whole is, if all of it was seen.
    fn size(&self) -> Option<u64> {
        self.with(|hash| hash.verifier.as_ref().map(Verifier::size))
    }
}

/// A body that is hashed as it goes. Where the whole must match a digest, its last bytes are held back until it does:
/// a body that does not ends in an error, and so never as an upload.
struct Checked {
    body: Body,
    state: Arc<Mutex<Hash>>,
    digest: Option<Digest>,
    held: Option<Bytes>,
    ended: bool,
}

impl Checked {
    fn update(&self, data: &Bytes) {
        let mut hash = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        hash.length += data.len() as u64;
        if let Some(verifier) = &mut hash.verifier {
            verifier.update(data);
        }
    }

    fn verify(&self, digest: &Digest) -> Result<(), Mismatch> {
        let mut hash = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(verifier) = hash.verifier.clone() else { return Ok(()) };
        let verified = verifier.verify(digest).map(drop);
        hash.mismatch = verified.err();
        verified
    }

    fn end(&mut self) -> Option<Result<Frame<Bytes>, BoxError>> {
        self.ended = true;
        if let Some(digest) = self.digest
            && let Err(mismatch) = self.verify(&digest)
        {
            return Some(Err(mismatch.into()));
        }
        self.held.take().map(|held| Ok(Frame::data(held)))
    }
}

impl http_body::Body for Checked {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        while !self.ended {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)) else {
                return Poll::Ready(self.end());
            };
            let Ok(data) = frame?.into_data() else { continue };
            self.update(&data);
            if self.digest.is_none() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            if let Some(before) = self.held.replace(data) {
                return Poll::Ready(Some(Ok(Frame::data(before))));
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.held.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        if let (Some(held), Some(exact)) = (&self.held, hint.exact()) {
            hint.set_exact(exact + held.len() as u64);
        }
        hint
    }
}
