//! Requests in the v1 protocol: behind the gateway's users, then passed on.

use std::io;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::access::{Action, Denied};
use crate::oci::ErrorCode;
use crate::registry::{Forwarded, Legacy, SlotPatience};

use super::body::Body;
use super::identify::forbidden;
use super::intake::Intake;
use super::observe::Record;
use super::respond::Failure;
use super::route::{LegacyRepository, LegacyRoute};
use super::walk::{Caller, Walk};

/// Says nothing of whether the image is there, and all the same why nobody but the operator can help.
const HIDDEN: &str = "no such image for you; v1 images take a rule for \"**\" in [[access]]";

/// How long a ping waits until the registry may be asked one thing more: who pings wants to know now.
const PING_SLOT_TIMEOUT: Duration = Duration::from_secs(1);
/// Docker up to 1.10 goes on from this answer, and from no other with status 400, to ask whether the password is right.
const USER_EXISTS: &[u8] = b"\"Username or email already exists\"";

impl Walk<'_> {
    pub(super) async fn legacy(
        &self,
        legacy: &Legacy,
        route: &LegacyRoute,
        caller: &Caller,
        intake: &mut Intake<Incoming>,
        record: &mut Record,
    ) -> Result<Response<Body>, Failure> {
        self.permit_legacy(caller, route)?;
        if *route == LegacyRoute::Users {
            return Ok(self.user_is_right());
        }
        let mut request = Request::new(intake.hand_on().into_body());
        *request.method_mut() = self.parts.method.clone();
        *request.uri_mut() = self.legacy_target(route);
        *request.headers_mut() = self.parts.headers.clone();
        if *route == LegacyRoute::Ping {
            // Nobody looked at them, so nobody may try them out on the registry.
            request.headers_mut().remove(header::AUTHORIZATION);
            request.extensions_mut().insert(SlotPatience(PING_SLOT_TIMEOUT));
        }
        // If its name leads back here, that is seen.
        if let Ok(via) = HeaderValue::try_from(format!("1.1 {}", self.rooms.via)) {
            request.headers_mut().append(header::VIA, via);
        }
        let screened = &caller.screened;
        let forwarded = Forwarded { client: screened.client, host: screened.host.clone(), https: screened.https };
        let answer = legacy.forward(request, forwarded).await?;
        record.tier = "upstream";
        Ok(answer.map(|body| Body::Upstream(BodyExt::boxed_unsync(body.map_err(io::Error::other)))))
    }

    /// Made anew from what was understood and allowed, since the registry may read the caller's own words otherwise.
    fn legacy_target(&self, route: &LegacyRoute) -> Uri {
        let query = self.parts.uri.query().filter(|_| *route == LegacyRoute::Search);
        let target = query.map_or_else(|| route.path(), |query| format!("{}?{query}", route.path()));
        // Names, tags and ids are plain characters, and the query was in a URI before.
        target.parse().unwrap_or_default()
    }

    /// Users are ours: the registry is not asked, and nobody is made one there.
    fn user_is_right(&self) -> Response<Body> {
        let post = self.parts.method == Method::POST;
        let mut answer = Response::new(Body::from(if post { USER_EXISTS } else { b"\"OK\"" }));
        *answer.status_mut() = if post { StatusCode::BAD_REQUEST } else { StatusCode::OK };
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answer
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
            LegacyRoute::Repository(LegacyRepository { name, .. }) => {
                self.permit(caller, action, name).and_then(|permit| {
                    // v1 cannot tell a new tag from an old one, so who may only make new ones may not write.
                    let writes = action == Action::Push && !permit.may_overwrite();
                    if writes { Err(forbidden(&format!("push {name} in the v1 protocol"))) } else { Ok(()) }
                })
            }
            // These name no repository: open to users who may do the same everywhere.
            LegacyRoute::Image(_) => {
                let permit = self.settings.rules.authorize_everywhere(&caller.principal, action);
                permit.map(drop).map_err(|denied| self.refuse_everywhere(caller, denied, action))
            }
            LegacyRoute::Search => {
                let permit = self.settings.rules.authorize_search(&caller.principal);
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
