//! The index before a v1 registry: it knows which images are in which repositories, and asks the registry what it does not
//! know.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use tokio::sync::MutexGuard;

use crate::access::{CatalogPermit, Permit};
use crate::docker::{ImageId, answered_images};
use crate::oci::RepositoryName;
use crate::store::{Standing, Store};
use crate::upstream::{Body, Forwarded};

use super::super::RegistryError;
use super::images::{Images, Moment, Standings};
use super::{Legacy, LegacyError};

/// How much of an answer is read to learn from it, in bytes; a longer one passes by.
pub const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

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

    /// The repositories to which an image stands in some way.
    pub async fn standings(&self, image: &ImageId) -> Result<Standings, RegistryError> {
        Ok(self.images.standings(image).await?)
    }

    /// The images that stand to a repository in some way.
    pub async fn of_repository(&self, permit: &Permit) -> Result<BTreeMap<ImageId, Standing>, RegistryError> {
        Ok(self.images.of_repository(permit.repository()).await?)
    }

    /// The repositories that have images, hold `term` in their names, and are shown by the permit.
    pub async fn search(&self, permit: &CatalogPermit, term: &str) -> Result<Vec<RepositoryName>, RegistryError> {
        Ok(self.images.search(permit, term).await?)
    }

    /// Who has the turn of an image is the only one to begin it.
    pub async fn turn(&self, image: &ImageId) -> MutexGuard<'_, ()> {
        self.images.turn(image).await
    }

    /// A moment before the registry is asked, for what is to be learnt from its answer.
    pub fn moment(&self) -> Moment {
        self.images.moment()
    }

    /// How images stand to the repository of the permit, by a request that the registry took.
    pub async fn record(&self, permit: &Permit, images: Vec<(ImageId, Standing)>) -> Result<(), RegistryError> {
        Ok(self.images.record(permit, images).await?)
    }

    /// An image that the registry does not have is about to be pushed to these repositories.
    pub async fn begin(&self, image: &ImageId, repositories: Vec<RepositoryName>) -> Result<(), RegistryError> {
        Ok(self.images.begin(image, repositories).await?)
    }

    /// The repository of the permit was deleted.
    pub async fn forget(&self, permit: &Permit) -> Result<(), RegistryError> {
        Ok(self.images.forget(permit).await?)
    }

    /// The registry answered with tags of a repository, or with the ancestry of one of its images.
    pub async fn learn(&self, moment: Moment, name: &RepositoryName, answer: &[u8]) -> Result<(), RegistryError> {
        Ok(self.images.learn(moment, name, answered_images(answer)).await?)
    }

    /// The registry answered with the list of a repository's images, which is what clients made it.
    pub async fn learn_list(&self, moment: Moment, name: &RepositoryName, answer: &[u8]) -> Result<(), RegistryError> {
        Ok(self.images.learn_unknown(moment, name, answered_images(answer)).await?)
    }

    /// Asks the registry for the tags of a repository and what they stand on, and learns it.
    pub async fn learn_repository(&self, permit: &Permit, visit: &Visit) -> Result<(), RegistryError> {
        let (moment, name) = (self.moment(), permit.repository());
        let Some(tags) = self.ask(&format!("/v1/repositories/{name}/tags"), visit).await? else { return Ok(()) };
        let tops = answered_images(&tags);
        self.images.learn(moment, name, tops.clone()).await?;
        for top in tops.iter().take(LEARNED_TOPS_MAX) {
            if let Some(ancestry) = self.ask(&format!("/v1/images/{top}/ancestry"), visit).await? {
                self.images.learn(moment, name, answered_images(&ancestry)).await?;
            }
        }
        Ok(())
    }

    /// Whether the registry has an image, whole or half.
    pub async fn exists(&self, image: &ImageId, visit: &Visit) -> Result<bool, RegistryError> {
        let answer = self.get(&format!("/v1/images/{image}/json"), visit).await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(false),
            // 400: "Image is being uploaded, retry later".
            status if status.is_success() || status == StatusCode::BAD_REQUEST => Ok(true),
            status => Err(LegacyError::Refused(status.as_u16()).into()),
        }
    }

    /// What the registry says under a path; nothing, where it has nothing there.
    pub async fn ask(&self, path: &str, visit: &Visit) -> Result<Option<Bytes>, LegacyError> {
        match understood(self.get(path, visit).await?).await? {
            Understood::Long(_) => Err(LegacyError::Answer(format!("more than {ANSWER_BYTES_MAX} bytes"))),
            Understood::Whole(answer) => match answer.status() {
                StatusCode::OK => Ok(Some(answer.into_body())),
                StatusCode::NOT_FOUND => Ok(None),
                status => Err(LegacyError::Refused(status.as_u16())),
            },
        }
    }

    async fn get(&self, path: &str, visit: &Visit) -> Result<Response<Body>, LegacyError> {
        let mut request = Request::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = path.parse().unwrap_or_default();
        *request.headers_mut() = HeaderMap::from_iter([(header::VIA, visit.via.clone())]);
        self.registry.forward(request, &visit.forwarded, visit.token.as_ref()).await
    }
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
