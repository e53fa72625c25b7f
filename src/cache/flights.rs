//! One piece of work, however many ask for it at the same time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Work that is under way, by what it is about.
pub struct Flights<K, V> {
    open: Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>,
}

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self { open: Arc::default() }
    }
}

impl<K, V> Flights<K, V>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// None under way.
    pub fn new() -> Self {
        Self::default()
    }

    /// What `make` comes to. Whoever asks for the same key meanwhile gets a clone of that. The work is a task of its own: it
    /// goes on if all who wait for it leave. Were it to panic, those who wait begin it anew, each in turn.
    pub async fn run<F, Fut>(&self, key: K, make: F) -> V
    where
        F: Fn() -> Fut,
        Fut: Future<Output = V> + Send + 'static,
    {
        loop {
            let mut landed = self.join(&key, &make);
            // An error means that the work ended without a result.
            if let Ok(value) = landed.wait_for(Option::is_some).await
                && let Some(value) = &*value
            {
                return value.clone();
            }
        }
    }

    fn join<F, Fut>(&self, key: &K, make: &F) -> watch::Receiver<Option<V>>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = V> + Send + 'static,
    {
        let mut open = lock(&self.open);
        if let Some(landed) = open.get(key).filter(|landed| landed.has_changed().is_ok()) {
            return landed.clone();
        }
        let (land, landed) = watch::channel(None);
        open.insert(key.clone(), landed.clone());
        let (work, all, key) = (make(), Arc::clone(&self.open), key.clone());
        tokio::spawn(async move {
            let value = work.await;
            lock(&all).remove(&key);
            land.send_replace(Some(value));
        });
        landed
    }
}

/// No critical section can panic half-way.
fn lock<T>(open: &Mutex<T>) -> MutexGuard<'_, T> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn all_who_ask_meanwhile_share_one_piece_of_work() {
        let flights = Flights::<&str, usize>::new();
        let (runs, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let make = || {
            let (runs, gate) = (Arc::clone(&runs), Arc::clone(&gate));
            async move {
                gate.notified().await;
                runs.fetch_add(1, Ordering::SeqCst) + 1
            }
        };
        let mut waiting: Vec<_> = (0..50).map(|_| Box::pin(flights.run("tag", make))).collect();
        for waiting in &mut waiting {
            assert!(futures_util::poll!(waiting).is_pending());
        }
        // The one who asked first leaves.
        drop(waiting.remove(0));
        gate.notify_one();
        for waiting in waiting {
            assert_eq!(waiting.await, 1);
        }
        gate.notify_one();
        assert_eq!(flights.run("tag", make).await, 2, "what has landed is not remembered");
    }

    #[tokio::test]
    async fn work_that_panics_is_begun_anew() {
        let flights = Flights::<&str, usize>::new();
        let runs = Arc::new(AtomicUsize::new(0));
        let make = || {
            let run = runs.fetch_add(1, Ordering::SeqCst);
            async move { if run == 0 { panic!("the first one fails") } else { run } }
        };
        assert_eq!(flights.run("tag", make).await, 1);
    }
}
