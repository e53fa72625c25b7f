//! `dockgate user`: the htpasswd file. A running gateway notices changes within a second.

use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use dockgate::identity::{Added, COST_DEFAULT, Password, UserFile, UserFileError};

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
            UserFile::new(htpasswd(common)?).remove(name).map_err(failed)?;
            println!("removed {name}");
            Ok(())
        }
        Command::List(common) => {
            let listing = UserFile::new(htpasswd(common)?).list().map_err(failed)?;
            listing.users.iter().for_each(|user| println!("{}", user.name));
            listing.problems.iter().for_each(|problem| eprintln!("dockgate: {problem}"));
            Ok(())
        }
        Command::Verify(named) => {
            let file = UserFile::new(htpasswd(&named.common)?);
            match file.verify(&named.name, &password(named, false)?).map_err(failed)? {
                true => {
                    println!("the password is right");
                    Ok(())
                }
                false => Err(Exit::new(Code::NoPermission, "wrong user name or password")),
            }
        }
    }
}

fn add(named: &Named) -> Result<(), Exit> {
    let file = UserFile::new(htpasswd(&named.common)?);
    let added = file.add(&named.name, &password(named, true)?, COST_DEFAULT).map_err(failed)?;
    let done = if added == Added::New { "added" } else { "changed the password of" };
    println!("{done} {}", named.name);
    Ok(())
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

fn failed(error: UserFileError) -> Exit {
    let code = match error {
        UserFileError::File(_) => Code::CannotCreate,
        _ => Code::Data,
    };
    Exit::new(code, error)
}
