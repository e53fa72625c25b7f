//! A TOML file as a tree in which every key and value knows where it was written.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::errors::{ConfigError, Place, Problem};
use super::redact;

/// The largest file that is read: a configuration is written by people.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The longest value that an error repeats whole.
const SHOWN_CHARACTERS_MAX: usize = 80;

/// A table, by its keys.
pub(super) type Table = BTreeMap<String, Entry>;

/// A key with its value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key_place: Place,
    pub(super) node: Node,
}

/// A value and where it was written.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// A value.
#[derive(Debug)]
pub(super) enum Value {
    /// A string of a file.
    Text(String),
    /// A value of the environment: what it is depends on the key.
    Variable(String),
    Integer(String, Option<i64>),
    Boolean(bool),
    /// A float or a date: no key takes one.
    Other(String),
    Array(Vec<Node>),
    Table(Table),
}

impl Value {
    /// The text, if it is one.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Variable(text) => Some(text),
            _ => None,
        }
    }
}

impl fmt::Display for Value {
    /// As an error shows it: shortened, and with control characters escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::Variable(text) => f.write_str(&quote(text)),
            Self::Integer(text, _) | Self::Other(text) => f.write_str(&shorten(text)),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Array(_) => f.write_str("a list"),
            Self::Table(_) => f.write_str("a table"),
        }
    }
}

/// In quotes, without secrets, shortened, and with control characters escaped.
pub(super) fn quote(text: &str) -> String {
    format!("{:?}", shorten(&redact::url(text)))
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS_MAX) {
        None => text.into(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// Reads a file whole, if it is text and not too large.
pub(super) fn read_text(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err("it is larger than 1MiB".into());
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        format!("line {} is not UTF-8", before.iter().filter(|b| **b == b'\n').count() + 1)
    })
}

/// The tree of a TOML text; every mistake in its syntax, if there are any.
pub(super) fn parse(text: &str, path: &Arc<Path>) -> Result<Table, Vec<ConfigError>> {
    let places = Places::new(text, path);
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(places.table(table.into_inner()));
    }
    let error = |error: toml::de::Error| ConfigError {
        place: error.span().map_or_else(|| Place::File(path.clone()), |span| places.at(span.start)),
        key: String::new(),
        problem: Problem::Syntax(error.message().into()),
    };
    Err(errors.into_iter().map(error).collect())
}

/// Turns offsets into lines and columns.
struct Places<'a> {
    text: &'a str,
    path: &'a Arc<Path>,
    line_starts: Vec<usize>,
}

impl<'a> Places<'a> {
    fn new(text: &'a str, path: &'a Arc<Path>) -> Self {
        let after_newlines = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1);
        Self { text, path, line_starts: std::iter::once(0).chain(after_newlines).collect() }
    }

    fn at(&self, offset: usize) -> Place {
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = self.line_starts[line.saturating_sub(1)];
        let before = self.text.get(start..offset).unwrap_or_default();
        let column = before.trim_start_matches('\u{feff}').chars().count() + 1;
        Place::Line(self.path.clone(), line, column)
    }

    fn table(&self, table: DeTable<'_>) -> Table {
        let entries = table.into_iter().map(|(key, value)| {
            let key_place = self.at(key.span().start);
            (key.into_inner().into_owned(), Entry { key_place, node: self.node(value) })
        });
        entries.collect()
    }

    fn node(&self, value: Spanned<DeValue<'_>>) -> Node {
        let place = self.at(value.span().start);
        let value = match value.into_inner() {
            DeValue::String(text) => Value::Text(text.into_owned()),
            DeValue::Integer(number) => {
                Value::Integer(number.to_string(), i64::from_str_radix(number.as_str(), number.radix()).ok())
            }
            DeValue::Float(number) => Value::Other(number.to_string()),
            DeValue::Boolean(value) => Value::Boolean(value),
            DeValue::Datetime(date) => Value::Other(date.to_string()),
            DeValue::Array(array) => Value::Array(array.into_iter().map(|value| self.node(value)).collect()),
            DeValue::Table(table) => Value::Table(self.table(table)),
        };
        Node { place, value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> Arc<Path> {
        Path::new("gateway.toml").into()
    }

    #[test]
    fn keys_and_values_know_their_line_and_column() {
        let tree = parse("\u{feff}a = 1\n[t.u]\n\"é\" = [ 'x', 2 ]\n", &path()).unwrap();
        assert_eq!(tree["a"].key_place, Place::Line(path(), 1, 1));
        assert_eq!(tree["a"].node.place, Place::Line(path(), 1, 5));
        assert_eq!(tree["t"].key_place, Place::Line(path(), 2, 2));
        let Value::Table(t) = &tree["t"].node.value else { panic!("{tree:?}") };
        let Value::Table(u) = &t["u"].node.value else { panic!("{t:?}") };
        let Value::Array(array) = &u["é"].node.value else { panic!("{u:?}") };
        assert_eq!(array[1].place, Place::Line(path(), 3, 14));
    }

    #[test]
    fn every_mistake_in_the_syntax_is_told() {
        let errors = parse("a = \nb = 1\nb = 2\n", &path()).unwrap_err();
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "gateway.toml:1:5: this is not TOML: string values must be quoted, expected literal string",
                "gateway.toml:3:1: this is not TOML: duplicate key",
            ]
        );
    }

    #[test]
    fn deep_nesting_is_survived() {
        for (open, close) in [("a.", "b = 1"), ("x = {a.", "b = 1"), ("[", "]"), ("x = [", "]"), ("x = {y = ", "}")] {
            let _ = parse(&format!("{}{close}", open.repeat(100_000)), &path());
        }
        let _ = parse(&format!("[{}b]", "a.".repeat(100_000)), &path());
    }

    #[test]
    fn a_file_that_is_too_large_or_no_text_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, vec![b'#'; 1 << 20]).unwrap();
        assert!(read_text(&file).is_ok());
        std::fs::write(&file, vec![b'#'; (1 << 20) + 1]).unwrap();
        assert_eq!(read_text(&file), Err("it is larger than 1MiB".into()));
        std::fs::write(&file, b"a\n\xff").unwrap();
        assert_eq!(read_text(&file), Err("line 2 is not UTF-8".into()));
    }

    #[test]
    fn what_an_error_shows_is_short_and_escaped() {
        assert_eq!(quote("a\"\u{1b}[31m\n"), r#""a\"\u{1b}[31m\n""#);
        assert_eq!(quote(&"x".repeat(81)), format!("\"{}…\"", "x".repeat(80)));
    }
}
