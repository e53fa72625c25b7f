//! `dockgate check`: reads the configuration and everything it names.

use dockgate::identity::{OpenError, PROBLEMS_TOLD_MAX, UserFile};
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
        // In the words in which serve would refuse them.
        let more = users.problems.len().saturating_sub(PROBLEMS_TOLD_MAX);
        let problems = users.problems.into_iter().take(PROBLEMS_TOLD_MAX).collect();
        return Err(Exit::config(OpenError::Lines { path: config.identity.htpasswd, problems, more }));
    }
    println!("the configuration is good");
    Ok(())
}
