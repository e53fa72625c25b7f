//! `admin.sock` in the data directory: only the gateway's own system user, and root, can connect to it.

use std::fmt;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use tokio::net::UnixStream;

use super::Caller;

/// The socket's name in the data directory.
pub const SOCKET_NAME: &str = "admin.sock";
/// Where it is made: a directory into which nobody else can look, so that it has its mode before it can be found.
const STAGE_NAME: &str = "admin.new";
/// Who may connect.
const MODE: u32 = 0o600;
/// The longest path of a Unix socket in bytes (`sun_path`, without its end).
const PATH_BYTES_MAX: usize = 107;

/// The socket, bound. Its file goes when this is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Makes `admin.sock` in `data`, in the place of one that an earlier process left. Whoever calls holds the lock of the
    /// directory, so nobody serves that one any more.
    pub fn bind(data: &Path) -> Result<Self, SocketError> {
        let path = data.join(SOCKET_NAME);
        let failed = |error: io::Error| SocketError::Bind { path: path.clone(), detail: error.to_string() };
        let listener = bind(data, &path).map_err(failed)?;
        Ok(Self { listener, path })
    }

    /// To accept from, in the runtime that is entered.
    pub(super) fn listen(&self) -> io::Result<tokio::net::UnixListener> {
        tokio::net::UnixListener::from_std(self.listener.try_clone()?)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "the socket could not be removed");
        }
    }
}

fn bind(data: &Path, path: &Path) -> io::Result<UnixListener> {
    let stage = data.join(STAGE_NAME);
    let staged = stage.join(SOCKET_NAME);
    // What an earlier process left half done.
    let _ = fs::remove_file(&staged);
    let _ = fs::remove_dir(&stage);
    DirBuilder::new().mode(0o700).create(&stage)?;
    let bound = with_short_path(&staged, |short| UnixListener::bind(short)).and_then(|listener| {
        fs::set_permissions(&staged, Permissions::from_mode(MODE))?;
        listener.set_nonblocking(true)?;
        fs::rename(&staged, path)?;
        Ok(listener)
    });
    let _ = fs::remove_file(&staged);
    let _ = fs::remove_dir(&stage);
    bound
}

/// Calls `act` with a path to the same socket that the system takes, however deep its directory is.
pub(super) fn with_short_path<T>(path: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return act(path) };
    if path.as_os_str().len() <= PATH_BYTES_MAX {
        return act(path);
    }
    let directory = File::open(directory)?;
    act(&PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name))
}

/// Who is at the other end, as the system says.
pub(super) fn caller(stream: &UnixStream) -> Caller {
    let own = rustix::process::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == own || peer.uid() == 0 => Caller::Operator,
        _ => Caller::Stranger,
    }
}

/// Connects to the gateway that runs on the data directory `data`. Needs a tokio runtime around it.
pub async fn connect(data: &Path) -> Result<UnixStream, SocketError> {
    let path = data.join(SOCKET_NAME);
    let connected = with_short_path(&path, |short| std::os::unix::net::UnixStream::connect(short));
    let connected = connected.and_then(|stream| {
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream)
    });
    connected.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => SocketError::Missing { path },
        io::ErrorKind::ConnectionRefused => SocketError::Stale { path },
        io::ErrorKind::PermissionDenied => {
            let owner = owner(&path).or_else(|| owner(data));
            SocketError::Forbidden { path, owner }
        }
        _ => SocketError::Connect { path, detail: error.to_string() },
    })
}

fn owner(path: &Path) -> Option<u32> {
    fs::metadata(path).ok().map(|metadata| metadata.uid())
}

/// The socket cannot be made, or not be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketError {
    /// It cannot be made.
    Bind {
        /// Where it was to be.
        path: PathBuf,
        /// The system's words.
        detail: String,
    },
    /// There is none: no gateway runs there.
    Missing {
        /// Where it would be.
        path: PathBuf,
    },
    /// Nobody serves it any more.
    Stale {
        /// Where it is.
        path: PathBuf,
    },
    /// It belongs to another system user.
    Forbidden {
        /// Where it is.
        path: PathBuf,
        /// The number of the user who has it, if that can be seen.
        owner: Option<u32>,
    },
    /// Another failure.
    Connect {
        /// Where it is.
        path: PathBuf,
        /// The system's words.
        detail: String,
    },
}

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { path, detail } => write!(
                f,
                "cannot make the socket {}: {detail}; check that registry.data is on a file system that takes sockets, and \
                 remove {STAGE_NAME} beside it if that is none of yours",
                path.display()
            ),
            Self::Missing { path } => write!(
                f,
                "there is no {}: is it running? Start `dockgate serve`, or name the configuration that it runs with by \
                 --config (a gateway on a read-only data directory has no socket)",
                path.display()
            ),
            Self::Stale { path } => write!(
                f,
                "nobody answers at {}: is it running? The gateway that made it has ended; start `dockgate serve`",
                path.display()
            ),
            Self::Forbidden { path, owner } => {
                let owner = owner.map_or_else(|| "another user".to_owned(), |owner| format!("the user {owner}"));
                write!(
                    f,
                    "{} is for {owner}, as whom the gateway runs; run this command as that user, or as root",
                    path.display()
                )
            }
            Self::Connect { path, detail } => {
                write!(f, "cannot connect to {}: {detail}; look at the gateway's log", path.display())
            }
        }
    }
}

impl std::error::Error for SocketError {}
