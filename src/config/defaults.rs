//! Every default, each written here and nowhere else in the code. `docs/configuration.md` is held to them by a test.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::access::{Action, Actions, Rule, Rules, Who};

use super::{
    Admin, Cache, ClientAuth, Config, Format, Health, Identity, Level, Limits, Listener, Log, PlainPolicy, Protocol,
    Registry, Tls, TlsVersion, Token,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Default for Config {
    /// What holds where there is no file and no variable; its directory is the working directory.
    fn default() -> Self {
        Self {
            directory: PathBuf::from("."),
            sources: vec![],
            listen: BTreeMap::from([(LISTENER_NAME.into(), Listener::default())]),
            tls: Tls::default(),
            identity: Identity::default(),
            access: Arc::new(rules()),
            registry: Registry::default(),
            cache: Cache::default(),
            limits: Limits::default(),
            admin: Admin::default(),
            log: Log::default(),
            upstreams: BTreeMap::new(),
            broken: BTreeMap::new(),
            warnings: vec![],
        }
    }
}

/// The file that is read where none is named.
pub(super) const FILE_NAME: &str = "gateway.toml";
/// The directory beside it that holds a file for each upstream.
pub(super) const UPSTREAMS_DIRECTORY: &str = "upstreams";
/// The listener that there is where none is configured; the only one whose address has a default.
pub(super) const LISTENER_NAME: &str = "main";

impl Default for Listener {
    fn default() -> Self {
        Self {
            address: SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 5000),
            protocol: Protocol::Auto,
            plain: PlainPolicy::Loopback,
            trusted_proxies: vec![],
            proxy_protocol: false,
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            certificate: None,
            key: None,
            directory: "certs".into(),
            min_version: TlsVersion::Tls12,
            client_ca: None,
            client_auth: ClientAuth::Optional,
            hsts: None,
        }
    }
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            realm: "dockgate".into(),
            htpasswd: "htpasswd".into(),
            registration: false,
            challenge: super::Challenge::Auto,
            password_changes: false,
            groups: BTreeMap::new(),
            token: Token::default(),
        }
    }
}

impl Default for Token {
    fn default() -> Self {
        Self {
            lifetime: seconds(300),
            refresh_lifetime: seconds(30 * 86_400),
            legacy_lifetime: seconds(3_600),
            key_lifetime: seconds(90 * 86_400),
            services: vec![],
            chain: true,
        }
    }
}

/// Anyone pulls `public/**`, users pull and push, `admin` does everything.
pub(super) fn rules() -> Rules {
    let rule = |who, pattern: &str, actions| Rule {
        who: vec![who],
        repositories: pattern.parse().into_iter().collect(),
        actions,
    };
    Rules::new(vec![
        rule(Who::Anyone, "public/**", Actions::from(Action::Pull)),
        rule(Who::Authenticated, "**", Actions::from(Action::Pull) | Action::Push.into()),
        rule(Who::User("admin".into()), "**", Actions::ALL),
    ])
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            default: "hosted".into(),
            namespaces: vec![],
            data: "data".into(),
            delete: true,
            absolute_locations: false,
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self { memory: 256 * MIB, memory_object_max: 16 * MIB, disk: 20 * GIB, path: "cache".into() }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { address: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5001)) }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: Level::Info, format: Format::Text, access: true, fields: BTreeMap::new() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_client: 4_096,
            headers: 100,
            header_bytes: 32 * KIB,
            http2_header_list_bytes: 64 * KIB,
            http2_streams: 100,
            http2_stream_window_bytes: MIB,
            http2_connection_window_bytes: 4 * MIB,
            outgoing_bytes: 48 * MIB,
            incoming_bytes: 16 * MIB,
            manifest_bytes: 4 * MIB,
            page_entries: 1_000,
            tls_handshake_timeout: seconds(10),
            header_read_timeout: seconds(10),
            keep_alive_timeout: seconds(60),
            body_idle_timeout: seconds(60),
            body_rate_bytes: KIB,
            body_rate_window: seconds(30),
            drain_timeout: seconds(60),
            bcrypt_concurrency: (cores() / 2).max(1),
            bcrypt_queue: 1_024,
            bcrypt_wait_timeout: seconds(5),
            credential_lifetime: seconds(300),
            login_failures: 10,
            upstream_patience: seconds(2),
            uploads: 10_000,
            upload_lifetime: seconds(86_400),
            disk_reserve: GIB,
            disk_reserve_percent: 5,
        }
    }
}

/// What `limits.bcrypt_concurrency` is by default, in words.
pub(super) const BCRYPT_CONCURRENCY: &str = "half the cores, at least 1";

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

/// How the peers of a v1 registry are checked.
pub(super) fn legacy_health() -> Health {
    Health { path: "/v1/_ping".into(), interval: seconds(5), failures: 3, successes: 1, accepts_refusal: false }
}

/// How the peers of a v2 registry are checked.
pub(super) fn remote_health() -> Health {
    Health { path: "/v2/".into(), interval: seconds(10), failures: 3, successes: 1, accepts_refusal: true }
}

/// How long a legacy upstream may think before it answers: v1 servers think long.
pub(super) const LEGACY_FIRST_BYTE_TIMEOUT: Duration = seconds(900);
/// How long a legacy upstream may fall silent within an answer.
pub(super) const LEGACY_IDLE_TIMEOUT: Duration = seconds(900);
/// How many requests a legacy upstream gets at a time.
pub(super) const LEGACY_CONCURRENCY: usize = 64;
/// How often a read that a legacy upstream broke off is tried again.
pub(super) const LEGACY_RETRIES: u32 = 1;

/// How long a v2 registry elsewhere may think before it answers.
pub(super) const REMOTE_FIRST_BYTE_TIMEOUT: Duration = seconds(30);
/// How long it may fall silent within an answer.
pub(super) const REMOTE_IDLE_TIMEOUT: Duration = seconds(30);
/// How often what failed there is tried again.
pub(super) const REMOTE_RETRIES: u32 = 2;
/// How many requests it gets at a time.
pub(super) const REMOTE_CONCURRENCY: usize = 16;
/// How long a tag of a mirror is good without asking again.
pub(super) const MIRROR_TAG_TTL: Duration = seconds(300);
/// How long a tag of a fronted registry is good without asking again: not at all, as others may push there too.
pub(super) const FRONTED_TAG_TTL: Duration = Duration::ZERO;
/// How long a tag is served while its registry cannot be asked.
pub(super) const REMOTE_STALE: Duration = seconds(30 * 86_400);
/// How long a 404 is remembered.
pub(super) const REMOTE_NEGATIVE_TTL: Duration = seconds(30);
/// How long a client waits for a tag to be looked up anew, if there is an older answer.
pub(super) const REMOTE_REVALIDATE_TIMEOUT: Duration = seconds(5);
/// How long a client waits for the head of an answer: containerd gives up after 30 s.
pub(super) const REMOTE_DEADLINE: Duration = seconds(25);
/// How long it is remembered that a caller whose credentials are forwarded may read something.
pub(super) const REMOTE_FORWARD_TTL: Duration = seconds(60);
/// How many downloads that nobody waits for any more may go on.
pub(super) const ABANDONED_FILLS: usize = 4;
/// Which names without a prefix a docker mirror answers.
pub(super) const DOCKER_MIRROR_REPOSITORIES: &str = "library/*";
