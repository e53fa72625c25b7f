//! What came of downloads that broke off, for those who try again: they go on where it ended.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::files::Prover;
use crate::oci::Digest;

/// How long it is kept: a client tries again within seconds or minutes.
const LIFETIME: Duration = Duration::from_secs(10 * 60);
/// How many are kept; of more, the oldest goes.
const MOST: usize = 16;
/// What is shorter is asked for again as fast.
pub(super) const BYTES_MIN: u64 = 1 << 20;

/// A spool that is not whole.
pub(super) struct Remnant {
    pub(super) path: PathBuf,
    pub(super) file: Arc<File>,
    /// The hash of all that is in it.
    pub(super) prover: Prover,
    /// How long the whole is, if whoever sent it said so.
    pub(super) size: Option<u64>,
    /// How whoever filled came to it: who comes another way does not share what may be wrong in it.
    pub(super) way: Option<Box<str>>,
    /// What is set aside for it on the disk.
    pub(super) reserved: u64,
}

/// All of them, by digest and by who sent them.
#[derive(Default)]
pub(super) struct Remnants(HashMap<(Digest, Arc<str>), (Instant, Remnant)>);

impl Remnants {
    /// Keeps one; those that have to go for it.
    #[must_use]
    pub(super) fn leave(&mut self, key: (Digest, Arc<str>), remnant: Remnant) -> Vec<Remnant> {
        let mut gone = self.take_old();
        gone.extend(self.0.insert(key, (Instant::now(), remnant)).map(|(_, remnant)| remnant));
        while self.0.len() > MOST
            && let Some(oldest) = self.0.iter().min_by_key(|(_, (since, _))| *since).map(|(key, _)| key.clone())
        {
            gone.extend(self.0.remove(&oldest).map(|(_, remnant)| remnant));
        }
        gone
    }

    /// The one of a digest and a source, if it is there and not too old.
    pub(super) fn take(&mut self, key: &(Digest, Arc<str>)) -> Option<Remnant> {
        let is_good = self.0.get(key).is_some_and(|(since, _)| since.elapsed() < LIFETIME);
        is_good.then(|| self.0.remove(key)).flatten().map(|(_, remnant)| remnant)
    }

    /// Those that nobody came back for.
    pub(super) fn take_old(&mut self) -> Vec<Remnant> {
        let is_old = |_: &(Digest, Arc<str>), (since, _): &mut (Instant, Remnant)| since.elapsed() >= LIFETIME;
        self.0.extract_if(is_old).map(|(_, (_, remnant))| remnant).collect()
    }

    /// Those of a digest, or all of them.
    pub(super) fn take_all(&mut self, of: Option<&Digest>) -> Vec<Remnant> {
        let is_of = |(digest, _): &(Digest, Arc<str>), _: &mut (Instant, Remnant)| of.is_none_or(|of| of == digest);
        self.0.extract_if(is_of).map(|(_, (_, remnant))| remnant).collect()
    }

    /// How many bytes they hold.
    pub(super) fn bytes(&self) -> u64 {
        self.0.values().map(|(_, remnant)| remnant.prover.size()).sum()
    }
}
