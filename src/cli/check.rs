//! `dockgate check`: reads the configuration and everything it names.

use dockgate::identity::Identity;
use dockgate::net::tls;

use super::Common;
use super::exit::Exit;
use super::serve::{identity_settings, tls_settings};

pub(super) fn run(common: &Common) -> Result<(), Exit> {
    let config = common.load()?;
    if config.tls.certificate.is_some() {
        tls::load(&tls_settings(&config)).map_err(Exit::config)?;
    }
    Identity::check(&identity_settings(&config)).map_err(Exit::config)?;
    println!("the configuration is good");
    Ok(())
}
