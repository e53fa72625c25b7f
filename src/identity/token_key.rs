//! The key that signs tokens.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data_encoding::BASE32_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::{DecodingKey, EncodingKey};
use sha2::{Digest as _, Sha256};

use super::token_keys::PublicKey;

/// A key pair for ES256: ECDSA on P-256 with SHA-256 (RFC 7518, section 3.4). Its `Debug` shows its id alone.
#[derive(Clone)]
pub struct TokenKey {
    pub(super) encoding: EncodingKey,
    pub(super) decoding: DecodingKey,
    pub(super) id: String,
    /// The public point, in base64url.
    x: String,
    y: String,
}

/// There is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKeyError {
    /// None could be made.
    Generate,
    /// The bytes are not a P-256 key pair in PKCS#8.
    Malformed,
}

impl TokenKey {
    /// A new one. Tokens outlive a restart only if it is kept; all gateways behind one name need the same.
    pub fn generate() -> Result<Self, TokenKeyError> {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| TokenKeyError::Generate)?;
        Self::from_pkcs8(pkcs8.as_ref())
    }

    /// One that was kept: a P-256 key pair in PKCS#8 (RFC 5958), in DER.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, TokenKeyError> {
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map_err(|_| TokenKeyError::Malformed)?;
        let point = pair.public_key().as_ref();
        let (x, y) = point.strip_prefix(&[4]).filter(|xy| xy.len() == 64).ok_or(TokenKeyError::Malformed)?.split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let decoding = DecodingKey::from_ec_der(point);
        Ok(Self { encoding: EncodingKey::from_ec_der(der), decoding, id: key_id(point), x, y })
    }

    /// As [`TokenKey::from_pkcs8`] reads it. It is secret: keep it where only this program reads.
    pub fn to_pkcs8(&self) -> Vec<u8> {
        self.encoding.as_bytes().to_vec()
    }

    /// Its name in tokens: what docker's libtrust calls a key id, by which docker's registry finds the certificate of the key.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its public part.
    pub(super) fn public(&self) -> PublicKey {
        PublicKey::new(self.id.clone(), self.x.clone(), self.y.clone())
    }

    /// What tells whether a user's password is still the one that it was: nothing of the hash can be found out from it.
    pub(super) fn fingerprint(&self, texts: &[&[u8]]) -> String {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.encoding.as_bytes()) else { return String::new() };
        for text in texts {
            mac.update(&(text.len() as u64).to_be_bytes());
            mac.update(text);
        }
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    }
}

/// The first 240 bits of the SHA-256 of the public key (SubjectPublicKeyInfo, RFC 5480), in base32, in groups of four.
fn key_id(point: &[u8]) -> String {
    const PREFIX: [u8; 26] = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
        0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];
    let hash = Sha256::digest([&PREFIX, point].concat());
    let text = BASE32_NOPAD.encode(&hash[..30]);
    let groups: Vec<&str> = (0..text.len()).step_by(4).filter_map(|at| text.get(at..at + 4)).collect();
    groups.join(":")
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Display for TokenKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Generate => "no key for tokens could be made; check that the system has random bytes",
            Self::Malformed => {
                "the key for tokens is not a P-256 key pair in PKCS#8; remove it and a new one is made, tokens that are out end"
            }
        })
    }
}

impl std::error::Error for TokenKeyError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_key_is_the_same_key() {
        let key = TokenKey::generate().unwrap();
        let kept = TokenKey::from_pkcs8(&key.to_pkcs8()).unwrap();
        assert_eq!(kept.id(), key.id());
        assert_eq!(kept.to_pkcs8(), key.to_pkcs8());
        assert_ne!(TokenKey::generate().unwrap().id(), key.id());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let mut der = TokenKey::generate().unwrap().to_pkcs8();
        der.truncate(der.len() - 1);
        assert_eq!(TokenKey::from_pkcs8(&der).unwrap_err(), TokenKeyError::Malformed);
        assert_eq!(TokenKey::from_pkcs8(b"").unwrap_err(), TokenKeyError::Malformed);
    }

    #[test]
    fn the_id_is_the_one_that_dockers_registry_computes() {
        // The point of RFC 7515, appendix A.3; the id computed with openssl and coreutils.
        let x = URL_SAFE_NO_PAD.decode("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU").unwrap();
        let y = URL_SAFE_NO_PAD.decode("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0").unwrap();
        let point = [&[4], x.as_slice(), y.as_slice()].concat();
        assert_eq!(key_id(&point), "FPI3:WDCE:VCL4:GCT2:UCMR:ZXRY:3ADC:7ZCB:3ZIN:UD2G:QJJU:J5QC");
    }

    #[test]
    fn a_key_is_not_shown() {
        let key = TokenKey::generate().unwrap();
        let shown = format!("{key:?}");
        assert!(shown.contains(key.id()));
        let secret: Vec<String> = key.to_pkcs8().iter().map(ToString::to_string).collect();
        assert!(!shown.contains(&secret[..8].join(", ")));
    }
}
