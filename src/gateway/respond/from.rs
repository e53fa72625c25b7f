//! The errors of every room, in HTTP.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use crate::gateway::arrival::BadHead;
use crate::gateway::intake::IntakeError;
use crate::gateway::names::NoName;
use crate::gateway::route::RouteError;
use crate::gateway::screen::Refusal;
use crate::identity::{IdentifyError, MalformedCredentials};
use crate::oci::ErrorCode;
use crate::registry::{LegacyError, RegistryError, SendError};

use super::{Failure, Form};

const AMBIGUOUS_LENGTH: &str =
    "the length of the request is ambiguous: it needs one Content-Length, one number, or Transfer-Encoding";
/// When whoever found no room for its body should come again: those that stand still are gone by then.
const CROWDED_RETRY_AFTER: Duration = Duration::from_secs(5);
const ONLY_CHUNKED: &str = "the only Transfer-Encoding that is served is chunked, once, in HTTP/1.1";

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let (status, message) = match refusal {
            Refusal::Head(reason) => bad_head(reason),
            Refusal::Method => (StatusCode::METHOD_NOT_ALLOWED, "this method is not served here"),
            Refusal::Host => (
                StatusCode::BAD_REQUEST,
                "the request needs exactly one Host header, a name or address with an optional port",
            ),
            Refusal::HostMismatch => {
                (StatusCode::BAD_REQUEST, "the request's target and its Host header name different hosts")
            }
            Refusal::Scheme => (
                StatusCode::BAD_REQUEST,
                "the request's target is no http URL, or an https one over a plain connection; write the path alone, and behind \
                 a proxy that takes TLS, name that in trusted_proxies",
            ),
            Refusal::Length => (StatusCode::BAD_REQUEST, AMBIGUOUS_LENGTH),
            Refusal::TransferCoding => (StatusCode::BAD_REQUEST, ONLY_CHUNKED),
            Refusal::Path => (
                StatusCode::BAD_REQUEST,
                "the path must be written plainly: no escapes, no empty parts, no dots alone, no parameters",
            ),
            Refusal::TargetTooLong => (StatusCode::URI_TOO_LONG, "the path and query are too long"),
            Refusal::PlainText => (
                StatusCode::BAD_REQUEST,
                "this registry is served over HTTPS only; use https:// or, in docker, remove it from insecure-registries and \
                 install the CA that `dockgate cert trust` names",
            ),
            Refusal::Version => (StatusCode::HTTP_VERSION_NOT_SUPPORTED, "use HTTP/1.1 or HTTP/2"),
        };
        let failure = Self::new(status, ErrorCode::Unsupported, message).closing();
        Self { allow: (refusal == Refusal::Method).then_some("GET, HEAD, PUT, POST, PATCH, DELETE"), ..failure }
    }
}

const fn bad_head(reason: BadHead) -> (StatusCode, &'static str) {
    let message = match reason {
        BadHead::RequestLine => {
            "the request line must be a method, a target and HTTP/1.1, with one space between them; or use HTTP/2 over TLS"
        }
        BadHead::LineEnd => "every line of a request's head must end in CR LF, and neither stands anywhere else",
        BadHead::ControlByte => "a request's head must not have control bytes in it",
        BadHead::Field => {
            "a header line must be a name, a colon without a space before it, and a value on the same line"
        }
        BadHead::Length => return (StatusCode::BAD_REQUEST, AMBIGUOUS_LENGTH),
        BadHead::TransferCoding => return (StatusCode::BAD_REQUEST, ONLY_CHUNKED),
        BadHead::TooLarge => {
            let message = "the head of the request is too large (limits.header_bytes, limits.headers)";
            return (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, message);
        }
    };
    (StatusCode::BAD_REQUEST, message)
}

impl From<RouteError> for Failure {
    fn from(error: RouteError) -> Self {
        match error {
            RouteError::Unknown => Self::new(
                StatusCode::NOT_FOUND,
                ErrorCode::Unsupported,
                "nothing is served under this path; registries answer under /v2/, and those of old docker under /v1/",
            ),
            RouteError::MethodNotAllowed { allow } => {
                let message = format!("this path takes {allow} only");
                let failure = Self::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported, message);
                Self { allow: Some(allow), ..failure }
            }
            RouteError::Invalid { code, detail } => {
                let unknown = matches!(code, ErrorCode::ManifestUnknown | ErrorCode::BlobUploadUnknown);
                let status = if unknown { StatusCode::NOT_FOUND } else { StatusCode::BAD_REQUEST };
                Self::new(status, code, detail)
            }
            RouteError::TooLong { detail } => Self::new(StatusCode::URI_TOO_LONG, ErrorCode::SizeInvalid, detail),
        }
    }
}

impl From<NoName> for Failure {
    /// 404 sends a client on to the next of its mirrors.
    fn from(error: NoName) -> Self {
        match error {
            NoName::Broken(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, error.to_string()),
            NoName::Name(_) => Self::new(StatusCode::BAD_REQUEST, ErrorCode::NameInvalid, error.to_string()),
            _ => Self::new(StatusCode::NOT_FOUND, ErrorCode::NameUnknown, error.to_string()),
        }
    }
}

impl From<IntakeError> for Failure {
    fn from(error: IntakeError) -> Self {
        let (status, code, message) = match error {
            IntakeError::Idle => (
                StatusCode::REQUEST_TIMEOUT,
                ErrorCode::BlobUploadInvalid,
                "no data came for too long; try again (limits.body_idle_timeout)".to_owned(),
            ),
            IntakeError::TooSlow => (
                StatusCode::REQUEST_TIMEOUT,
                ErrorCode::BlobUploadInvalid,
                "the data came too slowly; try again (limits.body_rate_bytes)".to_owned(),
            ),
            IntakeError::TooLarge { limit } => (
                StatusCode::PAYLOAD_TOO_LARGE,
                ErrorCode::SizeInvalid,
                format!("the body is larger than {limit} bytes (limits.manifest_bytes)"),
            ),
            IntakeError::Crowded => (
                StatusCode::SERVICE_UNAVAILABLE,
                ErrorCode::Unavailable,
                "too many bodies are held in memory now; try again in a few seconds (limits.incoming_bytes)".to_owned(),
            ),
            IntakeError::Broken => (
                StatusCode::BAD_REQUEST,
                ErrorCode::BlobUploadInvalid,
                "the body ended before it was complete, or its chunks cannot be read; try again".to_owned(),
            ),
        };
        let retry_after = matches!(error, IntakeError::Crowded).then_some(CROWDED_RETRY_AFTER);
        let failure = Self { retry_after, ..Self::new(status, code, message) };
        // What is only too large is read on to its end; of the others nothing good comes any more.
        if matches!(error, IntakeError::TooLarge { .. }) { failure } else { failure.closing() }
    }
}

impl From<MalformedCredentials> for Failure {
    fn from(_: MalformedCredentials) -> Self {
        let message = "the Authorization header cannot be read; log in again";
        Self::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, message)
    }
}

impl From<IdentifyError> for Failure {
    fn from(error: IdentifyError) -> Self {
        let wrong = |message: &str| Self::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, message);
        let later = |message: &str, after| {
            let failure = Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, message);
            Self { retry_after: Some(after), ..failure }
        };
        match error {
            IdentifyError::Wrong | IdentifyError::PasswordTooLong => wrong("wrong user name or password; log in again"),
            IdentifyError::InvalidToken => wrong("the token is not valid here; log in again"),
            IdentifyError::ExpiredToken => wrong("the token has expired; ask for a new one"),
            IdentifyError::TooManyFailures { retry_after } => {
                later("too many failed logins of this user from this address; try again in a minute", retry_after)
            }
            IdentifyError::Busy { retry_after } => {
                later("too many logins at once; try again in a few seconds", retry_after)
            }
        }
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::NameUnknown(_)
            | RegistryError::BlobUnknown(_)
            | RegistryError::ManifestUnknown(_)
            | RegistryError::UploadUnknown(_) => unknown(error),
            RegistryError::UploadBusy(_)
            | RegistryError::UploadOffset { .. }
            | RegistryError::UploadLength { .. }
            | RegistryError::DigestMismatch(_) => upload(error),
            RegistryError::ManifestInvalid(_)
            | RegistryError::ManifestDigest { .. }
            | RegistryError::MissingChildren(_)
            | RegistryError::TagExists(_) => manifest(error),
            RegistryError::DeleteDisabled
            | RegistryError::TooManyUploads
            | RegistryError::NoSpace
            | RegistryError::ReadOnly
            | RegistryError::ReadOnlyMirror(_)
            | RegistryError::Internal(_) => refused(error),
            RegistryError::Remote(error) => super::upstream::failure(*error),
            RegistryError::Legacy(error) => (*error).into(),
        }
    }
}

fn unknown(error: RegistryError) -> Failure {
    let failure = |code, message: String| Failure::new(StatusCode::NOT_FOUND, code, message);
    match error {
        RegistryError::BlobUnknown(digest) => {
            failure(ErrorCode::BlobUnknown, format!("this repository has no blob {digest}"))
                .detail(json!({ "digest": digest.to_string() }))
        }
        RegistryError::ManifestUnknown(reference) => {
            failure(ErrorCode::ManifestUnknown, format!("this repository has no manifest {reference}"))
                .detail(json!({ "reference": reference.to_string() }))
        }
        RegistryError::UploadUnknown(_) => {
            failure(ErrorCode::BlobUploadUnknown, "there is no such upload; begin a new one".into())
        }
        _ => failure(
            ErrorCode::NameUnknown,
            "this repository is not known; check its name, or log in as a user who may pull it".into(),
        ),
    }
}

fn upload(error: RegistryError) -> Failure {
    let invalid = |status, message: String| Failure::new(status, ErrorCode::BlobUploadInvalid, message);
    match error {
        RegistryError::UploadOffset { expected, found } => invalid(
            StatusCode::RANGE_NOT_SATISFIABLE,
            format!("the upload has {expected} bytes, the next must begin there and not at {found}"),
        )
        .detail(json!({ "offset": expected })),
        RegistryError::UploadLength { stated, received } => Failure::new(
            StatusCode::BAD_REQUEST,
            ErrorCode::SizeInvalid,
            format!("Content-Range says {stated} bytes, but {received} came"),
        ),
        RegistryError::DigestMismatch(mismatch) => {
            Failure::new(StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid, format!("{mismatch}; push the blob again"))
                .detail(json!({ "expected": mismatch.expected.to_string(), "actual": mismatch.actual.to_string() }))
        }
        _ => invalid(
            StatusCode::CONFLICT,
            "another request is writing to this upload; wait for it or begin a new one".into(),
        ),
    }
}

fn manifest(error: RegistryError) -> Failure {
    let bad = |code, message: String| Failure::new(StatusCode::BAD_REQUEST, code, message);
    match error {
        RegistryError::ManifestDigest { stated, actual } => {
            bad(ErrorCode::DigestInvalid, format!("the manifest's digest is {actual}, not {stated} as the path says"))
        }
        RegistryError::MissingChildren(missing) => {
            let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
            let message = format!("push these first, the manifest needs them: {}", missing.join(", "));
            bad(ErrorCode::ManifestBlobUnknown, message).detail(json!({ "missing": missing }))
        }
        RegistryError::TagExists(tag) => Failure::new(
            StatusCode::FORBIDDEN,
            ErrorCode::Denied,
            format!("the tag {tag} exists, and you may make new tags only; push under another tag"),
        ),
        RegistryError::ManifestInvalid(error) => bad(ErrorCode::ManifestInvalid, error.to_string()),
        other => refused(other),
    }
}

fn refused(error: RegistryError) -> Failure {
    match error {
        RegistryError::DeleteDisabled => Failure::new(
            StatusCode::METHOD_NOT_ALLOWED,
            ErrorCode::Unsupported,
            "deleting is switched off here (registry.delete in gateway.toml)",
        ),
        RegistryError::ReadOnlyMirror(upstream) => {
            let message = format!(
                "nothing can be pushed here: {upstream} is a mirror; push to a name without its prefix, or make its kind \"fronted\""
            );
            let failure = Failure::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported, message);
            Failure { allow: Some("GET, HEAD"), ..failure }
        }
        RegistryError::TooManyUploads => {
            let message = "as many uploads are open as are allowed (limits.uploads); try again later";
            Failure::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, message)
        }
        RegistryError::NoSpace => {
            let message = "the registry's disk is full; pulls go on, pushes need the operator to free space";
            Failure::new(StatusCode::INSUFFICIENT_STORAGE, ErrorCode::Unavailable, message)
        }
        RegistryError::ReadOnly => {
            let message = "the registry's data directory is read-only; pulls go on, pushes need the operator to make it writable \
                           and to restart the gateway";
            Failure::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, message)
        }
        other => {
            let message = "the registry failed; its log says why under this request's id";
            let failure = Failure::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unknown, message);
            failure.private(format!("{other:?}"))
        }
    }
}

/// The v1 registry answered, or did not, in a way that it should not.
fn odd(error: &LegacyError) -> Failure {
    let (status, what) = match error {
        LegacyError::Late(_) => (StatusCode::GATEWAY_TIMEOUT, "was silent for too long"),
        _ => (StatusCode::BAD_GATEWAY, "does not answer as it should"),
    };
    let message = format!("the v1 registry {what}; try again later, or ask the operator to look at the gateway's log");
    Failure::new(status, ErrorCode::Unavailable, message).in_form(Form::V1).private(error.to_string())
}

impl From<LegacyError> for Failure {
    /// Where the registry is and what is wrong with it is for the operator, who finds it in the log.
    fn from(error: LegacyError) -> Self {
        let upstream = match &error {
            LegacyError::Host | LegacyError::Send(SendError::Caller { .. }) => {
                let failure = Self::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, error.to_string());
                return failure.closing().in_form(Form::V1);
            }
            LegacyError::Refused(_) | LegacyError::Unauthorized | LegacyError::Answer(_) | LegacyError::Late(_) => {
                return odd(&error);
            }
            LegacyError::Send(error) => error,
        };
        let (status, what) = match upstream {
            SendError::Silent { .. } => (StatusCode::GATEWAY_TIMEOUT, "was silent for too long"),
            SendError::Broken { .. } => (StatusCode::BAD_GATEWAY, "broke off before it answered"),
            SendError::Busy { .. } => (StatusCode::SERVICE_UNAVAILABLE, "is busy"),
            SendError::Refused { .. } => (StatusCode::SERVICE_UNAVAILABLE, "did not take the request"),
            _ => (StatusCode::SERVICE_UNAVAILABLE, "cannot be reached"),
        };
        let message = format!(
            "the v1 registry {what}; try again later, or ask the operator to look at the gateway's log and at upstreams/{}.toml",
            upstream.upstream().unwrap_or("*"),
        );
        Self::new(status, ErrorCode::Unavailable, message).in_form(Form::V1).private(error.to_string())
    }
}
