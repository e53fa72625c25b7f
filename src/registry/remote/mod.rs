//! Registries elsewhere: mirrored (pulled through) or fronted (pulled and pushed through), with memory and disk in front.

mod blobs;
mod download;
mod error;
mod keep;
mod known;
mod learn;
mod links;
mod lists;
mod manifests;
mod members;
mod passing;
mod push;
mod referrers;
mod refusal;
mod sessions;
mod tags;
mod target;
mod uploads;

pub use blobs::RemoteBlob;
pub use error::{RemoteError, Shown};
pub use keep::Warmed;
pub use passing::Passing;
pub use referrers::RawList;
pub use sessions::RemoteUpload;
pub use target::Target;
pub use uploads::Piece;

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use moka::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::cache::{Disk, Flights, Memory, Volatile};
use crate::config::{self, Authorization, RemoteKind};
use crate::oci::{Digest, RepositoryName, Tag, UploadId};
use crate::store::{Known, Member, Store, StoreError};
use crate::telemetry::Metrics;
use crate::upstream::{Ask, Body, CallerCredentials, Origin, Peers, SendError};

use super::fallback::{Fallback, MADE_LIFETIME};
use super::{Manifest, RegistryError};
use known::Sayings;
use members::{Asker, Kind};
use sessions::Sessions;

/// What it costs to remember that a caller was let in, beside their credentials and the repository's name: the rest of the key,
/// and what the cache adds.
const PROOF_BYTES: usize = 512;
/// How many digests are remembered beside SQL that the upstream sent; some 200 bytes each.
const SENT_MAX: u64 = 65_536;
/// How long that is remembered; as often SQL is told that it was of use.
const SENT_REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);
/// How many blobs are read into memory at once.
const MEMORY_FILLS_MAX: usize = 8;
/// What a manifest may be. One line each, as docker writes them.
const MANIFEST_TYPES: [&str; 6] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.artifact.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

/// What several upstreams share.
#[derive(Clone)]
pub struct Shelves {
    /// What is known of them.
    pub store: Store,
    /// Small objects.
    pub memory: Memory,
    /// Everything else.
    pub disk: Disk<RemoteError>,
    /// Where it is counted.
    pub metrics: Metrics,
}

/// How much there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteLimits {
    /// A manifest, in bytes.
    pub manifest_bytes: u64,
    /// Uploads that are open.
    pub uploads: usize,
    /// How long one stays open without a byte.
    pub upload_lifetime: Duration,
}

/// A registry elsewhere.
pub struct Remote {
    config: config::Remote,
    limits: RemoteLimits,
    origin: Origin,
    shelves: Shelves,
    /// What it said that its tags name.
    tags: Sayings,
    /// What it said that refers to what.
    lists: Sayings,
    members: Volatile<(RepositoryName, Digest), Member>,
    /// Lists of referrers that were asked for by their tag.
    fallback: Fallback<Way>,
    /// What the upstream itself sent.
    sent: Cache<Digest, ()>,
    /// Which callers were seen to be let in by the upstream itself.
    proofs: Cache<(CallerCredentials, RepositoryName, Digest), ()>,
    resolving: Flights<(Way, Tag), Result<Known<Digest>, RemoteError>>,
    fetching: Flights<(Way, Digest), Result<Manifest, RemoteError>>,
    listing: Flights<(Way, Digest), Result<Known<Manifest>, RemoteError>>,
    asking: Flights<(Way, Digest, Kind, Asker), Result<Member, RemoteError>>,
    /// Blobs that are being taken: some of the upstream's slots are left for what is small, so that nobody's manifest waits
    /// for others' layers.
    downloads: Arc<Semaphore>,
    /// Those of them that go to one caller alone, at that caller's pace: some are left for downloads that are kept.
    passing: Arc<Semaphore>,
    /// Downloads that nobody waits for.
    abandoned: Semaphore,
    memory_fills: Semaphore,
    sessions: Sessions,
}

/// Through which repository something is asked for, and with whose credentials.
type Way = (RepositoryName, Option<CallerCredentials>);

/// One request on its way to the upstream.
#[derive(Debug, Clone)]
struct Reach {
    repository: RepositoryName,
    caller: Option<CallerCredentials>,
    /// By then the caller has an answer.
    deadline: Instant,
}

impl Shelves {
    /// Keeps what an image is made of, whatever else is asked for; how many parts it has.
    pub async fn pin(&self, image: &str, digests: Vec<Digest>) -> Result<usize, StoreError> {
        self.store.put_pins(image, digests.clone()).await?;
        self.disk.pin(&digests, true);
        Ok(digests.len())
    }

    /// Keeps an image no longer, but for what another one is made of too; whether it was kept.
    pub async fn unpin(&self, image: &str) -> Result<bool, StoreError> {
        let (gone, kept): (Vec<_>, Vec<_>) =
            self.store.pins().await?.into_iter().partition(|(other, _)| other == image);
        self.store.put_pins(image, Vec::new()).await?;
        let is_kept = |digest: &Digest| kept.iter().any(|(_, other)| other == digest);
        let digests: Vec<Digest> =
            gone.into_iter().map(|(_, digest)| digest).filter(|digest| !is_kept(digest)).collect();
        self.disk.pin(&digests, false);
        Ok(!digests.is_empty())
    }
}

impl Remote {
    /// Asks nobody yet.
    pub fn new(config: config::Remote, origin: Origin, shelves: Shelves, limits: RemoteLimits) -> Self {
        let third = shelves.memory.names_bytes() / 3;
        let sixth = third / 2;
        let proof = |(caller, name, _): &(CallerCredentials, RepositoryName, Digest), (): &()| {
            u32::try_from(PROOF_BYTES + caller.heap_bytes() + name.as_str().len()).unwrap_or(u32::MAX)
        };
        let proofs = Cache::builder().max_capacity(third).weigher(proof).time_to_live(config.forward_ttl);
        Self {
            origin,
            shelves,
            tags: Sayings::new(sixth),
            lists: Sayings::new(sixth),
            members: Volatile::new(third, |(name, _), member| {
                name.as_str().len() + member.media_type.as_ref().map_or(0, String::len)
            }),
            // By digest the upstream is not asked whether a caller may have it still.
            fallback: Fallback::new(match config.authorization {
                Authorization::Forward => config.forward_ttl.min(MADE_LIFETIME),
                _ => MADE_LIFETIME,
            }),
            proofs: proofs.build(),
            sent: Cache::builder().max_capacity(SENT_MAX).time_to_live(SENT_REMEMBERED).build(),
            resolving: Flights::new(),
            fetching: Flights::new(),
            listing: Flights::new(),
            asking: Flights::new(),
            downloads: Arc::new(Semaphore::new(downloads(config.transport.concurrency))),
            passing: Arc::new(Semaphore::new(downloads(config.transport.concurrency).div_ceil(2))),
            abandoned: Semaphore::new(config.abandoned_fills),
            memory_fills: Semaphore::new(MEMORY_FILLS_MAX),
            sessions: Sessions::new(limits.uploads, limits.upload_lifetime),
            config,
            limits,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.config.name()
    }

    /// What its repositories' names begin with here, unless it is the default.
    pub const fn prefix(&self) -> &RepositoryName {
        &self.config.prefix
    }

    /// What is known of its peers.
    pub const fn peers(&self) -> &Arc<Peers> {
        self.origin.peers()
    }

    /// Whether it gets the callers' own credentials.
    pub fn forwards(&self) -> bool {
        self.config.authorization == Authorization::Forward
    }

    /// An error, where nothing can be pushed to it.
    pub fn check_writable(&self) -> Result<(), RegistryError> {
        match self.config.kind {
            RemoteKind::Fronted => Ok(()),
            RemoteKind::Mirror => Err(RegistryError::ReadOnlyMirror(self.name().to_owned())),
        }
    }

    fn reach<P>(&self, target: &Target<P>) -> Reach {
        let deadline = Instant::now() + self.config.deadline;
        Reach { repository: target.repository.clone(), caller: target.caller.clone(), deadline }
    }

    /// A new deadline, for work that goes on when the caller is gone.
    fn reach_anew(&self, reach: &Reach) -> Reach {
        Reach { deadline: Instant::now() + self.config.deadline, ..reach.clone() }
    }

    const fn shown(&self, reach: &Reach) -> Shown {
        match (&reach.caller, &self.config.credentials) {
            (Some(_), _) => Shown::Callers,
            (None, Some(_)) => Shown::Ours,
            (None, None) => Shown::Nothing,
        }
    }

    /// What a status that was not hoped for means.
    fn unexpected(&self, reach: &Reach, status: StatusCode) -> RemoteError {
        error::unexpected(self.name(), status, self.shown(reach))
    }

    /// Leave to take a blob.
    async fn download_slot(&self, reach: &Reach) -> Result<OwnedSemaphorePermit, RemoteError> {
        self.slot(&self.downloads, reach).await
    }

    /// Leave to take one for one caller alone.
    async fn passing_slot(&self, reach: &Reach) -> Result<OwnedSemaphorePermit, RemoteError> {
        self.slot(&self.passing, reach).await
    }

    async fn slot(&self, slots: &Arc<Semaphore>, reach: &Reach) -> Result<OwnedSemaphorePermit, RemoteError> {
        let slot = timeout_at(reach.deadline, Arc::clone(slots).acquire_owned()).await;
        slot.ok().and_then(Result::ok).ok_or_else(|| too_late(self.name()))
    }

    fn answer(&self, reason: impl Into<String>) -> RemoteError {
        RemoteError::Answer { upstream: self.name().to_owned(), reason: reason.into() }
    }

    /// A read of something in the repository: `path` begins with `/`, as in `/manifests/1`.
    fn read(&self, method: Method, reach: &Reach, path: &str) -> Result<Ask, RemoteError> {
        let path = format!("/v2/{}{path}", reach.repository);
        Ok(Ask {
            method,
            path: self.path(&path)?,
            headers: HeaderMap::new(),
            body: empty(),
            scope: format!("repository:{}:pull", reach.repository),
            caller: reach.caller.clone(),
            follow: true,
            peer: None,
            deadline: reach.deadline,
        })
    }

    /// A read of a manifest.
    fn read_manifest_of(&self, method: Method, reach: &Reach, reference: &str) -> Result<Ask, RemoteError> {
        let mut ask = self.read(method, reach, &format!("/manifests/{reference}"))?;
        for media_type in MANIFEST_TYPES {
            ask.headers.append(ACCEPT, HeaderValue::from_static(media_type));
        }
        Ok(ask)
    }

    fn path(&self, path: &str) -> Result<PathAndQuery, RemoteError> {
        path.parse().map_err(|_| RemoteError::Internal(format!("{path:?} is no path")))
    }
}

impl Reach {
    fn way(&self) -> Way {
        (self.repository.clone(), self.caller.clone())
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("name", &self.name()).finish_non_exhaustive()
    }
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// An upload of ours that stands for one at an upstream.
fn new_upload_id() -> Result<UploadId, RegistryError> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).map_err(|error| RegistryError::Internal(format!("no random bits: {error}")))?;
    Ok(UploadId::from_bits(bits))
}

/// How many of an upstream's slots blobs may take: three of four, and one at least.
const fn downloads(concurrency: usize) -> usize {
    let blobs = concurrency - concurrency.div_ceil(4);
    if blobs == 0 { 1 } else { blobs }
}

/// The deadline passed before there was an answer.
fn too_late(name: &str) -> RemoteError {
    RemoteError::Send(SendError::Deadline { upstream: name.to_owned() })
}
