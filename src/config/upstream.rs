//! `upstreams/NAME.toml`: the registries behind this one.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::errors::{ConfigError, Place, Problem};
use super::legacy::{Legacy, read_legacy};
use super::listen::Listener;
use super::reader::{Fallback, Key, Report, Section, is_name};
use super::remote::{Remote, RemoteKind, read_remote};
use super::tree;

/// A registry behind this one, by its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// A v1 registry.
    Legacy(Box<Legacy>),
    /// A v2 registry elsewhere.
    Remote(Box<Remote>),
}

#[derive(Clone, Copy)]
enum KindOf {
    Legacy,
    Mirror,
    Fronted,
}

const KINDS: [(&str, KindOf); 3] =
    [("legacy", KindOf::Legacy), ("mirror", KindOf::Mirror), ("fronted", KindOf::Fronted)];

/// The most upstreams that are read.
const UPSTREAMS_MAX: usize = 1_000;

/// What the files of a directory say.
#[derive(Default)]
pub(super) struct Upstreams {
    pub(super) by_name: BTreeMap<String, Upstream>,
    pub(super) errors: Vec<ConfigError>,
    pub(super) warnings: Vec<ConfigError>,
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
        if let Some(upstream) = read_text(file, name, &report) {
            check_claims(name, &upstream, upstreams, &report);
            upstreams.by_name.insert(name.into(), upstream);
        }
    } else {
        let text = "the file's name is the upstream's: lower-case letters, digits and -, and not \"hosted\"; rename it";
        report.error(report.file(), "", Problem::Conflict(text.into()));
    }
    upstreams.warnings.extend(report.take_warnings());
    let (errors, _, files) = report.into_parts();
    upstreams.errors.extend(errors);
    upstreams.files.extend(files);
}

/// What only one upstream can have: being the v1 registry, and names.
fn check_claims(name: &str, upstream: &Upstream, others: &Upstreams, report: &Report) {
    for (other_name, other) in &others.by_name {
        match (upstream, other) {
            (Upstream::Legacy(_), Upstream::Legacy(_)) => report.conflict(
                "kind",
                "kind",
                format!(
                    "\"legacy\" is the kind of {other_name}.toml too, and there may be one of it in this version; write \
                     enabled = false in {name}.toml or in {other_name}.toml"
                ),
            ),
            (Upstream::Remote(remote), Upstream::Remote(other)) => check_names(remote, other, report),
            _ => {}
        }
    }
}

/// An upstream that is this gateway would ask itself for ever. Names that lead back here are found out by the first request.
pub(super) fn check_loops(upstreams: &mut Upstreams, directory: &Path, listen: &BTreeMap<String, Listener>) {
    let mut errors = Vec::new();
    for (name, upstream) in &upstreams.by_name {
        let transport = match upstream {
            Upstream::Legacy(legacy) => &legacy.transport,
            Upstream::Remote(remote) => &remote.transport,
        };
        for peer in &transport.peers {
            let ours = listen.iter().find(|(_, listener)| leads_to(&peer.authority, listener.address));
            if let Some((listener, _)) = ours {
                let text =
                    format!("{} is this gateway itself (listen.{listener}.address); name another registry", peer.url);
                let place = Place::File(directory.join(format!("{name}.toml")).into());
                errors.push(ConfigError { place, key: "url".into(), problem: Problem::Conflict(text) });
            }
        }
    }
    upstreams.errors.extend(errors);
}

/// Whether `host:port` is a socket of ours, as far as can be said without asking anybody.
fn leads_to(authority: &str, listener: SocketAddr) -> bool {
    let Some((host, port)) = authority.rsplit_once(':') else { return false };
    let address = match host.trim_start_matches('[').trim_end_matches(']') {
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        host => host.parse().ok(),
    };
    let is_here = |address: IpAddr| {
        address == listener.ip()
            || listener.ip().is_unspecified() && (address.is_loopback() || address.is_unspecified())
    };
    listener.port() != 0 && port.parse() == Ok(listener.port()) && address.is_some_and(is_here)
}

/// Two upstreams cannot answer to one name.
fn check_names(remote: &Remote, other: &Remote, report: &Report) {
    let file = format!("{}.toml", other.name());
    let claimed = |key: &str, what: &str| {
        report.conflict(
            key,
            key,
            format!("{what} belongs to {file} too; a name has one upstream, so change one of them"),
        );
    };
    if remote.prefix == other.prefix {
        claimed("prefix", &format!("\"{}\"", remote.prefix));
    }
    for namespace in remote.namespaces.iter().filter(|namespace| other.namespaces.contains(namespace)) {
        claimed("namespaces", &format!("\"{namespace}\""));
    }
    for host in remote.hosts.iter().filter(|host| other.hosts.contains(host)) {
        claimed("hosts", &format!("\"{host}\""));
    }
    if !remote.docker_mirror.is_empty() && !other.docker_mirror.is_empty() {
        claimed("docker_mirror", "dockerd's registry-mirrors");
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
    let Some(kind) = root.one_of("kind", &Fallback::Required, &KINDS) else {
        root.give_up();
        return None;
    };
    let is_enabled = root.boolean("enabled", true);
    let remote = |root: &mut Section<'_>, kind| read_remote(root, name, kind).map(Box::new).map(Upstream::Remote);
    let upstream = match kind {
        KindOf::Legacy => read_legacy(root, name).map(|legacy| Upstream::Legacy(Box::new(legacy))),
        KindOf::Mirror => remote(root, RemoteKind::Mirror),
        KindOf::Fronted => remote(root, RemoteKind::Fronted),
    };
    upstream.filter(|_| is_enabled)
}

/// The keys that a file of this kind may have.
pub(super) fn keys(kind: &str) -> Vec<Key> {
    let report = Report::new(Path::new(""), Path::new("."));
    let kind = tree::parse(&format!("kind = \"{kind}\""), &Path::new("").into()).unwrap_or_default();
    Section::root(&report, kind, |root| read_upstream(root, ""));
    report.into_parts().1
}
