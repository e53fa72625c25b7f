//! Tokens in the shape that docker's token specification gives them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::access::{Action, Actions, Grant, Principal};

use super::htpasswd::PasswordHash;
use super::jwt::{self, Claims, Kind, Read, TOKEN_BYTES_MAX};
use super::{IdentifyError, NoRandomness, TokenKeys};

/// The longest a token can live, whatever the settings say: so long a revoked right may go on.
pub(super) const LIFETIME_MAX: Duration = Duration::from_secs(300);

/// What the keyed hash of a line is made for.
const LINE: &[u8] = b"access token";

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

/// A token that is taken.
pub(super) struct Accepted {
    read: Arc<Read<Own>>,
    /// What can be done with it at the most.
    pub(super) ceiling: Actions,
}

/// What a token is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wish {
    /// What the rules leave of the scopes. One for ourselves has none of it, for there the rules are asked when it is used.
    pub grants: Vec<Grant>,
    /// Whether it is for the list of repositories, too.
    pub catalog: bool,
    /// Whether deleting was asked for: else nothing can be deleted with it, whoever it is handed to.
    pub delete: bool,
}

/// The tokens that were read before.
pub(super) type Memory = jwt::Memory<Own>;

/// What it says beside what all tokens say.
#[derive(Serialize, Deserialize)]
pub(super) struct Own {
    /// What it is for, where that is another registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    access: Option<Vec<Access>>,
    /// What can be done with it at the most, where it is for us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ceiling: Option<Vec<String>>,
    /// The keyed hash of the user's line in the file of users, where the token is for us: it ends with the line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password: Option<String>,
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
    /// The hash of the user's password; nothing, where nobody is known.
    pub(super) hash: Option<&'a PasswordHash>,
    /// Who makes it: ourselves.
    pub(super) issuer: &'a str,
    /// For whom it is: ourselves or another registry.
    pub(super) service: &'a str,
    pub(super) wish: &'a Wish,
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
    let access = Access::of(order.wish, is_own);
    let scope = access.iter().map(Access::scope).collect::<Vec<_>>().join(" ");
    let kind = Kind { issuer, audience: service, name: TYPE };
    let user = principal.user_name().unwrap_or_default();
    // Another service could not check it.
    let password = order.hash.filter(|_| is_own).map(|hash| keys.line(LINE, user, hash));
    let ceiling = is_own.then(|| ceiling(order.wish.delete));
    let access = (!is_own).then_some(access);
    let claims = Claims::new(&kind, user, expires_in, now, Own { access, ceiling, password })?;
    let key = keys.signing(now);
    let mut header = jwt::header(key, TYPE);
    if order.chain && !is_own {
        header.x5c = Some(vec![keys.vouch(key, now, claims.exp).ok_or(IssueError::Signature)?]);
    }
    let token = jsonwebtoken::encode(&header, &claims, &key.encoding).map_err(|_| IssueError::Signature)?;
    if token.len() > TOKEN_BYTES_MAX {
        return Err(IssueError::TooManyGrants);
    }
    Ok(IssuedToken { token, expires_in, issued_at: rfc3339(now).ok_or(IssueError::Signature)?, scope })
}

/// In the words of scopes. What is not asked for is left out where it destroys something: BuildKit hands its token to a daemon
/// that others use, too.
fn ceiling(delete: bool) -> Vec<String> {
    let words = ["pull", "push", "delete"];
    words.into_iter().filter(|word| delete || *word != "delete").map(str::to_owned).collect()
}

fn rfc3339(unix_seconds: u64) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp(i64::try_from(unix_seconds).ok()?).ok()?;
    time.format(&Rfc3339).ok()
}

/// Reads a token; one whose signature is right says it is too old rather than invalid.
pub(super) fn accept(
    token: &str,
    keys: &TokenKeys,
    memory: &Memory,
    service: &str,
    now: u64,
) -> Result<Accepted, IdentifyError> {
    let kind = Kind { issuer: service, audience: service, name: TYPE };
    let (read, found) = memory.read(token, &kind, keys)?;
    let claims = &read.claims;
    claims.check_times(now)?;
    if !found.may_have_signed(claims.exp, Some(LIFETIME_MAX)) {
        return Err(IdentifyError::InvalidToken);
    }
    // One of an older version, which was for certain repositories: its client gets a new one.
    let ceiling = actions(claims.own.ceiling.as_deref().ok_or(IdentifyError::InvalidToken)?);
    Ok(Accepted { read, ceiling })
}

impl Accepted {
    /// The user, not checked to be one still; none, where nobody is known.
    pub(super) fn user(&self) -> Option<&str> {
        Some(&*self.read.claims.sub).filter(|user| !user.is_empty())
    }

    /// Whether it was made for this line of the file of users.
    pub(super) fn is_of(&self, user: &str, hash: &PasswordHash, keys: &TokenKeys) -> bool {
        if self.read.line.get() == Some(hash) {
            return true;
        }
        let line = self.read.claims.own.password.as_deref().unwrap_or_default();
        let is_of = keys.line(LINE, user, hash).as_bytes().ct_eq(line.as_bytes()).into();
        if is_of {
            let _ = self.read.line.set(hash.clone());
        }
        is_of
    }
}

impl Access {
    fn of(wish: &Wish, is_own: bool) -> Vec<Self> {
        let grants = wish.grants.iter().map(|grant| Self::from_grant(grant, is_own));
        let grants = grants.filter(|access| !access.actions.is_empty());
        let list = Self { r#type: "registry".into(), name: "catalog".into(), actions: vec!["*".into()] };
        grants.chain(wish.catalog.then_some(list)).collect()
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
}

/// Words that are not known allow nothing.
fn actions(words: &[String]) -> Actions {
    words.iter().filter_map(|word| word.parse::<Action>().ok()).collect()
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
