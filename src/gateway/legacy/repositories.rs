//! `/v1/repositories/NS/R/…`

use std::collections::BTreeMap;

use http::{Method, Response, StatusCode};
use serde_json::json;

use crate::access::{Action, Permit};
use crate::docker::{self, ImageId, TokenAccess};
use crate::oci::{ErrorCode, RepositoryName};
use crate::registry::{Standing, Standings};

use super::super::body::Body;
use super::super::respond::Failure;
use super::super::route::{LegacyRepository, RepositoryPart, RouteError};
use super::index::json_answer;
use super::{Call, bad_body};

/// How many images of a repository may be named that were never pushed.
const LISTED_MAX: usize = 20_000;

impl Call<'_> {
    pub(super) async fn repository(
        mut self,
        LegacyRepository { name, part }: &LegacyRepository,
    ) -> Result<Response<Body>, Failure> {
        match (self.method().clone(), part) {
            (_, RepositoryPart::Auth) => self.confirm(name).await,
            (_, RepositoryPart::LayerAccess(id)) => self.layer_access(name, id).await,
            (Method::PUT, RepositoryPart::Root | RepositoryPart::Images) => self.put_images(name, part).await,
            (Method::PUT, RepositoryPart::Tag(_)) => self.put_tag(name).await,
            (Method::PUT, _) => {
                self.permit_write(name)?;
                self.pass(Some(name)).await
            }
            (Method::DELETE, RepositoryPart::Tag(_)) => {
                self.permit(Action::Delete, name)?;
                self.pass(Some(name)).await
            }
            (Method::DELETE, _) => self.delete_repository(name).await,
            (Method::GET | Method::HEAD, _) => self.read_repository(name, part).await,
            _ => Err(RouteError::Unknown.into()),
        }
    }

    async fn read_repository(
        &mut self,
        name: &RepositoryName,
        part: &RepositoryPart,
    ) -> Result<Response<Body>, Failure> {
        let permit = self.permit(Action::Pull, name)?;
        if *part == RepositoryPart::Images && (self.caller.by_registry || !self.index.registry().is_standalone()) {
            return self.images_of(permit).await;
        }
        if !matches!(part, RepositoryPart::Images | RepositoryPart::Tags | RepositoryPart::Tag(_)) {
            return self.pass(Some(name)).await;
        }
        let moment = self.index.moment();
        let learned = self.pass_learning(Some(name)).await?;
        match (&learned.bytes, part) {
            (Some(bytes), RepositoryPart::Images) => self.index.learn_list(moment, name, bytes).await?,
            (Some(bytes), _) => self.index.learn(moment, name, bytes).await?,
            (None, _) => {}
        }
        match part {
            RepositoryPart::Images => self.with_token(learned.response, name, TokenAccess::Read),
            _ => Ok(learned.response),
        }
    }

    /// `PUT …/` before a push, `PUT …/images` after it: the images that it is made of.
    async fn put_images(&mut self, name: &RepositoryName, part: &RepositoryPart) -> Result<Response<Body>, Failure> {
        let permit = self.permit_write(name)?;
        let body = self.intake.whole(self.walk.settings.limits.manifest_bytes).await?;
        let images = docker::listed_images(&body).map_err(bad_body)?;
        let named = self.name_images(&permit, images).await?;
        let answer = match self.index.registry().is_standalone() {
            true => self.pass_read(body, Some(name)).await?,
            false if *part == RepositoryPart::Images => {
                let mut answer = Response::new(Body::empty());
                *answer.status_mut() = StatusCode::NO_CONTENT;
                answer
            }
            false => json_answer(StatusCode::OK, &json!("")),
        };
        if answer.status().is_success() {
            self.index.record(&permit, named).await?;
        }
        self.with_token(answer, name, TokenAccess::Write)
    }

    /// How these images are to stand to the repository whose list names them; refused, if one of them is not the caller's to
    /// name.
    async fn name_images(&self, permit: &Permit, images: Vec<ImageId>) -> Result<Vec<(ImageId, Standing)>, Failure> {
        let mut here = self.index.of_repository(permit).await?;
        let (mut named, mut learned) = (Vec::new(), false);
        for image in images {
            let mut standing = self.name_image(&here, permit.repository(), &image).await?;
            if standing.is_none() && !learned {
                // Pushed before the gateway was there, perhaps.
                learned = true;
                let visit = self.visit(TokenAccess::Read, Some(permit.repository()))?;
                self.index.learn_repository(permit, &visit).await?;
                here = self.index.of_repository(permit).await?;
                standing = self.name_image(&here, permit.repository(), &image).await?;
            }
            named.push((image.clone(), standing.ok_or_else(|| not_yours(&image))?));
        }
        let listed = here.values().chain(named.iter().map(|(_, standing)| standing));
        if listed.filter(|standing| **standing == Standing::Listed).count() > LISTED_MAX {
            let message =
                format!("more than {LISTED_MAX} images were named here and never pushed; delete the repository");
            return Err(Failure::new(StatusCode::FORBIDDEN, ErrorCode::Denied, message));
        }
        Ok(named)
    }

    /// How an image is to stand to a repository that names it; nothing, if it is there and not the caller's to name.
    async fn name_image(
        &self,
        here: &BTreeMap<ImageId, Standing>,
        name: &RepositoryName,
        image: &ImageId,
    ) -> Result<Option<Standing>, Failure> {
        if here.get(image).is_some_and(|standing| standing.is_there()) {
            return Ok(Some(Standing::Present));
        }
        let standings = self.index.standings(image).await?;
        if self.may_name(&standings) {
            return Ok(Some(Standing::Present));
        }
        let visit = self.visit(TokenAccess::Read, Some(name))?;
        Ok(match self.index.exists(image, &visit).await? {
            false => Some(Standing::Listed),
            // Begun by somebody who may push everywhere, and need not have said where to.
            true if standings.pushed.is_empty() && self.may_everywhere(Action::Push) => Some(Standing::Pushed),
            true => self.may_everywhere(Action::Pull).then_some(Standing::Present),
        })
    }

    /// Whether an image may be read, or was in a repository of the caller's before that was deleted.
    pub(super) fn may_name(&self, standings: &Standings) -> bool {
        standings.present.iter().any(|name| self.may(Action::Pull, name))
            || standings.deleted.iter().any(|name| self.may(Action::Push, name))
    }

    /// `PUT …/tags/TAG`: the image must be there already, and be the caller's to name.
    async fn put_tag(&mut self, name: &RepositoryName) -> Result<Response<Body>, Failure> {
        let permit = self.permit_write(name)?;
        let body = self.intake.whole(self.walk.settings.limits.manifest_bytes).await?;
        let image = docker::tagged_image(&body).map_err(bad_body)?;
        let standings = self.index.standings(&image).await?;
        if !self.may_name(&standings) && !self.may_everywhere(Action::Pull) {
            return Err(not_yours(&image));
        }
        let answer = self.pass_read(body, Some(name)).await?;
        if answer.status().is_success() {
            self.index.record(&permit, vec![(image, Standing::Present)]).await?;
        }
        Ok(answer)
    }

    /// `DELETE …/` or `…/tags`. A registry that is not its own index does not know what has no tag.
    async fn delete_repository(&mut self, name: &RepositoryName) -> Result<Response<Body>, Failure> {
        let permit = self.permit(Action::Delete, name)?;
        let answer = self.pass(Some(name)).await?;
        let is_gone = answer.status() == StatusCode::NOT_FOUND && !self.index.registry().is_standalone();
        if answer.status().is_success() || is_gone {
            self.index.forget(&permit).await?;
        }
        self.with_token(answer, name, TokenAccess::Delete)
    }
}

/// The same, whoever has it.
pub(super) fn not_yours(image: &ImageId) -> Failure {
    let message = format!(
        "image {image} is in no repository that you may pull, as far as is known; pull the image that it is part of first, or ask \
         the operator for a rule in [[access]]"
    );
    Failure::new(StatusCode::FORBIDDEN, ErrorCode::Denied, message)
}
