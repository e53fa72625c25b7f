use super::*;
use crate::identity::clock::Clock;

const DAY: u64 = 86_400;
const ROTATION: Rotation =
    Rotation { key_lifetime: Duration::from_secs(90 * DAY), token_lifetime: Duration::from_secs(30 * DAY) };

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

const START: u64 = 1_700_000_000;

/// As they are after a first look: the key is told how long its tokens may live.
fn keys() -> TokenKeys {
    TokenKeys::generate(at(START)).unwrap().due(ROTATION, START).unwrap().unwrap()
}

fn count(keys: &TokenKeys) -> usize {
    keys.ids().count()
}

#[test]
fn kept_keys_are_the_same_byte_for_byte() {
    let keys = keys().due(ROTATION, START + 90 * DAY).unwrap().unwrap();
    let kept = TokenKeys::from_kept(&keys.to_kept()).unwrap();
    assert_eq!(kept.to_kept(), keys.to_kept());
    assert_eq!(count(&kept), 2);
    assert_eq!((kept.key_set(), kept.authority_pem()), (keys.key_set(), keys.authority_pem()));
    assert_eq!(kept.fingerprint(&[b"a"]), keys.fingerprint(&[b"a"]));
    assert_ne!(kept.fingerprint(&[b"a"]), self::keys().fingerprint(&[b"a"]), "others have another secret");
}

#[test]
fn what_are_no_keys_is_refused() {
    let kept = String::from_utf8(keys().to_kept()).unwrap();
    let changed =
        |from: &str, to: &str| TokenKeys::from_kept(kept.replace(from, to).as_bytes()).map(|keys| count(&keys));
    assert_eq!(changed("", ""), Ok(1));
    for (from, to) in [("ES256", "HS256"), ("ES256", "none"), ("\"secret\":\"", "\"secret\":\"AAAA"), ("{", "[")] {
        assert_eq!(changed(from, to), Err(TokenKeyError::Kept), "{from} {to}");
    }
    assert_eq!(changed("\"pkcs8\":\"", "\"pkcs8\":\"AAAA"), Err(TokenKeyError::Malformed));
    let (head, _) = kept.split_once("\"keys\":[").unwrap();
    assert_eq!(TokenKeys::from_kept(format!("{head}\"keys\":[]}}").as_bytes()).unwrap_err(), TokenKeyError::Kept);
}

#[test]
fn a_new_key_is_shown_before_it_signs_and_the_old_one_goes_after_its_last_token() {
    let first = keys();
    let old = first.signing(START).id().to_owned();
    let notice = KEY_SET_LIFETIME.as_secs();
    assert!(first.due(ROTATION, START + 90 * DAY - notice - 1).unwrap().is_none());
    let both = first.due(ROTATION, START + 90 * DAY - notice).unwrap().unwrap();
    let new = both.ids().last().unwrap().to_owned();
    assert_eq!((both.ids().next(), count(&both)), (Some(old.as_str()), 2));
    assert_eq!(both.key_set()["keys"].as_array().unwrap().len(), 2);
    assert_eq!(both.signing(START + 90 * DAY - 1).id(), old);
    assert_eq!(both.signing(START + 90 * DAY).id(), new);
    assert!(both.due(ROTATION, START + 90 * DAY).unwrap().is_none(), "one is enough");
    let last_token = START + 120 * DAY + END_LEEWAY;
    assert!(both.due(ROTATION, last_token - 1).unwrap().is_none());
    let one = both.due(ROTATION, last_token).unwrap().unwrap();
    assert_eq!(one.ids().collect::<Vec<_>>(), [&new]);
    assert!(one.find(&old).is_none());
}

#[test]
fn a_key_that_is_overdue_gives_way_with_notice_all_the_same() {
    let late = START + 1000 * DAY;
    let both = keys().due(ROTATION, late).unwrap().unwrap();
    assert_eq!(both.signing(late).id(), both.ids().next().unwrap());
    assert_eq!(both.signing(late + KEY_SET_LIFETIME.as_secs()).id(), both.ids().last().unwrap());
}

#[test]
fn zero_means_for_ever() {
    let never = Rotation { key_lifetime: Duration::ZERO, ..ROTATION };
    assert!(keys().due(never, START + 10_000 * DAY).unwrap().is_none());
}

#[test]
fn a_key_stays_for_the_longest_life_its_tokens_ever_had() {
    let shorter = Rotation { token_lifetime: Duration::from_secs(DAY), ..ROTATION };
    let both = keys().due(shorter, START + 90 * DAY).unwrap().unwrap();
    assert!(both.due(shorter, START + 119 * DAY).unwrap().is_none(), "tokens of thirty days are out");
    let longer = Rotation { token_lifetime: Duration::from_secs(60 * DAY), ..ROTATION };
    let told = keys().due(longer, START + 1).unwrap().unwrap();
    let both = told.due(ROTATION, START + 90 * DAY).unwrap().unwrap();
    assert!(both.due(ROTATION, START + 149 * DAY).unwrap().is_none());
}

#[test]
fn a_key_that_has_ended_has_not_signed_what_lives_longer() {
    let both = keys().due(ROTATION, START + 90 * DAY).unwrap().unwrap();
    let (old, end) = (both.ids().next().unwrap(), START + 90 * DAY + KEY_SET_LIFETIME.as_secs());
    let found = both.find(old).unwrap();
    let access = Some(LIFETIME_MAX);
    assert!(found.may_have_signed(end + 300 + END_LEEWAY, access));
    assert!(!found.may_have_signed(end + 300 + END_LEEWAY + 1, access));
    assert!(found.may_have_signed(end + 30 * DAY + END_LEEWAY, None));
    assert!(!found.may_have_signed(end + 30 * DAY + END_LEEWAY + 1, None));
    assert!(both.find(both.ids().last().unwrap()).unwrap().may_have_signed(u64::MAX, access), "it signs still");
}

#[test]
fn there_are_only_so_many() {
    let quick = Rotation { key_lifetime: Duration::from_secs(1), token_lifetime: Duration::from_secs(DAY) };
    let mut keys = TokenKeys::generate(at(START)).unwrap();
    let mut now = START;
    let error = loop {
        now += 1;
        match keys.due(quick, now) {
            Ok(Some(next)) => keys = next,
            Ok(None) => {}
            Err(error) => break error,
        }
    };
    assert_eq!((error, count(&keys)), (TokenKeyError::TooMany, TOKEN_KEYS_MAX));
    let after = keys.due(quick, now + 2 * DAY).unwrap().unwrap();
    assert!(count(&after) <= 2, "{after:?}");
}

#[test]
fn a_clock_that_goes_back_finds_a_key() {
    let keys = keys();
    assert_eq!(keys.signing(0).id(), keys.ids().next().unwrap());
    assert!(keys.due(ROTATION, 0).unwrap().is_none());
}

#[test]
fn the_key_set_is_public_and_nothing_else() {
    let keys = TokenKeys::generate(Clock::system().now().wall).unwrap();
    let set = keys.key_set();
    let key = set["keys"][0].as_object().unwrap();
    assert_eq!(key.keys().collect::<Vec<_>>(), ["alg", "crv", "kid", "kty", "use", "x", "y"]);
    assert_eq!(key["kid"], keys.ids().next().unwrap());
}

#[test]
fn keys_are_not_shown() {
    let keys = keys();
    let kept: Value = serde_json::from_slice(&keys.to_kept()).unwrap();
    let shown = format!("{keys:?}");
    for secret in [&kept["secret"], &kept["authority_key"], &kept["keys"][0]["pkcs8"]] {
        assert!(!shown.contains(secret.as_str().unwrap()));
    }
    assert!(shown.contains(keys.ids().next().unwrap()));
}
