//! Clients that do what a workload says, in its order, as many steps at a time as there are clients.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use http::Method;

use crate::catalog::{Catalog, manifest_with, repository, tag};
use crate::content::{Blob, manifest_of};
use crate::model::{Step, Workload};
use crate::runner::{Fault, Runner, Seen};
use crate::servers::Server;

/// A server that fails as often is not worth waiting for.
const FAULTS_MAX: usize = 20;
/// How long the last steps may take when the time is up.
const LAST_STEPS: Duration = Duration::from_secs(60);
/// Where pushes go: into the built-in registry, beside the mirror.
const PUSHED: &str = "pushed/app";

pub struct Replayed {
    pub steps: usize,
    pub took: Duration,
    /// Of blobs that were asked for.
    pub bytes: u64,
    pub first_bytes: Vec<Duration>,
    pub retries: u64,
    pub faults: Vec<Fault>,
}

pub struct Replay<'a> {
    server: &'a Server,
    workload: Arc<Workload>,
    catalog: Arc<Catalog>,
    seen: Seen,
    next: AtomicUsize,
    bytes: AtomicU64,
    is_over: AtomicBool,
    faults: Mutex<Vec<Fault>>,
    pushed: [Blob; 2],
}

impl<'a> Replay<'a> {
    pub fn new(server: &'a Server, workload: Arc<Workload>, catalog: Arc<Catalog>) -> Self {
        Self {
            server,
            workload,
            catalog,
            seen: Seen::default(),
            next: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            faults: Mutex::default(),
            pushed: [Blob::new(Bytes::from_static(b"{}")), Blob::new(Bytes::from_static(b"pushed before"))],
        }
    }

    /// Asks for every manifest, so that it is known which blob belongs to which repository; pushes what manifests that
    /// are pushed later will name.
    pub async fn prepare(&self, clients: usize) -> Result<(), Fault> {
        let runner = Runner::new(&self.server.url(), &self.seen);
        for blob in &self.pushed {
            runner.push_blob(PUSHED, blob, false).await?;
        }
        let next = AtomicUsize::new(0);
        let client = || async {
            let runner = Runner::new(&self.server.url(), &self.seen);
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= self.workload.manifests {
                    return Ok(());
                }
                self.step(&runner, index, Step::Manifest(index as u32)).await?;
            }
        };
        join_all((0..clients).map(|_| client())).await.into_iter().collect()
    }

    pub async fn run(&self, clients: usize, limit: Duration) -> Replayed {
        let began = Instant::now();
        // Ends between steps, so that what is compared is whole.
        let end = async {
            tokio::time::sleep(limit).await;
            self.is_over.store(true, Ordering::Relaxed);
            tokio::time::sleep(LAST_STEPS).await;
        };
        tokio::select! {
            _ = join_all((0..clients).map(|_| self.client())) => {}
            () = end => {}
        }
        Replayed {
            steps: self.next.load(Ordering::Relaxed).min(self.workload.steps.len()),
            took: began.elapsed(),
            bytes: self.bytes.load(Ordering::Relaxed),
            first_bytes: self.seen.take_first_bytes(),
            retries: self.seen.retries.load(Ordering::Relaxed),
            faults: std::mem::take(&mut self.faults.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    async fn client(&self) {
        let runner = Runner::new(&self.server.url(), &self.seen);
        while !self.is_over.load(Ordering::Relaxed) {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(&step) = self.workload.steps.get(index) else { return };
            if let Err(fault) = self.step(&runner, index, step).await {
                let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
                faults.push(fault);
                if faults.len() >= FAULTS_MAX {
                    self.is_over.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    async fn step(&self, runner: &Runner<'_>, index: usize, step: Step) -> Result<(), Fault> {
        let name = |manifest: u32| self.server.kind.repository(&repository(manifest));
        let path = |manifest: u32| format!("/v2/{}/manifests/{}", name(manifest), tag(manifest));
        match step {
            Step::Ping => runner.whole(Method::GET, "/v2/", None).await,
            Step::Manifest(manifest) => {
                runner.whole(Method::GET, &path(manifest), Some(self.catalog.manifest(manifest))).await
            }
            Step::HeadManifest(manifest) => runner.whole(Method::HEAD, &path(manifest), None).await,
            Step::Blob(blob) => {
                let blob_name = name(manifest_with(blob));
                let blob = self.catalog.blob(blob);
                self.bytes.fetch_add(blob.len() as u64, Ordering::Relaxed);
                runner.blob(&blob_name, blob).await
            }
            Step::PushBlob { patch } => {
                let blob = Blob::new(format!("pushed by step {index}").into());
                runner.push_blob(PUSHED, &blob, patch).await
            }
            Step::PushManifest => {
                let [config, layer] = &self.pushed;
                let manifest = Blob::new(manifest_of(config, std::slice::from_ref(layer)).into());
                runner.push_manifest(PUSHED, &tag(index as u32), &manifest).await
            }
        }
    }
}
