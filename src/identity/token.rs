//! Tokens: JWTs in the shape that docker's token specification gives them, signed with ES256 and no other algorithm.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Header, Validation};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::access::{Action, Actions, Grant, Principal};

use super::password::random_bytes;
use super::token_keys::Found;
use super::{IdentifyError, NoRandomness, TokenKey, TokenKeys};

/// The longest token, in bytes; longer ones are neither made nor looked at. Half of what a request's headers may have.
pub(super) const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// How far the clocks of two gateways that share a key may be apart.
pub(super) const NOT_BEFORE_LEEWAY_SECONDS: u64 = 5;

/// The longest a token can live, whatever the settings say: so long a revoked right may go on.
pub(super) const LIFETIME_MAX: Duration = Duration::from_secs(300);

/// What the header of these tokens says that they are. Other registries expect it.
const TYPE: &str = "JWT";

/// A token, and what its holder is told about it.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedToken {
    /// The token. It is a secret until it expires.
    pub token: String,
    /// How long it lives, in seconds.
    pub expires_in: u64,
    /// When it was made, in the form of RFC 3339.
    pub issued_at: String,
    /// What it is for, as scopes are written.
    pub scope: String,
}

/// No token was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssueError {
    /// It was asked for a service that no tokens are made for.
    UnknownService,
    /// It prolongs a login, and nobody has logged in.
    NoUser,
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

/// What a token is to be.
pub(super) struct Order<'a> {
    pub(super) principal: &'a Principal,
    /// Who makes it: ourselves.
    pub(super) issuer: &'a str,
    /// For whom it is: ourselves or another registry.
    pub(super) service: &'a str,
    pub(super) grants: &'a [Grant],
    pub(super) lifetime: Duration,
    /// Whether one for another registry carries the certificate of its key.
    pub(super) chain: bool,
}

/// Makes a token.
pub(super) fn issue(order: &Order<'_>, keys: &TokenKeys, now: u64) -> Result<IssuedToken, IssueError> {
    let Order { principal, issuer, service, .. } = *order;
    if principal.has_token() {
        return Err(IssueError::WithToken);
    }
    let expires_in = order.lifetime.min(LIFETIME_MAX).as_secs();
    let is_own = service == issuer;
    let access = Access::of(order.grants, principal.token_lists(), is_own);
    let scope = access.iter().map(Access::scope).collect::<Vec<_>>().join(" ");
    let claims = Claims {
        iss: issuer.into(),
        sub: principal.user_name().unwrap_or_default().into(),
        aud: service.into(),
        exp: now.saturating_add(expires_in),
        nbf: now,
        iat: now,
        jti: token_id()?,
        access,
    };
    let key = keys.signing(now);
    let mut header = header(key, TYPE);
    if order.chain && !is_own {
        header.x5c = Some(vec![keys.vouch(key, now, claims.exp).ok_or(IssueError::Signature)?]);
    }
    let token = jsonwebtoken::encode(&header, &claims, &key.encoding).map_err(|_| IssueError::Signature)?;
    if token.len() > TOKEN_BYTES_MAX {
        return Err(IssueError::TooManyGrants);
    }
    Ok(IssuedToken { token, expires_in, issued_at: rfc3339(now).ok_or(IssueError::Signature)?, scope })
}

/// The header of a token of this type.
pub(super) fn header(key: &TokenKey, kind: &str) -> Header {
    let header = Header::new(TokenKey::algorithm());
    Header { kid: Some(key.id.clone()), typ: Some(kind.into()), ..header }
}

/// A name for a token that no other has.
pub(super) fn token_id() -> Result<String, NoRandomness> {
    Ok(URL_SAFE_NO_PAD.encode(random_bytes::<16>()?))
}

fn rfc3339(unix_seconds: u64) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp(i64::try_from(unix_seconds).ok()?).ok()?;
    time.format(&Rfc3339).ok()
}

/// Reads a token; one whose signature is right says it is too old rather than invalid.
pub(super) fn accept(token: &str, keys: &TokenKeys, service: &str, now: u64) -> Result<Accepted, IdentifyError> {
    let (claims, found): (Claims, _) = read(token, TYPE, keys, service, service)?;
    check_times(claims.nbf, claims.exp, now)?;
    if !found.may_have_signed(claims.exp, Some(LIFETIME_MAX)) {
        return Err(IdentifyError::InvalidToken);
    }
    let grants = claims.access.iter().filter_map(Access::to_grant).collect();
    let catalog = claims.access.iter().any(Access::is_catalog);
    Ok(Accepted { user: Some(claims.sub).filter(|user| !user.is_empty()), grants, catalog })
}

/// The claims of a token of this type, once its signature is found right, and whose signature it is. The token names a key
/// of ours; what algorithm that key has is for us to know, and no key that a token brings along is looked at.
pub(super) fn read<'a, C: DeserializeOwned>(
    token: &str,
    kind: &str,
    keys: &'a TokenKeys,
    issuer: &str,
    audience: &str,
) -> Result<(C, Found<'a>), IdentifyError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(IdentifyError::InvalidToken);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| IdentifyError::InvalidToken)?;
    let found = header.kid.as_deref().and_then(|id| keys.find(id)).ok_or(IdentifyError::InvalidToken)?;
    // A header with `crit` is one of which we would have to understand more than we do (RFC 7515, section 4.1.11).
    if header.typ.as_deref() != Some(kind) || header.crit.is_some() {
        return Err(IdentifyError::InvalidToken);
    }
    let data = jsonwebtoken::decode::<C>(token, &found.key.decoding, &validation(issuer, audience))
        .map_err(|_| IdentifyError::InvalidToken)?;
    Ok((data.claims, found))
}

/// Whether it is time for a token.
pub(super) const fn check_times(not_before: u64, expires: u64, now: u64) -> Result<(), IdentifyError> {
    if not_before > now.saturating_add(NOT_BEFORE_LEEWAY_SECONDS) {
        return Err(IdentifyError::InvalidToken);
    }
    if expires <= now { Err(IdentifyError::ExpiredToken) } else { Ok(()) }
}

fn validation(issuer: &str, audience: &str) -> Validation {
    let mut validation = Validation::new(TokenKey::algorithm());
    validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
    validation.set_issuer(&[issuer]);
    validation.set_audience(&[audience]);
    // The times are compared with the clock of this room.
    validation.validate_exp = false;
    validation
}

impl Access {
    fn of(grants: &[Grant], catalog: bool, is_own: bool) -> Vec<Self> {
        let grants = grants.iter().map(|grant| Self::from_grant(grant, is_own));
        let grants = grants.filter(|access| !access.actions.is_empty());
        let list = Self { r#type: "registry".into(), name: "catalog".into(), actions: vec!["*".into()] };
        grants.chain(catalog.then_some(list)).collect()
    }

    fn is_catalog(&self) -> bool {
        self.r#type == "registry" && self.name == "catalog" && self.actions.iter().any(|action| action == "*")
    }

    /// As scopes are written.
    fn scope(&self) -> String {
        format!("{}:{}:{}", self.r#type, self.name, self.actions.join(","))
    }

    fn from_grant(grant: &Grant, is_own: bool) -> Self {
        // The specification has no word for making tags without moving them. Here the rules say what may be moved; another
        // registry has the token alone, and would let them be moved.
        let push = if is_own { Action::Create } else { Action::Push };
        let words = [(Action::Pull, "pull"), (push, "push"), (Action::Delete, "delete")];
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
            Self::UnknownService => {
                "no tokens are made for this service; ask with the service of the challenge, or name it in identity.token.services"
            }
            Self::NoUser => "a refresh token is for a user; log in with user name and password",
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
