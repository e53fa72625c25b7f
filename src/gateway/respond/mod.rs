//! Outcomes → HTTP. The one place that knows status codes and the OCI error JSON.

mod failure;
mod from;
mod success;
mod upstream;

pub(super) use failure::{Challenge, Failure, Form};
pub(super) use success::*;
