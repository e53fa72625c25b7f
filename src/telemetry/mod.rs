//! Floor 3: what is seen from outside: metrics and the log.

pub mod log;
mod metrics;

pub use metrics::{Labels, Metrics, Sizes};
