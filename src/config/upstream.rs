//! `upstreams/NAME.toml`: the registries behind this one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::defaults::{
    LEGACY_CLIENTS, LEGACY_CONCURRENCY, LEGACY_CONNECT_TIMEOUT, LEGACY_FIRST_BYTE_TIMEOUT, LEGACY_IDLE_TIMEOUT,
};
use super::errors::{ConfigError, Place, Problem};
use super::peer::{self, Peer};
use super::reader::{Fallback, Key, Kind, Report, Section, is_name};
use super::secret::Secret;
use super::tree;

/// A registry behind this one, by its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// A v1 registry.
    Legacy(Legacy),
}

/// A v1 registry, for docker clients older than 1.6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Legacy {
    /// The name of its file, without `.toml`.
    pub name: String,
    /// Where it answers; at least one, and no two the same.
    pub peers: Vec<Peer>,
    /// How peers are checked.
    pub health: Health,
    /// Which clients are sent there when they ask for `/v2/`: `docker < 1.6`.
    pub clients: String,
    /// Whether the caller's Basic credentials are sent on.
    pub forward_basic: bool,
    /// The credentials that are sent as Basic; never together with `forward_basic`.
    pub credentials: Option<BasicCredentials>,
    /// Who signs the certificates of the peers (PEM), if not one of the well-known authorities.
    pub ca: Option<PathBuf>,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long it may think before it answers.
    pub first_byte_timeout: Duration,
    /// How long it may fall silent within an answer.
    pub idle_timeout: Duration,
    /// How many requests it gets at a time.
    pub concurrency: usize,
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
}

#[derive(Clone, Copy)]
enum KindOf {
    Legacy,
    Mirror,
    Fronted,
}

const KINDS: [(&str, KindOf); 3] =
    [("legacy", KindOf::Legacy), ("mirror", KindOf::Mirror), ("fronted", KindOf::Fronted)];

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// The most upstreams that are read.
const UPSTREAMS_MAX: usize = 1_000;

/// What the files of a directory say.
#[derive(Default)]
pub(super) struct Upstreams {
    pub(super) by_name: BTreeMap<String, Upstream>,
    pub(super) errors: Vec<ConfigError>,
    /// The files that were read, secrets included.
    pub(super) files: Vec<PathBuf>,
}

/// Reads all files of `directory`; it need not be there. Relative paths in them start at `base`.
pub(super) fn read_upstreams(directory: &Path, base: &Path) -> Upstreams {
    let mut upstreams = Upstreams::default();
    match file_names(directory) {
        Ok(names) => names.iter().for_each(|name| read_file(&directory.join(name), name, base, &mut upstreams)),
        Err(reason) => upstreams.errors.push(ConfigError {
            place: Place::File(directory.into()),
            key: String::new(),
            problem: Problem::Unreadable { file: None, reason },
        }),
    }
    upstreams
}

/// The names of its `.toml` files, in order. Hidden ones are those of editors and of Kubernetes.
fn file_names(directory: &Path) -> Result<Vec<String>, String> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(error.to_string()),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(|error| error.to_string())?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".toml") && !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    if names.len() > UPSTREAMS_MAX {
        return Err(format!("it holds {} upstreams, but there may be {UPSTREAMS_MAX}", names.len()));
    }
    Ok(names)
}

fn read_file(file: &Path, file_name: &str, base: &Path, upstreams: &mut Upstreams) {
    let name = file_name.trim_end_matches(".toml");
    let report = Report::new(file, base);
    upstreams.files.push(file.into());
    if is_name(name) && name != "hosted" {
        if let Some(Upstream::Legacy(legacy)) = read_text(file, name, &report) {
            check_only_legacy(&legacy, upstreams, &report);
            upstreams.by_name.insert(name.into(), Upstream::Legacy(legacy));
        }
    } else {
        let text = "the file's name is the upstream's: lower-case letters, digits and -, and not \"hosted\"; rename it";
        report.error(report.file(), "", Problem::Conflict(text.into()));
    }
    let (errors, _, files) = report.into_parts();
    upstreams.errors.extend(errors);
    upstreams.files.extend(files);
}

fn check_only_legacy(legacy: &Legacy, upstreams: &Upstreams, report: &Report) {
    if let Some(other) = upstreams.by_name.keys().next() {
        let text = format!(
            "\"legacy\" is the kind of {other}.toml too, and there may be one of it in this version; write enabled = \
             false \
             in {}.toml or in {other}.toml",
            legacy.name
        );
        report.conflict("kind", "kind", text);
    }
}

fn read_text(file: &Path, name: &str, report: &Report) -> Option<Upstream> {
    let path: Arc<Path> = file.into();
    let text = match tree::read_text(file) {
        Ok(text) => text,
        Err(reason) => {
            report.error(report.file(), "", Problem::Unreadable { file: None, reason });
            return None;
        }
    };
    match tree::parse(&text, &path) {
        Ok(entries) => Section::root(report, entries, |root| read_upstream(root, name)),
        Err(errors) => {
            report.extend(errors);
            None
        }
    }
}

/// None, if it is switched off or not good.
fn read_upstream(root: &mut Section<'_>, name: &str) -> Option<Upstream> {
    let kind = root.one_of("kind", &Fallback::Required, &KINDS);
    let found = match kind {
        Some(KindOf::Legacy) => {
            let is_enabled = root.boolean("enabled", true);
            let legacy = read_legacy(root, name);
            return legacy.filter(|_| is_enabled).map(Upstream::Legacy);
        }
        Some(KindOf::Mirror) => Some("\"mirror\""),
        Some(KindOf::Fronted) => Some("\"fronted\""),
        None => None,
    };
    if let Some(found) = found {
        let place = root.report.place("kind").unwrap_or_else(|| root.report.file());
        let instead = "only \"legacy\" is; remove the file, or rename it so that it does not end in .toml";
        root.report.error(place, "kind", Problem::NotYet { found: Some(found.into()), instead });
    }
    root.give_up();
    None
}

fn read_legacy(root: &mut Section<'_>, name: &str) -> Option<Legacy> {
    let peers = read_peers(root);
    let legacy = Legacy {
        name: name.into(),
        peers: Vec::new(),
        health: root.table("health", read_health),
        clients: root.choice("clients", LEGACY_CLIENTS, &[(LEGACY_CLIENTS, LEGACY_CLIENTS)]).into(),
        forward_basic: root.boolean("forward_basic", false),
        credentials: read_credentials(root),
        ca: root.optional_path("ca"),
        connect_timeout: root.duration("connect_timeout", LEGACY_CONNECT_TIMEOUT, SECOND / 10..=HOUR),
        first_byte_timeout: root.duration("first_byte_timeout", LEGACY_FIRST_BYTE_TIMEOUT, SECOND..=DAY),
        idle_timeout: root.duration("idle_timeout", LEGACY_IDLE_TIMEOUT, SECOND..=DAY),
        concurrency: root.integer("concurrency", LEGACY_CONCURRENCY, 1..=100_000),
    };
    if legacy.forward_basic && legacy.credentials.is_some() {
        let text = format!("true does not go with {}: only one of them can be sent", root.report.end("username"));
        root.report.conflict("forward_basic", "username", text);
    }
    Some(Legacy { peers: peers?, ..legacy })
}

fn read_peers(root: &mut Section<'_>) -> Option<Vec<Peer>> {
    let kind = Kind { name: "list of URLs", allowed: peer::ALLOWED };
    let node = root.take("peers", kind.name, &Fallback::Required);
    let Some(node) = node else {
        root.missing("peers", &format!("a list of {}", kind.allowed));
        return None;
    };
    let peers = root.peers(node, "peers");
    if peers.as_ref().is_some_and(Vec::is_empty) && root.report.is_sound(&["peers", "peers[0]"]) {
        root.missing("peers", &format!("a list of {}", kind.allowed));
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

fn read_health(section: &mut Section<'_>) -> Health {
    let default = Health::default();
    let allowed = "a path that begins with / and has no spaces";
    let is_path = |text: &str| text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    Health {
        path: section.text("path", &default.path, allowed, is_path),
        interval: section.duration("interval", default.interval, SECOND / 10..=HOUR),
        failures: section.integer("failures", default.failures, 1..=1_000),
        successes: section.integer("successes", default.successes, 1..=1_000),
    }
}

fn read_credentials(root: &mut Section<'_>) -> Option<BasicCredentials> {
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

/// The keys that a file of the kind `legacy` may have.
pub(super) fn keys() -> Vec<Key> {
    let report = Report::new(Path::new(""), Path::new("."));
    let kind = tree::parse("kind = \"legacy\"", &Path::new("").into()).unwrap_or_default();
    Section::root(&report, kind, |root| read_upstream(root, ""));
    report.into_parts().1
}
