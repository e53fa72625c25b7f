//! The words of the OCI specifications: what parses prints as it was written, and a manifest is what its JSON says.
#![no_main]

use dockgate::oci::{
    Algorithm, ByteRange, ChildKind, Digest, Manifest, MediaType, RangeSpec, Reference, RepositoryName, Tag, UploadId,
    Verifier, of_linux_amd64,
};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        words(text);
        ranges(text);
    }
    manifest(bytes);
    hashing(bytes);
});

fn words(text: &str) {
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    if let Ok(id) = text.parse::<UploadId>() {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string(), text);
        assert_eq!(matches!(reference, Reference::Tag(_)), text.parse::<Tag>().is_ok());
    }
    if let Ok(name) = text.parse::<RepositoryName>() {
        assert_eq!(name.as_str(), text);
        assert!(text.len() <= 255 && !text.contains("..") && !text.contains("//"));
        assert!(!text.starts_with('/') && !text.ends_with('/'));
    }
    if let Some(media_type) = MediaType::parse(text) {
        assert_eq!(MediaType::parse(media_type.as_str()), Some(media_type));
    }
}

fn ranges(text: &str) {
    if let Some(range) = ByteRange::parse_content_range(text) {
        assert!(range.start() <= range.last() && range.length() > 0);
        assert_eq!(ByteRange::parse_content_range(&range.to_string()), Some(range));
    }
    let Ok(spec) = text.parse::<RangeSpec>() else { return };
    for size in [0, 1, 2, 1 << 20, u64::MAX - 1, u64::MAX] {
        if let Ok(range) = spec.resolve(size) {
            assert!(range.start() <= range.last() && range.last() < size && range.length() <= size);
        }
    }
}

/// Another reader of JSON must find the same children, and no other media type may be claimed for the same bytes.
fn manifest(bytes: &[u8]) {
    let claims = MediaType::ALL.into_iter().filter(|claim| Manifest::parse(bytes, Some(claim.as_str())).is_ok());
    let claims: Vec<MediaType> = claims.collect();
    let Ok(manifest) = Manifest::parse(bytes, None) else { return };
    let json: Value = serde_json::from_slice(bytes).expect("a manifest is JSON");
    assert_eq!(json["schemaVersion"], 2);
    assert!(claims.contains(&manifest.media_type()));
    assert!(claims.iter().all(|claim| claim.is_index() == manifest.media_type().is_index()));
    let listed = |key: &str| json[key].as_array().into_iter().flatten();
    let config = json.get("config").filter(|config| !config.is_null()).into_iter();
    let descriptors = config.chain(listed("layers")).chain(listed("manifests"));
    let expected: Vec<&str> = descriptors.map(|child| child["digest"].as_str().unwrap_or_default()).collect();
    let found: Vec<String> = manifest.children().iter().map(|child| child.digest.to_string()).collect();
    assert_eq!(found, expected);
    let manifests = manifest.children().iter().filter(|child| child.kind == ChildKind::Manifest).count();
    // An index may name blobs, too.
    assert!(manifests == 0 || manifest.media_type().is_index());
    if let Some(image) = of_linux_amd64(bytes) {
        assert!(found.contains(&image.to_string()));
    }
}

fn hashing(bytes: &[u8]) {
    let (head, tail) = bytes.split_at(bytes.len() / 3);
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let mut verifier = Verifier::new(algorithm);
        verifier.update(head);
        verifier.update(tail);
        let verified = verifier.verify(&algorithm.digest(bytes)).expect("the hash does not depend on the cut");
        assert_eq!(verified.size(), bytes.len() as u64);
    }
}
