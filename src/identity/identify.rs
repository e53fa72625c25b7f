//! The one who finds out who is asking.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::access::Principal;

use super::clock::Clock;
use super::htpasswd::Users;
use super::legacy_token::{self, LegacyUse};
use super::logins::{Attempt, Compare, Generation, Logins};
use super::slots::Slots;
use super::source::{OpenError, Source};
use super::state::State;
use super::token;
use super::{Credentials, Password, Settings, TokenKeys};

/// How often a password is compared anew because its user changed in the meantime.
const ROUNDS_MAX: usize = 3;

/// Finds out who is asking, and issues tokens to them.
#[derive(Debug)]
pub struct Identity {
    pub(super) logins: Arc<Logins>,
    pub(super) token_keys: ArcSwap<TokenKeys>,
    tokens: token::Memory,
    legacy_tokens: legacy_token::Memory,
    pub(super) clock: Clock,
    pub(super) state: ArcSwap<State>,
    /// Who holds it is the only one to replace the state.
    source: Mutex<Source>,
}

/// What a look at the file of users brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refreshed {
    /// Nothing new.
    Unchanged,
    /// Other users; what was known of their passwords is forgotten.
    Changed {
        /// How many there are now.
        users: usize,
    },
}

/// The caller is nobody we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentifyError {
    /// No such user, or not their password, or a scheme that is not taken. Which of them is not to be told.
    Wrong,
    /// A token that is not ours, was altered, is for somebody else, or of a user who is gone.
    InvalidToken,
    /// A token whose time is up: get another one.
    ExpiredToken,
    /// A password longer than [`PASSWORD_BYTES_MAX`](super::PASSWORD_BYTES_MAX); callers are told it is wrong.
    PasswordTooLong,
    /// Too many failures of this user from this address; the password was not looked at.
    TooManyFailures {
        /// When the next attempt is heard.
        retry_after: Duration,
    },
    /// Too many logins at once; the password was not looked at.
    Busy {
        /// When it is worth coming back.
        retry_after: Duration,
    },
}

impl Identity {
    /// Reads the users. Without a file there are none, and whoever stands on a line that is not right is none.
    ///
    /// Measures how long a hash takes, which blocks the thread for some tens of milliseconds.
    pub fn open(settings: Settings, token_keys: TokenKeys) -> Result<Self, OpenError> {
        let identity = Self::with(settings, token_keys, Clock::system(), Logins::bcrypt())?;
        identity.logins.times.calibrate();
        Ok(identity)
    }

    /// Like [`Identity::open`], with another clock and another way to compare passwords.
    pub(super) fn with(
        settings: Settings,
        token_keys: TokenKeys,
        clock: Clock,
        compare: Compare,
    ) -> Result<Self, OpenError> {
        let mut source = Source::new(settings.htpasswd.clone());
        let users = source.look(clock.now().wall)?.unwrap_or_else(Users::none);
        let logins = Arc::new(Logins::new(clock.clone(), compare)?);
        let slots = Arc::new(Slots::new(&settings));
        let generation = Arc::new(Generation::new(users));
        let state = ArcSwap::from_pointee(State::new(settings, slots, generation));
        let token_keys = ArcSwap::from_pointee(token_keys);
        let (tokens, legacy_tokens) = (token::Memory::new(), legacy_token::Memory::new());
        Ok(Self { logins, token_keys, tokens, legacy_tokens, clock, state, source: Mutex::new(source) })
    }

    /// Who shows these credentials, and this client certificate (its name, already verified), from this address.
    ///
    /// Must run on a tokio runtime with time enabled. A caller who goes away while it waits does no harm.
    pub async fn identify(
        &self,
        credentials: &Credentials,
        certificate: Option<&str>,
        client: IpAddr,
    ) -> Result<Principal, IdentifyError> {
        let principal = match credentials {
            Credentials::None => Principal::anonymous(),
            Credentials::Basic { user, password } => self.log_in(user, password, client).await?,
            Credentials::Bearer(token) => self.accept(token)?,
            Credentials::Token(_) | Credentials::Other(_) => return Err(IdentifyError::Wrong),
        };
        Ok(match certificate {
            Some(name) => principal.with_certificate(name),
            None => principal,
        })
    }

    async fn log_in(&self, user: &str, password: &Password, client: IpAddr) -> Result<Principal, IdentifyError> {
        for _ in 0..ROUNDS_MAX {
            let state = self.state.load_full();
            let outcome = self.logins.check(&state, Attempt { user, password, client }).await;
            let now = self.state.load();
            // The verdict holds for the users that there were when it was asked for.
            if now.generation.users.hashes.get(user) == state.generation.users.hashes.get(user) {
                return outcome.and_then(|()| now.principal(user).ok_or(IdentifyError::Wrong));
            }
        }
        Err(IdentifyError::Wrong)
    }

    fn accept(&self, token: &str) -> Result<Principal, IdentifyError> {
        let state = self.state.load();
        let (keys, now) = (self.token_keys.load(), self.clock.now().unix_seconds());
        let accepted = token::accept(token, &keys, &self.tokens, &state.settings.realm, now)?;
        let principal = match accepted.user() {
            Some(user) => {
                let hash = state.generation.users.hashes.get(user).filter(|hash| accepted.is_of(user, hash, &keys));
                hash.and_then(|_| state.principal(user)).ok_or(IdentifyError::InvalidToken)?
            }
            None => Principal::anonymous(),
        };
        Ok(principal.with_ceiling(accepted.ceiling))
    }

    /// Who shows this v1 token (what follows `Token` in `Authorization`), and for whom it was made.
    pub fn accept_legacy(
        &self,
        text: &str,
        certificate: Option<&str>,
    ) -> Result<(Principal, LegacyUse), IdentifyError> {
        let state = self.state.load();
        let hash_of = |user: &str| state.generation.users.hashes.get(user);
        let (keys, now) = (self.token_keys.load(), self.clock.now().unix_seconds());
        let accepted = legacy_token::accept(text, &state.settings.realm, &keys, &self.legacy_tokens, hash_of, now)?;
        let principal = match &accepted.user {
            Some(user) => state.principal(user).ok_or(IdentifyError::InvalidToken)?,
            None => Principal::anonymous(),
        };
        let principal = principal.with_token(vec![accepted.grant]);
        let principal = certificate.map_or(principal.clone(), |name| principal.with_certificate(name));
        Ok((principal, accepted.for_whom))
    }

    /// How many users there are.
    pub fn users(&self) -> usize {
        self.state.load().generation.users.hashes.len()
    }

    /// What to say of the lines of the file that are not taken.
    pub fn bad_lines(&self) -> Vec<String> {
        let state = self.state.load();
        state.generation.users.bad_lines.told(&state.settings.htpasswd)
    }

    /// Looks whether the file of users changed, and takes the new ones. To be called often: where nothing changed it
    /// costs one system call.
    ///
    /// A file that is gone means no users. A file that is unreadable is told once, and the old users go on.
    /// Reads the file, so it may block the thread for some milliseconds.
    pub fn refresh(&self) -> Result<Refreshed, OpenError> {
        let mut source = self.source();
        let Some(users) = source.look(self.clock.now().wall)? else { return Ok(Refreshed::Unchanged) };
        let before = self.state.load_full();
        if before.generation.users == users {
            return Ok(Refreshed::Unchanged);
        }
        let count = users.hashes.len();
        let generation = Arc::new(Generation::new(users));
        self.state.store(Arc::new(State::new(before.settings.clone(), Arc::clone(&before.slots), generation)));
        Ok(Refreshed::Changed { users: count })
    }

    /// Takes new settings and reads the users anew; or, where that fails, leaves everything as it was.
    ///
    /// Logins that wait keep their place in the old queue, so for a moment there can be twice as many.
    pub fn reload(&self, settings: Settings) -> Result<(), OpenError> {
        let mut source = self.source();
        let mut new_source = Source::new(settings.htpasswd.clone());
        let users = new_source.look(self.clock.now().wall)?.unwrap_or_else(Users::none);
        let before = self.state.load_full();
        let generation = match before.generation.users == users {
            true => Arc::clone(&before.generation),
            false => Arc::new(Generation::new(users)),
        };
        let slots = match before.slots.fit(&settings) {
            true => Arc::clone(&before.slots),
            false => Arc::new(Slots::new(&settings)),
        };
        self.state.store(Arc::new(State::new(settings, slots, generation)));
        *source = new_source;
        Ok(())
    }

    fn source(&self) -> MutexGuard<'_, Source> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for IdentifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong => f.write_str("wrong user or password; log in again"),
            Self::InvalidToken => f.write_str("the token is not valid here; get a new one"),
            Self::ExpiredToken => f.write_str("the token has expired; get a new one"),
            Self::PasswordTooLong => f.write_str("the password has more than 72 bytes; set a shorter one"),
            Self::TooManyFailures { retry_after } => {
                write!(f, "too many failed logins; try again in {} s", retry_after.as_secs().max(1))
            }
            Self::Busy { retry_after } => {
                write!(f, "too many logins at once; try again in {} s", retry_after.as_secs().max(1))
            }
        }
    }
}

impl std::error::Error for IdentifyError {}

#[cfg(test)]
mod tests;
