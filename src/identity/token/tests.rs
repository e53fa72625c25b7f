use super::*;
use crate::identity::jwt::NOT_BEFORE_LEEWAY_SECONDS;
use crate::identity::token_keys::Rotation;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use std::time::SystemTime;

const NOW: u64 = 1_700_000_000;

fn grant(repository: &str, actions: &[Action]) -> Grant {
    Grant { repository: repository.parse().unwrap(), actions: actions.iter().copied().collect() }
}

fn alice() -> Principal {
    Principal::user("alice", vec![])
}

fn keys() -> TokenKeys {
    TokenKeys::generate(SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)).unwrap()
}

fn issue_for(
    principal: &Principal,
    service: &str,
    grants: &[Grant],
    keys: &TokenKeys,
    lifetime: u64,
) -> Result<IssuedToken, IssueError> {
    let lifetime = Duration::from_secs(lifetime);
    let delete = grants.iter().any(|grant| grant.actions.allow(Action::Delete));
    let wish = &Wish { grants: grants.to_vec(), catalog: false, delete };
    issue(&Order { principal, hash: None, issuer: "dockgate", service, wish, lifetime, chain: true }, keys, NOW)
}

/// What can be done with a token that was not asked to delete.
fn most() -> Actions {
    Actions::from(Action::Pull) | Action::Push.into()
}

fn issued(keys: &TokenKeys, grants: &[Grant]) -> String {
    issue_for(&alice(), "dockgate", grants, keys, 60).unwrap().token
}

/// Claims that are accepted as they are.
fn claims() -> Value {
    json!({"iss": "dockgate", "sub": "alice", "aud": "dockgate", "exp": NOW + 60, "nbf": NOW, "iat": NOW, "jti": "x", "ceiling": []})
}

fn signed(keys: &TokenKeys, claims: &Value) -> String {
    let key = keys.signing(NOW);
    let header = Header { kid: Some(key.id.clone()), ..Header::new(Algorithm::ES256) };
    encode(&header, claims, &key.encoding).unwrap()
}

/// Who a token says that its holder is, and what they can do at the most.
type Said = (Option<String>, Actions);

fn accept(token: &str, keys: &TokenKeys, service: &str, now: u64) -> Result<Said, IdentifyError> {
    said(super::accept(token, keys, &Memory::new(), service, now))
}

fn said(accepted: Result<Accepted, IdentifyError>) -> Result<Said, IdentifyError> {
    accepted.map(|accepted| (accepted.user().map(str::to_owned), accepted.ceiling))
}

fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn a_token_says_what_docker_says_it_does() {
    let keys = keys();
    let grants = [grant("a/b", &[Action::Pull, Action::Create]), grant("c", &Action::ALL), grant("d", &[])];
    let token = issue_for(&alice(), "dockgate", &grants, &keys, 60).unwrap();
    assert_eq!((token.expires_in, token.issued_at.as_str()), (60, "2023-11-14T22:13:20Z"));
    assert_eq!(token.scope, "repository:a/b:pull,push repository:c:pull,push,delete");
    let header = part(&token.token, 0);
    assert_eq!(header, json!({"alg": "ES256", "typ": "JWT", "kid": keys.signing(NOW).id()}));
    let mut claims = part(&token.token, 1);
    let id = claims["jti"].take();
    assert_eq!(id.as_str().unwrap().len(), 22);
    // Who and what at the most; the repositories are the rules' business.
    let ceiling = json!(["pull", "push", "delete"]);
    let expected = json!({"iss": "dockgate", "sub": "alice", "aud": "dockgate", "exp": NOW + 60, "nbf": NOW, "iat": NOW, "jti": null, "ceiling": ceiling});
    assert_eq!(claims, expected);
    assert_ne!(part(&issued(&keys, &[]), 1)["jti"], id);
    let token = issue_for(&alice(), "registry.example", &grants, &keys, 60).unwrap();
    let access = json!([
        {"type": "repository", "name": "a/b", "actions": ["pull"]},
        {"type": "repository", "name": "c", "actions": ["pull", "push", "delete"]},
    ]);
    assert_eq!(part(&token.token, 1)["access"], access);
    assert_eq!(part(&token.token, 1)["ceiling"], Value::Null);
}

#[test]
fn what_was_granted_comes_back() {
    let keys = keys();
    let token = issued(&keys, &[grant("a", &[Action::Pull]), grant("b", &[Action::Create])]);
    assert_eq!(accept(&token, &keys, "dockgate", NOW), Ok((Some("alice".into()), most())));
    let all = accept(&issued(&keys, &[grant("a", &Action::ALL)]), &keys, "dockgate", NOW).unwrap();
    assert!(all.1.allow(Action::Delete) && !most().allow(Action::Delete));
    let nobody = issue_for(&Principal::anonymous(), "dockgate", &[], &keys, 60).unwrap();
    assert_eq!(accept(&nobody.token, &keys, "dockgate", NOW), Ok((None, most())));
}

#[test]
fn words_for_actions_are_read_and_unknown_ones_grant_nothing() {
    let keys = keys();
    let mut claims = claims();
    claims["ceiling"] = json!(["pull", "admin", "Push", "*", ""]);
    let accepted = accept(&signed(&keys, &claims), &keys, "dockgate", NOW).unwrap();
    assert_eq!(accepted.1, Action::Pull.into());
    // One of an older version names repositories.
    claims["ceiling"] = Value::Null;
    claims["access"] = json!([{"type": "repository", "name": "a", "actions": ["*"]}]);
    refused(&keys, &signed(&keys, &claims), "it has no ceiling");
}

#[test]
fn a_token_lives_no_longer_than_its_time() {
    let keys = keys();
    let token = issued(&keys, &[]);
    assert!(accept(&token, &keys, "dockgate", NOW + 59).is_ok());
    assert_eq!(accept(&token, &keys, "dockgate", NOW + 60), Err(IdentifyError::ExpiredToken));
    assert!(accept(&token, &keys, "dockgate", NOW - NOT_BEFORE_LEEWAY_SECONDS).is_ok());
    let too_early = accept(&token, &keys, "dockgate", NOW - NOT_BEFORE_LEEWAY_SECONDS - 1);
    assert_eq!(too_early, Err(IdentifyError::InvalidToken));
    let long = issue_for(&alice(), "dockgate", &[], &keys, 86400).unwrap();
    assert_eq!(long.expires_in, 300);
    assert_eq!(accept(&long.token, &keys, "dockgate", NOW + 300), Err(IdentifyError::ExpiredToken));
}

#[test]
fn a_changed_token_is_none() {
    let keys = keys();
    let token = issued(&keys, &[]);
    assert!(accept(&token, &keys, "dockgate", NOW).is_ok());
    for index in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert_eq!(accept(&changed, &keys, "dockgate", NOW), Err(IdentifyError::InvalidToken), "{index}");
    }
    for broken in ["", ".", "..", "a.b.c", &token[..token.len() - 1], &format!("{token}."), &format!(".{token}")] {
        assert_eq!(accept(broken, &keys, "dockgate", NOW), Err(IdentifyError::InvalidToken), "{broken}");
    }
    let long = "x".repeat(TOKEN_BYTES_MAX + 1);
    assert_eq!(accept(&long, &keys, "dockgate", NOW), Err(IdentifyError::InvalidToken));
}

#[test]
fn claims_for_others_missing_claims_and_other_keys_are_refused() {
    let (keys, others) = (keys(), keys());
    let (key, other) = (keys.signing(NOW), others.signing(NOW));
    let refused = |token: &str, why: &str| refused(&keys, token, why);
    assert!(accept(&signed(&keys, &claims()), &keys, "dockgate", NOW).is_ok());
    for (name, value) in [("iss", json!("other")), ("aud", json!("other")), ("aud", json!(["dockgate", "other"]))] {
        let mut changed = claims();
        changed[name] = value;
        refused(&signed(&keys, &changed), name);
    }
    for name in ["iss", "sub", "aud", "exp", "nbf", "iat", "ceiling"] {
        let mut changed = claims();
        changed.as_object_mut().unwrap().remove(name);
        refused(&signed(&keys, &changed), name);
    }
    refused(&signed(&others, &claims()), "another key");
    let named = Header { kid: Some(key.id.clone()), ..Header::new(Algorithm::ES256) };
    refused(&encode(&named, &claims(), &other.encoding).unwrap(), "another key under this one's name");
    let unnamed = Header::new(Algorithm::ES256);
    refused(&encode(&unnamed, &claims(), &key.encoding).unwrap(), "no key's name");
    let misnamed = Header { kid: Some(other.id.clone()), ..Header::new(Algorithm::ES256) };
    refused(&encode(&misnamed, &claims(), &key.encoding).unwrap(), "another key's name");
}

/// What nobody but we could sign, and what they try (threat A8).
fn refused(keys: &TokenKeys, token: &str, why: &str) {
    let memory = Memory::new();
    for time in ["first", "second"] {
        let answer = said(super::accept(token, keys, &memory, "dockgate", NOW));
        assert_eq!(answer, Err(IdentifyError::InvalidToken), "{why}, the {time} time");
    }
}

#[test]
fn a_token_that_was_read_is_remembered_and_ends_with_its_time_its_key_and_its_service() {
    let (first, memory) = (keys(), Memory::new());
    let token = issued(&first, &[]);
    let accept =
        |keys: &TokenKeys, service: &str, now: u64| super::accept(&token, keys, &memory, service, now).map(|_| ());
    for _ in 0..2 {
        assert_eq!(accept(&first, "dockgate", NOW), Ok(()));
        assert_eq!(accept(&first, "dockgate", NOW + 60), Err(IdentifyError::ExpiredToken));
        assert_eq!(accept(&first, "other", NOW), Err(IdentifyError::InvalidToken));
    }
    let day = Duration::from_secs(86_400);
    let rotation = Rotation { key_lifetime: day, token_lifetime: day };
    let both = first.due(rotation, NOW + 86_400).unwrap().unwrap();
    assert_eq!(accept(&both, "dockgate", NOW), Ok(()));
    let second = both.due(rotation, NOW + 3 * 86_400).unwrap().unwrap();
    assert!(!second.ids().any(|id| id == first.signing(NOW).id()));
    assert_eq!(accept(&second, "dockgate", NOW), Err(IdentifyError::InvalidToken), "its key is gone");
    assert_eq!(accept(&keys(), "dockgate", NOW), Err(IdentifyError::InvalidToken), "other keys");
}

#[test]
fn a_token_that_is_remembered_is_that_of_its_line_alone() {
    let (keys, memory) = (keys(), Memory::new());
    let [hash, other] = ["a", "b"].map(|password| PasswordHash::make(password, 4).unwrap());
    let (alice, wish, lifetime) = (alice(), Wish::default(), Duration::from_secs(60));
    let (issuer, service) = ("dockgate", "dockgate");
    let order = Order { principal: &alice, hash: Some(&hash), issuer, service, wish: &wish, lifetime, chain: false };
    let token = issue(&order, &keys, NOW).unwrap().token;
    for _ in 0..2 {
        let accepted = super::accept(&token, &keys, &memory, "dockgate", NOW).unwrap();
        assert!(!accepted.is_of("alice", &other, &keys));
        assert!(accepted.is_of("alice", &hash, &keys));
    }
}

#[test]
fn a_token_is_read_once() {
    let (keys, memory) = (keys(), Memory::new());
    let token = issued(&keys, &[]);
    let kind = Kind { issuer: "dockgate", audience: "dockgate", name: TYPE };
    let (read, _) = memory.read(&token, &kind, &keys).unwrap();
    let (again, _) = memory.read(&token, &kind, &keys).unwrap();
    assert!(std::sync::Arc::ptr_eq(&read, &again));
}

#[test]
fn no_other_algorithm_is_taken() {
    let keys = keys();
    let key = keys.signing(NOW);
    for algorithm in ["none", "None", "", "HS256", "ES384", "RS256"] {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": algorithm, "typ": "JWT", "kid": key.id()}).to_string());
        let body = URL_SAFE_NO_PAD.encode(claims().to_string());
        refused(&keys, &format!("{header}.{body}."), algorithm);
        let signature = signed(&keys, &claims()).rsplit('.').next().unwrap().to_owned();
        refused(&keys, &format!("{header}.{body}.{signature}"), algorithm);
    }
}

#[test]
fn an_hmac_made_with_the_public_key_is_no_signature() {
    let keys = keys();
    let key = keys.signing(NOW);
    let header = Header { kid: Some(key.id.clone()), ..Header::new(Algorithm::HS256) };
    let jwk = key.jwk().to_string();
    for public in [key.decoding.try_get_as_bytes().unwrap(), jwk.as_bytes(), keys.authority_pem().as_bytes()] {
        refused(&keys, &encode(&header, &claims(), &EncodingKey::from_secret(public).unwrap()).unwrap(), "HS256");
    }
}

#[test]
fn a_key_of_another_algorithm_under_our_name_signs_nothing() {
    use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
    let keys = keys();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &aws_lc_rs::rand::SystemRandom::new());
    let other = EncodingKey::from_ec_der(pkcs8.unwrap().as_ref());
    let header = Header { kid: Some(keys.signing(NOW).id.clone()), ..Header::new(Algorithm::ES384) };
    refused(&keys, &encode(&header, &claims(), &other).unwrap(), "ES384");
}

#[test]
fn a_key_that_the_token_brings_along_is_not_looked_at() {
    let (keys, others) = (keys(), keys());
    let other = others.signing(NOW);
    let jwk = serde_json::from_value(other.jwk()).unwrap();
    let mut header = Header { kid: Some(other.id.clone()), jwk: Some(jwk), ..Header::new(Algorithm::ES256) };
    header.x5c = Some(vec![others.vouch(other, NOW, NOW + 60).unwrap()]);
    header.jku = Some("https://attacker.example/keys".into());
    refused(&keys, &encode(&header, &claims(), &other.encoding).unwrap(), "an unknown name");
    header.kid = Some(keys.signing(NOW).id.clone());
    refused(&keys, &encode(&header, &claims(), &other.encoding).unwrap(), "our name");
    let critical = Header { crit: Some(vec!["b64".into()]), ..header_of(&keys) };
    refused(&keys, &encode(&critical, &claims(), &keys.signing(NOW).encoding).unwrap(), "crit");
}

fn header_of(keys: &TokenKeys) -> Header {
    jwt::header(keys.signing(NOW), TYPE)
}

#[test]
fn an_old_key_verifies_what_it_signed_and_nothing_newer() {
    let (lifetime, refresh) = (Duration::from_secs(86_400), Duration::from_secs(86_400));
    let rotation = Rotation { key_lifetime: lifetime, token_lifetime: refresh };
    let first = keys();
    let both = first.due(rotation, NOW + 86_400).unwrap().unwrap();
    let end = NOW + 86_400 + 300;
    let mut claims = claims();
    for (expires, accepted) in [(end + 300, true), (end + 1000, false)] {
        claims["exp"] = expires.into();
        let token = signed(&first, &claims);
        assert_eq!(accept(&token, &both, "dockgate", end + 60).is_ok(), accepted, "{expires}");
    }
    let order = |keys: &TokenKeys, now: u64| {
        let (principal, lifetime) = (&alice(), Duration::from_secs(60));
        let (issuer, service) = ("dockgate", "dockgate");
        let wish = &Wish::default();
        let order = Order { principal, hash: None, issuer, service, wish, lifetime, chain: true };
        part(&issue(&order, keys, now).unwrap().token, 0)["kid"].clone()
    };
    assert_eq!(order(&both, end - 1), both.ids().next().unwrap());
    assert_eq!(order(&both, end), both.ids().last().unwrap());
}

#[test]
fn a_token_for_another_service_is_for_it_alone() {
    let keys = keys();
    let grants =
        [grant("a", &[Action::Pull, Action::Create]), grant("b", &[Action::Push]), grant("c", &[Action::Create])];
    let token = issue_for(&alice(), "registry.example", &grants, &keys, 60).unwrap();
    assert_eq!(token.scope, "repository:a:pull repository:b:push", "it would let tags be moved");
    let (head, claims) = (part(&token.token, 0), part(&token.token, 1));
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!("dockgate"), &json!("registry.example")));
    assert_eq!(head["x5c"].as_array().unwrap().len(), 1);
    refused(&keys, &token.token, "it is not for us");
    let principal = &alice();
    let hash = PasswordHash::make("a", 4).unwrap();
    let order = Order {
        principal,
        hash: Some(&hash),
        issuer: "dockgate",
        service: "registry.example",
        wish: &Wish::default(),
        lifetime: Duration::from_secs(60),
        chain: false,
    };
    let token = issue(&order, &keys, NOW).unwrap().token;
    assert_eq!(part(&token, 0)["x5c"], Value::Null);
    assert_eq!(part(&token, 1)["password"], Value::Null, "it could not check that");
}

#[test]
fn a_token_that_could_not_be_sent_is_not_made() {
    let keys = keys();
    let grants: Vec<_> = (0..100).map(|n| grant(&format!("{n}/{}", "x".repeat(200)), &Action::ALL)).collect();
    let error = issue_for(&alice(), "registry.example", &grants, &keys, 60);
    assert_eq!(error, Err(IssueError::TooManyGrants));
    assert!(issue_for(&alice(), "registry.example", &grants[..20], &keys, 60).is_ok());
    // One for ourselves is as long for a thousand repositories as for one.
    let lengths =
        [1, 100].map(|count| issue_for(&alice(), "dockgate", &grants[..count], &keys, 60).unwrap().token.len());
    assert_eq!(lengths[0], lengths[1]);
}
