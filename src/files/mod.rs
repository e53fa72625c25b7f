//! Floor 3: what the store and the cache both do with files: reading blobs without a hop to another thread where the page
//! cache has them, and looking how much of a disk is left.

mod blob_file;
mod space;

pub use blob_file::{BlobFile, BlobReader, Buffers, CHUNK_BYTES};
pub use space::{Reserve, Space};
