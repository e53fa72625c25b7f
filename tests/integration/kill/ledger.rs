//! What a gateway has acknowledged and what it was asked last, and whether it still knows the one and has no half of the
//! other.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::content;
use crate::support::{Answer, Client};

/// A repository, and a digest or tag in it.
type Place = (String, String);

#[derive(Default)]
pub(super) struct Ledger {
    blobs: BTreeSet<Place>,
    manifests: BTreeMap<Place, Vec<u8>>,
    tags: BTreeMap<Place, String>,
    attempts: Vec<Attempt>,
}

/// Something that was asked for and not acknowledged.
#[derive(Clone)]
pub(super) enum Attempt {
    Blob { repository: String, digest: String },
    Manifest { repository: String, tag: String, bytes: Vec<u8> },
    Upload(Upload),
}

/// An upload that is under way.
#[derive(Clone)]
pub(super) struct Upload {
    pub(super) repository: String,
    pub(super) location: String,
    pub(super) bytes: Vec<u8>,
    /// How many bytes were acknowledged.
    pub(super) acknowledged: u64,
    /// Whether its end was asked for, so that it may be over.
    pub(super) closing: bool,
    /// Whether it may hold other bytes.
    pub(super) is_doubtful: bool,
}

/// How much a ledger holds.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Totals {
    pub(super) acknowledged: usize,
    pub(super) attempts: usize,
}

impl Ledger {
    /// What is about to be asked for.
    pub(super) fn attempt(&mut self, attempt: Attempt) {
        self.attempts.push(attempt);
    }

    /// The last attempt was acknowledged.
    pub(super) fn acknowledge(&mut self) {
        match self.attempts.pop().expect("something was attempted") {
            Attempt::Blob { repository, digest } => drop(self.blobs.insert((repository, digest))),
            Attempt::Manifest { repository, tag, bytes } => {
                let digest = content::digest(&bytes);
                self.manifests.insert((repository.clone(), digest.clone()), bytes);
                self.tags.insert((repository, tag), digest);
            }
            Attempt::Upload(_) => {}
        }
    }

    /// The upload that the last attempt belongs to.
    pub(super) fn upload(&mut self) -> &mut Upload {
        let upload = self.attempts.iter_mut().rev().find_map(|attempt| match attempt {
            Attempt::Upload(upload) => Some(upload),
            _ => None,
        });
        upload.expect("an upload is under way")
    }

    pub(super) fn totals(&self) -> Totals {
        let acknowledged = self.blobs.len() + self.manifests.len() + self.tags.len();
        Totals { acknowledged, attempts: self.attempts.len() }
    }

    /// Every blob that was acknowledged.
    pub(super) fn blob_digests(&self) -> BTreeSet<String> {
        self.blobs.iter().map(|(_, digest)| digest.clone()).collect()
    }

    /// A ledger with nothing but where a tag points to.
    pub(super) fn only_tag(&self, tag: &str) -> Self {
        let tags = self.tags.iter().filter(|((_, name), _)| name == tag);
        Self { tags: tags.map(|(place, digest)| (place.clone(), digest.clone())).collect(), ..Self::default() }
    }

    pub(super) fn absorb(&mut self, other: Self) {
        self.blobs.extend(other.blobs);
        self.manifests.extend(other.manifests);
        self.tags.extend(other.tags);
        self.attempts.extend(other.attempts);
    }

    /// From now on an upload that is under way may be gone, or shorter than was acknowledged, or hold other bytes.
    pub(super) fn doubt_uploads(&mut self) {
        for attempt in &mut self.attempts {
            if let Attempt::Upload(upload) = attempt {
                (upload.acknowledged, upload.closing, upload.is_doubtful) = (0, true, true);
            }
        }
    }

    /// Panics if anything that was acknowledged is missing or wrong, or anything else is there by half. What was not
    /// acknowledged and is there counts as acknowledged from now on.
    pub(super) fn check(&mut self, client: &Client) {
        for attempt in std::mem::take(&mut self.attempts) {
            self.settle(client, attempt);
        }
        self.check_pulls(client);
    }

    /// Panics if anything that was acknowledged cannot be pulled. Changes nothing, there or here.
    pub(super) fn check_pulls(&self, client: &Client) {
        for (repository, digest) in &self.blobs {
            assert!(has_blob(client, repository, digest), "{repository} has lost blob {digest}");
        }
        for ((repository, digest), bytes) in &self.manifests {
            let found = manifest(client, repository, digest);
            assert_eq!(found.as_ref(), Some(bytes), "{repository} has lost manifest {digest}");
        }
        for ((repository, tag), digest) in &self.tags {
            let found = manifest(client, repository, tag).map(|bytes| content::digest(&bytes));
            assert_eq!(found.as_ref(), Some(digest), "{repository}:{tag} is not what was acknowledged");
        }
    }

    fn settle(&mut self, client: &Client, attempt: Attempt) {
        match attempt {
            Attempt::Blob { repository, digest } => {
                if has_blob(client, &repository, &digest) {
                    self.blobs.insert((repository, digest));
                }
            }
            Attempt::Manifest { repository, tag, bytes } => {
                let digest = content::digest(&bytes);
                let by_digest = manifest(client, &repository, &digest);
                assert!(
                    by_digest.as_ref().is_none_or(|found| *found == bytes),
                    "{repository}: {digest} has other bytes"
                );
                let named = manifest(client, &repository, &tag).map(|found| content::digest(&found));
                // Manifest and tag are one transaction: both or neither, unless the manifest was there before.
                let (moved, known) = (named.as_ref() == Some(&digest), (repository.clone(), digest.clone()));
                let whole = moved == by_digest.is_some() || self.manifests.contains_key(&known);
                assert!(whole, "{repository}:{tag} was pushed by half");
                if moved {
                    self.manifests.insert(known, bytes);
                    self.tags.insert((repository, tag), digest);
                }
            }
            Attempt::Upload(upload) => self.resume(client, &upload),
        }
    }

    /// Takes an upload up where it is, and ends it.
    fn resume(&mut self, client: &Client, upload: &Upload) {
        let status = client.get(&upload.location);
        if upload.closing && status.status == 404 {
            return;
        }
        let offset = offset(&status.expect(204), upload.acknowledged);
        let digest = content::digest(&upload.bytes);
        let rest = &upload.bytes[usize::try_from(offset).unwrap()..];
        let path = format!("{}?digest={digest}", upload.location);
        let end = client.send("PUT", &path, &[], rest);
        if upload.is_doubtful && end.status == 400 {
            assert_eq!(end.code(), "DIGEST_INVALID");
            return;
        }
        end.expect(201);
        self.blobs.insert((upload.repository.clone(), digest));
    }
}

/// How many bytes an upload has by its Range; at least what was acknowledged.
fn offset(status: &Answer, acknowledged: u64) -> u64 {
    let range = status.header("range").expect("a Range");
    let last: u64 = range.strip_prefix("0-").and_then(|last| last.parse().ok()).expect("a Range from 0");
    // `0-0` says that there is one byte, or none.
    let offset = if last == 0 { acknowledged } else { last + 1 };
    assert!(offset >= acknowledged, "{acknowledged} bytes were acknowledged, {range} are there");
    offset
}

fn has_blob(client: &Client, repository: &str, digest: &str) -> bool {
    let answer = client.get(&format!("/v2/{repository}/blobs/{digest}"));
    match answer.status {
        200 => {
            assert_eq!(content::digest(&answer.body), digest, "{repository} has a blob with wrong bytes");
            true
        }
        404 => false,
        _ => panic!("{repository}, blob {digest}: {} {}", answer.status, answer.text()),
    }
}

/// A manifest, all of whose parts are there.
fn manifest(client: &Client, repository: &str, reference: &str) -> Option<Vec<u8>> {
    let answer = client.get(&format!("/v2/{repository}/manifests/{reference}"));
    if answer.status == 404 {
        return None;
    }
    let answer = answer.expect(200);
    assert_eq!(answer.header("docker-content-digest"), Some(&*content::digest(&answer.body)));
    let json = answer.json();
    let children = json["layers"].as_array().into_iter().flatten().chain([&json["config"]]);
    for child in children.map(|child| child["digest"].as_str().unwrap()) {
        assert!(has_blob(client, repository, child), "{repository}:{reference} needs {child}, which is not there");
    }
    Some(answer.body)
}
