use super::*;
use crate::access::Principal;
use crate::identity::refresh_token::{self, Binding};
use crate::identity::token;
use std::time::SystemTime;

const NOW: u64 = 1_700_000_000;

struct House {
    keys: TokenKeys,
    memory: Memory,
    hash: PasswordHash,
}

impl House {
    fn new() -> Self {
        let keys = TokenKeys::generate(SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)).unwrap();
        Self { keys, memory: Memory::new(), hash: PasswordHash::make("a", 4).unwrap() }
    }

    fn issue(&self, user: Option<&str>, access: TokenAccess, for_whom: LegacyUse) -> TokenFields {
        let repository = "team/app".parse().unwrap();
        let user = user.map(|user| (user, &self.hash));
        let lifetime = Duration::from_secs(3600);
        let order = Order { issuer: "dockgate", user, repository: &repository, access, for_whom, lifetime };
        issue(&order, &self.keys, NOW).unwrap()
    }

    fn accept(&self, text: &str, now: u64) -> Result<Accepted, IdentifyError> {
        accept(text, "dockgate", &self.keys, &self.memory, |user| (user == "alice").then_some(&self.hash), now)
    }
}

#[test]
fn it_is_good_for_its_user_repository_access_and_time() {
    let house = House::new();
    let read = Actions::from(Action::Pull);
    for (access, actions) in [
        (TokenAccess::Read, read),
        (TokenAccess::Head, read),
        (TokenAccess::Write, read | Action::Push.into()),
        (TokenAccess::Delete, read | Action::Delete.into()),
    ] {
        for (user, for_whom) in [(Some("alice"), LegacyUse::Caller), (None, LegacyUse::Registry)] {
            let text = house.issue(user, access, for_whom).to_string();
            let grant = Grant { repository: "team/app".parse().unwrap(), actions };
            let expected = Accepted { user: user.map(Into::into), grant, for_whom };
            assert_eq!(house.accept(&text, NOW + 3599), Ok(expected), "{text}");
            assert_eq!(house.accept(&text, NOW + 3600), Err(IdentifyError::ExpiredToken));
            assert_eq!(house.accept(&text, NOW - 60), Err(IdentifyError::InvalidToken));
            assert_eq!(House::new().accept(&text, NOW), Err(IdentifyError::InvalidToken), "other keys");
        }
    }
}

#[test]
fn its_fields_cannot_say_more_than_its_signature() {
    let house = House::new();
    let fields = house.issue(Some("alice"), TokenAccess::Read, LegacyUse::Caller);
    for forged in [
        TokenFields { repository: "team/other".into(), ..fields.clone() },
        TokenFields { access: TokenAccess::Write, ..fields.clone() },
        TokenFields { signature: "AAAAAAAAAAAAAAAA".into(), ..fields.clone() },
        TokenFields { signature: format!("{}x", fields.signature), ..fields.clone() },
    ] {
        assert_eq!(house.accept(&forged.to_string(), NOW), Err(IdentifyError::InvalidToken), "{forged}");
    }
    assert!(house.accept(&format!("Token {fields}"), NOW).is_ok());
}

#[test]
fn it_ends_with_the_user_and_with_the_password() {
    let mut house = House::new();
    let text = house.issue(Some("alice"), TokenAccess::Read, LegacyUse::Caller).to_string();
    let gone = accept(&text, "dockgate", &house.keys, &house.memory, |_| None, NOW);
    assert_eq!(gone, Err(IdentifyError::InvalidToken));
    house.hash = PasswordHash::make("a", 4).unwrap();
    assert_eq!(house.accept(&text, NOW), Err(IdentifyError::InvalidToken));
}

#[test]
fn no_other_kind_of_token_is_taken_for_it() {
    let house = House::new();
    let fields = house.issue(Some("alice"), TokenAccess::Write, LegacyUse::Caller);
    assert_eq!(
        token::accept(&fields.signature, &house.keys, &token::Memory::new(), "dockgate", NOW).err(),
        Some(IdentifyError::InvalidToken)
    );
    let binding = Binding { issuer: "dockgate", service: "dockgate" };
    let refresh = refresh_token::issue(binding, ("alice", &house.hash), &house.keys, 3600, NOW).unwrap();
    let alice = Principal::user("alice", vec![]);
    let grants = [Grant { repository: "team/app".parse().unwrap(), actions: Actions::ALL }];
    let order = token::Order {
        principal: &alice,
        hash: Some(&house.hash),
        issuer: "dockgate",
        service: "dockgate",
        wish: &token::Wish { grants: grants.into(), catalog: false, delete: true },
        lifetime: Duration::from_secs(60),
        chain: false,
    };
    let bearer = token::issue(&order, &house.keys, NOW).unwrap().token;
    for signature in [refresh, bearer] {
        let text = TokenFields { signature, ..fields.clone() }.to_string();
        assert_eq!(house.accept(&text, NOW), Err(IdentifyError::InvalidToken));
    }
}
