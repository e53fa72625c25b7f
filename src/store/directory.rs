//! The data directory: who holds it, what format it has, and where things lie in it.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::FlockOperation;

use crate::oci::{Digest, UploadId};

use super::database::Health;
use super::{OpenError, StoreError};

/// The format of the directory that this program writes.
const VERSION: u64 = 1;
/// The file that says so.
const VERSION_FILE: &str = "version";
/// The file that is locked.
const LOCK_FILE: &str = "lock";

/// The data directory, locked for this process as long as this lives.
#[derive(Debug)]
pub(super) struct Directory {
    data: PathBuf,
    health: Health,
    /// The directories below `blobs/` whose own entries are known to be on the disk.
    synced: Mutex<HashSet<PathBuf>>,
    is_read_only: bool,
    /// None on a read-only directory that has no lock.
    lock: Option<File>,
}

impl Directory {
    /// Makes what is missing, and locks it; where nothing can be written, what is there is opened for reading alone. Blocks.
    pub(super) fn open(data: &Path, health: Health) -> Result<Self, OpenError> {
        match Self::open_for_writing(data, health.clone()) {
            Err(OpenError::ReadOnly { .. }) if data.join(VERSION_FILE).exists() => Self::open_for_reading(data, health),
            opened => opened,
        }
    }

    fn open_for_reading(data: &Path, health: Health) -> Result<Self, OpenError> {
        // Several may read, but not beside one who writes.
        let lock = match File::open(data.join(LOCK_FILE)) {
            Ok(file) => Some(take_lock(data, file, FlockOperation::NonBlockingLockShared)?),
            Err(_) => None,
        };
        check_version(data)?;
        Ok(Self { data: data.into(), health, synced: Mutex::default(), is_read_only: true, lock })
    }

    fn open_for_writing(data: &Path, health: Health) -> Result<Self, OpenError> {
        let failed = |path: &Path, error: io::Error| open_error(data, path, &error);
        make_directory(data, true).map_err(|error| failed(data, error))?;
        let lock = lock(data)?;
        check_version(data)?;
        // A disk that is only full is no reason not to start.
        if let Err(error) = try_to_write(data)
            && is_refusal(&error)
        {
            return Err(failed(data, error));
        }
        for name in ["blobs", "uploads", "quarantine"] {
            let path = data.join(name);
            make_directory(&path, false).map_err(|error| failed(&path, error))?;
        }
        // It holds signing keys; SQLite gives the files beside it the same mode.
        let database = data.join("metadata.db");
        private().create(true).append(true).open(&database).map_err(|error| failed(&database, error))?;
        sync_directory(data).map_err(|error| failed(data, error))?;
        write_version(data).map_err(|error| failed(&data.join(VERSION_FILE), error))?;
        Ok(Self { data: data.into(), health, synced: Mutex::default(), is_read_only: false, lock: Some(lock) })
    }

    /// Whether nothing could be written when it was opened; nothing is written then.
    pub(super) const fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// A small file that is always there.
    pub(super) fn version(&self) -> PathBuf {
        self.data.join(VERSION_FILE)
    }

    /// The file of the metadata.
    pub(super) fn database(&self) -> PathBuf {
        self.data.join("metadata.db")
    }

    /// Where blobs lie.
    pub(super) fn blobs(&self) -> PathBuf {
        self.data.join("blobs")
    }

    /// The file of a blob.
    pub(super) fn blob(&self, key: &str) -> PathBuf {
        self.blobs().join(key)
    }

    /// Where uploads lie.
    pub(super) fn uploads(&self) -> PathBuf {
        self.data.join("uploads")
    }

    /// The file of an upload.
    pub(super) fn upload(&self, id: UploadId) -> PathBuf {
        self.uploads().join(id.to_string())
    }

    /// Where files lie that are not what they should be, for the operator to look at.
    pub(super) fn quarantine(&self) -> PathBuf {
        self.data.join("quarantine")
    }

    /// Puts the file of a blob aside, if it is there. Blocks.
    pub(super) fn put_aside(&self, key: &str) -> io::Result<()> {
        let path = self.blob(key);
        let name = path.file_name().unwrap_or(path.as_os_str());
        match fs::rename(&path, self.quarantine().join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether the data directory is still the one that was opened: where its disk is gone, no file is there, and that says
    /// nothing of any blob. Blocks.
    pub(super) fn check_here(&self) -> Result<(), StoreError> {
        let same = |found: Metadata, held: Metadata| (found.dev(), found.ino()) == (held.dev(), held.ino());
        let found = match &self.lock {
            Some(lock) => fs::metadata(self.data.join(LOCK_FILE)).and_then(|found| Ok(same(found, lock.metadata()?))),
            None => fs::metadata(self.version()).map(|_| true),
        };
        match found {
            Ok(true) => Ok(()),
            Ok(false) => Err(StoreError::io("find the lock", &io::ErrorKind::NotFound.into())),
            Err(error) => Err(StoreError::io("find the lock", &error)),
        }
    }

    /// Makes the empty file of an upload. Blocks.
    pub(super) fn create_upload(&self, id: UploadId) -> Result<(), StoreError> {
        let created = private().write(true).create_new(true).open(self.upload(id));
        created.map(drop).map_err(|error| StoreError::io("create an upload", &error))
    }

    /// Makes the file of an upload the file of a blob, and all of it durable. Blocks.
    ///
    /// On an error the upload's file is gone: after a failed sync nobody knows what it holds.
    pub(super) fn place(&self, id: UploadId, file: &File, key: &str) -> Result<(), StoreError> {
        let staged = self.upload(id);
        let placed = self.try_place(&staged, file, key);
        if placed.is_err() {
            let _ = fs::remove_file(&staged);
            let _ = fs::remove_file(self.blob(key));
        }
        placed
    }

    fn try_place(&self, staged: &Path, file: &File, key: &str) -> Result<(), StoreError> {
        sync(&self.health, "sync an upload", file)?;
        let path = self.blob(key);
        self.make_parents(&path)?;
        fs::rename(staged, &path).map_err(|error| StoreError::io("name a blob", &error))?;
        let parent = path.parent().unwrap_or(&path);
        self.sync_directory(parent)
    }

    /// Makes the directories that hold a blob's file. One that another commit has just made may not be durable yet, so
    /// each is synced by whoever uses it, until one of them has done it.
    fn make_parents(&self, path: &Path) -> Result<(), StoreError> {
        let blobs = self.blobs();
        let below: Vec<_> = path.ancestors().skip(1).take_while(|parent| *parent != blobs).collect();
        for directory in below.into_iter().rev() {
            if self.synced.lock().unwrap_or_else(PoisonError::into_inner).contains(directory) {
                continue;
            }
            make_directory(directory, false).map_err(|error| StoreError::io("make a directory", &error))?;
            self.sync_directory(directory.parent().unwrap_or(directory))?;
            self.synced.lock().unwrap_or_else(PoisonError::into_inner).insert(directory.into());
        }
        Ok(())
    }

    fn sync_directory(&self, directory: &Path) -> Result<(), StoreError> {
        let opened = File::open(directory).map_err(|error| StoreError::io("open a directory", &error))?;
        sync(&self.health, "sync a directory", &opened)
    }
}

/// The key of a blob's file: every upload has one of its own, so that no commit can touch the file of another.
pub(super) fn blob_key(digest: &Digest, id: UploadId) -> String {
    let hex = digest.hex();
    format!("{}/{}/{hex}.{id}", digest.algorithm().as_str(), &hex[..2])
}

/// Syncs once: after a failure the system may forget what it could not write, and a second sync would lie.
pub(super) fn sync(health: &Health, action: &'static str, file: &File) -> Result<(), StoreError> {
    let Err(error) = file.sync_all() else { return Ok(()) };
    match StoreError::io(action, &error) {
        full @ (StoreError::NoSpace | StoreError::ReadOnly) => Err(full),
        _ => {
            tracing::error!(%error, action, "a sync failed");
            health.lose(action);
            Err(StoreError::Unhealthy)
        }
    }
}

fn open_error(data: &Path, path: &Path, error: &io::Error) -> OpenError {
    let detail = error.to_string();
    if is_refusal(error) {
        OpenError::ReadOnly { data: data.into(), detail }
    } else {
        OpenError::Io { path: path.into(), detail }
    }
}

/// Whether nothing may be written there.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

fn make_directory(path: &Path, parents: bool) -> io::Result<()> {
    match DirBuilder::new().recursive(parents).mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made,
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Takes the lock, which the system gives back when this process ends, however it ends.
fn lock(data: &Path) -> Result<File, OpenError> {
    let path = data.join(LOCK_FILE);
    let failed = |error: io::Error| open_error(data, &path, &error);
    let file = private().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    let mut file = take_lock(data, file, FlockOperation::NonBlockingLockExclusive)?;
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
    Ok(file)
}

fn take_lock(data: &Path, file: File, operation: FlockOperation) -> Result<File, OpenError> {
    let Err(error) = rustix::fs::flock(&file, operation) else { return Ok(file) };
    if error != rustix::io::Errno::WOULDBLOCK {
        return Err(open_error(data, &data.join(LOCK_FILE), &error.into()));
    }
    let mut holder = String::new();
    let read = (&file).take(32).read_to_string(&mut holder);
    let pid = read.ok().and_then(|_| holder.trim().parse().ok());
    Err(OpenError::InUse { data: data.into(), pid })
}

/// Only a file that is made can tell: a disk may have become read-only without saying so in its flags, and a lock that is
/// there already may be opened where no file can be made.
pub(super) fn try_to_write(data: &Path) -> io::Result<()> {
    let path = data.join("probe");
    let made = private().write(true).create(true).truncate(true).open(&path);
    let _ = fs::remove_file(path);
    made.map(drop)
}

fn check_version(data: &Path) -> Result<(), OpenError> {
    let path = data.join(VERSION_FILE);
    let detail = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => error.to_string(),
        Ok(text) => match text.trim().parse() {
            Ok(found) if found <= VERSION => return Ok(()),
            Ok(found) => return Err(OpenError::NewerVersion { data: data.into(), found }),
            Err(_) => format!("holds {:?}, where the number of a data format belongs", text.trim()),
        },
    };
    Err(OpenError::Io { path, detail })
}

fn write_version(data: &Path) -> io::Result<()> {
    let path = data.join(VERSION_FILE);
    if path.exists() {
        return Ok(());
    }
    let staged = data.join("version.new");
    let mut file = private().write(true).create(true).truncate(true).open(&staged)?;
    writeln!(file, "{VERSION}")?;
    file.sync_all()?;
    fs::rename(staged, path)?;
    sync_directory(data)
}
