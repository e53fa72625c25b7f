//! Walks a tree of TOML with names and types: what was read is known, what was not read is an unknown key, and every
//! mistake is kept, not only the first.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::errors::{ConfigError, Place, Problem, VARIABLE_PREFIX, nearest};
use super::tree::{Entry, Node, Table, Value};

/// The longest name of a listener or an upstream.
const NAME_LENGTH_MAX: usize = 64;

/// A key that a configuration may have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// As in `listen.main.address`.
    pub path: String,
    /// What it takes, in a word or two: `duration`, `list of strings`.
    pub kind: &'static str,
    /// Its default as it would be written, or `none`, or `required`, or what it depends on.
    pub default: String,
}

/// What is gathered while one file is read.
pub(super) struct Report {
    file: Place,
    directory: PathBuf,
    errors: RefCell<Vec<ConfigError>>,
    keys: RefCell<Vec<Key>>,
    places: RefCell<BTreeMap<String, Place>>,
    files: RefCell<Vec<PathBuf>>,
    warnings: RefCell<Vec<ConfigError>>,
}

impl Report {
    /// For the file at `file`; relative paths in it start at `directory`.
    pub(super) fn new(file: &Path, directory: &Path) -> Self {
        Self {
            file: Place::File(file.into()),
            directory: directory.into(),
            errors: RefCell::default(),
            keys: RefCell::default(),
            places: RefCell::default(),
            files: RefCell::default(),
            warnings: RefCell::default(),
        }
    }

    pub(super) fn error(&self, place: Place, key: &str, problem: Problem) {
        self.errors.borrow_mut().push(ConfigError { place, key: key.into(), problem });
    }

    /// What is written at `key` is taken, and may not be what is meant.
    pub(super) fn doubt(&self, key: &str, text: &'static str) {
        let place = self.place(key).unwrap_or_else(|| self.file());
        let warning = ConfigError { place, key: key.into(), problem: Problem::Doubtful(text) };
        self.warnings.borrow_mut().push(warning);
    }

    /// What was warned of.
    pub(super) fn take_warnings(&self) -> Vec<ConfigError> {
        self.warnings.take()
    }

    pub(super) fn extend(&self, errors: Vec<ConfigError>) {
        self.errors.borrow_mut().extend(errors);
    }

    /// `path`, starting at the directory of the configuration.
    pub(super) fn resolve(&self, path: &Path) -> PathBuf {
        resolve(&self.directory, path)
    }

    /// Remembers that `file` was read too.
    pub(super) fn note_file(&self, file: &Path) {
        self.files.borrow_mut().push(file.into());
    }

    /// The place of the file as a whole.
    pub(super) fn file(&self) -> Place {
        self.file.clone()
    }

    /// Where the value of `key` was written; none, if it is the default.
    pub(super) fn place(&self, key: &str) -> Option<Place> {
        self.places.borrow().get(key).cloned()
    }

    /// Whether the values of all `keys` are good by themselves, so that it makes sense to compare them.
    pub(super) fn is_sound(&self, keys: &[&str]) -> bool {
        !self.errors.borrow().iter().any(|error| keys.contains(&error.key.as_str()))
    }

    /// `key` and where its value was written, for an error that names both ends.
    pub(super) fn end(&self, key: &str) -> String {
        self.place(key).map_or_else(|| format!("{key} (the default)"), |place| format!("{key} ({place})"))
    }

    /// The values of `key` and `other` do not go together; the error stands where one of them was written.
    pub(super) fn conflict(&self, key: &str, other: &str, text: String) {
        let place = self.place(key).or_else(|| self.place(other)).unwrap_or_else(|| self.file());
        self.error(place, key, Problem::Conflict(text));
    }

    /// The errors, the keys that were asked for, and the other files that were read.
    pub(super) fn into_parts(self) -> (Vec<ConfigError>, Vec<Key>, Vec<PathBuf>) {
        (self.errors.into_inner(), self.keys.into_inner(), self.files.into_inner())
    }
}

/// `path`, starting at `directory` if it is relative.
pub(super) fn resolve(directory: &Path, path: &Path) -> PathBuf {
    if directory == Path::new(".") { path.into() } else { directory.join(path) }
}

/// What stands for a key that is not there.
pub(super) enum Fallback {
    /// Nothing; that is good.
    None,
    /// Nothing; that is an error.
    Required,
    /// A value: as it would be written, or what it depends on.
    Value(String),
}

/// What a key takes.
pub(super) struct Kind<'a> {
    /// In a word or two.
    pub(super) name: &'static str,
    /// In a few words, for errors.
    pub(super) allowed: &'a str,
}

/// One table while it is read.
pub(super) struct Section<'r> {
    pub(super) report: &'r Report,
    path: String,
    place: Place,
    entries: Table,
    known: Vec<&'static str>,
}

impl<'r> Section<'r> {
    /// Reads a file's tree with `read`, and reports the keys that it did not ask for.
    pub(super) fn root<T>(report: &'r Report, entries: Table, read: impl FnOnce(&mut Self) -> T) -> T {
        Self { report, path: String::new(), place: report.file(), entries, known: Vec::new() }.run(read)
    }

    fn run<T>(mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        let value = read(&mut self);
        for (key, entry) in std::mem::take(&mut self.entries) {
            self.unknown(&key, &entry.key_place);
        }
        value
    }

    fn unknown(&self, key: &str, place: &Place) {
        let found = nearest(key, self.known.iter().copied()).map(|near| self.spelled(near, place));
        let problem = Problem::UnknownKey { nearest: found, known: self.known.clone() };
        self.report.error(place.clone(), &self.join(key), problem);
    }

    /// A key as it would be written in the same kind of place.
    fn spelled(&self, key: &str, place: &Place) -> String {
        let Place::Variable(name) = place else { return format!("\"{key}\"") };
        let depth = if self.path.is_empty() { 0 } else { self.path.split('.').count() };
        let mut segments: Vec<String> = name[VARIABLE_PREFIX.len()..].split("__").map(Into::into).collect();
        if let Some(segment) = segments.get_mut(depth) {
            *segment = key.replace('-', "_").to_uppercase();
        }
        format!("{VARIABLE_PREFIX}{}", segments.join("__"))
    }

    /// The path of a key of this table.
    pub(super) fn join(&self, key: &str) -> String {
        let is_bare = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let key = if key.is_empty() || !key.bytes().all(is_bare) { super::tree::quote(key) } else { key.into() };
        if self.path.is_empty() { key } else { format!("{}.{key}", self.path) }
    }

    /// The value of `key`, if it is there.
    pub(super) fn take(&mut self, key: &'static str, kind: &'static str, default: &Fallback) -> Option<Node> {
        let default = match default {
            Fallback::None => "none".into(),
            Fallback::Required => "required".into(),
            Fallback::Value(text) => text.clone(),
        };
        self.report.keys.borrow_mut().push(Key { path: self.join(key), kind, default });
        self.take_unlisted(key)
    }

    fn take_unlisted(&mut self, key: &'static str) -> Option<Node> {
        self.known.push(key);
        let node = self.entries.remove(key)?.node;
        self.report.places.borrow_mut().insert(self.join(key), node.place.clone());
        Some(node)
    }

    /// The value of `key`, read by `parse`, which refuses what is not allowed by `None`.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        kind: &Kind<'_>,
        fallback: &Fallback,
        parse: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        match self.take(key, kind.name, fallback) {
            Some(node) => {
                let value = parse(&node.value);
                if value.is_none() {
                    self.refuse(&node, &self.join(key), kind.allowed, None);
                }
                value
            }
            None => {
                if matches!(fallback, Fallback::Required) {
                    self.missing(key, kind.allowed);
                }
                None
            }
        }
    }

    pub(super) fn missing(&self, key: &str, allowed: &str) {
        let problem = Problem::Missing { allowed: allowed.into() };
        self.report.error(self.place.clone(), &self.join(key), problem);
    }

    /// Reports a value that the key at `path` does not take.
    pub(super) fn refuse(&self, node: &Node, path: &str, allowed: &str, nearest: Option<String>) {
        let problem = Problem::Value { found: node.value.to_string(), allowed: allowed.into(), nearest };
        self.report.error(node.place.clone(), path, problem);
    }

    /// A list of strings, each read by `parse`. What it refuses is reported and left out.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        kind: &Kind<'_>,
        fallback: &Fallback,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        match self.take(key, kind.name, fallback) {
            Some(node) => self.strings(node, &self.join(key), kind.allowed, parse),
            None => {
                if matches!(fallback, Fallback::Required) {
                    self.missing(key, &format!("a list of {}", kind.allowed));
                }
                None
            }
        }
    }

    fn strings<T>(&self, node: Node, path: &str, allowed: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
        let nodes = self.array(node, path, &format!("a list of {allowed}"))?;
        let mut values = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            let path = format!("{path}[{index}]");
            match node.value.as_text().and_then(&parse) {
                Some(value) => values.push(value),
                None => self.refuse(node, &path, allowed, None),
            }
            self.report.places.borrow_mut().insert(path, node.place.clone());
        }
        Some(values)
    }

    /// The elements of a list. The environment can neither give a list nor change what is in one.
    fn array(&self, node: Node, path: &str, allowed: &str) -> Option<Vec<Node>> {
        match (node.value, &node.place) {
            (Value::Array(nodes), _) => return Some(nodes),
            (_, Place::Variable(_)) => self.report.error(node.place, path, Problem::FileOnly),
            (value, _) => self.refuse(&Node { value, place: node.place }, path, allowed, None),
        }
        None
    }

    /// The table `key`, read by `read`. A table that is not there is read as an empty one.
    pub(super) fn table<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'r>) -> T) -> T {
        let path = self.join(key);
        let (entries, place) = self.take_unlisted(key).and_then(|node| self.open(node, &path)).unwrap_or_else(|| {
            let place = self.place.clone();
            (Table::new(), place)
        });
        Section { report: self.report, path, place, entries, known: Vec::new() }.run(read)
    }

    fn open(&self, node: Node, path: &str) -> Option<(Table, Place)> {
        if let Value::Table(entries) = node.value {
            return Some((entries, node.place));
        }
        self.refuse(&node, path, "a table of keys", None);
        None
    }

    /// The tables in the table `key`, whose names the user chose, each read by `read`; none, if `key` is not there.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&str, &mut Section<'r>) -> Option<T>,
    ) -> Option<BTreeMap<String, T>> {
        let path = self.join(key);
        let node = self.take_unlisted(key)?;
        let (entries, _) = self.open(node, &path)?;
        let mut values = BTreeMap::new();
        for (name, Entry { key_place, node }) in entries {
            let name = if matches!(key_place, Place::Variable(_)) { name.replace('_', "-") } else { name };
            let child = Section {
                report: self.report,
                path: format!("{path}.{name}"),
                place: key_place.clone(),
                entries: Table::new(),
                known: Vec::new(),
            };
            if !is_name(&name) {
                let found = super::tree::quote(&name);
                let problem = Problem::Value { found, allowed: NAME_ALLOWED.into(), nearest: None };
                self.report.error(key_place, &path, problem);
            } else if let Some((entries, _)) = self.open(node, &child.path) {
                values.extend(Section { entries, ..child }.run(|child| read(&name, child)).map(|value| (name, value)));
            }
        }
        Some(values)
    }

    /// The rows of the list of tables `key`, each read by `read`; none, if `key` is not there.
    pub(super) fn rows<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Section<'r>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let path = self.join(key);
        let node = self.take_unlisted(key)?;
        let nodes = self.array(node, &path, &format!("tables, each headed [[{key}]]"))?;
        let mut rows = Vec::new();
        for (index, node) in nodes.into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            if let Some((entries, place)) = self.open(node, &path) {
                let row = Section { report: self.report, path, place, entries, known: Vec::new() };
                rows.extend(row.run(&mut read));
            }
        }
        Some(rows)
    }

    /// What the table `key` holds, whatever its keys are called, with their places; nothing, if it is not there.
    pub(super) fn entries(&mut self, key: &'static str, kind: &'static str) -> Vec<(String, Node)> {
        let path = self.join(key);
        let Some(node) = self.take(key, kind, &Fallback::None) else { return Vec::new() };
        let Some((entries, _)) = self.open(node, &path) else { return Vec::new() };
        entries.into_iter().map(|(name, entry)| (name, entry.node)).collect()
    }

    /// A list of strings that was found under a name that the user chose.
    pub(super) fn strings_of(
        &self,
        node: Node,
        path: &str,
        allowed: &str,
        valid: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        self.strings(node, path, allowed, |text| valid(text).then(|| text.to_owned())).unwrap_or_default()
    }

    /// Keys that are planned: an error that says so.
    pub(super) fn later(&mut self, keys: &[&'static str]) {
        for key in keys {
            if let Some(entry) = self.entries.remove(*key) {
                let problem = Problem::NotYet { found: None, instead: "remove it" };
                self.report.error(entry.key_place, &self.join(key), problem);
            }
        }
    }

    /// Gives up on the rest of the table: its keys are not reported.
    pub(super) fn give_up(&mut self) {
        self.entries.clear();
    }
}

/// What the name of a listener or an upstream is, in words.
pub(super) const NAME_ALLOWED: &str = "names made of lower-case letters, digits and -, at most 64 of them";

/// Whether it can be the name of a listener or an upstream.
pub(super) fn is_name(text: &str) -> bool {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=NAME_LENGTH_MAX).contains(&text.len()) && text.bytes().all(known)
}
