//! Floor 8: the command line. Each subcommand turns arguments into a call and its outcome into an exit code; `serve` is
//! where the rooms are wired together.

mod cache;
mod cert;
mod check;
mod exit;
mod serve;
mod user;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use dockgate::config::{self, Config};

use exit::Exit;

/// A gateway for container registries: TLS, users, a built-in v2 registry and a way to an old v1 registry, on one port.
#[derive(Parser)]
#[command(
    version,
    after_help = "Without a gateway.toml the defaults hold; docs/configuration.md lists every key.\n\
    Exit codes follow sysexits: 0 done, 64 wrong usage, 65 bad data, 69 unavailable, 73 cannot create, 75 try again,\n\
    77 wrong password, 78 bad configuration."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM; SIGHUP reads certificates, users, rules and limits again
    Serve(Common),
    /// Read the configuration and everything it names, and say what is wrong with it
    Check(Common),
    /// The certificates that dockgate makes for itself
    #[command(subcommand)]
    Cert(cert::Command),
    /// What the running gateway keeps of registries elsewhere
    #[command(subcommand)]
    Cache(cache::Command),
    /// The users of the htpasswd file
    #[command(subcommand)]
    User(user::Command),
}

/// What every subcommand takes.
#[derive(Args)]
struct Common {
    /// The configuration [default: gateway.toml, where it exists]
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Common {
    /// Upstreams whose files are not good are left out.
    fn load(&self) -> Result<Config, Exit> {
        Config::load_apart(self.config.as_deref(), config::process_environment())
            .map_err(|errors| Exit::config(&errors))
    }

    /// All of it must be good.
    fn load_strictly(&self) -> Result<Config, Exit> {
        Config::load(self.config.as_deref(), config::process_environment()).map_err(|errors| Exit::config(&errors))
    }
}

/// Runs the program.
pub(crate) fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let wrong = error.use_stderr();
            // Nothing can be told if even this cannot be printed.
            let _ = error.print();
            return if wrong { ExitCode::from(Exit::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let outcome = match arguments.command {
        Command::Serve(common) => serve::run(&common),
        Command::Check(common) => check::run(&common),
        Command::Cert(command) => cert::run(&command),
        Command::Cache(command) => cache::run(&command),
        Command::User(command) => user::run(&command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => exit.report(),
    }
}
