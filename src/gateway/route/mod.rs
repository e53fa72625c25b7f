//! `(method, path, query)` → [`Route`]: read here and nowhere else (distribution-spec 1.1, "Endpoints").

mod legacy;

use std::str::FromStr;

use http::{Method, Uri};

use crate::oci::{Algorithm, Digest, DigestError, ErrorCode, Reference, ReferenceError, RepositoryName, Tag, UploadId};

use super::query::Query;

pub use legacy::{ImagePart, LegacyImage, LegacyRepository, LegacyRoute, RepositoryPart, SearchQuery};

/// The longest value of `ns`: a host and its port.
const NAMESPACE_LENGTH_MAX: usize = 255;

/// How many tags a manifest may be pushed with at once. The specification wants ten at the least.
const TAGS_MAX: usize = 100;

/// A route, and whom it is asked of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routed {
    /// What is asked.
    pub route: Route,
    /// `PREFIX`, if the path is `/PREFIX/v2/…`.
    pub prefix: Option<RepositoryName>,
    /// The registry that the client means, from `?ns=`: containerd and BuildKit say so to a mirror.
    pub namespace: Option<String>,
}

/// Everything that can be asked of the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `GET /v2/`
    Ping,
    /// `GET /token`, docker's token protocol.
    Token(TokenQuery),
    /// `POST /token`, the same as an OAuth2 form; what is asked for stands in the body.
    TokenForm,
    /// `GET /token/keys`, the public keys of tokens.
    TokenKeys,
    /// `GET /`: nothing, for whoever only wants to know that somebody is here.
    Root,
    /// `GET /token/certificates`, what other registries trust.
    TokenCertificates,
    /// `GET /v2/_catalog`
    Catalog(Page),
    /// `GET /v2/NAME/tags/list`
    Tags(RepositoryName, Page),
    /// `/v2/NAME/manifests/REFERENCE`
    Manifest(RepositoryName, Reference, Verb),
    /// `/v2/NAME/blobs/DIGEST`
    Blob(RepositoryName, Digest, BlobVerb),
    /// `POST /v2/NAME/blobs/uploads/`
    UploadStart(RepositoryName, UploadStart),
    /// `/v2/NAME/blobs/uploads/ID`
    Upload(RepositoryName, UploadId, UploadVerb),
    /// `GET /v2/NAME/referrers/DIGEST`
    Referrers {
        /// The repository.
        name: RepositoryName,
        /// Whom the referrers refer to.
        subject: Digest,
        /// Only those of this type.
        artifact_type: Option<String>,
        /// Only those after this one.
        last: Option<Digest>,
    },
    /// What the v1 registry owns.
    Legacy(LegacyRoute),
}

/// What kind of token is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenQuery {
    /// For which service, if that is said.
    pub service: Option<String>,
    /// The scopes, as they were written.
    pub scopes: Vec<String>,
    /// Whether a refresh token is asked for too.
    pub offline: bool,
}

/// What is done to a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verb {
    /// GET
    Get,
    /// HEAD
    Head,
    /// PUT, and the tags that are to name it beside what is in the path (end-7b).
    Put(Vec<Tag>),
    /// DELETE
    Delete,
}

/// What is done to a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlobVerb {
    /// GET
    Get,
    /// HEAD
    Head,
    /// DELETE
    Delete,
}

/// How an upload begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadStart {
    /// A session for later requests, and what its bytes are expected to be named by (end-4c).
    Session(Algorithm),
    /// The whole blob is in this request.
    Monolithic(Digest),
    /// The blob is said to be in another repository, or in any.
    Mount {
        /// Which blob.
        digest: Digest,
        /// Where it is said to be.
        from: Option<RepositoryName>,
    },
}

/// What is done to an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadVerb {
    /// GET: how far is it?
    Status,
    /// PATCH: more bytes.
    Patch,
    /// PUT: the last bytes, and what the whole must hash to.
    Put(Digest),
    /// DELETE
    Cancel,
}

/// Which part of a list is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// At most how many entries.
    pub limit: Option<usize>,
    /// Only those after this one.
    pub last: Option<String>,
}

/// Why there is no route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteError {
    /// Nothing is there.
    Unknown,
    /// Something is there, but not for this method.
    MethodNotAllowed {
        /// The methods it has, as for `Allow`.
        allow: &'static str,
    },
    /// Something would be there if a part of the path or query were well formed.
    Invalid {
        /// Which part, in the words of the protocol.
        code: ErrorCode,
        /// What is wrong with it.
        detail: String,
    },
    /// More is asked for at once than is done at once.
    TooLong {
        /// How much is.
        detail: String,
    },
}

/// Finds the route of a request whose path the screen has let through.
pub fn parse(method: &Method, uri: &Uri) -> Result<Routed, RouteError> {
    let path = uri.path();
    let query = Query::parse(uri.query().unwrap_or_default()).map_err(invalid(ErrorCode::Unsupported))?;
    let here = |route| Routed { route, prefix: None, namespace: None };
    match path {
        "/" => return read_only(method, Route::Root).map(here),
        "/token" => return token(method, &query).map(here),
        "/token/keys" => return read_only(method, Route::TokenKeys).map(here),
        "/token/certificates" => return read_only(method, Route::TokenCertificates).map(here),
        "/_ping" => return read_only(method, Route::Legacy(LegacyRoute::Ping)).map(here),
        _ => {}
    }
    if let Some(path) = path.strip_prefix("/v1/") {
        return legacy::parse(method, path, &query).map(here);
    }
    let (prefix, path) = split_prefix(path).ok_or(RouteError::Unknown)?;
    let namespace = namespace(&query)?;
    let route = if path.is_empty() { read_only(method, Route::Ping) } else { v2(method, path, &query) };
    Ok(Routed { route: route?, prefix, namespace })
}

fn token(method: &Method, query: &Query) -> Result<Route, RouteError> {
    let offline = query.first("offline_token").is_some_and(|offline| offline == "true");
    match *method {
        Method::POST => Ok(Route::TokenForm),
        Method::GET | Method::HEAD => {
            Ok(Route::Token(TokenQuery { service: query.first("service"), scopes: query.all("scope"), offline }))
        }
        _ => Err(RouteError::MethodNotAllowed { allow: "GET, HEAD, POST" }),
    }
}

/// The path is read as `[/PREFIX]/v2/REST`, up to the first `/v2/` that it has: no prefix has a part `v2`.
fn split_prefix(path: &str) -> Option<(Option<RepositoryName>, &str)> {
    let (prefix, rest) = path.split_once("/v2/").or_else(|| Some((path.strip_suffix("/v2")?, "")))?;
    let Some(prefix) = prefix.strip_prefix('/') else { return prefix.is_empty().then_some((None, rest)) };
    let is_taken = matches!(prefix.split('/').next(), Some("v1" | "v2" | "token"));
    prefix.parse().ok().filter(|_| !is_taken).map(|prefix| (Some(prefix), rest))
}

/// The value of `ns`; an empty one says nothing.
fn namespace(query: &Query) -> Result<Option<String>, RouteError> {
    let Some(namespace) = query.first("ns").filter(|namespace| !namespace.is_empty()) else { return Ok(None) };
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    if namespace.len() <= NAMESPACE_LENGTH_MAX && namespace.bytes().all(known) {
        return Ok(Some(namespace));
    }
    let detail =
        format!("ns must be a registry's host, such as docker.io, of at most {NAMESPACE_LENGTH_MAX} characters");
    Err(RouteError::Invalid { code: ErrorCode::Unsupported, detail })
}

fn v2(method: &Method, path: &str, query: &Query) -> Result<Route, RouteError> {
    if path == "_catalog" {
        return read_only(method, Route::Catalog(page(query)?));
    }
    // Names may hold any word, so the path is read from its end: that is where the fixed words are.
    let (rest, last) = path.rsplit_once('/').ok_or(RouteError::Unknown)?;
    if let Some(rest) = rest.strip_suffix("/blobs/uploads") {
        return upload(method, rest, last, query);
    }
    let (name, word) = rest.rsplit_once('/').ok_or(RouteError::Unknown)?;
    match (word, last) {
        ("blobs", "uploads") => upload(method, name, "", query),
        ("blobs", _) => blob(method, name, last),
        ("manifests", _) => manifest(method, name, last, query),
        ("tags", "list") => read_only(method, Route::Tags(parse_name(name)?, page(query)?)),
        ("referrers", _) => {
            let (name, subject) = (parse_name(name)?, parse_digest(last)?);
            let last = query.first("last").map(|last| parse_digest(&last)).transpose()?;
            // Media types have no spaces: one that is read here was a plus sign that the client did not escape.
            let artifact_type = query.first("artifactType").map(|kind| kind.replace(' ', "+"));
            read_only(method, Route::Referrers { name, subject, artifact_type, last })
        }
        _ => Err(RouteError::Unknown),
    }
}

fn blob(method: &Method, name: &str, digest: &str) -> Result<Route, RouteError> {
    let verb = match *method {
        Method::GET => BlobVerb::Get,
        Method::HEAD => BlobVerb::Head,
        Method::DELETE => BlobVerb::Delete,
        _ => return Err(RouteError::MethodNotAllowed { allow: "GET, HEAD, DELETE" }),
    };
    Ok(Route::Blob(parse_name(name)?, parse_digest(digest)?, verb))
}

fn manifest(method: &Method, name: &str, reference: &str, query: &Query) -> Result<Route, RouteError> {
    let verb = match *method {
        Method::GET => Verb::Get,
        Method::HEAD => Verb::Head,
        Method::PUT => Verb::Put(tags(query)?),
        Method::DELETE => Verb::Delete,
        _ => return Err(RouteError::MethodNotAllowed { allow: "GET, HEAD, PUT, DELETE" }),
    };
    let name = parse_name(name)?;
    let reference = reference.parse().map_err(|error| match error {
        ReferenceError::Digest(error) => bad_digest(error),
        // Reading by a name that no tag can have finds nothing; writing it is an error of its own.
        ReferenceError::Tag(error) => {
            let code = if matches!(verb, Verb::Put(_)) { ErrorCode::TagInvalid } else { ErrorCode::ManifestUnknown };
            RouteError::Invalid { code, detail: error.to_string() }
        }
    })?;
    Ok(Route::Manifest(name, reference, verb))
}

/// The tags that a manifest is to have, each once.
fn tags(query: &Query) -> Result<Vec<Tag>, RouteError> {
    let mut tags: Vec<Tag> = Vec::new();
    for tag in query.all("tag") {
        let tag = tag.parse().map_err(invalid(ErrorCode::TagInvalid))?;
        if !tags.contains(&tag) {
            tags.push(tag);
        }
        if tags.len() > TAGS_MAX {
            let detail = format!("at most {TAGS_MAX} tags can be pushed at once; push the others with another request");
            return Err(RouteError::TooLong { detail });
        }
    }
    Ok(tags)
}

fn upload(method: &Method, name: &str, id: &str, query: &Query) -> Result<Route, RouteError> {
    if id.is_empty() {
        return match *method {
            Method::POST => Ok(Route::UploadStart(parse_name(name)?, upload_start(query)?)),
            _ => Err(RouteError::MethodNotAllowed { allow: "POST" }),
        };
    }
    let verb = match *method {
        Method::GET | Method::HEAD => UploadVerb::Status,
        Method::PATCH => UploadVerb::Patch,
        Method::PUT => UploadVerb::Put(parse_digest(&query.first("digest").unwrap_or_default())?),
        Method::DELETE => UploadVerb::Cancel,
        _ => return Err(RouteError::MethodNotAllowed { allow: "GET, HEAD, PATCH, PUT, DELETE" }),
    };
    let name = parse_name(name)?;
    let id = UploadId::from_str(id).map_err(invalid(ErrorCode::BlobUploadUnknown))?;
    Ok(Route::Upload(name, id, verb))
}

fn upload_start(query: &Query) -> Result<UploadStart, RouteError> {
    let algorithm = query.first("digest-algorithm").map(|name| name.parse().map_err(bad_digest)).transpose()?;
    let algorithm = algorithm.unwrap_or(Algorithm::Sha256);
    if let Some(digest) = query.first("mount") {
        // Where a blob is said to be is a hint: one that means nothing here costs the client an upload, as docker's registry has it.
        let from = query.first("from").and_then(|from| from.parse().ok());
        return Ok(UploadStart::Mount { digest: parse_digest(&digest)?, from });
    }
    let digest = query.first("digest").map(|digest| parse_digest(&digest)).transpose()?;
    Ok(digest.map_or(UploadStart::Session(algorithm), UploadStart::Monolithic))
}

fn page(query: &Query) -> Result<Page, RouteError> {
    let digits = |text: &String| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let limit = match query.first("n").filter(|text| !text.is_empty()) {
        None => None,
        // Too large for a number is as good as "all": the limit of a page cuts both.
        Some(text) if digits(&text) => Some(text.parse().unwrap_or(usize::MAX)),
        Some(text) => {
            let detail = format!("n is {text:?}; it must be a number, 0 or more");
            return Err(RouteError::Invalid { code: ErrorCode::PaginationNumberInvalid, detail });
        }
    };
    Ok(Page { limit, last: query.first("last").filter(|last| !last.is_empty()) })
}

fn read_only(method: &Method, route: Route) -> Result<Route, RouteError> {
    match *method {
        Method::GET | Method::HEAD => Ok(route),
        _ => Err(RouteError::MethodNotAllowed { allow: "GET, HEAD" }),
    }
}

fn parse_name(text: &str) -> Result<RepositoryName, RouteError> {
    text.parse().map_err(invalid(ErrorCode::NameInvalid))
}

fn parse_digest(text: &str) -> Result<Digest, RouteError> {
    text.parse().map_err(bad_digest)
}

fn bad_digest(error: DigestError) -> RouteError {
    let code = match error {
        DigestError::UnsupportedAlgorithm => ErrorCode::Unsupported,
        DigestError::Malformed | DigestError::BadHex => ErrorCode::DigestInvalid,
    };
    RouteError::Invalid { code, detail: error.to_string() }
}

fn invalid<E: std::fmt::Display>(code: ErrorCode) -> impl Fn(E) -> RouteError {
    move |error| RouteError::Invalid { code, detail: error.to_string() }
}

impl Route {
    /// A short name for logs and metrics; there are as many as routes, whatever is asked.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Root => "root",
            Self::Token(_) | Self::TokenForm | Self::TokenKeys | Self::TokenCertificates => "token",
            Self::Catalog(_) => "catalog",
            Self::Tags(..) => "tags",
            Self::Manifest(..) => "manifest",
            Self::Blob(..) => "blob",
            Self::UploadStart(..) | Self::Upload(..) => "upload",
            Self::Referrers { .. } => "referrers",
            Self::Legacy(_) => "legacy",
        }
    }

    /// Whether whoever answers it reads the request's body.
    pub const fn reads_body(&self) -> bool {
        match self {
            Self::Manifest(_, _, verb) => matches!(verb, Verb::Put(_)),
            Self::UploadStart(_, start) => matches!(start, UploadStart::Monolithic(_)),
            Self::Upload(_, _, verb) => matches!(verb, UploadVerb::Patch | UploadVerb::Put(_)),
            Self::TokenForm | Self::Legacy(_) => true,
            _ => false,
        }
    }

    /// This route for another repository; unchanged, where it is about none.
    #[must_use]
    pub fn of_repository(self, name: RepositoryName) -> Self {
        match self {
            Self::Tags(_, page) => Self::Tags(name, page),
            Self::Manifest(_, reference, verb) => Self::Manifest(name, reference, verb),
            Self::Blob(_, digest, verb) => Self::Blob(name, digest, verb),
            Self::UploadStart(_, start) => Self::UploadStart(name, start),
            Self::Upload(_, id, verb) => Self::Upload(name, id, verb),
            Self::Referrers { subject, artifact_type, last, .. } => {
                Self::Referrers { name, subject, artifact_type, last }
            }
            other => other,
        }
    }

    /// This route with another name for the repository that a blob is to be mounted from.
    #[must_use]
    pub fn mounting(self, find: impl FnOnce(RepositoryName) -> Option<RepositoryName>) -> Self {
        match self {
            Self::UploadStart(name, UploadStart::Mount { digest, from }) => {
                Self::UploadStart(name, UploadStart::Mount { digest, from: from.and_then(find) })
            }
            other => other,
        }
    }

    /// The repository that it is about, if it is about one.
    pub const fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::Tags(name, _)
            | Self::Manifest(name, ..)
            | Self::Blob(name, ..)
            | Self::UploadStart(name, _)
            | Self::Upload(name, ..)
            | Self::Referrers { name, .. }
            | Self::Legacy(LegacyRoute::Repository(LegacyRepository { name, .. })) => Some(name),
            Self::Ping
            | Self::Root
            | Self::Token(_)
            | Self::TokenForm
            | Self::TokenKeys
            | Self::TokenCertificates
            | Self::Catalog(_)
            | Self::Legacy(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
