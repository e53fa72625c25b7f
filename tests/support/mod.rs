//! What the tests share: a gateway that runs, a client that is strict, things to push, and the old world.

pub mod client;
pub mod content;
pub mod disk;
pub mod gate;
pub mod h2_front;
pub mod v1_client;
pub mod v1_registry;
mod v1_tls;
pub mod v1_upstream;
pub mod v2_upstream;

pub use client::{Answer, Client};
pub use gate::Gate;
pub use h2_front::H2Front;
pub use v2_upstream::V2Upstream;
