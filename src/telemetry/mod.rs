//! Floor 3: what is seen from outside: metrics and the log.

pub mod log;
mod metrics;
mod mirrors;
mod sink;
mod upstreams;

pub use metrics::{Labels, Metrics, Sizes};
pub use mirrors::DiskTier;
pub use sink::Flush;
pub use upstreams::UpstreamCount;
