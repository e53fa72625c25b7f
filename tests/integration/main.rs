//! The real binary, on port 0, with real TLS.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says so by panicking")]
#![expect(unreachable_pub, reason = "the tests are one crate; nothing is exported")]

#[path = "../support/mod.rs"]
mod support;

mod access_matrix;
mod admin;
mod bad_input;
mod changes;
mod crowds;
mod first_start;
mod kill;
mod logins;
mod mirror;
mod operations;
mod protocol;
mod registry;
mod reload;
mod rot;
mod screen;
mod slow_clients;
mod smuggling;
mod token_service;
mod tokens;
mod v1;
mod v1_upstream;
