//! Changes while the gateway runs: on SIGHUP, and when a file changes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustls::ServerConfig;

use dockgate::config::{self, Config};
use dockgate::gateway::Gateway;
use dockgate::identity::{Identity, Refreshed};
use dockgate::server::Limits;
use dockgate::telemetry::Metrics;

use super::rooms;
use super::signals::{Signals, Wish};
use crate::cli::exit::Exit;

/// How often files are looked at: a change is in force within a second.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How often our own certificate is looked at: it is renewed a month before it ends, and when this machine gets another
/// name or address.
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(60);

/// What changes with a reload.
pub(super) struct Reload {
    /// What was read at the start; sections that need a restart are as in here.
    pub(super) running: Config,
    /// Where it was read from.
    pub(super) file: Option<PathBuf>,
    pub(super) gateway: Gateway,
    pub(super) identity: Arc<Identity>,
    pub(super) tls: Arc<ArcSwap<ServerConfig>>,
    pub(super) limits: Arc<ArcSwap<Limits>>,
    pub(super) metrics: Metrics,
}

/// What tells one state of the files from another.
type Fingerprint = Vec<Option<(u64, i64, i64, u64)>>;

impl Reload {
    /// Follows signals and files until it is time to stop.
    pub(super) async fn run(&self, signals: &mut Signals) {
        let mut tick = tokio::time::interval(LOOK_INTERVAL);
        let mut files = self.files(&self.running);
        let mut seen = fingerprint(&files);
        let mut certificate_seen = Instant::now();
        loop {
            let wish = tokio::select! {
                wish = signals.next() => Some(wish),
                _ = tick.tick() => None,
            };
            match wish {
                Some(Wish::Stop) => return,
                Some(Wish::Reload) => {}
                None => {
                    self.refresh_users();
                    let certificate_due = certificate_seen.elapsed() >= CERTIFICATE_INTERVAL;
                    if fingerprint(&files) == seen && !(certificate_due && self.renew_certificate()) {
                        continue;
                    }
                }
            }
            certificate_seen = Instant::now();
            // Taken before the files are read, so that a change meanwhile is seen the next time.
            seen = fingerprint(&files);
            if let Some(config) = self.reload() {
                files = self.files(&config);
                seen = fingerprint(&files);
            }
        }
    }

    fn refresh_users(&self) {
        match self.identity.refresh() {
            Ok(Refreshed::Unchanged) => {}
            Ok(Refreshed::Changed { users }) => tracing::info!(users, "the users were read again"),
            Err(error) => tracing::error!(%error, "the users cannot be read; the old ones go on"),
        }
    }

    /// Whether our own certificate was made anew.
    fn renew_certificate(&self) -> bool {
        if self.running.tls.certificate.is_some() {
            return false;
        }
        match rooms::certificates(&self.running) {
            Ok(made) => made.renewed.is_some(),
            Err(error) => {
                tracing::error!(%error, "the certificate cannot be renewed; the old one goes on");
                false
            }
        }
    }

    /// Reads everything again; either all of it is good and holds from now on, or the old goes on.
    fn reload(&self) -> Option<Config> {
        match self.read() {
            Ok(config) => {
                self.metrics.reload("done");
                let restart = self.running.needs_restart(&config);
                if !restart.is_empty() {
                    tracing::warn!(sections = restart.join(", "), "these sections changed; they hold after a restart");
                }
                tracing::info!("the configuration was read again");
                Some(config)
            }
            Err(error) => {
                self.metrics.reload("refused");
                tracing::error!(%error, "the new configuration is not good; the old one goes on");
                None
            }
        }
    }

    fn read(&self) -> Result<Config, Exit> {
        let config = Config::load(self.file.as_deref(), config::process_environment()).map_err(Exit::config)?;
        let tls = rooms::tls(&config)?;
        self.identity.reload(rooms::identity_settings(&config)).map_err(Exit::config)?;
        self.tls.store(tls);
        self.limits.store(Arc::new(rooms::server_limits(&config.limits)));
        self.gateway.reload(rooms::gateway_settings(&self.running, &config));
        Ok(config)
    }

    fn files(&self, config: &Config) -> Vec<PathBuf> {
        let tls = rooms::tls_settings(config);
        config.watched_files().into_iter().chain([tls.certificate, tls.key]).chain(tls.client_ca).collect()
    }
}

fn fingerprint(files: &[PathBuf]) -> Fingerprint {
    let look = |file: &PathBuf| {
        let metadata = fs::metadata(file).ok()?;
        Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len()))
    };
    files.iter().map(look).collect()
}
