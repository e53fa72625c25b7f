//! `/v1/images/ID/…`: an image's id names no repository. Which one it is in, and whether the caller may read or write that, the
//! table says.

use bytes::Bytes;
use http::{Method, Response, StatusCode};

use crate::access::{Action, Denied};
use crate::docker::{ImageId, ImageJson, TokenAccess};
use crate::oci::{ErrorCode, RepositoryName};
use crate::registry::{LegacyRow, Named, Presence, Standing, Standings, Turn};

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
        let through = self.permit_image(Action::Pull, &self.index.standings(id).await?)?;
        let learned = self.pass_learning(through.as_ref()).await?;
        if let Some(bytes) = &learned.bytes {
            self.index.learn_ancestry(id, bytes).await?;
        }
        Ok(learned.response)
    }

    /// By which repository an image may be read or written; by none, where everything may be.
    fn permit_image(&self, action: Action, standings: &Standings) -> Result<Option<RepositoryName>, Failure> {
        let (rules, caller) = (&self.walk.settings.rules, &self.caller.principal);
        let permit = match action {
            Action::Push => rules.authorize_any(caller, action, standings.pushed()),
            _ => rules.authorize_any(caller, action, standings.present()),
        };
        match permit {
            Ok(permit) => Ok(Some(permit.repository().clone())),
            Err(_) if self.may_everywhere(action) => Ok(standings.present().next().cloned()),
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
        let may_go_on = standings.pushed().any(|name| self.may(Action::Push, name));
        let had_it = standings.deleted().any(|row| self.may_both(&row.repository));
        if !may_go_on && !had_it && self.beginnings(&standings).is_empty() && !self.may_everywhere(Action::Push) {
            return Err(self.nowhere_to_push(&standings));
        }
        let body = self.intake.whole(self.walk.settings.limits.manifest_bytes).await?;
        let json = ImageJson::parse(&body).map_err(bad_body)?;
        if json.id != *id {
            let message = format!("the JSON is that of image {}, the path names {id}", json.id);
            return Err(Failure::new(StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid, message));
        }
        // Nobody begins the one or the other until it is settled whose they are.
        let images: Vec<&ImageId> = [id].into_iter().chain(&json.parent).collect();
        let turn = self.index.turn(&images).await;
        if let Some(parent) = &json.parent {
            let standings = self.index.standings(parent).await?;
            if self.permit_image(Action::Pull, &standings).is_err() {
                return Err(Failure::new(StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid, PARENT));
            }
        }
        self.put_json(id, turn, body).await
    }

    /// Whoever begins an image that is not there has it. One that is there is the caller's to write, or is left alone.
    async fn put_json(&mut self, id: &ImageId, turn: Turn, body: Bytes) -> Result<Response<Body>, Failure> {
        let standings = self.index.standings(id).await?;
        let beginnings = self.beginnings(&standings);
        let by_push = standings.pushed().find(|name| self.may(Action::Push, name)).cloned();
        let had_it = standings.deleted().find(|row| self.may_both(&row.repository));
        let through = by_push.as_ref().or(beginnings.first()).or(had_it.map(|row| &row.repository));
        let visit = self.visit(TokenAccess::Read, through)?;
        let (presence, everywhere) = (self.index.presence(id, &visit).await?, self.may_everywhere(Action::Push));
        match (presence, by_push) {
            (Presence::Missing, _) if beginnings.is_empty() && !everywhere => Err(unlisted()),
            (Presence::Missing, _) if self.is_reserved(&standings) => Err(busy(id)),
            (Presence::Missing, _) => self.pass_beginning((id, turn), beginnings, body).await,
            (_, Some(name)) => self.pass_read(body, Some(&name)).await,
            // What others left half is begun anew by who may everything.
            (Presence::Half, None) if everywhere => self.pass_beginning((id, turn), beginnings, body).await,
            (Presence::Half, None) => match had_it.filter(|row| row.standing == Standing::Abandoned) {
                Some(row) if standings.pushed().next().is_none() => {
                    self.take_up_again(id, &row.repository).await?;
                    self.pass_read(body, Some(&row.repository)).await
                }
                _ => Err(busy(id)),
            },
            (Presence::Whole, None) if everywhere => self.pass_read(body, standings.present().next()).await,
            (Presence::Whole, None) if self.permit_image(Action::Pull, &standings).is_ok() => Err(exists()),
            (Presence::Whole, None) => match had_it {
                Some(row) => {
                    self.take_up_again(id, &row.repository).await?;
                    Err(exists())
                }
                None => Err(not_yours(id)),
            },
        }
    }

    /// A repository that was deleted is pushed again: the image stands to it as before.
    async fn take_up_again(&self, id: &ImageId, name: &RepositoryName) -> Result<(), Failure> {
        let permit = self.permit_write(name)?;
        let here = self.index.of_repository(name).await?;
        let standing = match here.get(id) {
            Some(Standing::Abandoned) => Standing::Pushed,
            _ => Standing::Present,
        };
        let named = Named { image: id.clone(), standing, by: Some(name.clone()) };
        Ok(self.index.name(&permit, vec![named]).await?)
    }

    /// Where the caller would begin this image: in the repository of the token, or, without one, where they listed it.
    fn beginnings(&self, standings: &Standings) -> Vec<RepositoryName> {
        let caller = &self.caller.principal;
        let mut granted = caller.granted();
        let names: Vec<RepositoryName> = match (granted.next(), granted.next()) {
            (Some(name), None) => vec![name.clone()],
            _ => {
                let own = standings.listed().filter(|row| row.named_by == caller.to_string());
                own.map(|row| row.repository.clone()).collect()
            }
        };
        names.into_iter().filter(|name| self.may(Action::Push, name)).collect()
    }

    /// Whether somebody else listed it lately, and before the caller did. Who may push to that repository, too, need not wait.
    fn is_reserved(&self, standings: &Standings) -> bool {
        let (rules, caller) = (&self.walk.settings.rules, &self.caller.principal);
        let name = caller.to_string();
        let is_own =
            |row: &&LegacyRow| row.named_by == name || rules.allowed(caller, &row.repository).allow(Action::Push);
        let own = standings.listed().filter(is_own).map(|row| row.named_at).min().unwrap_or(i64::MAX);
        let mut others = standings.listed().filter(|row| !is_own(row) && row.is_reserved());
        others.any(|row| row.named_at < own)
    }

    fn nowhere_to_push(&self, standings: &Standings) -> Failure {
        if self.caller.principal.is_anonymous() {
            return self.walk.unauthorized(&self.caller.screened, None, None);
        }
        match standings.present().any(|name| self.may(Action::Pull, name)) {
            true => exists(),
            false => unlisted(),
        }
    }
}

fn exists() -> Failure {
    Failure::new(StatusCode::CONFLICT, ErrorCode::Denied, EXISTS)
}

fn unlisted() -> Failure {
    Failure::new(StatusCode::FORBIDDEN, ErrorCode::Denied, UNLISTED)
}

fn busy(id: &ImageId) -> Failure {
    let message = format!("image {id} is being pushed by somebody else; try again later");
    Failure::new(StatusCode::CONFLICT, ErrorCode::Denied, message)
}
