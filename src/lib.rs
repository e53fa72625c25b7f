//! dockgate: a gateway for container registries.
//!
//! The rooms and the floors they stand on are described in `docs/architecture.md`; `tests/tidy.rs` holds the code to it.

pub mod access;
pub mod cache;
pub mod config;
pub mod docker;
pub mod files;
pub mod gateway;
pub mod identity;
pub mod net;
pub mod oci;
pub mod registry;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod upstream;
