//! Floor 3: stands in for the room of the same name until that is merged: its client, and of `tls` what that needs.

pub mod client;
pub mod tls;
