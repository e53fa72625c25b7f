//! `/v1/images/ID/…`: an image's id names no repository. Which one it is in, and whether the caller may read or write that, the
//! table says.

use bytes::Bytes;
use http::{Method, Response, StatusCode};

use crate::access::{Action, Denied, Leave as _, Pull, Push};
use crate::docker::{ImageId, ImageJson, TokenAccess};
use crate::gateway::body::Body;
use crate::gateway::identify::forbidden;
use crate::gateway::respond::Failure;
use crate::gateway::route::{ImagePart, LegacyImage};
use crate::oci::{ErrorCode, RepositoryName};
use crate::registry::{Begin, LegacyRow, Named, Presence, Standing, Standings, Turn};

use super::repositories::{busy, not_yours};
use super::{Call, bad_body};

/// Says nothing of whether the image is there.
const HIDDEN: &str = "no such image in a repository that you may pull; pull or push it by its repository's name";

const UNLISTED: &str = "the image is for no repository that you may push: say which one first, by PUT /v1/repositories/NAME/ with \
                        the image's id, as docker push does; or ask the operator for a rule in [[access]]";

const PARENT: &str =
    "the image stands on a parent that is in no repository that you may pull; push or pull that one first";

/// What docker takes for "go on with the next one".
const EXISTS: &str = "Image already exists";

/// The ways in which somebody may push an image.
struct Ways {
    /// By a repository through which its push began.
    go_on: Option<RepositoryName>,
    /// By beginning it in these, if it is not there.
    begin: Vec<RepositoryName>,
    /// By putting it into a repository, if it is there.
    name: Option<Naming>,
}

/// How an image that is there comes into a repository, and by which repository that is justified.
struct Naming {
    repository: RepositoryName,
    standing: Standing,
    by: RepositoryName,
}

impl Ways {
    const fn is_empty(&self) -> bool {
        self.go_on.is_none() && self.begin.is_empty() && self.name.is_none()
    }
}

impl Call<'_> {
    pub(super) async fn image(mut self, LegacyImage { id, part }: &LegacyImage) -> Result<Response<Body>, Failure> {
        match (self.method().clone(), part) {
            (Method::PUT, ImagePart::Json) => self.put_image_json(id).await,
            (Method::PUT, ImagePart::Checksum) => self.put_checksum(id).await,
            (Method::PUT, _) => {
                let _writer = self.index.write(id);
                let through = self.permit_image(Action::Push, &self.index.standings(id).await?)?;
                self.pass(through.as_ref()).await
            }
            (Method::GET, ImagePart::Ancestry) => self.ancestry(id).await,
            _ => {
                let through = self.permit_reading(id).await?;
                self.pass(through.as_ref()).await
            }
        }
    }

    /// With it the image is whole.
    async fn put_checksum(&mut self, id: &ImageId) -> Result<Response<Body>, Failure> {
        let body = self.intake.whole(self.walk.settings.limits.manifest_bytes).await?;
        let turn = self.index.turn(&[id]).await.ok_or_else(|| busy(id))?;
        let through = self.permit_image(Action::Push, &self.index.standings(id).await?)?;
        self.pass_in_turn(turn, body, through.as_ref()).await
    }

    /// What an image stands on is in every repository that it is in.
    async fn ancestry(&mut self, id: &ImageId) -> Result<Response<Body>, Failure> {
        let through = self.permit_reading(id).await?;
        let learned = self.pass_learning(through.as_ref()).await?;
        if let Some(bytes) = &learned.bytes {
            self.index.learn_ancestry(id, bytes).await?;
        }
        Ok(learned.response)
    }

    async fn permit_reading(&self, id: &ImageId) -> Result<Option<RepositoryName>, Failure> {
        let standings = self.index.remembered(id).await?;
        self.permit_image(Action::Pull, &standings)
    }

    /// By which repository an image may be read or written; by none, where everything may be.
    fn permit_image(&self, action: Action, standings: &Standings) -> Result<Option<RepositoryName>, Failure> {
        let (rules, caller) = (&self.walk.settings.rules, &self.caller.principal);
        let permitted = match action {
            Action::Push => {
                let pushed = standings.pushed().map(|row| &row.repository);
                rules.authorize_any::<Push>(caller, pushed).map(|permit| permit.repository().clone())
            }
            _ => rules.authorize_any::<Pull>(caller, standings.present()).map(|permit| permit.repository().clone()),
        };
        match permitted {
            Ok(through) => Ok(Some(through)),
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
        if self.ways(&standings).is_empty() {
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
        let turn = self.index.turn(&images).await.ok_or_else(|| busy(id))?;
        if let Some(parent) = &json.parent {
            self.check_parent(parent).await?;
        }
        self.put_json(id, turn, body).await
    }

    /// What an image stands on must be the caller's to read. Half an image may be begun anew by others, so nothing stands on one.
    async fn check_parent(&self, parent: &ImageId) -> Result<(), Failure> {
        let refusal = || Failure::new(StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid, PARENT);
        let standings = self.index.standings(parent).await?;
        let through = self.permit_image(Action::Pull, &standings).map_err(|_| refusal())?;
        let visit = self.visit(TokenAccess::Read, through.as_ref())?;
        match self.index.presence(parent, &visit).await? {
            Presence::Whole => Ok(()),
            Presence::Half => Err(busy(parent)),
            Presence::Missing => Err(refusal()),
        }
    }

    /// Whoever begins an image that is not there has it. One that is there is the caller's to write, or is left alone.
    async fn put_json(&mut self, id: &ImageId, turn: Turn, body: Bytes) -> Result<Response<Body>, Failure> {
        let standings = self.index.standings(id).await?;
        let Ways { go_on, begin, name } = self.ways(&standings);
        let through = go_on.as_ref().or(begin.first()).or(name.as_ref().map(|naming| &naming.repository));
        let visit = self.visit(TokenAccess::Read, through)?;
        let presence = self.index.presence(id, &visit).await?;
        let is_new = match presence {
            Presence::Missing => true,
            Presence::Half => {
                let is_own = go_on.is_some() || name.as_ref().is_some_and(|naming| naming.standing == Standing::Pushed);
                !is_own && standings.is_left_behind() && !self.index.is_written(id)
            }
            Presence::Whole => false,
        };
        match go_on {
            _ if is_new && begin.is_empty() => Err(unlisted()),
            _ if is_new && self.is_reserved(&standings) => Err(busy(id)),
            _ if is_new => {
                let principal = self.caller.principal.clone();
                let begin = Begin { image: id.clone(), repositories: begin, principal };
                self.pass_beginning(turn, begin, body).await
            }
            Some(name) => {
                if presence == Presence::Half {
                    // From now on it is being pushed again.
                    let named = Named { image: id.clone(), standing: Standing::Pushed, by: Some(name.clone()) };
                    self.index.name(&self.permit_write(&name)?, vec![named]).await?;
                }
                self.pass_in_turn(turn, body, Some(&name)).await
            }
            None => self.name_late(id, presence, name, (turn, body)).await,
        }
    }

    /// An image that is there, and is not the caller's to write as far as is known, but perhaps to name.
    async fn name_late(
        &mut self,
        id: &ImageId,
        presence: Presence,
        naming: Option<Naming>,
        (turn, body): (Turn, Bytes),
    ) -> Result<Response<Body>, Failure> {
        let half = presence == Presence::Half;
        match naming {
            Some(Naming { standing: Standing::Present, .. }) if half => Err(busy(id)),
            Some(Naming { repository, standing, by }) => {
                let permit = self.permit_write(&repository)?;
                self.index.name(&permit, vec![Named { image: id.clone(), standing, by: Some(by) }]).await?;
                if half { self.pass_in_turn(turn, body, Some(&repository)).await } else { Err(exists()) }
            }
            None if half => Err(busy(id)),
            None => match self.permit_image(Action::Pull, &self.index.standings(id).await?) {
                Ok(_) => Err(exists()),
                Err(_) => Err(not_yours(id)),
            },
        }
    }

    /// The ways in which the caller may push an image.
    fn ways(&self, standings: &Standings) -> Ways {
        let caller = &self.caller.principal;
        let may_push = |name: &&RepositoryName| self.may::<Push>(name);
        let mut granted = caller.granted();
        // By a token whoever may push to its repository goes on; else who began it.
        let by = caller.to_string();
        let go_on = standings.pushed().filter(|row| caller.has_token() || row.named_by == by);
        let (begin, listed) = match (granted.next(), granted.next()) {
            // By a token in its repository, where somebody listed it who said a password.
            (Some(name), None) => {
                let mut rows = standings.listed().filter(|row| row.repository == *name && !row.named_by.is_empty());
                (vec![name], rows.next().map(|row| &row.repository))
            }
            // Else where they listed it, or began it before.
            _ => {
                let own = |row: &&LegacyRow| row.named_by == by && !row.standing.is_gone();
                let begin: Vec<_> = standings.0.iter().filter(own).map(|row| &row.repository).collect();
                let listed = standings.listed().filter(own).map(|row| &row.repository).find(may_push);
                (begin, listed)
            }
        };
        Ways {
            go_on: go_on.map(|row| &row.repository).find(may_push).cloned(),
            begin: begin.into_iter().filter(may_push).cloned().collect(),
            name: self.deleted(standings).or_else(|| self.listed(standings, listed.filter(may_push)?)),
        }
    }

    /// A repository that was deleted is pushed again: the image is to stand to it as before.
    fn deleted(&self, standings: &Standings) -> Option<Naming> {
        let rows = standings.deleted().filter(|row| self.may_both(&row.repository));
        let row = rows.max_by_key(|row| row.standing == Standing::Abandoned)?;
        let was_pushed = row.standing == Standing::Abandoned && standings.pushed().next().is_none();
        let standing = if was_pushed { Standing::Pushed } else { Standing::Present };
        Some(Naming { repository: row.repository.clone(), standing, by: row.repository.clone() })
    }

    /// Since the image was listed for `name` it was pushed to another repository. Were it listed now, the caller's rights there
    /// would count, and not what the token is for.
    fn listed(&self, standings: &Standings, name: &RepositoryName) -> Option<Naming> {
        let (rules, caller) = (&self.walk.settings.rules, &self.caller.principal);
        let may = |action, name: &RepositoryName| rules.allowed(caller, name).allow(action);
        let by = standings.present().find(|name| may(Action::Pull, name))?;
        // A half that somebody else began is theirs, whoever may push there.
        let user = caller.to_string();
        let pushed = standings.pushed().filter(|row| row.named_by == user).map(|row| &row.repository);
        let pushed = pushed.into_iter().find(|name| may(Action::Pull, name) && may(Action::Push, name));
        let standing = if pushed.is_some() { Standing::Pushed } else { Standing::Present };
        Some(Naming { repository: name.clone(), standing, by: pushed.unwrap_or(by).clone() })
    }

    /// Whether somebody else listed it lately, and before the caller did. Who may push to that repository, too, need not wait.
    fn is_reserved(&self, standings: &Standings) -> bool {
        let (rules, caller) = (&self.walk.settings.rules, &self.caller.principal);
        let name = caller.to_string();
        let is_own =
            |row: &&LegacyRow| row.named_by == name || rules.allowed(caller, &row.repository).allow(Action::Push);
        let reserved = || standings.listed().filter(|row| row.is_reserved());
        let own = reserved().filter(is_own).map(|row| row.named_at).min().unwrap_or(i64::MAX);
        reserved().any(|row| !is_own(&row) && row.named_at < own)
    }

    fn nowhere_to_push(&self, standings: &Standings) -> Failure {
        if self.caller.principal.is_anonymous() {
            return self.walk.unauthorized(&self.caller.screened, None, None);
        }
        match standings.present().any(|name| self.may::<Pull>(name)) {
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
