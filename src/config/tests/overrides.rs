//! The environment.

use proptest::prelude::*;

use super::Site;
use crate::config::environment::variable;

/// A file, variables, and the text of the error.
type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

fn check(rows: &[Row<'_>]) {
    for (gateway, environment, expected) in rows {
        assert_eq!(Site::new(gateway).errors(environment), [*expected], "{environment:?}");
    }
}

#[test]
fn mistakes_name_the_variable() {
    check(&[
        (
            "",
            &[("DOCKGATE__LISTEN__MAIN__ADRESS", "x")],
            "environment variable DOCKGATE__LISTEN__MAIN__ADRESS: listen.main.adress: unknown key; did you mean \
               DOCKGATE__LISTEN__MAIN__ADDRESS?",
        ),
        (
            "",
            &[("DOCKGATE__LISTN__MAIN__ADDRESS", "x")],
            "environment variable DOCKGATE__LISTN__MAIN__ADDRESS: listn: unknown key; did you mean \
               DOCKGATE__LISTEN__MAIN__ADDRESS?",
        ),
        (
            "",
            &[("DOCKGATE__LIMITS__CONNECTIONS", "many")],
            "environment variable DOCKGATE__LIMITS__CONNECTIONS: limits.connections: found \"many\", but it takes a \
             whole \
               number from 1 to 1000000",
        ),
        (
            "registry.data = \"x\"",
            &[("DOCKGATE__REGISTRY__DATA__PATH", "x")],
            "environment variable DOCKGATE__REGISTRY__DATA__PATH: registry.data: found a table, but it takes a path",
        ),
        (
            "[tls]",
            &[("DOCKGATE__TLS", "on")],
            "environment variable DOCKGATE__TLS: tls: found \"on\", but it takes a table of keys",
        ),
        (
            "",
            &[("DOCKGATE__ADMIN__ADDRESS", "0.0.0.0:5000")],
            "environment variable DOCKGATE__ADMIN__ADDRESS: admin.address: 0.0.0.0:5000 is taken by \
             listen.main.address \
               (the default); give one of them another port",
        ),
        (
            "",
            &[("DOCKGATE__TLS__ACME__EMAIL", "a")],
            "environment variable DOCKGATE__TLS__ACME__EMAIL: tls.acme: not in this version yet; remove it",
        ),
    ]);
}

#[test]
fn lists_are_for_the_file() {
    check(&[
        (
            "",
            &[("DOCKGATE__LISTEN__MAIN__TRUSTED_PROXIES", "10.0.0.1")],
            "environment variable DOCKGATE__LISTEN__MAIN__TRUSTED_PROXIES: listen.main.trusted_proxies: lists cannot \
             be \
               given by the environment; write it in the file",
        ),
        (
            "[[access]]\nwho=['anyone']\nrepositories=['**']\nactions=['pull']",
            &[("DOCKGATE__ACCESS__0__WHO", "anyone")],
            "environment variable DOCKGATE__ACCESS__0__WHO: access: lists cannot be given by the environment; write \
             it in \
               the file",
        ),
        (
            "",
            &[("DOCKGATE__IDENTITY__GROUPS__CI", "a")],
            "environment variable DOCKGATE__IDENTITY__GROUPS__CI: identity.groups.ci: lists cannot be given by the \
               environment; write it in the file",
        ),
    ]);
}

#[test]
fn names_that_say_nothing_or_two_things_are_refused() {
    check(&[
        (
            "",
            &[("DOCKGATE____LOG", "x")],
            "environment variable DOCKGATE____LOG: this names no key; a name is DOCKGATE__TABLE__KEY, with two \
             underscores \
               between",
        ),
        (
            "",
            &[("DOCKGATE__LOG__LEVEL", "warn"), ("DOCKGATE__log__level", "info")],
            "environment variable DOCKGATE__log__level: log.level: environment variable DOCKGATE__LOG__LEVEL is \
             about the \
               same key; remove one of the two",
        ),
        (
            "log.fields = { a-b = \"1\", a_b = \"2\" }",
            &[("DOCKGATE__LOG__FIELDS__A_B", "3")],
            "environment variable DOCKGATE__LOG__FIELDS__A_B: log.fields.a_b: this could be \"a-b\" or \"a_b\"; \
             rename one \
               of them in the file",
        ),
    ]);
}

#[test]
fn no_name_is_too_deep() {
    let name = format!("DOCKGATE{}", "__A".repeat(20_000));
    let texts = Site::new("").errors(&[(&name, "x")]);
    assert!(texts[0].contains("this names no key"), "{}", &texts[0][texts[0].len() - 100..]);
}

#[test]
fn scalars_of_each_kind_are_overridden() {
    let site = Site::new("[listen.main]\naddress = \"127.0.0.1:1\"\n[listen.ci-runners]\naddress = \"127.0.0.1:2\"\n");
    let config = site
        .load(&[
            ("DOCKGATE__LISTEN__MAIN__PROTOCOL", "plain"),
            ("DOCKGATE__LISTEN__CI_RUNNERS__ADDRESS", "127.0.0.1:3"),
            ("DOCKGATE__LISTEN__NEW_ONE__ADDRESS", "127.0.0.1:4"),
            ("DOCKGATE__LIMITS__CONNECTIONS", "7"),
            ("DOCKGATE__LIMITS__DRAIN_TIMEOUT", "7s"),
            ("DOCKGATE__CACHE__DISK", "7GB"),
            ("DOCKGATE__LOG__ACCESS", "false"),
            ("DOCKGATE__LOG__FIELDS__POD", "pod-7"),
            ("DOCKGATE__ADMIN__ADDRESS", ""),
            ("DOCKGATE__REGISTRY__DATA", "/srv"),
        ])
        .unwrap();
    assert_eq!(config.listen.keys().collect::<Vec<_>>(), ["ci-runners", "main", "new-one"]);
    assert_eq!(config.listen["main"].address.port(), 1, "what is not overridden stays");
    assert_eq!(config.listen["ci-runners"].address.port(), 3);
    assert_eq!((config.limits.connections, config.limits.drain_timeout.as_secs()), (7, 7));
    assert_eq!((config.cache.disk, config.log.access, config.admin.address), (7_000_000_000, false, None));
    assert_eq!(config.log.fields["pod"], "pod-7");
    assert_eq!(config.registry.data.to_str(), Some("/srv"));
}

#[test]
fn variables_with_single_underscores_are_not_looked_at() {
    let site = Site::new("");
    let environment = [("DOCKGATE_PORT", "tcp://10.0.0.1:5000"), ("DOCKGATE_SERVICE_HOST", "x"), ("dockgate__x", "y")];
    assert_eq!(site.load(&environment), site.load(&[]));
}

#[test]
fn every_key_has_its_variable_or_is_for_the_file_only() {
    let site = Site::new("");
    for key in crate::config::keys().iter().filter(|key| !key.path.starts_with("access")) {
        let texts = site.errors(&[(&variable(&key.path), "\u{7f}")]).join("\n");
        assert!(!texts.contains("unknown key"), "{} {texts}", key.path);
    }
}

proptest! {
    #[test]
    fn any_variable_is_survived(name in "[A-Z_a-z0-9é.\\[\\] -]{0,30}", value in ".{0,10}") {
        let site = Site::new("[listen.main]\naddress = \"127.0.0.1:0\"");
        let name = format!("DOCKGATE__{name}");
        let _ = site.load(&[(&name, &value)]);
    }
}
