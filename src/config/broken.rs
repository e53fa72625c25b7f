//! Upstreams whose files are not good. What is meant to be theirs is nobody else's: their names are kept for them.

use std::collections::BTreeMap;
use std::path::Path;

use toml::{Table, Value};

use crate::oci::RepositoryName;

use super::errors::{ConfigError, ConfigErrors};
use super::tree;

/// An upstream whose file is not good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// What is wrong.
    pub errors: Vec<ConfigError>,
    /// What its repositories' names would begin with, as far as that can be read.
    pub prefix: Option<RepositoryName>,
    /// By which names of the gateway it would be meant.
    pub hosts: Vec<String>,
    /// Which values of `?ns=` would mean it.
    pub namespaces: Vec<String>,
    /// Whether it would be the v1 registry.
    pub legacy: bool,
}

impl Broken {
    /// What can be read of a file that is not good; the upstream's name is its prefix, if the file does not say another.
    fn read(file: &Path, name: &str, errors: Vec<ConfigError>) -> Self {
        let table = lenient(&tree::read_text(file).unwrap_or_default());
        let is_enabled = table.get("enabled").and_then(Value::as_bool) != Some(false);
        let legacy = table.get("kind").and_then(Value::as_str) == Some("legacy");
        let is_meant = is_enabled && !legacy;
        let list = |key: &str| {
            let list = table.get(key).filter(|_| is_meant).and_then(Value::as_array);
            let texts = list.into_iter().flatten().filter_map(Value::as_str);
            texts.map(str::to_ascii_lowercase).collect()
        };
        let prefix = table.get("prefix").and_then(Value::as_str).unwrap_or(name);
        let prefix = prefix.parse().ok().filter(|_| is_meant);
        Self { prefix, hosts: list("hosts"), namespaces: list("namespaces"), legacy: legacy && is_enabled, errors }
    }
}

/// Sorts errors by the upstream that they are of; an error, if they are of none.
pub(super) fn by_upstream(
    directory: &Path,
    errors: Vec<ConfigError>,
) -> Result<BTreeMap<String, Broken>, ConfigErrors> {
    let mut found: BTreeMap<String, Vec<ConfigError>> = BTreeMap::new();
    let mut others = Vec::new();
    for error in errors {
        let file = error.place.path().filter(|file| file.extension().is_some_and(|extension| extension == "toml"));
        match file.and_then(Path::file_stem) {
            Some(name) => found.entry(name.to_string_lossy().into_owned()).or_default().push(error),
            None => others.push(error),
        }
    }
    match ConfigErrors::new(others) {
        Some(errors) => Err(errors),
        None => Ok(found
            .into_iter()
            .map(|(name, errors)| {
                let broken = Broken::read(&directory.join(format!("{name}.toml")), &name, errors);
                (name, broken)
            })
            .collect()),
    }
}

/// All of it; or, where it is no TOML, those of its lines that are.
fn lenient(text: &str) -> Table {
    let lines = || text.lines().filter_map(|line| line.parse::<Table>().ok()).flatten().collect();
    text.parse().unwrap_or_else(|_| lines())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_read_of_a_broken_file_is() {
        let site = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            let file = site.path().join("hub.toml");
            std::fs::write(&file, text).unwrap();
            Broken::read(&file, "hub", Vec::new())
        };
        let names = "prefix = \"docker.io\"\nhosts = [\"Hub.example\"]\nnamespaces = [\"docker.io\"]\n";
        for wrong in ["uurl = 7\n", "url = \"\n", "[[\n"] {
            let broken = read(&format!("{names}{wrong}"));
            assert_eq!(broken.prefix.unwrap().as_str(), "docker.io", "{wrong}");
            assert_eq!((broken.hosts, broken.namespaces), (vec!["hub.example".into()], vec!["docker.io".into()]));
        }
        assert_eq!(read("").prefix.unwrap().as_str(), "hub");
        let legacy = read("kind = \"legacy\"\npeeers = 7\n");
        assert_eq!((legacy.prefix, legacy.legacy), (None, true));
        assert!(!read("kind = \"legacy\"\nenabled = false\n").legacy && !read(names).legacy);
        assert_eq!(read(&format!("{names}enabled = false\n")).hosts, Vec::<String>::new());
    }
}
