//! What a manifest from elsewhere says of its repository: everything that it names belongs there.
//!
//! It is read leniently, for it is not ours to judge; but it must have the parts of a manifest of some kind: upstreams, and
//! what stands before them, answer 200 with web pages, errors and nothing, too.

use serde::{Deserialize, Deserializer};

use crate::oci::Digest;
use crate::store::Member;

/// How many parts of one manifest are remembered; of the others the upstream is asked.
const PARTS_MAX: usize = 4096;

/// What a manifest is where it does not say it.
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parts {
    media_type: Option<String>,
    config: Option<Part>,
    // `null` is none, too: BuildKit writes it for an image without layers.
    #[serde(default, deserialize_with = "present")]
    layers: Option<Vec<Part>>,
    #[serde(default, deserialize_with = "present")]
    blobs: Option<Vec<Part>>,
    #[serde(default, deserialize_with = "present")]
    manifests: Option<Vec<Part>>,
    /// 1, or 2 for all others.
    schema_version: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    media_type: Option<String>,
    digest: String,
    size: Option<u64>,
}

/// What a manifest is, and what it names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Learnt {
    /// What it says that it is, or what it is by its parts.
    pub(super) media_type: String,
    /// Its parts.
    pub(super) members: Vec<Member>,
}

/// A list that is written down, if only as `null`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Part>>, D::Error> {
    Option::deserialize(deserializer).map(|parts| Some(parts.unwrap_or_default()))
}

/// Reads a manifest; none, if it is not one.
pub(super) fn learn(bytes: &[u8]) -> Option<Learnt> {
    let parts = serde_json::from_slice::<Parts>(bytes).ok()?;
    let own = parts.media_type.as_deref();
    let shaped = match (&parts.config, &parts.layers, &parts.manifests) {
        (_, _, Some(_)) => Some(if parts.config.is_none() { INDEX } else { IMAGE }),
        (Some(_), ..) | (_, Some(_), _) => Some(IMAGE),
        _ if parts.blobs.is_some() => own,
        _ if parts.schema_version == Some(1) => Some(SCHEMA1),
        _ => None,
    };
    let media_type = own.or(shaped).filter(|_| shaped.is_some())?.to_owned();
    let member = |part: &Part, is_manifest: bool| {
        let media_type = part.media_type.clone().filter(|_| is_manifest);
        Some(Member { digest: part.digest.parse::<Digest>().ok()?, size: part.size, media_type, proven: false })
    };
    let blobs = parts.config.iter().chain(parts.layers.iter().chain(&parts.blobs).flatten());
    let blobs = blobs.filter_map(|part| member(part, false));
    let manifests = parts.manifests.iter().flatten().filter_map(|part| member(part, true));
    Some(Learnt { members: blobs.chain(manifests).take(PARTS_MAX).collect(), media_type })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest(text: &[u8]) -> Digest {
        Digest::sha256(text)
    }

    #[test]
    fn an_image_names_its_config_and_layers() {
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"t","config":{{"mediaType":"c","digest":"{}","size":2}},
               "layers":[{{"mediaType":"l","digest":"{}","size":3}},{{"digest":"{}"}},{{"digest":"md5:1"}}]}}"#,
            digest(b"config"),
            digest(b"layer"),
            digest(b"bare")
        );
        let member = |digest, size| Member { digest, size, media_type: None, proven: false };
        let members =
            vec![member(digest(b"config"), Some(2)), member(digest(b"layer"), Some(3)), member(digest(b"bare"), None)];
        assert_eq!(learn(text.as_bytes()), Some(Learnt { media_type: "t".into(), members }));
    }

    #[test]
    fn an_index_names_its_manifests_with_their_types() {
        let text = format!(r#"{{"manifests":[{{"mediaType":"m","digest":"{}","size":4}}]}}"#, digest(b"child"));
        let member = Member { digest: digest(b"child"), size: Some(4), media_type: Some("m".into()), proven: false };
        assert_eq!(learn(text.as_bytes()), Some(Learnt { media_type: INDEX.into(), members: vec![member] }));
    }

    #[test]
    fn what_has_no_part_of_a_manifest_was_one() {
        for other in
            ["", "<html></html>", "null", "[]", "{}", r#"{"errors":[]}"#, r#"{"mediaType":"t"}"#, r#"{"config":1}"#]
        {
            assert_eq!(learn(other.as_bytes()), None, "{other}");
        }
        let is = |text: &str| learn(text.as_bytes()).unwrap().media_type;
        assert_eq!(is(r#"{"schemaVersion":2,"layers":null}"#), IMAGE);
        assert_eq!(is(r#"{"schemaVersion":2,"manifests":null}"#), INDEX);
        assert_eq!(is(r#"{"schemaVersion":1}"#), SCHEMA1);
        assert_eq!(
            is(r#"{"mediaType":"application/vnd.oci.artifact.manifest.v1+json","blobs":[]}"#),
            "application/vnd.oci.artifact.manifest.v1+json"
        );
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes: Vec<u8>) {
            let _ = learn(&bytes);
        }
    }
}
