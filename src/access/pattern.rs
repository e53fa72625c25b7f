//! Patterns of repository names.

use std::fmt;
use std::str::FromStr;

use crate::oci::RepositoryName;

/// The longest pattern; names are no longer.
const PATTERN_LENGTH_MAX: usize = 255;

/// A pattern of repository names: `*` stands for any characters of one path part, `**`, as a part of its own, for one
/// or more whole parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryPattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// One path part that matches a glob.
    One(String),
    /// Any number of path parts, none included. `**` is `One("*")` and this.
    Any,
}

/// A text is not a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatternError;

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a pattern is a repository name in which * stands for any characters of one path part and ** for whole parts, \
             such as \"public/**\" or \"team-*/app\"",
        )
    }
}

impl std::error::Error for PatternError {}

impl RepositoryPattern {
    /// Whether it matches every name.
    pub fn is_everything(&self) -> bool {
        self.text == "**"
    }

    /// Whether it matches `name`.
    pub fn matches(&self, name: &RepositoryName) -> bool {
        self.matches_parts(&name.as_str().split('/').collect::<Vec<_>>())
    }

    /// Whether it matches a name that was split at its slashes, once for many patterns.
    pub(super) fn matches_parts(&self, name: &[&str]) -> bool {
        wildcard(
            &self.parts,
            name,
            |part| *part == Part::Any,
            |part, text| match part {
                Part::One(glob) => wildcard(glob.as_bytes(), text.as_bytes(), |b| *b == b'*', |a, b| a == b),
                Part::Any => false,
            },
        )
    }
}

impl fmt::Display for RepositoryPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for RepositoryPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.len() > PATTERN_LENGTH_MAX {
            return Err(PatternError);
        }
        let mut parts = Vec::new();
        for part in text.split('/') {
            match part {
                "**" => parts.extend([Part::One("*".into()), Part::Any]),
                part if is_part(part) => parts.push(Part::One(part.into())),
                _ => return Err(PatternError),
            }
        }
        Ok(Self { text: text.into(), parts })
    }
}

fn is_part(part: &str) -> bool {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-' | b'*');
    !part.is_empty() && !part.contains("**") && part.bytes().all(known)
}

/// Matches with one kind of wildcard, in at most `pattern × text` steps: on a mismatch only the last wildcard seen has
/// to take one more, for an earlier one could reach no further.
fn wildcard<P, T>(pattern: &[P], text: &[T], is_any: impl Fn(&P) -> bool, matches: impl Fn(&P, &T) -> bool) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut last_any = None;
    while t < text.len() {
        if p < pattern.len() && is_any(&pattern[p]) {
            last_any = Some((p, t));
            p += 1;
        } else if p < pattern.len() && matches(&pattern[p], &text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((any, taken)) = last_any {
            last_any = Some((any, taken + 1));
            (p, t) = (any + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(is_any)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, name: &str) -> bool {
        pattern.parse::<RepositoryPattern>().unwrap().matches(&name.parse().unwrap())
    }

    #[test]
    fn patterns_match_as_documented() {
        for (pattern, name, expected) in [
            ("**", "a", true),
            ("**", "a/b/c", true),
            ("*", "a", true),
            ("*", "a/b", false),
            ("public/**", "public/a", true),
            ("public/**", "public/a/b", true),
            ("public/**", "public", false),
            ("public/**", "public2/a", false),
            ("public/*", "public/a/b", false),
            ("team-*/app", "team-1/app", true),
            ("team-*/app", "team-/app", false),
            ("**/base", "a/b/base", true),
            ("**/base", "base", false),
            ("a/**/z", "a/b/c/z", true),
            ("a/**/z", "a/z", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
        ] {
            if name.parse::<RepositoryName>().is_ok() {
                assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
            }
        }
    }

    #[test]
    fn what_no_name_can_match_is_no_pattern() {
        for bad in ["", "/", "a//b", "A", "a**", "**a", "***", "a b", "a/", "?"] {
            assert_eq!(bad.parse::<RepositoryPattern>(), Err(PatternError), "{bad}");
        }
    }

    /// The definition of matching, plain and slow.
    fn oracle(pattern: &[&str], name: &[&str]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((&"**", rest)), Some((_, tail))) => oracle(rest, tail) || oracle(pattern, tail),
            (Some((glob, rest)), Some((part, tail))) => {
                glob_oracle(glob.as_bytes(), part.as_bytes()) && oracle(rest, tail)
            }
            _ => false,
        }
    }

    fn glob_oracle(glob: &[u8], text: &[u8]) -> bool {
        match (glob.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) if glob_oracle(rest, text) => true,
            (Some((b'*', _)), Some((_, tail))) => glob_oracle(glob, tail),
            (Some((a, rest)), Some((b, tail))) => a == b && glob_oracle(rest, tail),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn it_matches_what_its_definition_says(
            pattern in "(\\*\\*|\\*|a\\*|\\*b|a|b|ab)(/(\\*\\*|\\*|a\\*b|\\*a|a|b)){0,4}",
            name in "[ab]{1,3}(/[ab]{1,2}){0,5}",
        ) {
            let expected = oracle(&pattern.split('/').collect::<Vec<_>>(), &name.split('/').collect::<Vec<_>>());
            prop_assert_eq!(matches(&pattern, &name), expected);
        }

        #[test]
        fn a_name_is_a_pattern_of_itself(name in "[a-z0-9]{1,5}([._-][a-z0-9]{1,3}){0,2}(/[a-z0-9]{1,4}){0,3}") {
            prop_assert!(matches(&name, &name));
        }
    }
}
