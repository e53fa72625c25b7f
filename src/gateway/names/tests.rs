use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

use crate::config::Config;

/// What the files of `upstreams/` come to.
fn config(upstreams: &[(&str, &str)], default: &str) -> Config {
    let site = tempfile::tempdir().unwrap();
    std::fs::create_dir(site.path().join("upstreams")).unwrap();
    for (name, text) in upstreams {
        let kind = if text.contains("kind") { "" } else { "kind = \"mirror\"\nurl = \"https://registry.example\"\n" };
        std::fs::write(site.path().join(format!("upstreams/{name}.toml")), format!("{kind}{text}")).unwrap();
    }
    let gateway = site.path().join("gateway.toml");
    std::fs::write(&gateway, format!("[registry]\ndefault = \"{default}\"\n")).unwrap();
    Config::load(Some(&gateway), std::iter::empty()).unwrap()
}

const HUB: (&str, &str) = (
    "docker-hub",
    "prefix = \"docker.io\"\nnamespaces = [\"docker.io\"]\nhosts = [\"hub.gw.example\"]\nofficial = \"library\"\n\
     docker_mirror = true",
);
const QUAY: (&str, &str) = ("quay", "prefix = \"quay.io\"\nnamespaces = [\"quay.io\", \"quay.example:5000\"]");
const TEAM: (&str, &str) = ("team", "prefix = \"quay.io/team\"");
const LEGACY: (&str, &str) = ("old", "kind = \"legacy\"\npeers = [\"http://127.0.0.1:5002\"]");
const CORP: (&str, &str) = ("corp", "");

static NAMES: LazyLock<Names> =
    LazyLock::new(|| Names::new(&config(&[HUB, QUAY, TEAM, LEGACY, CORP], "hosted").upstreams, "hosted"));

/// Names where an upstream is the default.
static FRONTED: LazyLock<Names> = LazyLock::new(|| {
    let hub = (HUB.0, HUB.1.trim_end_matches("docker_mirror = true"));
    Names::new(&config(&[hub, QUAY, CORP], "corp").upstreams, "corp")
});

/// With namespaces of the registry inside: two, and every other.
static OWN: LazyLock<[Names; 2]> = LazyLock::new(|| {
    let names = || Names::new(&config(&[HUB, QUAY, TEAM, LEGACY, CORP], "hosted").upstreams, "hosted");
    let listed = ["localhost:5001".to_owned(), "Registry.SUSE.com".to_owned()];
    [names().and_own(&listed), names().and_own(&listed).and_own(&["*".to_owned()])]
});

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

/// `[HOST]/[PREFIX/]v2/NAME[?ns=NS]`, as a client writes it; without a name the ping.
fn find(names: &Names, url: &str) -> Result<Found, NoName> {
    let (url, namespace) = url.split_once("?ns=").map_or((url, None), |(url, namespace)| (url, Some(namespace)));
    let (host, path) = url.split_once('/').unwrap();
    let (prefix, rest) = format!("/{path}").split_once("/v2/").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let prefix = prefix.strip_prefix('/').map(name);
    let repository = (!rest.is_empty()).then(|| name(&rest));
    let host = if host.is_empty() { "gw.example:5000" } else { host };
    names.find(&Asked { host, path_prefix: prefix.as_ref(), namespace, name: repository.as_ref() })
}

/// `UPSTREAM REMOTE CANONICAL`, `hosted NAME`, or `error TEXT`.
fn told(names: &Names, url: &str) -> String {
    let none = "-".to_owned();
    let of = |name: &RemoteName| format!("{} {} {}", name.upstream, name.remote, name.canonical);
    match find(names, url).map(|found| found.candidates) {
        Ok(Candidates::Hosted { name, else_mirror, .. }) => {
            let mirror = else_mirror.as_ref().map_or(String::new(), |mirror| format!(", else {}", of(mirror)));
            format!("hosted {}{mirror}", name.map_or(none, |name| name.to_string()))
        }
        Ok(Candidates::Remote { upstream, name: None }) => format!("{upstream} -"),
        Ok(Candidates::Remote { upstream, name: Some(name) }) => {
            assert_eq!(upstream, name.upstream);
            of(&name)
        }
        Err(error) => format!("error {error}"),
    }
}

#[test]
fn a_name_reaches_its_upstream_in_every_form_that_clients_use() {
    const ALPINE: &str = "docker-hub library/alpine docker.io/library/alpine";
    for (url, expected) in [
        // The prefix in the name: docker, podman, kaniko, crane.
        ("/v2/docker.io/library/alpine", ALPINE),
        ("/v2/docker.io/alpine", ALPINE),
        // A mirror with a path: containerd before and after override_path, BuildKit.
        ("/docker.io/v2/library/alpine?ns=docker.io", ALPINE),
        ("/docker.io/v2/library/alpine", ALPINE),
        ("/v2/docker.io/library/alpine?ns=docker.io", ALPINE),
        // A mirror without a path: containerd, and dockerd's registry-mirrors from 29 on.
        ("/v2/library/alpine?ns=docker.io", &format!("hosted library/alpine, else {ALPINE}")),
        ("/v2/library/alpine?ns=Docker.IO", &format!("hosted library/alpine, else {ALPINE}")),
        ("/v2/org/app?ns=docker.io", "docker-hub org/app docker.io/org/app"),
        // A name of its own for the upstream.
        ("hub.gw.example/v2/alpine", ALPINE),
        ("HUB.gw.Example:5000/v2/library/alpine?ns=docker.io", ALPINE),
        ("hub.gw.example/v2/docker.io/library/alpine", ALPINE),
        ("/v2/org/app?ns=quay.example:5000", "quay org/app quay.io/org/app"),
        ("/v2/corp/app", "corp app corp/app"),
        // dockerd's registry-mirrors.
        ("/v2/library/alpine", &format!("hosted library/alpine, else {ALPINE}")),
        ("/v2/team/app", "hosted team/app"),
        ("/v2/old/app", "hosted old/app"),
        ("/v2/docker.iox/app", "hosted docker.iox/app"),
    ] {
        assert_eq!(told(&NAMES, url), expected, "{url}");
    }
}

#[test]
fn the_longest_prefix_claims_a_name() {
    assert_eq!(told(&NAMES, "/v2/quay.io/team/app"), "team app quay.io/team/app");
    assert_eq!(told(&NAMES, "/v2/quay.io/teams/app"), "quay teams/app quay.io/teams/app");
    assert_eq!(told(&NAMES, "/quay.io/team/v2/app"), "team app quay.io/team/app");
    // Else one name would stand for two repositories, and a rule for one of them for the other too.
    let hidden = "error the name quay.io/team/app belongs to the upstream \"team\", whose prefix it begins with; ask the \
                  operator to change one of the two prefixes";
    for url in ["/v2/team/app?ns=quay.io", "/quay.io/v2/team/app"] {
        assert_eq!(told(&NAMES, url), hidden, "{url}");
    }
}

#[test]
fn what_is_not_configured_is_asked_of_nobody() {
    let namespace = "error no upstream here has the namespace \"evil.example\"; ask the operator to add it to namespaces \
                     in a file of upstreams/ or in [registry], or take this registry out of the client's mirrors of \"evil.example\"";
    for (url, expected) in [
        (
            "/ghcr.io/v2/a",
            "error no upstream here has the prefix \"ghcr.io\"; use one that is configured, or ask the operator for a \
             file in upstreams/ with prefix = \"ghcr.io\"",
        ),
        ("/v2/a?ns=evil.example", namespace),
        ("/v2/docker.io/library/alpine?ns=evil.example", namespace),
        ("/v2/?ns=evil.example", namespace),
        (
            "/docker.io/v2/org/app?ns=quay.io",
            "error the path or host asks for the upstream \"docker-hub\", and ns=\"quay.io\" for another; the client's \
             mirror of \"quay.io\" must be this registry's address without the path, or with the right one",
        ),
        (
            "/v2/quay.io/team",
            "error \"quay.io/team\" is the prefix of an upstream; the name of a repository must follow, quay.io/team/NAME",
        ),
    ] {
        assert_eq!(told(&NAMES, url), expected, "{url}");
    }
    // What the path or the host say holds for a namespace that nobody claims.
    let alpine = "docker-hub library/alpine docker.io/library/alpine";
    assert_eq!(told(&NAMES, "/docker.io/v2/library/alpine?ns=index.docker.io"), alpine);
}

#[test]
fn the_gateway_s_own_name_is_no_namespace() {
    for (host, namespace) in [
        ("gw.example:5000", "gw.example:5000"),
        ("gw.example:5000", "GW.example:5000"),
        ("gw.example", "gw.example:443"),
        ("gw.example:80", "gw.example"),
        ("[::1]:5000", "[::1]:5000"),
    ] {
        assert_eq!(
            told(&NAMES, &format!("{host}/v2/team/app?ns={namespace}")),
            "hosted team/app",
            "{host} {namespace}"
        );
    }
    for (host, namespace) in [("gw.example:5000", "gw.example"), ("gw.example:5000", "gw.example:5001")] {
        let url = format!("{host}/v2/team/app?ns={namespace}");
        assert_eq!(find(&NAMES, &url), Err(NoName::Namespace(namespace.into())), "another port is another registry");
    }
}

#[test]
fn the_built_in_registry_has_what_is_listed_by_its_plain_name() {
    for names in OWN.iter() {
        for (url, expected) in [
            ("/v2/app?ns=localhost:5001", "hosted app"),
            ("/v2/suse/sles?ns=registry.suse.com", "hosted suse/sles"),
            ("/v2/?ns=LOCALHOST:5001", "hosted -"),
            // Without a mirror: what Docker Hub has of this name is not what was asked for.
            ("/v2/library/alpine?ns=localhost:5001", "hosted library/alpine"),
            // A name is an upstream's by its prefix, as without ns.
            ("/v2/corp/app?ns=localhost:5001", "corp app corp/app"),
            // What upstreams claim is theirs, and so is what the path or the host state.
            ("/v2/alpine?ns=docker.io", "docker-hub library/alpine docker.io/library/alpine"),
            ("/v2/alpine?ns=hub.gw.example", "docker-hub library/alpine docker.io/library/alpine"),
            ("/corp/v2/app?ns=evil.example", "corp app corp/app"),
            ("/corp/v2/app?ns=gw.example:5000", "corp app corp/app"),
            ("hub.gw.example/v2/alpine?ns=evil.example", "docker-hub library/alpine docker.io/library/alpine"),
            ("/v2/team/app?ns=gw.example:5000", "hosted team/app"),
        ] {
            assert_eq!(told(names, url), expected, "{url}");
        }
        for url in ["/corp/v2/app?ns=localhost:5001", "hub.gw.example/v2/app?ns=localhost:5001"] {
            assert!(matches!(find(names, url), Err(NoName::OtherNamespace { .. })), "{url}");
        }
    }
    for namespace in ["localhost", "localhost:5002", "suse.com"] {
        let found = find(&OWN[0], &format!("/v2/app?ns={namespace}"));
        assert_eq!(found, Err(NoName::Namespace(namespace.into())), "nobody has it");
    }
}

#[test]
fn the_built_in_registry_has_every_other_host_below_its_name() {
    for (url, expected) in [
        ("/v2/org/app?ns=ghcr.io", "hosted ghcr.io/org/app"),
        ("/v2/org/app?ns=GHCR.io", "hosted ghcr.io/org/app"),
        ("/v2/org/app?ns=localhost:5002", "hosted localhost_5002/org/app"),
        ("/v2/library/alpine?ns=ghcr.io", "hosted ghcr.io/library/alpine"),
        ("/v2/docker.io/library/alpine?ns=ghcr.io", "hosted ghcr.io/docker.io/library/alpine"),
        ("/v2/corp/app?ns=ghcr.io", "hosted ghcr.io/corp/app"),
        ("/v2/?ns=ghcr.io", "hosted -"),
        // BuildKit, and a Location of ours.
        ("/v2/ghcr.io/org/app?ns=ghcr.io", "hosted ghcr.io/org/app"),
        ("/v2/localhost_5002/app?ns=localhost:5002", "hosted localhost_5002/app"),
        ("/v2/ghcr.io/org/app", "hosted ghcr.io/org/app"),
        ("/v2/ghcr.io?ns=ghcr.io", "hosted ghcr.io/ghcr.io"),
    ] {
        assert_eq!(told(&OWN[1], url), expected, "{url}");
    }
    // Nobody's: what has no part of its own, and what would be an upstream's by its name.
    for namespace in ["my_host", "[::1]:5000", "a.-b", "a:b", "corp"] {
        let found = find(&OWN[1], &format!("/v2/app?ns={namespace}"));
        assert_eq!(found, Err(NoName::Namespace(namespace.into())));
    }
    let catalog = find(&OWN[1], "/v2/?ns=localhost:5002").map(|found| found.candidates);
    let below = Some(name("localhost_5002"));
    assert_eq!(catalog, Ok(Candidates::Hosted { name: None, below, else_mirror: None }));
}

#[test]
fn a_namespace_is_echoed_where_it_stands_for_who_answers() {
    let echoed = |url: &str| find(&NAMES, url).unwrap().namespace;
    assert_eq!(echoed("/v2/library/alpine?ns=docker.io"), Some("docker.io".into()));
    assert_eq!(echoed("/docker.io/v2/library/alpine?ns=docker.io"), Some("docker.io".into()));
    assert_eq!(echoed("/v2/?ns=DOCKER.io"), Some("DOCKER.io".into()));
    assert_eq!(echoed("/docker.io/v2/library/alpine?ns=other"), None);
    assert_eq!(echoed("/v2/team/app?ns=gw.example:5000"), None);
    assert_eq!(echoed("/v2/docker.io/library/alpine"), None);
    let echoed = |url: &str| find(&OWN[1], url).unwrap().namespace;
    assert_eq!(echoed("/v2/app?ns=LocalHost:5001"), Some("LocalHost:5001".into()));
    assert_eq!(echoed("/v2/app?ns=ghcr.io"), Some("ghcr.io".into()));
    assert_eq!(echoed("/v2/corp/app?ns=localhost:5001"), None, "its prefix said who has it");
    assert_eq!(echoed("/v2/app?ns=gw.example:5000"), None);
}

#[test]
fn requests_without_a_repository_have_an_upstream_too() {
    for (url, expected) in [
        ("/v2/", "hosted -"),
        ("/v2/?ns=quay.io", "quay -"),
        ("/quay.io/team/v2/", "team -"),
        ("hub.gw.example:443/v2/", "docker-hub -"),
    ] {
        assert_eq!(told(&NAMES, url), expected, "{url}");
    }
    assert_eq!(told(&FRONTED, "/v2/"), "corp -");
}

#[test]
fn the_default_upstream_has_names_without_a_prefix() {
    for (url, expected) in [
        ("/v2/team/app", "corp team/app team/app"),
        ("/v2/app", "corp app app"),
        ("/v2/corp/team/app", "corp team/app team/app"),
        ("/corp/v2/app", "corp app app"),
        ("/v2/docker.io/alpine", "docker-hub library/alpine docker.io/library/alpine"),
        ("/v2/library/alpine", "corp library/alpine library/alpine"),
        // Its own repositories below another's prefix, or its own, keep theirs: the short name is taken.
        ("/v2/corp/docker.io/library/alpine", "corp docker.io/library/alpine corp/docker.io/library/alpine"),
        ("/v2/corp/corp/app", "corp corp/app corp/corp/app"),
        ("/v2/corp/quay.io", "corp quay.io corp/quay.io"),
    ] {
        assert_eq!(told(&FRONTED, url), expected, "{url}");
    }
}

#[test]
fn a_mirror_that_is_the_default_was_asked_only_after_the_registry_inside() {
    let names = Names::new(&config(&[HUB], HUB.0).upstreams, HUB.0);
    assert_eq!(told(&names, "/v2/library/alpine?ns=docker.io"), told(&names, "/v2/library/alpine"));
}

#[test]
fn passwords_are_sent_on_at_the_names_of_who_asks_for_them() {
    let forwards = |own: &str, default: &str, host: &str| {
        let own = format!("authorization = \"forward\"\n{own}");
        Names::new(&config(&[("own", &own), QUAY, TEAM, ("hub", HUB.1)], default).upstreams, default).forwards(host)
    };
    assert!(forwards("", "hosted", "gw.example:5000"));
    assert!(!forwards("", "hosted", "HUB.gw.example:5000"), "that one is another's");
    let host = "hosts = [\"own.example\"]";
    assert!(forwards(host, "hosted", "own.example"));
    assert!(!forwards(host, "hosted", "gw.example:5000"));
    assert!(!NAMES.forwards("gw.example:5000"));
    let hub = HUB.1.trim_end_matches("docker_mirror = true");
    let own = ("own", "authorization = \"forward\"\nhosts = [\"own.example\"]");
    assert!(Names::new(&config(&[own, ("hub", hub)], "own").upstreams, "own").forwards("gw.example"), "the default");
}

#[test]
fn names_may_not_grow_too_long() {
    let long = "a".repeat(240);
    assert!(find(&NAMES, &format!("/v2/docker.io/b/{long}")).is_ok());
    for url in [format!("/v2/docker.io/{long}"), format!("/v2/b/{long}aaaa?ns=docker.io")] {
        assert_eq!(find(&NAMES, &url), Err(NoName::Name(crate::oci::NameError::TooLong)), "{url}");
    }
    let text = told(&NAMES, &format!("/v2/docker.io/{long}"));
    assert_eq!(text, "error a repository name has at most 255 characters, those of its prefix among them");
    assert_eq!(told(&NAMES, &format!("/v2/library/{}", "a".repeat(247))).split(',').count(), 1, "no mirror for it");
}

#[test]
fn a_list_of_an_upstream_is_told_in_names_of_here() {
    let canonical = |names: &Names, upstream: &str, remote: &str| {
        names.canonical(upstream, &name(remote)).map(|name| name.to_string())
    };
    assert_eq!(canonical(&NAMES, "docker-hub", "library/alpine").as_deref(), Some("docker.io/library/alpine"));
    assert_eq!(canonical(&NAMES, "docker-hub", "alpine"), None, "it would be taken for library/alpine");
    assert_eq!(canonical(&NAMES, "quay", "team/app"), None, "it belongs to another");
    assert_eq!(canonical(&NAMES, "none", "app"), None);
    assert_eq!(canonical(&FRONTED, "corp", "app").as_deref(), Some("app"));
    assert_eq!(canonical(&FRONTED, "corp", "quay.io/app").as_deref(), Some("corp/quay.io/app"));
}

#[test]
fn hosts_are_compared_without_ports() {
    for (host, expected) in [
        ("a", "a"),
        ("a:5000", "a"),
        ("a:", "a"),
        ("[::1]:5000", "[::1]"),
        ("[::1]", "[::1]"),
        ("::1", "::1"),
        ("a:b", "a:b"),
    ] {
        assert_eq!(host_name(host), expected, "{host}");
    }
}

/// Names of few words, so that they meet prefixes, namespaces and each other often.
fn few_words(most: usize) -> impl Strategy<Value = RepositoryName> {
    let word = prop::sample::select(vec!["a", "b", "c", "library"]);
    prop::collection::vec(word, 1..=most).prop_map(|words| name(&words.join("/")))
}

/// Up to four upstreams, `u0` with what is official, `u1` perhaps with dockerd's mirror, and the default.
fn upstreams() -> impl Strategy<Value = (BTreeMap<String, Upstream>, &'static str)> {
    let prefixes = prop::collection::btree_set(few_words(3), 1..5);
    let default = prop::sample::select(vec!["hosted", "u0", "u1"]);
    (prefixes, prop::option::of(few_words(1)), any::<bool>(), default).prop_map(
        |(prefixes, official, mirror, default)| {
            let upstream = |(index, prefix): (usize, RepositoryName)| {
                let remote = Remote {
                    prefix,
                    namespaces: vec![format!("ns{index}")],
                    hosts: vec![format!("h{index}")],
                    official: official.clone().filter(|_| index == 0),
                    docker_mirror: "**".parse().into_iter().filter(|_| mirror && index == 1).collect(),
                    ..TEMPLATE.clone()
                };
                (format!("u{index}"), Upstream::Remote(Box::new(remote)))
            };
            (prefixes.into_iter().enumerate().map(upstream).collect(), default)
        },
    )
}

static TEMPLATE: LazyLock<Remote> = LazyLock::new(|| match config(&[CORP], "hosted").upstreams.remove("corp") {
    Some(Upstream::Remote(remote)) => *remote,
    other => panic!("{other:?}"),
});

proptest! {
    /// A rule, a log line and a Location that have the canonical name mean this repository, by whatever way.
    #[test]
    fn a_canonical_name_is_that_of_one_repository(
        (upstreams, default) in upstreams(),
        prefix in prop::option::of(few_words(2)),
        host in "(gw|h[0-4])(:5000)?",
        namespace in prop::option::of("(gw|ns[0-4])"),
        repository in few_words(5),
    ) {
        let names = Names::new(&upstreams, default);
        let asked = Asked {
            host: &host,
            path_prefix: prefix.as_ref(),
            namespace: namespace.as_deref(),
            name: Some(&repository),
        };
        let found = match names.find(&asked).map(|found| found.candidates) {
            Ok(Candidates::Hosted { else_mirror, .. }) => else_mirror,
            Ok(Candidates::Remote { name, .. }) => name,
            Err(_) => None,
        };
        let Some(found) = found else { return Ok(()) };
        prop_assert!(upstreams.contains_key(&*found.upstream));
        prop_assert_eq!(names.canonical(&found.upstream, &found.remote), Some(found.canonical.clone()));
        let expected = Candidates::Remote { upstream: Arc::clone(&found.upstream), name: Some(found.clone()) };
        let plain = Asked { host: "gw", path_prefix: None, namespace: None, name: Some(&found.canonical) };
        prop_assert_eq!(names.find(&plain).map(|found| found.candidates), Ok(expected.clone()));
        let same_way = Asked { name: Some(&found.canonical), ..asked };
        prop_assert_eq!(names.find(&same_way).map(|found| found.candidates), Ok(expected));
    }

    /// An upload goes on, and a page follows, by the name that our answer has, whether the client repeats ns or drops it.
    #[test]
    fn what_a_namespace_has_inside_is_found_by_its_name_with_and_without_it(
        (upstreams, _) in upstreams(),
        namespaces in prop::sample::subsequence(vec!["own", "a", "b:1", "*"], 0..=4),
        namespace in "(own|gw|ns0|h0|a|b|b:1|c(:5000)?|[a-c._-]{1,4}(:[0-9]{1,2})?)",
        repository in few_words(4),
    ) {
        let namespaces: Vec<String> = namespaces.into_iter().map(str::to_owned).collect();
        let names = Names::new(&upstreams, "hosted").and_own(&namespaces);
        let asked = Asked { host: "gw", path_prefix: None, namespace: Some(&namespace), name: Some(&repository) };
        let Ok(Found { candidates: Candidates::Hosted { name: Some(here), below, else_mirror }, namespace: said }) =
            names.find(&asked) else { return Ok(()) };
        prop_assert_eq!(said.is_some(), namespace != "gw");
        prop_assert!(else_mirror.is_none() || namespace == "gw");
        if let Some(below) = &below {
            prop_assert_eq!(Some(below.clone()), part_of(&namespace));
            prop_assert!(rest(&here, below).is_some(), "{} {}", here, below);
        } else {
            prop_assert_eq!(&here, &repository);
        }
        for namespace in [Some(&*namespace), None] {
            let again = names.find(&Asked { namespace, name: Some(&here), ..asked }).map(|found| found.candidates);
            prop_assert!(matches!(&again, Ok(Candidates::Hosted { name: Some(name), .. }) if *name == here), "{again:?}");
        }
    }

    #[test]
    fn no_two_hosts_have_the_same_names(one in "[a-c._-]{1,4}(:[0-9]{1,2})?", other in "[a-c._-]{1,4}(:[0-9]{1,2})?") {
        if let (Some(a), Some(b)) = (part_of(&one), part_of(&other)) {
            prop_assert_eq!(a == b, one == other, "{} {}", one, other);
        }
    }

    #[test]
    fn what_no_upstream_claims_is_the_built_in_registry_s(repository in "[d-k]{1,4}(/[a-z0-9]{1,4}){0,4}") {
        let expected = Candidates::Hosted { name: Some(name(&repository)), below: None, else_mirror: None };
        prop_assert_eq!(find(&NAMES, &format!("/v2/{repository}")).map(|found| found.candidates), Ok(expected));
    }
}
