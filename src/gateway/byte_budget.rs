//! How many bytes may be in memory for clients at a time: bodies on their way out, or bodies that are read whole on their way in.
//!
//! Shared fairly: a client may hold at most as much as is still free for all (the dynamic threshold of Choudhury and Hahne, 1998).
//! One client alone may thus have half of the budget, two a third each, and whoever comes anew always finds something free. Who
//! finds too little waits, and is woken when its own client, or another, gives something back.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::net::client_network;

/// A budget of bytes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ByteBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    pressure: Pressure,
}

#[derive(Debug, Default)]
struct State {
    total: usize,
    used: usize,
    clients: HashMap<IpAddr, Client>,
    /// The clients of whom somebody waits; each stands here once, or more often where it waited before.
    turns: VecDeque<IpAddr>,
    waiting: usize,
    next_waiter: u64,
}

#[derive(Debug, Default)]
struct Client {
    used: usize,
    waiters: VecDeque<(u64, Waker)>,
}

/// Whether somebody waits for a budget: then clients that take nothing are waited for less long. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Pressure(Arc<AtomicUsize>);

impl Pressure {
    /// Whether somebody waits now.
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

/// The right to hold some bytes; dropping it gives them back.
#[derive(Debug)]
pub(super) struct Ticket {
    budget: ByteBudget,
    client: IpAddr,
    bytes: usize,
}

/// One who takes from a budget, for one client.
#[derive(Debug)]
pub(super) struct Taker {
    budget: ByteBudget,
    client: IpAddr,
    /// The place in the queue of its client, while it waits.
    waiter: Option<u64>,
}

impl ByteBudget {
    /// A budget of `total` bytes.
    pub fn new(total: u64) -> Self {
        let state = State { total: usize::try_from(total).unwrap_or(usize::MAX), ..State::default() };
        Self(Arc::new(Shared { state: Mutex::new(state), pressure: Pressure::default() }))
    }

    /// From now on there are `total` bytes. Who holds more than it may have now keeps it.
    pub fn resize(&self, total: u64) {
        self.with(|state| {
            state.total = usize::try_from(total).unwrap_or(usize::MAX);
            ((), None)
        });
    }

    /// Whether somebody waits.
    pub fn pressure(&self) -> Pressure {
        self.0.pressure.clone()
    }

    /// How many bytes are held now.
    pub fn used(&self) -> usize {
        self.with(|state| (state.used, None))
    }

    /// Who takes for `client`: one IPv4 address, or one IPv6 /64.
    pub(super) fn taker(&self, client: IpAddr) -> Taker {
        Taker { budget: self.clone(), client: client_network(client), waiter: None }
    }

    /// Acts on the state, and wakes whom that leaves to try next.
    fn with<T>(&self, act: impl FnOnce(&mut State) -> (T, Option<Waker>)) -> T {
        let (outcome, woken) = {
            let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
            let acted = act(&mut state);
            self.0.pressure.0.store(state.waiting, Ordering::Relaxed);
            acted
        };
        woken.into_iter().for_each(Waker::wake);
        outcome
    }

    fn give_back(&self, client: IpAddr, bytes: usize) {
        self.with(|state| {
            state.used -= bytes;
            if let Some(held) = state.clients.get_mut(&client) {
                held.used -= bytes;
            }
            let woken = state.next(client);
            state.forget(client);
            ((), woken)
        });
    }
}

impl State {
    /// What `client` may take more.
    fn allowed(&self, client: IpAddr) -> usize {
        let held = self.clients.get(&client).map_or(0, |client| client.used);
        self.total.saturating_sub(self.used).saturating_sub(held)
    }

    fn take(&mut self, client: IpAddr, wanted: usize, least: usize) -> Option<usize> {
        let bytes = wanted.min(self.allowed(client));
        if bytes < least.min(wanted) {
            return None;
        }
        self.used += bytes;
        self.clients.entry(client).or_default().used += bytes;
        Some(bytes)
    }

    /// Who is to try next, now that `client` gave something back: one of its own, or one of the client whose turn it is.
    fn next(&mut self, client: IpAddr) -> Option<Waker> {
        let own = self.clients.get_mut(&client).and_then(|client| client.waiters.pop_front());
        let next = own.or_else(|| self.next_in_turn());
        self.waiting -= usize::from(next.is_some());
        next.map(|(_, waker)| waker)
    }

    fn next_in_turn(&mut self) -> Option<(u64, Waker)> {
        while let Some(turn) = self.turns.pop_front() {
            let Some(waiting) = self.clients.get_mut(&turn) else { continue };
            let Some(next) = waiting.waiters.pop_front() else { continue };
            if !waiting.waiters.is_empty() {
                self.turns.push_back(turn);
            }
            return Some(next);
        }
        None
    }

    fn forget(&mut self, client: IpAddr) {
        if self.clients.get(&client).is_some_and(|client| client.used == 0 && client.waiters.is_empty()) {
            self.clients.remove(&client);
        }
    }
}

impl Taker {
    /// Takes up to `wanted` bytes if at least `least` of them are to be had now.
    pub(super) fn try_take(&self, wanted: usize, least: usize) -> Option<Ticket> {
        let client = self.client;
        let bytes = self.budget.with(|state| (state.take(client, wanted, least), None))?;
        Some(Ticket { budget: self.budget.clone(), client, bytes })
    }

    /// Another for the same client.
    pub(super) fn again(&self) -> Self {
        Self { budget: self.budget.clone(), client: self.client, waiter: None }
    }

    /// Takes up to `wanted` bytes, and at least `least` of them; waits where those are not to be had.
    pub(super) fn poll_take(&mut self, context: &mut Context<'_>, wanted: usize, least: usize) -> Poll<Ticket> {
        let (waited, client) = (self.waiter.take(), self.client);
        let taken = self.budget.with(|state| {
            waited.iter().for_each(|id| {
                state.leave(client, *id);
            });
            let Some(bytes) = state.take(client, wanted, least) else {
                return (Err(state.queue(client, context.waker().clone())), None);
            };
            // There may be enough for more than one of those who wait.
            let more = waited.is_some() && state.allowed(client) >= least;
            (Ok(bytes), if more { state.next(client) } else { None })
        });
        match taken {
            Ok(bytes) => Poll::Ready(Ticket { budget: self.budget.clone(), client, bytes }),
            Err(id) => {
                self.waiter = Some(id);
                Poll::Pending
            }
        }
    }
}

impl State {
    fn queue(&mut self, client: IpAddr, waker: Waker) -> u64 {
        let id = self.next_waiter;
        self.next_waiter += 1;
        let waiting = self.clients.entry(client).or_default();
        if waiting.waiters.is_empty() {
            self.turns.push_back(client);
        }
        waiting.waiters.push_back((id, waker));
        self.waiting += 1;
        id
    }

    /// Takes a waiter out of its queue; false: it was woken already.
    fn leave(&mut self, client: IpAddr, id: u64) -> bool {
        let Some(waiting) = self.clients.get_mut(&client) else { return false };
        let before = waiting.waiters.len();
        waiting.waiters.retain(|(waiter, _)| *waiter != id);
        let left = waiting.waiters.len() < before;
        self.waiting -= usize::from(left);
        left
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        let Some(id) = self.waiter.take() else { return };
        self.budget.with(|state| {
            // Who was woken and does not take any more leaves its turn to another.
            let woken = if state.leave(self.client, id) { None } else { state.next(self.client) };
            state.forget(self.client);
            ((), woken)
        });
    }
}

impl Ticket {
    /// How many bytes that is.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes over what `other` holds, for the same client from the same budget.
    pub(super) fn join(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Gives back what is not needed of it.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let more = self.bytes.saturating_sub(bytes);
        if more > 0 {
            self.bytes -= more;
            self.budget.give_back(self.client, more);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.budget.give_back(self.client, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::task::noop_waker;
    use proptest::prelude::*;

    const FIRST: &str = "192.0.2.1";

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn take(taker: &mut Taker, wanted: usize, least: usize) -> Option<Ticket> {
        match taker.poll_take(&mut Context::from_waker(&noop_waker()), wanted, least) {
            Poll::Ready(ticket) => Some(ticket),
            Poll::Pending => None,
        }
    }

    #[test]
    fn one_client_has_half_and_who_comes_anew_finds_something() {
        let budget = ByteBudget::new(1_000);
        let (mut first, mut second) = (budget.taker(address(1)), budget.taker(address(2)));
        let half = take(&mut first, 1_000, 1).unwrap();
        assert_eq!(half.bytes, 1_000, "what is free for all is what one may take at first");
        drop(half);
        let held: Vec<Ticket> = std::iter::from_fn(|| take(&mut first, 100, 1)).collect();
        assert_eq!(budget.used(), 500);
        assert_eq!(take(&mut second, 1_000, 1).unwrap().bytes, 500);
        drop((held, first, second));
        assert_eq!(budget.used(), 0);
        assert!(budget.with(|state| (state.clients.is_empty(), None)), "nobody is remembered");
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let budget = ByteBudget::new(1_000);
        let mut all = ["2001:db8::1", "2001:db8::2"].map(|address| budget.taker(address.parse().unwrap()));
        let _held: Vec<Ticket> = std::iter::from_fn(|| take(&mut all[0], 100, 1)).collect();
        assert!(take(&mut all[1], 100, 1).is_none());
        assert!(take(&mut budget.taker(FIRST.parse().unwrap()), 100, 1).is_some());
    }

    #[tokio::test]
    async fn who_waits_is_woken_when_something_comes_back() {
        let budget = ByteBudget::new(1_000);
        let mut first = budget.taker(address(1));
        let mut held: Vec<Ticket> = std::iter::from_fn(|| take(&mut first, 100, 100)).collect();
        let pressure = budget.pressure();
        drop(first);
        assert!(!pressure.is_on());
        let mut waiting: Vec<_> = (0..3)
            .map(|_| {
                let mut taker = budget.taker(address(1));
                tokio::spawn(async move { std::future::poll_fn(|context| taker.poll_take(context, 100, 100)).await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(pressure.is_on());
        // One who waited leaves; its turn goes to another.
        waiting.remove(0).abort();
        held.clear();
        for waiter in waiting {
            assert_eq!(waiter.await.unwrap().bytes, 100);
        }
        assert!(!pressure.is_on());
    }

    proptest! {
        /// Whatever is taken, given back and left: no more is held than there is, and all of it comes back.
        #[test]
        fn no_more_is_held_than_there_is(steps in prop::collection::vec((0_u8..5, 0_u8..4, 1_usize..400), 1..200)) {
            let budget = ByteBudget::new(1_000);
            let mut takers: Vec<Taker> = (0..4).map(|client| budget.taker(address(client))).collect();
            let mut held = vec![];
            for (step, client, bytes) in steps {
                match step {
                    0 | 1 => held.extend(take(&mut takers[usize::from(client)], bytes, bytes.min(50))),
                    2 => drop(held.pop()),
                    3 => takers[usize::from(client)] = budget.taker(address(client)),
                    _ => held.iter_mut().for_each(|ticket: &mut Ticket| ticket.shrink(ticket.bytes / 2)),
                }
                prop_assert!(budget.used() <= 1_000);
                prop_assert_eq!(budget.used(), held.iter().map(|ticket| ticket.bytes).sum::<usize>());
            }
            drop((held, takers));
            prop_assert_eq!(budget.used(), 0);
            prop_assert!(!budget.pressure().is_on());
            prop_assert!(budget.with(|state| (state.clients.is_empty(), None)));
        }
    }
}
