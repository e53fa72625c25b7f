//! A key that signs tokens.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use rcgen::{KeyPair as PublicPart, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// A key pair for ES256: ECDSA on P-256 with SHA-256 (RFC 7518, section 3.4). Its `Debug` shows its id alone.
#[derive(Clone)]
pub struct TokenKey {
    pub(super) encoding: EncodingKey,
    pub(super) decoding: DecodingKey,
    pub(super) id: String,
    /// The public key, as certificates are made for it.
    public: Arc<PublicPart>,
}

/// There is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKeyError {
    /// None could be made.
    Generate,
    /// The bytes are not a P-256 key pair in PKCS#8.
    Malformed,
    /// What was kept are not keys.
    Kept,
    /// There are as many as are kept.
    TooMany,
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
        let id = thumbprint(point).ok_or(TokenKeyError::Malformed)?;
        let public = PublicPart::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ECDSA_P256_SHA256)
            .map_err(|_| TokenKeyError::Malformed)?;
        let (encoding, decoding) = (EncodingKey::from_ec_der(der), DecodingKey::from_ec_der(point));
        Ok(Self { encoding, decoding, id, public: Arc::new(public) })
    }

    /// As [`TokenKey::from_pkcs8`] reads it. It is secret: keep it where only this program reads.
    pub fn to_pkcs8(&self) -> Vec<u8> {
        self.encoding.as_bytes().to_vec()
    }

    /// Its name in tokens: the JWK thumbprint (RFC 7638) of the public key.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The one algorithm that it signs and verifies with, whatever a token says.
    pub(super) const fn algorithm() -> Algorithm {
        Algorithm::ES256
    }

    /// The public key, as certificates take it.
    pub(super) fn public(&self) -> &PublicPart {
        &self.public
    }

    /// The public key, as a JWK (RFC 7517).
    pub(super) fn jwk(&self) -> Value {
        let (x, y) = coordinates(self.public.public_key_raw()).unwrap_or_default();
        json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y, "use": "sig", "alg": "ES256", "kid": self.id })
    }
}

/// Of an uncompressed point: 0x04, then 32 bytes of x and 32 of y.
fn coordinates(point: &[u8]) -> Option<(String, String)> {
    let (x, y) = point.strip_prefix(&[4]).filter(|xy| xy.len() == 64)?.split_at(32);
    Some((URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y)))
}

fn thumbprint(point: &[u8]) -> Option<String> {
    let (x, y) = coordinates(point)?;
    let jwk = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    Some(URL_SAFE_NO_PAD.encode(Sha256::digest(jwk)))
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
            Self::Kept => {
                "what is kept as the keys for tokens cannot be read; remove the row token_keys of the table settings: new keys are \
                 made, tokens that are out end, and registries that trust ours need the new certificate"
            }
            Self::TooMany => {
                "as many keys for tokens are kept as there can be; raise identity.token.key_lifetime, and the next one is made when \
                 the tokens of the oldest have ended"
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
    fn the_id_is_the_thumbprint_of_the_public_key() {
        // The point of RFC 7515, appendix A.3; the digest computed with another tool over the text RFC 7638 prescribes.
        let x = URL_SAFE_NO_PAD.decode("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU").unwrap();
        let y = URL_SAFE_NO_PAD.decode("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0").unwrap();
        let point = [&[4], x.as_slice(), y.as_slice()].concat();
        assert_eq!(thumbprint(&point).unwrap(), "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U");
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
