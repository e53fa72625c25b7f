//! Changing the file of users, for the command line: `dockgate user add | remove | list | verify`.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Gid, Uid};

use super::htpasswd::{self, BadLines, BadName, COSTS, HTPASSWD_BYTES_MAX, Line, LineProblem, PasswordHash, Users};
use super::password::{NoRandomness, random_bytes};
use super::{Password, source};

/// The cost of new hashes where nothing else is asked for: about a tenth of a second.
pub const COST_DEFAULT: u32 = 10;

/// The highest cost that is not told: about half a second.
pub const COST_SENSIBLE_MAX: u32 = 12;

/// How often the file is opened anew because another program put a new one in its place.
const LOCK_ROUNDS_MAX: usize = 100;

/// A file of users that is to be changed. Every change writes a new file and puts it in the place of the old one, under
/// a lock, with the old one's owner and mode; lines that it is not about stay as they are, byte for byte.
#[derive(Debug, Clone)]
pub struct UserFile {
    path: PathBuf,
}

/// What [`UserFile::add`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// A user who was not there before.
    New,
    /// Another password for one who was.
    Replaced,
}

/// Whether a user's password is replaced.
#[derive(Debug)]
pub(super) enum Overwrite {
    Always,
    Never,
    /// Where it is this one still.
    Of(Password),
}

/// What is in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The users, in the order of the file.
    pub users: Vec<UserLine>,
    /// The lines that are not taken.
    pub bad_lines: BadLines,
}

/// A user of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserLine {
    /// The user's name.
    pub name: String,
    /// The cost of the password's hash.
    pub cost: u32,
    /// On which line, from 1.
    pub line: usize,
}

/// The file was not changed, or not read.
#[derive(Debug)]
pub enum UserFileError {
    /// Nobody can be called so.
    Name(BadName),
    /// There is no password.
    EmptyPassword,
    /// The password is longer than bcrypt reads.
    PasswordTooLong,
    /// The password has characters that `Authorization: Basic` cannot carry (RFC 7617).
    PasswordCharacter,
    /// The cost is outside of [`COSTS`].
    Cost,
    /// There is no such user.
    NoSuchUser,
    /// There is one already.
    Exists,
    /// The user's line is not taken, so that there is no password to compare with.
    Line(LineProblem),
    /// The file is or would become larger than [`HTPASSWD_BYTES_MAX`].
    TooLarge,
    /// What is there is not a file.
    NotAFile,
    /// Other programs keep putting new files in its place.
    Contended,
    /// The system has no random bytes.
    NoRandomness,
    /// The new file cannot be given to the owner of the old one.
    Owner(io::Error),
    /// Reading or writing failed.
    File(io::Error),
}

impl UserFile {
    /// The file at `path`, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Writes down a user, new or with a new password. The file is made, for its owner alone, if there is none, and so
    /// are the directories above it.
    pub fn add(&self, name: &str, password: &Password, cost: u32) -> Result<Added, UserFileError> {
        self.write(name, password, cost, Overwrite::Always)
    }

    pub(super) fn write(
        &self,
        name: &str,
        password: &Password,
        cost: u32,
        overwrite: Overwrite,
    ) -> Result<Added, UserFileError> {
        htpasswd::check_name(name).map_err(UserFileError::Name)?;
        check_password(password)?;
        if !COSTS.contains(&cost) {
            return Err(UserFileError::Cost);
        }
        let hash = PasswordHash::make(password.expose(), cost).map_err(|_| UserFileError::NoRandomness)?;
        self.change(true, |content| {
            if let Overwrite::Of(password) = &overwrite
                && !has_password(content, name, password)?
            {
                return Err(UserFileError::NoSuchUser);
            }
            let (content, added) = with_user(content, name, &hash)?;
            match (added, &overwrite) {
                (Added::Replaced, Overwrite::Never) => Err(UserFileError::Exists),
                _ => Ok((content, added)),
            }
        })
    }

    /// Takes a user out, with all of their lines.
    pub fn remove(&self, name: &str) -> Result<(), UserFileError> {
        self.change(false, |content| {
            let kept: Vec<&[u8]> = pieces(content).filter(|line| !is_of(line, name)).collect();
            match kept.len() < pieces(content).count() {
                true => Ok((kept.concat(), ())),
                false => Err(UserFileError::NoSuchUser),
            }
        })
    }

    /// What is in the file; nothing, where there is none.
    pub fn list(&self) -> Result<Listing, UserFileError> {
        let content = self.read()?;
        let Users { hashes, bad_lines, .. } = Users::parse(&content);
        let users = (1..).zip(htpasswd::lines(&content)).filter_map(|(line, bytes)| match Line::parse(bytes) {
            Line::User { name, hash } if hashes.contains_key(name) => {
                Some(UserLine { name: name.into(), cost: hash.cost(), line })
            }
            _ => None,
        });
        Ok(Listing { users: users.collect(), bad_lines })
    }

    /// Whether this is the user's password.
    pub fn verify(&self, name: &str, password: &Password) -> Result<bool, UserFileError> {
        has_password(&self.read()?, name, password)
    }

    fn read(&self) -> Result<Vec<u8>, UserFileError> {
        Ok(source::read(&self.path)?.map(|(content, _)| content).unwrap_or_default())
    }

    /// Replaces the file's content, unless `edit` refuses.
    fn change<T>(
        &self,
        create: bool,
        edit: impl FnOnce(&[u8]) -> Result<(Vec<u8>, T), UserFileError>,
    ) -> Result<T, UserFileError> {
        if create && let Some(directory) = self.path.parent().filter(|path| !path.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let (path, locked) = self.lock(create)?;
        let (content, _) = source::read_open(locked.try_clone()?)?;
        let (content, outcome) = edit(&content)?;
        if content.len() as u64 > HTPASSWD_BYTES_MAX {
            return Err(UserFileError::TooLarge);
        }
        replace(&path, &locked, &content)?;
        Ok(outcome)
    }

    /// The file that is at the path, symbolic links followed, locked against other changes of this kind.
    fn lock(&self, create: bool) -> Result<(PathBuf, File), UserFileError> {
        for _ in 0..LOCK_ROUNDS_MAX {
            let mut options = OpenOptions::new();
            // Writing is never done through it; some file systems lock only what is open for writing.
            let file = match options.read(true).write(true).create(create).truncate(false).mode(0o600).open(&self.path)
            {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound && !create => {
                    return Err(UserFileError::NoSuchUser);
                }
                Err(error) => return Err(error.into()),
            };
            rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(io::Error::from)?;
            // While it waited for the lock another program may have put a new file there: that one is to be changed.
            let (held, there) = (file.metadata()?, std::fs::metadata(&self.path));
            if there.is_ok_and(|there| (there.dev(), there.ino()) == (held.dev(), held.ino())) {
                return Ok((std::fs::canonicalize(&self.path)?, file));
            }
        }
        Err(UserFileError::Contended)
    }
}

fn check_password(password: &Password) -> Result<(), UserFileError> {
    match password.expose() {
        "" => Err(UserFileError::EmptyPassword),
        _ if password.is_too_long() => Err(UserFileError::PasswordTooLong),
        text if text.contains(char::is_control) => Err(UserFileError::PasswordCharacter),
        _ => Ok(()),
    }
}

/// Whether this is the user's password.
fn has_password(content: &[u8], name: &str, password: &Password) -> Result<bool, UserFileError> {
    let Users { hashes, bad_lines, .. } = Users::parse(content);
    let Some(hash) = hashes.get(name) else {
        let problem = bad_lines.problems.into_iter().find(|problem| problem.user.as_deref() == Some(name));
        return Err(problem.map_or(UserFileError::NoSuchUser, UserFileError::Line));
    };
    let equal = bcrypt::verify(password.expose(), hash.as_str()).unwrap_or(false);
    Ok(equal && !password.is_too_long())
}

/// The content with the user's first line replaced and further ones left out, or with a new line at the end.
fn with_user(content: &[u8], name: &str, hash: &PasswordHash) -> Result<(Vec<u8>, Added), UserFileError> {
    let line = format!("{name}:{}\n", hash.as_str());
    let (mut changed, mut added) = (Vec::with_capacity(content.len() + line.len() + 1), Added::New);
    for piece in pieces(content) {
        if !is_of(piece, name) {
            changed.extend_from_slice(piece);
        } else if added == Added::New {
            added = Added::Replaced;
            changed.extend_from_slice(line.as_bytes());
        }
    }
    if added == Added::New {
        if changed.last().is_some_and(|last| *last != b'\n') {
            changed.push(b'\n');
        }
        changed.extend_from_slice(line.as_bytes());
    }
    Ok((changed, added))
}

/// The lines with what ends them.
fn pieces(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    content.split_inclusive(|b| *b == b'\n')
}

/// Whether it is the user's line, whatever stands for the password.
fn is_of(piece: &[u8], name: &str) -> bool {
    htpasswd::owner(piece) == Some(name.as_bytes())
}

/// Puts a new file with this content in the place of `old`; after a crash at any point there is the one or the other.
fn replace(path: &Path, old: &File, content: &[u8]) -> Result<(), UserFileError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let random = u64::from_be_bytes(random_bytes()?);
    let temporary = directory.join(format!(".htpasswd-{random:016x}.tmp"));
    let written = write_like(&temporary, old, content)
        .and_then(|()| std::fs::rename(&temporary, path).map_err(UserFileError::File))
        .and_then(|()| File::open(directory)?.sync_all().map_err(UserFileError::File));
    if written.is_err() {
        // It may be gone already; then there is nothing to clean up.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

fn write_like(temporary: &Path, old: &File, content: &[u8]) -> Result<(), UserFileError> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    let (wanted, made) = (old.metadata()?, file.metadata()?);
    if (wanted.uid(), wanted.gid()) != (made.uid(), made.gid()) {
        // The gateway, which runs as the old file's owner, must be able to read the new one.
        let (owner, group) = (Uid::from_raw(wanted.uid()), Gid::from_raw(wanted.gid()));
        rustix::fs::fchown(&file, Some(owner), Some(group)).map_err(|error| UserFileError::Owner(error.into()))?;
    }
    file.set_permissions(Permissions::from_mode(wanted.mode() & 0o777))?;
    file.write_all(content)?;
    Ok(file.sync_all()?)
}

impl From<io::Error> for UserFileError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::FileTooLarge => Self::TooLarge,
            io::ErrorKind::InvalidInput | io::ErrorKind::IsADirectory => Self::NotAFile,
            _ => Self::File(error),
        }
    }
}

impl From<NoRandomness> for UserFileError {
    fn from(_: NoRandomness) -> Self {
        Self::NoRandomness
    }
}

impl fmt::Display for UserFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(bad) => write!(f, "{bad}; choose another name"),
            Self::EmptyPassword => f.write_str("the password is empty; give one"),
            Self::PasswordTooLong => {
                f.write_str("the password has more than 72 bytes, bcrypt reads no more; give a shorter one")
            }
            Self::PasswordCharacter => {
                f.write_str("the password has control characters, which clients cannot send; leave them out")
            }
            Self::Cost => write!(f, "the cost must be {} to {}", COSTS.start(), COSTS.end()),
            Self::Exists => f.write_str("there is such a user already"),
            Self::NoSuchUser => f.write_str("there is no such user; `dockgate user list` shows them"),
            Self::Line(problem) => problem.fmt(f),
            Self::TooLarge => write!(f, "the file of users has more than {} MiB", HTPASSWD_BYTES_MAX >> 20),
            Self::NotAFile => f.write_str("the file of users is not a file; check `htpasswd` in gateway.toml"),
            Self::Contended => f.write_str("other programs keep changing the file of users; try again"),
            Self::NoRandomness => NoRandomness.fmt(f),
            Self::Owner(error) => {
                write!(f, "the new file cannot have the old one's owner: {error}; run as that user or as root")
            }
            Self::File(error) => write!(f, "the file of users cannot be read or written: {error}"),
        }
    }
}

impl std::error::Error for UserFileError {}

#[cfg(test)]
mod tests;
