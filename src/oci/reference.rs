//! Tags and references: what follows `/manifests/` (distribution-spec 1.1, "Pulling manifests").

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{Digest, DigestError};

/// The longest tag.
const TAG_LENGTH_MAX: usize = 128;

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

/// A text is not a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TagError;

impl fmt::Display for TagError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tag has 1 to 128 characters of A-Z a-z 0-9 _ . - and does not begin with . or -")
    }
}

impl std::error::Error for TagError {}

impl Tag {
    /// The tag as it stands in a path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Tag {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Self, TagError> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let first = text.bytes().next().is_some_and(word);
        if first && text.len() <= TAG_LENGTH_MAX && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-')) {
            Ok(Self(text.into()))
        } else {
            Err(TagError)
        }
    }
}

/// What names a manifest: a tag, or its digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reference {
    /// By tag: may change.
    Tag(Tag),
    /// By digest: never changes.
    Digest(Digest),
}

/// Why a text is not a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReferenceError {
    /// It has a colon, so it was meant as a digest.
    Digest(DigestError),
    /// It has none, so it was meant as a tag.
    Tag(TagError),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.contains(':') {
            text.parse().map(Self::Digest).map_err(ReferenceError::Digest)
        } else {
            text.parse().map(Self::Tag).map_err(ReferenceError::Tag)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tags_follow_the_grammar() {
        for good in ["latest", "v1.0", "_x", "A-b.C", "0"] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        for bad in ["", ".x", "-x", "a b", "a/b", "a:b", "é"] {
            assert_eq!(bad.parse::<Tag>(), Err(TagError), "{bad}");
        }
        assert!("a".repeat(128).parse::<Tag>().is_ok());
        assert_eq!("a".repeat(129).parse::<Tag>(), Err(TagError));
    }

    #[test]
    fn a_colon_makes_it_a_digest() {
        assert_eq!("sha256:1".parse::<Reference>(), Err(ReferenceError::Digest(DigestError::BadHex)));
        assert_eq!("a b".parse::<Reference>(), Err(ReferenceError::Tag(TagError)));
    }

    proptest! {
        #[test]
        fn what_parses_prints_as_it_was_written(text in "[a-zA-Z0-9_.:/ -]{0,20}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string(), text);
            }
        }
    }
}
