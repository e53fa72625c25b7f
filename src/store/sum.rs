//! Checksums for blobs that have none: those that came before there were any (ADR 14).

use std::fs::File;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::files::{Proven, Prover, READ_BYTES, read_full};
use crate::oci::{Algorithm, Digest};

use super::blobs::BlobInfo;
use super::database::digest_from_row;
use super::{Inner, StoreError, rot};

/// How often it is looked for blobs without checksums.
const PASS_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// How long one read of 1 MiB takes at least, which makes 20 MiB a second: others need the disk.
const READ_INTERVAL: Duration = Duration::from_millis(50);

/// Hashes what has no checksums, one blob after the other, until the store is closed or dropped. What a stop interrupts is
/// done by the next start: a blob that is not finished has none.
pub(super) async fn sum_until_closed(inner: Weak<Inner>, mut closing: watch::Receiver<bool>) {
    tokio::select! {
        biased;
        _ = closing.wait_for(|closing| *closing) => {}
        () = sum_again_and_again(inner) => {}
    }
}

async fn sum_again_and_again(inner: Weak<Inner>) {
    let mut ticks = tokio::time::interval(PASS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut after = String::new();
        let mut summed = 0u64;
        loop {
            let Some(inner) = inner.upgrade() else { return };
            let found = match next_without(&inner, &after).await {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "it could not be looked for blobs without checksums");
                    break;
                }
            };
            after = found.digest.to_string();
            match sum(inner, &found).await {
                Ok(true) => summed += 1,
                Ok(false) => {}
                Err(error) => tracing::warn!(digest = %found.digest, %error, "a blob has no checksums yet"),
            }
        }
        if summed > 0 {
            tracing::info!(summed, "blobs that had no checksums have some now");
        }
    }
}

/// The first blob after a digest that has none, or that was found rotten: its file may have been put back.
async fn next_without(inner: &Inner, after: &str) -> Result<Option<BlobInfo>, StoreError> {
    let query = "SELECT digest, key, size FROM blobs WHERE digest > $1 \
                 AND (rotten_at IS NOT NULL OR NOT EXISTS (SELECT 1 FROM blob_sums WHERE digest = blobs.digest)) \
                 ORDER BY digest LIMIT 1";
    let row = sqlx::query_as::<_, (String, String, i64)>(query).bind(after);
    let Some((digest, key, size)) = row.fetch_optional(inner.database.readers()).await? else { return Ok(None) };
    BlobInfo::from_row(digest_from_row(&digest)?, (key, size)).map(Some)
}

/// Hashes one, and keeps its checksums if it is right.
async fn sum(inner: Arc<Inner>, info: &BlobInfo) -> Result<bool, StoreError> {
    let (here, name) = (inner.clone(), info.clone());
    let opened = inner.on_a_thread(move || here.open_file(&name)).await?;
    let weak = Arc::downgrade(&inner);
    let file = match opened {
        Ok(file) => file,
        Err(StoreError::Damaged(_)) => return rot::set_aside(&inner, info, rot::GONE).await.map(|()| false),
        Err(error) => return Err(error),
    };
    let runtime = inner.runtime.clone();
    // It may take long, and must not keep the directory locked.
    drop(inner);
    let proven = hash_slowly(&runtime, file, &info.digest).await;
    let Some(inner) = weak.upgrade() else { return Ok(false) };
    match proven.map_err(|error| StoreError::io("read a blob", &error))? {
        Some(proven) => rot::keep_sums(&inner, info, proven.sums).await.map(|()| true),
        None => rot::set_aside(&inner, info, rot::OTHER_BYTES).await.map(|()| false),
    }
}

async fn hash_slowly(runtime: &tokio::runtime::Handle, file: File, digest: &Digest) -> io::Result<Option<Proven>> {
    let mut ticks = tokio::time::interval(READ_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut state, mut is_all) = (Reading::new(file, digest.algorithm()), false);
    while !is_all {
        ticks.tick().await;
        let read = runtime.spawn_blocking(move || state.read()).await;
        (state, is_all) = read.map_err(io::Error::other)??;
    }
    Ok(state.prover.prove(digest).ok())
}

/// A file that is read block by block.
struct Reading {
    file: File,
    prover: Prover,
    buffer: Vec<u8>,
}

impl Reading {
    fn new(file: File, algorithm: Algorithm) -> Self {
        Self { file, prover: Prover::new(algorithm), buffer: vec![0; READ_BYTES] }
    }

    /// Hashes the next block; whether it was the last. Blocks.
    fn read(mut self) -> io::Result<(Self, bool)> {
        let filled = read_full(&self.file, &mut self.buffer, self.prover.size())?;
        self.prover.update(&self.buffer[..filled]);
        Ok((self, filled < READ_BYTES))
    }
}
