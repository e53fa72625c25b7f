//! Blobs: HEAD, GET with Range and If-None-Match, DELETE.

use http::header::{IF_NONE_MATCH, IF_RANGE, RANGE};
use http::{Response, StatusCode};

use crate::access::Action;
use crate::oci::{ByteRange, Digest, ErrorCode, RangeError, RangeSpec, RepositoryName};

use crate::registry::Blob;

use super::super::body::Body;
use super::super::respond::{self, Failure};
use super::super::route::BlobVerb;
use super::{Call, not_deleted};

impl Call<'_> {
    pub(super) async fn blob(
        self,
        name: RepositoryName,
        digest: Digest,
        verb: BlobVerb,
    ) -> Result<Response<Body>, Failure> {
        let action = if verb == BlobVerb::Delete { Action::Delete } else { Action::Pull };
        let permit = self.walk.permit(&self.caller, action, &name)?;
        match verb {
            BlobVerb::Get | BlobVerb::Head => {
                let blob = self.hosted.blob(permit, &digest).await?;
                match verb {
                    _ if self.has_already(&digest) => Ok(respond::not_modified(&digest)),
                    BlobVerb::Head => Ok(respond::blob_head(&digest, blob.size)),
                    _ => self.get_blob(blob).await,
                }
            }
            BlobVerb::Delete => {
                let deleted = self.hosted.delete_blob(permit, &digest).await;
                deleted.map_err(|error| not_deleted(error, "GET, HEAD"))?;
                Ok(respond::gone(StatusCode::ACCEPTED))
            }
        }
    }

    async fn get_blob(self, blob: Blob) -> Result<Response<Body>, Failure> {
        match self.range(&blob.digest, blob.size) {
            Err(_) => {
                let message = format!("the blob has {} bytes; ask for a range inside of them", blob.size);
                let failure = Failure::new(StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::RangeInvalid, message);
                Ok(respond::unsatisfiable(failure.into_response(self.record.id), blob.size))
            }
            Ok(range) => {
                let blob = self.hosted.open(blob).await?;
                self.record.tier(blob.tier());
                Ok(respond::blob(blob, range))
            }
        }
    }

    /// The range asked for. One that cannot be read is ignored (RFC 9110, section 14.2), as is one whose If-Range does not
    /// hold; several at once are answered with the whole.
    fn range(&self, digest: &Digest, size: u64) -> Result<Option<ByteRange>, RangeError> {
        let headers = &self.walk.parts.headers;
        let Some(Ok(Ok(range))) = headers.get(RANGE).map(|range| range.to_str().map(str::parse::<RangeSpec>)) else {
            return Ok(None);
        };
        let holds = headers.get(IF_RANGE).is_none_or(|tag| tag.as_bytes() == format!("\"{digest}\"").as_bytes());
        if holds { range.resolve(size).map(Some) } else { Ok(None) }
    }

    /// Whether the caller's copy is the one that is asked for (RFC 9110, section 13.1.2).
    pub(super) fn has_already(&self, digest: &Digest) -> bool {
        let headers = &self.walk.parts.headers;
        if !headers.contains_key(IF_NONE_MATCH) {
            return false;
        }
        let digest = digest.to_string();
        let lists = headers.get_all(IF_NONE_MATCH).iter().filter_map(|list| list.to_str().ok());
        let mut tags = lists.flat_map(|list| list.split(',')).map(str::trim);
        tags.any(|tag| tag == "*" || tag.trim_start_matches("W/").trim_matches('"') == digest)
    }
}
