//! Manifests and indexes (image-spec 1.1, manifest.md and image-index.md; docker's schema 2).

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::descriptor::parse_digest;
use super::{Digest, MediaType};

/// How deep a manifest's JSON may nest.
pub const MANIFEST_DEPTH_MAX: usize = 128; // serde_json's own limit; a test holds us to it.

/// A manifest that was read and found to be of one kind only. The bytes themselves are kept by whoever read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    media_type: MediaType,
    artifact_type: Option<String>,
    subject: Option<Digest>,
    annotations: Option<BTreeMap<String, String>>,
    children: Vec<Child>,
}

/// Something a manifest needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Child {
    /// Its part in the manifest.
    pub kind: ChildKind,
    /// Its digest.
    pub digest: Digest,
    /// Whether the registry must hold it; layers that are fetched elsewhere need not be here.
    pub required: bool,
}

/// The part that a child has in its manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChildKind {
    /// The configuration blob.
    Config,
    /// A layer, or a blob that an index names.
    Layer,
    /// A manifest of an index.
    Manifest,
}

/// Why bytes are not a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestError {
    /// Not JSON of the right shape; the text says where.
    Malformed(String),
    /// The media type is none that can be stored here.
    UnsupportedMediaType(String),
    /// It is of docker's schema 1, which docker pushed up to 1.9.
    Schema1,
    /// `mediaType` in the body and `Content-Type` differ.
    MediaTypeMismatch {
        /// What the request said.
        header: String,
        /// What the body says.
        body: String,
    },
    /// It has the parts of a manifest and of an index at once, or of the kind that it does not claim to be.
    Ambiguous,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(detail) => write!(f, "the manifest cannot be read: {detail}"),
            Self::UnsupportedMediaType(found) => {
                write!(
                    f,
                    "the media type {found:?} is not supported; push docker schema 2 or OCI manifests and indexes"
                )
            }
            Self::Schema1 => f.write_str(
                "manifests of docker's schema 1 are not kept here; push with docker 1.10 or newer, or ask the operator for \
                 clients = \"docker < 1.10\" in the file of the v1 registry",
            ),
            Self::MediaTypeMismatch { header, body } => {
                write!(f, "Content-Type is {header:?} but the manifest's mediaType is {body:?}; they must be the same")
            }
            Self::Ambiguous => {
                f.write_str("an image manifest has config and layers, an index has manifests; this one mixes them")
            }
        }
    }
}

impl std::error::Error for ManifestError {}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: u64,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Part>,
    // `null` is an empty list: BuildKit writes it for an image that has labels alone.
    #[serde(default, deserialize_with = "present")]
    layers: Option<Vec<Part>>,
    #[serde(default, deserialize_with = "present")]
    manifests: Option<Vec<Part>>,
    subject: Option<Part>,
    annotations: Option<BTreeMap<String, String>>,
    // Keys of other kinds of manifest: a reader that prefers them would see something else than we do.
    #[serde(rename = "fsLayers")]
    fs_layers: Option<IgnoredAny>,
    blobs: Option<IgnoredAny>,
}

/// A descriptor, of which less is asked than of those that are written here (docs/registry.md).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    media_type: String,
    #[serde(deserialize_with = "parse_digest")]
    digest: Digest,
    /// Nothing goes by it, so it may be wrong, or not there, as it may in docker's registries. But it is a number of bytes.
    #[serde(default, rename = "size")]
    _size: Option<u64>,
}

/// A list that is written down, if only as `null`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Part>>, D::Error> {
    Option::deserialize(deserializer).map(|list| Some(list.unwrap_or_default()))
}

impl Manifest {
    /// Reads a pushed manifest. `content_type` is the request's header, if it had one.
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, ManifestError> {
        let malformed = |error: serde_json::Error| ManifestError::Malformed(error.to_string());
        check_keys(bytes).map_err(malformed)?;
        let raw: Raw = serde_json::from_slice(bytes).map_err(malformed)?;
        if raw.schema_version == 1 {
            return Err(ManifestError::Schema1);
        }
        let media_type = agreed_media_type(&raw, content_type)?;
        raw.check_shape(media_type)?;
        Ok(raw.into_manifest(media_type))
    }

    /// What it is.
    pub const fn media_type(&self) -> MediaType {
        self.media_type
    }

    /// What kind of artifact it describes: `artifactType`, or else the media type of an image manifest's config.
    pub fn artifact_type(&self) -> Option<&str> {
        self.artifact_type.as_deref()
    }

    /// The manifest it refers to, which need not exist.
    pub const fn subject(&self) -> Option<&Digest> {
        self.subject.as_ref()
    }

    /// Its annotations.
    pub const fn annotations(&self) -> Option<&BTreeMap<String, String>> {
        self.annotations.as_ref()
    }

    /// What it needs, in the order in which it stands there.
    pub fn children(&self) -> &[Child] {
        &self.children
    }
}

impl Raw {
    fn check_shape(&self, media_type: MediaType) -> Result<(), ManifestError> {
        if self.schema_version != 2 {
            let detail = format!("schemaVersion is {}, only 2 is supported", self.schema_version);
            return Err(ManifestError::Malformed(detail));
        }
        let image = self.config.is_some() || self.layers.is_some();
        let index = self.manifests.is_some();
        let of_another_kind = if media_type.is_index() { image } else { index };
        if self.fs_layers.is_some() || self.blobs.is_some() || of_another_kind {
            return Err(ManifestError::Ambiguous);
        }
        if !media_type.is_index() && self.config.is_none() {
            return Err(ManifestError::Malformed("an image manifest needs a config".into()));
        }
        Ok(())
    }

    fn into_manifest(self, media_type: MediaType) -> Manifest {
        let config_type = self.config.as_ref().map(|config| config.media_type.clone());
        let config = self.config.iter().map(|config| Child::new(ChildKind::Config, config));
        let layers = self.layers.iter().flatten().map(|layer| Child::new(ChildKind::Layer, layer));
        let manifests = self.manifests.iter().flatten().map(|child| Child::new(kind_in_index(child), child));
        let children = config.chain(layers).chain(manifests).collect();
        Manifest {
            media_type,
            artifact_type: self.artifact_type.filter(|text| !text.is_empty()).or(config_type),
            subject: self.subject.map(|subject| subject.digest),
            annotations: self.annotations,
            children,
        }
    }
}

impl Child {
    fn new(kind: ChildKind, part: &Part) -> Self {
        let elsewhere = kind == ChildKind::Layer && is_foreign(&part.media_type);
        Self { kind, digest: part.digest, required: !elsewhere }
    }
}

/// An index may name blobs, too: BuildKit's cache does (`image-manifest=false`). They must be here like any layer.
fn kind_in_index(child: &Part) -> ChildKind {
    let is_manifest =
        MediaType::parse(&child.media_type).is_some() || OTHER_MANIFESTS.contains(&child.media_type.as_str());
    if is_manifest { ChildKind::Manifest } else { ChildKind::Layer }
}

/// Types of manifests that are not kept here.
const OTHER_MANIFESTS: [&str; 3] = [
    "application/vnd.oci.artifact.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

/// Layers that their makers do not let registries distribute.
fn is_foreign(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.docker.image.rootfs.foreign.diff.tar")
        || media_type.starts_with("application/vnd.oci.image.layer.nondistributable.v1.tar")
}

fn agreed_media_type(raw: &Raw, content_type: Option<&str>) -> Result<MediaType, ManifestError> {
    let known = |text: &str| MediaType::parse(text).ok_or_else(|| ManifestError::UnsupportedMediaType(text.to_owned()));
    match (content_type, raw.media_type.as_deref()) {
        (Some(header), Some(body)) => match (known(header)?, MediaType::parse(body)) {
            (header, Some(body)) if header == body => Ok(header),
            _ => Err(ManifestError::MediaTypeMismatch { header: header.to_owned(), body: body.to_owned() }),
        },
        (Some(text), None) | (None, Some(text)) => known(text),
        (None, None) if raw.manifests.is_some() => Ok(MediaType::OciIndex),
        (None, None) => Ok(MediaType::OciManifest),
    }
}

/// The manifest in a list that is for Linux on amd64: docker's registries give it to whoever knows no lists.
pub fn of_linux_amd64(list: &[u8]) -> Option<Digest> {
    #[derive(Deserialize)]
    struct List {
        manifests: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        digest: String,
        platform: Option<Platform>,
    }
    #[derive(Deserialize)]
    struct Platform {
        os: String,
        architecture: String,
    }
    let list: List = serde_json::from_slice(list).ok()?;
    let is_it = |platform: &Platform| platform.os == "linux" && platform.architecture == "amd64";
    let entry = list.manifests.into_iter().find(|entry| entry.platform.as_ref().is_some_and(is_it))?;
    entry.digest.parse().ok()
}

/// Any JSON in which no object says a key twice, nor, outside annotations, a word of ours in another spelling: readers
/// differ in which one they take (Go ignores case), so such a manifest is a different one for each.
#[derive(Clone, Copy)]
struct UniqueKeys<'a> {
    /// Whether keys here may be words of ours.
    words: bool,
    /// How many were read.
    keys: &'a Cell<usize>,
}

/// How many keys a manifest may have in all; one of a thousand layers has some four thousand.
const KEYS_MAX: usize = 20_000;

/// The keys whose spelling decides what a manifest is.
const WORDS: [&str; 12] = [
    "schemaVersion",
    "mediaType",
    "artifactType",
    "config",
    "layers",
    "manifests",
    "subject",
    "annotations",
    "fsLayers",
    "blobs",
    "digest",
    "size",
];

fn check_keys(bytes: &[u8]) -> Result<(), serde_json::Error> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let keys = Cell::new(0);
    UniqueKeys { words: true, keys: &keys }.deserialize(&mut json)?;
    json.end()
}

impl<'de> DeserializeSeed<'de> for UniqueKeys<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for UniqueKeys<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            self.keys.set(self.keys.get() + 1);
            if self.keys.get() > KEYS_MAX {
                return Err(de::Error::custom(format_args!("it has more than {KEYS_MAX} keys")));
            }
            let misspelt = self.words && WORDS.iter().any(|word| word.eq_ignore_ascii_case(&key) && *word != key);
            if misspelt || seen.contains(&key) {
                return Err(de::Error::custom(format_args!("the key {key:?} stands twice or in a second spelling")));
            }
            map.next_value_seed(Self { words: self.words && key != "annotations", keys: self.keys })?;
            seen.insert(key);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
