use super::*;
use jsonwebtoken::{EncodingKey, encode};
use serde_json::{Value, json};

const NOW: u64 = 1_700_000_000;

fn grant(repository: &str, actions: &[Action]) -> Grant {
    Grant { repository: repository.parse().unwrap(), actions: actions.iter().copied().collect() }
}

fn alice() -> Principal {
    Principal::user("alice", vec![])
}

fn issued(key: &TokenKey, grants: &[Grant]) -> String {
    issue(&alice(), "dockgate", grants, key, Duration::from_secs(60), NOW).unwrap().token
}

/// Claims that are accepted as they are.
fn claims() -> Value {
    json!({"iss": "dockgate", "sub": "alice", "aud": "dockgate", "exp": NOW + 60, "nbf": NOW, "iat": NOW, "jti": "x", "access": []})
}

fn signed(key: &TokenKey, claims: &Value) -> String {
    let header = Header { kid: Some(key.id.clone()), ..Header::new(Algorithm::ES256) };
    encode(&header, claims, &key.encoding).unwrap()
}

fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn a_token_says_what_docker_says_it_does() {
    let key = TokenKey::generate().unwrap();
    let grants = [grant("a/b", &[Action::Pull, Action::Create]), grant("c", &Action::ALL), grant("d", &[])];
    let token = issue(&alice(), "dockgate", &grants, &key, Duration::from_secs(60), NOW).unwrap();
    assert_eq!((token.expires_in, token.issued_at.as_str()), (60, "2023-11-14T22:13:20Z"));
    let header = part(&token.token, 0);
    assert_eq!(header, json!({"alg": "ES256", "typ": "JWT", "kid": key.id()}));
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
    let key = TokenKey::generate().unwrap();
    let token = issued(&key, &[grant("a", &[Action::Pull]), grant("b", &[Action::Create])]);
    let accepted = accept(&token, &key, "dockgate", NOW).unwrap();
    assert_eq!(accepted.user.as_deref(), Some("alice"));
    assert_eq!(accepted.grants, [grant("a", &[Action::Pull]), grant("b", &[Action::Push])]);
    let nobody = issue(&Principal::anonymous(), "dockgate", &[], &key, Duration::from_secs(60), NOW).unwrap();
    assert_eq!(
        accept(&nobody.token, &key, "dockgate", NOW),
        Ok(Accepted { user: None, grants: vec![], catalog: false })
    );
}

#[test]
fn words_for_actions_are_read_and_unknown_ones_grant_nothing() {
    let key = TokenKey::generate().unwrap();
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
    let key = TokenKey::generate().unwrap();
    let token = issued(&key, &[]);
    assert!(accept(&token, &key, "dockgate", NOW + 59).is_ok());
    assert_eq!(accept(&token, &key, "dockgate", NOW + 60), Err(IdentifyError::ExpiredToken));
    assert!(accept(&token, &key, "dockgate", NOW - NOT_BEFORE_LEEWAY_SECONDS).is_ok());
    let too_early = accept(&token, &key, "dockgate", NOW - NOT_BEFORE_LEEWAY_SECONDS - 1);
    assert_eq!(too_early, Err(IdentifyError::InvalidToken));
    let long = issue(&alice(), "dockgate", &[], &key, Duration::from_secs(86400), NOW).unwrap();
    assert_eq!(long.expires_in, 300);
    assert_eq!(accept(&long.token, &key, "dockgate", NOW + 300), Err(IdentifyError::ExpiredToken));
}

#[test]
fn a_changed_token_is_none() {
    let key = TokenKey::generate().unwrap();
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
    let (key, other) = (TokenKey::generate().unwrap(), TokenKey::generate().unwrap());
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
    let named = Header { kid: Some(key.id.clone()), ..Header::new(Algorithm::ES256) };
    refused(&encode(&named, &claims(), &other.encoding).unwrap(), "another key under this one's name");
    let unnamed = Header::new(Algorithm::ES256);
    refused(&encode(&unnamed, &claims(), &key.encoding).unwrap(), "no key's name");
    let misnamed = Header { kid: Some(other.id.clone()), ..Header::new(Algorithm::ES256) };
    refused(&encode(&misnamed, &claims(), &key.encoding).unwrap(), "another key's name");
}

#[test]
fn no_other_algorithm_is_taken() {
    let key = TokenKey::generate().unwrap();
    let refused = |token: &str, why: &str| {
        assert_eq!(accept(token, &key, "dockgate", NOW), Err(IdentifyError::InvalidToken), "{why}");
    };
    for algorithm in ["none", "None", "", "HS256", "ES384", "RS256"] {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": algorithm, "typ": "JWT", "kid": key.id()}).to_string());
        let body = URL_SAFE_NO_PAD.encode(claims().to_string());
        refused(&format!("{header}.{body}."), algorithm);
        let signature = signed(&key, &claims()).rsplit('.').next().unwrap().to_owned();
        refused(&format!("{header}.{body}.{signature}"), algorithm);
    }
    // The public key is no secret: an HMAC made with it must not pass for our signature.
    let public = key.decoding.try_get_as_bytes().unwrap();
    let header = Header { kid: Some(key.id.clone()), ..Header::new(Algorithm::HS256) };
    refused(&encode(&header, &claims(), &EncodingKey::from_secret(public)).unwrap(), "HS256 with the public key");
}

#[test]
fn a_token_that_could_not_be_sent_is_not_made() {
    let key = TokenKey::generate().unwrap();
    let grants: Vec<_> = (0..100).map(|n| grant(&format!("{n}/{}", "x".repeat(200)), &Action::ALL)).collect();
    let error = issue(&alice(), "dockgate", &grants, &key, Duration::from_secs(60), NOW);
    assert_eq!(error, Err(IssueError::TooManyGrants));
    assert!(issue(&alice(), "dockgate", &grants[..30], &key, Duration::from_secs(60), NOW).is_ok());
}
