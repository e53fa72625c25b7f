//! One credential on its way to a verdict.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::{Either, select};
use tokio::sync::watch;

use super::Password;
use super::line::{Ticket, Waiting};
use super::logins::{Generation, Logins};
use super::process_key::Fingerprint;
use super::slots::Slots;

/// What was found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    Wrong,
    TooLong,
    /// It was not looked at.
    Busy,
}

/// Where a verdict will be.
pub(super) type Landing = watch::Receiver<Option<Verdict>>;

/// All who show the same credential at the same time wait for one of these.
pub(super) struct Flight {
    pub(super) logins: Arc<Logins>,
    pub(super) generation: Arc<Generation>,
    pub(super) credential: Fingerprint,
    pub(super) ticket: Ticket,
    pub(super) landed: watch::Sender<Option<Verdict>>,
}

impl Flight {
    /// Finds out and tells.
    pub(super) async fn fly(self, slots: Arc<Slots>, turn: Waiting, user: String, password: Password) {
        let verdict = self.verdict(&slots, turn, &user, password).await;
        self.logins.landed(self.credential, &self.ticket, verdict);
        self.landed.send_replace(Some(verdict));
    }

    /// That a password is right is told at once, and all else when the turn is over: by then it was found out, if there was
    /// anything to be found out, and nobody can tell whether there was (ADR 13).
    async fn verdict(&self, slots: &Slots, turn: Waiting, user: &str, password: Password) -> Verdict {
        let (hash, turn) = (pin!(self.hash(slots, user, password)), pin!(self.turn(slots, turn)));
        match select(hash, turn).await {
            Either::Left((Verdict::Right, _)) => Verdict::Right,
            Either::Left((verdict, turn)) => turn.await.map_or(Verdict::Busy, |()| verdict),
            Either::Right((Some(()), hash)) => hash.await,
            Either::Right((None, _)) => Verdict::Busy,
        }
    }

    /// Waits for a turn, and then for as long as the costliest hash of any user takes; nothing, where there was no turn.
    async fn turn(&self, slots: &Slots, turn: Waiting) -> Option<()> {
        let seat = turn.seat(slots.wait_timeout).await?;
        if self.is_abandoned() {
            return None;
        }
        tokio::time::sleep(self.logins.times.of(self.generation.users.costliest)).await;
        drop(seat);
        Some(())
    }

    /// Hashes where the password can be right.
    async fn hash(&self, slots: &Slots, user: &str, password: Password) -> Verdict {
        if password.is_too_long() {
            return Verdict::TooLong;
        }
        let Some(hash) = self.generation.users.hashes.get(user).cloned() else { return Verdict::Wrong };
        let Some(waiting) = slots.hashes.enter(self.ticket) else { return Verdict::Busy };
        let Some(seat) = waiting.seat(slots.wait_timeout).await else { return Verdict::Busy };
        if self.is_abandoned() {
            return Verdict::Busy;
        }
        let logins = Arc::clone(&self.logins);
        let compared = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let equal = (logins.compare)(&password, &hash);
            logins.times.took(hash.cost(), began.elapsed());
            // The seat is free when the work is done, not when somebody has stopped waiting for it.
            drop(seat);
            if equal { Verdict::Right } else { Verdict::Wrong }
        });
        compared.await.unwrap_or(Verdict::Busy)
    }

    /// Whether nobody waits any more; if so, nobody can join any more.
    fn is_abandoned(&self) -> bool {
        let mut flights = self.generation.flights();
        // The table holds one receiver itself, while it holds this flight.
        let abandoned = self.landed.receiver_count() <= 1;
        if abandoned {
            self.forget(&mut flights);
        }
        abandoned
    }

    /// After an abandoned flight another one of the same credential may have started: that one stays.
    fn forget(&self, flights: &mut HashMap<Fingerprint, Landing>) {
        let is_own =
            flights.get(&self.credential).is_some_and(|landing| landing.same_channel(&self.landed.subscribe()));
        if is_own {
            flights.remove(&self.credential);
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.forget(&mut self.generation.flights());
    }
}
