//! Overrides from the environment: `DOCKGATE__LISTEN__MAIN__ADDRESS` is `listen.main.address`.

use std::collections::BTreeSet;

use super::errors::{Place, Problem, VARIABLE_PREFIX};
use super::reader::Report;
use super::tree::{Entry, Node, Table, Value};

/// No key is deeper.
const DEPTH_MAX: usize = 8;

/// The environment of this process. What is not UTF-8 in it is replaced.
pub fn process_environment() -> impl Iterator<Item = (String, String)> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

/// Puts the overrides among `environment` into the tree.
pub(super) fn apply(root: &mut Table, environment: impl Iterator<Item = (String, String)>, report: &Report) {
    let overrides: BTreeSet<_> = environment.filter(|(name, _)| name.starts_with(VARIABLE_PREFIX)).collect();
    for (name, text) in overrides {
        let path: Vec<String> = name[VARIABLE_PREFIX.len()..].split("__").map(str::to_ascii_lowercase).collect();
        let place = Place::Variable(name.into());
        if path.len() > DEPTH_MAX || path.iter().any(String::is_empty) {
            let text =
                format!("this names no key; a name is {VARIABLE_PREFIX}TABLE__KEY, with two underscores between");
            report.error(place, "", Problem::Conflict(text));
        } else if let Err(text) = set(root, &path, &place, text) {
            report.error(place, &path.join("."), Problem::Conflict(text));
        }
    }
}

fn set(table: &mut Table, path: &[String], place: &Place, text: String) -> Result<(), String> {
    let Some((segment, rest)) = path.split_first() else { return Ok(()) };
    let name = spelled(table, segment)?;
    if let Some(entry) = table.get(&name)
        && let (Value::Variable(_), Place::Variable(other)) = (&entry.node.value, &entry.node.place)
    {
        return Err(format!("environment variable {other} is about the same key; remove one of the two"));
    }
    let empty = || Node { place: place.clone(), value: Value::Table(Table::new()) };
    if rest.is_empty() {
        let node = Node { place: place.clone(), value: Value::Variable(text) };
        table.insert(name, Entry { key_place: place.clone(), node });
        return Ok(());
    }
    let entry = table.entry(name).or_insert_with(|| Entry { key_place: place.clone(), node: empty() });
    if !matches!(entry.node.value, Value::Table(_)) {
        entry.node = empty();
    }
    match &mut entry.node.value {
        Value::Table(child) => set(child, rest, place, text),
        _ => Ok(()),
    }
}

/// The key of `table` that `segment` stands for, in which a `-` is written `_`.
fn spelled(table: &Table, segment: &str) -> Result<String, String> {
    let mut matching = table.keys().filter(|key| key.replace('-', "_").eq_ignore_ascii_case(segment));
    match (matching.next(), matching.next()) {
        (Some(one), Some(two)) => Err(format!("this could be \"{one}\" or \"{two}\"; rename one of them in the file")),
        (Some(one), None) => Ok(one.clone()),
        (None, _) => Ok(segment.into()),
    }
}

/// The name of the variable that sets the key at `path`.
#[cfg(test)]
pub(super) fn variable(path: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", path.to_uppercase().replace('.', "__").replace('-', "_"))
}
