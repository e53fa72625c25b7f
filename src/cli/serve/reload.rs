//! Changes while the gateway runs: on SIGHUP, and when a file changes.
//!
//! Three steps that do not wait for each other: the configuration (rules and limits), TLS, and users. One that fails is
//! reported, keeps what it had, and is tried again when one of its files changes.

use std::fmt::Display;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustls::ServerConfig;

use dockgate::access::Rules;
use dockgate::config::{self, Config};
use dockgate::gateway::Gateway;
use dockgate::identity::{Identity, Refreshed};
use dockgate::server::Limits;
use dockgate::telemetry::Metrics;

use super::rooms;
use super::signals::{Signals, Wish};

/// How often files are looked at: a change is in force within a second.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How often our own certificate is looked at: it is renewed two months before it ends, and when this machine gets another
/// name or address.
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(60);

/// How often it is said that a certificate ends soon.
const WARN_INTERVAL: Duration = Duration::from_secs(86_400);

/// What a reload reaches.
pub(super) struct Reach {
    /// Where the configuration was read from.
    pub(super) file: Option<PathBuf>,
    pub(super) gateway: Gateway,
    pub(super) identity: Arc<Identity>,
    pub(super) tls: Arc<ArcSwap<ServerConfig>>,
    pub(super) limits: Arc<ArcSwap<Limits>>,
    pub(super) metrics: Metrics,
}

/// Keeps what runs as the files say.
pub(super) struct Reload {
    reach: Reach,
    /// What was read at the start; sections that need a restart are as in here.
    running: Config,
    /// The last good configuration.
    current: Config,
    /// The rules that requests go by.
    rules: Arc<Rules>,
    /// The groups and the file that the users in force were read with.
    users: config::Identity,
    watch: Watch,
    /// Whether the users of `current` are not in force yet.
    users_wait: bool,
    /// What was said of the lines of their file that are not taken.
    bad_lines: Vec<String>,
    certificate_seen: Instant,
    warned: Instant,
}

/// All files that are looked at.
pub(super) struct Watch {
    configuration: Watched,
    tls: Watched,
    users: Watched,
}

impl Watch {
    /// Of what is about to be started with `config`. To be taken before the certificate is read, so that a change meanwhile is
    /// seen.
    pub(super) fn of(config: &Config) -> Self {
        Self {
            configuration: Watched::new(config.watched_files()),
            tls: Watched::new(tls_files(config)),
            users: Watched::new(vec![config.identity.htpasswd.clone()]),
        }
    }
}

/// Files, and how they were when they were last read.
struct Watched {
    files: Vec<PathBuf>,
    seen: Fingerprint,
}

/// What tells one state of the files from another.
type Fingerprint = Vec<Option<(u64, i64, i64, u64)>>;

impl Reload {
    /// For what was just started with `config`.
    pub(super) fn new(config: Config, watch: Watch, reach: Reach) -> Self {
        let now = Instant::now();
        Self {
            reach,
            running: config.clone(),
            rules: Arc::clone(&config.access),
            users: config.identity.clone(),
            watch,
            users_wait: false,
            bad_lines: Vec::new(),
            certificate_seen: now,
            warned: now,
            current: config,
        }
    }

    /// Follows signals and files until it is time to stop.
    pub(super) async fn run(mut self, signals: &mut Signals) {
        let mut tick = tokio::time::interval(LOOK_INTERVAL);
        loop {
            let wish = tokio::select! {
                wish = signals.next() => Some(wish),
                _ = tick.tick() => None,
            };
            match wish {
                Some(Wish::Stop) => return,
                Some(Wish::Reload) => self.reload(true, true),
                None => {
                    let configuration = self.watch.configuration.changed();
                    let tls = self.watch.tls.changed() || self.certificate_is_renewed();
                    if configuration || tls || self.users_wait && self.watch.users.changed() {
                        self.reload(configuration, tls);
                    } else {
                        self.refresh_users();
                    }
                    self.warn_of_certificate();
                }
            }
        }
    }

    /// Takes the steps that are due; what a new configuration may change for the others makes them due too.
    fn reload(&mut self, configuration: bool, tls: bool) {
        let is_new = configuration && self.read_configuration();
        let is_tls_good = !(tls || is_new) || self.read_tls();
        // SIGHUP asks for the users too, whatever became of the configuration.
        let users_due = configuration || self.users_wait && self.watch.users.changed();
        let is_users_good = !users_due || self.read_users();
        self.apply();
        let is_good = is_new == configuration && is_tls_good && is_users_good;
        self.reach.metrics.reload(if is_good { "done" } else { "refused" });
    }

    /// Whether the configuration could be read.
    fn read_configuration(&mut self) -> bool {
        // Taken before the files are read, so that a change meanwhile is seen the next time.
        self.watch.configuration.look();
        match Config::load_apart(self.reach.file.as_deref(), config::process_environment()) {
            Ok(mut config) => {
                self.watch.configuration.follow(config.watched_files());
                self.keep_upstreams(&mut config);
                let restart = self.running.needs_restart(&config);
                if !restart.is_empty() {
                    tracing::warn!(sections = restart.join(", "), "these changed; they hold after a restart");
                }
                super::warn_of_configuration(&config);
                self.current = config;
                tracing::info!("the configuration was read again");
                true
            }
            Err(errors) => {
                let files = self.current.watched_files().into_iter().chain(errors.files()).collect();
                self.watch.configuration.follow(files);
                refused(&errors, "the new configuration is not good; the old one goes on");
                false
            }
        }
    }

    /// Upstreams take a restart anyway: a mistake in one of their files must not keep a rule in force that was taken away.
    fn keep_upstreams(&mut self, config: &mut Config) {
        let mistakes = config.broken.values().flat_map(|broken| &broken.errors);
        for error in mistakes.filter(|_| config.broken != self.current.broken) {
            tracing::error!(%error, "the file of an upstream is not good; upstreams go on as they were");
        }
        if !config.broken.is_empty() {
            config.upstreams.clone_from(&self.current.upstreams);
            config.broken.clone_from(&self.current.broken);
        }
    }

    /// Whether the certificates could be read.
    fn read_tls(&mut self) -> bool {
        self.watch.tls.files = tls_files(&self.current);
        self.watch.tls.look();
        let read = rooms::ensure_certificates(&self.current).and_then(|()| {
            // Making them changed the files, and what is read next is what was made.
            self.watch.tls.look();
            rooms::load_tls(&self.current)
        });
        self.certificate_seen = Instant::now();
        match read {
            Ok(tls) => {
                self.reach.tls.store(tls);
                super::warn_of_certificate(&self.current);
                self.warned = Instant::now();
                tracing::info!("the certificate was read again");
                true
            }
            Err(error) => {
                refused(&error, "the new certificate is not good; the old one goes on");
                false
            }
        }
    }

    /// Whether the users could be read.
    fn read_users(&mut self) -> bool {
        self.watch.users.files = vec![self.current.identity.htpasswd.clone()];
        self.watch.users.look();
        match self.reach.identity.reload(rooms::identity_settings(&self.current)) {
            Ok(()) => {
                self.users = self.current.identity.clone();
                self.users_wait = false;
                self.bad_lines.clear();
                tell_users(self.reach.identity.users());
                self.tell_bad_lines();
                true
            }
            Err(error) => {
                self.users_wait = true;
                refused(&error, "the new users are not good; the old ones go on");
                false
            }
        }
    }

    /// Puts the rules and the limits of the last good configuration in force.
    fn apply(&mut self) {
        // New rules with old groups would give those who left a group what its members get.
        if self.users.groups == self.current.identity.groups {
            self.rules = Arc::clone(&self.current.access);
        } else {
            tracing::warn!("identity.groups changed too, so the new rules wait for the users");
        }
        self.reach.limits.store(Arc::new(rooms::server_limits(&self.current.limits)));
        let mut settings = rooms::gateway_settings(&self.running, &self.current);
        settings.rules = Arc::clone(&self.rules);
        // What is told in challenges must be what tokens are issued for.
        settings.realm = self.reach.identity.service();
        self.reach.gateway.reload(settings);
    }

    fn refresh_users(&mut self) {
        // While they wait, this very file was reported already.
        if self.users_wait && self.users.htpasswd == self.current.identity.htpasswd {
            return;
        }
        match self.reach.identity.refresh() {
            Ok(Refreshed::Unchanged) => {}
            Ok(Refreshed::Changed { users }) => {
                self.bad_lines.clear();
                tell_users(users);
            }
            Err(error) => refused(&error, "the users cannot be read; the old ones go on"),
        }
        self.tell_bad_lines();
    }

    /// Once each time the file changes. Whoever registers has the file read too, so it is looked at every time.
    fn tell_bad_lines(&mut self) {
        let lines = self.reach.identity.bad_lines();
        if lines != self.bad_lines {
            for problem in &lines {
                tracing::warn!(problem, "a line of the users' file is not taken, and keeps its name out");
            }
            self.bad_lines = lines;
        }
    }

    /// Whether our own certificate was made anew.
    fn certificate_is_renewed(&mut self) -> bool {
        if self.current.tls.certificate.is_some() || self.certificate_seen.elapsed() < CERTIFICATE_INTERVAL {
            return false;
        }
        self.certificate_seen = Instant::now();
        match rooms::certificates(&self.current) {
            Ok(made) => made.renewed.is_some(),
            Err(error) => {
                refused(&error, "the certificate cannot be renewed; the old one goes on");
                false
            }
        }
    }

    fn warn_of_certificate(&mut self) {
        if self.warned.elapsed() >= WARN_INTERVAL {
            self.warned = Instant::now();
            super::warn_of_certificate(&self.current);
        }
    }
}

fn tell_users(users: usize) {
    if users == 0 {
        tracing::warn!(users, "there are no users (any more): nobody can log in; `dockgate user add` makes one");
    } else {
        tracing::info!(users, "the users were read again");
    }
}

/// One line for each thing that is wrong, as `dockgate check` prints it.
fn refused(error: &dyn Display, outcome: &'static str) {
    for error in error.to_string().lines() {
        tracing::error!(error, "{outcome}");
    }
}

fn tls_files(config: &Config) -> Vec<PathBuf> {
    let tls = rooms::tls_settings(config);
    let mut files: Vec<PathBuf> = [tls.certificate, tls.key].into_iter().chain(tls.client_ca).collect();
    if config.tls.certificate.is_none() {
        files.extend(["ca.crt", "ca.key"].map(|file| config.tls.directory.join(file)));
    }
    files
}

impl Watched {
    fn new(files: Vec<PathBuf>) -> Self {
        let seen = fingerprint(&files);
        Self { files, seen }
    }

    fn changed(&self) -> bool {
        fingerprint(&self.files) != self.seen
    }

    fn look(&mut self) {
        self.seen = fingerprint(&self.files);
    }

    /// Other files from now on; those that were looked at before keep what was seen.
    fn follow(&mut self, files: Vec<PathBuf>) {
        let before = std::mem::replace(self, Self::new(files));
        for (file, seen) in before.files.iter().zip(before.seen) {
            if let Some(index) = self.files.iter().position(|other| other == file) {
                self.seen[index] = seen;
            }
        }
    }
}

fn fingerprint(files: &[PathBuf]) -> Fingerprint {
    let look = |file: &PathBuf| {
        let metadata = fs::metadata(file).ok()?;
        Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len()))
    };
    files.iter().map(look).collect()
}
