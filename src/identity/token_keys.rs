//! All keys of tokens: the one that signs, those that did while a token of theirs may be out, and the one that will.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::clock::unix_seconds;
use super::htpasswd::PasswordHash;
use super::password::random_bytes;
use super::process_key::{Fingerprint, fingerprint};
use super::token::LIFETIME_MAX;
use super::token_authority::TokenAuthority;
use super::{TokenKey, TokenKeyError};

/// How long others may go by the public keys that they fetched. A new key is shown as long before it signs.
pub const KEY_SET_LIFETIME: Duration = Duration::from_secs(300);

/// How many keys there are at most. The configuration is held to what needs no more.
pub const TOKEN_KEYS_MAX: usize = 100;

/// How long a key may go on signing after its end: until every thread has seen the next one.
const END_LEEWAY: u64 = 60;

/// The only algorithm, as it is kept with each key.
const ALGORITHM: &str = "ES256";

/// The keys of tokens, the authority that vouches for them, and a secret that ties refresh tokens to passwords.
#[derive(Clone)]
pub struct TokenKeys {
    /// At least one, in the order in which they sign.
    keys: Vec<Dated>,
    authority: Arc<TokenAuthority>,
    secret: Arc<Zeroizing<[u8; 32]>>,
}

/// A key and its time. It signs from `begins` on, until the next one begins.
#[derive(Clone)]
struct Dated {
    key: TokenKey,
    /// In seconds since 1970.
    begins: u64,
    /// The longest that a token of this key may live, in seconds.
    longest: u64,
}

/// How keys come and go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rotation {
    /// How long a key signs; zero means for ever.
    pub(super) key_lifetime: Duration,
    /// The longest life of what it signs.
    pub(super) token_lifetime: Duration,
}

/// A key under whose name a token came.
pub(super) struct Found<'a> {
    pub(super) key: &'a TokenKey,
    /// When it stopped signing, and how long its last tokens may live.
    ended: Option<(u64, u64)>,
}

/// As they are kept, all bytes in base64.
#[derive(Serialize, Deserialize)]
struct Kept {
    secret: String,
    authority_certificate: String,
    authority_key: String,
    keys: Vec<KeptKey>,
}

#[derive(Serialize, Deserialize)]
struct KeptKey {
    algorithm: String,
    begins: u64,
    longest: u64,
    pkcs8: String,
}

impl TokenKeys {
    /// New ones; the first key signs at once.
    pub fn generate(now: SystemTime) -> Result<Self, TokenKeyError> {
        let key = TokenKey::generate()?;
        let secret = random_bytes().map_err(|_| TokenKeyError::Generate)?;
        Ok(Self {
            keys: vec![Dated { key, begins: unix_seconds(now), longest: LIFETIME_MAX.as_secs() }],
            authority: Arc::new(TokenAuthority::generate(OffsetDateTime::from(now))?),
            secret: Arc::new(Zeroizing::new(secret)),
        })
    }

    /// Those that were kept.
    pub fn from_kept(kept: &[u8]) -> Result<Self, TokenKeyError> {
        let kept: Kept = serde_json::from_slice(kept).map_err(|_| TokenKeyError::Kept)?;
        let bytes = |text: &String| STANDARD.decode(text).map(Zeroizing::new).map_err(|_| TokenKeyError::Kept);
        let keys = kept.keys.iter().map(|key| {
            if key.algorithm != ALGORITHM {
                return Err(TokenKeyError::Kept);
            }
            let KeptKey { begins, longest, .. } = *key;
            Ok(Dated { key: TokenKey::from_pkcs8(&bytes(&key.pkcs8)?)?, begins, longest })
        });
        let keys: Vec<Dated> = keys.collect::<Result<_, _>>()?;
        if keys.is_empty() || !keys.is_sorted_by_key(|key| key.begins) {
            return Err(TokenKeyError::Kept);
        }
        let certificate = bytes(&kept.authority_certificate)?.to_vec();
        let authority = TokenAuthority::from_kept(certificate, &bytes(&kept.authority_key)?)?;
        let secret = <[u8; 32]>::try_from(bytes(&kept.secret)?.as_slice()).map_err(|_| TokenKeyError::Kept)?;
        let (authority, secret) = (Arc::new(authority), Arc::new(Zeroizing::new(secret)));
        Ok(Self { keys, authority, secret })
    }

    /// As [`TokenKeys::from_kept`] reads them. They are secret: keep them where only this program reads.
    pub fn to_kept(&self) -> Vec<u8> {
        let (certificate, key) = self.authority.to_kept();
        let kept_key = |dated: &Dated| KeptKey {
            algorithm: ALGORITHM.into(),
            begins: dated.begins,
            longest: dated.longest,
            pkcs8: STANDARD.encode(dated.key.to_pkcs8()),
        };
        let kept = Kept {
            secret: STANDARD.encode(&self.secret[..]),
            authority_certificate: STANDARD.encode(certificate),
            authority_key: STANDARD.encode(key),
            keys: self.keys.iter().map(kept_key).collect(),
        };
        serde_json::to_vec(&kept).unwrap_or_default()
    }

    /// The ids of all keys, in the order in which they sign.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|dated| dated.key.id())
    }

    /// What there should be in place of these; nothing, where they are as they should be.
    pub(super) fn due(&self, rotation: Rotation, now: u64) -> Result<Option<Self>, TokenKeyError> {
        let longest = rotation.token_lifetime.max(LIFETIME_MAX).as_secs();
        let signing = self.signing_index(now);
        let is_needed = |index: usize| index >= signing || self.last_token_ends(index).is_none_or(|end| now < end);
        let mut keys: Vec<Dated> =
            (0..self.keys.len()).filter(|index| is_needed(*index)).map(|index| self.keys[index].clone()).collect();
        let mut changed = keys.len() < self.keys.len();
        // Those that are still to sign: a token of theirs may live as long as the settings say.
        for dated in keys.iter_mut().filter(|dated| dated.begins >= self.keys[signing].begins) {
            changed |= dated.longest < longest;
            dated.longest = dated.longest.max(longest);
        }
        let lifetime = rotation.key_lifetime.as_secs();
        let notice = KEY_SET_LIFETIME.as_secs().min(lifetime / 10);
        let ends = keys.last().map_or(0, |newest| newest.begins).saturating_add(lifetime);
        if lifetime > 0 && ends <= now.saturating_add(notice) {
            if keys.len() >= TOKEN_KEYS_MAX {
                return Err(TokenKeyError::TooMany);
            }
            keys.push(Dated { key: TokenKey::generate()?, begins: now.saturating_add(notice), longest });
            changed = true;
        }
        Ok(changed.then(|| Self { keys, ..self.clone() }))
    }

    /// The one that signs.
    pub(super) fn signing(&self, now: u64) -> &TokenKey {
        &self.keys[self.signing_index(now)].key
    }

    /// The last that has begun; the first, where the clock shows a time before all of them.
    fn signing_index(&self, now: u64) -> usize {
        self.keys.iter().rposition(|dated| dated.begins <= now).unwrap_or(0)
    }

    fn last_token_ends(&self, index: usize) -> Option<u64> {
        let end = self.keys.get(index + 1)?.begins;
        Some(end.saturating_add(self.keys[index].longest).saturating_add(END_LEEWAY))
    }

    /// The one of this name.
    pub(super) fn find(&self, id: &str) -> Option<Found<'_>> {
        let index = self.keys.iter().position(|dated| dated.key.id() == id)?;
        let ended = self.keys.get(index + 1).map(|next| (next.begins, self.keys[index].longest));
        Some(Found { key: &self.keys[index].key, ended })
    }

    /// A certificate for `key`, for the header of a token that expires then.
    pub(super) fn vouch(&self, key: &TokenKey, now: u64, expires: u64) -> Option<String> {
        self.authority.vouch(key, now, expires)
    }

    /// The certificate of the authority that vouches for all keys, in PEM.
    pub(super) fn authority_pem(&self) -> String {
        self.authority.pem()
    }

    /// The public keys, as a JWK set (RFC 7517).
    pub(super) fn key_set(&self) -> Value {
        json!({ "keys": self.keys.iter().map(|dated| dated.key.jwk()).collect::<Vec<_>>() })
    }

    /// What stands for `texts` and can be compared, but tells nothing of them.
    pub(super) fn fingerprint(&self, texts: &[&[u8]]) -> Fingerprint {
        fingerprint(&self.secret, texts)
    }

    /// What stands in a token of some kind for its user's line in the file of users: a token ends with the line that it
    /// was made for, so that whoever is removed and made again, even with the same password, is somebody else to it.
    pub(super) fn line(&self, kind: &[u8], user: &str, hash: &PasswordHash) -> String {
        URL_SAFE_NO_PAD.encode(self.fingerprint(&[kind, user.as_bytes(), hash.as_str().as_bytes()]))
    }
}

impl Found<'_> {
    /// Whether a token of this kind that expires then can have been signed while the key did sign: who stole a key that has
    /// ended must get nothing with it.
    pub(super) fn may_have_signed(&self, expires: u64, lifetime_max: Option<Duration>) -> bool {
        self.ended.is_none_or(|(end, longest)| {
            let longest = lifetime_max.map_or(longest, |lifetime| lifetime.as_secs());
            expires <= end.saturating_add(longest).saturating_add(END_LEEWAY)
        })
    }
}

impl fmt::Debug for TokenKeys {
    /// The ids alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

#[cfg(test)]
mod tests;
