//! The first start: a user, and what to type next.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use dockgate::config::Config;
use dockgate::identity::{COST_DEFAULT, Password, UserFile};
use dockgate::server::Listeners;

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
pub(super) fn ready_text(config: &Config, public: &Listeners, admin: &Listeners, first_user: Option<&Path>) -> String {
    let addresses = public.addresses().chain(admin.addresses()).map(|(name, address)| format!("{name}={address}"));
    let addresses: Vec<String> = addresses.collect();
    let mut text = format!("dockgate {} is ready: {}\n", env!("CARGO_PKG_VERSION"), addresses.join(" "));
    let port = public.addresses().next().map_or(5000, |(_, address)| address.port());
    let password = match first_user {
        Some(file) => format!("The password of the first user, {FIRST_USER}, is in {}.\n", file.display()),
        None => String::new(),
    };
    let login = match first_user {
        Some(file) => format!("docker login -u {FIRST_USER} --password-stdin localhost:{port} < {}", file.display()),
        None => format!("docker login localhost:{port}"),
    };
    text += &password;
    text += &format!(
        "Next:\n  {login}\n  docker tag IMAGE localhost:{port}/IMAGE\n  docker push localhost:{port}/IMAGE\n\n{}",
        trust_text(config, port)
    );
    text
}

/// Where each client wants the CA.
pub(in crate::cli) fn trust_text(config: &Config, port: u16) -> String {
    if config.tls.certificate.is_some() {
        return "The certificate is your own (tls.certificate): clients trust whatever issued it.\n".into();
    }
    let ca = config.tls.directory.join("ca.crt");
    let ca = std::path::absolute(&ca).unwrap_or(ca);
    let ca = ca.display();
    let host = format!("HOST:{port}");
    format!(
        "On this machine docker needs nothing more for localhost:{port}. On others, with HOST a name of this machine,\n\
         copy {ca} to:\n  \
         docker on Linux    /etc/docker/certs.d/{host}/ca.crt\n  \
         docker on Windows  C:\\ProgramData\\docker\\certs.d\\{host}\\ca.crt, or import it into the trusted roots\n  \
         docker on macOS    ~/.docker/certs.d/{host}/ca.crt, then restart Docker Desktop\n  \
         docker-machine     /var/lib/boot2docker/certs.d/{host}/ca.crt in the machine\n  \
         containerd         /etc/containerd/certs.d/{host}/ca.crt, named by ca = in the hosts.toml beside it\n  \
         podman, skopeo     /etc/containers/certs.d/{host}/ca.crt\n  \
         Debian, Ubuntu     /usr/local/share/ca-certificates/dockgate.crt, then update-ca-certificates\n  \
         Fedora, RHEL       /etc/pki/ca-trust/source/anchors/dockgate.crt, then update-ca-trust\n"
    )
}
