//! Floor 4: what is kept for a while. Nothing here knows where bytes come from, and all of it may be thrown away at any
//! time.

mod memory;
mod volatile;

pub use memory::Memory;
pub use volatile::{Ticket, Volatile};
