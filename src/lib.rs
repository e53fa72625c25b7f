//! dockgate: a gateway for container registries.
//!
//! The rooms and the floors they stand on are described in `docs/architecture.md`; `tests/tidy.rs` holds the code to it.

pub mod access;
pub mod docker;
pub mod gateway;
pub mod net;
pub mod oci;
pub mod server;
