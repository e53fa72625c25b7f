//! Requests in the v1 protocol: behind the gateway's users, then passed on.

use std::io;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;

use crate::access::{Action, Denied};
use crate::net::client::BoxError;
use crate::oci::ErrorCode;
use crate::registry::{Forwarded, Legacy};

use super::body::Body;
use super::identify::forbidden;
use super::intake::{Intake, IntakeError};
use super::observe::Record;
use super::respond::Failure;
use super::route::LegacyRoute;
use super::walk::{Caller, Walk};

/// Says nothing of whether the image is there, and all the same why nobody but the operator can help.
const HIDDEN: &str = "no such image for you; v1 images take a rule for \"**\" in [[access]]";

impl Walk<'_> {
    pub(super) async fn legacy(
        &self,
        legacy: &Legacy,
        route: &LegacyRoute,
        caller: Caller,
        intake: Intake<Incoming>,
        record: &mut Record,
    ) -> Result<Response<Body>, Failure> {
        self.permit_legacy(&caller, route)?;
        let mut request = Request::new(stream(intake));
        *request.method_mut() = self.parts.method.clone();
        *request.uri_mut() = self.parts.uri.clone();
        *request.headers_mut() = self.parts.headers.clone();
        if *route == LegacyRoute::Ping {
            // Nobody looked at them, so nobody may try them out on the registry.
            request.headers_mut().remove(header::AUTHORIZATION);
        }
        let Caller { screened, .. } = caller;
        let forwarded = Forwarded { client: screened.client, host: screened.host, https: screened.https };
        let answer = legacy.forward(request, forwarded).await?;
        record.tier = "upstream";
        Ok(answer.map(|body| Body::Upstream(BodyExt::boxed_unsync(body.map_err(io::Error::other)))))
    }

    /// v1 clients know Basic alone, so that is what they are asked for.
    fn permit_legacy(&self, caller: &Caller, route: &LegacyRoute) -> Result<(), Failure> {
        let action = match self.parts.method {
            Method::GET | Method::HEAD => Action::Pull,
            Method::DELETE => Action::Delete,
            _ => Action::Push,
        };
        let permitted = match route {
            LegacyRoute::Ping => Ok(()),
            LegacyRoute::Users if caller.principal.is_anonymous() => Err(Failure::new(
                StatusCode::UNAUTHORIZED,
                ErrorCode::Unauthorized,
                "wrong user name or password; log in again",
            )),
            LegacyRoute::Users => Ok(()),
            LegacyRoute::Repository(name) => self.permit(caller, action, name).and_then(|permit| {
                // v1 cannot tell a new tag from an old one, so who may only make new ones may not write.
                let writes = action == Action::Push && !permit.may_overwrite();
                if writes { Err(forbidden(&format!("push {name} in the v1 protocol"))) } else { Ok(()) }
            }),
            // These name no repository: open to users who may do the same everywhere.
            LegacyRoute::Image(_) | LegacyRoute::Search => {
                let permit = self.settings.rules.authorize_everywhere(&caller.principal, action);
                permit.map(drop).map_err(|denied| self.refuse_everywhere(caller, denied, action))
            }
        };
        permitted.map_err(|failure| {
            let challenge = (failure.status == StatusCode::UNAUTHORIZED).then(|| self.basic());
            Failure { challenge, ..failure }
        })
    }
}

impl Walk<'_> {
    /// As for a repository, but of all of them.
    fn refuse_everywhere(&self, caller: &Caller, denied: Denied, action: Action) -> Failure {
        match denied {
            Denied::Unauthenticated | Denied::InsufficientScope => self.unauthorized(&caller.screened, None, None),
            Denied::Hidden => Failure::new(StatusCode::NOT_FOUND, ErrorCode::NameUnknown, HIDDEN),
            Denied::Forbidden => forbidden(&format!("{action} v1 images; that takes a rule for \"**\"")),
        }
    }
}

/// The rest of a request's body, with its deadlines; what breaks it breaks the upstream's too.
fn stream(intake: Intake<Incoming>) -> UnsyncBoxBody<Bytes, BoxError> {
    let frames = futures_util::stream::unfold(Some(intake), |intake| async {
        let mut intake = intake?;
        match intake.next().await {
            Ok(Some(bytes)) => Some((Ok(http_body::Frame::data(bytes)), Some(intake))),
            Ok(None) => None,
            Err(error) => Some((Err(broken(error)), None)),
        }
    });
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

fn broken(error: IntakeError) -> BoxError {
    io::Error::other(format!("the client's body ended early: {error:?}")).into()
}
