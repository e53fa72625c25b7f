//! Things to push, and the shortest ways to push them.

use dockgate::oci::Digest;
use serde_json::json;

use super::client::{Answer, Client};

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub fn digest(bytes: &[u8]) -> String {
    Digest::sha256(bytes).to_string()
}

/// A manifest over these blobs; the first is the config.
pub fn manifest(blobs: &[&[u8]]) -> Vec<u8> {
    let descriptor = |media_type: &str, bytes: &[u8]| json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() });
    let layers: Vec<_> =
        blobs[1..].iter().map(|blob| descriptor("application/vnd.oci.image.layer.v1.tar", blob)).collect();
    let config = descriptor("application/vnd.oci.image.config.v1+json", blobs[0]);
    serde_json::to_vec(&json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers }))
        .unwrap()
}

/// Pushes a blob by POST and PUT.
pub fn push_blob(client: &Client, repository: &str, bytes: &[u8]) -> String {
    let location = begin(client, repository);
    client.send("PUT", &format!("{location}?digest={}", digest(bytes)), &[], bytes).expect(201);
    digest(bytes)
}

/// Begins an upload; its location.
pub fn begin(client: &Client, repository: &str) -> String {
    let answer = client.send("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"").expect(202);
    answer.header("location").unwrap().to_owned()
}

pub fn put_manifest(client: &Client, repository: &str, reference: &str, bytes: &[u8]) -> Answer {
    let path = format!("/v2/{repository}/manifests/{reference}");
    client.send("PUT", &path, &[("Content-Type", OCI_MANIFEST)], bytes)
}

/// Pushes a small image; the digest of its manifest.
pub fn push_image(client: &Client, repository: &str, tag: &str) -> String {
    let blobs: [&[u8]; 2] = [b"{}", b"a layer"];
    blobs.iter().for_each(|blob| drop(push_blob(client, repository, blob)));
    put_manifest(client, repository, tag, &manifest(&blobs))
        .expect(201)
        .header("docker-content-digest")
        .unwrap()
        .to_owned()
}
