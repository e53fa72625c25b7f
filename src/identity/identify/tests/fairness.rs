//! Logins that hold up no others, and failures that tell nothing but that they are (threats A9 and A10).

use super::house::{House, write_costs};
use super::*;

/// What the costliest hash is said to take.
const COSTLIEST: Duration = Duration::from_millis(240);

/// Users with their names as passwords, each at a cost of their own, by which the order of comparisons is seen.
fn house(users: &[(&str, u32)], change: impl FnOnce(&mut Settings)) -> House {
    let house = House::with(&[], |settings| {
        settings.bcrypt_queue = 1_024;
        change(settings);
    });
    write_costs(&house.file(), users);
    house.identity.refresh().unwrap();
    let costliest = users.iter().map(|(_, cost)| *cost).max().unwrap();
    house.identity.logins.times.took(costliest, COSTLIEST);
    house
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_when_the_costliest_hash_would_be_done_and_a_success_at_once() {
    let house = house(&[("alice", 4), ("bob", 5), ("carol", 7)], |settings| settings.login_failures = 100);
    let long = "x".repeat(73);
    for (user, password, error) in [
        ("alice", "wrong", IdentifyError::Wrong),
        ("bob", "wrong", IdentifyError::Wrong),
        ("nobody", "wrong", IdentifyError::Wrong),
        ("", "wrong", IdentifyError::Wrong),
        ("alice", "", IdentifyError::Wrong),
        ("alice", &long, IdentifyError::PasswordTooLong),
        ("nobody", &long, IdentifyError::PasswordTooLong),
        ("carol", "wrong", IdentifyError::Wrong),
    ] {
        let began = tokio::time::Instant::now();
        assert_eq!(house.log_in(user, password, HERE).await, Err(error), "{user} {password}");
        let took = began.elapsed();
        // The clock goes in steps of a millisecond.
        assert!(took.abs_diff(COSTLIEST) <= Duration::from_millis(1), "{took:?} for {user} {password}");
    }
    assert_eq!(*house.gate.costs.lock().unwrap(), [4, 5, 4, 7], "what cannot be right is not hashed");
    let began = tokio::time::Instant::now();
    assert!(house.log_in("alice", "alice", HERE).await.is_ok());
    assert_eq!(began.elapsed(), Duration::ZERO);
}

/// A failure waits in a line that does not know who is a user, so that load makes no difference between them either.
#[tokio::test(start_paused = true)]
async fn a_failure_under_load_is_told_as_late_for_a_user_as_for_nobody() {
    let mut told = Vec::new();
    for user in ["alice", "nobody"] {
        let house = house(&[("alice", 4), ("bob", 5)], |_| {});
        let _crowd = [house.begin("x", "x").await, house.begin("y", "y").await, house.begin("bob", "z").await];
        let began = tokio::time::Instant::now();
        assert_eq!(house.log_in(user, "wrong", HERE).await, Err(IdentifyError::Wrong));
        told.push(began.elapsed());
    }
    assert!(told[0] > COSTLIEST * 7 / 2, "{told:?}");
    assert!(told[0].abs_diff(told[1]) < told[0] * 3 / 100, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn ever_new_names_hold_up_nobody() {
    for addresses in [1, 250] {
        let house = house(&[("alice", 4)], |_| {});
        let mut crowd = Vec::new();
        for attempt in 0..2_000 {
            let client = format!("198.51.100.{}", attempt % addresses);
            crowd.push(house.begin_at(&format!("new {attempt}"), "x", &client).await);
        }
        let began = tokio::time::Instant::now();
        assert!(house.log_in("alice", "alice", HERE).await.is_ok(), "for the first time, {addresses} addresses");
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(house.gate.compared(), 1);
    }
}

/// The order in which passwords are compared, by the costs of their hashes, while the first login takes the only seat.
async fn order(house: &House, logins: &[(&str, &str, &str)]) -> Vec<u32> {
    house.gate.shut();
    let mut tasks = Vec::new();
    let compared = house.gate.compared();
    for (user, password, client) in logins {
        tasks.push(house.begin_at(user, password, client).await);
        house.until_compared(compared + 1).await;
    }
    house.gate.costs.lock().unwrap().clear();
    house.gate.open();
    for task in tasks {
        let _ = task.await.unwrap();
    }
    house.gate.costs.lock().unwrap().clone()
}

#[tokio::test]
async fn who_was_right_before_is_hashed_before_strangers() {
    let house = house(&[("seated", 4), ("alice", 5), ("bob", 6), ("carol", 7)], |_| {});
    house.log_in("alice", "alice", HERE).await.unwrap();
    house.log_in("carol", "carol", HERE).await.unwrap();
    house.clock.advance(Duration::from_secs(300));
    // A credential from anywhere, and the user from the address, whatever the password.
    let logins = [
        ("seated", "x", "198.51.100.1"),
        ("bob", "bob", "198.51.100.2"),
        ("alice", "alice", "198.51.100.3"),
        ("carol", "another one", HERE),
    ];
    assert_eq!(order(&house, &logins).await, [5, 7, 6]);
    // That was no success, and carol from here is one of many again.
    let logins = [("seated", "y", "198.51.100.1"), ("bob", "x", "198.51.100.4"), ("carol", "third", HERE)];
    assert_eq!(order(&house, &logins).await, [6, 7]);
}

#[tokio::test]
async fn an_address_that_failed_goes_behind_and_is_not_locked_out() {
    let house = house(&[("seated", 4), ("alice", 5), ("bob", 6)], |_| {});
    for name in 0..5 {
        assert!(house.log_in(&format!("new {name}"), "x", THERE).await.is_err());
    }
    let logins = [("seated", "x", "198.51.100.1"), ("alice", "alice", THERE), ("bob", "bob", HERE)];
    assert_eq!(order(&house, &logins).await, [6, 5]);
    // A minute later that is forgotten.
    house.clock.advance(Duration::from_secs(301));
    let logins = [("seated", "y", "198.51.100.1"), ("alice", "x", THERE), ("bob", "x", "198.51.100.5")];
    assert_eq!(order(&house, &logins).await, [5, 6]);
}

#[tokio::test]
async fn strangers_block_no_name() {
    let house = house(&[("alice", 4)], |settings| settings.bcrypt_concurrency = 2);
    house.gate.shut();
    let stranger = house.begin_at("alice", "x", THERE).await;
    let another_guess = house.begin_at("alice", "y", THERE).await;
    house.until_compared(1).await;
    let alice = house.begin("alice", "alice").await;
    house.until_compared(2).await;
    house.gate.open();
    assert!(alice.await.unwrap().is_ok());
    assert!(stranger.await.unwrap().is_err() && another_guess.await.unwrap().is_err());
}
