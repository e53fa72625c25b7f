//! The documents and the examples of this repository say what the code says.

use std::collections::BTreeSet;
use std::path::Path;

use super::Site;
use crate::config::{Config, Key, RemoteKind, keys, legacy_keys, remote_keys};

const DOCUMENT: &str = include_str!("../../../docs/configuration.md");
const GATEWAY: &str = include_str!("../../../gateway.toml");

fn repository(file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

/// As the document writes it.
fn documented(key: &Key) -> String {
    let path = key.path.replace("listen.main.", "listen.NAME.").replace("access[0].", "access[].");
    let is_words =
        matches!(key.default.as_str(), "none" | "required") || key.default.contains(' ') && key.kind == "integer";
    let default = if is_words { key.default.clone() } else { format!("`{}`", key.default) };
    format!("| `{path}` | {} | {default} |", key.kind)
}

#[test]
fn the_document_has_every_key_with_its_kind_and_default_and_no_other() {
    let (mirror, fronted) = (remote_keys(RemoteKind::Mirror), remote_keys(RemoteKind::Fronted));
    let all = keys().into_iter().chain(legacy_keys()).chain(mirror).chain(fronted);
    let expected: BTreeSet<String> = all.map(|key| documented(&key)).collect();
    let rows = DOCUMENT.lines().filter(|line| line.starts_with("| `") && line.matches('|').count() == 5);
    let cells = rows.map(|row| row.splitn(5, '|').take(4).collect::<Vec<_>>().join("|") + "|");
    let found: BTreeSet<String> = cells.collect();
    assert!(expected.len() > 110, "{}", expected.len());
    assert_eq!(expected.difference(&found).collect::<Vec<_>>(), Vec::<&String>::new(), "missing in the document");
    assert_eq!(found.difference(&expected).collect::<Vec<_>>(), Vec::<&String>::new(), "not in the code");
}

#[test]
fn the_examples_of_the_document_load() {
    let blocks: Vec<&str> = DOCUMENT.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 11, "{}", blocks.len());
    for block in blocks {
        let site = match block.starts_with("kind") {
            true => Site::new("").with("upstreams/example.toml", block.as_bytes()),
            false => Site::new(block),
        };
        assert_eq!(site.errors(&[]), [""; 0], "{block}");
    }
}

#[test]
fn the_errors_of_the_document_are_real() {
    let site = Site::new("[listen.main]\nadress = \"\"\n\n\n\n\n\n[limits]\n drain_timeout        = \"10 sec\"\n");
    let block = DOCUMENT.split("```\n").nth(1).unwrap();
    assert_eq!(site.errors(&[("DOCKGATE__LOG__FORMAT", "jsn")]), block.lines().collect::<Vec<_>>());
}

#[test]
fn the_example_is_the_defaults() {
    let loaded = Site::new(GATEWAY).load(&[]).unwrap();
    let defaults = Site::new("").load(&[]).unwrap();
    let here = |config: Config| {
        let text = format!("{config:#?}").replace(&config.directory.display().to_string(), "HERE");
        (text, config.access, config.limits, config.listen)
    };
    assert_eq!(here(loaded), here(defaults));
}

#[test]
fn the_example_has_every_key() {
    for key in keys() {
        let name = key.path.rsplit('.').next().unwrap();
        let is_there = |line: &str| line.trim_start_matches("# ").split(" = ").next() == Some(name);
        assert!(GATEWAY.lines().any(is_there), "{}", key.path);
    }
}

#[test]
fn the_files_of_the_repository_load_as_the_defaults() {
    let loaded = Config::load(Some(&repository("gateway.toml")), std::iter::empty()).unwrap();
    assert!(loaded.upstreams.is_empty(), "they are switched off");
    let paths = [&loaded.registry.data, &loaded.tls.directory, &loaded.cache.path, &loaded.identity.htpasswd];
    assert_eq!(paths, [&repository("data"), &repository("certs"), &repository("cache"), &repository("htpasswd")]);
    let directory = loaded.directory.clone();
    let defaults = Config::default();
    let mut expected = Config { directory: directory.clone(), sources: loaded.sources.clone(), ..defaults };
    for path in [
        &mut expected.registry.data,
        &mut expected.tls.directory,
        &mut expected.cache.path,
        &mut expected.identity.htpasswd,
    ] {
        *path = directory.join(&*path);
    }
    assert_eq!(loaded, expected);
}

#[test]
fn without_a_path_the_file_in_the_working_directory_is_read() {
    let loaded = Config::load(None, std::iter::empty()).unwrap();
    let mut files: Vec<_> = std::fs::read_dir("upstreams").unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let sources = ["gateway.toml", "upstreams"].map(Into::into).into_iter().chain(files).collect();
    assert_eq!(loaded, Config { sources, ..Config::default() });
}

#[test]
fn every_upstream_of_the_repository_loads_when_it_is_switched_on() {
    let mut count = 0;
    for entry in std::fs::read_dir(repository("upstreams")).unwrap() {
        let entry = entry.unwrap();
        let text = std::fs::read_to_string(entry.path()).unwrap().replace("enabled = false", "enabled = true");
        let name = entry.file_name().to_str().unwrap().to_owned();
        let config = Site::new("").with(&format!("upstreams/{name}"), text.as_bytes()).load(&[]).unwrap();
        assert!(config.upstreams.contains_key(name.trim_end_matches(".toml")), "{name}");
        count += 1;
    }
    assert!(count > 9);
}

#[test]
fn the_legacy_example_has_every_key() {
    let text = std::fs::read_to_string(repository("upstreams/legacy-v1.toml")).unwrap();
    for key in legacy_keys() {
        let name = key.path.rsplit('.').next().unwrap();
        assert!(text.contains(&format!("{name} = ")), "{}", key.path);
    }
}
