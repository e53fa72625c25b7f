//! What is counted of the registries behind this one.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::Metrics;

/// Upper bounds of the buckets for the head of an upstream's answer, in seconds.
const HEAD_BUCKETS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Upstream {
    upstream: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    upstream: String,
    outcome: &'static str,
}

type Count<L> = Family<L, Counter<u64, AtomicU64>>;
type Level = Family<Upstream, Gauge<i64, AtomicI64>>;

/// The part of the metrics that upstreams have.
#[derive(Clone)]
pub(super) struct Upstreams {
    requests: Count<Outcome>,
    received: Count<Upstream>,
    heads: Family<Upstream, Histogram, fn() -> Histogram>,
    tokens: Count<Outcome>,
    rate_limit: Level,
    rate_left: Level,
}

/// What is counted of one upstream. Cheap to clone.
#[derive(Clone)]
pub struct UpstreamCount(Arc<One>);

struct One {
    all: Upstreams,
    upstream: Upstream,
    received: Counter<u64, AtomicU64>,
    heads: Histogram,
}

impl Default for Upstreams {
    fn default() -> Self {
        let heads: Family<Upstream, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(HEAD_BUCKETS));
        Self {
            requests: Family::default(),
            received: Family::default(),
            heads,
            tokens: Family::default(),
            rate_limit: Family::default(),
            rate_left: Family::default(),
        }
    }
}

impl Upstreams {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("upstream_requests", "Exchanges with an upstream, by outcome", self.requests.clone());
        let received = self.received.clone();
        registry.register_with_unit("upstream_response_body", "Bytes taken from an upstream", Unit::Bytes, received);
        let help = "From a request to an upstream to the head of its answer";
        registry.register_with_unit("upstream_head", help, Unit::Seconds, self.heads.clone());
        registry.register("upstream_tokens", "Tokens that were asked for, by outcome", self.tokens.clone());
        let help = "Pulls that an upstream allows in its window, as it says";
        registry.register("upstream_rate_limit", help, self.rate_limit.clone());
        let help = "Pulls that an upstream still allows in its window, as it says";
        registry.register("upstream_rate_limit_remaining", help, self.rate_left.clone());
    }
}

impl Metrics {
    /// The counters of one upstream.
    pub fn upstream(&self, name: &str) -> UpstreamCount {
        let all = self.upstreams().clone();
        let upstream = Upstream { upstream: name.to_owned() };
        let received = all.received.get_or_create_owned(&upstream);
        let heads = all.heads.get_or_create_owned(&upstream);
        UpstreamCount(Arc::new(One { all, upstream, received, heads }))
    }
}

impl UpstreamCount {
    /// The head of an answer came, or none.
    pub fn answered(&self, status: Option<u16>, duration: Duration) {
        let outcome = match status {
            None => "failed",
            Some(429) => "throttled",
            Some(401 | 403) => "refused",
            Some(500..) => "server_error",
            Some(400..) => "client_error",
            Some(300..) => "redirected",
            Some(_) => "done",
        };
        self.0.all.requests.get_or_create(&self.outcome(outcome)).inc();
        self.0.heads.observe(duration.as_secs_f64());
    }

    /// Bytes of an answer came.
    pub fn received(&self, bytes: usize) {
        self.0.received.inc_by(bytes as u64);
    }

    /// A token was asked for; `outcome` is a fixed word.
    pub fn token(&self, outcome: &'static str) {
        self.0.all.tokens.get_or_create(&self.outcome(outcome)).inc();
    }

    /// What the upstream says of its rate limit: how much it allows, and how much is left.
    pub fn rate_limit(&self, limit: Option<i64>, left: Option<i64>) {
        if let Some(limit) = limit {
            self.0.all.rate_limit.get_or_create(&self.0.upstream).set(limit);
        }
        if let Some(left) = left {
            self.0.all.rate_left.get_or_create(&self.0.upstream).set(left);
        }
    }

    fn outcome(&self, outcome: &'static str) -> Outcome {
        Outcome { upstream: self.0.upstream.upstream.clone(), outcome }
    }
}

impl std::fmt::Debug for UpstreamCount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("UpstreamCount").field(&self.0.upstream.upstream).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_counted_under_its_name() {
        let metrics = Metrics::new();
        let hub = metrics.upstream("hub");
        hub.answered(Some(200), Duration::from_millis(7));
        hub.answered(Some(429), Duration::from_millis(7));
        hub.answered(None, Duration::from_secs(1));
        hub.received(5);
        hub.token("fetched");
        hub.rate_limit(Some(100), Some(97));
        let page = metrics.encode().unwrap();
        for line in [
            r#"dockgate_upstream_requests_total{upstream="hub",outcome="done"} 1"#,
            r#"dockgate_upstream_requests_total{upstream="hub",outcome="throttled"} 1"#,
            r#"dockgate_upstream_requests_total{upstream="hub",outcome="failed"} 1"#,
            r#"dockgate_upstream_response_body_bytes_total{upstream="hub"} 5"#,
            r#"dockgate_upstream_head_seconds_bucket{le="0.01",upstream="hub"} 2"#,
            r#"dockgate_upstream_tokens_total{upstream="hub",outcome="fetched"} 1"#,
            r#"dockgate_upstream_rate_limit{upstream="hub"} 100"#,
            r#"dockgate_upstream_rate_limit_remaining{upstream="hub"} 97"#,
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }
}
