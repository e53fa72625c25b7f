//! Signed manifests of docker's schema 1: their digest is that of what was signed, not of the bytes that travel
//! (distribution, "Image Manifest Version 2, Schema 1", "Signed Manifests"; RFC 7515).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;

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

/// What stands between what was signed and its end.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signatures {
    #[serde(rename = "signatures")]
    _any: IgnoredAny,
}

#[derive(Deserialize)]
struct Unsigned {
    #[serde(rename = "schemaVersion")]
    version: u64,
}

/// Whether the bytes are a signed manifest of schema 1 with this digest. The signature itself is not checked, but that the bytes
/// are what was signed, the signatures, and nothing else is: what was signed is said by whoever sends them.
pub fn is_schema1(bytes: &[u8], digest: &Digest) -> bool {
    schema1_payload(bytes).is_some_and(|payload| Verified::check(&payload, digest).is_ok())
}

fn schema1_payload(bytes: &[u8]) -> Option<Vec<u8>> {
    let signed: Signed = serde_json::from_slice(bytes).ok().filter(|signed: &Signed| signed.version == 1)?;
    let protected = URL_SAFE_NO_PAD.decode(&signed.signatures.first()?.protected).ok()?;
    let protected: Protected = serde_json::from_slice(&protected).ok()?;
    let (begin, rest) = bytes.split_at_checked(protected.format_length)?;
    let tail = URL_SAFE_NO_PAD.decode(protected.format_tail).ok()?;
    let payload = [begin, &tail].concat();
    let unsigned: Unsigned = serde_json::from_slice(&payload).ok()?;
    (unsigned.version == 1 && tail.trim_ascii() == b"}" && is_only_signatures(rest)).then_some(payload)
}

/// Whether it is `,"signatures": …}`.
fn is_only_signatures(rest: &[u8]) -> bool {
    let object = rest.strip_prefix(b",").map(|members| [b"{", members].concat());
    object.is_some_and(|object| serde_json::from_slice::<Signatures>(&object).is_ok())
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

    /// Whoever sends the bytes says what of them was signed.
    #[test]
    fn nothing_can_be_added_to_what_was_signed() {
        let payload = "{\n   \"schemaVersion\": 1,\n   \"name\": \"app\"\n}";
        let claim = |length: usize, tail: &str| {
            let tail = URL_SAFE_NO_PAD.encode(tail);
            URL_SAFE_NO_PAD.encode(format!(r#"{{"formatLength":{length},"formatTail":"{tail}"}}"#))
        };
        let begin = &payload[..payload.len() - 2];
        let signatures = |claim: &str| format!(r#""signatures":[{{"protected":"{claim}"}}]"#);
        let good = format!("{begin},{}\n}}", signatures(&claim(begin.len(), "\n}")));
        assert_eq!(schema1_payload(good.as_bytes()).as_deref(), Some(payload.as_bytes()));
        for bad in [
            format!(r#"{{"schemaVersion":1,{},"layers":[]}}"#, signatures(&claim(0, payload))),
            format!(r#"{{"schemaVersion":1,{}}}"#, signatures(&claim(1, &payload[1..]))),
            format!("{begin},{},\"layers\":[]\n}}", signatures(&claim(begin.len(), "\n}"))),
            format!("{begin},\"layers\":[],{}\n}}", signatures(&claim(begin.len(), "\n}"))),
            format!("{begin} ,{}\n}}", signatures(&claim(begin.len(), "\n}"))),
        ] {
            assert_eq!(schema1_payload(bad.as_bytes()), None, "{bad}");
        }
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
