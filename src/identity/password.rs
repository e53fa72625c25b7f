//! Passwords: kept out of every text, and wiped when they are no longer needed.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The longest password, in bytes: bcrypt reads no further, so two longer ones could count as the same.
pub const PASSWORD_BYTES_MAX: usize = 72;

/// What [`Password::random`] draws from: letters and digits without those that are taken for one another.
const ALPHABET: &[u8; 55] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghjkmnpqrstuvwxyz23456789";

/// How many characters [`Password::random`] draws: 138 bits.
const RANDOM_CHARACTERS: usize = 24;

/// A password in clear. Its `Debug` shows nothing of it, it has no `Display`, and it is wiped from memory on drop.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

/// The system has no random bytes to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRandomness;

impl Password {
    /// Takes over a text.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// A new one of 24 letters and digits, none of which is easily taken for another.
    pub fn random() -> Result<Self, NoRandomness> {
        let mut text = Zeroizing::new(String::with_capacity(RANDOM_CHARACTERS));
        while text.len() < RANDOM_CHARACTERS {
            let [byte] = random_bytes::<1>()?;
            // Bytes past the alphabet's end are drawn again, so that every character is equally likely.
            if let Some(character) = ALPHABET.get(usize::from(byte & 0x3f)) {
                text.push(char::from(*character));
            }
        }
        Ok(Self(text))
    }

    /// The text itself: to be hashed, or written where its owner reads it; never into a log.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether bcrypt would not read all of it.
    pub fn is_too_long(&self) -> bool {
        self.0.len() > PASSWORD_BYTES_MAX
    }
}

/// Bytes from the system's random source.
pub(super) fn random_bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

impl PartialEq for Password {
    /// In a time that does not depend on where they differ.
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Password {}

impl fmt::Display for NoRandomness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the system gave no random bytes; check that getrandom(2) or /dev/urandom works here")
    }
}

impl std::error::Error for NoRandomness {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        let shown = format!("{:?} {:#?}", Password::new("canary".into()), Some(Password::new("canary".into())));
        assert!(!shown.contains("canary"), "{shown}");
    }

    #[test]
    fn random_passwords_are_long_unambiguous_and_different() {
        let password = Password::random().unwrap();
        assert_eq!(password.expose().len(), RANDOM_CHARACTERS);
        assert!(password.expose().bytes().all(|b| b.is_ascii_alphanumeric() && !b"0O1lIio".contains(&b)));
        assert_ne!(password, Password::random().unwrap());
    }

    #[test]
    fn the_alphabet_has_no_character_twice() {
        let different: std::collections::BTreeSet<_> = ALPHABET.iter().collect();
        assert_eq!(different.len(), ALPHABET.len());
    }

    #[test]
    fn seventy_two_bytes_are_the_most() {
        assert!(!Password::new("x".repeat(72)).is_too_long());
        assert!(Password::new("é".repeat(36) + "x").is_too_long());
    }
}
