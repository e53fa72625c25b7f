//! What an upstream holds: blobs and manifests by name.

use std::collections::HashMap;

use bytes::Bytes;
use dockgate::oci::Digest;

use crate::random::Random;

pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// The layers of an image beside the large one, which stands in the middle.
const SMALL_LAYERS: [usize; 9] = [1 << 10, 4 << 10, 32 << 10, 256 << 10, 1 << 20, 2 << 20, 4 << 20, 8 << 20, 16 << 20];

/// The bytes of a blob, as its own head and a piece of something shared; either may be empty.
#[derive(Clone)]
pub struct Blob {
    pub digest: Digest,
    pub parts: [Bytes; 2],
}

impl Blob {
    pub fn new(bytes: Bytes) -> Self {
        Self { digest: Digest::sha256(&bytes), parts: [bytes, Bytes::new()] }
    }

    pub const fn len(&self) -> usize {
        self.parts[0].len() + self.parts[1].len()
    }

    /// At most `most` bytes from `offset`, as far as they lie together.
    pub fn piece(&self, offset: usize, most: usize) -> Bytes {
        let head = self.parts[0].len();
        let (part, start) = if offset < head { (&self.parts[0], offset) } else { (&self.parts[1], offset - head) };
        part.slice(start..part.len().min(start.saturating_add(most)))
    }

    /// Whether these are the bytes at `offset`.
    pub fn matches(&self, mut offset: usize, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            if offset >= self.len() {
                return false;
            }
            let piece = self.piece(offset, bytes.len());
            if piece != bytes[..piece.len()] {
                return false;
            }
            offset += piece.len();
            bytes = &bytes[piece.len()..];
        }
        true
    }
}

/// What is asked by name.
pub trait Content: Send + Sync + 'static {
    /// The manifest with this tag or digest.
    fn manifest(&self, repository: &str, reference: &str) -> Option<Blob>;

    /// The blob with this digest.
    fn blob(&self, repository: &str, digest: &Digest) -> Option<Blob>;
}

/// An image: a manifest, a configuration and ten layers.
pub struct Image {
    pub tag: String,
    pub manifest: Blob,
    /// The configuration, and then the layers.
    pub blobs: Vec<Blob>,
}

impl Image {
    /// The large layer is the beginning of `large`, so that many images can share it; everything else is told by `tag`.
    pub fn new(tag: &str, large: &Blob) -> Self {
        let mut random = Random::new(tag.bytes().fold(7, |seed, byte| seed * 257 + u64::from(byte)));
        let mut layers: Vec<Blob> = SMALL_LAYERS.iter().map(|&length| Blob::new(random.bytes(length).into())).collect();
        layers.insert(SMALL_LAYERS.len() / 2, large.clone());
        let config = Blob::new(format!(r#"{{"architecture":"amd64","os":"linux","comment":"{tag}"}}"#).into());
        let manifest = Blob::new(manifest_of(&config, &layers).into());
        let blobs = std::iter::once(config).chain(layers).collect();
        Self { tag: tag.into(), manifest, blobs }
    }

    pub fn bytes(&self) -> u64 {
        (self.manifest.len() + self.blobs.iter().map(Blob::len).sum::<usize>()) as u64
    }
}

/// The text of a manifest.
pub fn manifest_of(config: &Blob, layers: &[Blob]) -> String {
    let descriptor = |blob: &Blob, media_type: &str| {
        format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":{}}}"#, blob.digest, blob.len())
    };
    let layers: Vec<String> = layers.iter().map(|layer| descriptor(layer, LAYER_TYPE)).collect();
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{},"layers":[{}]}}"#,
        descriptor(config, CONFIG_TYPE),
        layers.join(",")
    )
}

/// Some images, in every repository.
pub struct Images {
    manifests: HashMap<String, Blob>,
    blobs: HashMap<Digest, Blob>,
}

impl Images {
    pub fn new<'a>(images: impl IntoIterator<Item = &'a Image>) -> Self {
        let (mut manifests, mut blobs) = (HashMap::new(), HashMap::new());
        for image in images {
            manifests.insert(image.tag.clone(), image.manifest.clone());
            manifests.insert(image.manifest.digest.to_string(), image.manifest.clone());
            blobs.extend(image.blobs.iter().map(|blob| (blob.digest, blob.clone())));
        }
        Self { manifests, blobs }
    }
}

impl Content for Images {
    fn manifest(&self, _: &str, reference: &str) -> Option<Blob> {
        self.manifests.get(reference).cloned()
    }

    fn blob(&self, _: &str, digest: &Digest) -> Option<Blob> {
        self.blobs.get(digest).cloned()
    }
}
