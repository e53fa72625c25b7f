//! What the distribution-spec and HTTP ask of a registry beyond its conformance suite, over the real binary.

mod lists;
mod manifests;
mod namespaces;
mod reads;
mod sharing;
mod uploads;

use super::support::Gate;
use super::support::gate::ADA;

/// Everyone may do everything, over plain HTTP.
const OPEN: &str = "[[access]]\nwho = [\"anyone\"]\nrepositories = [\"**\"]\nactions = [\"*\"]\n";

/// A gateway that is open to everyone, with more configuration.
fn open(more: &str) -> Gate {
    let prepared = Gate::prepare(&format!("{OPEN}{more}"));
    // With users there is no first user to be made, whose password costs a bcrypt.
    prepared.write("htpasswd", &format!("{ADA}\n"));
    prepared.start()
}

/// Bytes in which each place differs from its neighbours.
fn some_bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect()
}
