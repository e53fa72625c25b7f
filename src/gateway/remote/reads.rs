//! Pulls from registries elsewhere, and lists of what is there.

use http::{Response, StatusCode};
use hyper::body::Incoming;

use crate::gateway::body::Body;
use crate::gateway::intake::Intake;
use crate::gateway::respond::{self, Failure};
use crate::gateway::route::{BlobVerb, Page, Verb};
use crate::oci::{Digest, ErrorCode, Reference, RepositoryName};
use crate::registry::RemoteBlob;

use super::Call;

impl Call<'_> {
    pub(super) async fn catalog(self, page: Page) -> Result<Response<Body>, Failure> {
        let permit = self.walk.permit_catalog(self.caller)?;
        let limit = self.walk.limit(&page);
        let prefix = self.elsewhere.prefix.as_ref();
        let repositories = self.remote().catalog(permit, self.theirs(), prefix, page.last.as_deref(), limit).await?;
        // The same way leads to the same upstream: by this path, or by `?ns=`.
        let (path, namespace) = (self.walk.parts.uri.path(), self.elsewhere.namespace.as_deref());
        Ok(respond::catalog(&repositories, path, namespace, limit))
    }

    pub(super) async fn tags(self, name: RepositoryName, page: Page) -> Result<Response<Body>, Failure> {
        let target = self.target(&name)?;
        let limit = self.walk.limit(&page);
        let tags = self.remote().tags(target, page.last.as_deref(), limit).await?;
        Ok(respond::tags(&name, &tags, limit))
    }

    pub(super) async fn referrers(
        self,
        name: RepositoryName,
        subject: Digest,
        artifact_type: Option<String>,
    ) -> Result<Response<Body>, Failure> {
        let target = self.target(&name)?;
        let list = self.remote().referrers(target, &subject, artifact_type.as_deref()).await?;
        Ok(respond::raw_referrers(list))
    }

    pub(super) async fn manifest(
        self,
        name: RepositoryName,
        reference: Reference,
        verb: Verb,
        intake: &mut Intake<Incoming>,
    ) -> Result<Response<Body>, Failure> {
        match verb {
            Verb::Get | Verb::Head => {
                let target = self.target(&name)?;
                let mut manifest = self.remote().manifest(target, &reference).await?;
                if let Some(image) = self.walk.image_in_place_of(&reference, &manifest) {
                    let target = self.target(&name)?;
                    manifest = self.remote().manifest(target, &Reference::Digest(image)).await?;
                }
                self.record.tier(manifest.tier);
                if self.walk.has_already(&manifest.digest) {
                    return Ok(respond::not_modified(&manifest.digest));
                }
                Ok(respond::manifest(manifest, verb == Verb::Head))
            }
            Verb::Put(tags) => self.put_manifest(name, reference, tags, intake).await,
            Verb::Delete => {
                let target = self.target(&name)?;
                self.remote().delete_manifest(target, &reference).await?;
                Ok(respond::gone(StatusCode::ACCEPTED))
            }
        }
    }

    pub(super) async fn blob(
        self,
        name: RepositoryName,
        digest: Digest,
        verb: BlobVerb,
    ) -> Result<Response<Body>, Failure> {
        match verb {
            BlobVerb::Delete => {
                self.remote().delete_blob(self.target(&name)?, &digest).await?;
                Ok(respond::gone(StatusCode::ACCEPTED))
            }
            BlobVerb::Head => {
                let size = self.remote().blob_size(self.target(&name)?, &digest).await?;
                match self.walk.has_already(&digest) {
                    true => Ok(respond::not_modified(&digest)),
                    false => Ok(respond::blob_head(&digest, size)),
                }
            }
            BlobVerb::Get => {
                let blob = self.remote().blob(self.target(&name)?, &digest).await?;
                match self.walk.has_already(&digest) {
                    true => Ok(respond::not_modified(&digest)),
                    false => self.get_blob(blob).await,
                }
            }
        }
    }

    /// Where the size is not known yet, ranges are not either, and the whole is sent (RFC 9110, section 14.2).
    async fn get_blob(self, blob: RemoteBlob) -> Result<Response<Body>, Failure> {
        self.record.tier(blob.tier());
        let (digest, size) = (blob.digest, blob.size);
        let range = size.map(|size| self.walk.range(&digest, size)).transpose();
        match (range, size) {
            (Err(_), Some(size)) => {
                let message = format!("the blob has {size} bytes; ask for a range inside of them");
                let failure = Failure::new(StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::RangeInvalid, message);
                Ok(respond::unsatisfiable(failure.into_response(self.record.id), size))
            }
            (range, _) => {
                let range = range.ok().flatten().flatten();
                let content = blob.read(range).await?;
                Ok(respond::content(&digest, size, range, content))
            }
        }
    }
}
