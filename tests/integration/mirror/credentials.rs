//! Credentials: shown to the upstream and to nobody else, renewed when they end, and never written anywhere.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};

use super::{Mirror, OPEN, cache_is_clean, crowd, is_error, mirror_of, noise, prepare, pull, pullers};
use crate::support::gate::{Prepared, wait_until};
use crate::support::v2_upstream::{Door, Fault, Latch};
use crate::support::{Gate, V2Upstream};

const USER: &str = "username = \"canary-user\"\npassword = \"canary-password\"";
const PATH: &str = "/v2/up/app/manifests/v1";

fn door(door: Door) -> Door {
    door.user("canary-user", "canary-password", &["*"])
}

#[test]
fn one_token_serves_all() {
    for clients in [1, 50] {
        let mirror = Mirror::start(&format!("{USER}\nfirst_byte_timeout = \"2s\""));
        let layer = noise(1, 200_000);
        let (_, blob) = mirror.up.image("app", "v1", &layer);
        mirror.up.guard(door(Door::bearer()));
        for puller in pullers(&mirror.gate, clients, &format!("/v2/up/app/blobs/{blob}")) {
            assert!(puller.join().unwrap().unwrap().expect(200).body == layer);
        }
        mirror.pull(PATH).expect(200);
        assert_eq!(mirror.up.count("GET", "/token"), 1);
        let token = &mirror.up.asked_for("GET", "/token")[0];
        assert!(token.header("authorization").is_some_and(|shown| shown.starts_with("Basic ")));
        assert!(token.query.contains("scope=repository:app:pull"), "{}", token.query);
    }
}

#[test]
fn a_token_that_ended_is_renewed_and_nobody_notices() {
    for clients in [1, 50] {
        let mirror = Mirror::start(&format!("{USER}\nfirst_byte_timeout = \"2s\""));
        let layer = noise(2, 200_000);
        let (_, blob) = mirror.up.image("app", "v1", &layer);
        mirror.up.guard(door(Door::bearer()));
        mirror.pull(PATH).expect(200);
        mirror.up.expire_tokens();
        let latch = Latch::new();
        mirror.up.fault_some("GET", "/blobs/", 0..1, Fault::Hold(latch.clone()));
        let pullers = crowd(&mirror.gate, clients, &format!("/v2/up/app/blobs/{blob}"));
        latch.open();
        for puller in pullers {
            assert!(puller.join().unwrap().unwrap().expect(200).body == layer);
        }
        assert_eq!(mirror.up.count("GET", "/token"), 2);
        // With the old token, and with the new one, which the HEAD of another reader may have fetched before.
        let asked = mirror.up.count("GET", "/blobs/");
        assert!(asked == 2 || clients > 1 && asked == 1, "{asked}");
        cache_is_clean(&mirror.gate.path("cache"));
    }
}

#[test]
fn a_token_that_ends_within_a_download_is_renewed_for_the_rest() {
    let mirror = Mirror::start(&format!("{USER}\nidle_timeout = \"20s\""));
    let layer = noise(3, 400_000);
    let (_, blob) = mirror.up.image("app", "v1", &layer);
    mirror.up.guard(door(Door::bearer()));
    mirror.pull(PATH).expect(200);
    let latch = Latch::new();
    mirror.up.fault_some("GET", "/blobs/", 0..1, Fault::HoldAt(50, latch.clone()));
    mirror.up.fault_some("GET", "/blobs/", 0..1, Fault::Truncated(50));
    let puller = crowd(&mirror.gate, 1, &format!("/v2/up/app/blobs/{blob}")).remove(0);
    mirror.up.wait_for("GET", "/blobs/", 1);
    mirror.up.expire_tokens();
    latch.open();
    assert!(puller.join().unwrap().unwrap().expect(200).body == layer);
    cache_is_clean(&mirror.gate.path("cache"));
}

#[test]
fn a_strange_token_service_sees_nothing() {
    let stranger = V2Upstream::start();
    stranger.guard(Door::bearer());
    let mirror = Mirror::start(USER);
    let (_, blob) = mirror.up.image("app", "v1", b"a layer");
    let realm = format!("http://localhost:{}/token", stranger.address.port());
    mirror.up.guard(door(Door::bearer()).realm(&realm));
    for path in [PATH, &format!("/v2/up/app/blobs/{blob}")] {
        is_error(&mirror.pull(path), 503, "UNAVAILABLE");
    }
    assert_eq!(stranger.connections(), 0);
    mirror.gate.wait_for_log("list it in realms in upstreams/up.toml");
}

#[test]
fn a_token_service_that_fails_is_no_refusal() {
    for (fault, status) in [(Fault::Status(500), 503), (Fault::Status(429), 503), (Fault::Silent, 504)] {
        let mirror = Mirror::start(USER);
        mirror.up.image("app", "v1", b"a layer");
        mirror.up.guard(door(Door::bearer()));
        mirror.up.fault("GET", "/token", fault);
        is_error(&mirror.pull(PATH), status, "UNAVAILABLE");
        mirror.up.heal();
        // Who comes while the question of before is about to end gets its answer.
        wait_until("it is pulled", || mirror.pull(PATH).status == 200);
    }
}

#[test]
fn fifty_who_were_throttled_at_the_token_service_logged_in_a_hundred_and_fifty_times() {
    const CLIENTS: usize = 50;
    let pull_all = |mirror: &Mirror| {
        let tags = (0..CLIENTS).map(|number| format!("/v2/up/app/manifests/v{number}"));
        let pullers: Vec<_> = tags.flat_map(|path| pullers(&mirror.gate, 1, &path)).collect();
        pullers.into_iter().map(|puller| puller.join().unwrap().unwrap()).collect::<Vec<_>>()
    };
    for (wait, status, logins) in [(1, 200, 2), (3600, 503, 1)] {
        let mirror = Mirror::start(&format!("{USER}\nfirst_byte_timeout = \"3s\""));
        for number in 0..CLIENTS {
            mirror.up.image("app", &format!("v{number}"), b"a layer");
        }
        mirror.up.guard(door(Door::bearer()));
        mirror.up.fault_some("GET", "/token", 0..1, Fault::StatusRetryAfter(429, wait));
        let began = Instant::now();
        let answers = pull_all(&mirror);
        let took = began.elapsed();
        assert!(answers.iter().all(|answer| answer.status == status), "{:?}", answers[0].text());
        assert_eq!(mirror.up.count("GET", "/token"), logins);
        match status {
            200 => assert!(took >= Duration::from_secs(1), "{took:?}"),
            _ => {
                assert!(took < Duration::from_secs(2), "{took:?}");
                assert!(answers.iter().all(|answer| answer.header("retry-after").is_some()));
            }
        }
    }
}

/// A certificate for this machine that signed itself.
pub(super) fn certificate(prepared: &Prepared, name: &str) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    prepared.write(&format!("{name}.key"), &key.serialize_pem());
    prepared.write(&format!("{name}.crt"), &params.self_signed(&key).unwrap().pem());
    (prepared.path(&format!("{name}.crt")), prepared.path(&format!("{name}.key")))
}

#[test]
fn a_certificate_that_is_not_trusted_gets_no_request() {
    let prepared = prepare(OPEN, "kind = \"mirror\"\nurl = \"http://127.0.0.1:1\"\n");
    let (right, key) = certificate(&prepared, "right");
    certificate(&prepared, "wrong");
    let up = V2Upstream::tls(&right, &key);
    let layer = noise(4, 300_000);
    let (_, blob) = up.image("app", "v1", &layer);
    up.guard(door(Door::basic()));
    let url = format!("https://{}", up.address);
    let path = format!("/v2/up/app/blobs/{blob}");
    for ca in ["", "ca = \"wrong.crt\""] {
        prepared.write("upstreams/up.toml", &mirror_of(&url, &format!("{USER}\n{ca}")));
        let gate = prepared.start();
        for clients in [1, 50] {
            for puller in pullers(&gate, clients, &path) {
                is_error(&puller.join().unwrap().unwrap(), 503, "UNAVAILABLE");
            }
        }
        assert!(up.asked().is_empty(), "{ca}");
        assert_eq!(gate.stop(), 0);
    }
    prepared.write("upstreams/up.toml", &mirror_of(&url, &format!("{USER}\nca = \"right.crt\"")));
    let gate = prepared.start();
    assert!(pull(gate.main, &path, &[]).unwrap().expect(200).body == layer);
    cache_is_clean(&prepared.path("cache"));
}

#[test]
fn a_reset_under_tls_is_a_break_too() {
    let prepared = prepare(OPEN, "kind = \"mirror\"\nurl = \"http://127.0.0.1:1\"\n");
    let (certificate, key) = certificate(&prepared, "own");
    let up = V2Upstream::tls(&certificate, &key);
    let layer = noise(5, 300_000);
    let (_, blob) = up.image("app", "v1", &layer);
    prepared.write("upstreams/up.toml", &mirror_of(&format!("https://{}", up.address), "ca = \"own.crt\""));
    let gate = prepared.start();
    let path = format!("/v2/up/app/blobs/{blob}");
    // Without a length, an end without close_notify must not be taken for the end.
    up.fault("GET", "/blobs/", Fault::NoLength);
    up.fault("GET", "/blobs/", Fault::Truncated(50));
    pull(gate.main, &path, &[]).expect_err("it is not whole");
    up.heal();
    up.fault_some("GET", "/blobs/", 0..1, Fault::Reset(60));
    assert!(pull(gate.main, &path, &[]).unwrap().expect(200).body == layer);
    cache_is_clean(&prepared.path("cache"));
}

/// Everything a gateway wrote or tells while its upstream is pulled from, refuses it and fails.
fn all_that_is_told(prepared: &Prepared, up: &V2Upstream) -> String {
    let gate = prepared.start();
    let (_, blob) = up.image("app", "v1", b"a layer");
    let mut told = String::new();
    let mut get = |gate: &Gate, path: &str| {
        let answer = pull(gate.main, path, &[]).unwrap();
        told += &format!("{:?}{}", answer.headers, answer.text());
        answer.status
    };
    for kind in [Door::basic, Door::bearer] {
        up.guard(door(kind()));
        assert_eq!(get(&gate, PATH), 200);
        up.expire_tokens();
        assert_eq!(get(&gate, &format!("/v2/up/app/blobs/{blob}")), 200);
        up.guard(kind());
        assert!(matches!(get(&gate, "/v2/up/app/manifests/v2"), 403 | 503));
        up.fault("HEAD", "/manifests/", Fault::Redirect("http://127.0.0.1:1/x?signature=canary-url".to_owned()));
        assert!(get(&gate, "/v2/up/app/manifests/v3") >= 400);
        up.heal();
    }
    told += &gate.admin().get("/metrics").expect(200).text();
    told += &gate.printed.lock().unwrap();
    let log = std::sync::Arc::clone(&gate.log);
    assert_eq!(gate.stop(), 0);
    let log = log.lock().unwrap();
    assert!(log.contains("TRACE") || log.contains("DEBUG") || log.contains("INFO"), "{log}");
    told + &log
}

#[test]
fn secrets_are_nowhere_but_at_the_upstream() {
    let config = format!("{OPEN}[log]\nlevel = \"trace\"\n");
    let command = "credential_command = [\"sh\", \"credentials.sh\", \"canary-argument\"]";
    for (more, secrets) in [("username = \"canary-user\"\npassword_file = \"password\"", 1), (USER, 1), (command, 1)] {
        let up = V2Upstream::start();
        let prepared = prepare(&config, &mirror_of(&up.url(), more));
        prepared.write("password", "canary-password\n");
        prepared.write("credentials.sh", "echo canary-user:canary-password; echo canary-noise >&2\n");
        let told = all_that_is_told(&prepared, &up);
        let basic = "Y2FuYXJ5LXVzZXI6Y2FuYXJ5LXBhc3N3b3Jk";
        for secret in [
            "canary-user",
            "canary-password",
            "canary-argument",
            "canary-noise",
            "canary-url",
            basic,
            "token-1",
            "token-2",
        ] {
            let line = told.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{more}");
        }
        let shown = up
            .asked()
            .iter()
            .filter(|asked| asked.header("authorization").is_some_and(|shown| shown.contains(basic)))
            .count();
        assert!(shown >= secrets, "the upstream saw them");
    }
}

#[test]
fn a_command_that_fails_or_hangs_is_told_and_stops_nothing_else() {
    for (script, words) in [
        ("echo canary-password >&2; exit 3", "run it by hand to see why"),
        ("exec sleep 60", "it did not end within 0.5 s"),
        ("echo nonsense", "neither user:password nor"),
    ] {
        let up = V2Upstream::start();
        up.image("app", "v1", b"a layer");
        up.guard(door(Door::basic()));
        let more = "credential_command = [\"sh\", \"credentials.sh\"]\ncredential_timeout = \"500ms\"";
        let prepared = prepare(OPEN, &mirror_of(&up.url(), more));
        prepared.write("credentials.sh", script);
        let gate = prepared.start();
        is_error(&pull(gate.main, PATH, &[]).unwrap(), 503, "UNAVAILABLE");
        gate.wait_for_log(words);
        assert!(!gate.log.lock().unwrap().contains("canary-password"));
        crate::support::content::push_image(&gate.plain(), "app", "v1");
        gate.plain().get("/v2/app/manifests/v1").expect(200);
    }
    let prepared = prepare(OPEN, &mirror_of("http://127.0.0.1:1", "username = \"x\"\npassword_file = \"missing\""));
    // It is left out, and all else goes on.
    let gate = prepared.start();
    gate.wait_for_log("upstreams/up.toml:");
    is_error(&pull(gate.main, PATH, &[]).unwrap(), 503, "UNAVAILABLE");
    let (code, text) = prepared.fail(&["check"]);
    assert_eq!(code, 78, "{text}");
    for words in ["upstreams/up.toml:", "password_file", "missing"] {
        assert!(text.contains(words), "{words} is not in {text}");
    }
}
