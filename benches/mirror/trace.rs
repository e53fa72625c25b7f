//! A workload shaped like a public registry's, through a dockgate whose tiers are small, beside an ideal LRU.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::runtime::Handle;

use crate::catalog::Catalog;
use crate::check::check;
use crate::link::Shape;
use crate::lru::Lru;
use crate::model::{self, BLOB_GETS, Step, Workload};
use crate::replay::{Replay, Replayed};
use crate::report::{bytes, head, quantile, ratio, time};
use crate::servers::{Kind, Server, Tiers};
use crate::upstream::Upstream;
use crate::{Common, Outcome};

/// As fast as it goes: hits do not depend on it.
const UNSHAPED: Shape = Shape { delay: Duration::ZERO, rate: None };
/// The memory tier takes objects up to this size, before it is scaled down as they are.
const MEMORY_OBJECT_MAX: u64 = 16 << 20;
/// What the memory tier may take for blobs, in percent of the bytes of all blobs.
const MEMORY_PERCENT: u64 = 1;
/// What the upstream sends is one of them; the rest is told by the metrics as it is called there.
const TIERS: [&str; 4] = ["memory", "disk", "fill", "upstream"];

/// A workload shaped like a public registry's, against an ideal LRU.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// GETs of blobs; the gaps between them are those of the traces at the default
    #[arg(long, default_value_t = BLOB_GETS)]
    gets: usize,
    /// Sizes of blobs are divided by this, down to 16 bytes; so is the largest object for the memory tier
    #[arg(long, default_value_t = 128)]
    scale: u64,
    /// The disk tier, in percent of the bytes of all blobs
    #[arg(long, value_delimiter = ',', default_values_t = [5, 10, 20])]
    disk: Vec<u64>,
    /// Clients at a time
    #[arg(long, default_value_t = 8)]
    clients: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds after which the replay through one size is ended; what was done until then is compared
    #[arg(long, default_value_t = 900)]
    limit: u64,
    /// Only make the workload and check its shape
    #[arg(long)]
    check: bool,
}

/// Objects and bytes by tier.
type ByTier = BTreeMap<String, (u64, u64)>;

/// Whether the workload has its shape, and all of it was answered.
pub async fn run(options: &Options, threads: &Handle) -> Outcome<bool> {
    let workload = Workload::new(options.seed, options.gets);
    let is_shaped = check(&workload);
    if options.check || !is_shaped {
        return if is_shaped { Ok(true) } else { Err("the workload does not have its shape".into()) };
    }
    let catalog = Arc::new(Catalog::new(&workload, options.scale));
    let unique: u64 = catalog.sizes().iter().sum();
    let workload = Arc::new(workload);
    println!(
        "{} requests, {} of them for {} blobs of {} together (sizes ÷ {}, at least 16 bytes); {} clients, seed {}. Every \
         manifest was asked for once before.\n",
        workload.steps.iter().map(Step::requests).sum::<usize>(),
        options.gets,
        catalog.sizes().len(),
        bytes(unique),
        options.scale,
        options.clients,
        options.seed
    );
    println!("{}", head(&["disk", "tier", "objects: dockgate", "ideal LRU", "bytes: dockgate", "ideal LRU"]));
    let mut csv = String::from("disk_percent,tier,objects,objects_ideal,bytes,bytes_ideal\n");
    let mut is_good = true;
    for &percent in &options.disk {
        is_good &= size(options, percent, unique, &workload, &catalog, threads, &mut csv).await?;
    }
    options.common.write_csv(&csv)?;
    Ok(is_good)
}

/// One size of the disk tier.
async fn size(
    options: &Options,
    percent: u64,
    unique: u64,
    workload: &Arc<Workload>,
    catalog: &Arc<Catalog>,
    threads: &Handle,
    csv: &mut String,
) -> Outcome<bool> {
    let blobs = Tiers {
        memory: unique * MEMORY_PERCENT / 100,
        memory_object_max: MEMORY_OBJECT_MAX / options.scale,
        disk: unique * percent / 100,
    };
    // Manifests are not scaled down, and share the memory tier: they come on top.
    let manifests: u64 = catalog.manifests().iter().map(|manifest| manifest.len() as u64).sum();
    let tiers = Tiers { memory: blobs.memory + manifests, ..blobs };
    let upstream = Upstream::start(Arc::clone(catalog) as _, UNSHAPED, threads)?;
    let mut server = Server::prepare(Kind::Dockgate, &options.common.dockgate, upstream.address, &tiers)?;
    server.start().await.map_err(|error| format!("dockgate was not measured: {error}"))?;
    let replay = Replay::new(&server, Arc::clone(workload), Arc::clone(catalog));
    replay.prepare(options.clients).await.map_err(|fault| format!("{fault}\n{}", server.log_end()))?;
    let before = by_tier(&server.metrics().await?);
    let sent_before = upstream.tally().blobs();
    let mut replayed = replay.run(options.clients, Duration::from_secs(options.limit)).await;
    let mut found = by_tier(&server.metrics().await?);
    for (tier, (objects, bytes)) in before {
        let after = found.entry(tier).or_default();
        *after = (after.0.saturating_sub(objects), after.1.saturating_sub(bytes));
    }
    let sent = upstream.tally().blobs();
    let ideal = ideal(&workload.steps[..replayed.steps], &catalog.sizes(), &blobs);
    print(percent, &found, &ideal, csv);
    print_rest(percent, &mut replayed, (sent.gets - sent_before.gets, sent.bytes - sent_before.bytes), &tiers, &server);
    server.stop().await;
    Ok(replayed.faults.is_empty() && replayed.steps == workload.steps.len())
}

/// What the tiers of an LRU on an LRU would have given.
fn ideal(steps: &[Step], sizes: &[u64], tiers: &Tiers) -> ByTier {
    let mut memory = Lru::new(sizes.len(), tiers.memory, tiers.memory_object_max);
    let mut disk = Lru::new(sizes.len(), tiers.disk, u64::MAX);
    let mut hits = ByTier::new();
    for blob in model::blobs(steps) {
        let size = sizes[blob as usize];
        let tier = match (memory.touch(blob, size), disk.touch(blob, size)) {
            (true, _) => "memory",
            (false, true) => "disk",
            (false, false) => "upstream",
        };
        let hit = hits.entry(tier.into()).or_default();
        *hit = (hit.0 + 1, hit.1 + size);
    }
    hits
}

/// Answers to GETs of blobs of the mirror, and the bytes of their bodies.
fn by_tier(metrics: &str) -> ByTier {
    let mut found = ByTier::new();
    for line in metrics.lines().filter(|line| line.contains(r#"route="blob""#) && !line.contains(r#"backend="hosted""#))
    {
        let tier = line.split_once(r#"tier=""#).and_then(|(_, rest)| rest.split_once('"')).map(|(tier, _)| tier);
        let value = line.rsplit_once(' ').and_then(|(_, value)| value.parse::<u64>().ok());
        let (Some(tier), Some(value)) = (tier, value) else { continue };
        let sums = found.entry(tier.to_owned()).or_default();
        if line.starts_with("dockgate_requests_total{") {
            sums.0 += value;
        } else if line.starts_with("dockgate_response_body_bytes_total{") {
            sums.1 += value;
        }
    }
    found
}

fn print(percent: u64, found: &ByTier, ideal: &ByTier, csv: &mut String) {
    let sum = |of: &ByTier| of.values().fold((0, 0), |sum, value| (sum.0 + value.0, sum.1 + value.1));
    let (found_all, ideal_all) = (sum(found), sum(ideal));
    let others = found.keys().map(String::as_str).filter(|tier| !TIERS.contains(tier) && found[*tier].0 > 0);
    for tier in TIERS.into_iter().chain(others) {
        let (objects, bytes) = found.get(tier).copied().unwrap_or_default();
        let (ideal_objects, ideal_bytes) = ideal.get(tier).copied().unwrap_or_default();
        let shares = [
            ratio(objects, found_all.0),
            ratio(ideal_objects, ideal_all.0),
            ratio(bytes, found_all.1),
            ratio(ideal_bytes, ideal_all.1),
        ];
        let row = shares.map(|share| format!("{:.1} %", share * 100.0)).join(" | ");
        println!("| {percent} % | {tier} | {row} |");
        let _ = writeln!(csv, "{percent},{tier},{}", shares.map(|share| format!("{share:.4}")).join(","));
    }
}

/// What belongs to no tier.
fn print_rest(percent: u64, replayed: &mut Replayed, sent: (u64, u64), tiers: &Tiers, server: &Server) {
    eprintln!(
        "disk {percent} % ({}), memory {}: {} steps in {:.0} s; the upstream sent {} blobs, {}; {} were asked for. \
         First byte of a blob p50 {}, p99 {}; memory peak {}; {} retries, {} faults.",
        bytes(tiers.disk),
        bytes(tiers.memory),
        replayed.steps,
        replayed.took.as_secs_f64(),
        sent.0,
        bytes(sent.1),
        bytes(replayed.bytes),
        time(quantile(&mut replayed.first_bytes, 0.5)),
        time(quantile(&mut replayed.first_bytes, 0.99)),
        bytes(server.process().map_or(0, crate::process::Process::memory_peak)),
        replayed.retries,
        replayed.faults.len()
    );
    if let Some(fault) = replayed.faults.first() {
        eprintln!("the first of them: {fault}");
    }
}
