//! `/v1/images/ID/…`: an image's id names no repository. Which one it is in, and whether the caller may read or write that, the
//! table says.

use bytes::Bytes;
use http::{Method, Response, StatusCode};

use crate::access::{Action, Denied};
use crate::docker::{ImageId, ImageJson, TokenAccess};
use crate::oci::{ErrorCode, RepositoryName};
use crate::registry::{Standing, Standings};

use super::super::body::Body;
use super::super::identify::forbidden;
use super::super::respond::Failure;
use super::super::route::{ImagePart, LegacyImage};
use super::repositories::not_yours;
use super::{Call, bad_body};

/// Says nothing of whether the image is there.
const HIDDEN: &str = "no such image in a repository that you may pull; pull or push it by its repository's name";

const UNLISTED: &str = "the image is for no repository that you may push: say which one first, by PUT /v1/repositories/NAME/ with \
                        the image's id, as docker push does; or ask the operator for a rule in [[access]]";

const PARENT: &str =
    "the image stands on a parent that is in no repository that you may pull; push or pull that one first";

/// What docker takes for "go on with the next one".
const EXISTS: &str = "Image already exists";

impl Call<'_> {
    pub(super) async fn image(mut self, LegacyImage { id, part }: &LegacyImage) -> Result<Response<Body>, Failure> {
        match (self.method().clone(), part) {
            (Method::PUT, ImagePart::Json) => self.put_image_json(id).await,
            (Method::PUT, _) => {
                let through = self.permit_image(Action::Push, &self.index.standings(id).await?)?;
                self.pass(through.as_ref()).await
            }
            (Method::GET, ImagePart::Ancestry) => self.ancestry(id).await,
            _ => {
                let through = self.permit_image(Action::Pull, &self.index.standings(id).await?)?;
                self.pass(through.as_ref()).await
            }
        }
    }

    /// What an image stands on is in every repository that it is in.
    async fn ancestry(&mut self, id: &ImageId) -> Result<Response<Body>, Failure> {
        let standings = self.index.standings(id).await?;
        let through = self.permit_image(Action::Pull, &standings)?;
        let moment = self.index.moment();
        let learned = self.pass_learning(through.as_ref()).await?;
        if let Some(bytes) = &learned.bytes {
            for name in &standings.present {
                self.index.learn(moment, name, bytes).await?;
            }
        }
        Ok(learned.response)
    }

    /// By which repository an image may be read or written; by none, where everything may be.
    fn permit_image(&self, action: Action, standings: &Standings) -> Result<Option<RepositoryName>, Failure> {
        let rules = &self.walk.settings.rules;
        let through = if action == Action::Push { &standings.pushed } else { &standings.present };
        match rules.authorize_any(&self.caller.principal, action, through) {
            Ok(permit) => Ok(Some(permit.repository().clone())),
            Err(_) if self.may_everywhere(action) => Ok(standings.present.first().cloned()),
            Err(Denied::Unauthenticated | Denied::InsufficientScope) => {
                Err(self.walk.unauthorized(&self.caller.screened, None, None))
            }
            Err(Denied::Hidden) if action != Action::Pull && self.permit_image(Action::Pull, standings).is_ok() => {
                Err(forbidden(&format!("{action} this image")))
            }
            Err(Denied::Hidden) => Err(Failure::new(StatusCode::NOT_FOUND, ErrorCode::NameUnknown, HIDDEN)),
            Err(Denied::Forbidden) => Err(forbidden(&format!("{action} this image"))),
        }
    }

    /// A push begins with an image's JSON. It says what the image stands on, and whose it is from now on.
    async fn put_image_json(&mut self, id: &ImageId) -> Result<Response<Body>, Failure> {
        let standings = self.index.standings(id).await?;
        if self.writable(&standings).is_empty() && !self.may_everywhere(Action::Push) {
            return Err(self.nowhere_to_push(&standings));
        }
        let body = self.intake.whole(self.walk.settings.limits.manifest_bytes).await?;
        let json = ImageJson::parse(&body).map_err(bad_body)?;
        if json.id != *id {
            let message = format!("the JSON is that of image {}, the path names {id}", json.id);
            return Err(Failure::new(StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid, message));
        }
        if let Some(parent) = &json.parent {
            let standings = self.index.standings(parent).await?;
            if self.permit_image(Action::Pull, &standings).is_err() {
                return Err(Failure::new(StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid, PARENT));
            }
        }
        self.begin(id, body).await
    }

    /// Whoever begins an image that is not there has it. One that is there is the caller's to write, or is left alone.
    async fn begin(&mut self, id: &ImageId, body: Bytes) -> Result<Response<Body>, Failure> {
        let index = self.index;
        let _turn = index.turn(id).await;
        let standings = index.standings(id).await?;
        let writable = self.writable(&standings);
        let visit = self.visit(TokenAccess::Read, writable.first())?;
        if !index.exists(id, &visit).await? {
            index.begin(id, writable.clone()).await?;
            return self.pass_read(body, writable.first()).await;
        }
        if let Ok(through) = self.permit_image(Action::Push, &standings) {
            return self.pass_read(body, through.as_ref()).await;
        }
        if let Some(name) = standings.deleted.iter().find(|name| self.may(Action::Push, name)) {
            let permit = self.permit_write(name)?;
            index.record(&permit, vec![(id.clone(), Standing::Present)]).await?;
            return self.pass_read(body, Some(name)).await;
        }
        match self.permit_image(Action::Pull, &standings) {
            Ok(_) => Err(exists()),
            Err(_) => Err(not_yours(id)),
        }
    }

    /// The repositories to which the caller may push this image: those that speak of it, and that of the token.
    fn writable(&self, standings: &Standings) -> Vec<RepositoryName> {
        let named = standings.all().chain(self.caller.principal.granted());
        let mut writable: Vec<_> = named.filter(|name| self.may(Action::Push, name)).cloned().collect();
        writable.sort();
        writable.dedup();
        writable
    }

    fn nowhere_to_push(&self, standings: &Standings) -> Failure {
        if self.caller.principal.is_anonymous() {
            return self.walk.unauthorized(&self.caller.screened, None, None);
        }
        match standings.present.iter().any(|name| self.may(Action::Pull, name)) {
            true => exists(),
            false => Failure::new(StatusCode::FORBIDDEN, ErrorCode::Denied, UNLISTED),
        }
    }
}

fn exists() -> Failure {
    Failure::new(StatusCode::CONFLICT, ErrorCode::Denied, EXISTS)
}
