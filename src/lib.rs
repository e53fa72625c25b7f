//! dockgate: a gateway for container registries.
//!
//! The rooms and the floors they stand on are described in `docs/architecture.md`; `tests/tidy.rs` holds the code to it.

pub mod access;
pub mod config;
pub mod docker;
pub mod net;
pub mod oci;
pub mod registry;
pub mod upstream;
