//! The kinds of single values that keys take.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::errors::nearest;
use super::reader::{Fallback, Kind, Section};
use super::tree::Value;
use super::{duration, size};

/// The longest text that a key takes.
const TEXT_LENGTH_MAX: usize = 4096;

impl Section<'_> {
    /// `true` or `false`.
    pub(super) fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        let kind = Kind { name: "boolean", allowed: "true or false" };
        let parse = |value: &Value| match value {
            Value::Boolean(value) => Some(*value),
            Value::Variable(text) => text.parse().ok(),
            _ => None,
        };
        self.get(key, &kind, &Fallback::Value(default.to_string()), parse).unwrap_or(default)
    }

    /// A whole number in a range.
    pub(super) fn integer<N>(&mut self, key: &'static str, default: N, range: RangeInclusive<N>) -> N
    where
        N: Display + Copy + PartialOrd + TryFrom<i64>,
    {
        self.integer_from(key, default, default.to_string(), range)
    }

    /// A whole number in a range; what its default depends on is said in words.
    pub(super) fn integer_from<N>(
        &mut self,
        key: &'static str,
        default: N,
        default_text: String,
        range: RangeInclusive<N>,
    ) -> N
    where
        N: Display + Copy + PartialOrd + TryFrom<i64>,
    {
        let allowed = format!("a whole number from {} to {}", range.start(), range.end());
        let parse = |value: &Value| {
            let number = match value {
                Value::Integer(_, number) => *number,
                Value::Variable(text) => text.parse().ok(),
                _ => None,
            };
            number.and_then(|number| N::try_from(number).ok()).filter(|number| range.contains(number))
        };
        let kind = Kind { name: "integer", allowed: &allowed };
        self.get(key, &kind, &Fallback::Value(default_text), parse).unwrap_or(default)
    }

    /// A duration in a range.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        self.read_duration(key, &Fallback::Value(duration::format(default)), &range).unwrap_or(default)
    }

    /// A duration in a range, or nothing.
    pub(super) fn optional_duration(&mut self, key: &'static str, range: RangeInclusive<Duration>) -> Option<Duration> {
        self.read_duration(key, &Fallback::None, &range)
    }

    fn read_duration(
        &mut self,
        key: &'static str,
        fallback: &Fallback,
        range: &RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let ends = (duration::format(*range.start()), duration::format(*range.end()));
        let allowed = format!("{}, from {} to {}", duration::ALLOWED, ends.0, ends.1);
        let parse = |value: &Value| value.as_text().and_then(duration::parse).filter(|value| range.contains(value));
        self.get(key, &Kind { name: "duration", allowed: &allowed }, fallback, parse)
    }

    /// A number of bytes in a range.
    pub(super) fn size(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let ends = (size::format(*range.start()), size::format(*range.end()));
        let allowed = format!("{}, from {} to {}", size::ALLOWED, ends.0, ends.1);
        let parse = |value: &Value| value.as_text().and_then(size::parse).filter(|value| range.contains(value));
        let kind = Kind { name: "size", allowed: &allowed };
        self.get(key, &kind, &Fallback::Value(size::format(default)), parse).unwrap_or(default)
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy + PartialEq>(
        &mut self,
        key: &'static str,
        default: T,
        choices: &[(&'static str, T)],
    ) -> T {
        let default_word = choices.iter().find(|(_, value)| *value == default).map(|(word, _)| (*word).to_owned());
        self.one_of(key, &default_word.map_or(Fallback::None, Fallback::Value), choices).unwrap_or(default)
    }

    /// One of a few words, or nothing.
    pub(super) fn one_of<T: Copy>(
        &mut self,
        key: &'static str,
        fallback: &Fallback,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        let words: Vec<_> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let allowed = match words.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => words.concat(),
        };
        let Some(node) = self.take(key, "word", fallback) else {
            if matches!(fallback, Fallback::Required) {
                self.missing(key, &allowed);
            }
            return None;
        };
        let found = node.value.as_text();
        let choice = choices.iter().find(|(word, _)| found == Some(word));
        if choice.is_none() {
            let near = found.and_then(|found| nearest(found, choices.iter().map(|(word, _)| *word)));
            self.refuse(&node, &self.join(key), &allowed, near.map(|near| format!("\"{near}\"")));
        }
        choice.map(|(_, value)| *value)
    }

    /// A text that `parse` understands.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        kind: &Kind<'_>,
        fallback: &Fallback,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        self.get(key, kind, fallback, |value| value.as_text().filter(|text| is_text(text)).and_then(parse))
    }

    /// A text for which `valid` holds.
    pub(super) fn text(
        &mut self,
        key: &'static str,
        default: &str,
        allowed: &str,
        valid: impl FnOnce(&str) -> bool,
    ) -> String {
        let kind = Kind { name: "string", allowed };
        let value = self.parsed(key, &kind, &Fallback::Value(default.into()), |text| valid(text).then(|| text.into()));
        value.unwrap_or_else(|| default.into())
    }

    /// A path.
    pub(super) fn path_or(&mut self, key: &'static str, default: &Path) -> PathBuf {
        let path = self.read_path(key, &Fallback::Value(default.display().to_string()));
        path.unwrap_or_else(|| self.report.resolve(default))
    }

    /// A path, or nothing.
    pub(super) fn optional_path(&mut self, key: &'static str) -> Option<PathBuf> {
        self.read_path(key, &Fallback::None)
    }

    fn read_path(&mut self, key: &'static str, fallback: &Fallback) -> Option<PathBuf> {
        let path = self.parsed(key, &Kind { name: "path", allowed: "a path" }, fallback, |text| {
            (!text.is_empty() && !text.contains('\0')).then(|| PathBuf::from(text))
        })?;
        Some(self.report.resolve(&path))
    }
}

fn is_text(text: &str) -> bool {
    text.len() <= TEXT_LENGTH_MAX
}
