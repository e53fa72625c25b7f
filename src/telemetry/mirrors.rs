//! What is counted of the cache of registries elsewhere.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::Metrics;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Upstream {
    upstream: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Filled {
    upstream: String,
    outcome: &'static str,
}

type Count<L> = Family<L, Counter<u64, AtomicU64>>;

/// The part of the metrics that mirrors and fronted registries have.
#[derive(Default)]
pub(super) struct Mirrors {
    fills: Count<Filled>,
    stale: Count<Upstream>,
    passed: Count<Upstream>,
    mismatches: Count<Upstream>,
    disk_bytes: Gauge<i64, AtomicI64>,
    disk_entries: Gauge<i64, AtomicI64>,
    disk_evicted: Gauge<i64, AtomicI64>,
    fills_running: Gauge<i64, AtomicI64>,
}

/// How much the disk tier holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskTier {
    /// Bytes.
    pub bytes: u64,
    /// Objects.
    pub entries: u64,
    /// Objects that had to give way since the start.
    pub evicted: u64,
    /// Downloads that run.
    pub fills: u64,
}

impl Mirrors {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("fills", "Downloads into the cache that ended, by outcome", self.fills.clone());
        let help = "Tags answered from an older answer because the upstream could not be asked";
        registry.register("stale_answers", help, self.stale.clone());
        let help =
            "Blobs that went past the cache because it could not keep them; each may be downloaded more than once";
        registry.register("passed_through", help, self.passed.clone());
        let help = "Manifests and blobs that were not what their digest says";
        registry.register("upstream_mismatches", help, self.mismatches.clone());
        registry.register_with_unit("disk_tier", "Bytes held on disk", Unit::Bytes, self.disk_bytes.clone());
        registry.register("disk_tier_entries", "Objects held on disk", self.disk_entries.clone());
        registry.register(
            "disk_tier_evicted",
            "Objects that had to give way since the start",
            self.disk_evicted.clone(),
        );
        registry.register("fills_running", "Downloads into the cache that run", self.fills_running.clone());
    }
}

impl Metrics {
    /// A download into the cache is over; `outcome` is a fixed word.
    pub fn fill(&self, upstream: &str, outcome: &'static str) {
        self.mirrors().fills.get_or_create(&Filled { upstream: upstream.to_owned(), outcome }).inc();
    }

    /// A tag was answered though its upstream could not be asked.
    pub fn stale_answer(&self, upstream: &str) {
        self.mirrors().stale.get_or_create(&Upstream { upstream: upstream.to_owned() }).inc();
    }

    /// A blob could not be kept and went to one caller alone.
    pub fn passed_through(&self, upstream: &str) {
        self.mirrors().passed.get_or_create(&Upstream { upstream: upstream.to_owned() }).inc();
    }

    /// An upstream sent other bytes than a digest says.
    pub fn upstream_mismatch(&self, upstream: &str) {
        self.mirrors().mismatches.get_or_create(&Upstream { upstream: upstream.to_owned() }).inc();
    }

    /// How much the disk tier holds now.
    pub fn disk_tier(&self, tier: DiskTier) {
        let mirrors = self.mirrors();
        let set = |gauge: &Gauge<i64, AtomicI64>, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&mirrors.disk_bytes, tier.bytes);
        set(&mirrors.disk_entries, tier.entries);
        set(&mirrors.disk_evicted, tier.evicted);
        set(&mirrors.fills_running, tier.fills);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mirrors_do_is_counted_under_their_names() {
        let metrics = Metrics::new();
        metrics.fill("hub", "done");
        metrics.stale_answer("hub");
        metrics.passed_through("hub");
        metrics.upstream_mismatch("quay");
        metrics.disk_tier(DiskTier { bytes: 5, entries: 2, evicted: 1, fills: 3 });
        let page = metrics.encode().unwrap();
        for line in [
            r#"dockgate_fills_total{upstream="hub",outcome="done"} 1"#,
            r#"dockgate_stale_answers_total{upstream="hub"} 1"#,
            r#"dockgate_passed_through_total{upstream="hub"} 1"#,
            r#"dockgate_upstream_mismatches_total{upstream="quay"} 1"#,
            "dockgate_disk_tier_bytes 5",
            "dockgate_disk_tier_entries 2",
            "dockgate_disk_tier_evicted 1",
            "dockgate_fills_running 3",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }
}
