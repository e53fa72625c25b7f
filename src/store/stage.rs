//! The file of an upload, and the right to write it. What is here blocks.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use crate::files::Space;
use crate::oci::{Algorithm, Digest, UploadId, Verified, Verifier};

use super::{CommitError, Inner, StoreError};

/// How much is read at once when a file must be hashed again.
const READ_BYTES: usize = 1024 * 1024;

/// The right to use a session; gives it back when dropped.
pub(super) struct Lease {
    pub(super) inner: Arc<Inner>,
    pub(super) id: UploadId,
    /// The hash of what the file holds, if that is known.
    pub(super) verifier: Option<Box<Verifier>>,
}

impl Lease {
    /// Ends the session: there is nothing to give back.
    pub(super) fn end(&self) {
        self.inner.sessions.end(self.id);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.inner.sessions.release(self.id, self.verifier.take());
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
        if let Some(verifier) = &mut self.lease.verifier {
            verifier.update(bytes);
        }
        Ok(())
    }

    /// The proof that the file holds `digest`; reads it again if its hash is not known or was another one.
    pub(super) fn verify(&mut self, digest: &Digest) -> Result<Verified, CommitError> {
        // The file's length rules: after a crash or a failed write it is not what was counted.
        self.lease.verifier.take_if(|known| known.algorithm() != digest.algorithm() || known.size() != self.length);
        let verifier = match self.lease.verifier.take() {
            Some(verifier) => verifier,
            None => Box::new(self.hash(digest.algorithm())?),
        };
        let checked = (*verifier).clone().verify(digest);
        self.lease.verifier = Some(verifier);
        checked.map_err(|mismatch| CommitError::Mismatch(mismatch.into()))
    }

    fn hash(&self, algorithm: Algorithm) -> Result<Verifier, StoreError> {
        let mut verifier = Verifier::new(algorithm);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match self.file.read_at(&mut buffer, verifier.size()) {
                Ok(0) => return Ok(verifier),
                Ok(count) => verifier.update(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(StoreError::io("read an upload", &error)),
            }
        }
    }

    /// The session goes on until the blob is recorded; on an error it has ended.
    pub(super) fn place(self, key: &str) -> Result<Lease, StoreError> {
        let placed = self.lease.inner.directory.place(self.lease.id, &self.file, key);
        if placed.is_err() {
            self.lease.end();
        }
        placed.map(|()| self.lease)
    }

    pub(super) fn discard(self) -> Result<(), StoreError> {
        let Self { lease, .. } = self;
        let removed = fs::remove_file(lease.inner.directory.upload(lease.id));
        lease.end();
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove an upload", &error)),
            _ => Ok(()),
        }
    }
}
