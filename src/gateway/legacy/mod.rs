//! Requests in the v1 protocol. The gateway is the index: it says who may do what, by its users, its rules, and what it knows
//! of which image is in which repository (ADR 12). The registry behind it has the images.

mod images;
mod index;
mod passing;
mod repositories;
mod search;
mod users;

use std::sync::Arc;

use http::{Method, Response, StatusCode};
use hyper::body::Incoming;

use crate::access::{Action, Permit, Purpose, Push, WritePermit};
use crate::docker::{self, TokenAccess};
use crate::oci::{ErrorCode, RepositoryName};
use crate::registry::Index;

use super::body::Body;
use super::identify::forbidden;
use super::intake::Intake;
use super::observe::Record;
use super::respond::Failure;
use super::route::LegacyRoute;
use super::walk::{Caller, Walk};

/// One request to the v1 registry or its index.
struct Call<'a> {
    walk: &'a Walk<'a>,
    index: &'a Arc<Index>,
    caller: &'a Caller,
    route: &'a LegacyRoute,
    intake: &'a mut Intake<Incoming>,
    record: &'a mut Record,
}

impl Walk<'_> {
    pub(super) async fn legacy(
        &self,
        index: Option<&Arc<Index>>,
        route: &LegacyRoute,
        caller: &Caller,
        intake: &mut Intake<Incoming>,
        record: &mut Record,
    ) -> Result<Response<Body>, Failure> {
        let answer = match (route, index) {
            (LegacyRoute::Ping, index) => Ok(index::pong(index.map(|index| &**index))),
            (LegacyRoute::Search(query), index) => self.search(index.map(|index| &**index), query, caller).await,
            (_, None) => Err(self.no_legacy()),
            (_, Some(index)) => {
                let call = Call { walk: self, index, caller, route, intake, record };
                Box::pin(call.go()).await
            }
        };
        // v1 clients know Basic alone, so that is what they are asked for.
        answer.map_err(|failure| {
            let challenge = (failure.status == StatusCode::UNAUTHORIZED).then(|| self.basic());
            Failure { challenge, ..failure }
        })
    }
}

impl Call<'_> {
    async fn go(self) -> Result<Response<Body>, Failure> {
        if self.caller.by_registry {
            return self.registry_asks().await;
        }
        match self.route {
            LegacyRoute::Repository(repository) => self.repository(repository).await,
            LegacyRoute::Image(image) => self.image(image).await,
            LegacyRoute::Users => self.users().await,
            LegacyRoute::User(name) => self.user(name).await,
            // Answered before.
            LegacyRoute::Ping | LegacyRoute::Search(_) => Err(self.walk.no_legacy()),
        }
    }

    fn method(&self) -> &Method {
        &self.walk.parts.method
    }

    fn permit<A: Purpose>(&self, name: &RepositoryName) -> Result<Permit<A>, Failure> {
        self.walk.permit(self.caller, name)
    }

    /// v1 cannot tell a new tag from an old one, so who may only make new ones may not write.
    fn permit_write(&self, name: &RepositoryName) -> Result<Permit<Push>, Failure> {
        match self.walk.permit_write(self.caller, name)? {
            WritePermit::Push(permit) => Ok(permit),
            WritePermit::Create(_) => Err(forbidden(&format!("push {name} in the v1 protocol"))),
        }
    }

    fn may<A: Purpose>(&self, name: &RepositoryName) -> bool {
        self.walk.settings.rules.authorize::<A>(&self.caller.principal, name).is_ok()
    }

    fn may_everywhere(&self, action: Action) -> bool {
        self.walk.settings.rules.allow_everywhere(&self.caller.principal, action)
    }
}

/// What a token has to be for, for this method.
const fn access(method: &Method) -> TokenAccess {
    match *method {
        Method::GET => TokenAccess::Read,
        Method::HEAD => TokenAccess::Head,
        Method::DELETE => TokenAccess::Delete,
        _ => TokenAccess::Write,
    }
}

fn bad_body(error: docker::BodyError) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid, error.to_string())
}
