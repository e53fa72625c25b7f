//! `/v1/repositories/NS/R/…`

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::{Method, Response, StatusCode};
use serde_json::json;

use crate::access::{Action, Delete, Leave as _, Permit, Pull, Push};
use crate::docker::{self, ImageId, TokenAccess};
use crate::gateway::body::Body;
use crate::gateway::respond::Failure;
use crate::gateway::route::{LegacyRepository, RepositoryPart, RouteError};
use crate::oci::{ErrorCode, RepositoryName};
use crate::registry::{Named, Presence, RegistryError, Standing, Standings};

use super::index::json_answer;
use super::{Call, bad_body};

/// How many images of a repository may be named that were never pushed.
const LISTED_MAX: usize = 20_000;

/// How many images of one list the registry is asked about, and how many at once.
const UNKNOWN_MAX: usize = 2_000;
const ASKED_AT_ONCE: usize = 8;

impl Call<'_> {
    pub(super) async fn repository(
        mut self,
        LegacyRepository { name, part }: &LegacyRepository,
    ) -> Result<Response<Body>, Failure> {
        match (self.method().clone(), part) {
            (_, RepositoryPart::Auth) => self.confirm(name),
            (_, RepositoryPart::LayerAccess(id)) => self.layer_access(name, id).await,
            (Method::PUT, RepositoryPart::Root | RepositoryPart::Images) => self.put_images(name, part).await,
            (Method::PUT, RepositoryPart::Tag(_)) => self.put_tag(name).await,
            (Method::PUT, _) => {
                self.permit_write(name)?;
                self.pass(Some(name)).await
            }
            (Method::DELETE, RepositoryPart::Tag(_)) => {
                self.permit::<Delete>(name)?;
                self.pass(Some(name)).await
            }
            // It does nothing but to give a token, in 0.9.1 too.
            (Method::DELETE, RepositoryPart::Images) => {
                self.permit::<Delete>(name)?;
                self.with_token(no_content(), name, TokenAccess::Delete)
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
        let permit = self.permit::<Pull>(name)?;
        if *part == RepositoryPart::Images && !self.index.registry().is_standalone() {
            return self.images_of(permit).await;
        }
        if !matches!(part, RepositoryPart::Images | RepositoryPart::Tags | RepositoryPart::Tag(_)) {
            return self.pass(Some(name)).await;
        }
        let moment = self.index.moment(name);
        let learned = self.pass_learning(Some(name)).await?;
        match (&learned.bytes, part) {
            (Some(bytes), RepositoryPart::Images) => self.index.learn_list(moment, name, bytes).await?,
            (Some(bytes), _) => self.index.learn_tags(moment, name, bytes).await?,
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
        let (listed, named): (Vec<_>, Vec<_>) =
            self.name_images(&permit, images).await?.into_iter().partition(|named| named.standing == Standing::Listed);
        // Before others see it in the list.
        self.index.name(&permit, listed).await?;
        let answer = match self.index.registry().is_standalone() {
            true => self.pass_read(body, Some(name)).await?,
            false if *part == RepositoryPart::Images => no_content(),
            false => json_answer(StatusCode::OK, &json!("")),
        };
        if answer.status().is_success() {
            self.index.name(&permit, named).await?;
        }
        self.with_token(answer, name, TokenAccess::Write)
    }

    /// How these images are to stand to the repository whose list names them; refused, if one of them is not the caller's to
    /// name.
    async fn name_images(&self, permit: &Permit<Push>, images: Vec<ImageId>) -> Result<Vec<Named>, Failure> {
        let here = self.index.of_repository(permit.repository()).await?;
        let (mut named, unknown) = self.name_known(&here, permit, images).await?;
        let listed = here.values().filter(|standing| **standing == Standing::Listed).count();
        if unknown.len() > UNKNOWN_MAX || listed + unknown.len() > LISTED_MAX {
            let message = format!(
                "at most {UNKNOWN_MAX} images that are not here yet can be named at once, and {LISTED_MAX} that are never pushed"
            );
            return Err(Failure::new(StatusCode::FORBIDDEN, ErrorCode::Denied, message));
        }
        let (new, there) = self.tell_apart(permit, unknown).await?;
        named.extend(new.into_iter().map(|image| Named { image, standing: Standing::Listed, by: None }));
        if self.may_everywhere(Action::Pull) {
            named.extend(there.into_iter().map(|image| Named { image, standing: Standing::Present, by: None }));
        } else if !there.is_empty() {
            // Pushed before the gateway was there, perhaps.
            let visit = self.visit(TokenAccess::Read, Some(permit.repository()))?;
            self.index.learn_repository(permit, &visit).await?;
            let here = self.index.of_repository(permit.repository()).await?;
            let (known, unknown) = self.name_known(&here, permit, there).await?;
            named.extend(known);
            if let Some(image) = unknown.first() {
                return Err(not_yours(image));
            }
        }
        Ok(named)
    }

    /// Those of `images` that the caller may name by what is known, and the others.
    async fn name_known(
        &self,
        here: &BTreeMap<ImageId, Standing>,
        permit: &Permit<Push>,
        images: Vec<ImageId>,
    ) -> Result<(Vec<Named>, Vec<ImageId>), Failure> {
        let (mut named, mut unknown) = (Vec::new(), Vec::new());
        for image in images {
            match here.get(&image) {
                Some(standing) if standing.is_there() => {}
                // It is as it was before the repository was deleted.
                Some(Standing::Abandoned) if self.may::<Pull>(permit.repository()) => {
                    named.push(Named { image, standing: Standing::Pushed, by: Some(permit.repository().clone()) });
                }
                _ => match self.may_name(&self.index.standings(&image).await?) {
                    Some((by, standing)) => named.push(Named { image, standing, by: Some(by) }),
                    None => unknown.push(image),
                },
            }
        }
        Ok((named, unknown))
    }

    /// Which of `images` can be begun, and which are there: the registry has them, and they are not left behind half.
    async fn tell_apart(
        &self,
        permit: &Permit<Push>,
        images: Vec<ImageId>,
    ) -> Result<(Vec<ImageId>, Vec<ImageId>), Failure> {
        let visit = self.visit(TokenAccess::Read, Some(permit.repository()))?;
        let ask = |image: ImageId| {
            let visit = &visit;
            async move {
                let is_new = match self.index.presence(&image, visit).await? {
                    Presence::Missing => true,
                    Presence::Half => self.index.standings(&image).await?.is_left_behind(),
                    Presence::Whole => false,
                };
                Ok((is_new, image))
            }
        };
        let asked = stream::iter(images).map(ask).buffered(ASKED_AT_ONCE);
        let asked: Vec<(bool, ImageId)> = asked.try_collect().await.map_err(|error: RegistryError| error)?;
        let (new, there): (Vec<_>, Vec<_>) = asked.into_iter().partition(|(is_new, _)| *is_new);
        let images = |asked: Vec<(bool, ImageId)>| asked.into_iter().map(|(_, image)| image).collect();
        Ok((images(new), images(there)))
    }

    /// By which repository the caller may put an image into another one, and how it stands there then: by one where they may
    /// write it, one by which it is to be read, or one in which it was before that was deleted, if they may both pull and push
    /// there.
    pub(super) fn may_name(&self, standings: &Standings) -> Option<(RepositoryName, Standing)> {
        // A half that somebody else began is theirs, whoever may push there.
        let by = self.caller.principal.to_string();
        let written = standings.pushed().filter(|row| row.named_by == by).map(|row| &row.repository);
        let written = written.into_iter().find(|name| self.may_both(name));
        let read = standings.present().find(|name| self.may::<Pull>(name));
        let deleted = || standings.deleted().map(|row| &row.repository).find(|name| self.may_both(name));
        match written {
            Some(name) => Some((name.clone(), Standing::Pushed)),
            None => read.or_else(deleted).map(|name| (name.clone(), Standing::Present)),
        }
    }

    pub(super) fn may_both(&self, name: &RepositoryName) -> bool {
        self.may::<Pull>(name) && self.may::<Push>(name)
    }

    /// `PUT …/tags/TAG`: the image must be there already, and be the caller's to name.
    async fn put_tag(&mut self, name: &RepositoryName) -> Result<Response<Body>, Failure> {
        let permit = self.permit_write(name)?;
        let body = self.intake.whole(self.walk.settings.limits.manifest_bytes).await?;
        let image = docker::tagged_image(&body).map_err(bad_body)?;
        let turn = self.index.turn(&[&image]).await.ok_or_else(|| busy(&image))?;
        let by = self.may_name(&self.index.standings(&image).await?).map(|(by, _)| by);
        if by.is_none() && !self.may_everywhere(Action::Pull) {
            return Err(not_yours(&image));
        }
        // What is half may be begun anew by others, so no tag may name it.
        let visit = self.visit(TokenAccess::Read, Some(name))?;
        if self.index.presence(&image, &visit).await? == Presence::Half {
            return Err(busy(&image));
        }
        let answer = self.pass_in_turn(turn, body, Some(name)).await?;
        if answer.status().is_success() {
            self.index.name(&permit, vec![Named { image, standing: Standing::Present, by }]).await?;
        }
        Ok(answer)
    }

    /// `DELETE …/` or `…/tags`
    async fn delete_repository(&mut self, name: &RepositoryName) -> Result<Response<Body>, Failure> {
        let permit = self.permit::<Delete>(name)?;
        let answer = self.pass_deleting(permit).await?;
        self.with_token(answer, name, TokenAccess::Delete)
    }
}

pub(super) fn busy(id: &ImageId) -> Failure {
    let message = format!("image {id} is being pushed, or its push broke off; push it again, or try again later");
    Failure::new(StatusCode::CONFLICT, ErrorCode::Denied, message)
}

fn no_content() -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

/// One refusal for all images, whoever has them.
pub(super) fn not_yours(image: &ImageId) -> Failure {
    let message = format!(
        "image {image} is in no repository that you may pull, as far as is known; pull the image that it is part of first, or ask \
         the operator for a rule in [[access]]"
    );
    Failure::new(StatusCode::FORBIDDEN, ErrorCode::Denied, message)
}
