//! Refresh tokens: what a client keeps in place of the password, to get other tokens with. What they say is for us alone.

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::htpasswd::PasswordHash;
use super::jwt::{self, Claims, Kind, Read};
use super::token::IssueError;
use super::{IdentifyError, TokenKeys};

/// What the keyed hash of a line is made for.
const LINE: &[u8] = b"refresh token";

/// What the header of these tokens says that they are.
const TYPE: &str = "dockgate-refresh+jwt";

/// For whom a refresh token is: the one who made it. No service can be called so, for a name has no quotation marks.
fn audience(issuer: &str) -> String {
    format!("refresh \"{issuer}\"")
}

/// What it says beside what all tokens say.
#[derive(Serialize, Deserialize)]
struct Own {
    /// For which service the tokens are that can be had with it.
    service: String,
    /// The keyed hash of the user's line in the file of users: it ends with the password.
    password: String,
}

/// What a refresh token is bound to.
#[derive(Clone, Copy)]
pub(super) struct Binding<'a> {
    pub(super) issuer: &'a str,
    pub(super) service: &'a str,
}

/// Makes a refresh token for a user whose password has this hash.
pub(super) fn issue(
    binding: Binding<'_>,
    (user, hash): (&str, &PasswordHash),
    keys: &TokenKeys,
    lifetime: u64,
    now: u64,
) -> Result<String, IssueError> {
    let own = Own { service: binding.service.into(), password: keys.line(LINE, user, hash) };
    let kind = Kind { issuer: binding.issuer, audience: &audience(binding.issuer), name: TYPE };
    let claims = Claims::new(&kind, user, lifetime, now, own)?;
    let key = keys.signing(now);
    jsonwebtoken::encode(&jwt::header(key, TYPE), &claims, &key.encoding).map_err(|_| IssueError::Signature)
}

/// The user to whom a refresh token was given, if it is still good; `hash_of` knows the hash of a user's password.
pub(super) fn accept<'a>(
    refresh_token: &str,
    binding: Binding<'_>,
    keys: &TokenKeys,
    hash_of: impl Fn(&str) -> Option<&'a PasswordHash>,
    now: u64,
) -> Result<String, IdentifyError> {
    let kind = Kind { issuer: binding.issuer, audience: &audience(binding.issuer), name: TYPE };
    let (Read { claims, .. }, found) = jwt::read::<Own>(refresh_token, &kind, keys)?;
    claims.check_times(now)?;
    let hash = hash_of(&claims.sub).ok_or(IdentifyError::InvalidToken)?;
    let is_same_password = keys.line(LINE, &claims.sub, hash).as_bytes().ct_eq(claims.own.password.as_bytes());
    match claims.own.service == binding.service
        && found.may_have_signed(claims.exp, None)
        && bool::from(is_same_password)
    {
        true => Ok(claims.sub),
        false => Err(IdentifyError::InvalidToken),
    }
}

#[cfg(test)]
mod tests;
