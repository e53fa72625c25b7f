//! Tokens: JWTs in the shape that docker's token specification gives them, signed with ES256 and no other algorithm.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Header, Validation};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::access::{Action, Actions, Grant, Principal};

use super::htpasswd::PasswordHash;
use super::password::random_bytes;
use super::{IdentifyError, NoRandomness, TokenKey, TokenKeys};

/// The longest token, in bytes; longer ones are neither made nor looked at. Half of what a request's headers may have.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// How far the clocks of two gateways that share a key may be apart.
const NOT_BEFORE_LEEWAY_SECONDS: u64 = 5;

/// The longest a token can live, whatever the settings say: so long a revoked right may go on.
const LIFETIME_MAX: Duration = Duration::from_secs(300);

/// The type of tokens that open something.
const ACCESS_TYPE: &str = "JWT";
/// The type of tokens that get those; neither is ever taken for the other.
const REFRESH_TYPE: &str = "refresh+jwt";

/// A token, and what its holder is told about it.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedToken {
    /// The token. It is a secret until it expires.
    pub token: String,
    /// How long it lives, in seconds.
    pub expires_in: u64,
    /// When it was made, in the form of RFC 3339.
    pub issued_at: String,
}

/// No token was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssueError {
    /// It was asked for another service than this one.
    UnknownService,
    /// It was asked for with a token: a token cannot prolong itself.
    WithToken,
    /// It would be longer than clients can send.
    TooManyGrants,
    /// The system has no random bytes.
    NoRandomness,
    /// The signature failed, or the clock shows a year that cannot be written.
    Signature,
}

/// What a token says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    /// The user, not checked to be one still.
    pub(super) user: Option<String>,
    pub(super) grants: Vec<Grant>,
    /// Whether it is for the list of repositories.
    pub(super) catalog: bool,
}

/// The claims, under the names of RFC 7519 and of docker's token specification; times in seconds since 1970.
#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    exp: u64,
    nbf: u64,
    iat: u64,
    jti: String,
    access: Vec<Access>,
}

#[derive(Serialize, Deserialize)]
struct Access {
    r#type: String,
    name: String,
    actions: Vec<String>,
}

/// Makes a token of `issuer` for `service`.
pub(super) fn issue(
    principal: &Principal,
    (issuer, service): (&str, &str),
    grants: &[Grant],
    key: &TokenKey,
    lifetime: Duration,
    now: u64,
) -> Result<IssuedToken, IssueError> {
    if principal.has_token() {
        return Err(IssueError::WithToken);
    }
    let expires_in = lifetime.min(LIFETIME_MAX).as_secs();
    let claims = Claims {
        iss: issuer.into(),
        sub: principal.user_name().unwrap_or_default().into(),
        aud: service.into(),
        exp: now.saturating_add(expires_in),
        nbf: now,
        iat: now,
        jti: URL_SAFE_NO_PAD.encode(random_bytes::<16>()?),
        access: Access::of(grants, principal.token_lists()),
    };
    let header = Header { kid: Some(key.id.clone()), ..Header::new(Algorithm::ES256) };
    let token = jsonwebtoken::encode(&header, &claims, &key.encoding).map_err(|_| IssueError::Signature)?;
    if token.len() > TOKEN_BYTES_MAX {
        return Err(IssueError::TooManyGrants);
    }
    Ok(IssuedToken { token, expires_in, issued_at: rfc3339(now).ok_or(IssueError::Signature)? })
}

/// What a refresh token says.
#[derive(Serialize, Deserialize)]
struct RefreshClaims {
    iss: String,
    sub: String,
    aud: String,
    exp: u64,
    nbf: u64,
    jti: String,
    /// Of the user's password: another one ends the token.
    fingerprint: String,
}

/// For whom a refresh token is: nobody but the token endpoint.
fn refresh_audience(service: &str) -> String {
    format!("refresh:{service}")
}

fn password_fingerprint(key: &TokenKey, user: &str, hash: &PasswordHash) -> String {
    key.fingerprint(&[b"refresh", user.as_bytes(), hash.as_str().as_bytes()])
}

/// Makes a token that gets others for `service`, for as long as the user keeps the password.
pub(super) fn issue_refresh(
    (user, hash): (&str, &PasswordHash),
    (issuer, service): (&str, &str),
    key: &TokenKey,
    lifetime: Duration,
    now: u64,
) -> Result<String, IssueError> {
    let claims = RefreshClaims {
        iss: issuer.into(),
        sub: user.into(),
        aud: refresh_audience(service),
        exp: now.saturating_add(lifetime.as_secs()),
        nbf: now,
        jti: URL_SAFE_NO_PAD.encode(random_bytes::<16>()?),
        fingerprint: password_fingerprint(key, user, hash),
    };
    let header = Header { kid: Some(key.id.clone()), typ: Some(REFRESH_TYPE.into()), ..Header::new(Algorithm::ES256) };
    jsonwebtoken::encode(&header, &claims, &key.encoding).map_err(|_| IssueError::Signature)
}

/// Whose refresh token this is. `hash` is that of the user's password now; none, if there is no such user.
pub(super) fn accept_refresh<'a>(
    token: &str,
    keys: &TokenKeys,
    (issuer, service): (&str, &str),
    hash: impl FnOnce(&str) -> Option<&'a PasswordHash>,
    now: u64,
) -> Result<String, IdentifyError> {
    let claims: RefreshClaims = verified(token, keys, REFRESH_TYPE, (issuer, &refresh_audience(service)))?;
    let kid = jsonwebtoken::decode_header(token).ok().and_then(|header| header.kid);
    let key = keys.find(kid.as_deref()).ok_or(IdentifyError::InvalidToken)?;
    let hash = hash(&claims.sub).ok_or(IdentifyError::InvalidToken)?;
    let is_same = password_fingerprint(key, &claims.sub, hash).as_bytes().ct_eq(claims.fingerprint.as_bytes());
    if !bool::from(is_same) || claims.nbf > now.saturating_add(NOT_BEFORE_LEEWAY_SECONDS) {
        return Err(IdentifyError::InvalidToken);
    }
    if claims.exp <= now { Err(IdentifyError::ExpiredToken) } else { Ok(claims.sub) }
}

fn rfc3339(unix_seconds: u64) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp(i64::try_from(unix_seconds).ok()?).ok()?;
    time.format(&Rfc3339).ok()
}

/// Reads a token; one whose signature is right says it is too old rather than invalid.
///
/// The key is found by its name, and the algorithm is that of the key, whatever the token says of itself (RFC 8725, sections
/// 3.1 and 3.2).
pub(super) fn accept(token: &str, keys: &TokenKeys, service: &str, now: u64) -> Result<Accepted, IdentifyError> {
    let claims: Claims = verified(token, keys, ACCESS_TYPE, (service, service))?;
    if claims.nbf > now.saturating_add(NOT_BEFORE_LEEWAY_SECONDS) {
        return Err(IdentifyError::InvalidToken);
    }
    if claims.exp <= now {
        return Err(IdentifyError::ExpiredToken);
    }
    let grants = claims.access.iter().filter_map(Access::to_grant).collect();
    let catalog = claims.access.iter().any(Access::is_catalog);
    Ok(Accepted { user: Some(claims.sub).filter(|user| !user.is_empty()), grants, catalog })
}

/// The claims of a token of ours, of this type and for this audience; its times are still to be looked at.
fn verified<C: DeserializeOwned>(
    token: &str,
    keys: &TokenKeys,
    kind: &str,
    (issuer, audience): (&str, &str),
) -> Result<C, IdentifyError> {
    let invalid = IdentifyError::InvalidToken;
    if token.len() > TOKEN_BYTES_MAX {
        return Err(invalid);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| invalid)?;
    let key = keys.find(header.kid.as_deref()).ok_or(invalid)?;
    if header.typ.as_deref() != Some(kind) {
        return Err(invalid);
    }
    let data = jsonwebtoken::decode(token, &key.decoding, &validation(issuer, audience));
    data.map(|data| data.claims).map_err(|_| invalid)
}

fn validation(issuer: &str, audience: &str) -> Validation {
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
    validation.set_issuer(&[issuer]);
    validation.set_audience(&[audience]);
    // `accept` compares the times itself, with the clock of this room.
    validation.validate_exp = false;
    validation
}

impl Access {
    fn of(grants: &[Grant], catalog: bool) -> Vec<Self> {
        let grants = grants.iter().filter(|grant| !grant.actions.is_empty()).map(Self::from_grant);
        let list = Self { r#type: "registry".into(), name: "catalog".into(), actions: vec!["*".into()] };
        grants.chain(catalog.then_some(list)).collect()
    }

    fn is_catalog(&self) -> bool {
        self.r#type == "registry" && self.name == "catalog" && self.actions.iter().any(|action| action == "*")
    }

    fn from_grant(grant: &Grant) -> Self {
        // The specification has no word for making tags without moving them; what may be moved the rules say anyway.
        let words = [(Action::Pull, "pull"), (Action::Create, "push"), (Action::Delete, "delete")];
        let allowed = words.into_iter().filter(|(action, _)| grant.actions.allow(*action));
        let actions = allowed.map(|(_, word)| word.to_owned()).collect();
        Self { r#type: "repository".into(), name: grant.repository.to_string(), actions }
    }

    /// Nothing, where it is about something else than a repository; words that are not known grant nothing.
    fn to_grant(&self) -> Option<Grant> {
        let actions = self.actions.iter().fold(Actions::NONE, |set, word| {
            set | match word.as_str() {
                "pull" => Action::Pull.into(),
                "push" => Action::Push.into(),
                "delete" => Action::Delete.into(),
                "*" => Actions::ALL,
                _ => Actions::NONE,
            }
        });
        let repository = self.name.parse().ok().filter(|_| self.r#type == "repository")?;
        Some(Grant { repository, actions })
    }
}

impl From<NoRandomness> for IssueError {
    fn from(_: NoRandomness) -> Self {
        Self::NoRandomness
    }
}

impl fmt::Debug for IssuedToken {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("IssuedToken");
        shown.field("expires_in", &self.expires_in).field("issued_at", &self.issued_at).finish_non_exhaustive()
    }
}

impl fmt::Display for IssueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownService => "the token is for another service; ask with the service of the challenge",
            Self::WithToken => "a token cannot be had with a token; send the user and password",
            Self::TooManyGrants => "the token would be too long; ask for fewer scopes",
            Self::NoRandomness => return NoRandomness.fmt(f),
            Self::Signature => "the token could not be signed; check the key and the clock",
        })
    }
}

impl std::error::Error for IssueError {}

#[cfg(test)]
mod tests;
