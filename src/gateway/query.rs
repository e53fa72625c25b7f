//! Query strings (application/x-www-form-urlencoded, as clients write them).

use std::fmt;

use percent_encoding::percent_decode_str;

/// How many parameters are read, but for those that may be repeated; clients send a handful.
const PARAMETERS_MAX: usize = 64;

/// What may be said more than once: docker asks for a token with a `scope` for each repository, and a manifest can be pushed
/// with several tags.
const REPEATED: [&str; 2] = ["scope", "tag"];

/// The parameters of a query, decoded.
pub(super) struct Query(Vec<(String, String)>);

/// A query that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum QueryError {
    /// More parameters than are read.
    TooMany,
    /// A part is not UTF-8 once decoded.
    NotText,
    /// This parameter is there twice: one reader would take the first, and another the last (RFC 6749, section 3.2).
    Twice(String),
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => write!(f, "the query has more than {PARAMETERS_MAX} parameters"),
            Self::NotText => f.write_str("the query is not UTF-8"),
            Self::Twice(name) => write!(f, "the query has {name} more than once; send it once"),
        }
    }
}

impl Query {
    pub(super) fn parse(text: &str) -> Result<Self, QueryError> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let decoded = pairs.map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(key)?, decode(value)?))
        });
        let decoded: Vec<(String, String)> = decoded.collect::<Result<_, _>>()?;
        if decoded.iter().filter(|(key, _)| !REPEATED.contains(&key.as_str())).count() > PARAMETERS_MAX {
            return Err(QueryError::TooMany);
        }
        for (index, (key, _)) in decoded.iter().enumerate() {
            if !REPEATED.contains(&key.as_str()) && decoded[..index].iter().any(|(other, _)| other == key) {
                return Err(QueryError::Twice(key.clone()));
            }
        }
        Ok(Self(decoded))
    }

    /// The value under `key`, or the first of several.
    pub(super) fn first(&self, key: &str) -> Option<String> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone())
    }

    /// All values under `key`.
    pub(super) fn all(&self, key: &str) -> Vec<String> {
        self.0.iter().filter(|(name, _)| name == key).map(|(_, value)| value.clone()).collect()
    }
}

fn decode(text: &str) -> Result<String, QueryError> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().map(Into::into).map_err(|_| QueryError::NotText)
}
