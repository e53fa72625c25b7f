//! What a manifest from elsewhere says of its repository: everything that it names belongs there.
//!
//! It is read leniently, for it is not ours to judge: kinds of manifest that nobody has thought of yet pass through too.

use serde::Deserialize;

use crate::oci::Digest;
use crate::store::Member;

/// How many parts of one manifest are remembered; of the others the upstream is asked.
const PARTS_MAX: usize = 4096;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parts {
    media_type: Option<String>,
    config: Option<Part>,
    #[serde(default)]
    layers: Vec<Part>,
    #[serde(default)]
    blobs: Vec<Part>,
    #[serde(default)]
    manifests: Vec<Part>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    media_type: Option<String>,
    digest: String,
    size: Option<u64>,
}

/// What a manifest is, and what it names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Learnt {
    /// What it says that it is.
    pub(super) media_type: Option<String>,
    /// Its parts.
    pub(super) members: Vec<Member>,
}

/// Reads a manifest; what cannot be read teaches nothing.
pub(super) fn learn(bytes: &[u8]) -> Learnt {
    let Ok(parts) = serde_json::from_slice::<Parts>(bytes) else { return Learnt::default() };
    let member = |part: &Part, is_manifest: bool| {
        let media_type = part.media_type.clone().filter(|_| is_manifest);
        Some(Member { digest: part.digest.parse::<Digest>().ok()?, size: part.size, media_type, proven: false })
    };
    let blobs = parts.config.iter().chain(&parts.layers).chain(&parts.blobs);
    let blobs = blobs.filter_map(|part| member(part, false));
    let manifests = parts.manifests.iter().filter_map(|part| member(part, true));
    Learnt { members: blobs.chain(manifests).take(PARTS_MAX).collect(), media_type: parts.media_type }
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
        assert_eq!(learn(text.as_bytes()), Learnt { media_type: Some("t".into()), members });
    }

    #[test]
    fn an_index_names_its_manifests_with_their_types() {
        let text = format!(r#"{{"manifests":[{{"mediaType":"m","digest":"{}","size":4}}]}}"#, digest(b"child"));
        let member = Member { digest: digest(b"child"), size: Some(4), media_type: Some("m".into()), proven: false };
        assert_eq!(learn(text.as_bytes()), Learnt { media_type: None, members: vec![member] });
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes: Vec<u8>) {
            let _ = learn(&bytes);
        }
    }
}
