//! Requests to registries elsewhere: each takes its permit, calls one operation, and answers with its outcome.

mod reads;
mod writes;

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{Response, StatusCode};
use hyper::body::Incoming;

use crate::access::{Action, Leave, Permit, Purpose};
use crate::identity::Credentials;
use crate::oci::{ErrorCode, RepositoryName};
use crate::registry::{CallerCredentials, Remote, Target};

use super::body::Body;
use super::intake::Intake;
use super::names::RemoteName;
use super::observe::Record;
use super::pick::Elsewhere;
use super::respond::{self, Failure};
use super::route::{Route, RouteError};
use super::walk::{Caller, Walk};

/// One request to a registry elsewhere.
pub(super) struct Call<'a> {
    walk: &'a Walk<'a>,
    elsewhere: &'a Elsewhere,
    caller: &'a Caller,
    record: &'a mut Record,
}

impl Walk<'_> {
    pub(super) async fn remote(
        &self,
        elsewhere: &Elsewhere,
        route: Route,
        caller: &Caller,
        intake: &mut Intake<Incoming>,
        record: &mut Record,
    ) -> Result<Response<Body>, Failure> {
        let call = Call { walk: self, elsewhere, caller, record };
        let answer = match route {
            Route::Ping => call.ping(),
            Route::Catalog(page) => call.catalog(page).await,
            Route::Tags(name, page) => call.tags(name, page).await,
            Route::Referrers { name, subject, artifact_type, .. } => call.referrers(name, subject, artifact_type).await,
            Route::Manifest(name, reference, verb) => call.manifest(name, reference, verb, intake).await,
            Route::Blob(name, digest, verb) => call.blob(name, digest, verb).await,
            Route::UploadStart(name, start) => call.begin_upload(name, start, intake).await,
            Route::Upload(name, id, verb) => call.upload(name, id, verb, intake).await,
            Route::Root
            | Route::Token(_)
            | Route::TokenForm
            | Route::TokenKeys
            | Route::TokenCertificates
            | Route::Legacy(_) => Err(RouteError::Unknown.into()),
        };
        let answer = answer.map_err(|failure| self.ask_for_theirs(elsewhere, failure))?;
        Ok(respond::in_namespace(answer, elsewhere.namespace.as_deref()))
    }

    /// Where the upstream gets the callers' own credentials, they are what it refused: the caller can show others. Only a
    /// password can be shown on, so that is what is asked for.
    fn ask_for_theirs(&self, elsewhere: &Elsewhere, failure: Failure) -> Failure {
        let refused = failure.status == StatusCode::FORBIDDEN && failure.code == ErrorCode::Denied;
        if !(refused && elsewhere.remote.forwards() && failure.private.is_some()) {
            return failure;
        }
        Failure {
            status: StatusCode::UNAUTHORIZED,
            code: ErrorCode::Unauthorized,
            challenge: Some(self.basic()),
            ..failure
        }
    }
}

impl Call<'_> {
    fn ping(self) -> Result<Response<Body>, Failure> {
        // Who may have everything at a mirror is not asked for credentials: docker has none for its mirrors, and would offer those
        // of Docker Hub. Where there is something to push, clients show theirs only if they are asked here.
        let prefix = self.elsewhere.prefix.as_ref();
        let is_mirror = self.remote().check_writable().is_err();
        if !(is_mirror && self.walk.settings.rules.cover(&self.caller.principal, Action::Pull, prefix)) {
            self.walk.ask_who(self.caller, None)?;
        }
        Ok(respond::pong())
    }

    fn remote(&self) -> &Arc<Remote> {
        &self.elsewhere.remote
    }

    /// The repository of the request, with leave to do `A` to it.
    fn target<A: Purpose>(&self, name: &RepositoryName) -> Result<Target<Permit<A>>, Failure> {
        self.aim(self.walk.permit(self.caller, name)?, self.elsewhere.name.as_ref())
    }

    fn aim<P: Leave>(&self, permit: P, name: Option<&RemoteName>) -> Result<Target<P>, Failure> {
        let target = name.and_then(|name| Target::new(permit, &name.canonical, &name.remote, self.theirs()));
        target.ok_or_else(|| RouteError::Unknown.into())
    }

    /// What the caller showed, where the upstream is to be shown it.
    fn theirs(&self) -> Option<CallerCredentials> {
        if !self.remote().forwards() {
            return None;
        }
        let header = self.walk.parts.headers.get(AUTHORIZATION).map(|value| value.as_bytes());
        match Credentials::parse(header) {
            Ok(Credentials::Basic { user, password }) => Some(CallerCredentials::new(&user, password.expose())),
            _ => Some(CallerCredentials::anonymous()),
        }
    }
}
