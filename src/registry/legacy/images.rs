//! Which images of the v1 registry are in which of its repositories: what is known, and what is learnt (ADR 12).

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{self, Arc, PoisonError};

use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::access::{CatalogPermit, Permit, Principal};
use crate::docker::ImageId;
use crate::oci::RepositoryName;
use crate::store::{LegacyRow, Named, Standing, Store, StoreError};

/// How many images can be begun at once; two of them share a turn by chance.
const TURNS: usize = 1_024;

/// How many repositories are told apart when one is deleted; those that are not learn less for a moment.
const DELETIONS: usize = 256;

/// How many repositories whose names hold a term are looked at for one search.
const SEARCHED_MAX: usize = 10_000;

/// How an image stands to all repositories.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standings(pub Vec<LegacyRow>);

/// The table of one registry.
pub(super) struct Images {
    store: Store,
    upstream: String,
    /// How often a repository was deleted. What the registry answered before is not learnt after.
    deletions: Arc<[AtomicU64; DELETIONS]>,
    turns: Vec<Arc<Mutex<()>>>,
    /// How many requests write the layer of an image now.
    writers: Arc<sync::Mutex<HashMap<ImageId, usize>>>,
    hasher: RandomState,
}

/// A moment before the registry is asked of a repository: what it answers is learnt unless that was deleted since.
#[derive(Debug, Clone, Copy)]
pub struct Moment(u64);

/// The turn of some images: nobody else begins one of them meanwhile.
#[derive(Debug)]
pub struct Turn {
    _held: Vec<OwnedMutexGuard<()>>,
}

/// Somebody who writes the layer of an image.
#[derive(Debug)]
pub struct Writer {
    image: ImageId,
    writers: Arc<sync::Mutex<HashMap<ImageId, usize>>>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = writers.get_mut(&self.image) {
            *count -= 1;
            if *count == 0 {
                writers.remove(&self.image);
            }
        }
    }
}

impl Standings {
    /// The repositories through which it is to be read.
    pub fn present(&self) -> impl Iterator<Item = &RepositoryName> {
        self.0.iter().filter(|row| row.standing.is_there()).map(|row| &row.repository)
    }

    /// Those of them through which it is to be written, and who began that.
    pub fn pushed(&self) -> impl Iterator<Item = &LegacyRow> {
        self.0.iter().filter(|row| row.standing == Standing::Pushed)
    }

    /// Those that it was in until they were deleted, and whether it was pushed there.
    pub fn deleted(&self) -> impl Iterator<Item = &LegacyRow> {
        self.0.iter().filter(|row| matches!(row.standing, Standing::Deleted | Standing::Abandoned))
    }

    /// Whether an image of which the registry has a half is nobody's, since nobody began it lately.
    pub fn is_left_behind(&self) -> bool {
        !self.0.iter().any(LegacyRow::is_being_pushed)
    }

    /// Those whose lists named it and nothing else.
    pub fn listed(&self) -> impl Iterator<Item = &LegacyRow> {
        self.0.iter().filter(|row| row.standing == Standing::Listed)
    }
}

impl Images {
    pub(super) fn new(store: Store, upstream: String) -> Self {
        let turns = std::iter::repeat_with(Arc::default).take(TURNS).collect();
        let deletions = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
        Self { store, upstream, deletions, turns, writers: Arc::default(), hasher: RandomState::new() }
    }

    pub(super) async fn standings(&self, image: &ImageId) -> Result<Standings, StoreError> {
        Ok(Standings(self.store.legacy_image(&self.upstream, image).await?))
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

    /// In one order for all, so that nobody waits for who waits for them.
    pub(super) async fn turn(&self, images: &[&ImageId]) -> Turn {
        let mut places: Vec<usize> = images.iter().map(|image| self.place(image, TURNS)).collect();
        places.sort_unstable();
        places.dedup();
        let mut held = Vec::new();
        for place in places {
            held.push(Arc::clone(&self.turns[place]).lock_owned().await);
        }
        Turn { _held: held }
    }

    /// Until it is dropped, somebody writes this image's layer.
    pub(super) fn write(&self, image: &ImageId) -> Writer {
        *self.writers.lock().unwrap_or_else(PoisonError::into_inner).entry(image.clone()).or_default() += 1;
        Writer { image: image.clone(), writers: Arc::clone(&self.writers) }
    }

    pub(super) fn is_written(&self, image: &ImageId) -> bool {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner).contains_key(image)
    }

    pub(super) fn moment(&self, repository: &RepositoryName) -> Moment {
        Moment(self.deletions[self.place(repository, DELETIONS)].load(Ordering::Acquire))
    }

    pub(super) async fn name(&self, permit: &Permit, images: Vec<Named>) -> Result<(), StoreError> {
        if images.is_empty() {
            return Ok(());
        }
        let named_by = (permit.principal().to_string(), permit.principal().has_token());
        let named_by = (named_by.0.as_str(), named_by.1);
        self.store.name_legacy_images(&self.upstream, permit.repository(), named_by, images).await
    }

    /// What the registry answered of a repository is there. Lists are what clients made them: with `unknown` they teach only
    /// what is in no repository yet, else naming an image would grant it.
    pub(super) async fn learn(
        &self,
        Moment(moment): Moment,
        repository: &RepositoryName,
        images: Vec<ImageId>,
        unknown: bool,
    ) -> Result<(), StoreError> {
        let known = self.of_repository(repository).await?;
        let is_new = |image: &ImageId| match known.get(image) {
            None => true,
            Some(standing) => !unknown && !standing.is_there(),
        };
        let news: Vec<_> = images.into_iter().filter(is_new).collect();
        if news.is_empty() {
            return Ok(());
        }
        let (deletions, place) = (Arc::clone(&self.deletions), self.place(repository, DELETIONS));
        let holds = move || deletions[place].load(Ordering::Acquire) == moment;
        self.store.learn_legacy_images(&self.upstream, repository, news, unknown, holds).await
    }

    pub(super) async fn learn_ancestry(&self, image: &ImageId, ancestors: Vec<ImageId>) -> Result<(), StoreError> {
        self.store.learn_legacy_ancestry(&self.upstream, image, ancestors).await
    }

    pub(super) async fn begin(
        &self,
        image: &ImageId,
        repositories: Vec<RepositoryName>,
        principal: &Principal,
    ) -> Result<Vec<LegacyRow>, StoreError> {
        self.store.begin_legacy_image(&self.upstream, image, repositories, &principal.to_string()).await
    }

    pub(super) async fn restore(
        &self,
        image: &ImageId,
        begun: Vec<RepositoryName>,
        before: Vec<LegacyRow>,
    ) -> Result<(), StoreError> {
        self.store.restore_legacy_image(&self.upstream, image, begun, before).await
    }

    pub(super) async fn forget(&self, permit: &Permit, listed: bool) -> Result<(), StoreError> {
        let (deletions, place) = (Arc::clone(&self.deletions), self.place(permit.repository(), DELETIONS));
        let count = move || {
            deletions[place].fetch_add(1, Ordering::AcqRel);
        };
        self.store.forget_legacy_repository(&self.upstream, permit.repository(), listed, count).await
    }

    fn place(&self, of: impl Hash, places: usize) -> usize {
        let places = u64::try_from(places).unwrap_or(1);
        usize::try_from(self.hasher.hash_one(of) % places).unwrap_or(0)
    }
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Images").field("upstream", &self.upstream).finish_non_exhaustive()
    }
}
