//! What the three kinds of tokens have in common: they are JWTs (RFC 7519), signed by us for us with ES256 and no other
//! algorithm. The type and the audience keep one kind from being taken for another.

use std::fmt;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Header, Validation};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::htpasswd::PasswordHash;
use super::password::random_bytes;
use super::token_keys::Found;
use super::{IdentifyError, NoRandomness, TokenKey, TokenKeys};

/// The longest token, in bytes; longer ones are neither made nor looked at. Half of what a request's headers may have.
pub(super) const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// How many bytes the tokens of one kind take together that are remembered: some 20,000 of ours.
const MEMORY_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// What one of them takes beside itself and its claims, which are about as long: nodes of the cache, and what the allocator adds.
const MEMORY_OVERHEAD_BYTES: usize = 700;

/// How far the clocks of two gateways that share a key may be apart.
pub(super) const NOT_BEFORE_LEEWAY_SECONDS: u64 = 5;

/// The claims, under the names of RFC 7519; times in seconds since 1970.
#[derive(Serialize, Deserialize)]
pub(super) struct Claims<C> {
    iss: String,
    /// The user; empty, where nobody is known.
    pub(super) sub: String,
    aud: String,
    pub(super) exp: u64,
    nbf: u64,
    iat: u64,
    jti: String,
    /// What only this kind says.
    #[serde(flatten)]
    pub(super) own: C,
}

/// Of which kind a token is: who made it, for whom, and what its header calls it.
pub(super) struct Kind<'a> {
    pub(super) issuer: &'a str,
    pub(super) audience: &'a str,
    pub(super) name: &'static str,
}

impl<C> Claims<C> {
    /// For a user, from now on, for so many seconds.
    pub(super) fn new(kind: &Kind<'_>, user: &str, lifetime: u64, now: u64, own: C) -> Result<Self, NoRandomness> {
        Ok(Self {
            iss: kind.issuer.into(),
            sub: user.into(),
            aud: kind.audience.into(),
            exp: now.saturating_add(lifetime),
            nbf: now,
            iat: now,
            jti: URL_SAFE_NO_PAD.encode(random_bytes::<16>()?),
            own,
        })
    }

    /// Whether they were made by whom and for whom they should be.
    fn are_of(&self, kind: &Kind<'_>) -> bool {
        self.iss == kind.issuer && self.aud == kind.audience
    }

    /// Whether it is time for the token.
    pub(super) const fn check_times(&self, now: u64) -> Result<(), IdentifyError> {
        if self.nbf > now.saturating_add(NOT_BEFORE_LEEWAY_SECONDS) {
            return Err(IdentifyError::InvalidToken);
        }
        if self.exp <= now { Err(IdentifyError::ExpiredToken) } else { Ok(()) }
    }
}

/// The header of a token that this key signs.
pub(super) fn header(key: &TokenKey, name: &str) -> Header {
    let header = Header::new(TokenKey::algorithm());
    Header { kid: Some(key.id.clone()), typ: Some(name.into()), ..header }
}

/// A token that was read, with a signature that is right.
pub(super) struct Read<C> {
    /// What it says.
    pub(super) claims: Claims<C>,
    /// The name of the key that signed it.
    key: String,
    token: Zeroizing<Box<str>>,
    /// The line of the file of users that it was found to be made for.
    pub(super) line: OnceLock<PasswordHash>,
}

/// The end of a signature. Who knows it has the token, so that to compare the rest tells them nothing.
type End = [u8; 32];

/// The tokens of one kind that were read before: to find a signature right takes longer than all the rest of a request, and
/// to read the claims again as long as much of it.
pub(super) struct Memory<C>(Cache<End, Arc<Read<C>>>);

impl<C: DeserializeOwned + Send + Sync + 'static> Memory<C> {
    /// Of none.
    pub(super) fn new() -> Self {
        let weigher = |_: &End, read: &Arc<Read<C>>| {
            u32::try_from(2 * read.token.len() + MEMORY_OVERHEAD_BYTES).unwrap_or(u32::MAX)
        };
        // By default moka would refuse new tokens where old ones are shown more often.
        let cache = Cache::builder().max_capacity(MEMORY_BYTES_MAX).eviction_policy(EvictionPolicy::lru());
        Self(cache.weigher(weigher).build())
    }

    /// Like [`read`], and remembers it. A token names its key, and what follows these keys has no other under that name: what
    /// was right stays so as long as there is the key.
    pub(super) fn read<'a>(
        &self,
        token: &str,
        kind: &Kind<'_>,
        keys: &'a TokenKeys,
    ) -> Result<(Arc<Read<C>>, Found<'a>), IdentifyError> {
        let end = token.as_bytes().last_chunk().ok_or(IdentifyError::InvalidToken)?;
        if let Some(known) = self.0.get(end).filter(|known| **known.token == *token) {
            let found = keys.find(&known.key).filter(|_| known.claims.are_of(kind));
            return Ok((known, found.ok_or(IdentifyError::InvalidToken)?));
        }
        let (read, found) = read(token, kind, keys)?;
        let read = Arc::new(read);
        self.0.insert(*end, Arc::clone(&read));
        Ok((read, found))
    }
}

/// The claims of a token of this kind, once its signature is found right, and whose signature it is. The token names a key
/// of ours; what algorithm that key has is for us to know, and no key that a token brings along is looked at.
pub(super) fn read<'a, C: DeserializeOwned>(
    token: &str,
    kind: &Kind<'_>,
    keys: &'a TokenKeys,
) -> Result<(Read<C>, Found<'a>), IdentifyError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(IdentifyError::InvalidToken);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| IdentifyError::InvalidToken)?;
    let found = header.kid.as_deref().and_then(|id| keys.find(id)).ok_or(IdentifyError::InvalidToken)?;
    // A header with `crit` is one of which we would have to understand more than we do (RFC 7515, section 4.1.11).
    if header.typ.as_deref() != Some(kind.name) || header.crit.is_some() {
        return Err(IdentifyError::InvalidToken);
    }
    let mut signature_only = Validation::new(TokenKey::algorithm());
    signature_only.required_spec_claims.clear();
    signature_only.validate_exp = false;
    signature_only.validate_aud = false;
    let data = jsonwebtoken::decode::<Claims<C>>(token, &found.key.decoding, &signature_only);
    let claims = data.map_err(|_| IdentifyError::InvalidToken)?.claims;
    if !claims.are_of(kind) {
        return Err(IdentifyError::InvalidToken);
    }
    let (key, token) = (found.key.id.clone(), Zeroizing::new(token.into()));
    Ok((Read { claims, key, token, line: OnceLock::new() }, found))
}

impl<C> fmt::Debug for Memory<C> {
    /// How many there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Memory").field(&self.0.entry_count()).finish()
    }
}
