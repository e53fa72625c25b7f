//! Uploads: bytes come in, are hashed as they are written, and become a blob when their name is known.

use std::fs;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::files::{Proven, Prover};
use crate::oci::{Algorithm, Digest, RepositoryName, UploadId};

use super::blobs::{self, BlobInfo, Held, NewBlob, Replaced};
use super::database::now;
use super::directory::blob_key;
use super::stage::{Lease, Stage};
use super::{CommitError, Inner, Store, StoreError, UploadError, rot};

/// How much is collected before it is written; as much again may be on its way to the disk.
const BUFFER_BYTES: usize = 1024 * 1024;

impl Store {
    /// Begins an upload session of `principal`, a name that is stable for as long as the session may live.
    /// Its bytes are hashed as they come by `algorithm`; should its name be by another, they are read once more.
    pub async fn begin_upload(
        &self,
        repository: &RepositoryName,
        principal: &str,
        algorithm: Algorithm,
    ) -> Result<UploadId, UploadError> {
        let begun = begin(self.inner.clone(), repository.clone(), principal.to_owned(), algorithm);
        self.inner.runtime.spawn(begun).await.map_err(|error| StoreError::stopped(&error))?
    }

    /// Takes up a session: nobody else can until the [`Upload`] is dropped.
    pub async fn upload(
        &self,
        repository: &RepositoryName,
        principal: &str,
        id: UploadId,
    ) -> Result<Upload, UploadError> {
        let prover = self.inner.sessions.take(id, repository, principal)?;
        let lease = Lease { inner: self.inner.clone(), id, prover, back: None };
        let stage = match self.inner.on_a_thread(move || Stage::open(lease)).await?? {
            Some(stage) => stage,
            None => {
                delete_upload(&self.inner, id).await?;
                return Err(UploadError::Unknown);
            }
        };
        let offset = stage.length();
        let work = Work::Idle(stage);
        Ok(Upload {
            inner: self.inner.clone(),
            id,
            repository: repository.clone(),
            offset,
            work,
            once: false,
            buffer: Vec::new(),
            spare: Vec::new(),
        })
    }

    /// How many bytes a session has. Takes it from nobody: a request that comes meanwhile finds it free.
    pub async fn upload_offset(
        &self,
        repository: &RepositoryName,
        principal: &str,
        id: UploadId,
    ) -> Result<u64, UploadError> {
        self.inner.sessions.check_idle(id, repository, principal)?;
        let path = self.inner.directory.upload(id);
        match self.inner.on_a_thread(move || fs::metadata(path)).await? {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(UploadError::Unknown),
            Err(error) => Err(StoreError::io("measure an upload", &error).into()),
        }
    }

    /// Begins an upload for one request alone: unless it becomes a blob, nothing of it is left once it is dropped.
    pub async fn upload_once(
        &self,
        repository: &RepositoryName,
        principal: &str,
        algorithm: Algorithm,
    ) -> Result<Upload, UploadError> {
        let (store, repository, principal) = (self.clone(), repository.clone(), principal.to_owned());
        // A task of its own: whoever asks may leave between the beginning and the end of this.
        let begun = async move {
            let id = begin(store.inner.clone(), repository.clone(), principal.clone(), algorithm).await?;
            match store.upload(&repository, &principal, id).await {
                Ok(mut upload) => {
                    upload.once = true;
                    Ok(upload)
                }
                Err(error) => {
                    discard(&store.inner, id).await;
                    Err(error)
                }
            }
        };
        self.inner.runtime.spawn(begun).await.map_err(|error| StoreError::stopped(&error))?
    }
}

async fn begin(
    inner: Arc<Inner>,
    repository: RepositoryName,
    principal: String,
    algorithm: Algorithm,
) -> Result<UploadId, UploadError> {
    inner.health.check()?;
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).map_err(|error| StoreError::io("draw random bits", &error.into()))?;
    let id = UploadId::from_bits(bits);
    inner.sessions.begin(id, repository.clone(), &principal)?;
    let begun = record_begin(&inner, id, repository, principal).await;
    match begun {
        Ok(()) => {
            inner.sessions.release(id, Some(Box::new(Prover::new(algorithm))));
            Ok(id)
        }
        Err(error) => {
            let path = inner.directory.upload(id);
            let _ = inner.on_a_thread(move || fs::remove_file(path)).await;
            inner.sessions.end(id);
            Err(error.into())
        }
    }
}

async fn record_begin(
    inner: &Arc<Inner>,
    id: UploadId,
    repository: RepositoryName,
    principal: String,
) -> Result<(), StoreError> {
    let here = inner.clone();
    let create = move || {
        here.check_path(&here.directory.uploads())?;
        here.directory.create_upload(id)
    };
    inner.on_a_thread(create).await??;
    let insert = "INSERT INTO uploads (id, repository, principal, started_at, last_write_at) \
                  VALUES ($1, $2, $3, $4, $4)";
    let record = inner.database.write(move |connection| {
        Box::pin(async move {
            let row = sqlx::query(insert).bind(id.to_string()).bind(repository.as_str().to_owned()).bind(principal);
            row.bind(now()).execute(connection).await?;
            Ok(())
        })
    });
    record.await
}

/// Forgets the row of an upload.
pub(super) async fn delete_upload(inner: &Inner, id: UploadId) -> Result<(), StoreError> {
    let delete = inner.database.write(move |connection| {
        Box::pin(async move {
            let row = sqlx::query("DELETE FROM uploads WHERE id = $1").bind(id.to_string());
            row.execute(connection).await?;
            Ok(())
        })
    });
    delete.await
}

/// Removes what is left of an upload that nobody will take up again.
async fn discard(inner: &Arc<Inner>, id: UploadId) {
    let path = inner.directory.upload(id);
    // Should it fail, the next start removes the file.
    let _ = inner.on_a_thread(move || fs::remove_file(path)).await;
    inner.sessions.end(id);
    if let Err(error) = delete_upload(inner, id).await {
        tracing::warn!(%error, "an upload that failed is not forgotten before the next start");
    }
}

/// An upload session, held by one request. Dropping it keeps what was written, so that another can go on.
///
/// At most 2 MiB of it are in memory.
pub struct Upload {
    inner: Arc<Inner>,
    id: UploadId,
    repository: RepositoryName,
    offset: u64,
    work: Work,
    /// Whether nobody can take it up again.
    once: bool,
    /// What is not yet being written.
    buffer: Vec<u8>,
    /// The buffer that was written before.
    spare: Vec<u8>,
}

enum Work {
    Idle(Stage),
    Writing(JoinHandle<Written>),
    /// A write failed; the session was given back with what its file holds.
    Failed(StoreError),
}

struct Written {
    stage: Stage,
    buffer: Vec<u8>,
    result: Result<(), StoreError>,
}

fn write(mut stage: Stage, buffer: Vec<u8>) -> Written {
    let result = stage.append(&buffer);
    Written { stage, buffer, result }
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").field("offset", &self.offset).finish_non_exhaustive()
    }
}

impl Upload {
    /// How many bytes the session has, those just handed to [`Self::write`] among them.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Appends bytes. Returns when they are in memory; an error may be that of an earlier write, and ends this upload
    /// until it is taken up again.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            if let Work::Failed(error) = &self.work {
                return Err(error.clone());
            }
            self.buffer.reserve_exact(BUFFER_BYTES - self.buffer.len());
            let part = bytes.split_to(bytes.len().min(BUFFER_BYTES - self.buffer.len()));
            self.buffer.extend_from_slice(&part);
            self.offset += part.len() as u64;
            if self.buffer.len() == BUFFER_BYTES {
                self.start_writing().await?;
            }
        }
        Ok(())
    }

    /// Writes what is still in memory and gives the session back; its offset is what the next request may rely on.
    pub async fn pause(mut self) -> Result<u64, StoreError> {
        if !self.buffer.is_empty() {
            self.start_writing().await?;
        }
        self.wait().await?;
        Ok(self.offset)
    }

    /// What comes from here on is taken whole or not at all: unless it is committed, the session is then what it is now.
    pub fn attempt(&mut self) {
        if let Work::Idle(stage) = &mut self.work {
            stage.attempt();
        }
    }

    /// Ends an attempt; the session can be taken up again where it began.
    pub async fn take_back(mut self) -> Result<(), StoreError> {
        self.buffer.clear();
        let stage = self.take_stage().await?;
        self.inner.on_a_thread(move || drop(stage)).await
    }

    /// Makes the upload the blob `digest` of its repository. Once begun it goes on, whoever stops waiting.
    ///
    /// When this returns, the blob is on the disk and the repository has it.
    pub async fn commit(self, digest: &Digest) -> Result<BlobInfo, CommitError> {
        let runtime = self.inner.runtime.clone();
        runtime.spawn(self.commit_as(*digest)).await.map_err(|error| StoreError::stopped(&error))?
    }

    /// Ends the session and removes what was written.
    pub async fn cancel(self) -> Result<(), StoreError> {
        let runtime = self.inner.runtime.clone();
        runtime.spawn(self.cancel_now()).await.map_err(|error| StoreError::stopped(&error))?
    }

    async fn cancel_now(mut self) -> Result<(), StoreError> {
        self.once = false;
        self.buffer.clear();
        let stage = self.take_stage().await?;
        let id = self.id;
        self.inner.on_a_thread(move || stage.discard()).await??;
        delete_upload(&self.inner, id).await
    }

    /// Has a thread write the buffer, once it has written the one before.
    async fn start_writing(&mut self) -> Result<(), StoreError> {
        self.wait().await?;
        let spare = std::mem::take(&mut self.spare);
        let stage = self.take_stage().await?;
        let buffer = std::mem::replace(&mut self.buffer, spare);
        self.work = Work::Writing(self.inner.runtime.spawn_blocking(move || write(stage, buffer)));
        Ok(())
    }

    /// Waits until nothing is being written.
    async fn wait(&mut self) -> Result<(), StoreError> {
        if let Work::Writing(task) = &mut self.work {
            self.work = match task.await {
                Ok(Written { stage, mut buffer, result: Ok(()) }) => {
                    buffer.clear();
                    self.spare = buffer;
                    Work::Idle(stage)
                }
                Ok(Written { result: Err(error), .. }) => Work::Failed(error),
                Err(error) => Work::Failed(StoreError::stopped(&error)),
            };
        }
        match &self.work {
            Work::Failed(error) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// The stage, which this upload then has no more.
    async fn take_stage(&mut self) -> Result<Stage, StoreError> {
        self.wait().await?;
        let gone = StoreError::Io {
            action: "go on with an upload",
            kind: io::ErrorKind::Other,
            detail: "it was interrupted".to_owned(),
        };
        match std::mem::replace(&mut self.work, Work::Failed(gone)) {
            Work::Idle(stage) => Ok(stage),
            Work::Failed(error) => Err(error),
            Work::Writing(task) => Ok(task.await.map_err(|error| StoreError::stopped(&error))?.stage),
        }
    }

    async fn commit_as(mut self, digest: Digest) -> Result<BlobInfo, CommitError> {
        self.inner.health.check()?;
        let mut stage = self.take_stage().await?;
        let rest = std::mem::take(&mut self.buffer);
        let (stage, proven) = self
            .inner
            .on_a_thread(move || {
                stage.append(&rest)?;
                let proven = stage.prove(&digest)?;
                Ok::<_, CommitError>((stage, proven))
            })
            .await??;
        let replaces = match blobs::find_held(&self.inner, &digest).await? {
            Held::Whole(info) if blobs::link_held(&self.inner, self.id, &self.repository, &info).await? => {
                // Should it fail, the next start removes the file.
                let _ = self.inner.on_a_thread(move || stage.discard()).await?;
                self.once = false;
                return Ok(info);
            }
            // It was collected or found rotten since.
            Held::Whole(info) => Some(Replaced { info, flaw: None }),
            Held::Flawed(replaced) => Some(replaced),
            Held::Missing => None,
        };
        let placed = self.place(stage, proven, replaces).await;
        self.once = self.once && placed.is_err();
        placed
    }

    /// Files first, then the row, which may name another file of this blob.
    async fn place(&self, stage: Stage, proven: Proven, replaces: Option<Replaced>) -> Result<BlobInfo, CommitError> {
        let key = blob_key(proven.verified.digest(), self.id);
        let placed = self.inner.on_a_thread({
            let key = key.clone();
            move || stage.place(&key)
        });
        let lease = match placed.await? {
            Ok(lease) => lease,
            Err(error) => {
                // Its file is gone; should the row stay for now, the next start removes it.
                let _ = delete_upload(&self.inner, self.id).await;
                return Err(error.into());
            }
        };
        let old = replaces.as_ref().map(|replaced| replaced.info.key.clone());
        let new = NewBlob { proven, key: key.clone(), upload: self.id, repository: self.repository.clone(), old };
        let recorded = blobs::record(&self.inner, new).await;
        // SQLite says "full" only when nothing was committed; after other errors the row may exist all the same.
        let superfluous = match &recorded {
            Ok(info) => info.key != key,
            Err(error) => *error == StoreError::NoSpace,
        };
        if superfluous {
            let path = self.inner.directory.blob(&key);
            // Should it fail, the scan for files without rows removes it.
            let _ = self.inner.on_a_thread(move || fs::remove_file(path)).await?;
        } else if let (Ok(_), Some(replaced)) = (&recorded, replaces) {
            rot::put_away(&self.inner, replaced).await;
        }
        lease.end();
        Ok(recorded?)
    }
}

impl Drop for Upload {
    /// What came in before the client left is kept: it may come back and go on from there.
    fn drop(&mut self) {
        let rest = std::mem::take(&mut self.buffer);
        let work = std::mem::replace(&mut self.work, Work::Failed(StoreError::Unhealthy));
        if self.once {
            let (inner, id) = (self.inner.clone(), self.id);
            self.inner.runtime.spawn(async move {
                if let Work::Writing(task) = work {
                    let _ = task.await;
                }
                discard(&inner, id).await;
            });
            return;
        }
        match work {
            Work::Idle(stage) if stage.is_attempt() => {
                self.inner.runtime.spawn_blocking(move || drop(stage));
            }
            Work::Idle(stage) if !rest.is_empty() => {
                self.inner.runtime.spawn_blocking(move || write(stage, rest));
            }
            Work::Writing(task) if !rest.is_empty() => {
                let runtime = self.inner.runtime.clone();
                self.inner.runtime.spawn(async move {
                    if let Ok(Written { stage, result: Ok(()), .. }) = task.await {
                        // Of an attempt it is taken back again with the rest.
                        runtime.spawn_blocking(move || write(stage, rest));
                    }
                });
            }
            // A task that nobody waits for still ends, and gives the session back.
            Work::Idle(_) | Work::Writing(_) | Work::Failed(_) => {}
        }
    }
}
