//! What is wrong with a configuration: where it stands, what was found there, and what is allowed.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The start of the names of the environment variables that override keys.
pub(super) const VARIABLE_PREFIX: &str = "DOCKGATE__";

/// Everything that is wrong with a configuration: at least one error, in the order of the places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where it was written.
    pub place: Place,
    /// Which key it is about, as in `listen.main.address`; empty if it is about the file or the variable as a whole.
    pub key: String,
    /// What is wrong.
    pub problem: Problem,
}

/// Where a key or a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In no particular line of a file.
    File(Arc<Path>),
    /// In a line of a file; lines and columns are counted from 1, columns in characters.
    Line(Arc<Path>, usize, usize),
    /// In the environment variable of this name.
    Variable(Arc<str>),
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The text is no TOML: what the parser says.
    Syntax(String),
    /// A file could not be read.
    Unreadable {
        /// Which file, where it is not the one of the place.
        file: Option<Arc<Path>>,
        /// What the system says.
        reason: String,
    },
    /// There is no such key.
    UnknownKey {
        /// The known key (or the variable) that looks most like it.
        nearest: Option<String>,
        /// The keys that are known here.
        known: Vec<&'static str>,
    },
    /// A value is not one of those that the key takes.
    Value {
        /// What was found, as it was written.
        found: String,
        /// What the key takes.
        allowed: String,
        /// The allowed value that looks most like it.
        nearest: Option<String>,
    },
    /// A key that must be there is not.
    Missing {
        /// What the key takes.
        allowed: String,
    },
    /// The key or the value is planned, but this version does not know it yet.
    NotYet {
        /// The value, if it is that and not the key.
        found: Option<String>,
        /// What to do.
        instead: &'static str,
    },
    /// Lists cannot be given by the environment.
    FileOnly,
    /// Two values that are good by themselves do not go together; the text names both.
    Conflict(String),
    /// The value is taken, and may not be what is meant; the text says why.
    Doubtful(&'static str),
}

impl ConfigErrors {
    /// From what was found, if anything was.
    pub(super) fn new(mut errors: Vec<ConfigError>) -> Option<Self> {
        errors.sort_by(|a, b| a.place.order().cmp(&b.place.order()));
        errors.dedup();
        (!errors.is_empty()).then_some(Self(errors))
    }

    /// The errors, in the order of the places.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }

    /// The files in which a change may mend an error.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self.iter().flat_map(ConfigError::files).map(Into::into).collect();
        files.sort();
        files.dedup();
        files
    }
}

impl fmt::Display for ConfigErrors {
    /// One error a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigError {
    /// In one line, whatever was written: control characters, of which names and keys are full when somebody means ill,
    /// are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = Line(f);
        match self.key.as_str() {
            "" => write!(line, "{}: {}", self.place, self.problem),
            key => write!(line, "{}: {key}: {}", self.place, self.problem),
        }
    }
}

/// Writes text with its control characters escaped.
struct Line<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for Line<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| match c.is_control() {
            true => write!(self.0, "{}", c.escape_debug()),
            false => self.0.write_char(c),
        })
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    fn files(&self) -> impl Iterator<Item = &Path> {
        let place = match &self.place {
            Place::File(path) | Place::Line(path, ..) => Some(&**path),
            Place::Variable(_) => None,
        };
        let named = match &self.problem {
            Problem::Unreadable { file: Some(file), .. } => Some(&**file),
            _ => None,
        };
        place.into_iter().chain(named)
    }
}

impl Place {
    /// The file, if it is in one.
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) | Self::Line(path, ..) => Some(path),
            Self::Variable(_) => None,
        }
    }

    /// File by file, a file as a whole before its lines, and variables last.
    fn order(&self) -> (bool, &str, &Path, usize, usize) {
        match self {
            Self::File(path) => (false, "", path, 0, 0),
            Self::Line(path, line, column) => (false, "", path, *line, *column),
            Self::Variable(name) => (true, name, Path::new(""), 0, 0),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Line(path, line, column) => write!(f, "{}:{line}:{column}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(text) => write!(f, "this is not TOML: {text}"),
            Self::Unreadable { file: None, reason } => write!(f, "cannot be read: {reason}"),
            Self::Unreadable { file: Some(file), reason } => write!(f, "{} cannot be read: {reason}", file.display()),
            Self::UnknownKey { nearest: Some(nearest), .. } => write!(f, "unknown key; did you mean {nearest}?"),
            Self::UnknownKey { nearest: None, known } => write!(f, "unknown key; known here: {}", known.join(", ")),
            Self::Value { found, allowed, nearest: None } => write!(f, "found {found}, but it takes {allowed}"),
            Self::Value { found, allowed, nearest: Some(nearest) } => {
                write!(f, "found {found}, but it takes {allowed}; did you mean {nearest}?")
            }
            Self::Missing { allowed } => write!(f, "missing; it takes {allowed}"),
            Self::NotYet { found: None, instead } => write!(f, "not in this version yet; {instead}"),
            Self::NotYet { found: Some(found), instead } => write!(f, "{found} is not in this version yet; {instead}"),
            Self::FileOnly => f.write_str("lists cannot be given by the environment; write it in the file"),
            Self::Conflict(text) => f.write_str(text),
            Self::Doubtful(text) => f.write_str(text),
        }
    }
}

/// The candidate that a typing error most likely meant, if one looks like `text` at all.
pub(super) fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distances = candidates.into_iter().map(|known| (strsim::damerau_levenshtein(text, known), known));
    let (distance, known) = distances.min()?;
    (distance <= text.len().max(known.len()) / 3).then_some(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_one_that_looks_like_it() {
        let known = ["address", "protocol", "plain", "trusted_proxies"];
        assert_eq!(nearest("adress", known), Some("address"));
        assert_eq!(nearest("trusted-proxies", known), Some("trusted_proxies"));
        assert_eq!(nearest("certificate", known), None);
        assert_eq!(nearest("x", []), None);
    }

    #[test]
    fn control_characters_of_a_variable_s_name_were_printed_as_they_are() {
        let place = Place::Variable("DOCKGATE__A\u{1b}[2J".into());
        let problem = Problem::UnknownKey { nearest: Some("DOCKGATE__B\u{13}".into()), known: vec![] };
        let error = ConfigError { place, key: "a\u{7}".into(), problem };
        let expected =
            r"environment variable DOCKGATE__A\u{1b}[2J: a\u{7}: unknown key; did you mean DOCKGATE__B\u{13}?";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn errors_stand_in_the_order_of_their_places() {
        let path: Arc<Path> = Path::new("gateway.toml").into();
        let error = |place| ConfigError { place, key: String::new(), problem: Problem::FileOnly };
        let places = [
            Place::File(path.clone()),
            Place::Line(path.clone(), 2, 9),
            Place::Line(path.clone(), 10, 1),
            Place::Variable("DOCKGATE__A".into()),
        ];
        let errors = ConfigErrors::new(places.iter().rev().cloned().map(error).collect()).unwrap();
        assert_eq!(errors.iter().map(|error| error.place.clone()).collect::<Vec<_>>(), places);
        assert_eq!(errors.files(), [Path::new("gateway.toml")]);
        assert_eq!(ConfigErrors::new(vec![]), None);
    }
}
