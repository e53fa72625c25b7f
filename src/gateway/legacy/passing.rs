//! What goes on to the v1 registry, and what comes back.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};

use crate::access::{Delete, Leave as _, Permit};
use crate::docker::TokenAccess;
use crate::gateway::body::Body;
use crate::gateway::respond::Failure;
use crate::identity::LegacyUse;
use crate::oci::{ErrorCode, RepositoryName};
use crate::registry::{Begin, Forwarded, LegacyError, RegistryError, Turn, Understood, Visit, understood};
use crate::upstream;

use super::index::no_token;
use super::{Call, Caller, Walk, access};

/// An answer that was read to learn from it; long ones are not.
pub(super) struct Learned {
    pub(super) response: Response<Body>,
    pub(super) bytes: Option<Bytes>,
}

impl Call<'_> {
    /// Hands the request on as it comes. `through` is the repository by which it was allowed.
    pub(super) async fn pass(&mut self, through: Option<&RepositoryName>) -> Result<Response<Body>, Failure> {
        let visit = self.visit(access(self.method()), through)?;
        let body = self.intake.hand_on().into_body();
        self.send(self.request(body, &visit), &visit).await.map(streaming)
    }

    /// Hands the request on with a body that was read.
    pub(super) async fn pass_read(
        &mut self,
        body: Bytes,
        through: Option<&RepositoryName>,
    ) -> Result<Response<Body>, Failure> {
        let visit = self.visit(TokenAccess::Write, through)?;
        self.send(self.request_read(body, &visit), &visit).await.map(streaming)
    }

    /// Hands the request on in the turn of an image. That is held until the registry has answered, whether or not the caller waits
    /// for it.
    pub(super) async fn pass_in_turn(
        &mut self,
        turn: Turn,
        body: Bytes,
        through: Option<&RepositoryName>,
    ) -> Result<Response<Body>, Failure> {
        let visit = self.visit(TokenAccess::Write, through)?;
        let (request, registry) = (self.request_read(body, &visit), Arc::clone(self.index.registry()));
        let passed = async move {
            let answer = registry.forward(request, &visit.forwarded, visit.token.as_ref()).await;
            drop(turn);
            Ok(answer?)
        };
        self.uncancelled(passed).await
    }

    /// Hands on a request that begins an image.
    pub(super) async fn pass_beginning(
        &mut self,
        turn: Turn,
        begin: Begin,
        body: Bytes,
    ) -> Result<Response<Body>, Failure> {
        let visit = self.visit(TokenAccess::Write, begin.repositories.first())?;
        let (request, index) = (self.request_read(body, &visit), Arc::clone(self.index));
        let begun = async move {
            let answer = index.begin(begin, request, &visit).await;
            drop(turn);
            answer
        };
        self.uncancelled(begun).await
    }

    /// Hands on a request that deletes a repository.
    pub(super) async fn pass_deleting(&mut self, permit: Permit<Delete>) -> Result<Response<Body>, Failure> {
        let visit = self.visit(TokenAccess::Delete, Some(permit.repository()))?;
        let (request, index) = (self.request(full(Bytes::new()), &visit), Arc::clone(self.index));
        self.uncancelled(async move { index.delete(&permit, request, &visit).await }).await
    }

    /// In a task of its own, which no client can cancel.
    async fn uncancelled(
        &mut self,
        work: impl Future<Output = Result<Response<upstream::Body>, RegistryError>> + Send + 'static,
    ) -> Result<Response<Body>, Failure> {
        let answer = tokio::spawn(work).await.map_err(|error| RegistryError::Internal(error.to_string()))?;
        self.answered(answer?).map(streaming)
    }

    /// Hands on a request without a body, whose answer something is learnt from.
    pub(super) async fn pass_learning(&mut self, through: Option<&RepositoryName>) -> Result<Learned, Failure> {
        let visit = self.visit(access(self.method()), through)?;
        let mut request = self.request(full(Bytes::new()), &visit);
        // What is learnt from must be readable.
        request.headers_mut().remove(header::ACCEPT_ENCODING);
        let answer = self.send(request, &visit).await?;
        Ok(match understood(answer).await? {
            // By its type nothing can be told: docker-registry has text/html where it says none.
            Understood::Whole(answer) if answer.status() == StatusCode::OK && is_web_page(answer.body()) => {
                return Err(LegacyError::Answer("a web page in place of JSON".to_owned()).into());
            }
            Understood::Whole(answer) => {
                let bytes = (answer.status() == StatusCode::OK).then(|| answer.body().clone());
                Learned { response: answer.map(Body::from), bytes }
            }
            Understood::Long(answer) => {
                tracing::warn!(
                    path = self.walk.parts.uri.path(),
                    "an answer of the v1 registry is too long to learn from"
                );
                Learned { response: streaming(answer), bytes: None }
            }
        })
    }

    async fn send(
        &mut self,
        request: Request<upstream::Body>,
        visit: &Visit,
    ) -> Result<Response<upstream::Body>, Failure> {
        let answer = self.index.registry().forward(request, &visit.forwarded, visit.token.as_ref()).await?;
        self.answered(answer)
    }

    fn answered(&mut self, answer: Response<upstream::Body>) -> Result<Response<upstream::Body>, Failure> {
        self.record.tier = "upstream";
        if answer.status() == StatusCode::UNAUTHORIZED && !self.index.registry().forwards_basic() {
            // The caller was let in here; that we were not let in there is for the operator.
            return Err(LegacyError::Unauthorized.into());
        }
        Ok(answer)
    }

    /// The request as the registry gets it.
    fn request(&self, body: upstream::Body, visit: &Visit) -> Request<upstream::Body> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method().clone();
        // Made anew from what was understood and allowed, since the registry may read the caller's own words otherwise. Names,
        // tags and ids are plain characters.
        *request.uri_mut() = self.route.path().parse().unwrap_or_default();
        *request.headers_mut() = self.walk.parts.headers.clone();
        // If its name leads back here, that is seen.
        request.headers_mut().insert(header::VIA, visit.via.clone());
        request
    }

    /// The request to the registry with a body that was read here. Of a form docker-registry would see nothing.
    fn request_read(&self, body: Bytes, visit: &Visit) -> Request<upstream::Body> {
        let mut request = self.request(full(body), visit);
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request
    }

    /// How the registry is asked: a registry with an index gets a token for just this.
    pub(super) fn visit(&self, access: TokenAccess, through: Option<&RepositoryName>) -> Result<Visit, Failure> {
        let token = match through {
            _ if self.index.registry().is_standalone() => None,
            Some(name) => Some(self.registry_token(name, access)?),
            None => return Err(in_no_repository()),
        };
        Ok(Visit { token, ..self.walk.visit(self.caller) })
    }

    fn registry_token(&self, name: &RepositoryName, access: TokenAccess) -> Result<HeaderValue, Failure> {
        let identity = &self.walk.rooms.identity;
        let fields = identity.issue_legacy(&self.caller.principal, name, access, LegacyUse::Registry);
        let value = HeaderValue::try_from(format!("Token {}", fields.map_err(no_token)?));
        let mut value = value.map_err(no_token)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl Walk<'_> {
    /// How the registry is asked for a caller, without a word of who it is.
    pub(super) fn visit(&self, caller: &Caller) -> Visit {
        let screened = &caller.screened;
        let forwarded = Forwarded { client: screened.client, host: screened.host.clone(), https: screened.https };
        // The names of others stay: two gateways before each other would not know their own requests.
        let before = self.parts.headers.get_all(header::VIA).iter().map(HeaderValue::as_bytes);
        let ours = format!("1.1 {}", self.rooms.via);
        let via = before.chain([ours.as_bytes()]).collect::<Vec<_>>().join(&b", "[..]);
        // Of headers that were received a header can be made.
        let via = HeaderValue::from_bytes(&via).unwrap_or_else(|_| HeaderValue::from_static("1.1 dockgate"));
        Visit { forwarded, token: None, via }
    }
}

/// Whether it is meant for a browser: a portal, a login, a page that says that something is down.
fn is_web_page(body: &[u8]) -> bool {
    body.trim_ascii_start().starts_with(b"<")
}

fn in_no_repository() -> Failure {
    let message = "it is not known which repository this image is in; pull or push it by its repository's name first";
    Failure::new(StatusCode::NOT_FOUND, ErrorCode::NameUnknown, message)
}

fn full(body: Bytes) -> upstream::Body {
    Full::new(body).map_err(|never| match never {}).boxed_unsync()
}

fn streaming(answer: Response<upstream::Body>) -> Response<Body> {
    answer.map(|body| Body::Upstream(body.map_err(io::Error::other).boxed_unsync()))
}
