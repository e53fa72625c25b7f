//! The lines of an htpasswd file.

use std::collections::HashMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;

use bcrypt::HashParts;

/// The largest file that is read: some hundred thousand users.
pub const HTPASSWD_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The longest user name, in bytes.
pub const USER_BYTES_MAX: usize = 255;

/// The costs of bcrypt that are taken: bcrypt has no lower one; each step up doubles the time, and 14 is some two seconds.
pub const COSTS: RangeInclusive<u32> = 4..=14;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How many problems of one file are told one by one.
pub const PROBLEMS_TOLD_MAX: usize = 100;

/// What a login costs where there are no users.
const COST_WITHOUT_USERS: u32 = 10;

/// A bcrypt hash in its own spelling, `$2y$10$…`, with a cost that is allowed. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct PasswordHash {
    text: String,
    cost: u32,
}

/// The users of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Users {
    pub(super) hashes: HashMap<String, PasswordHash>,
    /// The highest cost that any of the hashes has.
    pub(super) costliest: u32,
    pub(super) bad_lines: BadLines,
}

/// The lines of a file that are not taken: whoever they name is no user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BadLines {
    /// The first of them, at most [`PROBLEMS_TOLD_MAX`], in their order.
    pub problems: Vec<LineProblem>,
    /// How many there are beyond these.
    pub more: usize,
}

/// A line that is not `name:$2y$cost$…`, and is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineProblem {
    /// Which line, from 1.
    pub line: usize,
    /// Whose, where that could be read. It may hold any characters; `Display` escapes them.
    pub user: Option<String>,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a line of an htpasswd file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// Not UTF-8.
    NotUtf8,
    /// No colon.
    NoColon,
    /// The name is one that cannot be logged in with.
    BadName(BadName),
    /// Another line has this user already.
    Duplicate {
        /// The other line, from 1.
        line: usize,
    },
    /// The password is kept in a way that is not bcrypt.
    NotBcrypt(Scheme),
    /// It begins like bcrypt, but is no bcrypt hash.
    MalformedHash,
    /// bcrypt with a cost outside of [`COSTS`].
    Cost {
        /// The cost on the line.
        cost: u32,
    },
}

/// Why a text is not a user's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadName {
    /// Nothing.
    Empty,
    /// Longer than [`USER_BYTES_MAX`].
    TooLong,
    /// Has a colon, a control character, white space at an end, or `#` at the beginning.
    Character,
}

/// The ways of keeping a password that are not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `$apr1$…`, the default of old `htpasswd`.
    Apr1,
    /// `{SHA}…`, `htpasswd -s`.
    Sha,
    /// `$1$…`, `$5$…`, `$6$…` and other schemes of crypt(3).
    ModularCrypt,
    /// Thirteen characters, `htpasswd -d`; or a password of that length in clear.
    Crypt,
    /// Anything else, most likely a password in clear.
    Plain,
}

/// What a line is, for whoever reads or edits one.
pub(super) enum Line<'a> {
    /// Empty, white space, or a comment.
    Nothing,
    /// A user and a hash.
    User { name: &'a str, hash: PasswordHash },
    /// Something else.
    Broken { name: Option<&'a str>, problem: Problem },
}

impl Users {
    /// Nobody.
    pub(super) fn none() -> Self {
        Self { hashes: HashMap::new(), costliest: COST_WITHOUT_USERS, bad_lines: BadLines::default() }
    }

    /// Reads a whole file. A line that is not right keeps its own name out, and so do two lines of one name: which of them
    /// was meant to hold is not known, and an old password must not live on.
    pub(super) fn parse(file: &[u8]) -> Self {
        let mut owned: HashMap<&[u8], (usize, usize)> = HashMap::new();
        for (number, bytes) in (1..).zip(lines(file)) {
            if let Some(owner) = owner(bytes) {
                owned.entry(owner).or_insert((number, number)).1 = number;
            }
        }
        let mut users = Self { costliest: 0, ..Self::none() };
        for (line, bytes) in (1..).zip(lines(file)) {
            let (first, last) = owner(bytes).and_then(|owner| owned.get(owner)).copied().unwrap_or((line, line));
            let (user, problem) = match Line::parse(bytes) {
                Line::Nothing => continue,
                Line::User { name, hash } if first == last => {
                    users.costliest = users.costliest.max(hash.cost);
                    users.hashes.insert(name.into(), hash);
                    continue;
                }
                Line::User { name, .. } => {
                    (Some(name), Problem::Duplicate { line: if line == first { last } else { first } })
                }
                Line::Broken { name, problem } => (name, problem),
            };
            users.bad_lines.push(LineProblem { line, user: user.map(Into::into), problem });
        }
        if users.hashes.is_empty() {
            users.costliest = COST_WITHOUT_USERS;
        }
        users
    }
}

impl BadLines {
    fn push(&mut self, problem: LineProblem) {
        if self.problems.len() < PROBLEMS_TOLD_MAX {
            self.problems.push(problem);
        } else {
            self.more += 1;
        }
    }

    /// What to say of them, each in one line.
    pub fn told(&self, file: &Path) -> Vec<String> {
        let more = (self.more > 0).then(|| format!("{}: and {} more", file.display(), self.more));
        self.problems.iter().map(|problem| problem.told(file)).chain(more).collect()
    }
}

impl LineProblem {
    /// `FILE:LINE: user "NAME": …`
    pub fn told(&self, file: &Path) -> String {
        let user = self.user.as_ref().map(|user| format!("user {user:?}: ")).unwrap_or_default();
        format!("{}:{}: {user}{}", file.display(), self.line, self.problem)
    }
}

/// The lines without what ends them; a byte-order mark, as Windows editors write it, is no part of the first.
pub(super) fn lines(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(file).split(|b| *b == b'\n')
}

/// Whose line it is, good or bad: what stands before its first colon. Nobody's, where it says nothing.
pub(super) fn owner(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line).trim_ascii();
    let name = line.split(|b| *b == b':').next().map(<[u8]>::trim_ascii_end);
    name.filter(|_| !line.is_empty() && !line.starts_with(b"#"))
}

impl<'a> Line<'a> {
    /// Reads one line, with or without its carriage return.
    pub(super) fn parse(bytes: &'a [u8]) -> Self {
        let bytes = bytes.trim_ascii_end();
        if bytes.is_empty() || bytes.trim_ascii_start().starts_with(b"#") {
            return Self::Nothing;
        }
        let Ok(line) = std::str::from_utf8(bytes) else {
            return Self::Broken { name: None, problem: Problem::NotUtf8 };
        };
        // Without a colon the whole line may be a secret: it is not shown.
        let Some((name, hash)) = line.split_once(':') else {
            return Self::Broken { name: None, problem: Problem::NoColon };
        };
        match check_name(name).map_err(Problem::BadName).and_then(|()| PasswordHash::parse(hash)) {
            Ok(hash) => Self::User { name, hash },
            Err(problem) => Self::Broken { name: Some(name), problem },
        }
    }
}

/// Whether a user can be called so: what `Authorization: Basic` can carry and a line of the file can hold.
pub(super) fn check_name(name: &str) -> Result<(), BadName> {
    if name.is_empty() {
        return Err(BadName::Empty);
    }
    if name.len() > USER_BYTES_MAX {
        return Err(BadName::TooLong);
    }
    // A byte-order mark at the beginning of the file is no part of the first name.
    let bad = name.contains(|c: char| matches!(c, ':' | '\u{feff}') || c.is_control())
        || name.trim() != name
        || name.starts_with('#');
    if bad { Err(BadName::Character) } else { Ok(()) }
}

impl PasswordHash {
    fn parse(text: &str) -> Result<Self, Problem> {
        if !["$2a$", "$2b$", "$2y$"].iter().any(|prefix| text.starts_with(prefix)) {
            return Err(Problem::NotBcrypt(Scheme::of(text)));
        }
        let digits = text.get(4..6).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
        let cost = digits.and_then(|digits| digits.parse().ok()).ok_or(Problem::MalformedHash)?;
        text.parse::<HashParts>().map_err(|_| Problem::MalformedHash)?;
        if !COSTS.contains(&cost) {
            return Err(Problem::Cost { cost });
        }
        Ok(Self { text: text.into(), cost })
    }

    /// Hashes a password; it must not be longer than bcrypt reads, and `cost` must be one of [`COSTS`].
    pub(super) fn make(password: &str, cost: u32) -> Result<Self, bcrypt::BcryptError> {
        Ok(Self { text: bcrypt::hash_with_result(password, cost)?.format_for_version(bcrypt::Version::TwoY), cost })
    }

    /// As it stands in the file.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Its cost.
    pub(super) const fn cost(&self) -> u32 {
        self.cost
    }
}

impl Scheme {
    fn of(text: &str) -> Self {
        let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'/');
        match text {
            _ if text.starts_with("$apr1$") => Self::Apr1,
            _ if text.starts_with("{SHA}") || text.starts_with("{SSHA}") => Self::Sha,
            _ if text.starts_with('$') => Self::ModularCrypt,
            _ if text.len() == 13 && text.bytes().all(known) => Self::Crypt,
            _ => Self::Plain,
        }
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordHash").field("cost", &self.cost).finish_non_exhaustive()
    }
}

impl fmt::Display for LineProblem {
    /// `line 3 (user "bob"): …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if let Some(user) = &self.user {
            write!(f, " (user {user:?})")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const AGAIN: &str = "set the password again with `dockgate user add NAME` (or `htpasswd -B FILE NAME`)";
        match self {
            Self::NotUtf8 => f.write_str("it is not UTF-8; write the name in UTF-8 or remove the line"),
            Self::NoColon => f.write_str("it has no colon; a line is NAME:HASH; write # before a comment"),
            Self::BadName(bad) => write!(f, "{bad}; rename the user or remove the line"),
            Self::Duplicate { line } => {
                write!(f, "the user stands on line {line} too, so neither line holds; remove one of them")
            }
            Self::NotBcrypt(scheme) => write!(f, "the password is {scheme}, only bcrypt is taken; {AGAIN}"),
            Self::MalformedHash => write!(f, "the bcrypt hash is damaged; {AGAIN}"),
            Self::Cost { cost } => {
                write!(f, "its bcrypt cost is {cost}, taken are {} to {}; {AGAIN}", COSTS.start(), COSTS.end())
            }
        }
    }
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the user has no name",
            Self::TooLong => "a user's name has at most 255 bytes",
            Self::Character => {
                "a user's name has no colon, no control characters, no white space at its ends and no # at its beginning"
            }
        })
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Apr1 => "hashed with MD5 (apr1)",
            Self::Sha => "hashed with SHA-1",
            Self::ModularCrypt => "hashed with another scheme of crypt(3)",
            Self::Crypt => "hashed with DES (crypt), or in clear",
            Self::Plain => "in clear or of an unknown kind",
        })
    }
}

#[cfg(test)]
mod tests;
