//! What the gateway keeps while it is besieged: an image that real clients can pull, and one large blob.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::Outcome;
use crate::client::Way;
use crate::random::Random;

pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// What good clients pull.
pub const IMAGE: &str = "public/app";
/// What stalled readers ask for.
pub const LARGE: &str = "public/large";
const LARGE_BYTES: usize = 64 << 20;
/// The one file in the image's one layer.
const FILE_BYTES: usize = 32 << 10;
/// A block of a tar archive.
const BLOCK: usize = 512;

#[derive(Debug, Clone)]
pub struct Blob {
    pub digest: String,
    pub bytes: Bytes,
}

impl Blob {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { digest: digest(&bytes), bytes: bytes.into() }
    }
}

/// A configuration, one layer and the manifest of both.
#[derive(Debug, Clone)]
pub struct Image {
    pub configuration: Blob,
    pub layer: Blob,
    pub manifest: Blob,
}

#[derive(Debug, Clone)]
pub struct Content {
    pub image: Image,
    pub large: Blob,
}

pub fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

impl Image {
    pub fn new(random: &mut Random, bytes: usize) -> Self {
        let layer = Blob::new(archive("bytes", &random.bytes(bytes)));
        let configuration = Blob::new(
            format!(
                r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
                layer.digest
            )
            .into_bytes(),
        );
        let manifest = Blob::new(
            format!(
                r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{}","size":{}}}]}}"#,
                configuration.digest,
                configuration.bytes.len(),
                layer.digest,
                layer.bytes.len()
            )
            .into_bytes(),
        );
        Self { configuration, layer, manifest }
    }

    pub async fn push(&self, way: Way, repository: &str, tag: &str) -> Outcome {
        push_blob(way, repository, &self.configuration).await?;
        push_blob(way, repository, &self.layer).await?;
        let path = format!("/v2/{repository}/manifests/{tag}");
        let kind = format!("Content-Type: {MANIFEST_TYPE}\r\n");
        way.ask("PUT", &path, &kind, &self.manifest.bytes).await?.expect(201)?;
        Ok(())
    }
}

impl Content {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        Self { image: Image::new(&mut random, FILE_BYTES), large: Blob::new(random.bytes(LARGE_BYTES)) }
    }

    /// The path that stalled readers ask for.
    pub fn large_path(&self) -> String {
        format!("/v2/{LARGE}/blobs/{}", self.large.digest)
    }
}

pub async fn push_blob(way: Way, repository: &str, blob: &Blob) -> Outcome {
    let begun = way.ask("POST", &format!("/v2/{repository}/blobs/uploads/"), "", b"").await?.expect(202)?;
    let location = begun.header("location").ok_or("an upload without a Location")?;
    let path = location.find("/v2/").map_or(location, |start| &location[start..]);
    let mark = if path.contains('?') { '&' } else { '?' };
    let path = format!("{path}{mark}digest={}", blob.digest);
    way.ask("PUT", &path, "Content-Type: application/octet-stream\r\n", &blob.bytes).await?.expect(201)?;
    Ok(())
}

/// A tar archive (ustar) of one file.
fn archive(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut head = vec![0u8; BLOCK];
    let mut field = |at: usize, text: &str| head[at..at + text.len()].copy_from_slice(text.as_bytes());
    field(0, name);
    field(100, "0000644\0");
    field(108, "0000000\0");
    field(116, "0000000\0");
    field(124, &format!("{:011o}\0", bytes.len()));
    field(136, "00000000000\0");
    field(148, "        ");
    field(156, "0");
    field(257, "ustar\x0000");
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let padding = bytes.len().next_multiple_of(BLOCK) - bytes.len();
    [&head[..], bytes, &vec![0; padding + 2 * BLOCK]].concat()
}
