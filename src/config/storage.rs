//! `[registry]` and `[cache]`: what is kept, and what is kept for a while.

use std::path::PathBuf;

use super::reader::Fallback;
use super::reader::{Kind, Report, Section};
use super::size;

/// The built-in registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// Who answers names that no upstream claims: `hosted` in this version.
    pub default: String,
    /// The directory of what is stored.
    pub data: PathBuf,
    /// Whether manifests, tags and blobs can be deleted, by those who may.
    pub delete: bool,
}

/// What is kept for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// How much is kept in memory, in bytes; 0 switches it off.
    pub memory: u64,
    /// The largest object that is kept in memory, in bytes.
    pub memory_object_max: u64,
    /// How much is kept on disk, in bytes; 0 switches it off. For mirrors: nothing reads it yet.
    pub disk: u64,
    /// The directory of what is kept on disk. For mirrors: nothing reads it yet.
    pub path: PathBuf,
}

const BYTES_MAX: u64 = 1 << 50;

const OBJECT_MAX: &str = "cache.memory_object_max";

/// Reads `[registry]`.
pub(super) fn read_registry(section: &mut Section<'_>) -> Registry {
    let default = Registry::default();
    section.later(&["blobs", "metadata"]);
    let kind = Kind { name: "string", allowed: "\"hosted\", the only one that works in this version" };
    let hosted = default.default.clone();
    let name = section
        .parsed("default", &kind, &Fallback::Value(hosted.clone()), |text| (text == hosted).then(|| text.to_owned()));
    Registry {
        default: name.unwrap_or(hosted),
        data: section.path_or("data", &default.data),
        delete: section.boolean("delete", default.delete),
    }
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
    for key in ["cache.disk", "cache.path"] {
        section.report.no_effect(key, "for mirrors, which are planned");
    }
    cache
}

fn check_cache(cache: &Cache, report: &Report) {
    let (object, memory) = (OBJECT_MAX, "cache.memory");
    if cache.memory > 0 && cache.memory_object_max > cache.memory && report.is_sound(&[object, memory]) {
        let sizes = (size::format(cache.memory_object_max), size::format(cache.memory));
        let text = format!("{} is more than {}, {}; lower it", sizes.0, report.end(memory), sizes.1);
        report.conflict(object, memory, text);
    }
}
