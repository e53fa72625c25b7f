//! The first start: a user, and what to type next.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use dockgate::config::Config;
use dockgate::identity::{COST_DEFAULT, Password, UserFile};
use dockgate::server::Listeners;

use super::trust::{Door, trust_text};
use crate::cli::exit::{Code, Exit};

/// The first user's name.
const FIRST_USER: &str = "admin";

/// Makes the first user where there is no htpasswd file; returns the file that holds the password.
pub(super) fn ensure_user(config: &Config) -> Result<Option<PathBuf>, Exit> {
    let htpasswd = &config.identity.htpasswd;
    if htpasswd.exists() {
        return Ok(None);
    }
    let cannot = |what: &Path, error: &dyn std::fmt::Display| {
        let text = format!("{} cannot be written: {error}; check the directory and its owner", what.display());
        Exit::new(Code::CannotCreate, text)
    };
    let password = Password::random().map_err(|error| Exit::new(Code::Software, error))?;
    let file = config.registry.data.join("initial-password");
    std::fs::create_dir_all(&config.registry.data).map_err(|error| cannot(&config.registry.data, &error))?;
    write_secret(&file, password.expose()).map_err(|error| cannot(&file, &error))?;
    UserFile::new(htpasswd).add(FIRST_USER, &password, COST_DEFAULT).map_err(|error| cannot(htpasswd, &error))?;
    Ok(Some(file))
}

/// Readable by the owner alone from its first moment.
fn write_secret(file: &Path, text: &str) -> std::io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

/// What is printed once everything serves: a line for programs, then what a person types next.
pub(super) fn ready_text(
    config: &Config,
    public: &Listeners,
    admin: Option<SocketAddr>,
    first_user: Option<&Path>,
) -> String {
    let admin = admin.map(|address| ("admin", address));
    let addresses = public.addresses().chain(admin).map(|(name, address)| format!("{name}={address}"));
    let addresses: Vec<String> = addresses.collect();
    let mut text = format!("dockgate {} is ready: {}\n", env!("CARGO_PKG_VERSION"), addresses.join(" "));
    let bound: Vec<_> = public.addresses().map(|(name, address)| (name.to_owned(), address)).collect();
    let door = Door::of(config, &bound);
    let here = &door.here;
    let password = match first_user {
        Some(file) => format!("The password of the first user, {FIRST_USER}, is in {}.\n", file.display()),
        None => String::new(),
    };
    let login = match first_user {
        Some(file) => format!("docker login -u {FIRST_USER} --password-stdin {here} < {}", file.display()),
        None => format!("docker login {here}"),
    };
    text += &password;
    text += &format!(
        "Next:\n  {login}\n  docker tag IMAGE {here}/IMAGE\n  docker push {here}/IMAGE\n\n{}",
        trust_text(config, &door)
    );
    text
}
