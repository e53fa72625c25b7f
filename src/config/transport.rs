//! How the servers of an upstream are reached: the same keys for every kind.

use std::path::PathBuf;
use std::time::Duration;

use super::peer::{self, Peer, Shape};
use super::reader::{Fallback, Kind, Section};
use super::secret::Secret;
use super::size;

/// How the servers of an upstream are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transport {
    /// The name of the upstream: that of its file, without `.toml`.
    pub name: String,
    /// Where it answers; at least one, and no two the same.
    pub peers: Vec<Peer>,
    /// How peers are checked; not at all, where there is none.
    pub health: Option<Health>,
    /// Who signs the certificates of the peers (PEM), if not one of the well-known authorities.
    pub ca: Option<PathBuf>,
    /// The certificate that is shown to the peers.
    pub client_certificate: Option<ClientCertificate>,
    /// Whether HTTP/2 is spoken where a peer offers it over TLS.
    pub http2: bool,
    /// Whether the variables `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` hold for it.
    pub proxy: bool,
    /// How long a connection may take: name, TCP and TLS together.
    pub connect_timeout: Duration,
    /// How long a peer may think before it answers.
    pub first_byte_timeout: Duration,
    /// How long a peer may fall silent within an answer.
    pub idle_timeout: Duration,
    /// The fewest bytes a second at which an answer may arrive; 0 switches it off.
    pub rate_bytes: u64,
    /// Over which time that is measured.
    pub rate_window: Duration,
    /// How often what failed and can be repeated is tried again.
    pub retries: u32,
    /// How many requests the upstream gets at a time; others wait.
    pub concurrency: usize,
    /// How many bytes a second are taken from it at the most; 0: no limit.
    pub bytes_per_second: u64,
}

/// A certificate and its key, to be shown to a server (PEM).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate and those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What Basic authentication (RFC 7617) sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasicCredentials {
    /// The user; without `:`.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// How the peers of an upstream are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What is asked for, with GET; begins with `/`.
    pub path: String,
    /// How often.
    pub interval: Duration,
    /// How many failures in a row make a peer unhealthy.
    pub failures: u32,
    /// How many successes in a row make it healthy again.
    pub successes: u32,
    /// Whether an answer that refuses us (401, 403, 404, 429) shows that the peer is well.
    pub accepts_refusal: bool,
}

/// What the keys are by default, which depends on the kind.
pub(super) struct Defaults {
    pub(super) health: Health,
    pub(super) http2: bool,
    pub(super) first_byte_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) retries: u32,
    pub(super) concurrency: usize,
}

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const HOUR: Duration = Duration::from_secs(3_600);
pub(super) const DAY: Duration = Duration::from_secs(86_400);
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// How long a connection to an upstream may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The fewest bytes a second at which an answer may arrive.
const RATE_BYTES: u64 = 1024;
/// Over which time that is measured.
const RATE_WINDOW: Duration = Duration::from_secs(30);
/// The least that may be let through: with less, not even a list of tags would come in time.
const BYTES_PER_SECOND_MIN: u64 = 64 << 10;

/// Reads all but the peers and whether they are checked: `health` is what stands there, or the default.
pub(super) fn read_transport(root: &mut Section<'_>, name: &str, default: Defaults) -> Transport {
    let transport = Transport {
        name: name.into(),
        peers: Vec::new(),
        health: Some(root.table("health", |section| read_health(section, default.health))),
        ca: root.optional_path("ca"),
        client_certificate: read_client_certificate(root),
        http2: root.boolean("http2", default.http2),
        proxy: root.boolean("proxy", true),
        connect_timeout: root.duration("connect_timeout", CONNECT_TIMEOUT, SECOND / 10..=HOUR),
        first_byte_timeout: root.duration("first_byte_timeout", default.first_byte_timeout, SECOND / 10..=DAY),
        idle_timeout: root.duration("idle_timeout", default.idle_timeout, SECOND / 10..=DAY),
        rate_bytes: root.size("rate_bytes", RATE_BYTES, 0..=MIB),
        rate_window: root.duration("rate_window", RATE_WINDOW, SECOND / 10..=HOUR),
        retries: root.integer("retries", default.retries, 0..=10),
        concurrency: root.integer("concurrency", default.concurrency, 1..=100_000),
        bytes_per_second: root.size("bytes_per_second", 0, 0..=1024 * GIB),
    };
    if (1..BYTES_PER_SECOND_MIN).contains(&transport.bytes_per_second) {
        let (key, least) = ("bytes_per_second", size::format(BYTES_PER_SECOND_MIN));
        let found = size::format(transport.bytes_per_second);
        let text = format!("found {found}, which serves nobody; write at least {least}, or \"0\" for no limit");
        root.report.conflict(key, key, text);
    }
    transport
}

fn read_client_certificate(root: &mut Section<'_>) -> Option<ClientCertificate> {
    let certificate = root.optional_path("client_certificate");
    let key = root.optional_path("client_key");
    if root.report.is_sound(&["client_certificate", "client_key"]) && certificate.is_some() != key.is_some() {
        let (given, missing) = match certificate {
            Some(_) => ("client_certificate", "client_key"),
            None => ("client_key", "client_certificate"),
        };
        root.report.conflict(given, missing, format!("this needs {missing} too"));
    }
    Some(ClientCertificate { certificate: certificate?, key: key? })
}

/// Reads `peers` of a v1 registry, a list that has at least one.
pub(super) fn read_peers(root: &mut Section<'_>) -> Option<Vec<Peer>> {
    let kind = Kind { name: "list of URLs", allowed: peer::LEGACY.allowed };
    let node = root.take("peers", kind.name, &Fallback::Required);
    let Some(node) = node else {
        root.missing("peers", &format!("a list of {}", kind.allowed));
        return None;
    };
    let peers = root.peers(node, "peers", &peer::LEGACY);
    check_peers(root, peers, &peer::LEGACY)
}

/// No list of peers is empty or names one twice.
pub(super) fn check_peers(root: &Section<'_>, peers: Option<Vec<Peer>>, shape: &Shape) -> Option<Vec<Peer>> {
    if peers.as_ref().is_some_and(Vec::is_empty) && root.report.is_sound(&["peers", "peers[0]"]) {
        root.missing("peers", &format!("a list of {}", shape.allowed));
    }
    let peers = peers?;
    for (index, peer) in peers.iter().enumerate() {
        if peers[..index].iter().any(|other| other.authority == peer.authority) {
            let text = format!("{} stands in the list twice; remove it once", peer.authority);
            root.report.conflict("peers", "peers", text);
        }
    }
    Some(peers)
}

fn read_health(section: &mut Section<'_>, default: Health) -> Health {
    let allowed = "a path that begins with / and has no spaces";
    let is_path = |text: &str| text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    Health {
        path: section.text("path", &default.path, allowed, is_path),
        interval: section.duration("interval", default.interval, SECOND / 10..=HOUR),
        failures: section.integer("failures", default.failures, 1..=1_000),
        successes: section.integer("successes", default.successes, 1..=1_000),
        accepts_refusal: default.accepts_refusal,
    }
}

/// Reads `username` and `password` or `password_file`.
pub(super) fn read_credentials(root: &mut Section<'_>) -> Option<BasicCredentials> {
    let kind = Kind { name: "string", allowed: "a name that is not empty and has no : in it" };
    let is_user = |text: &str| !text.is_empty() && !text.chars().any(|c| c == ':' || c.is_control());
    let username = root.parsed("username", &kind, &Fallback::None, |text| is_user(text).then(|| text.to_owned()));
    let password = root.secret("password", "password_file");
    if root.report.is_sound(&["username", "password", "password_file"]) {
        let given = if root.report.place("password").is_some() { "password" } else { "password_file" };
        match (&username, &password) {
            (Some(_), None) => {
                root.report.conflict("username", given, "this needs password or password_file too".into());
            }
            (None, Some(_)) => root.report.conflict(given, "username", "this needs username too".into()),
            _ => {}
        }
    }
    Some(BasicCredentials { username: username?, password: password? })
}
