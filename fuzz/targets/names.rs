//! From what a client asks for to who has it: nobody but who is configured, and by one name, whatever way it was asked for.
//!
//! The input is `HOST METHOD TARGET`, as the gateway sees them.
#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use dockgate::config::{Config, Upstream};
use dockgate::gateway::names::{Asked, Candidates, Names};
use dockgate::gateway::route;
use http::{Method, Uri};
use libfuzzer_sys::fuzz_target;

const UPSTREAMS: [(&str, &str); 4] = [
    (
        "hub",
        "prefix = \"docker.io\"\nnamespaces = [\"docker.io\"]\nhosts = [\"hub.gw\"]\nofficial = \"library\"\ndocker_mirror = true",
    ),
    ("quay", "prefix = \"quay.io\"\nnamespaces = [\"quay.io\"]"),
    ("team", "prefix = \"quay.io/team\"\nhosts = [\"team.gw\"]"),
    ("x", "prefix = \"a/b\"\nofficial = \"a\""),
];

/// With the registry inside as the default, with an upstream, and with namespaces of the registry inside.
static NAMES: LazyLock<[Names; 3]> = LazyLock::new(|| {
    let upstreams = upstreams();
    let own = ["localhost:5001".to_owned(), "*".to_owned()];
    [Names::new(&upstreams, "hosted"), Names::new(&upstreams, "x"), Names::new(&upstreams, "hosted").and_own(&own)]
});

fn upstreams() -> BTreeMap<String, Upstream> {
    let directory = std::env::temp_dir().join(format!("dockgate-fuzz-names-{}", std::process::id()));
    std::fs::create_dir_all(directory.join("upstreams")).expect("the temporary directory takes a directory");
    for (name, text) in UPSTREAMS {
        let text = format!("kind = \"mirror\"\nurl = \"https://registry.example\"\n{text}");
        let file = directory.join(format!("upstreams/{name}.toml"));
        std::fs::write(file, text).expect("the temporary directory takes a file");
    }
    let gateway = directory.join("gateway.toml");
    std::fs::write(&gateway, "").expect("the temporary directory takes a file");
    Config::load(Some(&gateway), std::iter::empty()).expect("a good configuration").upstreams
}

fuzz_target!(|text: &str| {
    let mut words = text.splitn(3, ' ');
    let (Some(host), Some(method), Some(target)) = (words.next(), words.next(), words.next()) else { return };
    let (Ok(method), Ok(uri)) = (method.parse::<Method>(), target.parse::<Uri>()) else { return };
    let Ok(routed) = route::parse(&method, &uri) else { return };
    let asked = Asked {
        host,
        path_prefix: routed.prefix.as_ref(),
        namespace: routed.namespace.as_deref(),
        name: routed.route.repository(),
    };
    NAMES.iter().for_each(|names| find(names, &asked));
});

fn find(names: &Names, asked: &Asked<'_>) {
    let found = match names.find(asked) {
        Ok(found) => found,
        Err(error) => return assert!(!error.to_string().contains(char::is_control)),
    };
    assert!(found.namespace.is_none_or(|namespace| asked.namespace == Some(&*namespace)));
    let remote = match found.candidates {
        Candidates::Hosted { name, below: None, else_mirror } => {
            assert_eq!(name.as_ref(), asked.name);
            else_mirror
        }
        Candidates::Hosted { name, below: Some(below), else_mirror: mirror } => {
            assert!(name.is_none_or(|name| name.as_str().starts_with(&format!("{below}/"))));
            assert_eq!(mirror, None);
            None
        }
        Candidates::Remote { upstream, name } => {
            assert!(UPSTREAMS.iter().any(|(known, _)| *known == &*upstream));
            assert_eq!(name.is_some(), asked.name.is_some());
            name
        }
    };
    let Some(remote) = remote else { return };
    let plain = Asked { host: "", path_prefix: None, namespace: None, name: Some(&remote.canonical) };
    let again = names.find(&plain).expect("what has a name is found by it").candidates;
    assert_eq!(again, Candidates::Remote { upstream: remote.upstream.clone(), name: Some(remote.clone()) });
    assert_eq!(names.canonical(&remote.upstream, &remote.remote), Some(remote.canonical));
}
