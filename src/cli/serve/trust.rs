//! Where clients find the gateway, and where each of them wants the CA.

use std::net::SocketAddr;

use dockgate::config::{Config, Protocol};
use dockgate::net::describe;

/// The listener that people are told about.
pub(in crate::cli) struct Door {
    /// What it is called on this machine, with its port.
    pub(super) here: String,
    /// What others call it: its address, where it has one of its own.
    own_address: Option<String>,
    port: u16,
    speaks_tls: bool,
}

impl Door {
    /// `main`, else the first that speaks TLS, else the first; `bound` are the listeners with the ports that they got.
    pub(super) fn of(config: &Config, bound: &[(String, SocketAddr)]) -> Self {
        let speaks_tls =
            |name: &str| config.listen.get(name).is_some_and(|listener| listener.protocol != Protocol::Plain);
        let main = bound.iter().find(|(name, _)| name == "main");
        let chosen = main.or_else(|| bound.iter().find(|(name, _)| speaks_tls(name))).or_else(|| bound.first());
        let Some((name, address)) = chosen else {
            return Self { here: "localhost".into(), own_address: None, port: 5000, speaks_tls: true };
        };
        let ip = address.ip().to_canonical();
        let own_address = (!ip.is_unspecified() && !ip.is_loopback()).then(|| SocketAddr::new(ip, address.port()));
        let own_address = own_address.map(|address| address.to_string());
        let here = own_address.clone().unwrap_or_else(|| format!("localhost:{}", address.port()));
        Self { here, own_address, port: address.port(), speaks_tls: speaks_tls(name) }
    }

    /// As it is configured, before anything is bound.
    pub(in crate::cli) fn configured(config: &Config) -> Self {
        let configured: Vec<_> =
            config.listen.iter().map(|(name, listener)| (name.clone(), listener.address)).collect();
        Self::of(config, &configured)
    }

    /// What others call it: its own address, else the first name in the certificate that means something elsewhere.
    fn elsewhere(&self, config: &Config) -> Option<String> {
        if self.own_address.is_some() {
            return self.own_address.clone();
        }
        let names = describe(&config.tls.directory.join("server.crt")).map(|found| found.names).unwrap_or_default();
        let is_local = |name: &str| {
            let address = name.parse::<std::net::IpAddr>();
            name == "localhost" || address.is_ok_and(|address| address.is_loopback())
        };
        let name = names.into_iter().find(|name| !is_local(name))?;
        let name = if name.contains(':') { format!("[{name}]") } else { name };
        Some(format!("{name}:{}", self.port))
    }
}

/// Where each client wants the CA.
pub(in crate::cli) fn trust_text(config: &Config, door: &Door) -> String {
    let here = &door.here;
    if !door.speaks_tls {
        return format!(
            "{here} speaks plain HTTP: clients elsewhere must be told that it may (docker: insecure-registries).\n"
        );
    }
    if config.tls.certificate.is_some() {
        return format!(
            "The certificate is your own (tls.certificate): clients trust whatever issued it, and come to {here} by a \
             name that is in it.\n"
        );
    }
    let ca = config.tls.directory.join("ca.crt");
    let missing = match ca.exists() {
        true => "",
        false => "There is no CA yet: `dockgate cert init` or the first `dockgate serve` makes it.\n",
    };
    let ca = std::path::absolute(&ca).unwrap_or(ca);
    let ca = ca.display();
    let elsewhere = door.elsewhere(config);
    let host = elsewhere.clone().unwrap_or_else(|| format!("HOST:{}", door.port));
    let who = match (&door.own_address, &elsewhere) {
        (Some(_), _) => format!("For clients of {host}"),
        (None, Some(_)) => format!(
            "On this machine docker needs nothing more for {here}. On others, where this machine is {host} (`dockgate \
             cert show` lists its other names)"
        ),
        (None, None) => {
            format!("On this machine docker needs nothing more for {here}. On others, with HOST a name of this machine")
        }
    };
    format!(
        "{missing}{who},\n\
         copy {ca} to:\n  \
         docker on Linux    /etc/docker/certs.d/{host}/ca.crt\n  \
         docker 29, mirror  /etc/docker/certs.d/docker.io/ca.crt too, where {host} is in its registry-mirrors\n  \
         docker on Windows  C:\\ProgramData\\docker\\certs.d\\{windows}\\ca.crt, or import it into the trusted roots\n  \
         docker on macOS    ~/.docker/certs.d/{host}/ca.crt, then restart Docker Desktop\n  \
         docker-machine     /var/lib/boot2docker/certs.d/{host}/ca.crt in the machine\n  \
         containerd         /etc/containerd/certs.d/{host}/ca.crt, and beside it hosts.toml, as below\n  \
         podman, skopeo     /etc/containers/certs.d/{host}/ca.crt\n  \
         Debian, Ubuntu     /usr/local/share/ca-certificates/dockgate.crt, then update-ca-certificates\n  \
         Fedora, RHEL       /etc/pki/ca-trust/source/anchors/dockgate.crt, then update-ca-trust\n\
         hosts.toml of containerd:\n  \
         server = \"https://{host}\"\n  \
         [host.\"https://{host}\"]\n    \
         ca = \"/etc/containerd/certs.d/{host}/ca.crt\"\n",
        // No file of Windows may have a colon in its name.
        windows = host.replace(':', ""),
    )
}
