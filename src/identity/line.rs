//! A line before something of which there is little, fair by address: who asked for least of late is called first, and
//! addresses take turns.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::process_key::Fingerprint;

/// One of so many calls goes to whoever has waited longest, whatever their rank: nobody is put off for ever.
const LONGEST_WAIT_EVERY: u64 = 8;

/// Before whom somebody stands: lower ranks are called first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Rank(u32);

/// Who wants a seat.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    pub(super) rank: Rank,
    /// The address, or what stands for it.
    pub(super) address: Fingerprint,
    /// The user and the address: only one of these has a seat at a time.
    pub(super) pair: Fingerprint,
}

/// The line, and the seats that it leads to.
#[derive(Debug)]
pub(super) struct Line {
    seats: usize,
    waiters_max: usize,
    inner: Mutex<Inner>,
}

/// A place in the line; dropping it leaves the line.
#[derive(Debug)]
pub(super) struct Waiting {
    line: Arc<Line>,
    arrival: u64,
    called: oneshot::Receiver<Seat>,
}

/// A seat; dropping it frees it.
#[derive(Debug)]
pub(super) struct Seat {
    line: Arc<Line>,
    pair: Fingerprint,
}

/// In what order waiters are called, and the last of them is the first to be sent away. The round is how many waiters of
/// the same address stand before this one, counted from the round that its rank is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    rank: Rank,
    round: u64,
    arrival: u64,
}

#[derive(Debug)]
struct Waiter {
    place: Place,
    ticket: Ticket,
    call: oneshot::Sender<Seat>,
}

/// The waiters of one address in one rank.
#[derive(Debug)]
struct Group {
    waiting: usize,
    last_round: u64,
}

/// Waiters are at most as many as the line allows; all else is at most as much as waiters, ranks or seats.
#[derive(Debug, Default)]
struct Inner {
    seated: Vec<Fingerprint>,
    order: BTreeSet<Place>,
    waiters: BTreeMap<u64, Waiter>,
    groups: HashMap<(Rank, Fingerprint), Group>,
    rounds: HashMap<Rank, u64>,
    arrivals: u64,
    calls: u64,
}

impl Rank {
    /// Of those who are no strangers.
    pub(super) const KNOWN: Self = Self(0);

    /// Of an address that asked so often without success: twice as often is one rank lower.
    pub(super) const fn after(failures: u32) -> Self {
        Self(1 + u32::BITS - failures.leading_zeros())
    }
}

impl Line {
    /// With all seats free, of which there is at least one.
    pub(super) fn new(seats: usize, waiters_max: usize) -> Arc<Self> {
        Arc::new(Self { seats: seats.max(1), waiters_max, inner: Mutex::default() })
    }

    /// A place in the line; nothing where it is full of those who come first. Where it is full the last one is sent away.
    pub(super) fn enter(self: &Arc<Self>, ticket: Ticket) -> Option<Waiting> {
        let (call, called) = oneshot::channel();
        let (arrival, sent_away) = self.inner().enter(ticket, call, self.waiters_max)?;
        drop(sent_away);
        self.call();
        Some(Waiting { line: Arc::clone(self), arrival, called })
    }

    /// Gives the seats that are free to those who come first.
    fn call(self: &Arc<Self>) {
        loop {
            let Some(waiter) = self.inner().next(self.seats) else { return };
            let seat = Seat { line: Arc::clone(self), pair: waiter.ticket.pair };
            // Who has just left drops the seat, which calls the next one; that takes the lock, so it is not held here.
            drop(waiter.call.send(seat));
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The number of the arrival, and who was sent away for it.
    fn enter(
        &mut self,
        ticket: Ticket,
        call: oneshot::Sender<Seat>,
        waiters_max: usize,
    ) -> Option<(u64, Option<Waiter>)> {
        let rank = ticket.rank;
        let now = self.rounds.get(&rank).copied().unwrap_or(0);
        let round = self.groups.get(&(rank, ticket.address)).map_or(now, |group| now.max(group.last_round + 1));
        let place = Place { rank, round, arrival: self.arrivals };
        let mut sent_away = None;
        if self.waiters.len() >= waiters_max {
            let last = *self.order.last().filter(|last| **last > place)?;
            sent_away = self.remove(last.arrival);
        }
        self.arrivals += 1;
        let group = self.groups.entry((rank, ticket.address)).or_insert(Group { waiting: 0, last_round: round });
        group.waiting += 1;
        group.last_round = round;
        self.order.insert(place);
        self.waiters.insert(place.arrival, Waiter { place, ticket, call });
        Some((place.arrival, sent_away))
    }

    /// Whose turn it is; nobody, while no seat is free for anybody who waits.
    fn next(&mut self, seats: usize) -> Option<Waiter> {
        if self.seated.len() >= seats {
            return None;
        }
        let may_sit = |waiter: &&Waiter| !self.seated.contains(&waiter.ticket.pair);
        let place = if (self.calls + 1).is_multiple_of(LONGEST_WAIT_EVERY) {
            self.waiters.values().find(may_sit)?.place
        } else {
            let place = self.order.iter().filter_map(|place| self.waiters.get(&place.arrival)).find(may_sit)?.place;
            let now = self.rounds.entry(place.rank).or_insert(0);
            *now = place.round.max(*now);
            place
        };
        self.calls += 1;
        let waiter = self.remove(place.arrival)?;
        self.seated.push(waiter.ticket.pair);
        Some(waiter)
    }

    fn remove(&mut self, arrival: u64) -> Option<Waiter> {
        let waiter = self.waiters.remove(&arrival)?;
        self.order.remove(&waiter.place);
        let key = (waiter.place.rank, waiter.ticket.address);
        if let Some(group) = self.groups.get_mut(&key) {
            group.waiting -= 1;
            if group.waiting == 0 {
                self.groups.remove(&key);
            }
        }
        Some(waiter)
    }
}

impl Waiting {
    /// Waits for the seat; nothing, where that takes too long or others have to go first.
    pub(super) async fn seat(mut self, timeout: Duration) -> Option<Seat> {
        tokio::time::timeout(timeout, &mut self.called).await.ok()?.ok()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let left = self.line.inner().remove(self.arrival);
        drop(left);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut inner = self.line.inner();
        if let Some(index) = inner.seated.iter().position(|pair| *pair == self.pair) {
            inner.seated.swap_remove(index);
        }
        drop(inner);
        self.line.call();
    }
}

#[cfg(test)]
mod tests;
