//! Opening what is whole, and finding out whether it still is (ADR 14).

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use crate::files::{BlobFile, Doubt, Prover, Sums};
use crate::oci::Digest;

use super::disk::Inner;

/// What came of opening a whole blob.
pub(super) enum Opened {
    File(BlobFile),
    /// Its checksums are not there or are too few: it must be verified first.
    Unsummed,
    /// Its file is gone, or has another length.
    Gone,
    /// The disk or the system failed, which says nothing of the blob.
    Failed,
}

impl<E: Send + Sync + 'static> Inner<E> {
    /// A file that still grows; its readers bring the checksums.
    pub(super) fn spool_file(&self, file: Arc<File>, size: u64) -> BlobFile {
        BlobFile::new(file, size, self.reading.clone())
    }

    /// A whole blob, which whoever asks from now on finds open.
    pub(super) fn whole_file(self: &Arc<Self>, digest: &Digest, file: Arc<File>, size: u64, sums: Sums) -> BlobFile {
        let file = self.checked_file(digest, file, size, sums);
        self.open.insert(*digest, &file);
        file
    }

    fn checked_file(self: &Arc<Self>, digest: &Digest, file: Arc<File>, size: u64, sums: Sums) -> BlobFile {
        BlobFile::checked(file, size, Some(sums), self.doubt(digest), self.reading.clone())
    }

    /// Opens a whole blob, or gives the file that is open.
    pub(super) async fn open_file(self: &Arc<Self>, digest: &Digest, size: u64, touch: bool) -> Opened {
        if let Some(file) = self.kept_open.get(digest) {
            return Opened::File(file);
        }
        let (inner, name) = (Arc::clone(self), *digest);
        let opened = self.runtime.spawn_blocking(move || {
            let opened = inner.open.get_or_open(&name, || inner.open_now(&name, size));
            if let (true, Ok(_), Ok(directory)) = (touch, &opened, inner.directory()) {
                // Only the order after a restart depends on it.
                let _ = File::open(directory.blob(&name)).and_then(|file| file.set_modified(SystemTime::now()));
            }
            opened
        });
        match opened.await {
            Ok(Ok(file)) => {
                self.kept_open.insert(*digest, file.clone());
                Opened::File(file)
            }
            Ok(Err(failed)) => failed,
            Err(_) => Opened::Failed,
        }
    }

    fn open_now(self: &Arc<Self>, digest: &Digest, size: u64) -> Result<BlobFile, Opened> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => Opened::Gone,
            _ => Opened::Failed,
        };
        let directory = self.directory().map_err(failed)?;
        let file = File::open(directory.blob(digest)).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() != size {
            return Err(Opened::Gone);
        }
        let sums = directory.read_sums(digest, size).ok_or(Opened::Unsummed)?;
        Ok(self.checked_file(digest, Arc::new(file), size, sums))
    }

    /// Hashes a blob that was there before an unclean stop, or was read wrong, and makes its checksums anew. One that is not
    /// right goes.
    pub(super) async fn verify(self: Arc<Self>, digest: Digest, size: u64) -> Option<BlobFile> {
        let inner = Arc::clone(&self);
        let verified = self.runtime.spawn_blocking(move || {
            let directory = inner.directory()?;
            let file = File::open(directory.blob(&digest))?;
            let proven = Prover::of_file(&file, digest.algorithm())?.prove(&digest);
            let proven = proven.ok().filter(|proven| proven.verified.size() == size);
            if let Some(proven) = &proven
                && let Err(error) = directory.write_sums(&digest, &proven.sums)
            {
                tracing::debug!(%digest, %error, "checksums were not kept; the blob is hashed again when it is opened again");
            }
            io::Result::Ok(proven.map(|proven| (Arc::new(file), proven.sums)))
        });
        match verified.await {
            Ok(Ok(Some((file, sums)))) => {
                self.state().index.trust(&digest);
                let file = self.whole_file(&digest, file, size, sums);
                self.kept_open.insert(digest, file.clone());
                Some(file)
            }
            Ok(Ok(None)) => {
                self.throw_out(&digest, "its file holds other bytes").await;
                None
            }
            Ok(Err(error)) => {
                tracing::warn!(%digest, %error, "a blob of the cache could not be read");
                self.throw_out(&digest, "its file cannot be read").await;
                None
            }
            // The program ends.
            Err(_) => None,
        }
    }

    /// It is not what was hashed: the next who asks has it fetched again. Its file goes first, so that it is not that of who
    /// fetches it.
    pub(super) async fn throw_out(self: &Arc<Self>, digest: &Digest, flaw: &'static str) {
        Arc::clone(self).unlink(vec![*digest]).await;
        if self.state().index.remove(digest) {
            self.rotten.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%digest, flaw, "a blob of the cache is rotten and is thrown out");
        }
    }

    /// What to do when a piece of a blob is wrong: nobody gets it any more before it was hashed.
    fn doubt(self: &Arc<Self>, digest: &Digest) -> Doubt {
        let (inner, digest) = (Arc::downgrade(self), *digest);
        Box::new(move || {
            let Some(inner) = inner.upgrade() else { return };
            let Some(size) = inner.state().index.distrust(&digest) else { return };
            inner.close_file(&digest);
            let runtime = inner.runtime.clone();
            runtime.spawn(async move {
                // It is never closed.
                let _slot = inner.doubts.acquire().await;
                inner.verifying.run(digest, || Arc::clone(&inner).verify(digest, size)).await;
            });
        })
    }
}
