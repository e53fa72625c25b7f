//! `upstreams/*.toml` of the kinds `mirror` and `fronted`.

use std::time::Duration;

use super::Site;
use crate::config::{Authorization, Credentials, Remote, RemoteKind, Upstream};

const GOOD: &str = "kind = \"mirror\"\nurl = \"https://registry.example\"\n";

fn remote(site: &Site, name: &str) -> Remote {
    match site.load(&[]).unwrap().upstreams.remove(name).unwrap() {
        Upstream::Remote(remote) => *remote,
        Upstream::Legacy(legacy) => panic!("{legacy:?}"),
    }
}

fn mirror(rest: &str) -> Remote {
    remote(&Site::new("").with("upstreams/hub.toml", format!("{GOOD}{rest}").as_bytes()), "hub")
}

fn errors(rest: &str) -> Vec<String> {
    Site::new("").with("upstreams/hub.toml", format!("{GOOD}{rest}").as_bytes()).errors(&[])
}

#[test]
fn a_mirror_asks_its_tags_seldom_and_a_fronted_registry_always() {
    let hub = mirror("");
    assert_eq!((hub.kind, hub.name(), hub.prefix.as_str()), (RemoteKind::Mirror, "hub", "hub"));
    assert_eq!(hub.transport.peers[0].authority, "registry.example:443");
    assert_eq!((hub.tag_ttl.as_secs(), hub.negative_ttl.as_secs(), hub.stale.as_secs()), (300, 30, 30 * 86_400));
    assert_eq!((hub.transport.retries, hub.transport.concurrency, hub.abandoned_fills), (2, 16, 4));
    assert!(hub.transport.http2 && hub.transport.proxy && hub.transport.health.is_none());
    assert!(hub.docker_mirror.is_empty() && hub.credentials.is_none() && !hub.stale_when_refused);
    assert_eq!((hub.authorization, hub.deadline.as_secs()), (Authorization::Gateway, 25));
    let file = GOOD.replace("mirror", "fronted");
    let front = remote(&Site::new("").with("upstreams/front.toml", file.as_bytes()), "front");
    assert_eq!((front.kind, front.tag_ttl), (RemoteKind::Fronted, Duration::ZERO));
}

#[test]
fn several_peers_are_checked_and_one_only_where_it_is_written() {
    let file = "kind = \"mirror\"\npeers = [\"http://a\", \"http://b\"]\n";
    let several = remote(&Site::new("").with("upstreams/hub.toml", file.as_bytes()), "hub");
    let health = several.transport.health.unwrap();
    assert_eq!((health.path.as_str(), health.interval.as_secs(), health.accepts_refusal), ("/v2/", 10, true));
    let one = mirror("health = { interval = \"1s\" }");
    assert_eq!(one.transport.health.unwrap().interval.as_secs(), 1);
}

#[test]
fn names_are_read_in_lower_case() {
    let hub = mirror(
        "prefix = \"docker.io\"\nnamespaces = [\"Docker.IO\"]\nhosts = [\"Hub.Example\"]\nofficial = \"library\"",
    );
    assert_eq!(
        (hub.prefix.as_str(), hub.namespaces, hub.hosts),
        ("docker.io", vec!["docker.io".to_owned()], vec!["hub.example".to_owned()])
    );
    assert_eq!(hub.official.unwrap().as_str(), "library");
}

#[test]
fn a_docker_mirror_answers_official_images_unless_told_otherwise() {
    let patterns = |hub: Remote| hub.docker_mirror.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(patterns(mirror("docker_mirror = true")), ["library/*"]);
    let wide = "docker_mirror = true\ndocker_mirror_repositories = [\"**\"]";
    let site = Site::new("").with("upstreams/hub.toml", format!("{GOOD}{wide}").as_bytes());
    let config = site.load(&[]).unwrap();
    let told = config.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(told.contains("hub.toml:4:30: docker_mirror_repositories: names that the built-in registry"), "{told}");
    assert_eq!(patterns(mirror("docker_mirror_repositories = [\"**\"]")), [""; 0], "it is switched off");
}

#[test]
fn credentials_are_a_user_or_a_command() {
    let command = mirror("credential_command = [\"aws\", \"ecr\"]\ncredential_lifetime = \"6h\"").credentials;
    let expected = Credentials::Command {
        command: vec!["aws".into(), "ecr".into()],
        lifetime: Duration::from_secs(6 * 3600),
        timeout: Duration::from_secs(10),
    };
    assert_eq!(command, Some(expected));
    let shown = format!("{:?}", mirror("username = \"u\"\npassword = \"hunter2\""));
    assert!(shown.contains("username") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn mistakes_say_what_is_allowed() {
    for (rest, expected) in [
        ("peers = [\"http://a\"]", "3:9: peers: url (upstreams/hub.toml:2:7) is given too; keep one of the two"),
        (
            "prefix = \"Docker\"",
            "3:10: prefix: found \"Docker\", but it takes names of lower-case letters and digits, as",
        ),
        ("tagttl = \"1s\"", "3:1: tagttl: unknown key; did you mean \"tag_ttl\"?"),
        ("tag_ttl = \"often\"", "3:11: tag_ttl: found \"often\", but it takes a duration such as"),
        (
            "authorization = \"froward\"",
            "3:17: authorization: found \"froward\", but it takes \"gateway\" or \"forward\"; did",
        ),
        (
            "credential_command = []",
            "3:22: credential_command: the list is empty; it takes a program and its arguments",
        ),
        (
            "credential_command = [\"x\"]\nusername = \"u\"\npassword = \"p\"",
            "3:22: credential_command: username (upstreams/hub.toml:4:12) is given too; keep one of the two",
        ),
        (
            "authorization = \"forward\"\nusername = \"u\"\npassword = \"p\"",
            "3:17: authorization: \"forward\" does not go with username (upstreams/hub.toml:4:12): only one of them can be sent",
        ),
        ("username = \"u\"\npassword_file = \"none\"", "4:17: password_file: none cannot be read: No such file"),
        ("client_key = \"k\"", "3:14: client_key: this needs client_certificate too"),
        (
            "private_addresses = [\"all\"]",
            "3:22: private_addresses[0]: found \"all\", but it takes addresses and networks",
        ),
        ("hosts = [\"a b\"]", "3:10: hosts[0]: found \"a b\", but it takes names such as \"docker.io\""),
    ] {
        let told = errors(rest);
        assert_eq!(told.len(), 1, "{told:?}");
        let expected = format!("upstreams/hub.toml:{expected}");
        assert!(told[0].starts_with(&expected), "{}\n{expected}", told[0]);
    }
    let told = Site::new("").with("upstreams/hub.toml", b"kind = \"mirror\"").errors(&[]);
    assert!(told[0].starts_with("upstreams/hub.toml: url: missing; it takes one of the URLs"), "{told:?}");
}

#[test]
fn two_upstreams_cannot_claim_one_name() {
    let claims = [
        ("prefix = \"docker.io\"", "prefix: \"docker.io\" belongs to a.toml too"),
        ("namespaces = [\"docker.io\"]", "namespaces: \"docker.io\" belongs to a.toml too"),
        ("hosts = [\"hub.example\"]", "hosts: \"hub.example\" belongs to a.toml too"),
        ("docker_mirror = true", "docker_mirror: dockerd's registry-mirrors belongs to a.toml too"),
    ];
    for (claim, expected) in claims {
        let file = format!("{GOOD}{claim}");
        let site = Site::new("").with("upstreams/a.toml", file.as_bytes()).with("upstreams/b.toml", file.as_bytes());
        let told = site.errors(&[]);
        assert!(
            told.len() == 1 && told[0].starts_with("upstreams/b.toml:3:") && told[0].contains(expected),
            "{told:?}"
        );
    }
    let site = Site::new("").with("upstreams/a.toml", GOOD.as_bytes()).with("upstreams/b.toml", GOOD.as_bytes());
    assert_eq!(site.load(&[]).unwrap().upstreams.len(), 2);
}

#[test]
fn an_upstream_that_is_ourselves_is_told() {
    for (listen, url, is_ours) in [
        ("0.0.0.0:5000", "http://127.0.0.1:5000", true),
        ("0.0.0.0:5000", "http://localhost:5000", true),
        ("[::]:5000", "http://[::1]:5000", true),
        ("10.0.0.1:5000", "http://10.0.0.1:5000", true),
        ("10.0.0.1:5000", "http://127.0.0.1:5000", false),
        ("0.0.0.0:5000", "http://127.0.0.1:5001", false),
        ("127.0.0.1:0", "http://127.0.0.1:5000", false),
    ] {
        let site = Site::new(&format!("listen.main.address = \"{listen}\"\nadmin.address = \"\""));
        let site = site.with("upstreams/hub.toml", format!("kind = \"mirror\"\nurl = \"{url}\"").as_bytes());
        let told = site.errors(&[]);
        let expected = format!(
            "upstreams/hub.toml: url: {url} is this gateway itself (listen.main.address); name another registry"
        );
        assert_eq!(told, if is_ours { vec![expected] } else { vec![] }, "{listen} {url}");
    }
}

#[test]
fn the_default_is_an_upstream_that_is_there() {
    let gateway = "registry.default = \"hub\"";
    let there = Site::new(gateway).with("upstreams/hub.toml", GOOD.as_bytes());
    assert_eq!(there.load(&[]).unwrap().registry.default, "hub");
    let off = format!("{GOOD}enabled = false");
    for file in [off.as_str(), "kind = \"legacy\"\npeers = [\"http://a\"]"] {
        let told = Site::new(gateway).with("upstreams/hub.toml", file.as_bytes()).errors(&[]);
        assert!(told[0].starts_with("gateway.toml:1:20: registry.default: no upstream \"hub\" of kind"), "{told:?}");
    }
}

/// Two files that named one host with two ports both had it, and one of them was never asked.
#[test]
fn a_name_of_the_gateway_has_no_port() {
    for (host, bare) in [("hub.example:5000", "hub.example"), ("[2001:db8::7]:5000", "[2001:db8::7]")] {
        let told = errors(&format!("hosts = [\"{host}\"]")).join("\n");
        assert!(told.contains(&format!("write \"{bare}\"")), "{told}");
    }
    assert_eq!(mirror("hosts = [\"hub.example\", \"[2001:db8::7]\"]").hosts.len(), 2);
}

#[test]
fn a_mirror_for_docker_beside_another_default_is_told() {
    let front = GOOD.replace("mirror", "fronted");
    let hub = format!("{GOOD}docker_mirror = true\n");
    let site = Site::new("[registry]\ndefault = \"front\"\n").with("upstreams/front.toml", front.as_bytes());
    let warnings = site.with("upstreams/hub.toml", hub.as_bytes()).load(&[]).unwrap().warnings;
    assert!(
        warnings.iter().any(|warning| warning.to_string().contains("docker_mirror of another one")),
        "{warnings:?}"
    );
}

#[test]
fn a_rate_that_serves_nobody_is_refused() {
    let told = |line: &str| {
        let file = format!("kind = \"mirror\"\nurl = \"https://registry.example\"\n{line}");
        Site::new("").with("upstreams/hub.toml", file.as_bytes()).errors(&[])
    };
    let expected = "upstreams/hub.toml:3:20: bytes_per_second: found 1, which serves nobody; write at least 64KiB, or \"0\" \
                    for no limit";
    assert_eq!(told("bytes_per_second = \"1\""), [expected]);
    assert_eq!(told("bytes_per_second = \"64KiB\""), [""; 0]);
    assert!(told("rate_bytes = \"1GiB\"")[0].contains("from 0 to 1MiB"));
    assert!(told("concurrency = 0")[0].contains("from 1 "));
    assert!(told("deadline = \"0s\"")[0].contains("from 100ms "));
}
