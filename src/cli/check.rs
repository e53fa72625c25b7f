//! `dockgate check`: reads the configuration and everything it names.

use dockgate::identity::UserFile;
use dockgate::net::tls;

use super::Common;
use super::exit::Exit;
use super::serve::tls_settings;

pub(super) fn run(common: &Common) -> Result<(), Exit> {
    let config = common.load()?;
    if config.tls.certificate.is_some() {
        tls::load(&tls_settings(&config)).map_err(Exit::config)?;
    }
    let users = UserFile::new(&config.identity.htpasswd).list().map_err(Exit::config)?;
    if !users.problems.is_empty() {
        let file = config.identity.htpasswd.display();
        let problems: Vec<String> = users.problems.iter().map(|problem| format!("{file}:{problem}")).collect();
        return Err(Exit::config(problems.join("\n")));
    }
    println!("the configuration is good");
    Ok(())
}
