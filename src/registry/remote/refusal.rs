//! What an upstream says where it does not do what was asked: a policy, a quota, a manifest that it will not take. Its reason is
//! the caller's to know, in its own words.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use crate::upstream::{Body, SendError};

use super::{Reach, Remote, RemoteError};

/// How much of an upstream's error is read.
const ERROR_BYTES_MAX: usize = 64 * 1024;
/// How long an upstream's error may take to come whole, once it began, even if the request's time is over.
const ERROR_PATIENCE: Duration = Duration::from_secs(1);
/// How much of an upstream's message is handed on, in characters.
const MESSAGE_CHARACTERS_MAX: usize = 500;

#[derive(Deserialize)]
struct Errors {
    errors: Vec<Reason>,
}

/// One of the errors of an answer (distribution-spec 1.1, "Error Codes").
#[derive(Deserialize)]
struct Reason {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Remote {
    /// Something was not given.
    pub(super) async fn not_given(&self, reach: &Reach, answer: Response<Body>) -> RemoteError {
        let status = answer.status();
        match status {
            StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::UNAUTHORIZED => self.unexpected(reach, status),
            _ => match self.reason(reach, answer).await {
                Some(reason) => self.rejected_for(status, reason),
                None => self.unexpected(reach, status),
            },
        }
    }

    /// Something was not changed.
    pub(super) async fn rejected(&self, reach: &Reach, answer: Response<Body>) -> RemoteError {
        let status = answer.status();
        if status == StatusCode::UNAUTHORIZED {
            return self.unexpected(reach, status);
        }
        match self.reason(reach, answer).await {
            Some(reason) => self.rejected_for(status, reason),
            None if status.is_server_error() => {
                let (upstream, status) = (self.name().to_owned(), status.as_u16());
                SendError::Failing { peer: upstream.clone(), upstream, status, retry_after: None }.into()
            }
            None if status.is_client_error() && status != StatusCode::FORBIDDEN => {
                self.rejected_for(status, Reason { code: String::new(), message: format!("status {status}") })
            }
            None => self.unexpected(reach, status),
        }
    }

    fn rejected_for(&self, status: StatusCode, Reason { code, message }: Reason) -> RemoteError {
        let message = message.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARACTERS_MAX).collect();
        RemoteError::Rejected { upstream: self.name().to_owned(), status: status.as_u16(), code, message }
    }

    /// The first reason that an answer gives. Whoever showed credentials of their own is asked for others, whatever it is.
    async fn reason(&self, reach: &Reach, answer: Response<Body>) -> Option<Reason> {
        let status = answer.status();
        let is_error = status.is_client_error() || status.is_server_error();
        if !is_error || status == StatusCode::FORBIDDEN && reach.caller.is_some() {
            return None;
        }
        let bytes = words(reach, answer.into_body()).await?;
        let reason = serde_json::from_slice::<Errors>(&bytes).ok()?.errors.into_iter().next()?;
        (!reason.message.is_empty()).then_some(reason)
    }
}

/// The text of an error, if it is short and comes in time.
async fn words(reach: &Reach, mut body: Body) -> Option<Bytes> {
    // After a long upload the request's own deadline is long past.
    let deadline = reach.deadline.max(Instant::now() + ERROR_PATIENCE);
    let read = async {
        let mut text = BytesMut::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.ok()?.into_data() {
                text.extend_from_slice(&data);
            }
            if text.len() > ERROR_BYTES_MAX {
                return None;
            }
        }
        Some(text.freeze())
    };
    timeout_at(deadline, read).await.ok()?
}
