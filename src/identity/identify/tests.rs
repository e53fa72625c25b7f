mod accounts;
mod fairness;
mod house;

use super::*;
use crate::access::{Action, Actions, Grant};
use crate::identity::IssueError;
use crate::identity::Wish;
use std::time::SystemTime;

use house::{House, basic, settings, write};

const HERE: &str = "192.0.2.1";
const THERE: &str = "192.0.2.2";

#[tokio::test]
async fn a_user_comes_with_groups_and_certificate() {
    let house = House::new(&[("alice", "a"), ("bob", "b"), ("carol", "c")]);
    let alice = house.log_in("alice", "a", HERE).await.unwrap();
    assert_eq!(alice, Principal::user("alice", vec!["ci".into(), "ops".into()]));
    assert_eq!(house.log_in("carol", "c", HERE).await, Ok(Principal::user("carol", vec![])));
    let robot = Principal::anonymous().with_certificate("robot");
    for (credentials, expected) in [
        (Credentials::None, Ok(robot)),
        (basic("alice", "a"), Ok(alice.with_certificate("robot"))),
        (basic("alice", "b"), Err(IdentifyError::Wrong)),
        (Credentials::Other("token".into()), Err(IdentifyError::Wrong)),
    ] {
        let found = house.identity.identify(&credentials, Some("robot"), HERE.parse().unwrap()).await;
        assert_eq!(found, expected, "{credentials:?}");
    }
}

#[tokio::test]
async fn a_verified_credential_is_hashed_once_in_its_lifetime() {
    let house = House::new(&[("alice", "a")]);
    for _ in 0..3 {
        assert!(house.log_in("alice", "a", HERE).await.is_ok());
    }
    house.clock.advance(Duration::from_secs(299));
    assert!(house.log_in("alice", "a", THERE).await.is_ok());
    assert_eq!(house.gate.compared(), 1);
    house.clock.advance(Duration::from_secs(1));
    assert!(house.log_in("alice", "a", HERE).await.is_ok());
    assert_eq!(house.gate.compared(), 2);
}

#[tokio::test]
async fn a_wrong_password_is_never_remembered_as_right() {
    let house = House::new(&[("alice", "a")]);
    assert!(house.log_in("alice", "a", HERE).await.is_ok());
    assert_eq!(house.log_in("alice", "b", HERE).await, Err(IdentifyError::Wrong));
    assert_eq!(house.log_in("alic", "ea", HERE).await, Err(IdentifyError::Wrong));
    assert_eq!(house.log_in("alice", "b", HERE).await, Err(IdentifyError::Wrong));
    assert_eq!(house.gate.compared(), 3, "nobody is called alic");
}

#[tokio::test]
async fn many_at_once_with_one_new_credential_are_one_hash_and_one_guess() {
    let house = House::new(&[("alice", "a")]);
    house.gate.shut();
    let mut tasks = Vec::new();
    for _ in 0..20 {
        tasks.push(house.begin("alice", "a").await);
    }
    house.until_compared(1).await;
    house.gate.open();
    for task in tasks {
        assert!(task.await.unwrap().is_ok());
    }
    assert_eq!(house.gate.compared(), 1);
}

#[tokio::test]
async fn who_leaves_does_not_end_it_for_the_others() {
    let house = House::new(&[("alice", "a")]);
    house.gate.shut();
    let first = house.begin("alice", "a").await;
    let second = house.begin("alice", "a").await;
    house.until_compared(1).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    house.gate.open();
    assert!(second.await.unwrap().is_ok());
    assert_eq!(house.gate.compared(), 1);
}

#[tokio::test]
async fn a_login_nobody_waits_for_is_not_hashed_nor_counted() {
    let house = House::with(&[("alice", "a"), ("bob", "b")], |settings| settings.login_failures = 1);
    house.gate.shut();
    let running = house.begin("bob", "x").await;
    house.until_compared(1).await;
    let left = house.begin("alice", "wrong").await;
    left.abort();
    assert!(left.await.unwrap_err().is_cancelled());
    house.gate.open();
    assert_eq!(running.await.unwrap(), Err(IdentifyError::Wrong));
    // That nobody waits for it any more is found when its turn comes; until then it counts.
    let logged_in = async {
        loop {
            match house.log_in("alice", "a", HERE).await {
                Err(IdentifyError::TooManyFailures { .. }) => tokio::time::sleep(Duration::from_millis(1)).await,
                outcome => return outcome,
            }
        }
    };
    assert!(matches!(tokio::time::timeout(Duration::from_secs(10), logged_in).await, Ok(Ok(_))));
    assert_eq!(house.gate.compared(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_says_busy_and_a_verified_credential_does_not_wait() {
    let house = House::new(&[("alice", "a")]);
    assert!(house.log_in("alice", "a", HERE).await.is_ok());
    // Twice, for what has left the queue makes room in it.
    for round in 0..2 {
        let mut tasks = Vec::new();
        for user in ["one whose turn it is", "one in the queue", "another one"] {
            tasks.push(house.begin(user, "x").await);
        }
        let busy = IdentifyError::Busy { retry_after: Duration::from_secs(3600) };
        // As often as would be too many failures: what was not looked at is none.
        for _ in 0..5 {
            assert_eq!(house.log_in("bob", "b", HERE).await, Err(busy), "{round}");
        }
        assert!(house.log_in("alice", "a", HERE).await.is_ok());
        for task in tasks {
            assert_eq!(task.await.unwrap(), Err(IdentifyError::Wrong), "{round}");
        }
        assert_eq!(house.log_in("bob", "b", HERE).await, Err(IdentifyError::Wrong), "{round}");
    }
}

#[tokio::test]
async fn who_waits_too_long_is_told_to_come_back() {
    let users = [("alice", "a"), ("bob", "b")];
    let house = House::with(&users, |settings| settings.bcrypt_wait_timeout = Duration::from_millis(1));
    house.gate.shut();
    let running = house.begin("bob", "x").await;
    house.until_compared(1).await;
    let busy = IdentifyError::Busy { retry_after: Duration::from_secs(1) };
    assert_eq!(house.log_in("alice", "a", HERE).await, Err(busy));
    house.gate.open();
    assert_eq!(running.await.unwrap(), Err(IdentifyError::Wrong));
    assert!(house.log_in("alice", "a", HERE).await.is_ok());
}

#[tokio::test]
async fn too_many_failures_block_one_user_from_one_address_for_a_minute() {
    let house = House::new(&[("alice", "a"), ("bob", "b")]);
    assert!(house.log_in("bob", "b", HERE).await.is_ok());
    for user in ["alice", "bob", "nobody"] {
        for _ in 0..3 {
            assert_eq!(house.log_in(user, "wrong", HERE).await, Err(IdentifyError::Wrong), "{user}");
        }
        let refused = house.log_in(user, "wrong", HERE).await;
        assert_eq!(refused, Err(IdentifyError::TooManyFailures { retry_after: Duration::from_secs(60) }), "{user}");
    }
    assert_eq!(house.gate.compared(), 7, "there is nothing to hash for nobody");
    let refused = house.log_in("alice", "a", HERE).await;
    assert_eq!(refused, Err(IdentifyError::TooManyFailures { retry_after: Duration::from_secs(60) }));
    assert!(house.log_in("alice", "a", THERE).await.is_ok(), "another address");
    assert!(house.log_in("bob", "b", HERE).await.is_ok(), "a verified credential");
    assert!(house.log_in("alice", "a", HERE).await.is_ok(), "verified from elsewhere");
    house.clock.advance(Duration::from_secs(60));
    assert_eq!(house.log_in("alice", "wrong", HERE).await, Err(IdentifyError::Wrong));
}

#[tokio::test]
async fn who_failed_too_often_cannot_ride_on_the_login_of_another() {
    let house = House::new(&[("alice", "a")]);
    for _ in 0..3 {
        assert_eq!(house.log_in("alice", "wrong", THERE).await, Err(IdentifyError::Wrong));
    }
    house.gate.shut();
    let running = house.begin("alice", "a").await;
    house.until_compared(4).await;
    let refused = house.log_in("alice", "a", THERE).await;
    assert_eq!(refused, Err(IdentifyError::TooManyFailures { retry_after: Duration::from_secs(60) }));
    house.gate.open();
    assert!(running.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_credential_that_was_right_is_not_locked_out_when_its_time_is_up() {
    let house = House::new(&[("ci", "right")]);
    assert!(house.log_in("ci", "right", HERE).await.is_ok());
    house.clock.advance(Duration::from_secs(300));
    for _ in 0..3 {
        assert_eq!(house.log_in("ci", "wrong", HERE).await, Err(IdentifyError::Wrong));
    }
    assert!(house.log_in("ci", "wrong", HERE).await.is_err());
    let compared = house.gate.compared();
    assert!(house.log_in("ci", "right", HERE).await.is_ok());
    assert_eq!(house.gate.compared(), compared + 1, "but it is hashed again");
}

#[tokio::test]
async fn guesses_made_at_once_are_counted_before_they_are_judged() {
    let house = House::with(&[("alice", "a")], |settings| settings.bcrypt_queue = 100);
    house.gate.shut();
    let mut tasks = Vec::new();
    for guess in 0..10 {
        tasks.push(house.begin("alice", &guess.to_string()).await);
    }
    house.gate.open();
    for task in tasks {
        assert!(task.await.unwrap().is_err());
    }
    assert_eq!(house.gate.compared(), 3);
}

#[tokio::test]
async fn a_change_of_the_file_is_in_force_at_the_next_look() {
    let house = House::new(&[("alice", "a"), ("bob", "b")]);
    assert_eq!(house.identity.refresh(), Ok(Refreshed::Unchanged));
    assert!(house.log_in("alice", "a", HERE).await.is_ok());
    assert!(house.log_in("bob", "b", HERE).await.is_ok());
    write(&house.file(), &[("bob", "new"), ("carol", "c"), ("dave", "d")]);
    assert_eq!(house.identity.refresh(), Ok(Refreshed::Changed { users: 3 }));
    assert_eq!(house.identity.users(), 3);
    assert_eq!(house.log_in("alice", "a", HERE).await, Err(IdentifyError::Wrong));
    assert_eq!(house.log_in("bob", "b", HERE).await, Err(IdentifyError::Wrong));
    assert!(house.log_in("bob", "new", HERE).await.is_ok());
    assert!(house.log_in("carol", "c", HERE).await.is_ok());
    assert_eq!(house.identity.refresh(), Ok(Refreshed::Unchanged));
}

#[tokio::test]
async fn a_file_that_is_gone_means_no_users() {
    let house = House::new(&[("alice", "a")]);
    assert!(house.log_in("alice", "a", HERE).await.is_ok());
    std::fs::remove_file(house.file()).unwrap();
    assert_eq!(house.identity.refresh(), Ok(Refreshed::Changed { users: 0 }));
    assert_eq!(house.identity.refresh(), Ok(Refreshed::Unchanged));
    assert_eq!(house.log_in("alice", "a", HERE).await, Err(IdentifyError::Wrong));
    write(&house.file(), &[("alice", "a")]);
    assert_eq!(house.identity.refresh(), Ok(Refreshed::Changed { users: 1 }));
    assert!(house.log_in("alice", "a", HERE).await.is_ok());
}

#[tokio::test]
async fn a_bad_line_kept_everybody_out() {
    let house = House::new(&[("alice", "a"), ("bob", "b"), ("carol", "c")]);
    assert!(house.log_in("alice", "a", HERE).await.is_ok());
    assert!(house.log_in("carol", "c", HERE).await.is_ok());
    let alice = house.log_in("alice", "a", HERE).await.unwrap();
    let token = Credentials::Bearer(house.identity.issue(&alice, "dockgate", &Wish::default()).unwrap().token);
    let good = std::fs::read_to_string(house.file()).unwrap();
    let again = good.lines().next().unwrap();
    std::fs::write(house.file(), format!("{good}{again}\ncarol:plain\n:x\n")).unwrap();
    assert_eq!(house.identity.refresh(), Ok(Refreshed::Changed { users: 1 }));
    assert!(house.log_in("bob", "b", HERE).await.is_ok());
    for (user, password) in [("alice", "a"), ("carol", "c"), ("carol", "plain"), ("", "x")] {
        assert_eq!(house.log_in(user, password, HERE).await, Err(IdentifyError::Wrong), "{user}");
    }
    let shown = house.identity.identify(&token, None, HERE.parse().unwrap()).await;
    assert_eq!(shown, Err(IdentifyError::InvalidToken));
    let told = house.identity.bad_lines();
    assert_eq!(told.len(), 5, "{told:?}");
    assert!(told[0].contains("htpasswd:1: user \"alice\": ") && told[0].contains("line 4"), "{told:?}");
    assert!(told[4].contains("htpasswd:6: user \"\": "), "{told:?}");

    let key = TokenKeys::generate(SystemTime::now()).unwrap();
    let started = Identity::open(settings(house.file()), key).unwrap();
    assert_eq!((started.users(), started.bad_lines()), (1, told));
    // Another bad line is another thing to tell.
    std::fs::write(house.file(), format!("{good}{again}\ncarol:plain\n")).unwrap();
    assert_eq!(house.identity.refresh(), Ok(Refreshed::Changed { users: 1 }));
    std::fs::write(house.file(), &good).unwrap();
    assert_eq!(house.identity.refresh(), Ok(Refreshed::Changed { users: 3 }));
    assert!(house.identity.bad_lines().is_empty());
}

#[tokio::test]
async fn an_unreadable_file_is_told_once_and_the_old_users_go_on() {
    let house = House::new(&[("alice", "a")]);
    assert!(house.log_in("alice", "a", HERE).await.is_ok());
    std::fs::remove_file(house.file()).unwrap();
    std::fs::create_dir(house.file()).unwrap();
    let error = OpenError::NotAFile { path: house.file() };
    assert_eq!(house.identity.refresh(), Err(error.clone()));
    assert_eq!(house.identity.refresh(), Ok(Refreshed::Unchanged));
    assert!(house.log_in("alice", "a", HERE).await.is_ok());
    assert_eq!(house.identity.reload(settings(house.file())), Err(error.clone()));
    let refused = Identity::open(settings(house.file()), TokenKeys::generate(SystemTime::now()).unwrap());
    assert_eq!(refused.unwrap_err(), error);
}

#[tokio::test]
async fn a_password_changed_while_it_is_compared_is_compared_anew() {
    let house = House::new(&[("alice", "old"), ("bob", "b")]);
    house.gate.shut();
    let (old, new) = (house.begin("alice", "old").await, house.begin("alice", "new").await);
    house.until_compared(1).await;
    write(&house.file(), &[("alice", "new"), ("bob", "b")]);
    assert_eq!(house.identity.refresh(), Ok(Refreshed::Changed { users: 2 }));
    house.gate.open();
    assert_eq!(old.await.unwrap(), Err(IdentifyError::Wrong));
    assert!(new.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_user_removed_while_the_password_is_compared_is_not_let_in() {
    let house = House::new(&[("alice", "a"), ("bob", "b")]);
    house.gate.shut();
    let (alice, bob) = (house.begin("alice", "a").await, house.begin("bob", "b").await);
    house.until_compared(1).await;
    let bobs_line = std::fs::read_to_string(house.file()).unwrap().lines().nth(1).unwrap().to_owned();
    std::fs::write(house.file(), bobs_line).unwrap();
    assert_eq!(house.identity.refresh(), Ok(Refreshed::Changed { users: 1 }));
    house.gate.open();
    assert_eq!(alice.await.unwrap(), Err(IdentifyError::Wrong));
    assert!(bob.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_reload_takes_new_groups_and_keeps_what_was_verified() {
    let house = House::new(&[("alice", "a")]);
    assert!(house.log_in("alice", "a", HERE).await.is_ok());
    let mut settings = settings(house.file());
    settings.groups = [("new".to_owned(), vec!["alice".to_owned()])].into();
    settings.realm = "elsewhere".into();
    settings.bcrypt_concurrency = 2;
    assert_eq!(house.identity.reload(settings), Ok(()));
    assert_eq!(house.log_in("alice", "a", HERE).await, Ok(Principal::user("alice", vec!["new".into()])));
    assert_eq!(house.gate.compared(), 1);
    assert_eq!(house.identity.service(), "elsewhere");
}

#[tokio::test]
async fn a_token_is_good_for_its_user_as_long_as_there_is_one() {
    let house = House::new(&[("alice", "a"), ("bob", "b")]);
    let actions = Actions::from(Action::Pull) | Action::Push.into();
    let grants = vec![Grant { repository: "app".parse().unwrap(), actions }];
    let wish = Wish { grants, ..Wish::default() };
    let alice = house.log_in("alice", "a", HERE).await.unwrap();
    let issued = house.identity.issue(&alice, &house.identity.service(), &wish).unwrap();
    let bearer = Credentials::Bearer(issued.token.clone());
    let identify = || house.identity.identify(&bearer, Some("robot"), HERE.parse().unwrap());
    assert_eq!(identify().await, Ok(alice.clone().with_ceiling(actions).with_certificate("robot")));
    let anonymous = house.identity.issue(&Principal::anonymous(), "dockgate", &wish).unwrap();
    let anonymous = Credentials::Bearer(anonymous.token);
    let accepted = house.identity.identify(&anonymous, None, HERE.parse().unwrap()).await;
    assert_eq!(accepted, Ok(Principal::anonymous().with_ceiling(actions)));

    assert_eq!(house.identity.issue(&alice, "other", &Wish::default()), Err(IssueError::UnknownService));
    assert_eq!(house.identity.issue(&accepted.unwrap(), "dockgate", &Wish::default()), Err(IssueError::WithToken));

    let mut other_groups = settings(house.file());
    other_groups.groups.clear();
    house.identity.reload(other_groups).unwrap();
    let ungrouped = Principal::user("alice", vec![]).with_ceiling(actions).with_certificate("robot");
    assert_eq!(identify().await, Ok(ungrouped));
    write(&house.file(), &[("bob", "b")]);
    house.identity.refresh().unwrap();
    assert_eq!(identify().await, Err(IdentifyError::InvalidToken));
    write(&house.file(), &[("alice", "a")]);
    house.identity.refresh().unwrap();
    house.clock.advance(Duration::from_secs(300));
    assert_eq!(identify().await, Err(IdentifyError::ExpiredToken));
}

#[tokio::test]
async fn a_refresh_token_stands_for_a_password_until_that_changes() {
    let house = House::with(&[("alice", "a"), ("bob", "b")], |settings| settings.services = vec!["other".into()]);
    let alice = house.log_in("alice", "a", HERE).await.unwrap();
    let refresh = house.identity.issue_refresh(&alice, "other").unwrap();
    assert_eq!(house.identity.accept_refresh(&refresh, "other"), Ok(alice.clone()));
    assert_eq!(house.identity.accept_refresh(&refresh, "dockgate"), Err(IdentifyError::InvalidToken));
    assert_eq!(house.identity.issue_refresh(&alice, "unknown"), Err(IssueError::UnknownService));
    assert_eq!(house.identity.issue_refresh(&Principal::anonymous(), "other"), Err(IssueError::NoUser));
    let through_a_token = alice.clone().with_token(vec![]);
    assert_eq!(house.identity.issue_refresh(&through_a_token, "other"), Err(IssueError::WithToken));
    house.clock.advance(Duration::from_secs(3599));
    assert_eq!(house.identity.accept_refresh(&refresh, "other"), Ok(alice.clone()));
    house.clock.advance(Duration::from_secs(1));
    assert_eq!(house.identity.accept_refresh(&refresh, "other"), Err(IdentifyError::ExpiredToken));

    let refresh = house.identity.issue_refresh(&alice, "other").unwrap();
    write(&house.file(), &[("alice", "new"), ("bob", "b")]);
    house.identity.refresh().unwrap();
    assert_eq!(house.identity.accept_refresh(&refresh, "other"), Err(IdentifyError::InvalidToken));
    let refresh = house.identity.issue_refresh(&alice, "other").unwrap();
    write(&house.file(), &[("bob", "b")]);
    house.identity.refresh().unwrap();
    assert_eq!(house.identity.accept_refresh(&refresh, "other"), Err(IdentifyError::InvalidToken));
}

#[tokio::test]
async fn keys_are_renewed_while_it_runs_and_tokens_go_on() {
    let house = House::new(&[("alice", "a")]);
    let told = house.identity.due_keys().unwrap().expect("the first look tells the key how long tokens live");
    house.identity.take_keys(told);
    assert!(house.identity.due_keys().unwrap().is_none());
    let alice = house.log_in("alice", "a", HERE).await.unwrap();
    house.clock.advance(Duration::from_secs(86_400));
    let refresh = house.identity.issue_refresh(&alice, "dockgate").unwrap();
    house.identity.take_keys(house.identity.due_keys().unwrap().unwrap());
    house.clock.advance(Duration::from_secs(300));
    let issued = house.identity.issue(&alice, "dockgate", &Wish::default()).unwrap();
    assert_eq!(house.identity.keys().ids().count(), 2);
    let header = jsonwebtoken::decode_header(&issued.token).unwrap();
    assert_eq!(header.kid.as_deref(), house.identity.keys().ids().last());
    assert_eq!(house.identity.accept_refresh(&refresh, "dockgate"), Ok(alice));
    let shown = house.identity.identify(&Credentials::Bearer(issued.token), None, HERE.parse().unwrap()).await;
    assert!(shown.is_ok());
}

#[tokio::test]
async fn nothing_shows_a_secret() {
    let house = House::new(&[("alice", "canary")]);
    let alice = house.log_in("alice", "canary", HERE).await.unwrap();
    let issued = house.identity.issue(&alice, "dockgate", &Wish::default()).unwrap();
    let hash = std::fs::read_to_string(house.file()).unwrap();
    let hash = hash.trim().rsplit('$').next().unwrap();
    let state = house.identity.state.load_full();
    let shown = format!(
        "{:?} {:#?} {state:?} {issued:?} {:?} {:?}",
        house.identity,
        house.identity,
        basic("alice", "canary"),
        Credentials::Bearer(issued.token.clone()),
    );
    assert!(shown.contains("alice"));
    for secret in ["canary", hash, &issued.token] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}
