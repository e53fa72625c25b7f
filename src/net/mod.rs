//! Floor 3: TLS material and the HTTP client, whoever is at the other end.

pub mod certificates;
pub mod client;
pub mod tls;
