use super::*;
use proptest::prelude::*;

const SEATS: usize = 1;
const SOON: Duration = Duration::from_millis(1);

/// Somebody at an address, who asks for one user.
fn ticket(rank: Rank, address: u8, user: u8) -> Ticket {
    let (mut pair, address) = ([address; 32], [address; 32]);
    pair[0] = user;
    Ticket { rank, address, pair }
}

fn is_called(waiting: &mut Waiting) -> bool {
    !waiting.called.is_empty()
}

/// Ends the turn of whoever sits and tells who of these sits then; those who are called leave.
fn next_of(seat: &mut Option<Seat>, waiting: &mut Vec<(&'static str, Waiting)>) -> &'static str {
    drop(seat.take());
    let index = waiting.iter_mut().position(|(_, waiting)| is_called(waiting)).unwrap();
    let (name, mut waiting) = waiting.remove(index);
    *seat = waiting.called.try_recv().ok();
    name
}

fn seated(line: &Arc<Line>) -> Option<Seat> {
    line.enter(ticket(Rank::KNOWN, 255, 255)).unwrap().called.try_recv().ok()
}

#[tokio::test(start_paused = true)]
async fn a_free_seat_is_taken_at_once_and_one_that_is_not_is_waited_for() {
    let line = Line::new(SEATS, 10);
    let seat = line.enter(ticket(Rank::KNOWN, 1, 1)).unwrap().seat(SOON).await;
    assert!(seat.is_some());
    let mut second = line.enter(ticket(Rank::KNOWN, 2, 1)).unwrap();
    assert!(!is_called(&mut second));
    assert!(line.enter(ticket(Rank::KNOWN, 3, 1)).unwrap().seat(SOON).await.is_none(), "it took too long");
    drop(seat);
    assert!(second.seat(SOON).await.is_some());
    assert!(line.inner().waiters.is_empty());
}

#[test]
fn addresses_take_turns() {
    let line = Line::new(SEATS, 10);
    let mut seat = seated(&line);
    let rank = Rank::after(0);
    let mut waiting: Vec<_> = [("a1", 1, 1), ("a2", 1, 2), ("a3", 1, 3), ("b1", 2, 1), ("b2", 2, 2), ("c1", 3, 1)]
        .map(|(name, address, user)| (name, line.enter(ticket(rank, address, user)).unwrap()))
        .into();
    let mut order: Vec<_> = (0..3).map(|_| next_of(&mut seat, &mut waiting)).collect();
    // Who comes now waits for no more than one of each address.
    waiting.push(("d1", line.enter(ticket(rank, 4, 1)).unwrap()));
    order.extend((0..4).map(|_| next_of(&mut seat, &mut waiting)));
    assert_eq!(order, ["a1", "b1", "c1", "d1", "a2", "b2", "a3"]);
}

#[test]
fn who_failed_less_goes_first_and_who_is_known_before_all() {
    let line = Line::new(SEATS, 10);
    let mut seat = seated(&line);
    let mut waiting: Vec<_> =
        [("a hundred", Rank::after(100)), ("two", Rank::after(2)), ("none", Rank::after(0)), ("known", Rank::KNOWN)]
            .into_iter()
            .zip(1..)
            .map(|((name, rank), address)| (name, line.enter(ticket(rank, address, 1)).unwrap()))
            .collect();
    let order: Vec<_> = (0..4).map(|_| next_of(&mut seat, &mut waiting)).collect();
    assert_eq!(order, ["known", "none", "two", "a hundred"]);
    assert_eq!(Rank::after(2), Rank::after(3));
}

#[test]
fn one_user_of_one_address_has_one_seat_and_the_name_is_free_elsewhere() {
    let line = Line::new(3, 10);
    let rank = Rank::after(0);
    let mut first = line.enter(ticket(rank, 1, 1)).unwrap();
    let mut again = line.enter(ticket(rank, 1, 1)).unwrap();
    let mut another = line.enter(ticket(rank, 1, 2)).unwrap();
    let mut elsewhere = line.enter(ticket(rank, 2, 1)).unwrap();
    assert!(is_called(&mut first) && is_called(&mut another) && is_called(&mut elsewhere));
    drop(elsewhere);
    assert!(!is_called(&mut again), "there is a seat, but not for this pair");
    drop(first);
    assert!(is_called(&mut again));
}

#[test]
fn a_full_line_sends_the_last_one_away_for_who_goes_first() {
    let line = Line::new(SEATS, 3);
    let _seat = seated(&line);
    let bad = Rank::after(8);
    let mut crowd: Vec<_> = (1..=3).map(|user| line.enter(ticket(bad, 1, user)).unwrap()).collect();
    assert!(line.enter(ticket(bad, 1, 4)).is_none(), "no address pushes itself out");
    let other_address = line.enter(ticket(bad, 2, 1)).unwrap();
    assert!(crowd[2].called.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed));
    let fresh: Vec<_> = (3..=5).map(|address| line.enter(ticket(Rank::after(0), address, 1)).unwrap()).collect();
    assert!(line.enter(ticket(bad, 9, 1)).is_none());
    assert!(line.enter(ticket(Rank::KNOWN, 1, 9)).is_some(), "there is always room for who is known");
    assert_eq!(line.inner().waiters.len(), 2, "two who wait, and the one who has just left");
    drop((other_address, fresh));
}

/// 100 bad ones for each good one: the good ones wait for the one that sits, and for each other.
#[test]
fn bad_logins_from_one_address_and_from_250_hold_up_no_good_one() {
    for addresses in [1, 250] {
        let line = Line::new(SEATS, 64);
        let mut seat = seated(&line);
        let mut crowd = Vec::new();
        for attempt in 0..2_000_u32 {
            let failures = 1 + attempt / addresses;
            let address = u8::try_from(attempt % addresses).unwrap();
            crowd.extend(line.enter(ticket(Rank::after(failures), address, u8::try_from(attempt % 256).unwrap())));
            if attempt % 100 != 0 {
                continue;
            }
            let mut good = line.enter(ticket(Rank::after(0), 252, 1)).unwrap();
            let mut turns = 0;
            while !is_called(&mut good) {
                turns += 1;
                drop(seat.take());
                seat = crowd.iter_mut().find_map(|waiting| waiting.called.try_recv().ok());
            }
            seat = good.called.try_recv().ok();
            // The one that sits, and perhaps the one that has waited longest.
            assert!(turns <= 2, "{turns} turns, {addresses} addresses");
        }
    }
}

proptest! {
    /// Whatever comes: never more waiters than allowed, never more seats, one for a pair, and nothing is left behind.
    #[test]
    fn it_is_bounded_and_forgets_all(steps in prop::collection::vec((0_u8..4, 0_u8..5, 0_u8..3, any::<bool>()), 1..200)) {
        let line = Line::new(2, 8);
        let mut waiting: Vec<Waiting> = Vec::new();
        let mut seats: Vec<Seat> = Vec::new();
        for (rank, address, user, leaves) in steps {
            match leaves {
                true if !seats.is_empty() => drop(seats.remove(0)),
                true if !waiting.is_empty() => drop(waiting.remove(0)),
                _ => waiting.extend(line.enter(ticket(Rank(rank.into()), address, user))),
            }
            seats.extend(waiting.iter_mut().filter_map(|waiting| waiting.called.try_recv().ok()));
            let inner = line.inner();
            prop_assert!(inner.waiters.len() <= 8 && inner.groups.len() <= 8 && inner.order.len() == inner.waiters.len());
            prop_assert!(inner.seated.len() <= 2 && inner.seated.len() == seats.len());
            prop_assert!(inner.seated.len() < 2 || inner.seated[0] != inner.seated[1]);
        }
        drop((waiting, seats));
        let inner = line.inner();
        prop_assert!(inner.waiters.is_empty() && inner.groups.is_empty() && inner.order.is_empty() && inner.seated.is_empty());
    }

    /// Who waits is called while the line is not full, whoever else keeps coming and goes first.
    #[test]
    fn nobody_waits_for_ever(rank in 0_u8..30, others in 1_u8..6) {
        let line = Line::new(SEATS, 64);
        let mut seat = seated(&line);
        let mut last = line.enter(ticket(Rank::after(1 << rank), 200, 1)).unwrap();
        let mut crowd = Vec::new();
        let mut turns = 0;
        while !is_called(&mut last) {
            turns += 1;
            prop_assert!(turns <= LONGEST_WAIT_EVERY, "{} turns", turns);
            crowd.extend((0..others).filter_map(|address| line.enter(ticket(Rank::KNOWN, address, turns as u8))));
            drop(seat.take());
            seat = crowd.iter_mut().find_map(|waiting| waiting.called.try_recv().ok());
        }
    }
}
