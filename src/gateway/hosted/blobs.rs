//! Blobs: HEAD, GET with Range and If-None-Match, DELETE.

use http::{Response, StatusCode};

use crate::gateway::body::Body;
use crate::gateway::respond::{self, Failure};
use crate::gateway::route::BlobVerb;
use crate::oci::{Digest, ErrorCode, RepositoryName};
use crate::registry::Blob;

use super::{Call, not_deleted};

impl Call<'_> {
    pub(super) async fn blob(
        self,
        name: RepositoryName,
        digest: Digest,
        verb: BlobVerb,
    ) -> Result<Response<Body>, Failure> {
        match verb {
            BlobVerb::Get | BlobVerb::Head => {
                let permit = self.walk.permit(self.caller, &name)?;
                let blob = self.hosted.blob(&permit, &digest).await?;
                match verb {
                    _ if self.walk.has_already(&digest) => Ok(respond::not_modified(&digest)),
                    BlobVerb::Head => {
                        self.hosted.check(&blob).await?;
                        Ok(respond::blob_head(&digest, blob.size))
                    }
                    _ => self.get_blob(blob).await,
                }
            }
            BlobVerb::Delete => {
                let permit = self.walk.permit(self.caller, &name)?;
                let deleted = self.hosted.delete_blob(&permit, &digest).await;
                deleted.map_err(|error| not_deleted(error, "GET, HEAD"))?;
                Ok(respond::gone(StatusCode::ACCEPTED))
            }
        }
    }

    async fn get_blob(self, blob: Blob) -> Result<Response<Body>, Failure> {
        match self.walk.range(&blob.digest, blob.size) {
            Err(_) => {
                let message = format!("the blob has {} bytes; ask for a range inside of them", blob.size);
                let failure = Failure::new(StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::RangeInvalid, message);
                Ok(respond::unsatisfiable(failure.into_response(self.record.id), blob.size))
            }
            Ok(range) => {
                let blob = self.hosted.open(blob).await?;
                self.record.tier(blob.tier());
                let (digest, size) = (blob.digest, blob.size);
                Ok(respond::content(&digest, Some(size), range, blob.read(range)))
            }
        }
    }
}
