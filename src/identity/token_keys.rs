//! The keys that sign tokens: the newest signs, the others still verify until what they signed has ended.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{TokenKey, TokenKeyError};

/// Keys, the newest first; never empty.
#[derive(Debug, Clone)]
pub struct TokenKeys {
    keys: Vec<Dated>,
}

#[derive(Debug, Clone)]
struct Dated {
    key: TokenKey,
    /// In seconds since 1970.
    made_at: u64,
}

/// As they are kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    made_at: u64,
    pkcs8: String,
}

/// A public key, as RFC 7517 writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PublicKey {
    kty: &'static str,
    crv: &'static str,
    #[serde(rename = "use")]
    purpose: &'static str,
    alg: &'static str,
    kid: String,
    x: String,
    y: String,
}

impl TokenKeys {
    /// One new key. `now` is in seconds since 1970.
    pub fn generate(now: u64) -> Result<Self, TokenKeyError> {
        Ok(Self::of(TokenKey::generate()?, now))
    }

    /// A key that there was before keys were turned.
    pub fn of(key: TokenKey, made_at: u64) -> Self {
        Self { keys: vec![Dated { key, made_at }] }
    }

    /// Keys that were kept: what [`TokenKeys::to_bytes`] made.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TokenKeyError> {
        let kept: Vec<Kept> = serde_json::from_slice(bytes).map_err(|_| TokenKeyError::Malformed)?;
        let key = |kept: &Kept| {
            let pkcs8 = STANDARD.decode(&kept.pkcs8).map_err(|_| TokenKeyError::Malformed)?;
            Ok(Dated { key: TokenKey::from_pkcs8(&pkcs8)?, made_at: kept.made_at })
        };
        let keys = kept.iter().map(key).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() { Err(TokenKeyError::Malformed) } else { Ok(Self { keys }) }
    }

    /// To be kept where only this program reads: they are secret.
    pub fn to_bytes(&self) -> Vec<u8> {
        let keep = |dated: &Dated| Kept { made_at: dated.made_at, pkcs8: STANDARD.encode(dated.key.to_pkcs8()) };
        serde_json::to_vec(&self.keys.iter().map(keep).collect::<Vec<_>>()).unwrap_or_default()
    }

    /// A new key before them where the newest is older than `key_lifetime` (0: it never is), and without those that nothing
    /// can be signed by any more: they were followed by another longer ago than `token_lifetime`, the longest that anything
    /// lives which they signed. `None`, if nothing changes.
    pub fn turned(
        &self,
        now: u64,
        key_lifetime: Duration,
        token_lifetime: Duration,
    ) -> Result<Option<Self>, TokenKeyError> {
        let mut keys = self.keys.clone();
        let is_old = keys.first().is_none_or(|newest| now.saturating_sub(newest.made_at) >= key_lifetime.as_secs());
        if is_old && !key_lifetime.is_zero() {
            keys.insert(0, Dated { key: TokenKey::generate()?, made_at: now });
        }
        let followed_at: Vec<u64> = keys.iter().map(|dated| dated.made_at).collect();
        let mut index = 0_usize;
        keys.retain(|_| {
            let follower = index.checked_sub(1).and_then(|before| followed_at.get(before));
            index += 1;
            follower.is_none_or(|followed| now.saturating_sub(*followed) <= token_lifetime.as_secs())
        });
        let same = keys.iter().map(|dated| dated.key.id()).eq(self.keys.iter().map(|dated| dated.key.id()));
        Ok((!same).then_some(Self { keys }))
    }

    /// The one that signs.
    pub(super) fn newest(&self) -> &TokenKey {
        &self.keys[0].key
    }

    /// The one of this name.
    pub(super) fn find(&self, id: Option<&str>) -> Option<&TokenKey> {
        self.keys.iter().map(|dated| &dated.key).find(|key| Some(key.id()) == id)
    }

    /// Their public parts.
    pub fn public(&self) -> Vec<PublicKey> {
        self.keys.iter().map(|dated| dated.key.public()).collect()
    }

    /// Each as it is kept (PKCS#8, RFC 5958).
    pub fn secrets(&self) -> impl Iterator<Item = Vec<u8>> {
        self.keys.iter().map(|dated| dated.key.to_pkcs8())
    }
}

impl PublicKey {
    /// Of a point on P-256, its coordinates in base64url.
    pub(super) const fn new(kid: String, x: String, y: String) -> Self {
        Self { kty: "EC", crv: "P-256", purpose: "sig", alg: "ES256", kid, x, y }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn kept_keys_are_the_same_keys() {
        let keys = TokenKeys::generate(5).unwrap();
        let keys = keys.turned(1_000, Duration::from_secs(10), DAY).unwrap().unwrap();
        let kept = TokenKeys::from_bytes(&keys.to_bytes()).unwrap();
        assert_eq!((kept.public(), kept.public().len()), (keys.public(), 2));
        for other in [&b"[]"[..], b"", b"[{}]", b"[{\"made_at\":1,\"pkcs8\":\"AA==\"}]"] {
            assert!(TokenKeys::from_bytes(other).is_err());
        }
    }

    #[test]
    fn a_key_verifies_until_what_it_signed_has_ended() {
        let first = TokenKeys::generate(0).unwrap();
        let id = first.newest().id().to_owned();
        assert!(first.turned(9 * 86_400, DAY * 10, DAY).unwrap().is_none(), "it is not old yet");
        let second = first.turned(10 * 86_400, DAY * 10, DAY).unwrap().unwrap();
        assert_ne!(second.newest().id(), id);
        assert!(second.find(Some(&id)).is_some());
        assert!(second.turned(11 * 86_400, DAY * 10, DAY).unwrap().is_none());
        let third = second.turned(11 * 86_400 + 1, DAY * 10, DAY).unwrap().unwrap();
        assert!(third.find(Some(&id)).is_none(), "nothing that it signed lives any more");
        assert_eq!(third.newest().id(), second.newest().id());
        assert!(first.turned(10_000 * 86_400, Duration::ZERO, DAY).unwrap().is_none(), "0 turns nothing");
        assert!(first.find(None).is_none() && first.find(Some("other")).is_none());
    }
}
