//! What a request's headers and query say of which part is asked for, or brought.

use http::StatusCode;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, IF_NONE_MATCH, IF_RANGE, RANGE};

use crate::oci::{self, ByteRange, Digest, ErrorCode, MediaType, RangeError, RangeSpec, Reference};
use crate::registry::{Manifest, RegistryError};

use super::respond::Failure;
use super::route::Page;
use super::walk::Walk;

impl Walk<'_> {
    /// The range asked for. One that cannot be read is ignored (RFC 9110, section 14.2), as is one whose If-Range does not
    /// hold; several at once are answered with the whole.
    pub(super) fn range(&self, digest: &Digest, size: u64) -> Result<Option<ByteRange>, RangeError> {
        let headers = &self.parts.headers;
        let Some(Ok(Ok(range))) = headers.get(RANGE).map(|range| range.to_str().map(str::parse::<RangeSpec>)) else {
            return Ok(None);
        };
        let holds = headers.get(IF_RANGE).is_none_or(|tag| tag.as_bytes() == format!("\"{digest}\"").as_bytes());
        if holds { range.resolve(size).map(Some) } else { Ok(None) }
    }

    /// Whether the caller's copy is the one that is asked for (RFC 9110, section 13.1.2).
    pub(super) fn has_already(&self, digest: &Digest) -> bool {
        let headers = &self.parts.headers;
        if !headers.contains_key(IF_NONE_MATCH) {
            return false;
        }
        let digest = digest.to_string();
        let lists = headers.get_all(IF_NONE_MATCH).iter().filter_map(|list| list.to_str().ok());
        let mut tags = lists.flat_map(|list| list.split(',')).map(str::trim);
        tags.any(|tag| tag == "*" || tag.trim_start_matches("W/").trim_matches('"') == digest)
    }

    /// What to give for a list of docker's to whoever asks by a tag and takes images of docker's alone: the one for Linux on
    /// amd64, as docker's registries do.
    pub(super) fn image_in_place_of(&self, reference: &Reference, list: &Manifest) -> Option<Digest> {
        let is_list =
            list.media_type == MediaType::DockerManifestList.as_str() && matches!(reference, Reference::Tag(_));
        if !is_list {
            return None;
        }
        let lists = self.parts.headers.get_all(ACCEPT).iter().filter_map(|list| list.to_str().ok());
        let taken: Vec<&str> = lists.flat_map(|list| list.split(',')).map(essence).collect();
        let takes =
            |kinds: &[&str]| taken.iter().any(|kind| kinds.iter().any(|other| kind.eq_ignore_ascii_case(other)));
        let takes_lists = takes(&[MediaType::DockerManifestList.as_str(), "*/*", "application/*"]);
        let is_old = takes(&[MediaType::DockerManifest.as_str()]) && !takes_lists;
        is_old.then(|| oci::of_linux_amd64(&list.bytes)).flatten()
    }

    /// How many entries a page has: as asked for, but never more than are served.
    pub(super) fn limit(&self, page: &Page) -> usize {
        let most = self.settings.limits.page_entries;
        page.limit.map_or(most, |limit| limit.min(most))
    }

    /// How many bytes the body has, if the caller says so.
    pub(super) fn stated_length(&self) -> Option<u64> {
        self.parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok())
    }

    /// Where the body belongs: `Content-Range`, which must fit `Content-Length` where both are there.
    pub(super) fn stated_range(&self) -> Result<Option<ByteRange>, Failure> {
        let Some(text) = self.parts.headers.get(CONTENT_RANGE) else { return Ok(None) };
        let malformed = || {
            let message = "Content-Range of an upload is written FIRST-LAST, such as 0-1023";
            Failure::new(StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::BlobUploadInvalid, message)
        };
        let range = text.to_str().ok().and_then(ByteRange::parse_content_range).ok_or_else(malformed)?;
        match self.stated_length() {
            Some(received) if received != range.length() => {
                Err(RegistryError::UploadLength { stated: range.length(), received }.into())
            }
            _ => Ok(Some(range)),
        }
    }
}

/// A media type without its parameters.
fn essence(text: &str) -> &str {
    text.split(';').next().unwrap_or(text).trim()
}
