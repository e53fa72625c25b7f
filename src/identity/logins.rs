//! Whether a user's password is the right one: at the price of one bcrypt hash for each new credential that can be right.
//!
//! A right password is told as soon as its hash says so. All else is told when the login's turn is over, which says nothing
//! of who is a user (ADR 13).

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::sync::watch;

use super::clock::Clock;
use super::failures::{self, Failures};
use super::flight::{Flight, Landing, Verdict};
use super::hash_times::HashTimes;
use super::htpasswd::{PasswordHash, Users};
use super::line::{Rank, Ticket};
use super::process_key::{Fingerprint, ProcessKey};
use super::state::State;
use super::{IdentifyError, NoRandomness, Password};

/// How many verified credentials are remembered.
const VERIFIED_MAX: u64 = 65_536;

/// How many pairs of user and address are remembered that logged in; the ones that did so longest ago are forgotten first.
const FAMILIAR_MAX: u64 = 65_536;

/// Compares a password with a hash, at the hash's cost.
pub(super) type Compare = Arc<dyn Fn(&Password, &PasswordHash) -> bool + Send + Sync>;

/// Checks passwords.
pub(super) struct Logins {
    key: ProcessKey,
    /// By user and address: too many are not heard.
    failures: Failures,
    /// By address: many are heard later than others.
    attempts: Failures,
    clock: Clock,
    pub(super) compare: Compare,
    pub(super) times: HashTimes,
    /// When a credential was last verified. An entry that is too old still says that this is no guess.
    verified: Cache<Fingerprint, Instant>,
    /// The pairs of user and address whose last login was right.
    familiar: Cache<Fingerprint, ()>,
}

/// The users as they were read at one time. A change of the file makes a new one; what was verified is remembered together with
/// the hash that it was verified by, so it goes on for those whose line did not change, and for nobody else.
pub(super) struct Generation {
    pub(super) users: Users,
    /// The credentials that are being looked at, and where the verdict will be.
    flights: Mutex<HashMap<Fingerprint, Landing>>,
}

/// Who wants to be let in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) user: &'a str,
    pub(super) password: &'a Password,
    pub(super) client: IpAddr,
}

impl Logins {
    /// With nothing counted and nothing known.
    pub(super) fn new(clock: Clock, compare: Compare) -> Result<Self, NoRandomness> {
        // By default moka would refuse new pairs where old ones are asked for more often.
        let familiar = Cache::builder().max_capacity(FAMILIAR_MAX).eviction_policy(EvictionPolicy::lru()).build();
        Ok(Self {
            key: ProcessKey::random()?,
            failures: Failures::new(),
            attempts: Failures::new(),
            clock,
            compare,
            times: HashTimes::default(),
            verified: Cache::new(VERIFIED_MAX),
            familiar,
        })
    }

    /// What compares passwords outside of tests. bcrypt reads 72 bytes; that a password is longer is found by its length.
    pub(super) fn bcrypt() -> Compare {
        Arc::new(|password, hash| bcrypt::verify(password.expose(), hash.as_str()).unwrap_or(false))
    }

    /// Whether the password is that of the user in the generation of `state`.
    pub(super) async fn check(self: &Arc<Self>, state: &State, attempt: Attempt<'_>) -> Result<(), IdentifyError> {
        let (user, password) = (attempt.user.as_bytes(), attempt.password.expose().as_bytes());
        let hash = state.generation.users.hashes.get(attempt.user);
        let line = hash.map_or("", PasswordHash::as_str).as_bytes();
        let credential = self.key.fingerprint(&[b"credential", user, password, line]);
        let verified_at = self.verified.get(&credential);
        let age = verified_at.map(|at| self.clock.now().instant.saturating_duration_since(at));
        if age.is_some_and(|age| age < state.settings.credential_lifetime) {
            return Ok(());
        }
        let mut landing = self.join(state, attempt, credential, age.is_some())?;
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
        let now = self.clock.now().instant;
        // No user has an empty name.
        self.failures.charge(&failures::pair(&self.key, client, ""), max, now)?;
        self.attempts.charge(&failures::address(&self.key, client), u32::MAX, now)
    }

    /// Where this user stands in a line, at this address.
    pub(super) fn ticket(&self, client: IpAddr, user: &str) -> Ticket {
        let (pair, address) = (failures::pair(&self.key, client, user), failures::address(&self.key, client));
        let rank = match self.familiar.contains_key(&pair) {
            true => Rank::KNOWN,
            false => Rank::after(self.attempts.count(&address, self.clock.now().instant)),
        };
        Ticket { rank, address, pair }
    }

    /// Joins the flight of this credential, or starts it. Only who starts it is charged: the same guess made twice at once
    /// is one guess, and a hundred runners that start with one credential are no attack.
    ///
    /// What was right once is no guess: others who fail from the same address must neither lock it out nor hold it up.
    fn join(
        self: &Arc<Self>,
        state: &State,
        attempt: Attempt<'_>,
        credential: Fingerprint,
        was_right: bool,
    ) -> Result<Landing, IdentifyError> {
        let failures_max = if was_right { u32::MAX } else { state.settings.login_failures };
        let mut ticket = self.ticket(attempt.client, attempt.user);
        if was_right {
            ticket.rank = Rank::KNOWN;
        }
        let now = self.clock.now().instant;
        let mut flights = state.generation.flights();
        if let Some(landing) = flights.get(&credential) {
            self.failures.check(&ticket.pair, failures_max, now)?;
            return Ok(landing.clone());
        }
        self.failures.charge(&ticket.pair, failures_max, now)?;
        let Some(turn) = state.slots.turns.enter(ticket) else {
            self.failures.refund(&ticket.pair);
            return Err(IdentifyError::Busy { retry_after: state.slots.retry_after() });
        };
        // An address may ask as often as it likes, only later than others.
        let _ = self.attempts.charge(&ticket.address, u32::MAX, now);
        let (landed, landing) = watch::channel(None);
        flights.insert(credential, landing.clone());
        // A runtime that is shutting down drops the task at once, and a dropped flight takes this lock.
        drop(flights);
        let generation = Arc::clone(&state.generation);
        let flight = Flight { logins: Arc::clone(self), generation, credential, ticket, landed };
        // In a task of its own: one caller who leaves must not end it for the others.
        tokio::spawn(flight.fly(Arc::clone(&state.slots), turn, attempt.user.to_owned(), attempt.password.clone()));
        Ok(landing)
    }

    /// Takes note of how a flight ended.
    pub(super) fn landed(&self, credential: Fingerprint, ticket: &Ticket, verdict: Verdict) {
        match verdict {
            Verdict::Right => {
                self.verified.insert(credential, self.clock.now().instant);
                self.familiar.insert(ticket.pair, ());
                self.failures.refund(&ticket.pair);
                self.attempts.refund(&ticket.address);
            }
            Verdict::Wrong | Verdict::TooLong => self.familiar.invalidate(&ticket.pair),
            // It was no failure, but it was asked for: the next time it goes behind those who did not ask yet.
            Verdict::Busy => self.failures.refund(&ticket.pair),
        }
    }
}

impl Generation {
    /// Of these users, while nobody logs in.
    pub(super) fn new(users: Users) -> Self {
        Self { users, flights: Mutex::default() }
    }

    /// The credentials that are being looked at.
    pub(super) fn flights(&self) -> MutexGuard<'_, HashMap<Fingerprint, Landing>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
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
