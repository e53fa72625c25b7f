//! Which images of the v1 registry are in which of its repositories: what is known, and what is learnt (ADR 12).

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{self, Arc, PoisonError};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::access::{CatalogPermit, Delete, Leave as _, Permit, Principal, Push};
use crate::docker::ImageId;
use crate::oci::RepositoryName;
use crate::store::{LegacyRow, Named, Standing, Store, StoreError};

/// How many images can be begun at once; two of them share a turn by chance.
const TURNS: usize = 1_024;

/// How long somebody waits for the turn of an image: who has it waits for the registry, which may never answer.
const TURN_TIMEOUT: Duration = Duration::from_secs(60);

/// How many repositories are told apart when one is deleted; those that are not learn less for a moment.
const DELETIONS: usize = 256;

/// How many repositories whose names hold a term are looked at for one search.
const SEARCHED_MAX: usize = 10_000;

/// How many rows of the table are remembered, some 200 bytes each; an image has one for each repository that it stands to.
const REMEMBERED_ROWS_MAX: u64 = 200_000;

/// How an image stands to all repositories.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standings(pub Vec<LegacyRow>);

/// The table of one registry.
pub(super) struct Images {
    store: Store,
    upstream: String,
    /// How often a repository was deleted. What the registry answered before is not learnt after.
    deletions: Arc<[AtomicU64; DELETIONS]>,
    /// How images stood after so many changes of the table. Nobody asks any more for what was before the last one.
    remembered: Cache<(u64, ImageId), Arc<Standings>>,
    changes: Arc<AtomicU64>,
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
        let rows = |_: &_, standings: &Arc<Standings>| u32::try_from(standings.0.len() + 1).unwrap_or(u32::MAX);
        // By default moka would refuse new entries where old ones, whose number nobody asks for any more, were asked for often.
        let remembered = Cache::builder().weigher(rows).max_capacity(REMEMBERED_ROWS_MAX);
        let remembered = remembered.eviction_policy(EvictionPolicy::lru()).build();
        let hasher = RandomState::new();
        Self { store, upstream, deletions, remembered, changes: Arc::default(), turns, writers: Arc::default(), hasher }
    }

    /// For who reads. What is found while the table changes is remembered under the number of before: whoever asks after the
    /// change looks again.
    pub(super) async fn remembered(&self, image: &ImageId) -> Result<Arc<Standings>, StoreError> {
        let key = (self.changes.load(Ordering::Acquire), image.clone());
        if let Some(standings) = self.remembered.get(&key) {
            return Ok(standings);
        }
        let standings = Arc::new(self.standings(image).await?);
        self.remembered.insert(key, Arc::clone(&standings));
        Ok(standings)
    }

    /// Changes the table in a task that goes on when the client leaves: a change that was made and not counted would not be
    /// seen for as long as what was before is remembered.
    async fn change<T, F>(&self, act: impl FnOnce(Store, String) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let (act, changes) = (act(self.store.clone(), self.upstream.clone()), Arc::clone(&self.changes));
        let task = tokio::spawn(async move {
            let done = act.await;
            changes.fetch_add(1, Ordering::AcqRel);
            done
        });
        task.await.unwrap_or_else(|error| Err(StoreError::Database(error.to_string())))
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

    /// Nothing, if others have one of them for longer than [`TURN_TIMEOUT`].
    pub(super) async fn turn(&self, images: &[&ImageId]) -> Option<Turn> {
        tokio::time::timeout(TURN_TIMEOUT, self.held(images)).await.ok()
    }

    /// In one order for all, so that nobody waits for who waits for them.
    async fn held(&self, images: &[&ImageId]) -> Turn {
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

    pub(super) async fn name(&self, permit: &Permit<Push>, images: Vec<Named>) -> Result<(), StoreError> {
        if images.is_empty() {
            return Ok(());
        }
        let (repository, principal) = (permit.repository().clone(), permit.principal().to_string());
        let by_token = permit.principal().has_token();
        let name = async move |store: Store, upstream: String| {
            store.name_legacy_images(&upstream, &repository, (&principal, by_token), images).await
        };
        self.change(name).await
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
        let repository = repository.clone();
        let learn = async move |store: Store, upstream: String| {
            store.learn_legacy_images(&upstream, &repository, news, unknown, holds).await
        };
        self.change(learn).await
    }

    pub(super) async fn learn_ancestry(&self, image: &ImageId, ancestors: Vec<ImageId>) -> Result<(), StoreError> {
        let news = self.store.missing_legacy_ancestors(&self.upstream, image, ancestors).await?;
        if news.is_empty() {
            return Ok(());
        }
        let image = image.clone();
        let learn =
            async move |store: Store, upstream: String| store.learn_legacy_ancestry(&upstream, &image, news).await;
        self.change(learn).await
    }

    pub(super) async fn begin(
        &self,
        image: &ImageId,
        repositories: Vec<RepositoryName>,
        principal: &Principal,
    ) -> Result<Vec<LegacyRow>, StoreError> {
        let (image, principal) = (image.clone(), principal.to_string());
        let begin = async move |store: Store, upstream: String| {
            store.begin_legacy_image(&upstream, &image, repositories, &principal).await
        };
        self.change(begin).await
    }

    pub(super) async fn restore(
        &self,
        image: &ImageId,
        begun: Vec<RepositoryName>,
        before: Vec<LegacyRow>,
    ) -> Result<(), StoreError> {
        let image = image.clone();
        let restore = async move |store: Store, upstream: String| {
            store.restore_legacy_image(&upstream, &image, begun, before).await
        };
        self.change(restore).await
    }

    pub(super) async fn forget(&self, permit: &Permit<Delete>, listed: bool) -> Result<(), StoreError> {
        let (deletions, place) = (Arc::clone(&self.deletions), self.place(permit.repository(), DELETIONS));
        let repository = permit.repository().clone();
        let count = move || {
            deletions[place].fetch_add(1, Ordering::AcqRel);
        };
        let forget = async move |store: Store, upstream: String| {
            store.forget_legacy_repository(&upstream, &repository, listed, count).await
        };
        self.change(forget).await
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

#[cfg(test)]
mod tests;
