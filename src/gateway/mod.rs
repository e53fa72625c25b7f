//! Floor 6: one request, from its first byte to its last.

mod arrival;

pub use arrival::{Arrival, Transport};
