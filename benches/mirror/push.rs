//! Pushes into the built-in registry, which go on beside a mirror. They are not tried again.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};

use crate::content::{Blob, MANIFEST_TYPE};
use crate::runner::{Fault, Runner, broken};

impl Runner<'_> {
    /// POST, then the bytes in a PATCH or in the PUT.
    pub async fn push_blob(&self, repository: &str, blob: &Blob, patch: bool) -> Result<(), Fault> {
        let begin = format!("/v2/{repository}/blobs/uploads/");
        let mut location = self.push(Method::POST, &begin, Bytes::new(), StatusCode::ACCEPTED).await?;
        let mut bytes = blob.piece(0, blob.len());
        if patch {
            location = self.push(Method::PATCH, &location, std::mem::take(&mut bytes), StatusCode::ACCEPTED).await?;
        }
        let separator = if location.contains('?') { '&' } else { '?' };
        let end = format!("{location}{separator}digest={}", blob.digest);
        self.push(Method::PUT, &end, bytes, StatusCode::CREATED).await.map(|_| ())
    }

    pub async fn push_manifest(&self, repository: &str, tag: &str, manifest: &Blob) -> Result<(), Fault> {
        let path = format!("/v2/{repository}/manifests/{tag}");
        self.push(Method::PUT, &path, manifest.piece(0, manifest.len()), StatusCode::CREATED).await.map(|_| ())
    }

    /// The path to go on with.
    async fn push(&self, method: Method, path: &str, bytes: Bytes, expected: StatusCode) -> Result<String, Fault> {
        let media_type = if path.contains("/manifests/") { MANIFEST_TYPE } else { "application/octet-stream" };
        let url = format!("{}{path}", self.server);
        let request = Request::builder().method(method.clone()).uri(url).header(CONTENT_TYPE, media_type);
        let answer = self.send(request.body(Full::new(bytes)), path).await?;
        let status = answer.status();
        let location = answer.headers().get(LOCATION).and_then(|location| location.to_str().ok()).unwrap_or_default();
        let location = location.strip_prefix(&self.server).unwrap_or(location).to_owned();
        let body = answer.into_body().collect().await.map_err(|error| broken(path, &error))?.to_bytes();
        if status != expected {
            return Err(Fault::Broken(format!("{method} {path}: {status} {}", String::from_utf8_lossy(&body))));
        }
        Ok(location)
    }
}
