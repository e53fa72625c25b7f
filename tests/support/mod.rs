//! What several tests need.

pub(crate) mod v1_client;
pub(crate) mod v1_registry;
