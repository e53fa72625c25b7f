//! Floor 5: who answers.

mod legacy;

pub use legacy::{Legacy, LegacyError};
