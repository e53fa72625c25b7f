//! Requests to the built-in registry: each takes its permit, calls one operation, and answers with its outcome.

mod blobs;
mod lists;
mod manifests;
mod uploads;

use http::{Response, StatusCode};
use hyper::body::Incoming;

use crate::registry::{Hosted, RegistryError};

use super::body::Body;
use super::intake::Intake;
use super::observe::Record;
use super::pick::Namespace;
use super::respond::{self, Failure};
use super::route::{Route, RouteError};
use super::walk::{Caller, Walk};

/// One request to the built-in registry.
pub(super) struct Call<'a> {
    walk: &'a Walk<'a>,
    hosted: &'a Hosted,
    namespace: Option<&'a Namespace>,
    caller: &'a Caller,
    record: &'a mut Record,
}

impl Walk<'_> {
    pub(super) async fn hosted(
        &self,
        hosted: &Hosted,
        route: Route,
        namespace: Option<&Namespace>,
        caller: &Caller,
        intake: &mut Intake<Incoming>,
        record: &mut Record,
    ) -> Result<Response<Body>, Failure> {
        let call = Call { walk: self, hosted, namespace, caller, record };
        let answer = match route {
            Route::Ping => call.ping(),
            Route::Catalog(page) => call.catalog(page).await,
            Route::Tags(name, page) => call.tags(name, page).await,
            Route::Referrers { name, subject, artifact_type, last } => {
                call.referrers(name, subject, artifact_type, last).await
            }
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
        answer.map(|answer| respond::in_namespace(answer, namespace.map(|namespace| &*namespace.text)))
    }
}

impl Call<'_> {
    fn ping(self) -> Result<Response<Body>, Failure> {
        self.walk.ask_who(self.caller, None)?;
        Ok(respond::pong())
    }
}

/// What was not deleted; where deleting is switched off, `allow` says what is not (RFC 9110, section 15.5.6).
fn not_deleted(error: RegistryError, allow: &'static str) -> Failure {
    let failure = Failure::from(error);
    let allow = (failure.status == StatusCode::METHOD_NOT_ALLOWED).then_some(allow);
    Failure { allow, ..failure }
}
