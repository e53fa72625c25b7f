//! Floor 3: TLS material and the HTTP client, whoever is at the other end.

mod address;
pub mod certificates;
pub mod client;
mod description;
pub mod tls;

pub use address::{AddressRule, client_network};
pub use description::{Concern, Description, describe};
