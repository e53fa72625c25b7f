//! The real binary, on port 0, with real TLS.

#[path = "../support/mod.rs"]
mod support;

mod access_matrix;
mod bad_input;
mod first_start;
mod protocol;
mod registry;
mod reload;
mod screen;
mod tokens;
