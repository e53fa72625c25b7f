//! `dockgate cert`: the certificates that dockgate makes for itself.

use clap::Subcommand;

use time::OffsetDateTime;

use dockgate::net::describe;

use super::Common;
use super::exit::{Code, Exit};
use super::serve::{Door, certificates as ensure_certificates, tls_problem, trust_text};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make the private CA and the server certificate, or renew the certificate
    Init(Common),
    /// Show what there is: names, addresses, and until when
    Show(Common),
    /// Print where each client wants the CA
    Trust(Common),
}

pub(super) fn run(command: &Command) -> Result<(), Exit> {
    let (Command::Init(common) | Command::Show(common) | Command::Trust(common)) = command;
    let config = common.load()?;
    match command {
        Command::Init(_) => {
            if config.tls.certificate.is_some() {
                let text =
                    "tls.certificate names a certificate of your own, so none is made; remove it from gateway.toml";
                return Err(Exit::config(text));
            }
            let made = ensure_certificates(&config)?;
            let done = if made.renewed.is_some() { "made" } else { "still good" };
            println!(
                "{}: {done}; the CA that clients must trust is {}",
                made.certificate.display(),
                made.authority.display()
            );
        }
        Command::Show(_) => {
            let file = config.tls.certificate.clone().unwrap_or_else(|| config.tls.directory.join("server.crt"));
            if config.tls.certificate.is_none() && !file.exists() {
                let text = format_args!(
                    "there is no {} yet; `dockgate cert init` or the first `dockgate serve` makes it",
                    file.display()
                );
                return Err(Exit::new(Code::Data, text));
            }
            let shown = describe(&file).map_err(|error| Exit::new(Code::Data, tls_problem(&config, &error)))?;
            println!("{}\n{shown}", file.display());
            shown.concerns(OffsetDateTime::now_utc()).iter().for_each(|concern| println!("  warning  {concern}"));
        }
        Command::Trust(_) => {
            print!("{}", trust_text(&config, &Door::configured(&config)));
        }
    }
    Ok(())
}
