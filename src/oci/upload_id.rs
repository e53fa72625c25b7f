//! Names of upload sessions.

use std::fmt;
use std::str::FromStr;

/// An upload session's name: 128 random bits, written as 32 lower-case hexadecimal digits.
///
/// It is a secret of the one who began the upload; whoever makes one takes the bits from the system's random source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UploadId(u128);

/// A text is not an upload's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadIdError;

impl UploadId {
    /// The name made of these bits.
    pub const fn from_bits(bits: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bits))
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for UploadIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an upload is named by 32 lower-case hexadecimal digits")
    }
}

impl std::error::Error for UploadIdError {}

impl FromStr for UploadId {
    type Err = UploadIdError;

    fn from_str(text: &str) -> Result<Self, UploadIdError> {
        let plain = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !plain {
            return Err(UploadIdError);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| UploadIdError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_one_spelling_is_taken() {
        for bad in ["", "..", "+0000000000000000000000000000001", "0000000000000000000000000000000A", "00"] {
            assert_eq!(bad.parse::<UploadId>(), Err(UploadIdError), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_id_survives_printing(bits: [u8; 16]) {
            let id = UploadId::from_bits(bits);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }
    }
}
