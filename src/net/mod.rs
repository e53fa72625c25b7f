//! Floor 3: stands in for the room of the same name until that is merged.

pub mod client;
