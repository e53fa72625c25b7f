use super::*;
use crate::identity::htpasswd::Users;
use jsonwebtoken::{EncodingKey, encode};
use serde_json::{Value, json};

const NOW: u64 = 1_700_000_000;
/// Issuer and service.
const OWN: (&str, &str) = ("dockgate", "dockgate");

fn grant(repository: &str, actions: &[Action]) -> Grant {
    Grant { repository: repository.parse().unwrap(), actions: actions.iter().copied().collect() }
}

fn alice() -> Principal {
    Principal::user("alice", vec![])
}

fn issued(key: &TokenKeys, grants: &[Grant]) -> String {
    issue(&alice(), OWN, grants, key.newest(), Duration::from_secs(60), NOW).unwrap().token
}

/// Claims that are accepted as they are.
fn claims() -> Value {
    json!({"iss": "dockgate", "sub": "alice", "aud": "dockgate", "exp": NOW + 60, "nbf": NOW, "iat": NOW, "jti": "x", "access": []})
}

fn signed(key: &TokenKeys, claims: &Value) -> String {
    let header = Header { kid: Some(key.newest().id.clone()), ..Header::new(Algorithm::ES256) };
    encode(&header, claims, &key.newest().encoding).unwrap()
}

fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn a_token_says_what_docker_says_it_does() {
    let key = TokenKeys::generate(NOW).unwrap();
    let grants = [grant("a/b", &[Action::Pull, Action::Create]), grant("c", &Action::ALL), grant("d", &[])];
    let token = issue(&alice(), OWN, &grants, key.newest(), Duration::from_secs(60), NOW).unwrap();
    assert_eq!((token.expires_in, token.issued_at.as_str()), (60, "2023-11-14T22:13:20Z"));
    let header = part(&token.token, 0);
    assert_eq!(header, json!({"alg": "ES256", "typ": "JWT", "kid": key.newest().id()}));
    let mut claims = part(&token.token, 1);
    let id = claims["jti"].take();
    assert_eq!(id.as_str().unwrap().len(), 22);
    let access = json!([
        {"type": "repository", "name": "a/b", "actions": ["pull", "push"]},
        {"type": "repository", "name": "c", "actions": ["pull", "push", "delete"]},
    ]);
    let expected = json!({"iss": "dockgate", "sub": "alice", "aud": "dockgate", "exp": NOW + 60, "nbf": NOW, "iat": NOW, "jti": null, "access": access});
    assert_eq!(claims, expected);
    assert_ne!(part(&issued(&key, &[]), 1)["jti"], id);
}

#[test]
fn what_was_granted_comes_back() {
    let key = TokenKeys::generate(NOW).unwrap();
    let token = issued(&key, &[grant("a", &[Action::Pull]), grant("b", &[Action::Create])]);
    let accepted = accept(&token, &key, "dockgate", NOW).unwrap();
    assert_eq!(accepted.user.as_deref(), Some("alice"));
    assert_eq!(accepted.grants, [grant("a", &[Action::Pull]), grant("b", &[Action::Push])]);
    let nobody = issue(&Principal::anonymous(), OWN, &[], key.newest(), Duration::from_secs(60), NOW).unwrap();
    assert_eq!(
        accept(&nobody.token, &key, "dockgate", NOW),
        Ok(Accepted { user: None, grants: vec![], catalog: false })
    );
}

#[test]
fn words_for_actions_are_read_and_unknown_ones_grant_nothing() {
    let key = TokenKeys::generate(NOW).unwrap();
    let mut claims = claims();
    claims["access"] = json!([
        {"type": "repository", "name": "a", "actions": ["*"]},
        {"type": "repository", "name": "b", "actions": ["pull", "admin", "Push"]},
        {"type": "registry", "name": "catalog", "actions": ["*"]},
        {"type": "repository", "name": "NOT A NAME", "actions": ["*"]},
    ]);
    let accepted = accept(&signed(&key, &claims), &key, "dockgate", NOW).unwrap();
    assert_eq!(accepted.grants, [grant("a", &Action::ALL), grant("b", &[Action::Pull])]);
}

#[test]
fn a_token_lives_no_longer_than_its_time() {
    let key = TokenKeys::generate(NOW).unwrap();
    let token = issued(&key, &[]);
    assert!(accept(&token, &key, "dockgate", NOW + 59).is_ok());
    assert_eq!(accept(&token, &key, "dockgate", NOW + 60), Err(IdentifyError::ExpiredToken));
    assert!(accept(&token, &key, "dockgate", NOW - NOT_BEFORE_LEEWAY_SECONDS).is_ok());
    let too_early = accept(&token, &key, "dockgate", NOW - NOT_BEFORE_LEEWAY_SECONDS - 1);
    assert_eq!(too_early, Err(IdentifyError::InvalidToken));
    let long = issue(&alice(), OWN, &[], key.newest(), Duration::from_secs(86400), NOW).unwrap();
    assert_eq!(long.expires_in, 300);
    assert_eq!(accept(&long.token, &key, "dockgate", NOW + 300), Err(IdentifyError::ExpiredToken));
}

#[test]
fn a_changed_token_is_none() {
    let key = TokenKeys::generate(NOW).unwrap();
    let token = issued(&key, &[]);
    assert!(accept(&token, &key, "dockgate", NOW).is_ok());
    for index in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert_eq!(accept(&changed, &key, "dockgate", NOW), Err(IdentifyError::InvalidToken), "{index}");
    }
    for broken in ["", ".", "..", "a.b.c", &token[..token.len() - 1], &format!("{token}."), &format!(".{token}")] {
        assert_eq!(accept(broken, &key, "dockgate", NOW), Err(IdentifyError::InvalidToken), "{broken}");
    }
    let long = "x".repeat(TOKEN_BYTES_MAX + 1);
    assert_eq!(accept(&long, &key, "dockgate", NOW), Err(IdentifyError::InvalidToken));
}

#[test]
fn claims_for_others_missing_claims_and_other_keys_are_refused() {
    let (key, other) = (TokenKeys::generate(NOW).unwrap(), TokenKeys::generate(NOW).unwrap());
    let refused = |token: &str, why: &str| {
        assert_eq!(accept(token, &key, "dockgate", NOW), Err(IdentifyError::InvalidToken), "{why}");
    };
    assert!(accept(&signed(&key, &claims()), &key, "dockgate", NOW).is_ok());
    for (name, value) in [("iss", json!("other")), ("aud", json!("other")), ("aud", json!(["dockgate", "other"]))] {
        let mut changed = claims();
        changed[name] = value;
        refused(&signed(&key, &changed), name);
    }
    for name in ["iss", "sub", "aud", "exp", "nbf", "iat", "access"] {
        let mut changed = claims();
        changed.as_object_mut().unwrap().remove(name);
        refused(&signed(&key, &changed), name);
    }
    refused(&signed(&other, &claims()), "another key");
    let named = Header { kid: Some(key.newest().id.clone()), ..Header::new(Algorithm::ES256) };
    refused(&encode(&named, &claims(), &other.newest().encoding).unwrap(), "another key under this one's name");
    let unnamed = Header::new(Algorithm::ES256);
    refused(&encode(&unnamed, &claims(), &key.newest().encoding).unwrap(), "no key's name");
    let misnamed = Header { kid: Some(other.newest().id.clone()), ..Header::new(Algorithm::ES256) };
    refused(&encode(&misnamed, &claims(), &key.newest().encoding).unwrap(), "another key's name");
}

#[test]
fn no_other_algorithm_is_taken() {
    let key = TokenKeys::generate(NOW).unwrap();
    let refused = |token: &str, why: &str| {
        assert_eq!(accept(token, &key, "dockgate", NOW), Err(IdentifyError::InvalidToken), "{why}");
    };
    for algorithm in ["none", "None", "", "HS256", "ES384", "RS256"] {
        let header =
            URL_SAFE_NO_PAD.encode(json!({"alg": algorithm, "typ": "JWT", "kid": key.newest().id()}).to_string());
        let body = URL_SAFE_NO_PAD.encode(claims().to_string());
        refused(&format!("{header}.{body}."), algorithm);
        let signature = signed(&key, &claims()).rsplit('.').next().unwrap().to_owned();
        refused(&format!("{header}.{body}.{signature}"), algorithm);
    }
    // The public key is no secret: an HMAC made with it must not pass for our signature.
    let public = key.newest().decoding.try_get_as_bytes().unwrap();
    let header = Header { kid: Some(key.newest().id.clone()), ..Header::new(Algorithm::HS256) };
    refused(&encode(&header, &claims(), &EncodingKey::from_secret(public)).unwrap(), "HS256 with the public key");
}

#[test]
fn a_token_that_could_not_be_sent_is_not_made() {
    let key = TokenKeys::generate(NOW).unwrap();
    let grants: Vec<_> = (0..100).map(|n| grant(&format!("{n}/{}", "x".repeat(200)), &Action::ALL)).collect();
    let error = issue(&alice(), OWN, &grants, key.newest(), Duration::from_secs(60), NOW);
    assert_eq!(error, Err(IssueError::TooManyGrants));
    assert!(issue(&alice(), OWN, &grants[..30], key.newest(), Duration::from_secs(60), NOW).is_ok());
}

#[test]
fn a_token_for_another_service_is_not_for_us() {
    let keys = TokenKeys::generate(NOW).unwrap();
    let lifetime = Duration::from_secs(60);
    let token = issue(&alice(), ("dockgate", "registry.example"), &[], keys.newest(), lifetime, NOW).unwrap().token;
    assert_eq!(part(&token, 1)["aud"], "registry.example");
    assert_eq!(part(&token, 1)["iss"], "dockgate");
    assert_eq!(accept(&token, &keys, "dockgate", NOW), Err(IdentifyError::InvalidToken));
}

#[test]
fn tokens_of_a_key_that_was_turned_are_still_good() {
    let old = TokenKeys::generate(0).unwrap();
    let token = issued(&old, &[]);
    let new = old.turned(NOW, Duration::from_secs(1), Duration::from_secs(300)).unwrap().unwrap();
    assert!(accept(&token, &new, "dockgate", NOW).is_ok());
    assert_ne!(part(&issued(&new, &[]), 0)["kid"], part(&token, 0)["kid"]);
}

fn password_hash(text: &str) -> PasswordHash {
    let line = format!("alice:{text}");
    let users = Users::parse(line.as_bytes()).unwrap();
    users.hashes["alice"].clone()
}

const FIRST: &str = "$2y$04$V/beqf6odThiu48mpJBXXOIFeHdi4jsD/XhqncLqdj3z7EAD8zde2";
const SECOND: &str = "$2y$04$W/beqf6odThiu48mpJBXXOIFeHdi4jsD/XhqncLqdj3z7EAD8zde2";

#[test]
fn a_refresh_token_ends_with_its_time_its_password_and_its_user() {
    let keys = TokenKeys::generate(NOW).unwrap();
    let (first, second) = (password_hash(FIRST), password_hash(SECOND));
    let token = issue_refresh(("alice", &first), OWN, keys.newest(), Duration::from_secs(60), NOW).unwrap();
    let take = |hash: Option<&PasswordHash>, service, now| {
        accept_refresh(&token, &keys, ("dockgate", service), |user| hash.filter(|_| user == "alice"), now)
    };
    assert_eq!(take(Some(&first), "dockgate", NOW + 59), Ok("alice".to_owned()));
    assert_eq!(take(Some(&first), "dockgate", NOW + 60), Err(IdentifyError::ExpiredToken));
    assert_eq!(take(Some(&second), "dockgate", NOW), Err(IdentifyError::InvalidToken), "another password");
    assert_eq!(take(None, "dockgate", NOW), Err(IdentifyError::InvalidToken), "no such user any more");
    assert_eq!(take(Some(&first), "other", NOW), Err(IdentifyError::InvalidToken), "another service");
}

#[test]
fn neither_kind_of_token_is_taken_for_the_other() {
    let keys = TokenKeys::generate(NOW).unwrap();
    let hash = password_hash(FIRST);
    let refresh = issue_refresh(("alice", &hash), OWN, keys.newest(), Duration::from_secs(60), NOW).unwrap();
    assert_eq!(accept(&refresh, &keys, "dockgate", NOW), Err(IdentifyError::InvalidToken));
    let access = issued(&keys, &[]);
    let taken = accept_refresh(&access, &keys, OWN, |_| Some(&hash), NOW);
    assert_eq!(taken, Err(IdentifyError::InvalidToken));
    // The type alone makes the difference here: all else is as in a refresh token.
    let claims = part(&refresh, 1);
    let header = Header { kid: Some(keys.newest().id.clone()), ..Header::new(Algorithm::ES256) };
    let mistyped = encode(&header, &claims, &keys.newest().encoding).unwrap();
    assert_eq!(accept_refresh(&mistyped, &keys, OWN, |_| Some(&hash), NOW), Err(IdentifyError::InvalidToken));
}
