//! The metrics, as one handle that is passed to whoever counts (Prometheus text format, OpenMetrics 1.0).

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::mirrors::Mirrors;
use super::upstreams::Upstreams;

/// Upper bounds of the latency buckets, in seconds: from a hit in memory to a long push.
const LATENCY_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0];

/// What a finished request is counted under. Every label has a fixed, small set of values.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Labels {
    /// The route's name.
    pub route: &'static str,
    /// The status code; 499 where the client left before an answer.
    pub status: u16,
    /// Who answered: `hosted`, `remote`, `legacy`, `gateway`.
    pub backend: &'static str,
    /// Where the bytes came from: `memory`, `file`, `disk`, `fill`, `upstream`, `none`.
    pub tier: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Latency {
    route: &'static str,
    backend: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Upstream {
    upstream: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Place {
    r#where: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// What is counted of the requests that have the same labels.
struct Series {
    requests: Counter<u64, AtomicU64>,
    received: Counter<u64, AtomicU64>,
    sent: Counter<u64, AtomicU64>,
    latency: Histogram,
}

/// How many bytes passed, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sizes {
    /// Of the request's body.
    pub received: u64,
    /// Of the response's body.
    pub sent: u64,
}

/// All metrics. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    /// The four below, by their labels: one look for a request, not four.
    series: RwLock<HashMap<Labels, Series>>,
    requests: Family<Labels, Counter<u64, AtomicU64>>,
    received: Family<Labels, Counter<u64, AtomicU64>>,
    sent: Family<Labels, Counter<u64, AtomicU64>>,
    latency: Family<Latency, Histogram, fn() -> Histogram>,
    in_flight: Gauge<i64, AtomicI64>,
    connections: Gauge<i64, AtomicI64>,
    connections_closed: Family<Outcome, Counter<u64, AtomicU64>>,
    handshakes_failed: Family<Reason, Counter<u64, AtomicU64>>,
    logins: Family<Outcome, Counter<u64, AtomicU64>>,
    healthy_peers: Family<Upstream, Gauge<i64, AtomicI64>>,
    memory: Gauge<i64, AtomicI64>,
    reloads: Family<Outcome, Counter<u64, AtomicU64>>,
    rotten: Family<Place, Counter<u64, AtomicU64>>,
    mirrors: Mirrors,
    upstreams: Upstreams,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at nought.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("dockgate");
        let latency: Family<Latency, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(LATENCY_BUCKETS));
        let inner = Inner {
            series: RwLock::default(),
            requests: Family::default(),
            received: Family::default(),
            sent: Family::default(),
            latency,
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            connections_closed: Family::default(),
            handshakes_failed: Family::default(),
            logins: Family::default(),
            healthy_peers: Family::default(),
            memory: Gauge::default(),
            reloads: Family::default(),
            rotten: Family::default(),
            mirrors: Mirrors::default(),
            upstreams: Upstreams::default(),
            registry: Registry::default(),
        };
        inner.register(&mut registry);
        Self(Arc::new(Inner { registry, ..inner }))
    }

    /// The head of a request was read.
    pub fn request_began(&self) {
        self.0.in_flight.inc();
    }

    /// A request that began is over.
    pub fn request_ended(&self, labels: &Labels, sizes: Sizes, duration: Duration) {
        self.0.in_flight.dec();
        let count = |series: &Series| {
            series.requests.inc();
            series.received.inc_by(sizes.received);
            series.sent.inc_by(sizes.sent);
            series.latency.observe(duration.as_secs_f64());
        };
        if let Some(series) = self.0.series.read().unwrap_or_else(PoisonError::into_inner).get(labels) {
            return count(series);
        }
        let mut all = self.0.series.write().unwrap_or_else(PoisonError::into_inner);
        count(all.entry(labels.clone()).or_insert_with(|| self.0.series(labels)));
    }

    /// A connection was accepted.
    pub fn connection_opened(&self) {
        self.0.connections.inc();
    }

    /// A connection is over; `outcome` is a fixed word.
    pub fn connection_closed(&self, outcome: &'static str) {
        self.0.connections.dec();
        self.0.connections_closed.get_or_create(&Outcome { outcome }).inc();
    }

    /// A TLS handshake failed; `reason` is a fixed word.
    pub fn handshake_failed(&self, reason: &'static str) {
        self.0.handshakes_failed.get_or_create(&Reason { reason }).inc();
    }

    /// Somebody showed credentials; `outcome` is a fixed word.
    pub fn login(&self, outcome: &'static str) {
        self.0.logins.get_or_create(&Outcome { outcome }).inc();
    }

    /// How many peers of an upstream are healthy.
    pub fn healthy_peers(&self, upstream: &str, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.0.healthy_peers.get_or_create(&Upstream { upstream: upstream.to_owned() }).set(count);
    }

    /// How many bytes the memory tier holds.
    pub fn memory_bytes(&self, bytes: u64) {
        self.0.memory.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// The configuration was read again; `outcome` is a fixed word.
    pub fn reload(&self, outcome: &'static str) {
        self.0.reloads.get_or_create(&Outcome { outcome }).inc();
    }

    /// How much was found since the start that is not what was hashed; `place` is a fixed word.
    pub fn rotten(&self, place: &'static str, count: u64) {
        self.0.rotten.get_or_create(&Place { r#where: place }).inner().store(count, Ordering::Relaxed);
    }

    pub(super) fn upstreams(&self) -> &Upstreams {
        &self.0.upstreams
    }

    pub(super) fn mirrors(&self) -> &Mirrors {
        &self.0.mirrors
    }

    /// The page that `/metrics` answers.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut page = String::new();
        text::encode(&mut page, &self.0.registry)?;
        Ok(page)
    }
}

impl Inner {
    fn series(&self, labels: &Labels) -> Series {
        let latency = Latency { route: labels.route, backend: labels.backend };
        Series {
            requests: self.requests.get_or_create_owned(labels),
            received: self.received.get_or_create_owned(labels),
            sent: self.sent.get_or_create_owned(labels),
            latency: self.latency.get_or_create_owned(&latency),
        }
    }

    fn register(&self, registry: &mut Registry) {
        registry.register("requests", "Requests by route, status, backend and cache tier", self.requests.clone());
        let (received, sent) = (self.received.clone(), self.sent.clone());
        registry.register_with_unit("request_body", "Bytes of request bodies", Unit::Bytes, received);
        registry.register_with_unit("response_body", "Bytes of response bodies", Unit::Bytes, sent);
        let help = "From the first byte of a request to the last of its answer";
        registry.register_with_unit("request_duration", help, Unit::Seconds, self.latency.clone());
        registry.register("requests_in_flight", "Requests that are not over", self.in_flight.clone());
        registry.register("connections", "Open connections", self.connections.clone());
        registry.register(
            "tls_handshakes_failed",
            "TLS handshakes that failed, by reason",
            self.handshakes_failed.clone(),
        );
        registry.register("connections_closed", "Connections that ended, by outcome", self.connections_closed.clone());
        registry.register("logins", "Credentials shown, by outcome", self.logins.clone());
        registry.register("upstream_healthy_peers", "Healthy peers of an upstream", self.healthy_peers.clone());
        registry.register_with_unit("memory_tier", "Bytes held in memory", Unit::Bytes, self.memory.clone());
        registry.register("reloads", "Configurations read again, by outcome", self.reloads.clone());
        let help = "Blobs and manifests found not to be what was hashed; a manifest counts as often as it is asked for";
        registry.register("rotten", help, self.rotten.clone());
        self.mirrors.register(registry);
        self.upstreams.register(registry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_under_its_labels() {
        let metrics = Metrics::new();
        let labels = Labels { route: "blob", status: 200, backend: "hosted", tier: "memory" };
        (0..4).for_each(|_| metrics.request_began());
        for _ in 0..2 {
            metrics.request_ended(&labels, Sizes { received: 3, sent: 5 }, Duration::from_millis(2));
        }
        metrics.request_ended(&Labels { tier: "file", ..labels }, Sizes::default(), Duration::from_millis(2));
        metrics.memory_bytes(7);
        metrics.rotten("cache", 2);
        let page = metrics.encode().unwrap();
        for line in [
            r#"dockgate_requests_total{route="blob",status="200",backend="hosted",tier="memory"} 2"#,
            r#"dockgate_requests_total{route="blob",status="200",backend="hosted",tier="file"} 1"#,
            r#"dockgate_request_body_bytes_total{route="blob",status="200",backend="hosted",tier="memory"} 6"#,
            r#"dockgate_response_body_bytes_total{route="blob",status="200",backend="hosted",tier="memory"} 10"#,
            r#"dockgate_request_duration_seconds_bucket{le="0.0025",route="blob",backend="hosted"} 3"#,
            "dockgate_requests_in_flight 1",
            "dockgate_memory_tier_bytes 7",
            r#"dockgate_rotten_total{where="cache"} 2"#,
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }
}
