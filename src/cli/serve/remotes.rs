//! The registries elsewhere, opened from a configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;

use dockgate::cache::{Disk, DiskSettings, Memory};
use dockgate::config::{Config, Upstream};
use dockgate::registry::{Origin, Remote, RemoteLimits, Shelves};
use dockgate::store::Store;
use dockgate::telemetry::Metrics;

use crate::cli::exit::{Code, Exit};

/// How full the disk under the cache may be, in percent: then the cache gives way.
const DISK_USED_PERCENT_MAX: u8 = 90;

/// The registries elsewhere, and what they share.
pub(super) struct Remotes {
    pub(super) by_name: BTreeMap<String, Arc<Remote>>,
    pub(super) shelves: Shelves,
    /// What we call ourselves to them.
    pub(super) via: String,
}

impl Remotes {
    /// Opens the cache and the upstreams. That an upstream cannot be reached is no reason not to start.
    pub(super) async fn open(config: &Config, store: &Store, memory: &Memory, metrics: &Metrics) -> Result<Self, Exit> {
        let random = getrandom::u64().map_err(|error| Exit::new(Code::Software, error))?;
        let via = format!("dockgate-{random:016x}");
        let remotes: Vec<_> = config
            .upstreams
            .values()
            .filter_map(|upstream| match upstream {
                Upstream::Remote(remote) => Some(remote),
                Upstream::Legacy(_) => None,
            })
            .collect();
        let disk = open_disk(config, store, !remotes.is_empty()).await?;
        let shelves = Shelves { store: store.clone(), memory: memory.clone(), disk, metrics: metrics.clone() };
        let limits = RemoteLimits {
            manifest_bytes: config.limits.manifest_bytes,
            uploads: config.limits.uploads,
            upload_lifetime: config.limits.upload_lifetime,
        };
        let mut by_name = BTreeMap::new();
        for remote in remotes {
            let origin =
                Origin::open(remote, &via, config.limits.upstream_patience, metrics).await.map_err(Exit::config)?;
            let remote = Remote::new((**remote).clone(), origin, shelves.clone(), limits);
            by_name.insert(remote.name().to_owned(), Arc::new(remote));
        }
        // Once before serving: a peer that nobody asked yet would count as healthy.
        join_all(by_name.values().map(|remote| remote.peers().check_once())).await;
        Ok(Self { by_name, shelves, via })
    }
}

/// Without an upstream nothing is kept, and no directory is made.
async fn open_disk<E: Clone + Send + Sync + 'static>(
    config: &Config,
    store: &Store,
    is_needed: bool,
) -> Result<Disk<E>, Exit> {
    let pins = store.pins().await.map_err(|error| Exit::new(Code::Data, error))?;
    let settings = DiskSettings {
        path: config.cache.path.clone(),
        capacity: if is_needed { config.cache.disk } else { 0 },
        used_percent_max: DISK_USED_PERCENT_MAX,
    };
    let pinned = pins.into_iter().map(|(_, digest)| digest).collect();
    Disk::open(settings, pinned).await.map_err(|error| Exit::new(Code::CannotCreate, error))
}
