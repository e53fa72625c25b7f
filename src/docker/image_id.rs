//! Names of v1 images.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A v1 image's name: 16 or 64 lower-case hexadecimal digits. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageId(Arc<str>);

/// A text is not a v1 image's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageIdError;

impl ImageId {
    /// The name as it stands in a path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ImageIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an image is named by 16 or 64 lower-case hexadecimal digits")
    }
}

impl std::error::Error for ImageIdError {}

impl FromStr for ImageId {
    type Err = ImageIdError;

    fn from_str(text: &str) -> Result<Self, ImageIdError> {
        let digits = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if digits && matches!(text.len(), 16 | 64) { Ok(Self(text.into())) } else { Err(ImageIdError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_16_or_64_digits() {
        assert!("0123456789abcdef".parse::<ImageId>().is_ok());
        assert!("a".repeat(64).parse::<ImageId>().is_ok());
        for bad in ["", "a", "0123456789ABCDEF", "0123456789abcdeg", "../../../../etc/p"] {
            assert_eq!(bad.parse::<ImageId>(), Err(ImageIdError), "{bad}");
        }
    }
}
