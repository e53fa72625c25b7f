//! How fast a connection may send what is cheap to send and must be looked at all the same: frames of HTTP/2 that carry
//! nothing, chunks of a byte, requests by the hundred without waiting for an answer. Who sends much of it is read last, so
//! that nobody else waits for that.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::net::client_network;

use super::socket::Sleeper;

/// How many such pieces a connection may send at once.
pub(super) const BURST: u64 = 4_096;
/// How many it may send each second, for ever.
const PER_SECOND: u64 = 512;
/// So many more than it earned are read as fast as they come. A connection that sends more is loud, and is read last: all of
/// those together at so many pieces a second.
pub(super) const UNPACED: u64 = 256;
pub(super) const PACED_PER_SECOND: u64 = 8_192;
/// Nobody waits longer for that: those who left before their turn have theirs for ever, and must not add up.
const TURN_MAX: Duration = Duration::from_secs(5);
/// New connections of loud clients are set up one after the other: so many a second of all of them together.
const LOUD_OPENINGS_PER_SECOND: u32 = 256;
/// For so long a client's new connections begin as loud as its last one was.
const LOUD_TIME: Duration = Duration::from_secs(10);
/// How many clients are known to be loud; of more the first to be forgotten goes.
const LOUD_MAX: usize = 1_024;

/// When those who flood are read again, in turn. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Turnstile(Arc<Mutex<Queue>>);

#[derive(Debug, Default)]
struct Queue {
    /// The next turn to be read.
    reading: Option<Instant>,
    /// The next turn to be set up.
    opening: Option<Instant>,
    /// Who was loud, and until when that is remembered.
    loud: HashMap<IpAddr, Instant>,
}

impl Queue {
    fn remember(&mut self, client: IpAddr, now: Instant) {
        if self.loud.len() >= LOUD_MAX && !self.loud.contains_key(&client) {
            self.loud.retain(|_, until| *until > now);
            let first = self.loud.iter().min_by_key(|(_, until)| **until).map(|(client, _)| *client);
            if let Some(first) = first.filter(|_| self.loud.len() >= LOUD_MAX) {
                self.loud.remove(&first);
            }
        }
        self.loud.insert(client, now + LOUD_TIME);
    }
}

impl Turnstile {
    /// Where the connections of the client at `address` come in.
    pub(super) fn entrance(&self, address: IpAddr) -> Entrance {
        Entrance { turnstile: self.clone(), client: client_network(address) }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The turn after `next`, which takes as long as `share`.
fn turn(next: &mut Option<Instant>, share: Duration) -> Instant {
    let now = Instant::now();
    let turn = next.map_or(now, |next| next.max(now)) + share;
    *next.insert(turn.min(now + TURN_MAX))
}

/// One client's way through the turnstile.
#[derive(Debug, Clone)]
pub(super) struct Entrance {
    turnstile: Turnstile,
    client: IpAddr,
}

impl Entrance {
    /// The client is loud from now on.
    pub(super) fn mark_loud(&self) {
        self.turnstile.queue().remember(self.client, Instant::now());
    }

    /// When a new connection of the client may begin; `None`: at once, as the client is not loud.
    pub(super) fn opening(&self) -> Option<Instant> {
        self.loud_until()?;
        let share = Duration::from_secs(1) / LOUD_OPENINGS_PER_SECOND;
        Some(turn(&mut self.turnstile.queue().opening, share))
    }

    /// When whoever sent so many may go on.
    fn pass(&self, pieces: u64) -> Instant {
        let share = Duration::from_secs(pieces) / PACED_PER_SECOND as u32;
        turn(&mut self.turnstile.queue().reading, share)
    }

    /// Until when the client is loud, if it is.
    fn loud_until(&self) -> Option<Instant> {
        self.turnstile.queue().loud.get(&self.client).copied().filter(|until| *until > Instant::now())
    }
}

/// What one connection may send now.
#[derive(Debug)]
pub(super) struct Pace {
    left: u64,
    /// What others must not wait for, since it last waited for them.
    owed: u64,
    /// For so many bytes that go either way it may send one more.
    bytes_per_piece: u64,
    /// Bytes that went either way, and do not make up a piece yet.
    bytes: u64,
    refilled: Instant,
    /// Until then it is loud because another connection of the client was.
    inherited: Option<Instant>,
    entrance: Entrance,
    turn: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// Of a connection that may send one piece for so many bytes that go either way.
    pub(super) fn new(bytes_per_piece: u64, entrance: Entrance) -> Self {
        let inherited = entrance.loud_until();
        let refilled = Instant::now();
        Self { left: BURST, owed: 0, bytes_per_piece, bytes: 0, refilled, inherited, entrance, turn: None }
    }

    /// Ready when `io` may be read; until then it sleeps.
    pub(super) fn poll_turn(&mut self, io: Pin<&mut impl Sleeper>, context: &mut Context<'_>) -> Poll<()> {
        let mut waits_already = self.turn.is_some();
        if let owed @ 1.. = std::mem::take(&mut self.owed) {
            // What it inherited it does not hand on: a busy fleet would be loud for ever.
            if self.is_beyond() {
                self.entrance.mark_loud();
            }
            self.turn = Some(Box::pin(sleep_until(self.entrance.pass(owed))));
            waits_already = false;
        }
        if let Some(turn) = &mut self.turn {
            let turn = turn.as_mut().poll(context);
            if turn.is_pending() && !waits_already {
                io.sleep();
            }
            ready!(turn);
            self.turn = None;
        }
        Poll::Ready(())
    }

    /// So many pieces came; false: that is more than it may send.
    pub(super) fn spend(&mut self, pieces: u64) -> bool {
        if self.is_beyond() {
            self.refill(Instant::now());
        }
        let left = self.left.checked_sub(pieces);
        self.left = left.unwrap_or(0);
        if self.is_loud() {
            self.owed += pieces;
        }
        left.is_some()
    }

    /// So many bytes of requests or answers went by.
    pub(super) const fn carried(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.earn(self.bytes / self.bytes_per_piece);
        self.bytes %= self.bytes_per_piece;
    }

    /// Whether it is read last.
    pub(super) fn is_loud(&self) -> bool {
        self.is_beyond() || self.inherited.is_some_and(|until| until > Instant::now())
    }

    /// Whether it sent that much itself.
    const fn is_beyond(&self) -> bool {
        self.left < BURST - UNPACED
    }

    fn refill(&mut self, now: Instant) {
        let milliseconds = u64::try_from(now.duration_since(self.refilled).as_millis()).unwrap_or(u64::MAX);
        let pieces = milliseconds.saturating_mul(PER_SECOND) / 1_000;
        if pieces > 0 {
            self.refilled = now;
            self.earn(pieces);
        }
    }

    const fn earn(&mut self, pieces: u64) {
        let all = self.left.saturating_add(pieces);
        self.left = if all < BURST { all } else { BURST };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(turnstile: &Turnstile) -> Pace {
        Pace::new(1 << 10, turnstile.entrance([192, 0, 2, 1].into()))
    }

    /// How often it was put to sleep.
    struct Bed(usize);

    impl Sleeper for Bed {
        fn sleep(mut self: Pin<&mut Self>) {
            self.0 += 1;
        }
    }

    /// Waits for its turn; how often its socket was put to sleep meanwhile.
    async fn turn_of(pace: &mut Pace) -> usize {
        let mut bed = Bed(0);
        std::future::poll_fn(|context| pace.poll_turn(Pin::new(&mut bed), context)).await;
        bed.0
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_turn_sleeps_once_until_then() {
        let mut pace = pace(&Turnstile::default());
        assert_eq!(turn_of(&mut pace).await, 0);
        pace.spend(1_000);
        let mut bed = Bed(0);
        let waker = futures_util::task::noop_waker();
        for _ in 0..3 {
            assert!(pace.poll_turn(Pin::new(&mut bed), &mut Context::from_waker(&waker)).is_pending());
        }
        assert_eq!((bed.0, turn_of(&mut pace).await), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_what_it_asked_for_may_acknowledge_all_of_it() {
        let mut pace = pace(&Turnstile::default());
        for _ in 0..10 * BURST {
            pace.carried(4 << 10);
            assert!(pace.spend(2));
            assert_eq!(pace.owed, 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_flooded_and_left_kept_others_waiting_for_ever() {
        let turnstile = Turnstile::default();
        for _ in 0..1_000 {
            let mut gone = pace(&turnstile);
            gone.spend(1_000);
            assert!(
                gone.poll_turn(Pin::new(&mut Bed(0)), &mut Context::from_waker(&futures_util::task::noop_waker()))
                    .is_pending()
            );
        }
        let mut pace = pace(&turnstile);
        pace.spend(1_000);
        let began = Instant::now();
        turn_of(&mut pace).await;
        assert!(began.elapsed() <= TURN_MAX + Duration::from_millis(1), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_quiet_may_send_more() {
        let mut pace = pace(&Turnstile::default());
        while pace.spend(1) {}
        tokio::time::advance(Duration::from_secs(1)).await;
        let more = std::iter::from_fn(|| pace.spend(1).then_some(())).count() as u64;
        assert_eq!(more, PER_SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn who_flooded_on_one_connection_began_the_next_one_as_if_nothing_had_been() {
        let turnstile = Turnstile::default();
        let mut first = pace(&turnstile);
        first.spend(1_000);
        turn_of(&mut first).await;
        assert!(pace(&turnstile).is_loud());
        assert!(!Pace::new(1 << 10, turnstile.entrance([192, 0, 2, 2].into())).is_loud());
        tokio::time::advance(LOUD_TIME).await;
        assert!(!pace(&turnstile).is_loud());
    }

    #[tokio::test(start_paused = true)]
    async fn a_fleet_that_was_loud_once_stayed_so_for_as_long_as_it_was_busy() {
        let turnstile = Turnstile::default();
        turnstile.entrance([192, 0, 2, 1].into()).mark_loud();
        for _ in 0..5 {
            let mut ordinary = pace(&turnstile);
            ordinary.spend(8);
            turn_of(&mut ordinary).await;
            tokio::time::advance(LOUD_TIME / 4).await;
        }
        assert!(!pace(&turnstile).is_loud());
    }

    #[tokio::test(start_paused = true)]
    async fn connections_of_those_who_flood_began_all_at_once() {
        let turnstile = Turnstile::default();
        let opening = |client: u8| turnstile.entrance([192, 0, 2, client].into()).opening();
        assert_eq!(opening(1), None);
        turnstile.entrance([192, 0, 2, 1].into()).mark_loud();
        let (now, each) = (Instant::now(), Duration::from_secs(1) / LOUD_OPENINGS_PER_SECOND);
        assert_eq!([opening(1), opening(1), opening(2)], [Some(now + each), Some(now + 2 * each), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bounded_number_of_clients_is_remembered() {
        let turnstile = Turnstile::default();
        for number in 0..3 * LOUD_MAX as u32 {
            turnstile.entrance(std::net::Ipv4Addr::from_bits(number).into()).mark_loud();
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(turnstile.queue().loud.len(), LOUD_MAX);
        let last = std::net::Ipv4Addr::from_bits(3 * LOUD_MAX as u32 - 1);
        assert!(turnstile.entrance(last.into()).loud_until().is_some());
    }
}
