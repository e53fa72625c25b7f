//! Whose request is begun next, when more come at once than can be worked on: clients take turns, so that who sends thousands
//! keeps waiting those thousands and nobody else.
//!
//! A request has a seat while it finds out what to answer, and at most for [`SEAT_TIME`]: one that takes longer waits for
//! somebody else, an upstream or its client, and needs none for that.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::net::client_network;

/// How many requests are worked on at a time.
const SEATS: usize = 16;
/// How long a request counts as being worked on.
const SEAT_TIME: Duration = Duration::from_millis(10);

/// The seats, and those who wait for one. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Turns(Arc<Mutex<State>>);

/// Numbers count arrivals; the lower ones came first.
#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Oldest first.
    seated: VecDeque<(u64, Instant)>,
    waiting: HashMap<IpAddr, BTreeMap<u64, oneshot::Sender<Seat>>>,
    /// The clients of `waiting`, each once: whose turn is next.
    clients: VecDeque<IpAddr>,
    /// Whether a task looks after seats whose time is over.
    watched: bool,
}

/// A seat; dropping it leaves it to the next one.
#[derive(Debug)]
pub(super) struct Seat {
    turns: Turns,
    number: u64,
}

/// A place among those who wait; dropping it leaves them.
#[derive(Debug)]
struct Waiting {
    turns: Turns,
    client: IpAddr,
    number: u64,
    called: oneshot::Receiver<Seat>,
}

impl Turns {
    /// A seat for a request of `client`, when it is its turn.
    pub(super) async fn seat(&self, client: IpAddr) -> Seat {
        let client = client_network(client);
        let mut waiting = match self.try_seat(client) {
            Ok(seat) => return seat,
            Err(waiting) => waiting,
        };
        match (&mut waiting.called).await {
            Ok(seat) => seat,
            // Not while anybody waits; a request is worth more than the order.
            Err(_) => Seat { turns: self.clone(), number: waiting.number },
        }
    }

    fn try_seat(&self, client: IpAddr) -> Result<Seat, Waiting> {
        let mut watch = false;
        let taken = self.with(|state| {
            let number = state.next;
            state.next += 1;
            state.leave_late(Instant::now());
            if state.clients.is_empty() && state.seated.len() < SEATS {
                state.seated.push_back((number, Instant::now()));
                return Ok(Seat { turns: self.clone(), number });
            }
            watch = !std::mem::replace(&mut state.watched, true);
            Err(Waiting { turns: self.clone(), client, number, called: state.wait(client, number) })
        });
        if watch {
            tokio::spawn(self.clone().watch());
        }
        taken
    }

    /// Calls the next ones when seats are left late, while anybody waits.
    async fn watch(self) {
        loop {
            self.call();
            let again = self.with(|state| {
                state.watched = !state.clients.is_empty();
                state.watched.then(|| state.seated.front().map_or_else(Instant::now, |(_, since)| *since + SEAT_TIME))
            });
            let Some(again) = again else { return };
            tokio::time::sleep_until(again).await;
        }
    }

    /// Gives the seats that are free to those whose turn it is.
    fn call(&self) {
        while let Some((number, call)) = self.with(State::next) {
            // Who has just left drops the seat, which takes the lock: so it is not held here.
            drop(call.send(Seat { turns: self.clone(), number }));
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn leave_late(&mut self, now: Instant) {
        while self.seated.front().is_some_and(|(_, since)| *since + SEAT_TIME <= now) {
            self.seated.pop_front();
        }
    }

    fn wait(&mut self, client: IpAddr, number: u64) -> oneshot::Receiver<Seat> {
        let (call, called) = oneshot::channel();
        let waiting = self.waiting.entry(client).or_default();
        if waiting.is_empty() {
            self.clients.push_back(client);
        }
        waiting.insert(number, call);
        called
    }

    /// Who gets a seat now, if one is free.
    fn next(&mut self) -> Option<(u64, oneshot::Sender<Seat>)> {
        let now = Instant::now();
        self.leave_late(now);
        if self.seated.len() >= SEATS {
            return None;
        }
        let client = self.clients.pop_front()?;
        let waiting = self.waiting.get_mut(&client)?;
        let (number, call) = waiting.pop_first()?;
        match waiting.is_empty() {
            true => drop(self.waiting.remove(&client)),
            false => self.clients.push_back(client),
        }
        self.seated.push_back((number, now));
        Some((number, call))
    }

    fn leave(&mut self, client: IpAddr, number: u64) {
        let Some(waiting) = self.waiting.get_mut(&client) else { return };
        if waiting.remove(&number).is_some() && waiting.is_empty() {
            self.waiting.remove(&client);
            self.clients.retain(|other| *other != client);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.turns.with(|state| state.leave(self.client, self.number));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let others = self.turns.with(|state| {
            if let Some(index) = state.seated.iter().position(|(number, _)| *number == self.number) {
                state.seated.remove(index);
            }
            !state.clients.is_empty()
        });
        if others {
            self.turns.call();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CROWD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    /// A task that has a seat for `client` until the sender is dropped, and says its number when it gets it.
    fn request(turns: &Turns, client: IpAddr, number: u32, log: &Arc<Mutex<Vec<u32>>>) -> oneshot::Sender<()> {
        let (done, finished) = oneshot::channel::<()>();
        let (turns, log) = (turns.clone(), Arc::clone(log));
        tokio::spawn(async move {
            let _seat = turns.seat(client).await;
            log.lock().unwrap().push(number);
            let _ = finished.await;
        });
        done
    }

    async fn settled() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_beside_a_crowd_is_next_but_one() {
        let (turns, log) = (Turns::default(), Arc::default());
        let mut crowd: VecDeque<_> = (0..200).map(|number| request(&turns, CROWD, number, &log)).collect();
        settled().await;
        assert_eq!(log.lock().unwrap().len(), SEATS);
        let other = request(&turns, OTHER, 1_000, &log);
        settled().await;
        crowd.drain(..2);
        settled().await;
        assert_eq!(log.lock().unwrap()[SEATS..], [SEATS as u32, 1_000]);
        drop((crowd, other));
        settled().await;
        assert_eq!(log.lock().unwrap().len(), 201);
        assert!(turns.with(|state| state.seated.is_empty() && state.waiting.is_empty() && state.clients.is_empty()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_somebody_else_keeps_no_seat() {
        let (turns, log) = (Turns::default(), Arc::default());
        let slow: Vec<_> = (0..1_000).map(|number| request(&turns, CROWD, number, &log)).collect();
        settled().await;
        assert_eq!(log.lock().unwrap().len(), SEATS);
        tokio::time::sleep(SEAT_TIME * (1_000 / SEATS as u32 + 1)).await;
        assert_eq!(log.lock().unwrap().len(), 1_000);
        assert!(!turns.with(|state| state.watched));
        drop(slow);
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_before_its_turn_is_passed_over() {
        let (turns, log) = (Turns::default(), Arc::default());
        let crowd: Vec<_> = (0..SEATS as u32).map(|number| request(&turns, CROWD, number, &log)).collect();
        settled().await;
        let left: Vec<_> = (0..50).map(|_| Box::pin(turns.seat(CROWD))).collect();
        for mut future in left {
            assert!(tokio::time::timeout(Duration::ZERO, &mut future).await.is_err());
        }
        let other = request(&turns, OTHER, 1_000, &log);
        settled().await;
        assert_eq!(turns.with(|state| (state.waiting.len(), state.clients.len())), (1, 1));
        drop(crowd);
        settled().await;
        assert_eq!(log.lock().unwrap().last(), Some(&1_000));
        drop(other);
    }
}
