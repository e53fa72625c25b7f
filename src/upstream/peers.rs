//! The peers of one upstream: their health, and the choice among them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use pingora_load_balancing::discovery::Static;
use pingora_load_balancing::selection::RoundRobin;
use pingora_load_balancing::{Backend, Backends, Extensions, LoadBalancer};
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::config;
use crate::net::AddressRule;
use crate::net::client::{Client, Settings};
use crate::telemetry::{Metrics, UpstreamCount};

use super::challenge::Challenge;
use super::error::OpenError;
use super::health::Check;
use super::throttle::Throttle;

/// How many peers one upstream may have.
pub(super) const PEERS_MAX: usize = 1_000;
/// How many unused connections per peer are kept for the next request.
pub(super) const IDLE_CONNECTIONS: usize = 32;
/// How often the turns are asked for another peer, per peer: others ask at the same time and take some of the answers.
const TURNS_PER_PEER: usize = 8;
/// So long after a contact that failed it is not expected that the next goes better.
const LATELY: Duration = Duration::from_secs(5);
/// How long an unused connection is kept.
const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// One server of an upstream.
#[derive(Debug)]
pub struct Peer {
    url: String,
    scheme: Scheme,
    authority: Authority,
    /// What all paths begin with there.
    base: String,
    /// When the last contact failed, if it did: it is asked again only if no other peer can be.
    aside: Mutex<Option<Instant>>,
    /// What it asked for last: peers may name token services of their own.
    pub(super) challenge: ArcSwapOption<Challenge>,
}

/// How one peer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The peer, as it was written.
    pub peer: String,
    /// Whether its checks say that it can be asked.
    pub healthy: bool,
}

/// The peers of one upstream, and the connections to them.
pub struct Peers {
    pub(super) name: String,
    pub(super) peers: Box<[Arc<Peer>]>,
    balancer: LoadBalancer<RoundRobin>,
    /// Whether every peer was checked once.
    settled: Arc<AtomicBool>,
    /// How often the peers are checked, if they are.
    check_interval: Option<Duration>,
    /// Keeps connections for the next request.
    pub(super) pooled: Client,
    /// Makes a new connection for each request.
    pub(super) fresh: Client,
    pub(super) slots: Arc<Semaphore>,
    pub(super) concurrency: usize,
    pub(super) first_byte_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) rate_bytes: u64,
    pub(super) rate_window: Duration,
    pub(super) retries: u32,
    pub(super) throttle: Arc<Throttle>,
    pub(super) counted: UpstreamCount,
}

impl Peer {
    /// Where it is, as it was written.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `host:port`.
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Where `path` (with its query) of the registry is found there.
    pub(super) fn uri(&self, path: &str) -> Uri {
        let path = format!("{}{path}", self.base).parse().unwrap_or_else(|_| PathAndQuery::from_static("/"));
        self.uri_of(path)
    }

    /// Where an [`Ask`](super::Ask) goes that is sent to it; `is_named`: whether the peer is named in it.
    pub fn asked(&self, path: &PathAndQuery, is_named: bool) -> Uri {
        if is_named { self.uri_of(path.clone()) } else { self.uri(path.as_str()) }
    }

    /// What it has at `path`, as it names it itself.
    pub(super) fn uri_of(&self, path: PathAndQuery) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path);
        Uri::from_parts(parts).unwrap_or_default()
    }

    /// What it names `path`, in the words that all peers share; none, if that is not below where its registry is.
    pub(super) fn shared(&self, path: &PathAndQuery) -> Option<PathAndQuery> {
        let path = path.as_str().strip_prefix(&self.base)?;
        path.starts_with('/').then(|| path.parse().ok()).flatten()
    }

    /// Puts it behind the others, or back among them.
    pub(super) fn set_aside(&self, aside: bool) {
        let since = aside.then(Instant::now);
        *self.aside.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// Since when it is behind the others.
    fn aside_since(&self) -> Option<Instant> {
        *self.aside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peers {
    /// Makes the clients; asks nobody yet. Until [`check_once`](Self::check_once) every peer counts as healthy.
    pub async fn open(config: &config::Transport, metrics: &Metrics) -> Result<Self, OpenError> {
        let upstream = || config.name.clone();
        if !(1..=PEERS_MAX).contains(&config.peers.len()) {
            return Err(OpenError::Peers { upstream: upstream(), found: config.peers.len() });
        }
        let peers = config.peers.iter().map(|peer| Peer::open(&config.name, peer)).collect::<Result<Box<[_]>, _>>()?;
        let pooled = client(config, IDLE_CONNECTIONS)?;
        let settled = Arc::new(AtomicBool::new(false));
        let check = config.health.as_ref().map(|health| Check {
            upstream: upstream(),
            client: pooled.clone(),
            path: health.path.clone(),
            timeout: health.interval,
            failures: health.failures as usize,
            successes: health.successes as usize,
            accepts_refusal: health.accepts_refusal,
            settled: Arc::clone(&settled),
        });
        Ok(Self {
            name: upstream(),
            balancer: balancer(&peers, check).await,
            peers,
            settled,
            check_interval: config.health.as_ref().map(|health| health.interval),
            fresh: client(config, 0)?,
            pooled,
            slots: Arc::new(Semaphore::new(config.concurrency.clamp(1, Semaphore::MAX_PERMITS))),
            concurrency: config.concurrency,
            first_byte_timeout: config.first_byte_timeout,
            idle_timeout: config.idle_timeout,
            rate_bytes: config.rate_bytes,
            rate_window: config.rate_window,
            retries: config.retries,
            throttle: Arc::new(Throttle::new(config.bytes_per_second)),
            counted: metrics.upstream(&config.name),
        })
    }

    /// The upstream's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All of them, healthy or not.
    pub fn all(&self) -> &[Arc<Peer>] {
        &self.peers
    }

    /// How each of them is.
    pub fn states(&self) -> Vec<State> {
        let backends = self.balancer.backends();
        let set = backends.get_backend();
        let state = |backend: &Backend| {
            let peer = peer_of(backend)?;
            Some(State { peer: peer.url.clone(), healthy: backends.ready(backend) })
        };
        set.iter().filter_map(state).collect()
    }

    /// Asks every peer once, all at the same time. Takes at most the interval between checks.
    pub async fn check_once(&self) {
        self.balancer.backends().run_health_check(true).await;
        self.settled.store(true, Ordering::Release);
    }

    /// Checks the peers at the interval of the upstream's file, until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: impl Future<Output = ()> + Send) {
        let mut shutdown = pin!(shutdown);
        let Some(check_interval) = self.check_interval else { return shutdown.await };
        let mut ticks = interval_at(Instant::now() + check_interval, check_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let round = async {
                ticks.tick().await;
                self.check_once().await;
            };
            tokio::select! {
                () = &mut shutdown => return,
                () = round => {}
            }
        }
    }

    /// The healthy peer whose turn it is.
    pub fn pick(&self) -> Option<Arc<Peer>> {
        self.pick_except(&[])
    }

    /// The healthy peer whose turn it is and that was not tried; one whose last contact failed only after all others.
    pub(super) fn pick_except(&self, tried: &[Arc<Peer>]) -> Option<Arc<Peer>> {
        let untried = |peer: &Arc<Peer>| !tried.iter().any(|other| Arc::ptr_eq(peer, other));
        let good =
            |backend: &Backend| peer_of(backend).is_some_and(|peer| untried(peer) && peer.aside_since().is_none());
        let possible = |backend: &Backend| peer_of(backend).is_some_and(&untried);
        let backend = self.select(good).or_else(|| self.select(possible))?;
        peer_of(&backend).cloned()
    }

    /// Whether the only peer that can answer failed a moment ago.
    pub(super) fn is_gone(&self, only: Option<&Authority>) -> bool {
        let mut peers = self.peers.iter().filter(|peer| only.is_none_or(|only| peer.authority() == only));
        let (peer, other) = (peers.next(), peers.next());
        let since = peer.filter(|_| other.is_none()).and_then(|peer| peer.aside_since());
        since.is_some_and(|since| since.elapsed() < LATELY)
    }

    fn select(&self, accept: impl Fn(&Backend) -> bool) -> Option<Backend> {
        let turns = self.peers.len() * TURNS_PER_PEER;
        self.balancer.select_with(b"", turns, |backend, healthy| healthy && accept(backend)).or_else(|| {
            let backends = self.balancer.backends();
            let set = backends.get_backend();
            set.iter().find(|backend| backends.ready(backend) && accept(backend)).cloned()
        })
    }
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peers").field("name", &self.name).field("peers", &self.peers).finish_non_exhaustive()
    }
}

impl Peer {
    fn open(upstream: &str, config: &config::Peer) -> Result<Arc<Self>, OpenError> {
        let broken = |_| OpenError::Authority { upstream: upstream.to_owned(), peer: config.url.clone() };
        Ok(Arc::new(Self {
            url: config.url.clone(),
            scheme: if config.https { Scheme::HTTPS } else { Scheme::HTTP },
            authority: config.authority.parse().map_err(broken)?,
            base: config.path.clone(),
            aside: Mutex::default(),
            challenge: ArcSwapOption::empty(),
        }))
    }
}

/// A client for the peers of an upstream.
fn client(config: &config::Transport, idle_connections: usize) -> Result<Client, OpenError> {
    let settings = settings(config, idle_connections);
    let certificate = config.client_certificate.clone().map(|pair| (pair.certificate, pair.key));
    make(config, &Settings { client_certificate: certificate, ..settings })
}

/// A client for hosts that an upstream names: where it keeps its blobs, and its token service. They see no certificate of
/// ours, and theirs may be from anybody whom everybody trusts, whatever `ca` the peers have.
pub(super) fn stranger(config: &config::Transport, addresses: AddressRule) -> Result<Client, OpenError> {
    make(config, &Settings { addresses, public_authorities: true, ..settings(config, IDLE_CONNECTIONS) })
}

fn settings(config: &config::Transport, idle_connections: usize) -> Settings {
    Settings {
        ca: config.ca.clone(),
        public_authorities: config.ca.is_none(),
        connect_timeout: config.connect_timeout,
        first_byte_timeout: config.first_byte_timeout,
        idle_timeout: IDLE_CONNECTION_TIMEOUT,
        idle_connections,
        client_certificate: None,
        proxy: config.proxy,
        addresses: AddressRule::Any,
        http2: config.http2,
    }
}

fn make(config: &config::Transport, settings: &Settings) -> Result<Client, OpenError> {
    Client::new(settings)
        .map_err(|error| OpenError::Client { upstream: config.name.clone(), reason: error.to_string() })
}

async fn balancer(peers: &[Arc<Peer>], check: Option<Check>) -> LoadBalancer<RoundRobin> {
    let set: BTreeSet<Backend> = peers.iter().zip(0..).map(|(peer, number)| backend(peer, number)).collect();
    let mut backends = Backends::new(Static::new(set));
    if let Some(check) = check {
        backends.set_health_check(Box::new(check));
    }
    let balancer = LoadBalancer::from_backends(backends);
    if let Err(error) = balancer.update().await {
        tracing::error!(%error, "a fixed list of peers cannot fail");
    }
    balancer
}

/// pingora tells backends apart by socket address. Ours is only a number: names are resolved by the client for each new
/// connection, so that TLS sees the name, a changed address is followed, and a peer keeps its health when it moves.
fn backend(peer: &Arc<Peer>, number: u128) -> Backend {
    let mut ext = Extensions::new();
    ext.insert(Arc::clone(peer));
    let address = SocketAddr::new(IpAddr::V6(Ipv6Addr::from_bits(number)), 0);
    Backend { addr: pingora_core::protocols::l4::socket::SocketAddr::Inet(address), weight: 1, ext }
}

fn peer_of(backend: &Backend) -> Option<&Arc<Peer>> {
    backend.ext.get::<Arc<Peer>>()
}
