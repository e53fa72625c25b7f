//! An answer that says no: a public text for the caller, a private one for the log.

use std::time::Duration;

use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use crate::gateway::body::Body;
use crate::gateway::observe::RequestId;
use crate::oci::ErrorCode;

/// A request that was not done.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::gateway) struct Failure {
    pub(in crate::gateway) status: StatusCode,
    pub(in crate::gateway) code: ErrorCode,
    /// For the caller: what happened and what to do.
    pub(in crate::gateway) message: String,
    /// For programs: facts, or null.
    pub(in crate::gateway) detail: Value,
    /// For the log.
    pub(in crate::gateway) private: Option<String>,
    /// How the caller can prove who they are.
    pub(in crate::gateway) challenge: Option<Challenge>,
    pub(in crate::gateway) allow: Option<&'static str>,
    pub(in crate::gateway) retry_after: Option<Duration>,
    /// Whether the connection cannot be used again.
    pub(in crate::gateway) close: bool,
    /// In which form the caller's tool prints errors.
    pub(in crate::gateway) form: Form,
    /// Whether the caller is to be told that this is a v2 registry. Old clients must not be.
    pub(in crate::gateway) versioned: bool,
}

/// The form of an error's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum Form {
    /// `{"errors": [{"code", "message", "detail"}]}`
    Oci,
    /// `{"error": "…"}`, which v1 clients print.
    V1,
}

/// What WWW-Authenticate says (RFC 9110, section 11.6.1; docker's token protocol).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) enum Challenge {
    /// `Basic realm="…"`
    Basic {
        /// The name of what is protected.
        realm: String,
    },
    /// `Bearer realm="…",service="…",scope="…"`
    Bearer {
        /// The URL of the token endpoint.
        realm: String,
        /// For whom the token is.
        service: String,
        /// What it must allow.
        scope: Option<String>,
        /// `insufficient_scope`, `invalid_token`
        error: Option<&'static str>,
    },
}

impl Failure {
    pub(in crate::gateway) fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            detail: Value::Null,
            private: None,
            challenge: None,
            allow: None,
            retry_after: None,
            close: false,
            form: Form::Oci,
            versioned: true,
        }
    }

    pub(in crate::gateway) fn detail(self, detail: Value) -> Self {
        Self { detail, ..self }
    }

    pub(in crate::gateway) fn private(self, text: impl Into<String>) -> Self {
        Self { private: Some(text.into()), ..self }
    }

    pub(in crate::gateway) fn closing(self) -> Self {
        Self { close: true, ..self }
    }

    pub(in crate::gateway) fn in_form(self, form: Form) -> Self {
        Self { form, ..self }
    }

    /// The answer. `request_id` finds the log line.
    pub(in crate::gateway) fn into_response(self, request_id: RequestId) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body(request_id)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(challenge) = self.challenge.as_ref().and_then(|challenge| challenge.to_header().try_into().ok()) {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(after) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if self.versioned && self.form == Form::Oci {
            super::name_version(headers);
        }
        response
    }

    fn body(&self, request_id: RequestId) -> String {
        match self.form {
            Form::V1 => json!({ "error": self.message }).to_string(),
            Form::Oci => {
                // Tools print the message, and it is the message that people send to who can find the line in the log.
                let message = format!("{} (request {request_id})", self.message);
                let error = json!({ "code": self.code.as_str(), "message": message, "detail": self.detail });
                json!({ "errors": [error] }).to_string()
            }
        }
    }
}

impl Challenge {
    fn to_header(&self) -> String {
        match self {
            Self::Basic { realm } => format!("Basic realm={}", quoted(realm)),
            Self::Bearer { realm, service, scope, error } => {
                let mut text = format!("Bearer realm={},service={}", quoted(realm), quoted(service));
                if let Some(scope) = scope {
                    text += &format!(",scope={}", quoted(scope));
                }
                if let Some(error) = error {
                    text += &format!(",error={}", quoted(error));
                }
                text
            }
        }
    }
}

/// A quoted-string (RFC 9110, section 5.6.4).
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
