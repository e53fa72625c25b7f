//! Floor 3: what the store and the cache both do with files: reading blobs without a hop to another thread where the page
//! cache has them, checking what is read, and looking how much of a disk is left.

mod blob_file;
mod buffers;
mod open_files;
mod space;
mod sums;

pub use blob_file::{BlobFile, BlobReader, CHUNK_BYTES, Doubt, Reading};
pub use open_files::OpenFiles;
pub use space::{Reserve, Space};
pub use sums::{PIECE_BYTES, Proven, Prover, READ_BYTES, Sums, piece_end, read_full};
