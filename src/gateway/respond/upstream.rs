//! What registries elsewhere refused or failed, in HTTP. Never 429: containerd would ask again at once, and dockerd go
//! around us.

use std::time::Duration;

use http::StatusCode;

use crate::oci::ErrorCode;
use crate::registry::{RemoteError, SendError};

use super::Failure;

/// When to come back to an upstream that cannot be asked now, where it does not say so itself.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Where an upstream is and what is wrong with it is for the operator, who finds it in the log.
pub(super) fn failure(error: RemoteError) -> Failure {
    let private = error.to_string();
    let failure = match error {
        RemoteError::Missing => {
            Failure::new(StatusCode::NOT_FOUND, ErrorCode::NameUnknown, "the upstream does not have this")
        }
        RemoteError::Refused { .. } => Failure::new(StatusCode::FORBIDDEN, ErrorCode::Denied, private.clone()),
        RemoteError::Rejected { upstream, status, code, .. } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
            let code = ErrorCode::parse(&code).unwrap_or(ErrorCode::Unsupported);
            // The upstream's own words to the caller. Whose credentials it does not take, the operator must know.
            let is_ours = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            let failure = Failure::new(no_429(status), code, private.clone());
            let advice = format!(
                "{private}; if it is about credentials, mend username and password_file in upstreams/{upstream}.toml"
            );
            return if is_ours { failure.private(advice) } else { failure };
        }
        RemoteError::NoReferrers { .. } => {
            return Failure::new(StatusCode::NOT_FOUND, ErrorCode::Unsupported, private);
        }
        RemoteError::Send(error) => return sent(&error),
        RemoteError::Answer { upstream, .. }
        | RemoteError::Unsupported { upstream, .. }
        | RemoteError::Mismatch { upstream, .. } => bad_gateway(&upstream, "sent what cannot be used"),
        RemoteError::Broken { upstream, .. } => {
            let failure = Failure::new(
                StatusCode::SERVICE_UNAVAILABLE,
                ErrorCode::Unavailable,
                try_later(&upstream, "broke off"),
            );
            Failure { retry_after: Some(RETRY_AFTER), ..failure }
        }
        RemoteError::Internal(_) => {
            let message = "the registry failed; its log says why under this request's id";
            Failure::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unknown, message)
        }
    };
    failure.private(private)
}

fn sent(error: &SendError) -> Failure {
    if matches!(error, SendError::Caller { .. }) {
        // Nothing good comes after a body that broke.
        return Failure::new(StatusCode::BAD_REQUEST, ErrorCode::BlobUploadInvalid, error.to_string()).closing();
    }
    let upstream = error.upstream().unwrap_or("*");
    if matches!(error, SendError::Failing { status: 508, .. }) {
        let message = format!(
            "the upstream registry {upstream} leads back to this gateway; ask the operator to mend its url in \
             upstreams/{upstream}.toml"
        );
        return Failure::new(StatusCode::LOOP_DETECTED, ErrorCode::Unsupported, message).private(error.to_string());
    }
    let (status, what) = match error {
        SendError::Silent { .. } | SendError::Deadline { .. } => {
            (StatusCode::GATEWAY_TIMEOUT, "did not answer in time")
        }
        // Not 502: containerd comes again after 500, 503 and 504 alone.
        SendError::Broken { .. } => (StatusCode::SERVICE_UNAVAILABLE, "broke off before it answered"),
        SendError::Refused { .. } => (StatusCode::SERVICE_UNAVAILABLE, "did not take the request"),
        SendError::Busy { .. } => (StatusCode::SERVICE_UNAVAILABLE, "is busy"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "cannot be asked now"),
    };
    let retry_after = (status == StatusCode::SERVICE_UNAVAILABLE).then(|| error.retry_after().unwrap_or(RETRY_AFTER));
    let failure = Failure::new(status, ErrorCode::Unavailable, try_later(upstream, what));
    Failure { retry_after, ..failure }.private(error.to_string())
}

fn bad_gateway(upstream: &str, what: &str) -> Failure {
    Failure::new(StatusCode::BAD_GATEWAY, ErrorCode::Unavailable, try_later(upstream, what))
}

fn try_later(upstream: &str, what: &str) -> String {
    format!(
        "the upstream registry {upstream} {what}; try again later, or ask the operator to look at the gateway's log and at \
         upstreams/{upstream}.toml"
    )
}

fn no_429(status: StatusCode) -> StatusCode {
    if status == StatusCode::TOO_MANY_REQUESTS { StatusCode::SERVICE_UNAVAILABLE } else { status }
}
