//! What the command line asks of the cache: `/cache`, for `dockgate cache`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Response, StatusCode, Uri};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::cache::Usage;
use crate::gateway::names::{Asked, Candidates, Names};
use crate::gateway::query::Query;
use crate::oci::{Digest, Reference, RepositoryName};
use crate::registry::{Remote, RemoteError, Shelves, Warmed};
use crate::telemetry::DiskTier;

use super::{AdminBody, text};

/// How many entries one list has at the most.
const ENTRIES_MAX: usize = 100_000;
/// How many lines of a warming may wait for the one who reads them.
const LINES: usize = 64;

/// Looks after the cache for the operator. Cheap to clone.
#[derive(Clone)]
pub struct Keeper {
    remotes: BTreeMap<String, Arc<Remote>>,
    names: Arc<Names>,
    shelves: Shelves,
}

/// An image of a registry elsewhere.
struct Image {
    /// As it was written.
    text: String,
    remote: Arc<Remote>,
    repository: RepositoryName,
    reference: Reference,
}

/// Why nothing was done.
enum Refusal {
    /// The text names no image of an upstream; what would.
    NoImage(String),
    /// The upstream did not give it.
    Remote(RemoteError),
    /// Ours.
    Failed(String),
}

impl Keeper {
    /// For these upstreams.
    pub const fn new(remotes: BTreeMap<String, Arc<Remote>>, names: Arc<Names>, shelves: Shelves) -> Self {
        Self { remotes, names, shelves }
    }

    /// How much the disk tier holds, for the metrics.
    pub(super) fn count(&self) {
        let Usage { bytes, entries, evicted, fills, rotten, .. } = self.shelves.disk.usage();
        let (entries, fills) = (entries as u64, fills as u64);
        self.shelves.metrics.disk_tier(DiskTier { bytes, entries, evicted, fills });
        self.shelves.metrics.rotten("cache", rotten);
    }

    /// Answers what is asked under `/cache`.
    pub(super) async fn answer(&self, method: &Method, uri: &Uri) -> Response<AdminBody> {
        let Ok(query) = Query::parse(uri.query().unwrap_or_default()) else {
            return text(StatusCode::BAD_REQUEST, "the query cannot be read\n");
        };
        let image = query.first("image").unwrap_or_default();
        let done = match (method, uri.path()) {
            (&Method::GET, "/cache") => self.list().await,
            (&Method::DELETE, "/cache") if query.first("all").is_some() => Ok(self.purge_all().await),
            (&Method::DELETE, "/cache") => self.purge(&image).await,
            (&Method::POST, "/cache/warm") => self.warm(&image, false),
            (&Method::POST, "/cache/pin") => self.warm(&image, true),
            (&Method::DELETE, "/cache/pin") => self.unpin(&image).await,
            _ => {
                Ok(text(StatusCode::NOT_FOUND, "GET and DELETE /cache, POST /cache/warm, POST and DELETE /cache/pin\n"))
            }
        };
        done.unwrap_or_else(Refusal::into_response)
    }

    async fn list(&self) -> Result<Response<AdminBody>, Refusal> {
        let pins = self.shelves.store.pins().await.map_err(|error| Refusal::Failed(error.to_string()))?;
        let usage = self.shelves.disk.usage();
        let mut entries = self.shelves.disk.list();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.last_used));
        entries.truncate(ENTRIES_MAX);
        let seconds = |time: SystemTime| time.elapsed().unwrap_or_default().as_secs();
        let shown: Vec<Value> = entries
            .iter()
            .map(|entry| {
                json!({ "digest": entry.digest.to_string(), "size": entry.size, "unused_seconds": seconds(entry.last_used),
                        "pinned": entry.pinned, "in_use": entry.in_use })
            })
            .collect();
        let mut images: Vec<&str> = pins.iter().map(|(image, _)| image.as_str()).collect();
        images.dedup();
        let page = json!({ "bytes": usage.bytes, "capacity": usage.capacity, "entries": shown, "pins": images });
        Ok(with_json(&page))
    }

    async fn purge_all(&self) -> Response<AdminBody> {
        let mut gone = Vec::new();
        for entry in self.shelves.disk.list() {
            if !entry.pinned && self.shelves.disk.remove(&entry.digest).await {
                self.shelves.memory.remove(&entry.digest);
                gone.push(entry.size);
            }
        }
        with_json(&json!({ "removed": gone.len(), "bytes": gone.iter().sum::<u64>() }))
    }

    /// One digest, or an image: its tag is asked for anew next time, and its parts are downloaded again.
    async fn purge(&self, text: &str) -> Result<Response<AdminBody>, Refusal> {
        let digests = match text.parse::<Digest>() {
            Ok(digest) => vec![digest],
            Err(_) => {
                let image = self.image(text)?;
                let parts = image.remote.parts(&image.repository, &image.reference).await.map_err(Refusal::Remote)?;
                image.remote.forget(&image.repository, &image.reference).await.map_err(Refusal::Remote)?;
                parts
            }
        };
        let (mut removed, mut bytes) = (0, 0);
        let sizes: BTreeMap<String, (u64, bool)> = self
            .shelves
            .disk
            .list()
            .into_iter()
            .map(|entry| (entry.digest.to_string(), (entry.size, entry.pinned)))
            .collect();
        for digest in digests {
            let (size, pinned) = sizes.get(&digest.to_string()).copied().unwrap_or_default();
            if pinned {
                continue;
            }
            self.shelves.memory.remove(&digest);
            if self.shelves.disk.remove(&digest).await {
                (removed, bytes) = (removed + 1, bytes + size);
            }
        }
        Ok(with_json(&json!({ "removed": removed, "bytes": bytes })))
    }

    /// Takes an image into the cache, and tells a line of JSON for each part; it goes on if nobody listens any more.
    fn warm(&self, text: &str, pin: bool) -> Result<Response<AdminBody>, Refusal> {
        let image = self.image(text)?;
        let (told, mut parts) = mpsc::channel::<Warmed>(LINES);
        let (lines, read) = mpsc::channel::<Value>(LINES);
        let shelves = self.shelves.clone();
        tokio::spawn(async move {
            let text = image.text.clone();
            let warming =
                tokio::spawn(async move { image.remote.warm(&image.repository, &image.reference, told).await });
            while let Some(part) = parts.recv().await {
                let error = part.error.map(|error| error.to_string());
                let line = json!({ "digest": part.digest.to_string(), "size": part.size, "error": error });
                // Whoever listened may be gone; the work goes on.
                let _ = lines.send(line).await;
            }
            let outcome = match warming.await.unwrap_or_else(|error| Err(RemoteError::Internal(error.to_string()))) {
                Ok(digests) if pin => shelves.pin(&text, digests).await.map_err(|error| error.to_string()),
                Ok(digests) => Ok(digests.len()),
                Err(error) => Err(error.to_string()),
            };
            let line = match outcome {
                Ok(parts) => json!({ "done": true, "parts": parts }),
                Err(error) => json!({ "done": false, "error": error }),
            };
            let _ = lines.send(line).await;
        });
        Ok(lines_of(read))
    }

    async fn unpin(&self, text: &str) -> Result<Response<AdminBody>, Refusal> {
        // By the words that were written, if its upstream is gone.
        let image = self.image(text).map_or_else(|_| text.to_owned(), |image| image.text);
        let kept = self.shelves.unpin(&image).await.map_err(|error| Refusal::Failed(error.to_string()))?;
        Ok(with_json(&json!({ "unpinned": kept })))
    }

    /// `docker.io/library/alpine:3.20`, as clients of this gateway would write it after its own name.
    fn image(&self, text: &str) -> Result<Image, Refusal> {
        let bad = |reason: &str| Refusal::NoImage(format!("{text:?} {reason}"));
        let (name, reference) = match (text.split_once('@'), text.rsplit_once(':')) {
            (Some((name, digest)), _) => (name, digest),
            (None, Some((name, tag))) if !tag.contains('/') => (name, tag),
            _ => (text, "latest"),
        };
        let name: RepositoryName = name.parse().map_err(|_| bad("is no image; write it as PREFIX/NAME:TAG"))?;
        let reference = reference.parse().map_err(|_| bad("has no tag or digest that could be one"))?;
        let asked = Asked { host: "", path_prefix: None, namespace: None, name: Some(&name) };
        let found = self.names.find(&asked).map_err(|error| Refusal::NoImage(error.to_string()))?;
        let found = match found.candidates {
            Candidates::Remote { name: Some(found), .. } | Candidates::Hosted { else_mirror: Some(found), .. } => found,
            _ => {
                return Err(bad(
                    "is not of an upstream: the cache holds what comes from upstreams; begin with its prefix",
                ));
            }
        };
        let remote = self.remotes.get(&*found.upstream).ok_or_else(|| bad("is of no upstream that is switched on"))?;
        let remote = Arc::clone(remote);
        let separator = if matches!(reference, Reference::Digest(_)) { '@' } else { ':' };
        let text = format!("{}{separator}{reference}", found.canonical);
        Ok(Image { text, remote, repository: found.remote, reference })
    }
}

impl Refusal {
    fn into_response(self) -> Response<AdminBody> {
        let (status, message) = match self {
            Self::NoImage(message) => (StatusCode::BAD_REQUEST, message),
            Self::Remote(RemoteError::Missing) => (StatusCode::NOT_FOUND, RemoteError::Missing.to_string()),
            Self::Remote(error) => (StatusCode::BAD_GATEWAY, error.to_string()),
            Self::Failed(message) => (StatusCode::INTERNAL_SERVER_ERROR, message),
        };
        text(status, format!("{message}\n"))
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("remotes", &self.remotes.keys()).finish_non_exhaustive()
    }
}

fn with_json(value: &Value) -> Response<AdminBody> {
    let mut response = text(StatusCode::OK, format!("{value}\n"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A line of JSON for each value, as they come.
fn lines_of(values: mpsc::Receiver<Value>) -> Response<AdminBody> {
    let frames = futures_util::stream::unfold(values, |mut values| async {
        let value = values.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{value}\n")))), values))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}
