//! What the upstream of a workload holds: every blob of it, made when it is asked for.

use std::collections::HashMap;

use bytes::Bytes;
use dockgate::oci::Digest;

use crate::content::{Blob, Content, manifest_of};
use crate::model::{BLOBS_OF_A_MANIFEST, SIZE_MAX, Workload};
use crate::random::Random;

/// The manifests and their blobs are spread over as many repositories.
const REPOSITORIES: usize = 200;
/// The least that a blob has: its own number, so that no two are the same.
const HEAD: usize = 16;

pub struct Catalog {
    blobs: Vec<Blob>,
    manifests: Vec<Blob>,
    config: Blob,
    blob_of: HashMap<Digest, u32>,
    manifest_of: HashMap<String, u32>,
}

impl Catalog {
    /// Sizes are divided by `scale`.
    pub fn new(workload: &Workload, scale: u64) -> Self {
        let shared: Bytes = Random::new(2).bytes((SIZE_MAX / scale as f64) as usize + 1).into();
        let blobs: Vec<Blob> = (0u64..)
            .zip(&workload.sizes)
            .map(|(index, size)| blob(index, (size / scale as f64) as usize, &shared))
            .collect();
        let config = Blob::new(Bytes::from_static(br#"{"architecture":"amd64","os":"linux"}"#));
        let layers = blobs.chunks(BLOBS_OF_A_MANIFEST);
        let manifests: Vec<Blob> = layers.map(|layers| Blob::new(manifest_of(&config, layers).into())).collect();
        let mut blob_of: HashMap<Digest, u32> = HashMap::new();
        blob_of.extend((0u32..).zip(&blobs).map(|(index, blob)| (blob.digest, index)));
        let mut manifest_of = HashMap::new();
        for (index, manifest) in (0u32..).zip(&manifests) {
            manifest_of.insert(manifest.digest.to_string(), index);
            manifest_of.insert(tag(index), index);
        }
        Self { blobs, manifests, config, blob_of, manifest_of }
    }

    pub fn blob(&self, index: u32) -> &Blob {
        &self.blobs[index as usize]
    }

    pub fn manifest(&self, index: u32) -> &Blob {
        &self.manifests[index as usize]
    }

    pub const fn manifests(&self) -> &Vec<Blob> {
        &self.manifests
    }

    pub fn sizes(&self) -> Vec<u64> {
        self.blobs.iter().map(|blob| blob.len() as u64).collect()
    }
}

/// Its number, and then a piece of what all have.
fn blob(index: u64, size: usize, shared: &Bytes) -> Blob {
    let head = format!("{index:0HEAD$}");
    let rest = shared.slice(..size.saturating_sub(HEAD));
    let whole = [head.as_bytes(), &rest].concat();
    Blob { digest: Digest::sha256(&whole), parts: [head.into(), rest] }
}

pub fn tag(manifest: u32) -> String {
    format!("m{manifest}")
}

pub fn repository(manifest: u32) -> String {
    format!("trace/r{}", manifest as usize % REPOSITORIES)
}

/// The repository of a blob is that of its manifest.
pub const fn manifest_with(blob: u32) -> u32 {
    blob / BLOBS_OF_A_MANIFEST as u32
}

impl Content for Catalog {
    fn manifest(&self, name: &str, reference: &str) -> Option<Blob> {
        let index = *self.manifest_of.get(reference)?;
        (repository(index) == name).then(|| self.manifest(index).clone())
    }

    fn blob(&self, name: &str, digest: &Digest) -> Option<Blob> {
        if *digest == self.config.digest {
            return Some(self.config.clone());
        }
        let index = *self.blob_of.get(digest)?;
        (repository(manifest_with(index)) == name).then(|| Self::blob(self, index).clone())
    }
}
