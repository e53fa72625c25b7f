//! What the tests share: a gateway that runs, a client that is strict, and things to push.

pub mod client;
pub mod content;
pub mod gate;

pub use client::{Answer, Client};
pub use gate::Gate;
