//! Floor 2: `gateway.toml`, `upstreams/*.toml` and the environment become a [`Config`].
//!
//! What has been parsed has been validated. [`Config::load`] finds all mistakes at once; each says where it stands,
//! what was found and what is allowed. What the files named here hold (certificates, users) is checked by who reads them.

mod broken;
mod defaults;
mod duration;
mod environment;
mod errors;
mod identity;
mod legacy;
mod limits;
mod listen;
mod log;
mod peer;
mod reader;
pub mod redact;
mod remote;
mod scalars;
mod secret;
mod size;
mod storage;
mod transport;
mod tree;
mod upstream;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::access::Rules;

pub use broken::Broken;
pub use environment::process_environment;
pub use errors::{ConfigError, ConfigErrors, Place, Problem};
pub use identity::{Challenge, Identity, Token};
pub use legacy::Legacy;
pub use limits::Limits;
pub use listen::{Admin, ClientAuth, Listener, PlainPolicy, Protocol, Tls, TlsVersion};
pub use log::{Format, Level, Log};
pub use peer::Peer;
pub use reader::Key;
pub use remote::{Authorization, Credentials, Remote, RemoteKind};
pub use secret::Secret;
pub use storage::{Cache, Registry};
pub use transport::{BasicCredentials, ClientCertificate, Health, Transport};
pub use upstream::Upstream;

use defaults::{FILE_NAME, UPSTREAMS_DIRECTORY};
use reader::{Report, Section, resolve};
use tree::Table;

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The directory of `gateway.toml`. Relative paths were resolved against it.
    pub directory: PathBuf,
    /// What was read, or would have been: see [`Config::watched_files`].
    pub sources: Vec<PathBuf>,
    /// The sockets that clients connect to, by name; at least one.
    pub listen: BTreeMap<String, Listener>,
    /// Certificates.
    pub tls: Tls,
    /// Users.
    pub identity: Identity,
    /// Who may do what.
    pub access: Arc<Rules>,
    /// The built-in registry.
    pub registry: Registry,
    /// What is kept for a while.
    pub cache: Cache,
    /// Limits and deadlines.
    pub limits: Limits,
    /// The listener for operators.
    pub admin: Admin,
    /// The log.
    pub log: Log,
    /// The registries behind this one that are switched on, by name.
    pub upstreams: BTreeMap<String, Upstream>,
    /// Those whose files are not good. They are left out, and what is wrong is told.
    pub broken: BTreeMap<String, Broken>,
    /// What is written and does nothing.
    pub warnings: Vec<ConfigError>,
}

impl Config {
    /// Reads `gateway.toml` at `path`, the upstreams beside it, and the overrides among `environment` (all of it may be
    /// given, as by [`process_environment`]). Without a path `gateway.toml` in the working directory is read if it is
    /// there.
    ///
    /// # Errors
    ///
    /// All mistakes that were found; a file named by `path` that is not there is one.
    pub fn load(
        path: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let config = Self::load_apart(path, environment)?;
        let errors = config.broken.values().flat_map(|broken| broken.errors.iter().cloned());
        ConfigErrors::new(errors.collect()).map_or(Ok(config), Err)
    }

    /// Loads the configuration without the upstreams whose files are not good: nothing else is to stop working because of them.
    ///
    /// # Errors
    ///
    /// All mistakes that were found, if there is one outside of the upstreams' files.
    pub fn load_apart(
        path: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let file = path.unwrap_or(Path::new(FILE_NAME));
        let directory = match file.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let report = Report::new(file, directory);
        let mut root = Table::new();
        if let Some(tree) = read_tree(file, path.is_some(), &report) {
            root = tree;
            environment::apply(&mut root, environment, &report);
        }
        let config = Section::root(&report, root, |root| read_config(root, directory));

        let upstreams_directory = resolve(directory, Path::new(UPSTREAMS_DIRECTORY));
        let mut upstreams = upstream::read_upstreams(&upstreams_directory, directory);
        upstream::check_loops(&mut upstreams, &upstreams_directory, &config.listen);
        let broken = broken::by_upstream(&upstreams_directory, upstreams.errors.clone());
        let is_broken = |name: &str| broken.as_ref().is_ok_and(|broken| broken.contains_key(name));
        upstreams.by_name.retain(|name, _| !is_broken(name));
        if !is_broken(&config.registry.default) {
            storage::check_default(&config.registry, &upstreams.by_name, &report);
            storage::check_namespaces(&config.registry, &upstreams.by_name, &report);
        }
        let mut warnings = report.take_warnings();
        warnings.append(&mut upstreams.warnings);
        let (mut errors, _, secrets) = report.into_parts();
        let broken = match broken {
            Ok(broken) if errors.is_empty() && !broken.contains_key(&config.registry.default) => broken,
            _ => {
                errors.append(&mut upstreams.errors);
                BTreeMap::new()
            }
        };
        if let Some(errors) = ConfigErrors::new(errors) {
            return Err(errors);
        }
        let sources = [file.into(), upstreams_directory].into_iter().chain(upstreams.files).chain(secrets);
        Ok(Self { sources: sources.collect(), upstreams: upstreams.by_name, broken, warnings, ..config })
    }

    /// The files and directories in which a change may change this configuration: `gateway.toml` (even if it is not
    /// there yet), the directory of upstreams, the upstreams (those that are switched off too) and files of secrets.
    pub fn watched_files(&self) -> Vec<PathBuf> {
        self.sources.clone()
    }

    /// The sections and keys in which `new` differs from this in what only a restart can apply. `tls`, `identity`, `access`
    /// and the other `limits` can be applied while running.
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let (old, limits) = (&self.limits, &new.limits);
        let sections = [
            ("listen", listen::needs_restart(&self.listen, &new.listen)),
            ("registry", self.registry != new.registry),
            ("cache", self.cache != new.cache),
            ("admin", self.admin != new.admin),
            ("log", self.log != new.log),
            ("upstreams", self.upstreams != new.upstreams),
            ("limits.upstream_patience", old.upstream_patience != limits.upstream_patience),
            ("limits.uploads", old.uploads != limits.uploads),
            ("limits.upload_lifetime", old.upload_lifetime != limits.upload_lifetime),
            ("limits.disk_reserve", old.disk_reserve != limits.disk_reserve),
            ("limits.disk_reserve_percent", old.disk_reserve_percent != limits.disk_reserve_percent),
        ];
        sections.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }
}

/// The tree of the file; an empty one, if it is not there and need not be; none, if there is no tree to read.
fn read_tree(file: &Path, must_exist: bool, report: &Report) -> Option<Table> {
    if !must_exist && matches!(file.try_exists(), Ok(false)) {
        return Some(Table::new());
    }
    let tree = match tree::read_text(file) {
        Ok(text) => tree::parse(&text, &file.into()),
        Err(reason) => {
            report.error(report.file(), "", Problem::Unreadable { file: None, reason });
            return None;
        }
    };
    tree.map_err(|errors| report.extend(errors)).ok()
}

fn read_config(root: &mut Section<'_>, directory: &Path) -> Config {
    root.later(&["notifications"]);
    let mut listen = listen::read_listeners(root);
    let tls = root.table("tls", listen::read_tls);
    let identity = root.table("identity", identity::read_identity);
    let access = Arc::new(identity::read_rules(root, &identity.groups));
    let registry = root.table("registry", storage::read_registry);
    let cache = root.table("cache", storage::read_cache);
    let limits = root.table("limits", limits::read_limits);
    let admin = root.table("admin", listen::read_admin);
    let log = root.table("log", log::read_log);
    listen::check_listeners(&listen, &admin, root.report);
    listen::require_certificates(&mut listen, &tls, root.report);
    Config {
        directory: directory.into(),
        sources: vec![],
        listen,
        tls,
        identity,
        access,
        registry,
        cache,
        limits,
        admin,
        log,
        upstreams: BTreeMap::new(),
        broken: BTreeMap::new(),
        warnings: vec![],
    }
}

/// The keys that `gateway.toml` may have, sorted by path: those of a listener under `listen.main`, those of a rule
/// under `access[0]`.
pub fn keys() -> Vec<Key> {
    let example = "[listen.main]\n[[access]]\n";
    let report = Report::new(Path::new(FILE_NAME), Path::new("."));
    let tree = tree::parse(example, &Path::new(FILE_NAME).into()).unwrap_or_default();
    Section::root(&report, tree, |root| read_config(root, Path::new(".")));
    sorted(report.into_parts().1)
}

/// The keys that a file of the kind `legacy` in `upstreams/` may have, sorted by path.
pub fn legacy_keys() -> Vec<Key> {
    sorted(upstream::keys("legacy"))
}

/// The keys that a file of the kind `mirror` or `fronted` in `upstreams/` may have, sorted by path.
pub fn remote_keys(kind: RemoteKind) -> Vec<Key> {
    sorted(upstream::keys(if kind == RemoteKind::Mirror { "mirror" } else { "fronted" }))
}

fn sorted(mut keys: Vec<Key>) -> Vec<Key> {
    keys.sort();
    keys
}
