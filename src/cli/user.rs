//! `dockgate user`: the htpasswd file. A running gateway notices changes within a second.

use std::io::{self, BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use dockgate::identity::{Added, BadLines, COST_DEFAULT, Password, UserFile, UserFileError};

use super::Common;
use super::exit::{Code, Exit};

/// The longest line that is taken as a password, in bytes; bcrypt takes 72.
const PASSWORD_LINE_MAX: u64 = 4096;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Add a user, or give a user another password
    Add(Named),
    /// Remove a user
    Remove(Nameless),
    /// List the users
    List(Common),
    /// Say whether a password is right (exit code 77 if not)
    Verify(Named),
}

#[derive(Args)]
pub(super) struct Named {
    /// The user's name
    name: String,
    /// Read the password from the first line of standard input instead of asking for it
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(super) struct Nameless {
    /// The user's name
    name: String,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(command: &Command) -> Result<(), Exit> {
    match command {
        Command::Add(named) => add(named),
        Command::Remove(Nameless { name, common }) => {
            let path = htpasswd(common)?;
            UserFile::new(&path).remove(name).map_err(|error| failed(&path, error))?;
            println!("removed {name}");
            tell_bad_lines(&path)
        }
        Command::List(common) => {
            let path = htpasswd(common)?;
            let listing = UserFile::new(&path).list().map_err(|error| failed(&path, error))?;
            listing.users.iter().for_each(|user| println!("{}", user.name));
            tell(&path, &listing.bad_lines);
            Ok(())
        }
        Command::Verify(named) => {
            let path = htpasswd(&named.common)?;
            match UserFile::new(&path).verify(&named.name, &password(named, false)?) {
                Ok(true) => {
                    println!("the password is right");
                    Ok(())
                }
                Ok(false) | Err(UserFileError::NoSuchUser) => {
                    Err(Exit::new(Code::NoPermission, "wrong user name or password"))
                }
                Err(error) => Err(failed(&path, error)),
            }
        }
    }
}

fn add(named: &Named) -> Result<(), Exit> {
    let path = htpasswd(&named.common)?;
    let added = UserFile::new(&path).add(&named.name, &password(named, true)?, COST_DEFAULT);
    let added = added.map_err(|error| failed(&path, error))?;
    let done = if added == Added::New { "added" } else { "changed the password of" };
    println!("{done} {}", named.name);
    tell_bad_lines(&path)
}

/// The change is in force whatever the other lines are, so they are told and no more.
fn tell_bad_lines(path: &Path) -> Result<(), Exit> {
    tell(path, &UserFile::new(path).list().map_err(|error| failed(path, error))?.bad_lines);
    Ok(())
}

fn tell(path: &Path, bad_lines: &BadLines) {
    bad_lines.told(path).iter().for_each(|line| eprintln!("dockgate: {line}"));
}

fn htpasswd(common: &Common) -> Result<PathBuf, Exit> {
    common.load().map(|config| config.identity.htpasswd)
}

fn password(named: &Named, twice: bool) -> Result<Password, Exit> {
    let unreadable = |error: io::Error| Exit::new(Code::Data, format_args!("no password could be read: {error}"));
    if named.password_stdin {
        let mut line = String::new();
        io::Read::take(io::stdin().lock(), PASSWORD_LINE_MAX).read_line(&mut line).map_err(unreadable)?;
        return Ok(Password::new(line.trim_end_matches(['\r', '\n']).to_owned()));
    }
    if !io::stdin().is_terminal() {
        return Err(Exit::new(Code::Data, "standard input is no terminal; give the password with --password-stdin"));
    }
    let first = rpassword::prompt_password("Password: ").map_err(unreadable)?;
    if twice && rpassword::prompt_password("Again: ").map_err(unreadable)? != first {
        return Err(Exit::new(Code::Data, "the two passwords differ; nothing was changed"));
    }
    Ok(Password::new(first))
}

fn failed(path: &Path, error: UserFileError) -> Exit {
    match error {
        UserFileError::File(_) => Exit::new(Code::CannotCreate, error),
        UserFileError::Line(problem) => Exit::new(Code::Data, problem.told(path)),
        _ => Exit::new(Code::Data, error),
    }
}
