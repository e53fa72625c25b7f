//! Repository names (distribution-spec 1.1, "Pulling manifests").

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest name: clients limit `host/name` to 255 characters.
const NAME_LENGTH_MAX: usize = 255;

/// A repository's name: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` parts, joined by `/`, at most 255 characters.
///
/// Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(Arc<str>);

/// Why a text is not a repository name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameError {
    /// Longer than 255 characters.
    TooLong,
    /// Does not follow the grammar.
    Malformed,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "a repository name has at most 255 characters",
            Self::Malformed => {
                "a repository name is made of lower-case letters and digits, separated by one of . _ __ - and /"
            }
        })
    }
}

impl std::error::Error for NameError {}

impl RepositoryName {
    /// The name as it stands in a path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RepositoryName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > NAME_LENGTH_MAX {
            return Err(NameError::TooLong);
        }
        if text.split('/').all(is_path_component) { Ok(Self(text.into())) } else { Err(NameError::Malformed) }
    }
}

/// Runs of `[a-z0-9]` with `.`, `_`, `__` or any number of `-` between two of them.
fn is_path_component(part: &str) -> bool {
    let mut rest = part.as_bytes();
    loop {
        let run = rest.iter().take_while(|b| b.is_ascii_lowercase() || b.is_ascii_digit()).count();
        if run == 0 {
            return false;
        }
        rest = &rest[run..];
        if rest.is_empty() {
            return true;
        }
        let separator = rest.iter().take_while(|b| matches!(b, b'.' | b'_' | b'-')).count();
        if !is_separator(&rest[..separator]) {
            return false;
        }
        rest = &rest[separator..];
    }
}

fn is_separator(text: &[u8]) -> bool {
    matches!(text, b"." | b"_" | b"__") || (!text.is_empty() && text.iter().all(|b| *b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_grammar_is_that_of_the_spec() {
        for good in ["a", "library/alpine", "a.b_c__d-e---f", "0/1/2", "my-org/my.repo"] {
            assert!(good.parse::<RepositoryName>().is_ok(), "{good}");
        }
        for bad in ["", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", "a._b", "-a", "a-", "a b", "a/../b", "é", "a\0b"]
        {
            assert_eq!(bad.parse::<RepositoryName>(), Err(NameError::Malformed), "{bad:?}");
        }
        assert_eq!("a".repeat(256).parse::<RepositoryName>(), Err(NameError::TooLong));
        assert!("a".repeat(255).parse::<RepositoryName>().is_ok());
    }

    proptest! {
        #[test]
        fn names_of_the_grammar_parse(text in "[a-z0-9]{1,5}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,3}(/[a-z0-9]{1,5}){0,4}") {
            prop_assert!(text.parse::<RepositoryName>().is_ok());
        }

        #[test]
        fn what_parses_is_safe_in_a_path(text in "[a-z0-9./_A-Z%~-]{0,20}") {
            if let Ok(name) = text.parse::<RepositoryName>() {
                prop_assert_eq!(name.as_str(), &text);
                prop_assert!(!text.contains("..") && !text.contains("//") && !text.starts_with('/'));
            }
        }
    }
}
