//! Floor 6: one request from first byte to last: `screen → route → client → pick → identify → permit → answer → respond →
//! observe`. The only room that knows HTTP status codes and the OCI error JSON.

pub mod admin;
mod arrival;
mod body;
mod byte_budget;
mod conditions;
mod forwarded;
mod hosted;
mod identify;
mod intake;
mod legacy;
pub mod names;
mod observe;
mod outgoing;
mod pick;
mod query;
mod remote;
mod respond;
pub mod route;
mod screen;
mod token;
mod turns;
mod walk;

pub use arrival::{Arrival, BadHead, Transport};
pub use byte_budget::{ByteBudget, Pressure};
pub use observe::Observed;
pub use outgoing::Flight;
pub use turns::Turns;
pub use walk::{Gateway, Rooms, Settings};
