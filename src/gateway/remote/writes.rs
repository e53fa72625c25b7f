//! Pushes to fronted registries.

use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use hyper::body::Incoming;

use crate::access::{Create, Permit, Pull};
use crate::gateway::body::Body;
use crate::gateway::intake::{Intake, IntakeError};
use crate::gateway::respond::{self, Failure};
use crate::gateway::route::{UploadStart, UploadVerb};
use crate::oci::{Digest, ErrorCode, Reference, RepositoryName, Tag, UploadId};
use crate::registry::{ManifestPut, Piece, Target};

use super::Call;

impl Call<'_> {
    pub(super) async fn put_manifest(
        self,
        name: RepositoryName,
        reference: Reference,
        tags: Vec<Tag>,
        intake: &mut Intake<Incoming>,
    ) -> Result<Response<Body>, Failure> {
        let permit = self.walk.permit_write(self.caller, &name)?;
        let target = self.aim(permit, self.elsewhere.name.as_ref())?;
        self.remote().check_writable()?;
        let limit = self.walk.settings.limits.manifest_bytes;
        if self.walk.stated_length().is_some_and(|stated| stated > limit) {
            return Err(IntakeError::TooLarge { limit }.into());
        }
        let content_type = self.walk.parts.headers.get(CONTENT_TYPE).map(|text| text.to_str().map(str::to_owned));
        let content_type = content_type.transpose().map_err(|_| {
            Failure::new(StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid, "Content-Type is not plain text")
        })?;
        let bytes = intake.whole(limit).await?;
        let pushed = self.remote().put_manifest(target, ManifestPut { reference, tags, content_type, bytes }).await?;
        Ok(respond::manifest_created(&name, pushed))
    }

    pub(super) async fn begin_upload(
        self,
        name: RepositoryName,
        start: UploadStart,
        intake: &mut Intake<Incoming>,
    ) -> Result<Response<Body>, Failure> {
        let target = self.push(&name)?;
        let begun = match start {
            UploadStart::Session(algorithm) => Some(self.remote().begin_upload(target, algorithm).await?),
            UploadStart::Monolithic(digest) => {
                let upload = self.remote().begin_upload(target, digest.algorithm()).await?;
                let piece = self.piece(intake)?;
                self.remote().commit_upload(upload, &digest, piece).await?;
                return Ok(respond::blob_created(&name, &digest));
            }
            UploadStart::Mount { digest, from } => {
                let begun = self.remote().mount(target, self.source(from), &digest).await?;
                if begun.is_none() {
                    return Ok(respond::blob_created(&name, &digest));
                }
                begun
            }
        };
        let id = begun.map(|upload| upload.id()).ok_or_else(|| Failure::from(super::RouteError::Unknown))?;
        Ok(respond::upload(StatusCode::ACCEPTED, &name, id, 0))
    }

    /// The repository that a blob is to be mounted from, if it is of the same upstream and the caller may pull there.
    /// Otherwise it is as if the blob were not there.
    fn source(&self, from: Option<RepositoryName>) -> Option<Target<Permit<Pull>>> {
        let name = self.walk.same_upstream(self.elsewhere, &self.caller.screened, &from?)?;
        self.aim(self.walk.permit(self.caller, &name.canonical).ok()?, Some(&name)).ok()
    }

    pub(super) async fn upload(
        self,
        name: RepositoryName,
        id: UploadId,
        verb: UploadVerb,
        intake: &mut Intake<Incoming>,
    ) -> Result<Response<Body>, Failure> {
        let target = self.push(&name)?;
        match verb {
            UploadVerb::Status => {
                let offset = self.remote().upload_offset(target, id).await?;
                Ok(respond::upload(StatusCode::NO_CONTENT, &name, id, offset))
            }
            UploadVerb::Cancel => {
                let upload = self.remote().upload(target, id)?;
                self.remote().cancel_upload(upload).await?;
                Ok(respond::gone(StatusCode::NO_CONTENT))
            }
            UploadVerb::Patch => {
                let piece = self.piece(intake)?;
                let upload = self.remote().upload(target, id)?;
                let offset = self.remote().patch_upload(upload, piece).await?;
                Ok(respond::upload(StatusCode::ACCEPTED, &name, id, offset))
            }
            UploadVerb::Put(digest) => self.commit(&name, target, id, digest, intake).await,
        }
    }

    async fn commit(
        &self,
        name: &RepositoryName,
        target: Target<Permit<Create>>,
        id: UploadId,
        digest: Digest,
        intake: &mut Intake<Incoming>,
    ) -> Result<Response<Body>, Failure> {
        let piece = self.piece(intake)?;
        let upload = self.remote().upload(target, id)?;
        self.remote().commit_upload(upload, &digest, piece).await?;
        Ok(respond::blob_created(name, &digest))
    }

    fn piece(&self, intake: &mut Intake<Incoming>) -> Result<Piece, Failure> {
        let (length, range) = (self.walk.stated_length(), self.walk.stated_range()?);
        if length == Some(0) {
            return Ok(Piece { range, ..Piece::nothing() });
        }
        Ok(Piece { body: intake.hand_on().into_body(), length, range })
    }

    /// Who pushes may write here, unless nobody can.
    fn push(&self, name: &RepositoryName) -> Result<Target<Permit<Create>>, Failure> {
        let target = self.target(name)?;
        self.remote().check_writable()?;
        Ok(target)
    }
}
