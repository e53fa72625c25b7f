//! Manifests: HEAD, GET, PUT, DELETE, by tag and by digest.

use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use hyper::body::Incoming;

use crate::access::{Leave as _, WritePermit};
use crate::gateway::body::Body;
use crate::gateway::intake::{Intake, IntakeError};
use crate::gateway::respond::{self, Failure};
use crate::gateway::route::Verb;
use crate::oci::{ErrorCode, Reference, RepositoryName, Tag};
use crate::registry::ManifestPut;

use super::{Call, not_deleted};

impl Call<'_> {
    pub(super) async fn manifest(
        self,
        name: RepositoryName,
        reference: Reference,
        verb: Verb,
        intake: &mut Intake<Incoming>,
    ) -> Result<Response<Body>, Failure> {
        match verb {
            Verb::Get | Verb::Head => self.get_manifest(&name, &reference, verb == Verb::Head).await,
            Verb::Put(tags) => {
                let permit = self.walk.permit_write(self.caller, &name)?;
                self.put_manifest(permit, reference, tags, intake).await
            }
            Verb::Delete => {
                let permit = self.walk.permit(self.caller, &name)?;
                let deleted = self.hosted.delete_manifest(&permit, &reference).await;
                deleted.map_err(|error| not_deleted(error, "GET, HEAD, PUT"))?;
                Ok(respond::gone(StatusCode::ACCEPTED))
            }
        }
    }

    async fn get_manifest(
        self,
        name: &RepositoryName,
        reference: &Reference,
        head: bool,
    ) -> Result<Response<Body>, Failure> {
        let permit = self.walk.permit(self.caller, name)?;
        let mut manifest = self.hosted.manifest(&permit, reference).await?;
        if let Some(image) = self.walk.image_in_place_of(reference, &manifest) {
            manifest = self.hosted.manifest(&permit, &Reference::Digest(image)).await?;
        }
        self.record.tier(manifest.tier);
        if self.walk.has_already(&manifest.digest) {
            return Ok(respond::not_modified(&manifest.digest));
        }
        Ok(respond::manifest(manifest, head))
    }

    async fn put_manifest(
        self,
        permit: WritePermit,
        reference: Reference,
        tags: Vec<Tag>,
        intake: &mut Intake<Incoming>,
    ) -> Result<Response<Body>, Failure> {
        let name = permit.repository().clone();
        let limit = self.walk.settings.limits.manifest_bytes;
        if self.walk.stated_length().is_some_and(|stated| stated > limit) {
            return Err(IntakeError::TooLarge { limit }.into());
        }
        let headers = &self.walk.parts.headers;
        let content_type = headers.get(CONTENT_TYPE).map(|text| text.to_str().map(str::to_owned)).transpose();
        let content_type = content_type.map_err(|_| {
            Failure::new(StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid, "Content-Type is not plain text")
        })?;
        let bytes = intake.whole(limit).await?;
        let pushed = self.hosted.put_manifest(permit, ManifestPut { reference, tags, content_type, bytes }).await?;
        Ok(respond::manifest_created(&name, pushed))
    }
}
