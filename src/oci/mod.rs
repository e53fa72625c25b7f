//! Floor 0: the words of the OCI distribution-spec 1.1 and image-spec 1.1, as types that cannot hold a wrong value.
//!
//! Nothing here does I/O; everything is parsed once, at the edge, and then trusted.

mod byte_range;
mod descriptor;
mod digest;
mod error_code;
mod manifest;
mod media_type;
mod name;
mod reference;
mod schema1;
mod upload_id;
mod verifier;

pub use byte_range::{ByteRange, RangeError, RangeSpec};
pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, DigestError};
pub use error_code::ErrorCode;
pub use manifest::{Child, ChildKind, MANIFEST_DEPTH_MAX, Manifest, ManifestError, of_linux_amd64};
pub use media_type::MediaType;
pub use name::{NameError, RepositoryName};
pub use reference::{Reference, ReferenceError, Tag, TagError};
pub use schema1::is_schema1;
pub use upload_id::{UploadId, UploadIdError};
pub use verifier::{Mismatch, Verified, Verifier};
