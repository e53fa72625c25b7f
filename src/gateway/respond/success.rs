//! Answers that say yes.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, LINK,
    LOCATION, RANGE, WARNING,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::{Value, json};

use crate::gateway::body::Body;
use crate::identity::IssuedToken;
use crate::oci::{ByteRange, Descriptor, Digest, MediaType, RepositoryName, UploadId};
use crate::registry::{Content, Manifest, Older, Page, Pushed, RawList, index_of};

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
/// The tags of a request that name the manifest now (distribution-spec, end-7b).
const TAG: HeaderName = HeaderName::from_static("oci-tag");
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
/// As long as that of a SHA-512 digest.
const ENTITY_TAG_LENGTH_MAX: usize = 137;
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// Tells a client that this is a v2 registry.
pub(in crate::gateway) fn name_version(headers: &mut HeaderMap) {
    headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
}

/// `GET /v2/`
pub(in crate::gateway) fn pong() -> Response<Body> {
    with_json(&json!({}))
}

/// `GET /token`
pub(in crate::gateway) fn token(issued: &IssuedToken, refresh: Option<&str>) -> Response<Body> {
    let answer = json!({
        "token": issued.token,
        "access_token": issued.token,
        "expires_in": issued.expires_in,
        "issued_at": issued.issued_at,
    });
    secret(answer, refresh)
}

/// `POST /token`
pub(in crate::gateway) fn token_form(issued: &IssuedToken, refresh: Option<&str>) -> Response<Body> {
    let answer = json!({
        "access_token": issued.token,
        "token_type": "Bearer",
        "scope": issued.scope,
        "expires_in": issued.expires_in,
        "issued_at": issued.issued_at,
    });
    secret(answer, refresh)
}

/// Nobody on the way may keep a token (RFC 6749, section 5.1).
fn secret(mut answer: Value, refresh: Option<&str>) -> Response<Body> {
    if let (Value::Object(fields), Some(refresh)) = (&mut answer, refresh) {
        fields.insert("refresh_token".into(), refresh.into());
    }
    let mut response = with_json(&answer);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// `GET /token/keys`: anybody may keep it for as long.
pub(in crate::gateway) fn key_set(keys: &Value, lifetime: Duration) -> Response<Body> {
    let mut response = with_json(keys);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
    set(headers, CACHE_CONTROL, &format!("public, max-age={}", lifetime.as_secs()));
    response
}

/// `GET /token/certificates`, in PEM.
pub(in crate::gateway) fn certificates(pem: String) -> Response<Body> {
    let mut response = Response::new(Body::from(pem));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/pem-certificate-chain"));
    name_version(headers);
    response
}

/// A blob of `size` bytes, if that is known, whole or in part.
pub(in crate::gateway) fn content(
    digest: &Digest,
    size: Option<u64>,
    range: Option<ByteRange>,
    content: Content,
) -> Response<Body> {
    let length = range.map(|range| range.length()).or(size);
    let mut response = blob_head(digest, length.unwrap_or_default());
    if length.is_none() {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    *response.body_mut() = match content {
        Content::Memory(bytes) => Body::Memory(bytes),
        content => Body::Blob { content: Box::new(content), left: length },
    };
    if let (Some(range), Some(size)) = (range, size) {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        set(response.headers_mut(), CONTENT_RANGE, &format!("bytes {range}/{size}"));
    }
    response
}

/// What HEAD of a blob tells; `length` in bytes.
pub(in crate::gateway) fn blob_head(digest: &Digest, length: u64) -> Response<Body> {
    let mut response = immutable(digest);
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, length.into());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    response
}

/// The range asked for lies outside the blob.
pub(in crate::gateway) fn unsatisfiable(failure: Response<Body>, size: u64) -> Response<Body> {
    let mut response = failure;
    set(response.headers_mut(), CONTENT_RANGE, &format!("bytes */{size}"));
    response
}

/// What the caller has is still good (RFC 9110, section 15.4.5).
pub(in crate::gateway) fn not_modified(digest: &Digest) -> Response<Body> {
    let mut response = immutable(digest);
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response
}

/// A manifest; HEAD gets the same headers without the bytes.
pub(in crate::gateway) fn manifest(manifest: Manifest, head: bool) -> Response<Body> {
    let mut response = immutable(&manifest.digest);
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, manifest.bytes.len().into());
    let media_type = match manifest.media_type {
        Cow::Borrowed(text) => Ok(HeaderValue::from_static(text)),
        Cow::Owned(text) => HeaderValue::try_from(text),
    };
    if let Ok(media_type) = media_type {
        headers.insert(CONTENT_TYPE, media_type);
    }
    if let Some(older) = manifest.older {
        warn_of_older(headers, &older);
    }
    if !head {
        *response.body_mut() = Body::Memory(manifest.bytes);
    }
    response
}

/// That an upstream cannot be asked, for whoever reads it: containerd from 2.4 on shows it (distribution-spec, "Warnings").
fn warn_of_older(headers: &mut HeaderMap, older: &Older) {
    let Older { upstream, since } = older;
    let ago = since.elapsed().unwrap_or_default().as_secs();
    let text = format!("299 - \"stale: {upstream} cannot be asked now; this is what it said {ago} s ago\"");
    set(headers, WARNING, &text);
}

/// A manifest was stored.
pub(in crate::gateway) fn manifest_created(name: &RepositoryName, pushed: Pushed) -> Response<Body> {
    let mut response = located(StatusCode::CREATED, &format!("/v2/{name}/manifests/{}", pushed.digest));
    set(response.headers_mut(), CONTENT_DIGEST, &pushed.digest.to_string());
    if let Some(subject) = pushed.subject {
        set(response.headers_mut(), SUBJECT, &subject.to_string());
    }
    // A line for each: whoever does not know that it is a list finds them too.
    for tag in pushed.tags {
        if let Ok(tag) = HeaderValue::from_str(tag.as_str()) {
            response.headers_mut().append(TAG, tag);
        }
    }
    response
}

/// A blob was stored or mounted.
pub(in crate::gateway) fn blob_created(name: &RepositoryName, digest: &Digest) -> Response<Body> {
    let mut response = located(StatusCode::CREATED, &format!("/v2/{name}/blobs/{digest}"));
    set(response.headers_mut(), CONTENT_DIGEST, &digest.to_string());
    response
}

/// How far an upload is: `offset` bytes. A new one says `0-0` too, as docker's registry does.
pub(in crate::gateway) fn upload(
    status: StatusCode,
    name: &RepositoryName,
    id: UploadId,
    offset: u64,
) -> Response<Body> {
    let mut response = located(status, &format!("/v2/{name}/blobs/uploads/{id}"));
    let headers = response.headers_mut();
    set(headers, RANGE, &format!("0-{}", offset.saturating_sub(1)));
    set(headers, UPLOAD_UUID, &id.to_string());
    headers.insert(HeaderName::from_static("oci-chunk-min-length"), HeaderValue::from_static("1"));
    response
}

/// Something is gone: 202 for what was stored, 204 for an upload.
pub(in crate::gateway) fn gone(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    name_version(response.headers_mut());
    response
}

/// `GET /`
pub(in crate::gateway) fn nothing() -> Response<Body> {
    Response::new(Body::empty())
}

/// It is at `path`, by whatever method (RFC 9110, section 15.4.9). What comes behind such a request is not read.
pub(in crate::gateway) fn moved(path: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    set(response.headers_mut(), LOCATION, path);
    set(response.headers_mut(), CONNECTION, "close");
    response
}

/// The tags of a repository.
pub(in crate::gateway) fn tags(name: &RepositoryName, page: &Page<String>, limit: usize) -> Response<Body> {
    let tags: Vec<&str> = page.entries.iter().map(String::as_str).collect();
    let mut response = with_json(&json!({ "name": name.as_str(), "tags": tags }));
    link_next(&mut response, &format!("/v2/{name}/tags/list?"), page.more.then(|| tags.last()).flatten(), limit);
    response
}

/// The repositories, as they were asked for by `path` and `?ns=`.
pub(in crate::gateway) fn catalog(
    page: &Page<RepositoryName>,
    path: &str,
    namespace: Option<&str>,
    limit: usize,
) -> Response<Body> {
    let names: Vec<&str> = page.entries.iter().map(RepositoryName::as_str).collect();
    let mut response = with_json(&json!({ "repositories": names }));
    let namespace = namespace.map(|namespace| format!("ns={}&", utf8_percent_encode(namespace, NON_ALPHANUMERIC)));
    let next = format!("{path}?{}", namespace.unwrap_or_default());
    link_next(&mut response, &next, page.more.then(|| names.last()).flatten(), limit);
    response
}

/// The response, said to be of the registry that `?ns=` named (containerd, BuildKit).
pub(in crate::gateway) fn in_namespace(mut response: Response<Body>, namespace: Option<&str>) -> Response<Body> {
    if let Some(namespace) = namespace {
        set(response.headers_mut(), NAMESPACE, namespace);
    }
    response
}

/// The referrers of a manifest, as an index.
pub(in crate::gateway) fn referrers(
    name: &RepositoryName,
    subject: &Digest,
    artifact_type: Option<&str>,
    page: &Page<Descriptor>,
) -> Response<Body> {
    let list = RawList { bytes: index_of(&page.entries), filtered: artifact_type.is_some(), older: None };
    let mut response = raw_referrers(list);
    let headers = response.headers_mut();
    if let Some(last) = page.entries.last().filter(|_| page.more) {
        let kind = artifact_type.map(|kind| format!("artifactType={}&", utf8_percent_encode(kind, NON_ALPHANUMERIC)));
        let query = format!("{}last={}", kind.unwrap_or_default(), last.digest);
        set(headers, LINK, &format!("</v2/{name}/referrers/{subject}?{query}>; rel=\"next\""));
    }
    response
}

/// The referrers of a manifest, as another registry lists them.
pub(in crate::gateway) fn raw_referrers(list: RawList) -> Response<Body> {
    let mut response = gone(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MediaType::OciIndex.as_str()));
    if list.filtered {
        headers.insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    if let Some(older) = list.older {
        warn_of_older(headers, &older);
    }
    *response.body_mut() = Body::from(list.bytes);
    response
}

/// The next page, as RFC 8288 writes links. `target` ends where the parameters of the page belong.
fn link_next(response: &mut Response<Body>, target: &str, last: Option<&&str>, limit: usize) {
    if let Some(last) = last {
        let last = utf8_percent_encode(last, NON_ALPHANUMERIC);
        set(response.headers_mut(), LINK, &format!("<{target}last={last}&n={limit}>; rel=\"next\""));
    }
}

fn immutable(digest: &Digest) -> Response<Body> {
    let mut response = gone(StatusCode::OK);
    let headers = response.headers_mut();
    let tag = entity_tag(digest);
    // The tag without its quotes: both headers share one text.
    if let Ok(bare) = HeaderValue::from_maybe_shared(tag.slice(1..tag.len() - 1)) {
        headers.insert(CONTENT_DIGEST, bare);
    }
    if let Ok(tag) = HeaderValue::from_maybe_shared(tag) {
        headers.insert(ETAG, tag);
    }
    response
}

/// `"sha256:…"`
fn entity_tag(digest: &Digest) -> Bytes {
    let mut text = String::with_capacity(ENTITY_TAG_LENGTH_MAX);
    let _ = write!(text, "\"{digest}\"");
    text.into()
}

fn located(status: StatusCode, location: &str) -> Response<Body> {
    let mut response = gone(status);
    set(response.headers_mut(), LOCATION, location);
    response.headers_mut().insert(CONTENT_LENGTH, 0.into());
    response
}

fn with_json(value: &impl Serialize) -> Response<Body> {
    let mut response = Response::new(Body::from(serde_json::to_vec(value).unwrap_or_default()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    name_version(headers);
    response
}

/// All values are made of names, digests and numbers, which are always good header text.
fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
