//! The real binary, on port 0, with real TLS.

#[path = "../support/mod.rs"]
mod support;

mod access_matrix;

mod first_start;
mod kill;
mod protocol;

mod reload;
mod screen;
mod tokens;
mod v1_upstream;
