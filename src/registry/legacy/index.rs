//! The index before a v1 registry: it knows which images are in which repositories, and asks the registry what it does not
//! know.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::access::{CatalogPermit, Delete, Leave, Permit, Principal, Push};
use crate::docker::{ImageId, answered_images};
use crate::oci::RepositoryName;
use crate::store::{Named, Standing, Store};
use crate::upstream::{Body, Forwarded};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};

use super::images::{Images, Moment, Standings, Turn, Writer};
use super::{Legacy, LegacyError};
use crate::registry::RegistryError;

/// How much of an answer is read to learn from it, in bytes; a longer one passes by.
pub const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How long the registry may think about what we ask it for ourselves: somebody waits for more than this one answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(60);

/// How many images of one repository the registry is asked about when all of them are to be learnt.
const LEARNED_TOPS_MAX: usize = 256;

/// A v1 registry, and the index before it.
#[derive(Debug)]
pub struct Index {
    registry: Arc<Legacy>,
    images: Images,
}

/// In whose name the registry is asked something.
#[derive(Debug, Clone)]
pub struct Visit {
    /// How the caller reached us.
    pub forwarded: Forwarded,
    /// What we say of the caller to a registry that asks its index.
    pub token: Option<HeaderValue>,
    /// Who was on the way, and what we call ourselves.
    pub via: HeaderValue,
}

/// An answer of the registry, and its body if it was read.
#[derive(Debug)]
pub enum Understood {
    /// All of it is here.
    Whole(Response<Bytes>),
    /// It is longer than is read; it passes by.
    Long(Response<Body>),
}

/// An image that is begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    /// Which.
    pub image: ImageId,
    /// In which repositories.
    pub repositories: Vec<RepositoryName>,
    /// By whom.
    pub principal: Principal,
}

/// Whether the registry has an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// No.
    Missing,
    /// It is being pushed.
    Half,
    /// Yes.
    Whole,
}

impl Index {
    /// Before `registry`, with what `store` knows of it.
    pub fn new(registry: Arc<Legacy>, store: Store) -> Self {
        let upstream = registry.peers().name().to_owned();
        Self { registry, images: Images::new(store, upstream) }
    }

    /// The registry itself.
    pub const fn registry(&self) -> &Arc<Legacy> {
        &self.registry
    }

    /// How an image stands to all repositories.
    pub async fn standings(&self, image: &ImageId) -> Result<Standings, RegistryError> {
        Ok(self.images.standings(image).await?)
    }

    /// How an image stands to all repositories, for reading: as it was after the last change of the table.
    pub async fn remembered(&self, image: &ImageId) -> Result<Arc<Standings>, RegistryError> {
        Ok(self.images.remembered(image).await?)
    }

    /// The images that stand to a repository in some way.
    pub async fn of_repository(&self, name: &RepositoryName) -> Result<BTreeMap<ImageId, Standing>, RegistryError> {
        Ok(self.images.of_repository(name).await?)
    }

    /// The repositories that have images, hold `term` in their names, and are shown by the permit.
    pub async fn search(&self, permit: &CatalogPermit, term: &str) -> Result<Vec<RepositoryName>, RegistryError> {
        Ok(self.images.search(permit, term).await?)
    }

    /// The turn of some images: nobody else begins one of them meanwhile. Nothing, while others do not come to an end.
    pub async fn turn(&self, images: &[&ImageId]) -> Option<Turn> {
        self.images.turn(images).await
    }

    /// Until it is dropped, somebody writes this image's layer.
    pub fn write(&self, image: &ImageId) -> Writer {
        self.images.write(image)
    }

    /// Whether somebody writes this image's layer now.
    pub fn is_written(&self, image: &ImageId) -> bool {
        self.images.is_written(image)
    }

    /// A moment before the registry is asked of a repository, for what is to be learnt from its answer.
    pub fn moment(&self, name: &RepositoryName) -> Moment {
        self.images.moment(name)
    }

    /// How images stand to the repository of the permit, by a request that the registry took.
    ///
    /// v1 cannot tell a new tag from an old one, so it takes leave to push, and that to pull does not do:
    /// ```compile_fail,E0308
    /// # use dockgate::{access::{Permit, Pull}, registry::{Index, Named}};
    /// async fn name(index: &Index, permit: &Permit<Pull>, images: Vec<Named>) {
    ///     let _ = index.name(permit, images).await;
    /// }
    /// ```
    pub async fn name(&self, permit: &Permit<Push>, images: Vec<Named>) -> Result<(), RegistryError> {
        Ok(self.images.name(permit, images).await?)
    }

    /// The registry answered with tags of a repository.
    pub async fn learn_tags(&self, moment: Moment, name: &RepositoryName, answer: &[u8]) -> Result<(), RegistryError> {
        Ok(self.images.learn(moment, name, answered_images(answer), false).await?)
    }

    /// The registry answered with the list of a repository's images, which is what clients made it.
    pub async fn learn_list(&self, moment: Moment, name: &RepositoryName, answer: &[u8]) -> Result<(), RegistryError> {
        Ok(self.images.learn(moment, name, answered_images(answer), true).await?)
    }

    /// The registry answered with what an image stands on.
    pub async fn learn_ancestry(&self, image: &ImageId, answer: &[u8]) -> Result<(), RegistryError> {
        Ok(self.images.learn_ancestry(image, answered_images(answer)).await?)
    }

    /// Asks the registry for the tags of a repository and what they stand on, and learns it.
    pub async fn learn_repository(&self, permit: &impl Leave, visit: &Visit) -> Result<(), RegistryError> {
        let name = permit.repository();
        let moment = self.moment(name);
        let Some(tags) = self.tags(name, visit).await? else { return Ok(()) };
        self.learn(moment, name, &tags, &answered_images(&tags), visit).await
    }

    /// Learns a repository where a tag names an image that is not known to be there.
    pub async fn learn_what_is_new(&self, permit: &impl Leave, visit: &Visit) -> Result<(), RegistryError> {
        let name = permit.repository();
        let moment = self.moment(name);
        let Some(tags) = self.tags(name, visit).await? else { return Ok(()) };
        let known = self.of_repository(name).await?;
        let mut news = answered_images(&tags);
        news.retain(|top| !known.get(top).is_some_and(|standing| standing.is_there()));
        if news.is_empty() { Ok(()) } else { self.learn(moment, name, &tags, &news, visit).await }
    }

    async fn tags(&self, name: &RepositoryName, visit: &Visit) -> Result<Option<Bytes>, RegistryError> {
        self.ask(&format!("/v1/repositories/{name}/tags"), visit).await
    }

    async fn learn(
        &self,
        moment: Moment,
        name: &RepositoryName,
        tags: &[u8],
        tops: &[ImageId],
        visit: &Visit,
    ) -> Result<(), RegistryError> {
        self.learn_tags(moment, name, tags).await?;
        for top in tops.iter().take(LEARNED_TOPS_MAX) {
            if let Some(ancestry) = self.ask(&format!("/v1/images/{top}/ancestry"), visit).await? {
                self.learn_ancestry(top, &ancestry).await?;
            }
        }
        Ok(())
    }

    /// Begins an image with the request that has its JSON. If the registry does not take it, nothing has changed. To be run to
    /// its end, whoever waits for it.
    pub async fn begin(
        &self,
        Begin { image, repositories, principal }: Begin,
        request: Request<Body>,
        visit: &Visit,
    ) -> Result<Response<Body>, RegistryError> {
        // Before, and not after: were we to end in between, nobody could go on with it.
        let before = self.images.begin(&image, repositories.clone(), &principal).await?;
        let answer = self.registry.forward(request, &visit.forwarded, visit.token.as_ref()).await;
        let is_refused = match &answer {
            // One that fails may have taken it, or half of it.
            Ok(answer) => answer.status().is_client_error(),
            Err(error) => error.retry(),
        };
        if is_refused {
            self.images.restore(&image, repositories, before).await?;
        }
        Ok(answer?)
    }

    /// Deletes the repository of the permit by this request, and forgets what was in it. To be run to its end.
    pub async fn delete(
        &self,
        permit: &Permit<Delete>,
        request: Request<Body>,
        visit: &Visit,
    ) -> Result<Response<Body>, RegistryError> {
        let answer = self.registry.forward(request, &visit.forwarded, visit.token.as_ref()).await?;
        // It may have been deleted before, by somebody who did not live to see it.
        let is_done = answer.status().is_success();
        if is_done || answer.status() == StatusCode::NOT_FOUND {
            self.images.forget(permit, is_done).await?;
        }
        Ok(answer)
    }

    /// Whether the registry has an image.
    pub async fn presence(&self, image: &ImageId, visit: &Visit) -> Result<Presence, RegistryError> {
        let answer = self.get(&format!("/v1/images/{image}/json"), visit).await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(Presence::Missing),
            // "Image is being uploaded, retry later"
            StatusCode::BAD_REQUEST => Ok(Presence::Half),
            status if status.is_success() => Ok(Presence::Whole),
            status => Err(refused(status).into()),
        }
    }

    /// What the registry says under a path; nothing, where it has nothing there.
    pub async fn ask(&self, path: &str, visit: &Visit) -> Result<Option<Bytes>, RegistryError> {
        let answer = self.get(path, visit).await?;
        let answer = tokio::time::timeout(ASK_TIMEOUT, understood(answer)).await.map_err(|_| too_late())??;
        let Understood::Whole(answer) = answer else {
            return Err(LegacyError::Answer(format!("more than {ANSWER_BYTES_MAX} bytes")).into());
        };
        match answer.status() {
            StatusCode::OK => Ok(Some(answer.into_body())),
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(refused(status).into()),
        }
    }

    async fn get(&self, path: &str, visit: &Visit) -> Result<Response<Body>, LegacyError> {
        let mut request = Request::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = path.parse().unwrap_or_default();
        *request.headers_mut() = HeaderMap::from_iter([(header::VIA, visit.via.clone())]);
        let answer = self.registry.forward(request, &visit.forwarded, visit.token.as_ref());
        tokio::time::timeout(ASK_TIMEOUT, answer).await.map_err(|_| too_late())?
    }
}

const fn refused(status: StatusCode) -> LegacyError {
    match status {
        StatusCode::UNAUTHORIZED => LegacyError::Unauthorized,
        status => LegacyError::Refused(status.as_u16()),
    }
}

const fn too_late() -> LegacyError {
    LegacyError::Late(ASK_TIMEOUT.as_secs())
}

/// Reads the body of an answer, up to [`ANSWER_BYTES_MAX`].
pub async fn understood(answer: Response<Body>) -> Result<Understood, LegacyError> {
    let (parts, mut body) = answer.into_parts();
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| LegacyError::Answer(error.to_string()))?;
        bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        if bytes.len() > ANSWER_BYTES_MAX {
            let first = stream::once(std::future::ready(Ok(Frame::data(bytes.freeze()))));
            let rest = http_body_util::BodyStream::new(body);
            let body = BodyExt::boxed_unsync(StreamBody::new(first.chain(rest)));
            return Ok(Understood::Long(Response::from_parts(parts, body)));
        }
    }
    Ok(Understood::Whole(Response::from_parts(parts, bytes.freeze())))
}
