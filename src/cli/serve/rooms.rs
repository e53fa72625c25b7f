//! The rooms, opened from a configuration.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::ServerName;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use dockgate::cache::Memory;
use dockgate::config::{self, Config, Upstream};
use dockgate::gateway::admin::{Admin, Keeper};
use dockgate::gateway::names::Names;
use dockgate::gateway::{self, ByteBudget, Gateway, Rooms, Turns};
use dockgate::identity::{self, Identity};
use dockgate::net::certificates::{self, Made};
use dockgate::net::tls::{self, TlsError};
use dockgate::registry::{Hosted, Index, Legacy};
use dockgate::server::{self, descriptors};
use dockgate::store::{self, OpenError, Store};
use dockgate::telemetry::Metrics;

use super::remotes::Remotes;
use super::{first_start, token_keys, until};
use crate::cli::exit::{Code, Exit};

/// How often what is known of upstreams, and was not asked for in a long time, is looked for and removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(86_400);
/// How long that is: longer than a tag may be served unasked by default.
const KNOWLEDGE_LIFETIME: Duration = Duration::from_secs(90 * 86_400);

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
    legacy: Option<Arc<Index>>,
    remotes: Remotes,
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
        let hosted = Arc::new(Hosted::new(store.clone(), memory.clone(), config.registry.delete));
        let legacy = legacy(config, &store, metrics).await?;
        let remotes = Remotes::open(config, &store, &memory, metrics).await?;
        let names = Names::new(&config.upstreams, &config.registry.default).and_broken(&config.broken);
        let names = Arc::new(names.and_own(&config.registry.namespaces));
        let rooms = Rooms {
            identity: Arc::clone(&identity),
            hosted: Arc::clone(&hosted),
            legacy: legacy.clone(),
            legacy_is_broken: legacy.is_none() && config.broken.values().any(|broken| broken.legacy),
            remotes: remotes.by_name.clone(),
            names: Arc::clone(&names),
            default: config.registry.default.clone(),
            via: remotes.via.clone(),
            metrics: metrics.clone(),
            outgoing: ByteBudget::new(config.limits.outgoing_bytes),
            incoming: ByteBudget::new(config.limits.incoming_bytes),
            turns: Turns::default(),
        };
        let id_prefix = getrandom::u32().map_err(|error| Exit::new(Code::Software, error))?;
        let gateway = Gateway::new(rooms, gateway_settings(config, config), id_prefix);
        let keeper = Keeper::new(remotes.by_name.clone(), names, remotes.shelves.clone());
        let admin = Admin::new(hosted, keeper, metrics.clone());
        Ok(Self { gateway, admin, identity, first_user, store, legacy, remotes })
    }

    /// What goes on beside the requests.
    pub(super) fn spawn_tasks(&self, metrics: &Metrics, stopped: watch::Receiver<bool>) -> Vec<JoinHandle<()>> {
        let peers = self.legacy.iter().map(|index| index.registry().peers());
        let peers: Vec<_> = peers.chain(self.remotes.by_name.values().map(|remote| remote.peers())).cloned().collect();
        let mut tasks: Vec<_> =
            peers.iter().map(|peers| tokio::spawn(Arc::clone(peers).run(until(stopped.clone())))).collect();
        let metrics = metrics.clone();
        tasks.push(tokio::spawn(async move {
            let mut tick = tokio::time::interval(COUNT_INTERVAL);
            loop {
                tick.tick().await;
                for peers in &peers {
                    let healthy = peers.states().iter().filter(|state| state.healthy).count();
                    metrics.healthy_peers(peers.name(), healthy);
                }
            }
        }));
        tasks.push(tokio::spawn(token_keys::follow(self.store.clone(), Arc::clone(&self.identity), stopped)));
        if !self.remotes.by_name.is_empty() || self.legacy.is_some() {
            tasks.push(tokio::spawn(sweep(self.store.clone())));
        }
        tasks
    }

    /// Whether nothing can be written to the data directory.
    pub(super) fn is_read_only(&self) -> bool {
        self.store.is_read_only()
    }

    /// Writes what waits, and gives the data directory back.
    pub(super) async fn close(self) {
        self.remotes.shelves.disk.close().await;
        self.store.close().await;
    }
}

/// Forgets what nobody has asked the upstreams about for long; it is learnt again when somebody does.
async fn sweep(store: Store) {
    let mut tick = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        tick.tick().await;
        let swept = match store.sweep_mirrors(KNOWLEDGE_LIFETIME).await {
            Ok(_) => store.sweep_legacy(KNOWLEDGE_LIFETIME).await,
            Err(error) => Err(error),
        };
        if let Err(error) = swept {
            tracing::warn!(%error, "what is known of upstreams could not be swept");
        }
    }
}

async fn legacy(config: &Config, store: &Store, metrics: &Metrics) -> Result<Option<Arc<Index>>, Exit> {
    let Some(legacy) = open_legacy(config, metrics).await? else { return Ok(None) };
    // Once before serving: a peer that nobody asked yet would count as healthy.
    legacy.peers().check_once().await;
    Ok(Some(Arc::new(Index::new(Arc::new(legacy), store.clone()))))
}

/// The v1 registry behind this one, where there is one; nobody is asked yet.
pub(in crate::cli) async fn open_legacy(config: &Config, metrics: &Metrics) -> Result<Option<Legacy>, Exit> {
    let legacy = config.upstreams.values().find_map(|upstream| match upstream {
        Upstream::Legacy(legacy) => Some(legacy),
        Upstream::Remote(_) => None,
    });
    let Some(upstream) = legacy else { return Ok(None) };
    Legacy::open(upstream, metrics).await.map(Some).map_err(Exit::config)
}

const fn open_code(error: &OpenError) -> Code {
    match error {
        OpenError::InUse { .. } => Code::TryAgain,
        OpenError::ReadOnly { .. } | OpenError::Io { .. } => Code::CannotCreate,
        OpenError::NewerVersion { .. }
        | OpenError::OlderVersion { .. }
        | OpenError::NotClosed { .. }
        | OpenError::Database { .. } => Code::Data,
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

/// Makes or renews the private CA and the server certificate, for the names of this machine and those by which its upstreams
/// are meant.
pub(in crate::cli) fn certificates(config: &Config) -> Result<Made, Exit> {
    let (mut names, mut addresses) = certificates::local_names();
    for host in config.upstreams.values().flat_map(hosts) {
        match ServerName::try_from(host.trim_start_matches('[').trim_end_matches(']')) {
            Ok(ServerName::DnsName(name)) => names.push(name.as_ref().to_owned()),
            Ok(ServerName::IpAddress(address)) => addresses.push(address.into()),
            _ => {}
        }
    }
    certificates::ensure(&config.tls.directory, &names, &addresses)
        .map_err(|error| Exit::new(Code::CannotCreate, error))
}

fn hosts(upstream: &Upstream) -> &[String] {
    match upstream {
        Upstream::Remote(remote) => &remote.hosts,
        Upstream::Legacy(_) => &[],
    }
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
        legacy_lifetime: identity.token.legacy_lifetime,
        registration: identity.registration,
        password_changes: identity.password_changes,
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
        challenge: new.identity.challenge,
        absolute_locations: running.registry.absolute_locations,
        access_log: running.log.access,
        hsts: new.tls.hsts,
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

pub(super) fn server_limits(limits: &config::Limits) -> server::Limits {
    server::Limits {
        connections: limits.connections.min(descriptors::connections(descriptors::available())),
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
