//! Signed manifests of docker's schema 1: their digest is that of what was signed, not of the bytes that travel
//! (distribution, "Image Manifest Version 2, Schema 1", "Signed Manifests"; RFC 7515).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::{Digest, Verified};

#[derive(Deserialize)]
struct Signed {
    #[serde(rename = "schemaVersion")]
    version: u64,
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    protected: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Protected {
    format_length: usize,
    format_tail: String,
}

/// Whether the bytes are a signed manifest of schema 1 with this digest. The signature itself is not checked: the digest says
/// what was asked for.
pub fn is_schema1(bytes: &[u8], digest: &Digest) -> bool {
    schema1_payload(bytes).is_some_and(|payload| Verified::check(&payload, digest).is_ok())
}

fn schema1_payload(bytes: &[u8]) -> Option<Vec<u8>> {
    let signed: Signed = serde_json::from_slice(bytes).ok().filter(|signed: &Signed| signed.version == 1)?;
    let protected = URL_SAFE_NO_PAD.decode(&signed.signatures.first()?.protected).ok()?;
    let protected: Protected = serde_json::from_slice(&protected).ok()?;
    let mut payload = bytes.get(..protected.format_length)?.to_vec();
    payload.extend(URL_SAFE_NO_PAD.decode(protected.format_tail).ok()?);
    Some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As docker's libtrust signs: the last bracket is cut off, and the signatures stand before it.
    fn sign(payload: &str) -> String {
        let length = payload.len() - 2;
        let tail = URL_SAFE_NO_PAD.encode(&payload[length..]);
        let protected = URL_SAFE_NO_PAD.encode(format!(r#"{{"formatLength":{length},"formatTail":"{tail}"}}"#));
        format!(r#"{},"signatures":[{{"signature":"x","protected":"{protected}"}}]{}"#, &payload[..length], "\n}")
    }

    #[test]
    fn what_was_signed_comes_back() {
        let payload = "{\n   \"schemaVersion\": 1,\n   \"name\": \"library/app\"\n}";
        assert_eq!(schema1_payload(sign(payload).as_bytes()).as_deref(), Some(payload.as_bytes()));
    }

    #[test]
    fn its_digest_is_that_of_what_was_signed() {
        let payload = "{\n   \"schemaVersion\": 1,\n   \"name\": \"library/app\"\n}";
        let signed = sign(payload);
        assert!(is_schema1(signed.as_bytes(), &Digest::sha256(payload.as_bytes())));
        assert!(!is_schema1(signed.as_bytes(), &Digest::sha256(signed.as_bytes())));
        assert!(!is_schema1(payload.as_bytes(), &Digest::sha256(payload.as_bytes())));
    }

    #[test]
    fn other_manifests_are_not_signed() {
        for text in ["{}", r#"{"schemaVersion":2,"signatures":[]}"#, r#"{"schemaVersion":1,"signatures":[]}"#, "x"] {
            assert_eq!(schema1_payload(text.as_bytes()), None, "{text}");
        }
        let far = sign("{\"schemaVersion\": 1\n}").replace("eyJmb3JtYXRMZW5ndGgiOj", "eyJmb3JtYXRMZW5ndGgiOjk5");
        assert_eq!(schema1_payload(far.as_bytes()), None);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes: Vec<u8>, length: u16) {
            let _ = schema1_payload(&bytes);
            let protected = URL_SAFE_NO_PAD.encode(format!(r#"{{"formatLength":{length},"formatTail":"fQ"}}"#));
            let _ = schema1_payload(format!(r#"{{"schemaVersion":1,"signatures":[{{"protected":"{protected}"}}]}}"#).as_bytes());
        }
    }
}
