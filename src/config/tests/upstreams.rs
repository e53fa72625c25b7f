//! `upstreams/*.toml`.

use std::time::Duration;

use super::Site;
use crate::docker::LegacyClients;

use crate::config::environment::variable;
use crate::config::{BasicCredentials, Health, Legacy, RemoteKind, Secret, Upstream, keys, legacy_keys, remote_keys};

const GOOD: &[u8] = b"kind = \"legacy\"\npeers = [\"http://127.0.0.1:5002\"]\n";

fn legacy(site: &Site, name: &str) -> Legacy {
    match site.load(&[]).unwrap().upstreams.remove(name).unwrap() {
        Upstream::Legacy(legacy) => *legacy,
        Upstream::Remote(remote) => panic!("{remote:?}"),
    }
}

fn errors(file: &str) -> Vec<String> {
    Site::new("").with("upstreams/old.toml", file.as_bytes()).errors(&[])
}

#[test]
fn a_legacy_upstream_thinks_long_by_default() {
    let legacy = legacy(&Site::new("").with("upstreams/old-1.toml", GOOD), "old-1");
    let health = Health {
        path: "/v1/_ping".into(),
        interval: Duration::from_secs(5),
        failures: 3,
        successes: 1,
        accepts_refusal: false,
    };
    let transport = legacy.transport;
    assert_eq!(transport.name, "old-1");
    assert_eq!(transport.peers[0].authority, "127.0.0.1:5002");
    assert_eq!((transport.health, legacy.clients), (Some(health), LegacyClients::Before1_6));
    assert_eq!((transport.first_byte_timeout.as_secs(), transport.idle_timeout.as_secs()), (900, 900));
    assert_eq!((transport.connect_timeout.as_secs(), transport.concurrency), (5, 64));
    assert!(!legacy.forward_basic && legacy.credentials.is_none() && transport.ca.is_none());
}

#[test]
fn one_that_is_switched_off_is_read_but_not_there() {
    let site = Site::new("").with("upstreams/old.toml", &[GOOD, b"enabled = false"].concat());
    assert!(site.load(&[]).unwrap().upstreams.is_empty());
    assert_eq!(
        errors("kind = \"legacy\"\nenabled = false\npeers = [\"x\"]\n"),
        ["upstreams/old.toml:3:10: peers[0]: found \"x\", but it takes URLs such as \"http://127.0.0.1:5002\", \
             without a \
          user, a path or a query"]
    );
}

#[test]
fn the_password_may_stand_in_a_file() {
    let file = [GOOD, b"username = \"gate\"\npassword_file = \"secret\"\n"].concat();
    let site = Site::new("").with("upstreams/old.toml", &file).with("secret", b"hunter2\n");
    let credentials = BasicCredentials { username: "gate".into(), password: Secret::new("hunter2") };
    assert_eq!(legacy(&site, "old").credentials, Some(credentials));
    let config = site.load(&[]).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    let names: Vec<_> =
        config.watched_files().iter().map(|path| path.strip_prefix(site.path()).unwrap().to_owned()).collect();
    assert_eq!(
        names.iter().map(|name| name.to_str().unwrap()).collect::<Vec<_>>(),
        ["gateway.toml", "upstreams", "upstreams/old.toml", "secret"]
    );
}

#[test]
fn mistakes_name_the_file_of_the_upstream() {
    let good = "kind = \"legacy\"\npeers = [\"http://a\"]\n";
    for (rest, expected) in [
        ("prefix = \"x\"", "3:1: prefix: unknown key; known here: kind, enabled, peers, clients"),
        (
            "url = 1",
            "3:1: url: unknown key; known here: kind, enabled, peers, clients, standalone, forward_basic, username, password, \
             password_file, health, ca, client_certificate, client_key, http2, proxy, connect_timeout, first_byte_timeout, \
             idle_timeout, rate_bytes, rate_window, retries, concurrency, bytes_per_second",
        ),
        ("health = { pth = 1 }", "3:12: health.pth: unknown key; did you mean \"path\"?"),
        (
            "health.path = \"x y\"",
            "3:15: health.path: found \"x y\", but it takes a path that begins with / and has no spaces",
        ),
        (
            "clients = \"docker < 1.7\"",
            "3:11: clients: found \"docker < 1.7\", but it takes \"docker < 1.6\" or \"docker < 1.10\"; did you mean \"docker < 1.6\"?",
        ),
        ("username = \"a\"", "3:12: username: this needs password or password_file too"),
        ("password = \"hunter2\"", "3:12: password: this needs username too"),
        (
            "username = \"a:b\"\npassword = \"p\"",
            "3:12: username: found \"a:b\", but it takes a name that is not empty and has no : in it",
        ),
        (
            "username = \"a\"\npassword = 12345",
            "4:12: password: found something else, but it takes a string that is not empty",
        ),
        (
            "username = \"a\"\npassword = \"p\"\npassword_file = \"f\"",
            "5:17: password_file: password (upstreams/old.toml:4:12) is given too; keep one of the two",
        ),
        (
            "username = \"a\"\npassword_file = \"f\"",
            "4:17: password_file: f cannot be read: No such file or directory (os error 2)",
        ),
        (
            "username = \"a\"\npassword = \"p\"\nforward_basic = true",
            "5:17: forward_basic: true does not go with username (upstreams/old.toml:3:12): only one of them can be \
             sent",
        ),
        (
            "standalone = false\nforward_basic = true",
            "3:14: standalone: false does not go with forward_basic (upstreams/old.toml:4:17): only one of them can be sent",
        ),
        (
            "standalone = false\nusername = \"a\"\npassword = \"p\"",
            "3:14: standalone: false does not go with username (upstreams/old.toml:4:12): only one of them can be sent",
        ),
    ] {
        let texts = errors(&format!("{good}{rest}"));
        assert_eq!(texts.len(), 1, "{texts:?}");
        let expected = format!("upstreams/old.toml:{expected}");
        assert!(texts[0].starts_with(&expected), "{}\n{expected}", texts[0]);
    }
}

#[test]
fn a_file_must_say_what_it_is() {
    for (file, expected) in [
        (
            "kind = \"legcy\"",
            "upstreams/old.toml:1:8: kind: found \"legcy\", but it takes \"legacy\", \"mirror\" or \"fronted\"; did \
             you mean \"legacy\"?",
        ),
        ("peers = []", "upstreams/old.toml: kind: missing; it takes \"legacy\", \"mirror\" or \"fronted\""),
        (
            "kind = \"legacy\"",
            "upstreams/old.toml: peers: missing; it takes a list of URLs such as \"http://127.0.0.1:5002\", without \
             a user, a path or a query",
        ),
        (
            "kind = legacy",
            "upstreams/old.toml:1:8: this is not TOML: string values must be quoted, expected literal string",
        ),
        (
            "kind = \"legacy\"\npeers = [\"http://a\", \"http://a:80\"]",
            "upstreams/old.toml:2:9: peers: a:80 stands in the list twice; remove it once",
        ),
    ] {
        assert_eq!(errors(file), [expected], "{file}");
    }
}

#[test]
fn a_password_in_a_url_is_not_repeated() {
    let texts = errors("kind = \"legacy\"\npeers = [\"http://user:hunter2@a\"]");
    assert_eq!(
        texts,
        ["upstreams/old.toml:2:10: peers[0]: found a URL with a user in it, but it takes URLs such as \
          \"http://127.0.0.1:5002\", without a user, a path or a query"]
    );
}

/// Whatever key it was given for, as a text, in a list and in the environment. Paths are no URLs, and are told as they are.
#[test]
fn no_error_repeats_a_secret_of_a_url() {
    let of_upstreams = [
        ("mirror", remote_keys(RemoteKind::Mirror)),
        ("fronted", remote_keys(RemoteKind::Fronted)),
        ("legacy", legacy_keys()),
    ];
    let of_upstreams = of_upstreams.into_iter().flat_map(|(kind, keys)| keys.into_iter().map(move |key| (kind, key)));
    let mut told = String::new();
    for (kind, key) in keys().into_iter().map(|key| ("", key)).chain(of_upstreams) {
        for url in ["https://ada:canary@registry.example", "https://a b/?access_token=canary#canary", "ada:canary@host"]
        {
            let path = key.path.replace("[0]", "");
            for line in [format!("{path} = {url:?}"), format!("{path} = [{url:?}]")] {
                told += &match kind {
                    _ if key.kind == "path" => continue,
                    "" => Site::new(&line),
                    kind => Site::new("").with("upstreams/up.toml", format!("kind = \"{kind}\"\n{line}").as_bytes()),
                }
                .errors(&[])
                .join("\n");
            }
            if kind.is_empty() && key.kind != "path" {
                told += &Site::new("").errors(&[(&variable(&key.path), url)]).join("\n");
            }
            assert!(!told.contains("canary"), "{kind} {} {told}", key.path);
        }
    }
    assert!(told.matches("***").count() > 300, "{}", told.matches("***").count());
}

#[test]
fn there_is_one_legacy_upstream() {
    let site = Site::new("").with("upstreams/a.toml", GOOD).with("upstreams/b.toml", GOOD);
    assert_eq!(
        site.errors(&[]),
        ["upstreams/b.toml:1:8: kind: \"legacy\" is the kind of a.toml too, and there may be one of it in this \
             version; write \
          enabled = false in b.toml or in a.toml"]
    );
    let site = site.with("upstreams/b.toml", &[GOOD, b"enabled = false"].concat());
    assert_eq!(site.load(&[]).unwrap().upstreams.len(), 1);
}

#[test]
fn the_name_of_the_file_is_the_name_of_the_upstream() {
    for name in ["Old", "a_b", "hosted", ""] {
        let site = Site::new("").with(&format!("upstreams/x{name}.toml").replace("xhosted", "hosted"), GOOD);
        let expected = matches!(name, "").then_some(1);
        assert_eq!(site.load(&[]).ok().map(|config| config.upstreams.len()), expected, "{name}");
    }
    let site = Site::new("").with("upstreams/a_b.toml", GOOD);
    assert_eq!(
        site.errors(&[]),
        ["upstreams/a_b.toml: the file's name is the upstream's: lower-case letters, digits and -, and not \
             \"hosted\"; rename \
          it"]
    );
    let site = Site::new("").with("upstreams/.a.toml", b"x").with("upstreams/a.toml.bak", b"x");
    assert_eq!(site.errors(&[]), [""; 0], "hidden files and others are not looked at");
}

#[test]
fn mistakes_of_all_files_are_told_at_once() {
    let site = Site::new("x = ").with("upstreams/a.toml", b"kind = 1").with("upstreams/b.toml", b"\xff");
    let texts = site.errors(&[]);
    let starts: Vec<_> = texts.iter().map(|text| text.split(':').next().unwrap()).collect();
    assert_eq!(starts, ["gateway.toml", "upstreams/a.toml", "upstreams/b.toml"], "{texts:?}");
}

#[test]
fn there_is_an_end_to_upstreams() {
    let mut site = Site::new("");
    for number in 0..1_001 {
        site = site.with(&format!("upstreams/u{number}.toml"), b"");
    }
    let expected = "upstreams: cannot be read: it holds 1001 upstreams, but there may be 1000";
    assert_eq!(site.errors(&[]), [expected]);
}
