use super::*;
use crate::access::Principal;
use crate::identity::token::{self, Order};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::time::{Duration, SystemTime};

const NOW: u64 = 1_700_000_000;
const HERE: Binding<'_> = Binding { issuer: "dockgate", service: "dockgate" };
const ELSEWHERE: Binding<'_> = Binding { issuer: "dockgate", service: "registry.example" };

struct House {
    keys: TokenKeys,
    hash: PasswordHash,
}

impl House {
    fn new() -> Self {
        let keys = TokenKeys::generate(SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)).unwrap();
        Self { keys, hash: PasswordHash::make("a", 4).unwrap() }
    }

    fn issue(&self, binding: Binding<'_>) -> String {
        issue(binding, ("alice", &self.hash), &self.keys, 3600, NOW).unwrap()
    }

    fn accept(&self, token: &str, binding: Binding<'_>, now: u64) -> Result<String, IdentifyError> {
        accept(token, binding, &self.keys, |user| (user == "alice").then_some(&self.hash), now)
    }
}

#[test]
fn it_is_good_for_its_user_service_and_time() {
    let house = House::new();
    let token = house.issue(ELSEWHERE);
    assert_eq!(house.accept(&token, ELSEWHERE, NOW + 3599), Ok("alice".into()));
    assert_eq!(house.accept(&token, ELSEWHERE, NOW + 3600), Err(IdentifyError::ExpiredToken));
    assert_eq!(house.accept(&token, ELSEWHERE, NOW - 60), Err(IdentifyError::InvalidToken));
    assert_eq!(house.accept(&token, HERE, NOW), Err(IdentifyError::InvalidToken));
    let renamed = Binding { issuer: "other", ..ELSEWHERE };
    assert_eq!(house.accept(&token, renamed, NOW), Err(IdentifyError::InvalidToken));
    assert_eq!(House::new().accept(&token, ELSEWHERE, NOW), Err(IdentifyError::InvalidToken), "other keys");
}

#[test]
fn it_ends_with_the_user_and_with_the_password() {
    let mut house = House::new();
    let token = house.issue(HERE);
    assert_eq!(accept(&token, HERE, &house.keys, |_| None, NOW), Err(IdentifyError::InvalidToken));
    // The same password with another salt is another hash: whoever set it meant something by it.
    house.hash = PasswordHash::make("a", 4).unwrap();
    assert_eq!(house.accept(&token, HERE, NOW), Err(IdentifyError::InvalidToken));
}

#[test]
fn it_is_no_token_and_a_token_is_none_of_it() {
    let house = House::new();
    let refresh = house.issue(HERE);
    assert_eq!(
        token::accept(&refresh, &house.keys, &token::Memory::new(), "dockgate", NOW).err(),
        Some(IdentifyError::InvalidToken)
    );
    let alice = Principal::user("alice", vec![]);
    let order = Order {
        principal: &alice,
        hash: Some(&house.hash),
        issuer: "dockgate",
        service: "dockgate",
        wish: &token::Wish::default(),
        lifetime: Duration::from_secs(60),
        chain: true,
    };
    let access = token::issue(&order, &house.keys, NOW).unwrap().token;
    assert!(token::accept(&access, &house.keys, &token::Memory::new(), "dockgate", NOW).is_ok());
    assert_eq!(house.accept(&access, HERE, NOW), Err(IdentifyError::InvalidToken));
}

/// Each of the two walls stands alone: the type in the header, and the audience.
#[test]
fn neither_its_type_nor_its_audience_is_enough() {
    let house = House::new();
    let key = house.keys.signing(NOW);
    let (_, claims, _) = parts(&house.issue(HERE));
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    let sign = |kind: &str, claims: &serde_json::Value| {
        jsonwebtoken::encode(&jwt::header(key, kind), claims, &key.encoding).unwrap()
    };
    assert_eq!(house.accept(&sign(TYPE, &claims), HERE, NOW), Ok("alice".into()));
    assert_eq!(house.accept(&sign("JWT", &claims), HERE, NOW), Err(IdentifyError::InvalidToken));
    let mut for_us = claims.clone();
    for_us["aud"] = "dockgate".into();
    for_us["ceiling"] = serde_json::json!([]);
    assert_eq!(house.accept(&sign(TYPE, &for_us), HERE, NOW), Err(IdentifyError::InvalidToken));
    let accepted = |token: &str| token::accept(token, &house.keys, &token::Memory::new(), "dockgate", NOW).is_ok();
    assert!(accepted(&sign("JWT", &for_us)));
    assert!(!accepted(&sign(TYPE, &for_us)));
    for_us["aud"] = claims["aud"].clone();
    assert!(!accepted(&sign("JWT", &for_us)));
}

#[test]
fn it_shows_nothing_of_the_password() {
    let house = House::new();
    let (_, claims, _) = parts(&house.issue(HERE));
    let claims = String::from_utf8(claims).unwrap();
    let secret = house.hash.as_str().rsplit('$').next().unwrap();
    assert!(claims.contains("alice") && !claims.contains(secret), "{claims}");
}

fn parts(token: &str) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let mut parts = token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap());
    (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap())
}
