//! Exit codes, as sysexits has them, and the sentence that goes with each.

use std::fmt::{self, Display};
use std::process::ExitCode;

/// How the program ends when it could not do what it was told.
#[derive(Debug)]
pub(super) struct Exit {
    code: Code,
    message: String,
}

/// A code of sysexits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    /// EX_DATAERR: a file holds what cannot be used.
    Data = 65,
    /// EX_UNAVAILABLE: something that is needed is not to be had.
    Unavailable = 69,
    /// EX_SOFTWARE: our own fault.
    Software = 70,
    /// EX_CANTCREAT: something cannot be written.
    CannotCreate = 73,
    /// EX_TEMPFAIL: try again later.
    TryAgain = 75,
    /// EX_NOPERM: somebody may not.
    NoPermission = 77,
    /// EX_CONFIG: the configuration is wrong.
    Config = 78,
}

impl Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message.trim_end())
    }
}

impl Exit {
    /// EX_USAGE: the command line is wrong; clap has said how.
    pub(super) const USAGE: u8 = 64;

    pub(super) fn new(code: Code, message: impl Display) -> Self {
        Self { code, message: message.to_string() }
    }

    pub(super) fn config(message: impl Display) -> Self {
        Self::new(Code::Config, message)
    }

    /// Prints the message and gives the code.
    pub(super) fn report(self) -> ExitCode {
        eprintln!("dockgate: {self}");
        ExitCode::from(self.code as u8)
    }
}
