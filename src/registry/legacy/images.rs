//! Which images of the v1 registry are in which of its repositories: what is known, and what is learnt (ADR 12).

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Mutex, MutexGuard};

use crate::access::{CatalogPermit, Permit};
use crate::docker::ImageId;
use crate::oci::RepositoryName;
use crate::store::{Standing, Store, StoreError};

/// How many images can be begun at once; two of them share a turn by chance.
const TURNS: usize = 64;

/// How many repositories whose names hold a term are looked at for one search.
const SEARCHED_MAX: usize = 10_000;

/// The repositories to which an image stands in some way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standings {
    /// Those through which it is to be read.
    pub present: Vec<RepositoryName>,
    /// Those of them through which it is to be written.
    pub pushed: Vec<RepositoryName>,
    /// Those whose lists named it before it was pushed.
    pub listed: Vec<RepositoryName>,
    /// Those that it was in until they were deleted.
    pub deleted: Vec<RepositoryName>,
}

/// The table of one registry.
#[derive(Debug)]
pub(super) struct Images {
    store: Store,
    upstream: String,
    /// How often a repository was deleted. What the registry answered before is not learnt after.
    deletions: Arc<AtomicU64>,
    turns: [Mutex<()>; TURNS],
    hasher: RandomState,
}

/// A moment before the registry is asked: what it answers is learnt unless a repository was deleted since.
#[derive(Debug, Clone, Copy)]
pub struct Moment(u64);

impl Standings {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &RepositoryName> {
        self.present.iter().chain(&self.listed).chain(&self.deleted)
    }
}

impl Images {
    pub(super) fn new(store: Store, upstream: String) -> Self {
        let turns = std::array::from_fn(|_| Mutex::new(()));
        Self { store, upstream, deletions: Arc::default(), turns, hasher: RandomState::new() }
    }

    pub(super) async fn standings(&self, image: &ImageId) -> Result<Standings, StoreError> {
        let mut standings = Standings::default();
        for (repository, standing) in self.store.legacy_image(&self.upstream, image).await? {
            match standing {
                Standing::Present => standings.present.push(repository),
                Standing::Pushed => {
                    standings.pushed.push(repository.clone());
                    standings.present.push(repository);
                }
                Standing::Listed => standings.listed.push(repository),
                Standing::Deleted => standings.deleted.push(repository),
            }
        }
        Ok(standings)
    }

    pub(super) async fn of_repository(
        &self,
        repository: &RepositoryName,
    ) -> Result<BTreeMap<ImageId, Standing>, StoreError> {
        Ok(self.store.legacy_repository(&self.upstream, repository).await?.into_iter().collect())
    }

    pub(super) async fn search(&self, permit: &CatalogPermit, term: &str) -> Result<Vec<RepositoryName>, StoreError> {
        let found = self.store.search_legacy(&self.upstream, term, SEARCHED_MAX).await?;
        Ok(found.into_iter().filter(|name| permit.shows(name)).collect())
    }

    /// Who has the turn of an image is the only one to begin it.
    pub(super) async fn turn(&self, image: &ImageId) -> MutexGuard<'_, ()> {
        let turn = usize::try_from(self.hasher.hash_one(image)).unwrap_or(0) % TURNS;
        self.turns[turn].lock().await
    }

    pub(super) fn moment(&self) -> Moment {
        Moment(self.deletions.load(Ordering::Acquire))
    }

    pub(super) async fn record(&self, permit: &Permit, images: Vec<(ImageId, Standing)>) -> Result<(), StoreError> {
        self.put(permit.repository(), images, || true).await
    }

    /// What the registry answered for a repository is there.
    pub(super) async fn learn(
        &self,
        moment: Moment,
        repository: &RepositoryName,
        images: Vec<ImageId>,
    ) -> Result<(), StoreError> {
        let known = self.of_repository(repository).await?;
        let is_new = |image: &ImageId| !known.get(image).is_some_and(|standing| standing.is_there());
        let news: Vec<_> = images.into_iter().filter(is_new).map(|image| (image, Standing::Present)).collect();
        self.put(repository, news, self.holds(moment)).await
    }

    /// The same of what clients wrote: it teaches only what is in no repository yet, else naming an image would grant it.
    pub(super) async fn learn_unknown(
        &self,
        moment: Moment,
        repository: &RepositoryName,
        images: Vec<ImageId>,
    ) -> Result<(), StoreError> {
        let known = self.of_repository(repository).await?;
        let news: Vec<_> = images.into_iter().filter(|image| !known.contains_key(image)).collect();
        if news.is_empty() {
            return Ok(());
        }
        self.store.put_unknown_legacy_images(&self.upstream, repository, news, self.holds(moment)).await
    }

    /// An image that the registry does not have is about to be pushed to these repositories.
    pub(super) async fn begin(&self, image: &ImageId, repositories: Vec<RepositoryName>) -> Result<(), StoreError> {
        self.store.begin_legacy_image(&self.upstream, image, repositories).await
    }

    pub(super) async fn forget(&self, permit: &Permit) -> Result<(), StoreError> {
        let deletions = Arc::clone(&self.deletions);
        let count = move || {
            deletions.fetch_add(1, Ordering::AcqRel);
        };
        self.store.forget_legacy_repository(&self.upstream, permit.repository(), count).await
    }

    async fn put(
        &self,
        repository: &RepositoryName,
        images: Vec<(ImageId, Standing)>,
        holds: impl FnOnce() -> bool + Send + 'static,
    ) -> Result<(), StoreError> {
        if images.is_empty() {
            return Ok(());
        }
        self.store.put_legacy_images(&self.upstream, repository, images, holds).await
    }

    fn holds(&self, Moment(moment): Moment) -> impl FnOnce() -> bool + Send + 'static {
        let deletions = Arc::clone(&self.deletions);
        move || deletions.load(Ordering::Acquire) == moment
    }
}
