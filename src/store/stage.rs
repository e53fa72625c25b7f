//! The file of an upload, and the right to write it. What is here blocks.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use crate::files::{Proven, Prover, Space};
use crate::oci::{Digest, UploadId};

use super::{CommitError, Inner, StoreError};

/// The right to use a session; gives it back when dropped.
pub(super) struct Lease {
    pub(super) inner: Arc<Inner>,
    pub(super) id: UploadId,
    /// The hash of what the file holds, if that is known.
    pub(super) prover: Option<Box<Prover>>,
    /// Where the session goes back to unless what came since becomes a blob.
    pub(super) back: Option<Mark>,
}

/// How far an upload was.
pub(super) struct Mark {
    length: u64,
    prover: Option<Box<Prover>>,
}

impl Lease {
    /// Ends the session: there is nothing to give back.
    pub(super) fn end(&self) {
        self.inner.sessions.end(self.id);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(mark) = self.back.take() {
            let file = OpenOptions::new().write(true).open(self.inner.directory.upload(self.id));
            let cut = file.and_then(|file| file.set_len(mark.length));
            if let Err(error) = &cut {
                tracing::warn!(%error, "what came of an upload that broke off could not be taken back; its client must begin anew");
            }
            self.prover = mark.prover.filter(|_| cut.is_ok());
        }
        self.inner.sessions.release(self.id, self.prover.take());
    }
}

/// The file of an upload.
pub(super) struct Stage {
    lease: Lease,
    file: File,
    length: u64,
}

impl Stage {
    /// `None` if the file is gone; the session has ended then.
    pub(super) fn open(lease: Lease) -> Result<Option<Self>, StoreError> {
        let path = lease.inner.directory.upload(lease.id);
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                lease.end();
                return Ok(None);
            }
            Err(error) => return Err(StoreError::io("open an upload", &error)),
        };
        let length = file.metadata().map_err(|error| StoreError::io("measure an upload", &error))?.len();
        Ok(Some(Self { lease, file, length }))
    }

    /// How many bytes the file has.
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// From here on the session goes back to where it is now, unless it becomes a blob.
    pub(super) fn attempt(&mut self) {
        self.lease.back = Some(Mark { length: self.length, prover: self.lease.prover.clone() });
    }

    pub(super) const fn is_attempt(&self) -> bool {
        self.lease.back.is_some()
    }

    /// Writes at the end, and hashes.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.lease.inner.health.check()?;
        self.lease.inner.check_space(Space::of_file(&self.file))?;
        let written = self.file.write_all_at(bytes, self.length);
        written.map_err(|error| StoreError::io("write an upload", &error))?;
        self.length += bytes.len() as u64;
        if let Some(prover) = &mut self.lease.prover {
            prover.update(bytes);
        }
        Ok(())
    }

    /// The proof that the file holds `digest`, with its checksums; reads it again if its hash is not known or was another
    /// one.
    pub(super) fn prove(&mut self, digest: &Digest) -> Result<Proven, CommitError> {
        // The file's length rules: after a crash or a failed write it is not what was counted.
        self.lease.prover.take_if(|known| known.algorithm() != digest.algorithm() || known.size() != self.length);
        let prover = match self.lease.prover.take() {
            Some(prover) => prover,
            None => {
                let read = Prover::of_file(&self.file, digest.algorithm());
                Box::new(read.map_err(|error| StoreError::io("read an upload", &error))?)
            }
        };
        let proven = (*prover).clone().prove(digest);
        self.lease.prover = Some(prover);
        proven.map_err(|mismatch| CommitError::Mismatch(mismatch.into()))
    }

    /// The session goes on until the blob is recorded; on an error it has ended.
    pub(super) fn place(mut self, key: &str) -> Result<Lease, StoreError> {
        self.lease.back = None;
        let placed = self.lease.inner.directory.place(self.lease.id, &self.file, key);
        if placed.is_err() {
            self.lease.end();
        }
        placed.map(|()| self.lease)
    }

    pub(super) fn discard(self) -> Result<(), StoreError> {
        let Self { mut lease, .. } = self;
        lease.back = None;
        let removed = fs::remove_file(lease.inner.directory.upload(lease.id));
        lease.end();
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove an upload", &error)),
            _ => Ok(()),
        }
    }
}
