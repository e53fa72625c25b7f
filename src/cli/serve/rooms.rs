//! The rooms, opened from a configuration.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use dockgate::cache::Memory;
use dockgate::config::{self, Config, Upstream};
use dockgate::gateway::admin::Admin;
use dockgate::gateway::{self, Gateway, Rooms};
use dockgate::identity::{self, Identity};
use dockgate::net::certificates::{self, Made};
use dockgate::net::tls::{self, TlsError};
use dockgate::registry::{Hosted, Legacy};
use dockgate::server;
use dockgate::store::{self, OpenError, Store};
use dockgate::telemetry::Metrics;

use super::{first_start, token_keys, until};
use crate::cli::exit::{Code, Exit};

/// How often the healthy peers are counted for the metrics.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);

/// All rooms of a running gateway.
pub(super) struct House {
    pub(super) gateway: Gateway,
    pub(super) admin: Admin,
    pub(super) identity: Arc<Identity>,
    /// The file with the first user's password, where one was made.
    pub(super) first_user: Option<PathBuf>,
    store: Store,
    legacy: Option<Arc<Legacy>>,
}

impl House {
    /// Opens everything. The data directory comes first: who does not get its lock changes nothing.
    pub(super) async fn open(config: &Config, metrics: &Metrics) -> Result<Self, Exit> {
        let store = Store::open(store_settings(config)).await.map_err(|error| Exit::new(open_code(&error), error))?;
        let first_user = first_start::ensure_user(config)?;
        let keys = token_keys::open(&store).await?;
        let identity = Arc::new(Identity::open(identity_settings(config), keys).map_err(Exit::config)?);
        token_keys::renew(&store, &identity).await;
        let memory = Memory::new(config.cache.memory, config.cache.memory_object_max);
        let hosted = Arc::new(Hosted::new(store.clone(), memory, config.registry.delete));
        let legacy = legacy(config).await?;
        let rooms = Rooms {
            identity: Arc::clone(&identity),
            hosted: Arc::clone(&hosted),
            legacy: legacy.clone(),
            metrics: metrics.clone(),
        };
        let id_prefix = getrandom::u32().map_err(|error| Exit::new(Code::Software, error))?;
        let gateway = Gateway::new(rooms, gateway_settings(config, config), id_prefix);
        let admin = Admin::new(hosted, metrics.clone());
        Ok(Self { gateway, admin, identity, first_user, store, legacy })
    }

    /// What goes on beside the requests.
    pub(super) fn spawn_tasks(&self, metrics: &Metrics, stopped: watch::Receiver<bool>) -> Vec<JoinHandle<()>> {
        let keys = token_keys::follow(self.store.clone(), Arc::clone(&self.identity), stopped.clone());
        let keys = tokio::spawn(keys);
        let Some(legacy) = &self.legacy else { return vec![keys] };
        let peers = Arc::clone(legacy.peers());
        let (health, metrics) = (Arc::clone(&peers), metrics.clone());
        let count = async move {
            let mut tick = tokio::time::interval(COUNT_INTERVAL);
            loop {
                tick.tick().await;
                let healthy = peers.states().iter().filter(|state| state.healthy).count();
                metrics.healthy_peers(peers.name(), healthy);
            }
        };
        vec![keys, tokio::spawn(health.run(until(stopped))), tokio::spawn(count)]
    }

    /// Writes what waits, and gives the data directory back.
    pub(super) async fn close(self) {
        self.store.close().await;
    }
}

async fn legacy(config: &Config) -> Result<Option<Arc<Legacy>>, Exit> {
    let Some(legacy) = open_legacy(config).await? else { return Ok(None) };
    // Once before serving: a peer that nobody asked yet would count as healthy.
    legacy.peers().check_once().await;
    Ok(Some(Arc::new(legacy)))
}

/// The v1 registry behind this one, where there is one; nobody is asked yet.
pub(in crate::cli) async fn open_legacy(config: &Config) -> Result<Option<Legacy>, Exit> {
    let Some(Upstream::Legacy(upstream)) = config.upstreams.values().next() else { return Ok(None) };
    Legacy::open(upstream).await.map(Some).map_err(Exit::config)
}

const fn open_code(error: &OpenError) -> Code {
    match error {
        OpenError::InUse { .. } => Code::TryAgain,
        OpenError::ReadOnly { .. } | OpenError::Io { .. } => Code::CannotCreate,
        OpenError::NewerVersion { .. } | OpenError::Database { .. } => Code::Data,
    }
}

/// The TLS side of the configuration; makes the certificates where the operator has none.
pub(super) fn tls(config: &Config) -> Result<Arc<ServerConfig>, Exit> {
    ensure_certificates(config)?;
    load_tls(config)
}

/// Makes the certificates where the operator has none.
pub(super) fn ensure_certificates(config: &Config) -> Result<(), Exit> {
    if config.tls.certificate.is_none() { certificates(config).map(drop) } else { Ok(()) }
}

pub(super) fn load_tls(config: &Config) -> Result<Arc<ServerConfig>, Exit> {
    tls::load(&tls_settings(config)).map_err(|error| Exit::config(tls_problem(config, &error)))
}

/// The error, after the key that names the file.
pub(in crate::cli) fn tls_problem(config: &Config, error: &TlsError) -> String {
    let tls = &config.tls;
    let mut keys = [("tls.certificate", &tls.certificate), ("tls.key", &tls.key), ("tls.client_ca", &tls.client_ca)];
    if error.is_about_key() {
        // One file may hold both.
        keys.swap(0, 1);
    }
    match keys.iter().find(|(_, file)| file.is_some() && file.as_deref() == error.file()) {
        Some((key, _)) => format!("{key}: {error}"),
        None => error.to_string(),
    }
}

/// Makes or renews the private CA and the server certificate.
pub(in crate::cli) fn certificates(config: &Config) -> Result<Made, Exit> {
    let (names, addresses) = certificates::local_names();
    certificates::ensure(&config.tls.directory, &names, &addresses)
        .map_err(|error| Exit::new(Code::CannotCreate, error))
}

pub(in crate::cli) fn tls_settings(config: &Config) -> tls::Settings {
    let tls = &config.tls;
    tls::Settings {
        certificate: tls.certificate.clone().unwrap_or_else(|| tls.directory.join("server.crt")),
        key: tls.key.clone().unwrap_or_else(|| tls.directory.join("server.key")),
        min_version: match tls.min_version {
            config::TlsVersion::Tls12 => tls::MinVersion::Tls12,
            config::TlsVersion::Tls13 => tls::MinVersion::Tls13,
        },
        client_ca: tls.client_ca.clone(),
        client_auth: match tls.client_auth {
            config::ClientAuth::Optional => tls::ClientAuth::Optional,
            config::ClientAuth::Required => tls::ClientAuth::Required,
        },
    }
}

pub(super) fn identity_settings(config: &Config) -> identity::Settings {
    let (identity, limits) = (&config.identity, &config.limits);
    identity::Settings {
        realm: identity.realm.clone(),
        htpasswd: identity.htpasswd.clone(),
        groups: identity.groups.clone(),
        token_lifetime: identity.token.lifetime,
        refresh_lifetime: identity.token.refresh_lifetime,
        key_lifetime: identity.token.key_lifetime,
        services: identity.token.services.clone(),
        chain: identity.token.chain,
        bcrypt_concurrency: limits.bcrypt_concurrency,
        bcrypt_queue: limits.bcrypt_queue,
        bcrypt_wait_timeout: limits.bcrypt_wait_timeout,
        credential_lifetime: limits.credential_lifetime,
        login_failures: limits.login_failures,
    }
}

/// What requests go by: all of `new` but the listeners, which are as they were bound. Only who may talk plain HTTP there
/// follows `new`: where it demands certificates of clients, nobody may, on a listener for plain HTTP neither.
pub(super) fn gateway_settings(running: &Config, new: &Config) -> gateway::Settings {
    let mut listeners = running.listen.clone();
    for (name, listener) in &mut listeners {
        if let Some(new) = new.listen.get(name) {
            listener.plain = new.plain;
        }
        if new.tls.client_auth == config::ClientAuth::Required {
            listener.plain = config::PlainPolicy::Nobody;
            listener.protocol = config::Protocol::Tls;
        }
    }
    gateway::Settings {
        rules: Arc::clone(&new.access),
        limits: new.limits.clone(),
        listeners,
        realm: new.identity.realm.clone(),
        access_log: running.log.access,
    }
}

fn store_settings(config: &Config) -> store::Settings {
    let limits = &config.limits;
    store::Settings {
        data: config.registry.data.clone(),
        uploads: limits.uploads,
        upload_lifetime: limits.upload_lifetime,
        disk_reserve: limits.disk_reserve,
        disk_reserve_percent: limits.disk_reserve_percent,
    }
}

pub(super) fn listeners(config: &Config) -> Vec<server::Listener> {
    let listener = |(name, listener): (&String, &config::Listener)| server::Listener {
        name: name.as_str().into(),
        address: listener.address,
        protocol: match listener.protocol {
            config::Protocol::Auto => server::Protocol::Auto,
            config::Protocol::Tls => server::Protocol::Tls,
            config::Protocol::Plain => server::Protocol::Plain,
        },
        trusted_proxies: listener.trusted_proxies.clone(),
        proxy_protocol: listener.proxy_protocol,
    };
    config.listen.iter().map(listener).collect()
}

pub(super) fn admin_listener(config: &Config) -> Vec<server::Listener> {
    let listener = |address| server::Listener {
        name: "admin".into(),
        address,
        protocol: server::Protocol::Plain,
        trusted_proxies: Vec::new(),
        proxy_protocol: false,
    };
    config.admin.address.map(listener).into_iter().collect()
}

pub(super) fn server_limits(limits: &config::Limits) -> server::Limits {
    server::Limits {
        connections: limits.connections,
        connections_per_client: limits.connections_per_client,
        headers: limits.headers,
        header_bytes: limits.header_bytes,
        http2_header_list_bytes: limits.http2_header_list_bytes,
        http2_streams: limits.http2_streams,
        http2_stream_window_bytes: limits.http2_stream_window_bytes,
        http2_connection_window_bytes: limits.http2_connection_window_bytes,
        tls_handshake_timeout: limits.tls_handshake_timeout,
        header_read_timeout: limits.header_read_timeout,
        keep_alive_timeout: limits.keep_alive_timeout,
        body_idle_timeout: limits.body_idle_timeout,
        drain_timeout: limits.drain_timeout,
    }
}
