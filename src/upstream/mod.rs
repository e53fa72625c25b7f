//! Floor 4: who we ask: the peers of an upstream, their health and the choice among them, one exchange with one of them,
//! and the header rules of a proxy.

mod answer;
mod challenge;
mod credentials;
mod error;
#[cfg(test)]
pub(crate) mod fake;
pub mod headers;
mod health;
mod origin;
mod outgoing;
mod peers;
mod redirect;
mod retry;
mod send;
mod silence;
#[cfg(test)]
mod tests;
mod throttle;
mod tokens;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;

use crate::net::client::BoxError;

pub use answer::Exactly;
pub use credentials::CallerCredentials;
pub use error::{BodyError, Fault, OpenError, SendError, Shown};
pub use headers::Forwarded;
pub use origin::{Ask, Origin};
pub use peers::{Peer, Peers, State};
pub use redirect::{Step, resolve};
pub use send::SlotPatience;

/// A body of a request or an answer, as it streams through.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;
