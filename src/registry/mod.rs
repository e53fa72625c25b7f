//! Floor 5: who answers. Operations take the [`Permit`](crate::access::Permit) that they need, so what was not authorised does
//! not compile; what comes back are outcomes, not HTTP.

mod content;
mod error;
mod fallback;
mod hosted;
mod legacy;
mod remote;

pub use crate::store::{BlobReader, LegacyRow, Named, Standing};
pub use crate::upstream::{CallerCredentials, Forwarded, Origin, SendError, SlotPatience};
pub use content::{Content, Manifest, Older, Tier};
pub use error::RegistryError;
pub use hosted::{Blob, Hosted, ManifestPut, Mounted, OpenBlob, Page, Pushed, Upload, index_of};
pub use legacy::{
    ANSWER_BYTES_MAX, Begin, Index, Legacy, LegacyError, Presence, Standings, Turn, Understood, Visit, understood,
};
pub use remote::{
    Passing, Piece, RawList, Remote, RemoteBlob, RemoteError, RemoteLimits, RemoteUpload, Shelves, Shown, Target,
    Warmed,
};

use std::sync::Arc;

/// Who answers a request.
#[derive(Clone)]
pub enum Backend {
    /// The registry inside the program.
    Hosted(Arc<Hosted>),
    /// A v2 registry elsewhere.
    Remote(Arc<Remote>),
}
