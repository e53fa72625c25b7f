//! `[registry]` and `[cache]`: what is kept, and what is kept for a while.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::reader::{Fallback, Kind, Report, Section, is_name};
use super::remote::is_host;
use super::size;
use super::upstream::Upstream;

/// The built-in registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// Who answers names that no upstream claims: `hosted`, or the name of an upstream.
    pub default: String,
    /// Values of `?ns=` that mean it, in lower case; `*` is every other one.
    pub namespaces: Vec<String>,
    /// The directory of what is stored.
    pub data: PathBuf,
    /// Whether manifests, tags and blobs can be deleted, by those who may.
    pub delete: bool,
    /// Whether every `Location` names scheme and host, as docker's registry has it.
    pub absolute_locations: bool,
}

/// What is kept for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// How much is kept in memory, in bytes; 0 switches it off.
    pub memory: u64,
    /// The largest object that is kept in memory, in bytes.
    pub memory_object_max: u64,
    /// How much is kept on disk, in bytes; 0 switches it off.
    pub disk: u64,
    /// The directory of what is kept on disk.
    pub path: PathBuf,
}

const BYTES_MAX: u64 = 1 << 50;

/// The smallest cache: less holds no more than a few manifests, and costs more than it saves.
const BYTES_MIN: u64 = 64 << 10;

/// The built-in registry, where an upstream could be named.
const HOSTED: &str = "hosted";
const DEFAULT: &str = "registry.default";
const NAMESPACES: &str = "registry.namespaces";
const OBJECT_MAX: &str = "cache.memory_object_max";

/// Reads `[registry]`.
pub(super) fn read_registry(section: &mut Section<'_>) -> Registry {
    let default = Registry::default();
    section.later(&["blobs", "metadata"]);
    let allowed = "\"hosted\", or the name of a file in upstreams/, without .toml";
    Registry {
        default: section.text("default", &default.default, allowed, |text| text == HOSTED || is_name(text)),
        namespaces: read_namespaces(section),
        data: section.path_or("data", &default.data),
        delete: section.boolean("delete", default.delete),
        absolute_locations: section.boolean("absolute_locations", default.absolute_locations),
    }
}

fn read_namespaces(section: &mut Section<'_>) -> Vec<String> {
    let allowed = "names such as \"localhost:5001\", or \"*\" for every other one";
    let kind = Kind { name: "list of hosts", allowed };
    let host = |text: &str| (text == "*" || is_host(text)).then(|| text.to_ascii_lowercase());
    section.list("namespaces", &kind, &Fallback::Value("[]".into()), host).unwrap_or_default()
}

/// What upstreams have is theirs, and the built-in registry is there to be asked.
pub(super) fn check_namespaces(registry: &Registry, upstreams: &BTreeMap<String, Upstream>, report: &Report) {
    if !registry.namespaces.is_empty() && registry.default != HOSTED && report.is_sound(&[DEFAULT, NAMESPACES]) {
        let text =
            format!("{} is another registry, so the built-in one is not asked; remove this", report.end(DEFAULT));
        report.conflict(NAMESPACES, DEFAULT, text);
    }
    let has_one = |upstream: &Upstream| {
        let Upstream::Remote(remote) = upstream else { return false };
        remote.namespaces.iter().any(|namespace| registry.namespaces.contains(namespace))
    };
    if upstreams.values().any(has_one) {
        report.doubt(NAMESPACES, "one of these is in namespaces of an upstream too, which goes first");
    }
}

/// The default must be there, and of a kind that can answer any name.
pub(super) fn check_default(registry: &Registry, upstreams: &BTreeMap<String, Upstream>, report: &Report) {
    let name = &registry.default;
    let mirrors =
        |upstream: &Upstream| matches!(upstream, Upstream::Remote(remote) if !remote.docker_mirror.is_empty());
    if name != HOSTED && upstreams.iter().any(|(other, upstream)| other != name && mirrors(upstream)) {
        report.doubt(
            DEFAULT,
            "names without a prefix are all that upstream's, so docker_mirror of another one does nothing; give that one a \
             name of its own (hosts), and dockerd that as registry-mirrors",
        );
    }
    if name == HOSTED || matches!(upstreams.get(name), Some(Upstream::Remote(_))) || !report.is_sound(&[DEFAULT]) {
        return;
    }
    let known: Vec<&str> = upstreams
        .iter()
        .filter(|(_, upstream)| matches!(upstream, Upstream::Remote(_)))
        .map(|(name, _)| name.as_str())
        .collect();
    let known = if known.is_empty() { "there is none".to_owned() } else { format!("there is {}", known.join(", ")) };
    let text = format!(
        "no upstream {name:?} of kind \"mirror\" or \"fronted\" is switched on; {known}; write \"hosted\", or upstreams/{name}.toml"
    );
    report.conflict(DEFAULT, DEFAULT, text);
}

/// Reads `[cache]`.
pub(super) fn read_cache(section: &mut Section<'_>) -> Cache {
    let default = Cache::default();
    let mut cache = Cache {
        memory: section.size("memory", default.memory, 0..=BYTES_MAX),
        memory_object_max: section.size("memory_object_max", default.memory_object_max, 0..=BYTES_MAX),
        disk: section.size("disk", default.disk, 0..=BYTES_MAX),
        path: section.path_or("path", &default.path),
    };
    if cache.memory > 0 && section.report.place(OBJECT_MAX).is_none() {
        cache.memory_object_max = cache.memory_object_max.min(cache.memory);
    }
    check_cache(&cache, section.report);
    cache
}

fn check_cache(cache: &Cache, report: &Report) {
    for (key, bytes) in [("cache.memory", cache.memory), ("cache.disk", cache.disk)] {
        if (1..BYTES_MIN).contains(&bytes) {
            let text = format!(
                "found {}, in which nothing has room; write at least {}, or \"0\" to keep nothing",
                size::format(bytes),
                size::format(BYTES_MIN)
            );
            report.conflict(key, key, text);
        }
    }
    let (object, memory) = (OBJECT_MAX, "cache.memory");
    if cache.memory > 0 && cache.memory_object_max > cache.memory && report.is_sound(&[object, memory]) {
        let sizes = (size::format(cache.memory_object_max), size::format(cache.memory));
        let text = format!("{} is more than {}, {}; lower it", sizes.0, report.end(memory), sizes.1);
        report.conflict(object, memory, text);
    }
}
