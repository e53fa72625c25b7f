//! Upstreams of the kinds `mirror` and `fronted`: v2 registries elsewhere.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::access::{PatternError, RepositoryPattern};
use crate::oci::{NameError, RepositoryName};

use super::defaults::{
    ABANDONED_FILLS, DOCKER_MIRROR_REPOSITORIES, FRONTED_TAG_TTL, MIRROR_TAG_TTL, REMOTE_CONCURRENCY, REMOTE_DEADLINE,
    REMOTE_FIRST_BYTE_TIMEOUT, REMOTE_FORWARD_TTL, REMOTE_IDLE_TIMEOUT, REMOTE_NEGATIVE_TTL, REMOTE_RETRIES,
    REMOTE_REVALIDATE_TIMEOUT, REMOTE_STALE, remote_health,
};
use super::errors::Problem;
use super::peer::{self, Peer};
use super::reader::{Fallback, Kind, Section};
use super::transport::{self, BasicCredentials, DAY, Defaults, HOUR, SECOND, Transport};

/// A v2 registry elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// What may be done with it.
    pub kind: RemoteKind,
    /// How it is reached.
    pub transport: Transport,
    /// What its repositories' names begin with here: `docker.io` makes them `docker.io/…`.
    pub prefix: RepositoryName,
    /// Values of `?ns=` that name it, in lower case.
    pub namespaces: Vec<String>,
    /// Host names (without a port) by which clients call this gateway when they mean it, in lower case.
    pub hosts: Vec<String>,
    /// Names without a prefix that it answers where the built-in registry has none, as dockerd's `registry-mirrors` asks;
    /// empty, where it does not.
    pub docker_mirror: Vec<RepositoryPattern>,
    /// What is put before names of one part: `library` for Docker Hub.
    pub official: Option<RepositoryName>,
    /// What we show to it.
    pub credentials: Option<Credentials>,
    /// Whose credentials it gets.
    pub authorization: Authorization,
    /// Hosts whose token services may be asked, beside those of its own domain; in lower case.
    pub realms: Vec<String>,
    /// Addresses that are not public and may be reached by redirects and realms all the same.
    pub private_addresses: Vec<IpNet>,
    /// How long a tag's answer is good without asking again.
    pub tag_ttl: Duration,
    /// How long it may be served while the upstream cannot be asked.
    pub stale: Duration,
    /// Whether that holds too where the upstream refuses our credentials.
    pub stale_when_refused: bool,
    /// How long a 404 is remembered.
    pub negative_ttl: Duration,
    /// How long a client waits for a tag to be looked up anew, if there is an older answer.
    pub revalidate_timeout: Duration,
    /// How long a client waits for the head of an answer, all tries together.
    pub deadline: Duration,
    /// With `authorization = "forward"`: how long it is remembered that a caller may read something.
    pub forward_ttl: Duration,
    /// How many downloads that nobody waits for any more may go on.
    pub abandoned_fills: usize,
}

/// What may be done with a v2 registry elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteKind {
    /// Pull.
    Mirror,
    /// Pull and push.
    Fronted,
}

/// Whose credentials an upstream gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authorization {
    /// Those of its file, whoever calls.
    Gateway,
    /// The caller's own.
    Forward,
}

/// What we show to an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user and a password.
    Basic(BasicCredentials),
    /// What a command prints: `user:password`, or docker's credential helper JSON (`Username`, `Secret`).
    Command {
        /// The program and its arguments; no shell.
        command: Vec<String>,
        /// How long what it printed is good.
        lifetime: Duration,
        /// How long it may run.
        timeout: Duration,
    },
}

const NAMES_MAX: usize = 100;
const COMMAND_LIFETIME: Duration = Duration::from_secs(3_600);
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn read_remote(root: &mut Section<'_>, name: &str, kind: RemoteKind) -> Option<Remote> {
    let peers = read_url_or_peers(root);
    let Some(prefix) = read_prefix(root, name) else {
        root.give_up();
        return None;
    };
    let defaults = Defaults {
        health: remote_health(),
        http2: true,
        first_byte_timeout: REMOTE_FIRST_BYTE_TIMEOUT,
        idle_timeout: REMOTE_IDLE_TIMEOUT,
        retries: REMOTE_RETRIES,
        concurrency: REMOTE_CONCURRENCY,
    };
    let tag_ttl = if kind == RemoteKind::Mirror { MIRROR_TAG_TTL } else { FRONTED_TAG_TTL };
    let remote = Remote {
        kind,
        prefix,
        namespaces: read_hosts(root, "namespaces"),
        hosts: read_names(root),
        docker_mirror: read_docker_mirror(root),
        official: root.parsed("official", &NAME, &Fallback::None, |text| text.parse().ok()),
        credentials: read_credentials(root),
        authorization: root.choice(
            "authorization",
            Authorization::Gateway,
            &[("gateway", Authorization::Gateway), ("forward", Authorization::Forward)],
        ),
        realms: read_hosts(root, "realms"),
        private_addresses: read_private_addresses(root),
        tag_ttl: root.duration("tag_ttl", tag_ttl, Duration::ZERO..=365 * DAY),
        stale: root.duration("stale", REMOTE_STALE, Duration::ZERO..=3_650 * DAY),
        stale_when_refused: root.boolean("stale_when_refused", false),
        negative_ttl: root.duration("negative_ttl", REMOTE_NEGATIVE_TTL, Duration::ZERO..=DAY),
        revalidate_timeout: root.duration("revalidate_timeout", REMOTE_REVALIDATE_TIMEOUT, SECOND / 10..=HOUR),
        deadline: root.duration("deadline", REMOTE_DEADLINE, SECOND / 10..=DAY),
        forward_ttl: root.duration("forward_ttl", REMOTE_FORWARD_TTL, Duration::ZERO..=HOUR),
        abandoned_fills: root.integer("abandoned_fills", ABANDONED_FILLS, 0..=10_000),
        transport: transport::read_transport(root, name, defaults),
    };
    check_forward(root, &remote);
    let peers = peers?;
    // One server that is asked all the time needs no other questions, and public registries count them.
    let is_checked = peers.len() > 1 || root.report.place("health").is_some();
    let health = remote.transport.health.clone().filter(|_| is_checked);
    Some(Remote { transport: Transport { peers, health, ..remote.transport }, ..remote })
}

fn check_forward(root: &Section<'_>, remote: &Remote) {
    if remote.authorization == Authorization::Forward && remote.credentials.is_some() {
        let given = if root.report.place("username").is_some() { "username" } else { "credential_command" };
        let text = format!("\"forward\" does not go with {}: only one of them can be sent", root.report.end(given));
        root.report.conflict("authorization", given, text);
    }
}

const NAME: Kind<'static> =
    Kind { name: "string", allowed: "names of lower-case letters and digits, as repositories have" };

/// Exactly one of `url` and `peers`.
fn read_url_or_peers(root: &mut Section<'_>) -> Option<Vec<Peer>> {
    let url = root.take("url", "URL", &Fallback::None);
    let list = root.take("peers", "list of URLs", &Fallback::None);
    match (url, list) {
        (Some(node), None) => root.peer(node, "url", &peer::REMOTE).map(|peer| vec![peer]),
        (None, Some(node)) => {
            let peers = root.peers(node, "peers", &peer::REMOTE);
            transport::check_peers(root, peers, &peer::REMOTE)
        }
        (None, None) => {
            root.missing("url", &format!("one of the {}; or write peers, a list of them", peer::REMOTE.allowed));
            None
        }
        (Some(_), Some(node)) => {
            let text = format!("{} is given too; keep one of the two", root.report.end("url"));
            root.report.error(node.place, "peers", Problem::Conflict(text));
            None
        }
    }
}

fn read_prefix(root: &mut Section<'_>, name: &str) -> Option<RepositoryName> {
    let default = Fallback::Value("the file's name".into());
    match root.parsed("prefix", &NAME, &default, |text| text.parse().ok()) {
        Some(prefix) => Some(prefix),
        None if root.report.place("prefix").is_some() => None,
        None => {
            let parsed: Result<RepositoryName, NameError> = if name.is_empty() { "x".parse() } else { name.parse() };
            if parsed.is_err() {
                root.report.error(root.report.file(), "prefix", Problem::Missing { allowed: NAME.allowed.into() });
            }
            parsed.ok()
        }
    }
}

fn read_hosts(root: &mut Section<'_>, key: &'static str) -> Vec<String> {
    let kind = Kind { name: "list of hosts", allowed: "names such as \"docker.io\"" };
    let hosts =
        root.list(key, &kind, &Fallback::Value("[]".into()), |text| is_host(text).then(|| text.to_ascii_lowercase()));
    let hosts = hosts.unwrap_or_default();
    if hosts.len() > NAMES_MAX {
        root.report.conflict(key, key, format!("it has {} entries, but there may be {NAMES_MAX}", hosts.len()));
    }
    hosts
}

/// Whether it is a host, perhaps with a port.
pub(super) fn is_host(text: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    (1..=255).contains(&text.len()) && text.bytes().all(known)
}

/// Names of this gateway: by whatever port it is called, it is the same one.
fn read_names(root: &mut Section<'_>) -> Vec<String> {
    let hosts = read_hosts(root, "hosts");
    let has_port = |host: &&String| {
        let port = host.rsplit_once(':').filter(|(name, _)| !name.contains(':') || name.ends_with(']'));
        port.is_some()
    };
    if let Some(host) = hosts.iter().find(has_port) {
        let bare = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
        root.report.conflict(
            "hosts",
            "hosts",
            format!("\"{host}\" has a port; the name is meant by any: write \"{bare}\""),
        );
    }
    hosts
}

fn read_docker_mirror(root: &mut Section<'_>) -> Vec<RepositoryPattern> {
    let is_mirror = root.boolean("docker_mirror", false);
    let allowed = PatternError.to_string();
    let kind = Kind { name: "list of patterns", allowed: allowed.trim_start_matches("a pattern is ") };
    let default = Fallback::Value(format!("[\"{DOCKER_MIRROR_REPOSITORIES}\"]"));
    let patterns =
        root.list("docker_mirror_repositories", &kind, &default, |text| text.parse::<RepositoryPattern>().ok());
    let patterns = patterns.unwrap_or_else(|| DOCKER_MIRROR_REPOSITORIES.parse().into_iter().collect());
    let wide = patterns.iter().any(|pattern| !pattern.to_string().starts_with("library/"));
    if is_mirror && wide {
        root.report.doubt(
            "docker_mirror_repositories",
            "names that the built-in registry does not have yet come from there, whoever can push there; a name of its own \
             (hosts) is safer",
        );
    }
    if is_mirror { patterns } else { Vec::new() }
}

fn read_private_addresses(root: &mut Section<'_>) -> Vec<IpNet> {
    let kind = Kind { name: "list of addresses", allowed: "addresses and networks such as \"10.0.0.0/8\"" };
    let parse = |text: &str| text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    root.list("private_addresses", &kind, &Fallback::Value("[]".into()), parse).unwrap_or_default()
}

fn read_credentials(root: &mut Section<'_>) -> Option<Credentials> {
    let basic = transport::read_credentials(root);
    let kind = Kind { name: "list of strings", allowed: "a program and its arguments, each a string" };
    let command =
        root.list("credential_command", &kind, &Fallback::None, |text| (!text.is_empty()).then(|| text.to_owned()));
    let lifetime = root.duration("credential_lifetime", COMMAND_LIFETIME, SECOND..=DAY);
    let timeout = root.duration("credential_timeout", COMMAND_TIMEOUT, SECOND / 10..=HOUR);
    if command.as_ref().is_some_and(Vec::is_empty) {
        let text = "the list is empty; it takes a program and its arguments";
        root.report.conflict("credential_command", "credential_command", text.into());
    }
    match (basic, command) {
        (Some(_), Some(_)) => {
            let text = format!("{} is given too; keep one of the two", root.report.end("username"));
            root.report.conflict("credential_command", "username", text);
            None
        }
        (Some(basic), None) => Some(Credentials::Basic(basic)),
        (None, Some(command)) => Some(Credentials::Command { command, lifetime, timeout }),
        (None, None) => None,
    }
}

impl Remote {
    /// The name of the upstream.
    pub fn name(&self) -> &str {
        &self.transport.name
    }
}
