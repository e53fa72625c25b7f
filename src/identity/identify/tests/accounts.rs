//! Users who make themselves, and who change their own password.

use crate::identity::Wish;
use std::time::Duration;

use super::house::House;
use super::*;
use crate::access::{Action, Actions};
use crate::docker::TokenAccess;
use crate::identity::{AccountError, LegacyUse, UserFile, UserFileError};

fn open(users: &[(&str, &str)]) -> House {
    let house = House::with(users, |settings| {
        settings.registration = true;
        settings.password_changes = true;
        settings.login_failures = 1000;
    });
    house.gate.open();
    house
}

async fn register(house: &House, user: &str, password: &str) -> Result<(), AccountError> {
    house.identity.register(user, Password::new(password.into()), HERE.parse().unwrap(), false).await
}

#[tokio::test]
async fn a_new_user_is_let_in_at_once() {
    let house = open(&[("alice", "a")]);
    register(&house, "carol", "c").await.unwrap();
    assert_eq!(house.log_in("carol", "c", HERE).await, Ok(Principal::user("carol", vec![])));
    assert!(matches!(register(&house, "carol", "d").await, Err(AccountError::Exists)));
    assert!(matches!(register(&house, "alice", "d").await, Err(AccountError::Exists)));
    // The log shows nobody as "-".
    assert!(matches!(register(&house, "-", "d").await, Err(AccountError::Taken)));
    // "nobody" is in a group, and no user.
    assert!(matches!(register(&house, "nobody", "d").await, Err(AccountError::Taken)));
    let spoken_of = house.identity.register("dan", Password::new("d".into()), HERE.parse().unwrap(), true).await;
    assert!(matches!(spoken_of, Err(AccountError::Taken)));
    assert!(matches!(register(&house, "dan", "").await, Err(AccountError::File(UserFileError::EmptyPassword))));
}

#[tokio::test]
async fn nobody_registers_where_it_is_not_allowed() {
    let house = House::new(&[("alice", "a")]);
    assert!(matches!(register(&house, "carol", "c").await, Err(AccountError::NotAllowed)));
    let changed = house
        .identity
        .change_password("alice", Password::new("a".into()), Password::new("b".into()), HERE.parse().unwrap())
        .await;
    assert!(matches!(changed, Err(AccountError::NotAllowed)));
}

#[tokio::test]
async fn an_address_makes_so_many_users_a_minute() {
    let house = House::with(&[], |settings| settings.registration = true);
    house.gate.open();
    for user in ["a", "b", "c"] {
        register(&house, user, "x").await.unwrap();
    }
    assert!(matches!(register(&house, "d", "x").await, Err(AccountError::TooMany { .. })));
    let elsewhere = house.identity.register("d", Password::new("x".into()), THERE.parse().unwrap(), false).await;
    elsewhere.unwrap();
    house.clock.advance(Duration::from_secs(61));
    register(&house, "e", "x").await.unwrap();
}

/// Whoever is on a line that is not taken is out, and nobody else becomes them.
#[tokio::test]
async fn a_name_on_a_bad_line_cannot_be_registered() {
    let house = open(&[("alice", "a")]);
    let good = std::fs::read_to_string(house.file()).unwrap();
    for bad in ["frank:$apr1$x$y\n", "frank:plain\n", "frank\n", "frank :\n", "#\n frank:x\nfrank:y\n"] {
        let broken = format!("{good}{bad}");
        std::fs::write(house.file(), &broken).unwrap();
        let registered = register(&house, "frank", "f").await;
        assert!(matches!(registered, Err(AccountError::Exists)), "{bad}: {registered:?}");
        assert_eq!(std::fs::read_to_string(house.file()).unwrap(), broken);
        assert_eq!(house.log_in("frank", "f", HERE).await, Err(IdentifyError::Wrong));
    }
    // Others do as if it were not there.
    register(&house, "carol", "c").await.unwrap();
    house.log_in("carol", "c", HERE).await.unwrap();
    let (old, new) = (Password::new("a".into()), Password::new("b".into()));
    house.identity.change_password("alice", old, new, HERE.parse().unwrap()).await.unwrap();
    house.log_in("alice", "b", HERE).await.unwrap();
    // Nor do two lines that were one become one by its user's doing.
    let twice = std::fs::read_to_string(house.file()).unwrap() + &good;
    std::fs::write(house.file(), &twice).unwrap();
    let (old, new) = (Password::new("b".into()), Password::new("c".into()));
    let changed = house.identity.change_password("alice", old, new, HERE.parse().unwrap()).await;
    assert!(matches!(&changed, Err(AccountError::File(UserFileError::Line(line))) if line.line == 1), "{changed:?}");
    assert_eq!(std::fs::read_to_string(house.file()).unwrap(), twice);
}

/// A runner's farm whose machines all log in for the first time.
#[tokio::test]
async fn many_who_registered_one_user_at_once_were_told_that_the_name_is_taken() {
    let house = open(&[]);
    let all = futures_util::future::join_all((0..3).map(|_| register(&house, "carol", "c"))).await;
    let exists = |result: &&Result<(), AccountError>| matches!(result, Err(AccountError::Exists));
    assert_eq!(
        (all.iter().filter(|result| result.is_ok()).count(), all.iter().filter(exists).count()),
        (1, 2),
        "{all:?}"
    );
}

/// Each new user cost all others a bcrypt.
#[tokio::test]
async fn a_new_user_made_all_others_be_hashed_again() {
    let house = open(&[("alice", "a"), ("bob", "b")]);
    house.log_in("alice", "a", HERE).await.unwrap();
    house.log_in("bob", "b", HERE).await.unwrap();
    register(&house, "carol", "c").await.unwrap();
    house
        .identity
        .change_password("bob", Password::new("b".into()), Password::new("x".into()), HERE.parse().unwrap())
        .await
        .unwrap();
    let before = house.gate.compared();
    house.log_in("alice", "a", HERE).await.unwrap();
    assert_eq!(house.gate.compared(), before);
    assert_eq!(house.log_in("bob", "b", HERE).await, Err(IdentifyError::Wrong));
    house.log_in("bob", "x", HERE).await.unwrap();
    assert_eq!(house.gate.compared(), before + 2);
}

/// In an empty file it was the mark that editors write at the beginning, and the name behind it was another's.
#[tokio::test]
async fn a_byte_order_mark_made_a_name_another_one() {
    let house = open(&[]);
    let result = register(&house, "\u{feff}ada", "x").await;
    assert!(matches!(result, Err(AccountError::Name(_))), "{result:?}");
}

/// The operator removed a user, who changed the password before the file was looked at, and was there again.
#[tokio::test]
async fn a_removed_user_came_back_by_a_new_password() {
    let house = open(&[("alice", "a"), ("bob", "b")]);
    UserFile::new(house.file()).remove("alice").unwrap();
    let changed = house
        .identity
        .change_password("alice", Password::new("a".into()), Password::new("x".into()), HERE.parse().unwrap())
        .await;
    assert!(matches!(changed, Err(AccountError::File(UserFileError::NoSuchUser))), "{changed:?}");
    UserFile::new(house.file()).add("bob", &Password::new("by the operator".into()), 4).unwrap();
    let changed = house
        .identity
        .change_password("bob", Password::new("b".into()), Password::new("x".into()), HERE.parse().unwrap())
        .await;
    assert!(matches!(changed, Err(AccountError::File(UserFileError::NoSuchUser))), "{changed:?}");
    let file = std::fs::read_to_string(house.file()).unwrap();
    assert!(!file.contains("alice") && file.matches("bob").count() == 1, "{file}");
}

#[tokio::test]
async fn a_v1_token_is_of_its_maker_and_ends_with_the_password() {
    let house = open(&[("alice", "a")]);
    let name: crate::oci::RepositoryName = "team/app".parse().unwrap();
    let alice = house.log_in("alice", "a", HERE).await.unwrap();
    let issue = |principal: &Principal| {
        house
            .identity
            .issue_legacy(principal, &name, TokenAccess::Write, LegacyUse::Caller)
            .map(|token| token.to_string())
    };
    let token = issue(&alice).unwrap();
    let (principal, for_whom) = house.identity.accept_legacy(&token, Some("robot")).unwrap();
    let grant = Grant { repository: name.clone(), actions: Actions::from(Action::Pull) | Action::Push.into() };
    let expected = alice.clone().with_token(vec![grant]).with_certificate("robot");
    assert_eq!((principal.clone(), for_whom), (expected, LegacyUse::Caller));
    assert_eq!(issue(&principal), Err(IssueError::WithToken), "a token does not prolong itself");
    assert!(house.identity.issue_legacy(&principal, &name, TokenAccess::Read, LegacyUse::Registry).is_ok());
    let nobody = issue(&Principal::anonymous()).unwrap();
    assert!(house.identity.accept_legacy(&nobody, None).unwrap().0.is_anonymous());

    house
        .identity
        .change_password("alice", Password::new("a".into()), Password::new("b".into()), HERE.parse().unwrap())
        .await
        .unwrap();
    assert_eq!(house.identity.accept_legacy(&token, None), Err(IdentifyError::InvalidToken));
    let token = issue(&house.log_in("alice", "b", HERE).await.unwrap()).unwrap();
    house.clock.advance(Duration::from_secs(1799));
    assert!(house.identity.accept_legacy(&token, None).is_ok());
    house.clock.advance(Duration::from_secs(1));
    assert_eq!(house.identity.accept_legacy(&token, None), Err(IdentifyError::ExpiredToken));
}

/// Whoever is made again is somebody else, and their old tokens are not theirs.
#[tokio::test]
async fn no_token_outlives_the_line_that_it_was_made_for() {
    let house = open(&[("alice", "a")]);
    let line = std::fs::read_to_string(house.file()).unwrap();
    let alice = house.log_in("alice", "a", HERE).await.unwrap();
    let access = Credentials::Bearer(house.identity.issue(&alice, "dockgate", &Wish::default()).unwrap().token);
    let refresh = house.identity.issue_refresh(&alice, "dockgate").unwrap();
    let name: crate::oci::RepositoryName = "app".parse().unwrap();
    let legacy = house.identity.issue_legacy(&alice, &name, TokenAccess::Read, LegacyUse::Caller).unwrap().to_string();
    let accepted = async || {
        let access = house.identity.identify(&access, None, HERE.parse().unwrap()).await.map(drop);
        let refresh = house.identity.accept_refresh(&refresh, "dockgate").map(drop);
        [access, refresh, house.identity.accept_legacy(&legacy, None).map(drop)]
    };
    assert_eq!(accepted().await, [Ok(()); 3]);
    UserFile::new(house.file()).remove("alice").unwrap();
    house.identity.refresh().unwrap();
    assert_eq!(accepted().await, [Err(IdentifyError::InvalidToken); 3]);
    UserFile::new(house.file()).add("alice", &Password::new("a".into()), 4).unwrap();
    house.identity.refresh().unwrap();
    assert_eq!(accepted().await, [Err(IdentifyError::InvalidToken); 3], "the same password is another line");
    // Who puts the line itself back means the user that it was.
    std::fs::write(house.file(), line).unwrap();
    house.identity.refresh().unwrap();
    assert_eq!(accepted().await, [Ok(()); 3]);
}
