//! Floor 4: what is kept for a while. Nothing here knows where bytes come from, and all of it may be thrown away at any
//! time.

mod directory;
mod disk;
mod error;
mod fill;
mod filling;
mod flights;
mod index;
mod memory;
mod opening;
mod remnants;
mod volatile;

#[cfg(test)]
mod tests;

pub use disk::{CachedFile, CachedReader, Disk, DiskSettings, Lookup, Usage};
pub use error::{FillError, OpenError};
pub use fill::{Fill, FillReader, Filling};
pub use flights::Flights;
pub use index::Cached;
pub use memory::Memory;
pub use volatile::{Ticket, Volatile};
