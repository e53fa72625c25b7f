//! Floor 4: who we ask: the peers of an upstream, their health and the choice among them, one exchange with one of them,
//! and the header rules of a proxy.

mod answer;
mod error;
#[cfg(test)]
pub(crate) mod fake;
pub mod headers;
mod health;
mod outgoing;
mod peers;
mod send;
mod silence;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;

use crate::net::client::BoxError;

pub use answer::Exactly;
pub use error::{BodyError, Fault, OpenError, SendError};
pub use headers::Forwarded;
pub use peers::{Peer, Peers, State};
pub use send::SlotPatience;

/// A body of a request or an answer, as it streams through.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;
