//! `/v1/users/`: the login of docker up to 1.10, and what it was made for.

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::json;

use crate::docker::BodyError;
use crate::gateway::body::Body;
use crate::gateway::identify::forbidden;
use crate::gateway::intake::IntakeError;
use crate::gateway::respond::Failure;
use crate::identity::{AccountError, Credentials, Password, UserFileError};
use crate::oci::ErrorCode;

use super::index::json_answer;
use super::{Call, bad_body};

/// How long the JSON of an account may be, in bytes.
const ACCOUNT_BYTES_MAX: u64 = 16 * 1024;

/// Docker up to 1.10 goes on from this answer, and from no other with status 400, to ask whether the password is right.
const USER_EXISTS: &[u8] = b"\"Username or email already exists\"";

/// What docker says of an account; the address is not kept.
#[derive(Deserialize)]
struct Account {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

impl Call<'_> {
    /// `GET` says whether a password is right, `POST` makes a user where that is allowed.
    pub(super) async fn users(mut self) -> Result<Response<Body>, Failure> {
        if *self.method() == Method::POST {
            return self.register().await;
        }
        self.needs_password()?;
        Ok(json_answer(StatusCode::OK, &json!("OK")))
    }

    fn needs_password(&self) -> Result<(), Failure> {
        let caller = &self.caller.principal;
        match caller.is_anonymous() || caller.has_token() {
            true => Err(self.walk.log_in_again("wrong user name or password; log in again")),
            false => Ok(()),
        }
    }

    /// Where nobody can make a user, everybody is told that theirs exists: docker then asks whether the password is right.
    async fn register(&mut self) -> Result<Response<Body>, Failure> {
        let identity = &self.walk.rooms.identity;
        if !identity.registers() {
            return Ok(user_exists());
        }
        let Account { username, password } = self.account().await?;
        if identity.has_user(&username) {
            return Ok(user_exists());
        }
        let is_spoken_of = self.walk.settings.rules.name_user(&username);
        let client = self.caller.screened.client;
        match identity.register(&username, Password::new(password), client, is_spoken_of).await {
            Ok(()) => {
                tracing::info!(user = %username.escape_debug(), %client, "a user was registered");
                Ok(json_answer(StatusCode::CREATED, &json!("User Created")))
            }
            // Many may ask at once, with one account for all of them.
            Err(AccountError::Exists) => Ok(user_exists()),
            Err(error) => Err(refused(error)),
        }
    }

    /// `PUT /v1/users/U/`: another password, by whoever shows the one that there is.
    pub(super) async fn user(mut self, name: &str) -> Result<Response<Body>, Failure> {
        self.needs_password()?;
        if self.caller.principal.user_name() != Some(name) {
            return Err(forbidden("change the account of another user"));
        }
        let Account { password, .. } = self.account().await?;
        // Who changes the address alone sends no password.
        if !password.is_empty() {
            let Credentials::Basic { password: old, .. } = self.walk.credentials()? else {
                return Err(self.walk.log_in_again("a new password takes the old one; log in again"));
            };
            let client = self.caller.screened.client;
            let changed = self.walk.rooms.identity.change_password(name, old, Password::new(password), client).await;
            changed.map_err(refused)?;
            tracing::info!(user = %name.escape_debug(), %client, "a password was changed");
        }
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        Ok(answer)
    }

    async fn account(&mut self) -> Result<Account, Failure> {
        let body = self.intake.whole(ACCOUNT_BYTES_MAX).await.map_err(bad_account)?;
        let form = BodyError::Form("the body must be {\"username\": …, \"password\": …, \"email\": …}");
        serde_json::from_slice(&body).map_err(|_| bad_body(form))
    }
}

fn bad_account(error: IntakeError) -> Failure {
    let failure = Failure::from(error);
    match error {
        IntakeError::TooLarge { limit } => {
            Failure { message: format!("the account is larger than {limit} bytes"), ..failure }
        }
        _ => failure,
    }
}

fn user_exists() -> Response<Body> {
    let mut answer = Response::new(Body::from(USER_EXISTS));
    *answer.status_mut() = StatusCode::BAD_REQUEST;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn refused(error: AccountError) -> Failure {
    let failure = |status, code| Failure::new(status, code, error.to_string());
    match &error {
        AccountError::NotAllowed => failure(StatusCode::FORBIDDEN, ErrorCode::Denied),
        AccountError::Exists | AccountError::Taken | AccountError::Name(_) => {
            failure(StatusCode::BAD_REQUEST, ErrorCode::Denied)
        }
        AccountError::File(
            UserFileError::Name(_)
            | UserFileError::EmptyPassword
            | UserFileError::PasswordTooLong
            | UserFileError::PasswordCharacter,
        ) => failure(StatusCode::BAD_REQUEST, ErrorCode::Denied),
        AccountError::File(UserFileError::NoSuchUser) => failure(StatusCode::NOT_FOUND, ErrorCode::Denied),
        AccountError::File(_) | AccountError::NotInForce(_) => {
            let message = "the file of users cannot be changed; ask the operator to look at the gateway's log";
            let failure = Failure::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, message);
            failure.private(error.to_string())
        }
        AccountError::TooMany { retry_after } | AccountError::Busy { retry_after } => {
            let failure = failure(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable);
            Failure { retry_after: Some(*retry_after), ..failure }
        }
    }
}
