//! What goes on to the v1 registry, and what comes back.

use std::io;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};

use crate::docker::TokenAccess;
use crate::identity::LegacyUse;
use crate::oci::{ErrorCode, RepositoryName};
use crate::registry::{Forwarded, LegacyError, Understood, Visit, understood};
use crate::upstream;

use super::super::body::Body;
use super::super::respond::Failure;
use super::{Call, access};

/// An answer that was read to learn from it; long ones are not.
pub(super) struct Learned {
    pub(super) response: Response<Body>,
    pub(super) bytes: Option<Bytes>,
}

impl Call<'_> {
    /// Hands the request on as it comes. `through` is the repository by which it was allowed.
    pub(super) async fn pass(&mut self, through: Option<&RepositoryName>) -> Result<Response<Body>, Failure> {
        let body = self.intake.hand_on().into_body();
        self.send(body, through).await.map(streaming)
    }

    /// The same with a body that was read.
    pub(super) async fn pass_read(
        &mut self,
        body: Bytes,
        through: Option<&RepositoryName>,
    ) -> Result<Response<Body>, Failure> {
        let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
        self.send(body, through).await.map(streaming)
    }

    /// The same of a request without a body, with an answer from which something is learnt.
    pub(super) async fn pass_learning(&mut self, through: Option<&RepositoryName>) -> Result<Learned, Failure> {
        let body = Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync();
        let answer = self.send(body, through).await?;
        Ok(match understood(answer).await? {
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
        body: upstream::Body,
        through: Option<&RepositoryName>,
    ) -> Result<Response<upstream::Body>, Failure> {
        let visit = self.visit(access(self.method()), through)?;
        let mut request = Request::new(body);
        *request.method_mut() = self.method().clone();
        // Made anew from what was understood and allowed, since the registry may read the caller's own words otherwise. Names,
        // tags and ids are plain characters.
        *request.uri_mut() = self.route.path().parse().unwrap_or_default();
        *request.headers_mut() = self.walk.parts.headers.clone();
        // What is learnt from must be readable.
        request.headers_mut().remove(header::ACCEPT_ENCODING);
        // If its name leads back here, that is seen.
        request.headers_mut().insert(header::VIA, visit.via.clone());
        let registry = self.index.registry();
        let answer = registry.forward(request, &visit.forwarded, visit.token.as_ref()).await?;
        self.record.tier = "upstream";
        if answer.status() == StatusCode::UNAUTHORIZED && !registry.forwards_basic() {
            // The caller was let in here; that we were not let in there is for the operator.
            return Err(LegacyError::Refused(StatusCode::UNAUTHORIZED.as_u16()).into());
        }
        Ok(answer)
    }

    /// How the registry is asked: a registry with an index gets a token for just this.
    pub(super) fn visit(&self, access: TokenAccess, through: Option<&RepositoryName>) -> Result<Visit, Failure> {
        let token = match through {
            _ if self.index.registry().is_standalone() => None,
            Some(name) => Some(self.registry_token(name, access)?),
            None => return Err(self.in_no_repository()),
        };
        Ok(Visit { token, ..self.walk.visit(self.caller) })
    }

    fn registry_token(&self, name: &RepositoryName, access: TokenAccess) -> Result<HeaderValue, Failure> {
        let identity = &self.walk.rooms.identity;
        let fields = identity.issue_legacy(&self.caller.principal, name, access, LegacyUse::Registry);
        let value = HeaderValue::try_from(format!("Token {}", fields.map_err(super::index::no_token)?));
        let mut value = value.map_err(super::index::no_token)?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn in_no_repository(&self) -> Failure {
        let message =
            "it is not known which repository this image is in; pull or push it by its repository's name first";
        Failure::new(StatusCode::NOT_FOUND, ErrorCode::NameUnknown, message)
    }
}

impl super::Walk<'_> {
    /// How the registry is asked for a caller, without a word of who it is.
    pub(super) fn visit(&self, caller: &super::Caller) -> Visit {
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

fn streaming(answer: Response<upstream::Body>) -> Response<Body> {
    answer.map(|body| Body::Upstream(body.map_err(io::Error::other).boxed_unsync()))
}
