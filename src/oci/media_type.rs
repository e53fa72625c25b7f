//! Media types of manifests (image-spec 1.1, media-types.md) and docker's names for the same things.

use std::fmt;

/// What a stored manifest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaType {
    /// `application/vnd.docker.distribution.manifest.v2+json`
    DockerManifest,
    /// `application/vnd.docker.distribution.manifest.list.v2+json`
    DockerManifestList,
    /// `application/vnd.oci.image.manifest.v1+json`
    OciManifest,
    /// `application/vnd.oci.image.index.v1+json`
    OciIndex,
}

impl MediaType {
    /// All that can be pushed.
    pub const ALL: [Self; 4] = [Self::DockerManifest, Self::DockerManifestList, Self::OciManifest, Self::OciIndex];

    /// As it stands in `Content-Type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DockerManifest => "application/vnd.docker.distribution.manifest.v2+json",
            Self::DockerManifestList => "application/vnd.docker.distribution.manifest.list.v2+json",
            Self::OciManifest => "application/vnd.oci.image.manifest.v1+json",
            Self::OciIndex => "application/vnd.oci.image.index.v1+json",
        }
    }

    /// Reads a `Content-Type`, its parameters ignored (RFC 9110, section 8.3.1).
    pub fn parse(text: &str) -> Option<Self> {
        let essence = text.split(';').next().unwrap_or_default().trim();
        Self::ALL.into_iter().find(|media_type| media_type.as_str().eq_ignore_ascii_case(essence))
    }

    /// Whether it lists manifests rather than layers.
    pub const fn is_index(self) -> bool {
        matches!(self, Self::DockerManifestList | Self::OciIndex)
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
