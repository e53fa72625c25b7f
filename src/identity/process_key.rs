//! A secret that lives as long as the process, to name secrets without keeping them.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::password::{NoRandomness, random_bytes};

/// The key of an HMAC-SHA256, random for each process.
pub(super) struct ProcessKey(Zeroizing<[u8; 32]>);

/// What stands for some texts in a table: nobody without the key can tell which, or make two sets of texts meet.
pub(super) type Fingerprint = [u8; 32];

impl ProcessKey {
    /// A new one.
    pub(super) fn random() -> Result<Self, NoRandomness> {
        random_bytes().map(Zeroizing::new).map(Self)
    }

    /// The fingerprint of `texts`.
    pub(super) fn fingerprint(&self, texts: &[&[u8]]) -> Fingerprint {
        fingerprint(&self.0, texts)
    }
}

/// The fingerprint of `texts` under `key`; each goes in with its length, so that "ab", "c" is not "a", "bc".
pub(super) fn fingerprint(key: &[u8; 32], texts: &[&[u8]]) -> Fingerprint {
    // A key of 32 bytes is shorter than the hash's block: it is taken as it is, and cannot be refused.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    for text in texts {
        mac.update(&(text.len() as u64).to_be_bytes());
        mac.update(text);
    }
    mac.finalize().into_bytes().into()
}

impl fmt::Debug for ProcessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProcessKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_text_ends_matters() {
        let key = ProcessKey::random().unwrap();
        assert_ne!(key.fingerprint(&[b"ab", b"c"]), key.fingerprint(&[b"a", b"bc"]));
        assert_ne!(key.fingerprint(&[b"ab"]), key.fingerprint(&[b"ab", b""]));
        assert_eq!(key.fingerprint(&[b"ab", b"c"]), key.fingerprint(&[b"ab", b"c"]));
    }

    #[test]
    fn another_process_has_another_key() {
        let (one, other) = (ProcessKey::random().unwrap(), ProcessKey::random().unwrap());
        assert_ne!(one.fingerprint(&[b"a"]), other.fingerprint(&[b"a"]));
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(format!("{:?}", ProcessKey::random().unwrap()), "ProcessKey(…)");
    }
}
