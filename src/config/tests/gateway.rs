//! `gateway.toml`: what it says, and the text of each class of error.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::{Site, config, errors};
use crate::access::Rules;
use crate::config::reader::Report;
use crate::config::{ClientAuth, Config, ConfigErrors, Format, Level, PlainPolicy, Protocol, TlsVersion, read_tree};

/// Each row: a file, and the texts of its errors.
fn check(rows: &[(&str, &[&str])]) {
    for (gateway, expected) in rows {
        assert_eq!(errors(gateway), *expected, "{gateway}");
    }
}

#[test]
fn an_empty_file_is_the_defaults() {
    let site = Site::new("");
    let loaded = site.load(&[]).unwrap();
    assert_eq!(loaded.registry.data, site.path().join("data"));
    assert_eq!(loaded.directory, site.path());
    let relative = Config { registry: Config::default().registry, ..loaded };
    assert_eq!((relative.limits, relative.listen), (Config::default().limits, Config::default().listen));
}

#[test]
fn what_is_written_is_what_holds() {
    let config = config(
        r#"
        listen.main = { address = "[::1]:443", protocol = "tls", trusted_proxies = ["10.0.0.7", "192.168.1.1/16"], proxy_protocol = true }
        listen.lan-2 = { address = "10.0.0.1:80", plain = "nobody" }
        tls = { certificate = "/c", key = "/k", min_version = "1.3", client_ca = "/ca", client_auth = "required" }
        cache = { memory = "0", disk = "50GB" }
        admin.address = ""
        [identity]
        realm = "here"
        groups = { ci = ["a", "b"] }
        token.lifetime = "60s"
        [[access]]
        who = ["group:ci"]
        repositories = ["a/**", "b"]
        actions = ["pull", "create"]
        [limits]
        headers = 0x20
        drain_timeout = "0s"
        [log]
        level = "warn"
        format = "json"
        fields = { service = "registry" }
        "#,
    );
    let main = &config.listen["main"];
    assert_eq!((main.address, main.protocol), ("[::1]:443".parse().unwrap(), Protocol::Tls));
    assert_eq!(main.trusted_proxies, ["10.0.0.7/32".parse().unwrap(), "192.168.0.0/16".parse().unwrap()]);
    assert!(main.proxy_protocol);
    assert_eq!((config.listen["lan-2"].plain, config.listen.len()), (PlainPolicy::Nobody, 2));
    assert_eq!((config.tls.min_version, config.tls.client_auth), (TlsVersion::Tls13, ClientAuth::Required));
    assert_eq!(config.tls.certificate.as_deref(), Some(Path::new("/c")));
    assert_eq!((config.cache.memory, config.cache.disk), (0, 50_000_000_000));
    assert_eq!(config.admin.address, None);
    assert_eq!(config.identity.groups["ci"], ["a", "b"]);
    assert_eq!(config.identity.token.lifetime, Duration::from_secs(60));
    assert!(!config.access.grant_anyone(std::net::IpAddr::from([127, 0, 0, 1])), "the default rules are gone");
    assert_eq!((config.limits.headers, config.limits.drain_timeout), (32, Duration::ZERO));
    assert_eq!((config.log.level, config.log.format), (Level::Warn, Format::Json));
    assert_eq!(config.log.fields["service"], "registry");
}

#[test]
fn an_empty_list_of_rules_grants_nothing() {
    assert_eq!(*config("access = []").access, Rules::default());
    assert_eq!(config("").access, Config::default().access);
}

#[test]
fn a_listener_takes_the_place_of_the_default_one() {
    let config = config("[listen.inside]\naddress = \"127.0.0.1:6000\"\n");
    assert_eq!(config.listen.keys().collect::<Vec<_>>(), ["inside"]);
    assert_eq!(super::config("[listen]").listen, Config::default().listen, "no listener at all would be of no use");
}

#[test]
fn unknown_keys_name_the_nearest_or_all() {
    check(&[
        (
            "[listen.main]\nadress = \"1.2.3.4:5\"",
            &["gateway.toml:2:1: listen.main.adress: unknown key; did you mean \"address\"?"],
        ),
        ("  [limit]", &["gateway.toml:1:4: limit: unknown key; did you mean \"limits\"?"]),
        (
            "[identity.token]\n\"a b\" = 1",
            &["gateway.toml:2:1: identity.token.\"a b\": unknown key; known here: lifetime, refresh_lifetime, \
              legacy_lifetime, key_lifetime, services, chain"],
        ),
        (
            "[[access]]\nwho=['anyone']\nrepositories=['a']\naction=['pull']",
            &[
                "gateway.toml:1:1: access[0].actions: missing; it takes a list of one of \"pull\", \"push\", \
                 \"create\", \
                 \"delete\", or \"*\"",
                "gateway.toml:4:1: access[0].action: unknown key; did you mean \"actions\"?",
            ],
        ),
    ]);
}

#[test]
fn values_of_a_wrong_kind_say_what_is_allowed() {
    check(&[
        (
            "limits.connections = \"many\"",
            &["gateway.toml:1:22: limits.connections: found \"many\", but it takes a whole number from 1 to 1000000"],
        ),
        (
            "limits.disk_reserve_percent = 300",
            &["gateway.toml:1:31: limits.disk_reserve_percent: found 300, but it takes a whole number from 0 to 90"],
        ),
        (
            "limits.headers = 99999999999999999999",
            &["gateway.toml:1:18: limits.headers: found 99999999999999999999, but it takes a whole number from 16 \
                 to 1000"],
        ),
        ("log.access = \"yes\"", &["gateway.toml:1:14: log.access: found \"yes\", but it takes true or false"]),
        (
            "[listen.main]\nprotocol = \"tsl\"",
            &["gateway.toml:2:12: listen.main.protocol: found \"tsl\", but it takes \"auto\", \"tls\" or \
                 \"plain\"; did you \
               mean \"tls\"?"],
        ),
        ("tls.min_version = 1.2", &["gateway.toml:1:19: tls.min_version: found 1.2, but it takes \"1.2\" or \"1.3\""]),
        (
            "listen.main.address = \"localhost:5000\"",
            &["gateway.toml:1:23: listen.main.address: found \"localhost:5000\", but it takes an IP address and a \
                 port, such \
               as \"0.0.0.0:5000\" or \"[::1]:5000\""],
        ),
        ("tls = true", &["gateway.toml:1:7: tls: found true, but it takes a table of keys"]),
        ("tls.key = []", &["gateway.toml:1:11: tls.key: found a list, but it takes a path"]),
        (
            "identity.realm = \"a\\\"\\u001b\"",
            &["gateway.toml:1:18: identity.realm: found \"a\\\"\\u{1b}\", but it takes printable ASCII without \" \
                 and \\"],
        ),
        (
            "listen.main.trusted_proxies = [\"10.0.0.1\", 7]",
            &["gateway.toml:1:44: listen.main.trusted_proxies[1]: found 7, but it takes an IP address or a \
                 network, such as \
               \"10.0.0.7\" or \"10.0.0.0/8\""],
        ),
        (
            "listen.My_Port.address = \"127.0.0.1:1\"",
            &["gateway.toml:1:8: listen: found \"My_Port\", but it takes names made of lower-case letters, digits \
                 and -, at \
               most 64 of them"],
        ),
        ("log.fields = { a = 1 }", &["gateway.toml:1:20: log.fields.a: found 1, but it takes a string"]),
    ]);
}

#[test]
fn names_that_the_user_chose_have_a_form_too() {
    check(&[
        (
            "log.fields = { \"a b\" = \"1\" }",
            &[
                "gateway.toml:1:24: log.fields: found \"a b\", but it takes names made of letters, digits, . _ and -, at \
               most 64 of them",
            ],
        ),
        (
            "identity.groups = { \"a:b\" = [] }",
            &[
                "gateway.toml:1:29: identity.groups: found \"a:b\", but it takes names of groups, without : and control \
               characters",
            ],
        ),
    ]);
    let fields: String = (0..65).map(|number| format!("f{number} = \"\"\n")).collect();
    assert_eq!(
        errors(&format!("[log.fields]\n{fields}")),
        ["gateway.toml:1:1: log.fields: found 65 fields, but it takes at most 64"]
    );
}

#[test]
fn durations_and_sizes_are_strings_in_a_range() {
    check(&[
        (
            "limits.drain_timeout = \"10 sec\"",
            &["gateway.toml:1:24: limits.drain_timeout: found \"10 sec\", but it takes a duration such as \
                 \"300ms\", \"10s\", \
               \"5m\", \"24h\" or \"7d\", from 0s to 1d"],
        ),
        (
            "identity.token.lifetime = \"1h\"",
            &["gateway.toml:1:27: identity.token.lifetime: found \"1h\", but it takes a duration such as \
                 \"300ms\", \"10s\", \
               \"5m\", \"24h\" or \"7d\", from 1m to 5m"],
        ),
        (
            "cache.memory = 1024",
            &["gateway.toml:1:16: cache.memory: found 1024, but it takes a size such as \"4096\", \"32KiB\", \
                 \"512MiB\" or \
               \"50GB\", from 0 to 1024TiB"],
        ),
        (
            "limits.header_bytes = \"1KiB\"",
            &["gateway.toml:1:23: limits.header_bytes: found \"1KiB\", but it takes a size such as \"4096\", \
                 \"32KiB\", \
               \"512MiB\" or \"50GB\", from 8KiB to 1MiB"],
        ),
    ]);
}

#[test]
fn keys_of_tokens_are_not_made_faster_than_tokens_end() {
    check(&[
        (
            "[identity.token]\nkey_lifetime = \"1h\"",
            &[
                "gateway.toml:2:16: identity.token.key_lifetime: with this identity.token.refresh_lifetime it takes 675m or \
              more, or 0s",
            ],
        ),
        ("[identity.token]\nkey_lifetime = \"0s\"", &[]),
        ("[identity.token]\nkey_lifetime = \"12h\"", &[]),
        ("[identity.token]\nkey_lifetime = \"5s\"\nrefresh_lifetime = \"1m\"", &[]),
        (
            "[identity.token]\nkey_lifetime = \"4s\"\nrefresh_lifetime = \"1m\"",
            &[
                "gateway.toml:2:16: identity.token.key_lifetime: with this identity.token.refresh_lifetime it takes 5s or \
              more, or 0s",
            ],
        ),
        (
            "[identity.token]\nservices = [\"a\", \"\"]",
            &[
                "gateway.toml:2:18: identity.token.services[1]: found \"\", but it takes printable ASCII without \" and \\",
            ],
        ),
    ]);
}

#[test]
fn rules_are_checked_word_by_word() {
    check(&[
        (
            "[[access]]\nwho = [\"everyone\"]\nrepositories = [\"A\"]\nactions = [\"read\"]",
            &[
                "gateway.toml:2:8: access[0].who[0]: found \"everyone\", but it takes one of anyone, authenticated, \
                 user:NAME, group:NAME, cert:NAME, network:ADDRESS/LENGTH",
                "gateway.toml:3:17: access[0].repositories[0]: found \"A\", but it takes a repository name in which \
                 * stands \
                 for any characters of one path part and ** for whole parts, such as \"public/**\" or \"team-*/app\"",
                "gateway.toml:4:12: access[0].actions[0]: found \"read\", but it takes one of \"pull\", \"push\", \
                 \"create\", \
                 \"delete\", or \"*\"",
            ],
        ),
        (
            "access = [{ who = [], repositories = [\"**\"], actions = \"pull\" }]",
            &[
                "gateway.toml:1:19: access[0].who: found an empty list, but it takes one of anyone, authenticated, \
                 user:NAME, group:NAME, cert:NAME, network:ADDRESS/LENGTH",
                "gateway.toml:1:56: access[0].actions: found \"pull\", but it takes a list of one of \"pull\", \
                 \"push\", \
                 \"create\", \"delete\", or \"*\"",
            ],
        ),
        (
            "identity.groups = { ci = [\"a\"], dev = [\"b\"] }\n[[access]]\nwho = [\"group:c1\"]\nrepositories = \
             [\"a\"]\n\
             actions = [\"*\"]",
            &["gateway.toml:3:7: access[0].who: there is no group \"c1\"; identity.groups has ci, dev"],
        ),
        (
            "[[access]]\nwho = [\"group:ci\"]\nrepositories = [\"a\"]\nactions = [\"*\"]",
            &["gateway.toml:2:7: access[0].who: there is no group \"ci\"; identity.groups has none"],
        ),
        (
            "[access]\nwho = 1",
            &["gateway.toml:1:1: access: found a table, but it takes tables, each headed [[access]]"],
        ),
    ]);
}

#[test]
fn one_client_must_find_room_for_a_manifest() {
    check(&[(
        "limits = { incoming_bytes = \"7MiB\" }",
        &["gateway.toml:1:29: limits.incoming_bytes: 7MiB is less than twice limits.manifest_bytes (the default), \
               4MiB; raise it"],
    )]);
}

#[test]
fn values_that_do_not_go_together_are_both_named() {
    check(&[
        (
            "tls.certificate = \"a\"",
            &["gateway.toml:1:19: tls.certificate: this needs tls.key too; give both, or neither to have them made"],
        ),
        (
            "tls.key = \"a\"",
            &["gateway.toml:1:11: tls.key: this needs tls.certificate too; give both, or neither to have them made"],
        ),
        (
            "tls.client_auth = \"required\"",
            &["gateway.toml:1:19: tls.client_auth: \"required\" needs tls.client_ca: who signs the clients' \
                 certificates"],
        ),
        (
            "listen.a.address = \"0.0.0.0:1\"\nlisten.b.address = \"127.0.0.1:1\"",
            &["gateway.toml:2:20: listen.b.address: 127.0.0.1:1 is taken by listen.a.address (gateway.toml:1:20); \
                 give one of \
               them another port"],
        ),
        (
            "admin.address = \"127.0.0.1:5000\"",
            &["gateway.toml:1:17: admin.address: 127.0.0.1:5000 is taken by listen.main.address (the default); \
                 give one of \
               them another port"],
        ),
        (
            "listen.main.address = \"127.0.0.1:5001\"",
            &["gateway.toml:1:23: admin.address: 127.0.0.1:5001 is taken by listen.main.address \
                 (gateway.toml:1:23); give one \
               of them another port"],
        ),
        (
            "cache = { memory = \"8MiB\", memory_object_max = \"16MiB\" }",
            &["gateway.toml:1:48: cache.memory_object_max: 16MiB is more than cache.memory (gateway.toml:1:20), \
                 8MiB; lower it"],
        ),
        (
            "tls = { client_ca = \"c\", client_auth = \"required\" }\nlisten.a = { address = \"127.0.0.1:1\", protocol = \
             \"plain\" }\nlisten.b = { address = \"127.0.0.1:2\", plain = \"anyone\" }",
            &[
                "gateway.toml:2:50: listen.a.protocol: \"plain\" goes around tls.client_auth (gateway.toml:1:40), \
                 \"required\": plain HTTP has no certificates",
                "gateway.toml:3:47: listen.b.plain: \"anyone\" goes around tls.client_auth (gateway.toml:1:40), \
                 \"required\": plain HTTP has no certificates",
            ],
        ),
        (
            "listen.main.proxy_protocol = true",
            &["gateway.toml:1:30: listen.main.proxy_protocol: true needs listen.main.trusted_proxies: the proxies \
                 that speak \
               it"],
        ),
        (
            "registry.default = \"docker-hub\"",
            &["gateway.toml:1:20: registry.default: no upstream \"docker-hub\" of kind \"mirror\" or \"fronted\" is \
               switched on; there is none; write \"hosted\", or upstreams/docker-hub.toml"],
        ),
        (
            "listen.x.protocol = \"tls\"",
            &["gateway.toml:1:8: listen.x.address: missing; it takes an IP address and a port, such as \
                 \"0.0.0.0:5000\" or \
               \"[::1]:5000\""],
        ),
    ]);
}

#[test]
fn nobody_talks_plain_http_where_certificates_are_required() {
    let config = config("tls = { client_ca = \"c\", client_auth = \"required\" }");
    assert_eq!(config.listen["main"].plain, PlainPolicy::Nobody);
}

#[test]
fn a_small_cache_was_an_error_about_a_key_that_nobody_wrote() {
    let cache = config("cache.memory = \"8MiB\"").cache;
    assert_eq!((cache.memory, cache.memory_object_max), (8 << 20, 8 << 20));
    assert_eq!(config("cache.memory = \"1GiB\"").cache.memory_object_max, Config::default().cache.memory_object_max);
}

#[test]
fn a_field_of_the_log_could_hide_one_that_lines_have() {
    for name in ["level", "status", "user"] {
        let told = errors(&format!("log.fields = {{ {name} = \"x\" }}"));
        assert!(told[0].contains("but it takes names that lines do not have of their own"), "{told:?}");
    }
}

#[test]
fn what_is_planned_is_not_called_unknown() {
    check(&[
        ("[tls.acme]\nx = 1", &["gateway.toml:1:6: tls.acme: not in this version yet; remove it"]),
        (
            "[registry]\nblobs = { s3 = {} }\nmetadata = \"postgres://\"",
            &[
                "gateway.toml:2:1: registry.blobs: not in this version yet; remove it",
                "gateway.toml:3:1: registry.metadata: not in this version yet; remove it",
            ],
        ),
        ("[[notifications]]\nname = \"x\"", &["gateway.toml:1:3: notifications: not in this version yet; remove it"]),
    ]);
}

#[test]
fn all_mistakes_are_told_at_once_in_their_order() {
    let texts = errors("[log]\nlevel = \"loud\"\nx = 1\n[admin]\naddress = 5\n[limits]\nheaders = 0\n");
    let places: Vec<_> = texts.iter().map(|text| text.split(':').nth(1).unwrap()).collect();
    assert_eq!(places, ["2", "3", "5", "7"], "{texts:?}");
}

#[test]
fn a_file_that_is_no_toml_says_where() {
    check(&[("[a\nx = 1", &["gateway.toml:1:3: this is not TOML: unclosed table, expected `]`"])]);
    let site = Site::new("").with("gateway.toml", b"a = 1\n\xff");
    assert_eq!(site.errors(&[]), ["gateway.toml: cannot be read: line 2 is not UTF-8"]);
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let site = Site::new("");
    let missing = Config::load(Some(&site.path().join("other.toml")), std::iter::empty()).unwrap_err().to_string();
    assert!(missing.ends_with("other.toml: cannot be read: No such file or directory (os error 2)"), "{missing}");
}

#[test]
fn a_file_that_was_not_named_need_not_be_there() {
    let report = Report::new(Path::new("gateway.toml"), Path::new("."));
    let missing = Site::new("").path().join("other.toml");
    assert!(read_tree(&missing, false, &report).is_some_and(|tree| tree.is_empty()));
    assert!(report.into_parts().0.is_empty());
}

fn load_bytes(bytes: &[u8]) -> Result<Config, ConfigErrors> {
    Site::new("").with("gateway.toml", bytes).load(&[])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = load_bytes(&bytes);
    }

    #[test]
    fn a_damaged_file_is_survived_and_its_errors_have_places(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..6),
    ) {
        let mut bytes = include_bytes!("../../../gateway.toml").to_vec();
        for (at, byte, how) in changes {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        if let Err(errors) = load_bytes(&bytes) {
            prop_assert!(errors.to_string().lines().all(|line| line.contains("gateway.toml")), "{}", errors);
        }
    }

    #[test]
    fn any_value_of_any_key_is_survived(
        key in prop::sample::select(crate::config::keys()),
        value in prop::sample::select(vec!["1", "-1", "\"\"", "\"x\"", "[]", "[[]]", "{}", "{ a = 1 \
         }", "[1]", "1.5", "true", "2020-01-01"]),
    ) {
        let path = key.path.replace("access[0].", "");
        let header = if key.path.starts_with("access") { "[[access]]\n" } else { "" };
        let _ = load_bytes(format!("{header}{path} = {value}").as_bytes());
    }
}
