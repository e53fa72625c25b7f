//! What the gateway answers as the index: the ping, its own tokens, and what a registry that is not its own index leaves to it.

use std::fmt;

use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::access::{Delete, Leave as _, Permit, Pull};
use crate::docker::{ImageId, TokenAccess};
use crate::gateway::body::Body;
use crate::gateway::respond::Failure;
use crate::gateway::route::{LegacyRepository, LegacyRoute, RepositoryPart};
use crate::identity::LegacyUse;
use crate::oci::{ErrorCode, RepositoryName};
use crate::registry::{Index, Standing};

use super::Call;

const STANDALONE: HeaderName = HeaderName::from_static("x-docker-registry-standalone");
const TOKEN: HeaderName = HeaderName::from_static("x-docker-token");
const ENDPOINTS: HeaderName = HeaderName::from_static("x-docker-endpoints");

/// Told that the registry is not its own index, clients go on with the token of the index, over TLS too; else they would say
/// the password each time, which is what a registry wants that is told it.
pub(super) fn pong(index: Option<&Index>) -> Response<Body> {
    let says_password = index.is_some_and(|index| index.registry().forwards_basic());
    let mut answer = json_answer(StatusCode::OK, &json!({}));
    answer.headers_mut().insert(STANDALONE, HeaderValue::from_static(if says_password { "true" } else { "false" }));
    answer
}

pub(super) fn json_answer(status: StatusCode, value: &Value) -> Response<Body> {
    let mut answer = Response::new(Body::from(value.to_string()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

impl Call<'_> {
    /// Puts a token for `name` into an answer that says yes, in both places where clients look for one. Who came with a token
    /// gets none: it cannot prolong itself.
    pub(super) fn with_token(
        &self,
        mut answer: Response<Body>,
        name: &RepositoryName,
        access: TokenAccess,
    ) -> Result<Response<Body>, Failure> {
        let caller = &self.caller.principal;
        if !answer.status().is_success() || caller.has_token() {
            return Ok(answer);
        }
        let fields =
            self.walk.rooms.identity.issue_legacy(caller, name, access, LegacyUse::Caller).map_err(no_token)?;
        // As 0.9.1 writes it, whose clients then say `Token Token`.
        let mut token = HeaderValue::try_from(format!("Token {fields}")).map_err(no_token)?;
        token.set_sensitive(true);
        let endpoint = HeaderValue::try_from(&self.caller.screened.host).map_err(no_token)?;
        answer.headers_mut().insert(TOKEN, token.clone());
        answer.headers_mut().insert(WWW_AUTHENTICATE, token);
        answer.headers_mut().insert(ENDPOINTS, endpoint);
        Ok(answer)
    }

    /// What a registry that is not its own index asks about a request that was let through a moment ago, with what goes with
    /// that request. It was for one repository.
    pub(super) async fn registry_asks(&self) -> Result<Response<Body>, Failure> {
        let refusal =
            || self.walk.log_in_again("this token is for a v1 registry that asks its index, and for nothing else");
        let LegacyRoute::Repository(LegacyRepository { name, part }) = self.route else { return Err(refusal()) };
        if !self.caller.principal.granted().any(|granted| granted == name) {
            return Err(refusal());
        }
        Ok(match (self.method(), part) {
            (&Method::GET, RepositoryPart::Images) => {
                // Before and while images are pushed, too.
                let list =
                    self.image_list(name, |standing| standing.is_there() || standing == Standing::Listed).await?;
                json_answer(StatusCode::OK, &list.into())
            }
            // Whether an image may be the one below another, or be read: that was looked at.
            (&Method::GET, RepositoryPart::LayerAccess(_)) => json_answer(StatusCode::OK, &json!({ "access": true })),
            (&Method::PUT, RepositoryPart::Auth) => json_answer(StatusCode::OK, &json!("OK")),
            _ => return Err(refusal()),
        })
    }

    /// `GET …/images` in place of a registry that is not its own index.
    pub(super) async fn images_of(&self, permit: Permit<Pull>) -> Result<Response<Body>, Failure> {
        let name = permit.repository();
        // What was there before the gateway, or was pushed around it, is in a tag.
        let visit = self.visit(TokenAccess::Read, Some(name))?;
        self.index.learn_what_is_new(&permit, &visit).await?;
        let list = self.image_list(name, Standing::is_there).await?;
        if list.is_empty() {
            return Err(Failure::new(StatusCode::NOT_FOUND, ErrorCode::NameUnknown, "images not found"));
        }
        self.with_token(json_answer(StatusCode::OK, &list.into()), name, TokenAccess::Read)
    }

    async fn image_list(&self, name: &RepositoryName, shows: impl Fn(Standing) -> bool) -> Result<Vec<Value>, Failure> {
        let images = self.index.of_repository(name).await?;
        let shown = images.into_iter().filter(|(_, standing)| shows(*standing));
        Ok(shown.map(|(image, _)| json!({ "id": image.as_str() })).collect())
    }

    /// `PUT …/auth`: what a registry asks before it deletes or changes a repository.
    pub(super) fn confirm(&self, name: &RepositoryName) -> Result<Response<Body>, Failure> {
        if !self.may::<Delete>(name) {
            self.permit_write(name)?;
        }
        Ok(json_answer(StatusCode::OK, &json!("OK")))
    }

    /// `GET …/layer/ID/access`: whether an image is to be read through a repository.
    pub(super) async fn layer_access(&self, name: &RepositoryName, id: &ImageId) -> Result<Response<Body>, Failure> {
        self.permit::<Pull>(name)?;
        let access = self.index.standings(id).await?.present().any(|present| present == name);
        Ok(json_answer(StatusCode::OK, &json!({ "access": access })))
    }
}

/// A token could not be made.
pub(super) fn no_token(error: impl fmt::Display) -> Failure {
    let message = "no token could be made; log in again, or ask the operator to look at the gateway's log";
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unknown, message).private(error.to_string())
}
