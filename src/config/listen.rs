//! `[listen.NAME]`, `[tls]` and `[admin]`: the sockets.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::defaults::LISTENER_NAME;
use super::reader::{Fallback, Kind, Report, Section};

/// A socket that clients connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Who may talk plain HTTP under [`Protocol::Auto`].
    pub plain: PlainPolicy,
    /// Whose `Forwarded` and `X-Forwarded-*` headers, and whose PROXY protocol, are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether the trusted proxies begin each connection with the PROXY protocol.
    pub proxy_protocol: bool,
}

/// What is spoken on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TLS and plain HTTP; the first byte decides.
    Auto,
    /// TLS only.
    Tls,
    /// Plain HTTP only.
    Plain,
}

/// Who may talk plain HTTP where TLS is spoken too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlainPolicy {
    /// Clients on this machine.
    Loopback,
    /// Everybody.
    Anyone,
    /// Nobody.
    Nobody,
}

/// Certificates and what is asked of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain (PEM). Without one, a certificate is made in `directory`.
    pub certificate: Option<PathBuf>,
    /// Its private key (PEM); there exactly if `certificate` is.
    pub key: Option<PathBuf>,
    /// Where certificates are made.
    pub directory: PathBuf,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Who signs client certificates (PEM). Without it clients are asked for none.
    pub client_ca: Option<PathBuf>,
    /// Whether clients must have a certificate.
    pub client_auth: ClientAuth,
    /// How long browsers shall speak TLS only, once they were here; they are told nothing of it, where there is none.
    pub hsts: Option<Duration>,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// Whether clients must have a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// They may.
    Optional,
    /// Those without are turned away in the handshake.
    Required,
}

/// The listener for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens; none switches it off.
    pub address: Option<SocketAddr>,
}

/// The longest `tls.hsts`: ten years are as good as for ever.
const HSTS_MAX: Duration = Duration::from_secs(3_650 * 86_400);

const PROTOCOLS: [(&str, Protocol); 3] = [("auto", Protocol::Auto), ("tls", Protocol::Tls), ("plain", Protocol::Plain)];
const PLAIN_POLICIES: [(&str, PlainPolicy); 3] =
    [("loopback", PlainPolicy::Loopback), ("anyone", PlainPolicy::Anyone), ("nobody", PlainPolicy::Nobody)];
const TLS_VERSIONS: [(&str, TlsVersion); 2] = [("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
const CLIENT_AUTHS: [(&str, ClientAuth); 2] = [("optional", ClientAuth::Optional), ("required", ClientAuth::Required)];

const ADDRESS: &str = "an IP address and a port, such as \"0.0.0.0:5000\" or \"[::1]:5000\"";
const PROXY: &str = "an IP address or a network, such as \"10.0.0.7\" or \"10.0.0.0/8\"";

/// Reads `[listen.NAME]`. Where there is none, there is the default listener; where there is one, there is no other.
pub(super) fn read_listeners(root: &mut Section<'_>) -> BTreeMap<String, Listener> {
    let listeners = root.tables("listen", read_listener).filter(|listeners| !listeners.is_empty());
    listeners.unwrap_or_else(|| BTreeMap::from([(LISTENER_NAME.into(), Listener::default())]))
}

fn read_listener(name: &str, section: &mut Section<'_>) -> Option<Listener> {
    let default = Listener::default();
    let fallback =
        if name == LISTENER_NAME { Fallback::Value(default.address.to_string()) } else { Fallback::Required };
    let kind = Kind { name: "address", allowed: ADDRESS };
    let address = section.parsed("address", &kind, &fallback, |text| text.parse().ok());
    let proxies = Kind { name: "list of addresses", allowed: PROXY };
    Some(Listener {
        address: address.unwrap_or(default.address),
        protocol: section.choice("protocol", default.protocol, &PROTOCOLS),
        plain: section.choice("plain", default.plain, &PLAIN_POLICIES),
        trusted_proxies: section
            .list("trusted_proxies", &proxies, &Fallback::Value("[]".into()), network)
            .unwrap_or_default(),
        proxy_protocol: section.boolean("proxy_protocol", default.proxy_protocol),
    })
}

fn network(text: &str) -> Option<IpNet> {
    let network = text.parse::<IpNet>().map(|network| network.trunc());
    network.or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok()
}

/// Reads `[tls]`.
pub(super) fn read_tls(section: &mut Section<'_>) -> Tls {
    let default = Tls::default();
    section.later(&["acme"]);
    let tls = Tls {
        certificate: section.optional_path("certificate"),
        key: section.optional_path("key"),
        directory: section.path_or("directory", &default.directory),
        min_version: section.choice("min_version", default.min_version, &TLS_VERSIONS),
        client_ca: section.optional_path("client_ca"),
        client_auth: section.choice("client_auth", default.client_auth, &CLIENT_AUTHS),
        hsts: section.optional_duration("hsts", Duration::ZERO..=HSTS_MAX),
    };
    check_tls(&tls, section.report);
    tls
}

fn check_tls(tls: &Tls, report: &Report) {
    if report.is_sound(&["tls.certificate", "tls.key"]) {
        for (one, other, is_alone) in [
            ("tls.certificate", "tls.key", tls.certificate.is_some() && tls.key.is_none()),
            ("tls.key", "tls.certificate", tls.key.is_some() && tls.certificate.is_none()),
        ] {
            if is_alone {
                let text = format!("this needs {other} too; give both, or neither to have them made");
                report.conflict(one, other, text);
            }
        }
    }
    let (auth, authority) = ("tls.client_auth", "tls.client_ca");
    if tls.client_auth == ClientAuth::Required && tls.client_ca.is_none() && report.is_sound(&[auth, authority]) {
        report.conflict(
            auth,
            authority,
            format!("\"required\" needs {authority}: who signs the clients' certificates"),
        );
    }
}

/// Reads `[admin]`.
pub(super) fn read_admin(section: &mut Section<'_>) -> Admin {
    let default = Admin::default().address;
    let text = default.map(|address| address.to_string()).unwrap_or_default();
    let allowed = format!("{ADDRESS}, or \"\" to switch it off");
    let kind = Kind { name: "address", allowed: &allowed };
    let address = section.parsed("address", &kind, &Fallback::Value(text), |text| match text {
        "" => Some(None),
        text => text.parse().ok().map(Some),
    });
    Admin { address: address.unwrap_or(default) }
}

/// Reports listeners that take each other's port, and proxies that would be believed whoever they are.
pub(super) fn check_listeners(listeners: &BTreeMap<String, Listener>, admin: &Admin, report: &Report) {
    let mut taken: Vec<(String, SocketAddr)> = Vec::new();
    let admin = admin.address.map(|address| ("admin.address".to_owned(), address));
    let public = listeners.iter().map(|(name, listener)| (format!("listen.{name}.address"), listener.address));
    for (key, address) in public.chain(admin) {
        if !report.is_sound(&[&key]) {
            continue;
        }
        if let Some((other, _)) = taken.iter().find(|(_, other)| overlap(*other, address)) {
            let text = format!("{address} is taken by {}; give one of them another port", report.end(other));
            report.conflict(&key, other, text);
        }
        taken.push((key, address));
    }
    for (name, listener) in listeners.iter().filter(|(_, listener)| listener.proxy_protocol) {
        let ends = [format!("listen.{name}.proxy_protocol"), format!("listen.{name}.trusted_proxies")];
        if listener.trusted_proxies.is_empty() && report.is_sound(&[&ends[1]]) {
            let text = format!("true needs {}: the proxies that speak it", ends[1]);
            report.conflict(&ends[0], &ends[1], text);
        }
    }
}

/// Where clients must have a certificate, plain HTTP would go around it: nobody may talk it. What says the opposite is an
/// error.
pub(super) fn require_certificates(listeners: &mut BTreeMap<String, Listener>, tls: &Tls, report: &Report) {
    if tls.client_auth != ClientAuth::Required {
        return;
    }
    let auth = "tls.client_auth";
    for (name, listener) in listeners {
        let (protocol, plain) = (format!("listen.{name}.protocol"), format!("listen.{name}.plain"));
        let text =
            |word| format!("{word:?} goes around {}, \"required\": plain HTTP has no certificates", report.end(auth));
        if listener.protocol == Protocol::Plain {
            report.conflict(&protocol, auth, text("plain"));
        } else if listener.protocol == Protocol::Auto && listener.plain == PlainPolicy::Anyone {
            report.conflict(&plain, auth, text("anyone"));
        }
        listener.plain = PlainPolicy::Nobody;
    }
}

/// Whether they differ in more than who may talk plain HTTP, which each request is held to.
pub(super) fn needs_restart(old: &BTreeMap<String, Listener>, new: &BTreeMap<String, Listener>) -> bool {
    let without_plain = |listener: &Listener| Listener { plain: PlainPolicy::Nobody, ..listener.clone() };
    let same = |name: &String, listener: &Listener| {
        new.get(name).is_some_and(|new| without_plain(new) == without_plain(listener))
    };
    old.len() != new.len() || !old.iter().all(|(name, listener)| same(name, listener))
}

/// Whether two sockets cannot listen side by side. Port 0 stands for any free one.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let wildcard = |a: IpAddr, b: IpAddr| a.is_unspecified() && (a.is_ipv6() || b.is_ipv4());
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || wildcard(a.ip(), b.ip()) || wildcard(b.ip(), a.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_that_would_not_bind_together_overlap() {
        for (a, b, expected) in [
            ("127.0.0.1:5000", "127.0.0.1:5000", true),
            ("0.0.0.0:5000", "127.0.0.1:5000", true),
            ("[::]:5000", "0.0.0.0:5000", true),
            ("[::]:5000", "[::1]:5000", true),
            ("0.0.0.0:5000", "[::1]:5000", false),
            ("127.0.0.1:5000", "127.0.0.2:5000", false),
            ("127.0.0.1:5000", "127.0.0.1:5001", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!((overlap(a, b), overlap(b, a)), (expected, expected), "{a} {b}");
        }
    }

    #[test]
    fn a_proxy_is_an_address_or_a_network() {
        assert_eq!(network("10.0.0.7"), "10.0.0.7/32".parse().ok());
        assert_eq!(network("10.1.2.3/8"), "10.0.0.0/8".parse().ok());
        assert_eq!(network("::1"), "::1/128".parse().ok());
        for bad in ["", "10.0.0", "10.0.0.0/33", "localhost"] {
            assert_eq!(network(bad), None, "{bad}");
        }
    }
}
