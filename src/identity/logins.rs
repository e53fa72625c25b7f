//! Whether a user's password is the right one: at the price of one bcrypt hash for each new credential, known user or not.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use moka::sync::Cache;
use tokio::sync::watch;

use super::clock::Clock;
use super::failures::{self, Failures};
use super::htpasswd::{PasswordHash, Users};
use super::process_key::{Fingerprint, ProcessKey};
use super::slots::Place;
use super::state::State;
use super::{IdentifyError, NoRandomness, Password};

/// How many verified credentials are remembered.
const VERIFIED_MAX: u64 = 65_536;

/// Compares a password with a hash, at the hash's cost.
pub(super) type Compare = Arc<dyn Fn(&Password, &PasswordHash) -> bool + Send + Sync>;

/// Checks passwords.
pub(super) struct Logins {
    key: ProcessKey,
    failures: Failures,
    clock: Clock,
    compare: Compare,
    /// When a credential was last verified. An entry that is too old still says that this is no guess.
    verified: Cache<Fingerprint, Instant>,
}

/// The users as they were read at one time. A change of the file makes a new one; what was verified is remembered together with
/// the hash that it was verified by, so it goes on for those whose line did not change, and for nobody else.
pub(super) struct Generation {
    pub(super) users: Users,
    /// What the passwords of unknown users are compared with.
    dummy: PasswordHash,
    /// The credentials that are being hashed, and where the verdict will be.
    flights: Mutex<HashMap<Fingerprint, Landing>>,
}

type Landing = watch::Receiver<Option<Verdict>>;

/// Who wants to be let in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) user: &'a str,
    pub(super) password: &'a Password,
    pub(super) client: IpAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Right,
    Wrong,
    TooLong,
    /// It was not looked at.
    Busy,
}

impl Logins {
    /// With nothing counted and nothing known.
    pub(super) fn new(clock: Clock, compare: Compare) -> Result<Self, NoRandomness> {
        let (key, verified) = (ProcessKey::random()?, Cache::new(VERIFIED_MAX));
        Ok(Self { key, failures: Failures::new(), clock, compare, verified })
    }

    /// What compares passwords outside of tests. bcrypt reads 72 bytes; that a password is longer is found by its length.
    pub(super) fn bcrypt() -> Compare {
        Arc::new(|password, hash| bcrypt::verify(password.expose(), hash.as_str()).unwrap_or(false))
    }

    /// A generation of these users.
    pub(super) fn generation(&self, users: Users) -> Generation {
        Generation { dummy: self.key.dummy_hash(users.usual_cost), users, flights: Mutex::new(HashMap::new()) }
    }

    /// Whether the password is that of the user in the generation of `state`.
    pub(super) async fn check(self: &Arc<Self>, state: &State, attempt: Attempt<'_>) -> Result<(), IdentifyError> {
        let (user, password) = (attempt.user.as_bytes(), attempt.password.expose().as_bytes());
        let hash = state.generation.hash_of(attempt.user).unwrap_or(&state.generation.dummy);
        let credential = self.key.fingerprint(&[b"credential", user, password, hash.as_str().as_bytes()]);
        let verified_at = self.verified.get(&credential);
        let age = verified_at.map(|at| self.clock.now().instant.saturating_duration_since(at));
        if age.is_some_and(|age| age < state.settings.credential_lifetime) {
            return Ok(());
        }
        // What was right once is no guess: others who fail from the same address must not lock it out.
        let failures_max = if age.is_some() { u32::MAX } else { state.settings.login_failures };
        let mut landing = self.join(state, attempt, credential, failures_max)?;
        let verdict = landing.wait_for(Option::is_some).await.ok().and_then(|verdict| *verdict);
        match verdict.unwrap_or(Verdict::Busy) {
            Verdict::Right => Ok(()),
            Verdict::Wrong => Err(IdentifyError::Wrong),
            Verdict::TooLong => Err(IdentifyError::PasswordTooLong),
            Verdict::Busy => Err(IdentifyError::Busy { retry_after: state.slots.retry_after() }),
        }
    }

    /// Counts a new user against an address as a failed login, which no success gives back.
    pub(super) fn charge_registration(&self, client: IpAddr, max: u32) -> Result<(), failures::TooMany> {
        // No user has an empty name.
        self.failures.charge(&failures::pair(&self.key, client, ""), max, self.clock.now().instant)
    }

    /// Joins the flight of this credential, or starts it. Only who starts it is charged: the same guess made twice at once
    /// is one guess, and a hundred runners that start with one credential are no attack.
    fn join(
        self: &Arc<Self>,
        state: &State,
        attempt: Attempt<'_>,
        credential: Fingerprint,
        failures_max: u32,
    ) -> Result<Landing, IdentifyError> {
        let pair = failures::pair(&self.key, attempt.client, attempt.user);
        let now = self.clock.now().instant;
        let mut flights = state.generation.flights();
        let entry = match flights.entry(credential) {
            Entry::Occupied(flight) => {
                self.failures.check(&pair, failures_max, now)?;
                return Ok(flight.get().clone());
            }
            Entry::Vacant(entry) => entry,
        };
        self.failures.charge(&pair, failures_max, now)?;
        let Some(place) = state.slots.enter() else {
            self.failures.refund(&pair);
            return Err(IdentifyError::Busy { retry_after: state.slots.retry_after() });
        };
        let (landed, landing) = watch::channel(None);
        entry.insert(landing.clone());
        // A runtime that is shutting down drops the task at once, and a dropped flight takes this lock.
        drop(flights);
        let generation = Arc::clone(&state.generation);
        let flight = Flight { logins: Arc::clone(self), generation, credential, pair, landed };
        let hash = state.generation.hash_of(attempt.user);
        let known = hash.is_some();
        let hash = hash.unwrap_or(&state.generation.dummy).clone();
        // In a task of its own: one caller who leaves must not end it for the others.
        tokio::spawn(flight.fly(place, attempt.password.clone(), hash, known));
        Ok(landing)
    }
}

impl Generation {
    fn hash_of(&self, user: &str) -> Option<&PasswordHash> {
        self.users.hashes.get(user)
    }

    fn flights(&self) -> std::sync::MutexGuard<'_, HashMap<Fingerprint, Landing>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One credential on its way through bcrypt.
struct Flight {
    logins: Arc<Logins>,
    generation: Arc<Generation>,
    credential: Fingerprint,
    pair: Fingerprint,
    landed: watch::Sender<Option<Verdict>>,
}

impl Flight {
    async fn fly(self, place: Place, password: Password, hash: PasswordHash, known: bool) {
        let verdict = self.hash(place, password, hash, known).await;
        match verdict {
            Verdict::Right => {
                self.logins.verified.insert(self.credential, self.logins.clock.now().instant);
                self.logins.failures.refund(&self.pair);
            }
            Verdict::Busy => self.logins.failures.refund(&self.pair),
            Verdict::Wrong | Verdict::TooLong => {}
        }
        self.landed.send_replace(Some(verdict));
    }

    async fn hash(&self, place: Place, password: Password, hash: PasswordHash, known: bool) -> Verdict {
        let Some(slot) = place.slot().await else { return Verdict::Busy };
        if self.is_abandoned() {
            return Verdict::Busy;
        }
        let compare = Arc::clone(&self.logins.compare);
        let compared = tokio::task::spawn_blocking(move || {
            // Whoever asks pays the same, whether or not the answer is known before.
            let equal = compare(&password, &hash);
            // The slot is free when the work is done, not when somebody has stopped waiting for it.
            drop(slot);
            match password.is_too_long() {
                true => Verdict::TooLong,
                false if equal && known => Verdict::Right,
                false => Verdict::Wrong,
            }
        });
        compared.await.unwrap_or(Verdict::Busy)
    }

    /// Whether nobody waits any more; if so, nobody can join any more.
    fn is_abandoned(&self) -> bool {
        let mut flights = self.generation.flights();
        // The table holds one receiver itself.
        let abandoned = self.landed.receiver_count() <= 1;
        if abandoned {
            flights.remove(&self.credential);
        }
        abandoned
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut flights = self.generation.flights();
        // After an abandoned flight another one of the same credential may have started.
        let own = flights.get(&self.credential).is_some_and(|landing| landing.same_channel(&self.landed.subscribe()));
        if own {
            flights.remove(&self.credential);
        }
    }
}

impl From<failures::TooMany> for IdentifyError {
    fn from(failures::TooMany { retry_after }: failures::TooMany) -> Self {
        Self::TooManyFailures { retry_after }
    }
}

impl fmt::Debug for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logins").finish_non_exhaustive()
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation").field("users", &self.users.hashes.len()).finish_non_exhaustive()
    }
}
