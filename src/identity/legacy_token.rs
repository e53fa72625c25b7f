//! Tokens of the v1 protocol: the `signature` of one is a JWT, which says all that the other fields say.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::access::{Action, Actions, Grant};
use crate::docker::{TokenAccess, TokenFields};
use crate::oci::RepositoryName;

use super::htpasswd::PasswordHash;
use super::jwt::{self, Claims, Kind};
use super::token::IssueError;
use super::{IdentifyError, TokenKeys};

/// What the keyed hash of a line is made for.
const LINE: &[u8] = b"v1 token";

/// What the header of these tokens says that they are.
const TYPE: &str = "dockgate-v1+jwt";

/// Who is to send a v1 token back to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LegacyUse {
    /// A client.
    Caller,
    /// The v1 registry, when it asks its index about a request that we let through.
    Registry,
}

/// For whom these tokens are: the one who made them. No service can be called so, for a name has no quotation marks.
fn audience(issuer: &str) -> String {
    format!("v1 \"{issuer}\"")
}

/// The tokens that were read before.
pub(super) type Memory = jwt::Memory<Own>;

/// What it says beside what all tokens say.
#[derive(Serialize, Deserialize)]
pub(super) struct Own {
    repository: String,
    access: String,
    r#use: LegacyUse,
    /// The keyed hash of the user's line in the file of users: the token ends with the password.
    password: String,
}

/// What a token is to be.
pub(super) struct Order<'a> {
    pub(super) issuer: &'a str,
    /// The user and the hash of the password; nobody, where nobody is known.
    pub(super) user: Option<(&'a str, &'a PasswordHash)>,
    pub(super) repository: &'a RepositoryName,
    pub(super) access: TokenAccess,
    pub(super) for_whom: LegacyUse,
    pub(super) lifetime: Duration,
}

/// What a token says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    /// The user, not checked to be one still.
    pub(super) user: Option<String>,
    pub(super) grant: Grant,
    pub(super) for_whom: LegacyUse,
}

/// Makes a token.
pub(super) fn issue(order: &Order<'_>, keys: &TokenKeys, now: u64) -> Result<TokenFields, IssueError> {
    let own = Own {
        repository: order.repository.to_string(),
        access: order.access.as_str().into(),
        r#use: order.for_whom,
        password: order.user.map(|(user, hash)| keys.line(LINE, user, hash)).unwrap_or_default(),
    };
    let kind = Kind { issuer: order.issuer, audience: &audience(order.issuer), name: TYPE };
    let user = order.user.map(|(user, _)| user).unwrap_or_default();
    let claims = Claims::new(&kind, user, order.lifetime.as_secs(), now, own)?;
    let key = keys.signing(now);
    let signature = jsonwebtoken::encode(&jwt::header(key, TYPE), &claims, &key.encoding);
    let signature = signature.map_err(|_| IssueError::Signature)?;
    Ok(TokenFields { signature, repository: claims.own.repository, access: order.access })
}

/// Reads what follows `Token` in `Authorization`; `hash_of` knows the hash of a user's password. One whose signature is right
/// says it is too old rather than invalid.
pub(super) fn accept<'a>(
    text: &str,
    issuer: &str,
    keys: &TokenKeys,
    memory: &Memory,
    hash_of: impl Fn(&str) -> Option<&'a PasswordHash>,
    now: u64,
) -> Result<Accepted, IdentifyError> {
    let fields: TokenFields = text.parse().map_err(|_| IdentifyError::InvalidToken)?;
    let kind = Kind { issuer, audience: &audience(issuer), name: TYPE };
    let (read, found) = memory.read(&fields.signature, &kind, keys)?;
    let claims = &read.claims;
    if claims.own.repository != fields.repository || claims.own.access != fields.access.as_str() {
        return Err(IdentifyError::InvalidToken);
    }
    claims.check_times(now)?;
    let user = Some(claims.sub.clone()).filter(|user| !user.is_empty());
    let expected = match &user {
        Some(user) => keys.line(LINE, user, hash_of(user).ok_or(IdentifyError::InvalidToken)?),
        None => String::new(),
    };
    let is_same_password = bool::from(expected.as_bytes().ct_eq(claims.own.password.as_bytes()));
    if !found.may_have_signed(claims.exp, None) || !is_same_password {
        return Err(IdentifyError::InvalidToken);
    }
    let repository = claims.own.repository.parse().map_err(|_| IdentifyError::InvalidToken)?;
    let grant = Grant { repository, actions: actions(fields.access) };
    Ok(Accepted { user, grant, for_whom: claims.own.r#use })
}

/// Who pushes asks what is there already, and whoever deletes is asked about by the registry.
fn actions(access: TokenAccess) -> Actions {
    let more = match access {
        TokenAccess::Read | TokenAccess::Head => Actions::NONE,
        TokenAccess::Write => Action::Push.into(),
        TokenAccess::Delete => Action::Delete.into(),
    };
    more | Action::Pull.into()
}

#[cfg(test)]
mod tests;
