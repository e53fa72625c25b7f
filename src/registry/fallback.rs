//! The tag under which clients look for what refers to a manifest if they do not ask for the list: `sha256-HEX`, or `sha512-` and
//! the first half of its digits (distribution-spec 1.1, "Referrers Tag Schema"). BuildKit from 0.26 on reads signatures by it alone.

use std::time::Duration;

use bytes::Bytes;
use moka::sync::Cache;

use crate::oci::{Digest, MediaType, Tag};

use super::{Manifest, Tier};

/// How much of such lists is remembered, in bytes, so that they are found by their digest too.
const MADE_BYTES_MAX: u64 = 8 << 20;
/// How long; who asks by the tag has it made anew.
pub(super) const MADE_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// Lists that were answered as manifests, by the key of whoever may see them and their digest.
pub(super) struct Fallback<K>(Cache<(K, Digest), Bytes>);

impl<K: std::hash::Hash + Eq + Send + Sync + 'static> Fallback<K> {
    pub(super) fn new(lifetime: Duration) -> Self {
        let weigh = |_: &(K, Digest), bytes: &Bytes| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Self(Cache::builder().max_capacity(MADE_BYTES_MAX).weigher(weigh).time_to_live(lifetime).build())
    }

    /// A list of referrers as a manifest, which it is by its shape.
    pub(super) fn manifest_of(&self, key: K, list: Bytes) -> Manifest {
        let digest = Digest::sha256(&list);
        self.0.insert((key, digest), list.clone());
        manifest(digest, list)
    }

    /// One that was answered before.
    pub(super) fn by_digest(&self, key: K, digest: &Digest) -> Option<Manifest> {
        self.0.get(&(key, *digest)).map(|list| manifest(*digest, list))
    }
}

fn manifest(digest: Digest, bytes: Bytes) -> Manifest {
    let media_type = MediaType::OciIndex.as_str().into();
    Manifest { digest, media_type, bytes, tier: Tier::Memory, older: None }
}

/// Whom the referrers under a tag refer to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// This one.
    Named(Digest),
    /// The one whose digest begins so: of a sha512 the tag has 64 digits of 128.
    BeginsWith(String),
}

/// Whom the referrers under a tag refer to, if it is such a tag.
pub(super) fn subject_of(tag: &Tag) -> Option<Subject> {
    let (algorithm, hex) = tag.as_str().split_once('-')?;
    // As many digits as a sha256 has.
    let digits: Digest = format!("sha256:{hex}").parse().ok()?;
    match algorithm {
        "sha256" => Some(Subject::Named(digits)),
        "sha512" => Some(Subject::BeginsWith(format!("sha512:{hex}"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn a_tag_that_stands_for_referrers_is_the_subject_s_digest() {
        let subject = Digest::sha256(b"subject");
        let of = |tag: &str| subject_of(&tag.parse().unwrap());
        assert_eq!(of(&format!("sha256-{}", subject.hex())), Some(Subject::Named(subject)));
        let hex = &Algorithm::Sha512.digest(b"subject").hex()[..64];
        assert_eq!(of(&format!("sha512-{hex}")), Some(Subject::BeginsWith(format!("sha512:{hex}"))));
        for other in [
            "v1",
            "sha256-",
            "sha256-0123",
            &format!("sha256-{}.sig", subject.hex()),
            &format!("sha512-{}", &subject.hex()[1..]),
            &format!("sha512-{}0", subject.hex()),
            &format!("sha384-{}", subject.hex()),
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
