//! Digests: the names of content (OCI image-spec, descriptor.md#digests).

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256, Sha512};

/// The digits of the longest digest.
const HEX_LENGTH_MAX: usize = 128;

/// A hash algorithm that the image-spec registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-512, 64 bytes.
    Sha512,
}

/// The digits of a BLAKE3 digest, which the image-spec registers and nothing here computes.
const BLAKE3_HEX_LENGTH: usize = 64;

impl FromStr for Algorithm {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        match text {
            "sha256" => Ok(Self::Sha256),
            "sha512" => Ok(Self::Sha512),
            _ if is_algorithm(text) => Err(DigestError::UnsupportedAlgorithm),
            _ => Err(DigestError::Malformed),
        }
    }
}

impl Algorithm {
    /// The algorithm's name as it stands before the colon.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// The digest of `bytes`.
    pub fn digest(self, bytes: &[u8]) -> Digest {
        match self {
            Self::Sha256 => Digest::Sha256(Sha256::digest(bytes).into()),
            Self::Sha512 => Digest::Sha512(Sha512::digest(bytes).into()),
        }
    }
}

/// The name of some content: `sha256:` and 64, or `sha512:` and 128, lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Digest {
    /// A SHA-256 digest.
    Sha256([u8; 32]),
    /// A SHA-512 digest.
    Sha512([u8; 64]),
}

/// Why a text is not a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DigestError {
    /// Not `algorithm:hex` in the grammar of the image-spec.
    Malformed,
    /// Well formed, but the algorithm is neither sha256 nor sha512.
    UnsupportedAlgorithm,
    /// The hexadecimal part has a wrong length or a character outside `0-9a-f`.
    BadHex,
}

impl fmt::Display for DigestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "a digest is written algorithm:hex, such as sha256:e3b0c442…",
            Self::UnsupportedAlgorithm => {
                "only sha256 and sha512 digests are supported here; push it under one of these"
            }
            Self::BadHex => "sha256 and blake3 take 64, sha512 takes 128 lower-case hexadecimal digits",
        })
    }
}

impl std::error::Error for DigestError {}

impl Digest {
    /// The SHA-256 digest of `bytes`.
    pub fn sha256(bytes: &[u8]) -> Self {
        Algorithm::Sha256.digest(bytes)
    }

    /// Which algorithm made it.
    pub const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The raw hash.
    pub const fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(bytes) => bytes,
            Self::Sha512(bytes) => bytes,
        }
    }

    /// The hexadecimal part, without the algorithm.
    pub fn hex(&self) -> String {
        self.print_hex(&mut [0; HEX_LENGTH_MAX]).into()
    }

    fn print_hex<'a>(&self, digits: &'a mut [u8; HEX_LENGTH_MAX]) -> &'a str {
        let bytes = self.as_bytes();
        for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
            pair.copy_from_slice(&[hex_digit(byte >> 4), hex_digit(byte & 15)]);
        }
        std::str::from_utf8(&digits[..bytes.len() * 2]).unwrap_or_default()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No format string and no heap: every answer has its digest in two headers.
        f.write_str(self.algorithm().as_str())?;
        f.write_str(":")?;
        f.write_str(self.print_hex(&mut [0; HEX_LENGTH_MAX]))
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (algorithm, hex) = text.split_once(':').ok_or(DigestError::Malformed)?;
        match algorithm {
            "sha256" => Ok(Self::Sha256(decode_hex(hex)?)),
            "sha512" => Ok(Self::Sha512(decode_hex(hex)?)),
            "blake3" if hex.len() != BLAKE3_HEX_LENGTH || !hex.bytes().all(is_lower_hex) => Err(DigestError::BadHex),
            _ if is_algorithm(algorithm) && is_encoded(hex) => Err(DigestError::UnsupportedAlgorithm),
            _ => Err(DigestError::Malformed),
        }
    }
}

/// `algorithm-component *[ ("+" | "." | "_" | "-") algorithm-component ]`, components of `[a-z0-9]+`.
fn is_algorithm(text: &str) -> bool {
    text.split(['+', '.', '_', '-'])
        .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
}

/// `[a-zA-Z0-9=_-]+`.
fn is_encoded(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'=' | b'_' | b'-'))
}

const fn is_lower_hex(digit: u8) -> bool {
    matches!(digit, b'0'..=b'9' | b'a'..=b'f')
}

fn decode_hex<const N: usize>(hex: &str) -> Result<[u8; N], DigestError> {
    let digits = hex.as_bytes();
    if digits.len() != N * 2 {
        return Err(DigestError::BadHex);
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = hex_value(pair[0])? << 4 | hex_value(pair[1])?;
    }
    Ok(bytes)
}

fn hex_value(digit: u8) -> Result<u8, DigestError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(DigestError::BadHex),
    }
}

fn hex_digit(nibble: u8) -> u8 {
    b"0123456789abcdef"[usize::from(nibble)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_digest_of_nothing_is_the_known_one() {
        assert_eq!(Digest::sha256(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse(), Ok(Digest::sha256(b"")));
    }

    #[test]
    fn malformed_digests_say_what_is_wrong() {
        for (text, error) in [
            ("", DigestError::Malformed),
            ("sha256", DigestError::Malformed),
            ("sha256:", DigestError::BadHex),
            ("sha256:abc", DigestError::BadHex),
            (&EMPTY.to_uppercase().replace("SHA", "sha"), DigestError::BadHex),
            (&EMPTY.replace("sha256", "sha512"), DigestError::BadHex),
            (&EMPTY.replace("sha256", "SHA256"), DigestError::Malformed),
            ("md5:d41d8cd98f00b204e9800998ecf8427e", DigestError::UnsupportedAlgorithm),
            ("sha256:../../etc/passwd", DigestError::BadHex),
            (&EMPTY.replace("sha256", "blake3"), DigestError::UnsupportedAlgorithm),
            ("blake3:0123", DigestError::BadHex),
        ] {
            assert_eq!(text.parse::<Digest>(), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_digest_survives_printing(bytes: Vec<u8>) {
            for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
                let digest = algorithm.digest(&bytes);
                prop_assert_eq!(digest.to_string().parse(), Ok(digest));
            }
        }

        #[test]
        fn what_parses_prints_as_it_was_written(text in "(sha256|sha512|x):[0-9a-f]{60,66}|.{0,80}") {
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert_eq!(digest.to_string(), text);
            }
        }
    }
}
