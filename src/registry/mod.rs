//! Floor 5: who answers. Every operation takes a [`Permit`](crate::access::Permit) by value, so what was not authorised
//! does not compile; what comes back are outcomes, not HTTP.

mod error;
mod hosted;
mod legacy;

pub use crate::store::{BlobReader, Upload};
pub use crate::upstream::{Forwarded, SendError, SlotPatience};
pub use error::RegistryError;
pub use hosted::{Blob, Content, Hosted, Manifest, ManifestPut, Mounted, OpenBlob, Page, Pushed, Tier};
pub use legacy::{Legacy, LegacyError};

use std::sync::Arc;

/// Who answers a request.
#[derive(Clone)]
pub enum Backend {
    /// The registry inside the program.
    Hosted(Arc<Hosted>),
    /// A v1 registry behind it.
    Legacy(Arc<Legacy>),
}
