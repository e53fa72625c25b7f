//! The ways in which a repository elsewhere is named, and names that nobody has.

use super::{Mirror, OPEN, is_error, mirror_of, prepare, pull, upstream};
use crate::support::content::{begin, digest, manifest, push_blob, push_image, put_manifest};
use crate::support::gate::ADA;
use crate::support::v2_upstream::Door;
use crate::support::{Answer, Gate, V2Upstream};

fn get(gate: &Gate, path: &str, host: &str) -> Answer {
    pull(gate.main, path, &[("Host", host)]).unwrap()
}

#[test]
fn all_ways_lead_to_the_same_repository() {
    let mirror = Mirror::start("namespaces = [\"up.example\"]\nhosts = [\"mirror.example\"]");
    let (image, layer) = mirror.up.image("team/app", "v1", b"a layer");
    let (gate, here) = (&mirror.gate, "localhost");
    for (path, host, namespace) in [
        ("/v2/up/team/app", here, None),
        ("/up/v2/team/app", here, None),
        ("/v2/team/app", "mirror.example", None),
        ("/v2/team/app", "MIRROR.example:5000", None),
        ("/v2/team/app", here, Some("up.example")),
        ("/up/v2/team/app", here, Some("up.example")),
        ("/v2/team/app", "mirror.example", Some("up.example")),
    ] {
        let query = namespace.map(|namespace| format!("?ns={namespace}")).unwrap_or_default();
        let manifest = get(gate, &format!("{path}/manifests/v1{query}"), host).expect(200);
        assert_eq!(digest(&manifest.body), image, "{path} {host}");
        let blob = get(gate, &format!("{path}/blobs/{layer}{query}"), host).expect(200);
        assert_eq!(blob.body, b"a layer", "{path} {host}");
        for answer in [manifest, blob] {
            assert_eq!(answer.header("oci-namespace"), namespace, "{path} {host}");
        }
    }
    assert_eq!((mirror.up.count("HEAD", "/manifests/v1"), mirror.up.count("GET", &layer)), (1, 1));
}

#[test]
fn a_name_that_nobody_has_is_404_and_nobody_is_asked() {
    let mirror = Mirror::start("namespaces = [\"up.example\"]\nhosts = [\"mirror.example\"]");
    mirror.up.image("app", "v1", b"a layer");
    let other = V2Upstream::start();
    other.image("app", "v1", b"a layer");
    let stranger = other.address.to_string();
    for (path, words) in [
        ("/v2/app/manifests/v1?ns=strange.example".to_owned(), "namespaces"),
        (format!("/v2/app/manifests/v1?ns={stranger}"), "namespaces"),
        ("/strange/v2/app/manifests/v1".to_owned(), "prefix"),
        ("/up/v2/app/manifests/v1?ns=strange.example".to_owned(), ""),
        ("/v2/up/manifests/v1".to_owned(), "prefix"),
    ] {
        let answer = get(&mirror.gate, &path, "localhost");
        if path.starts_with("/up/") {
            continue;
        }
        is_error(&answer, 404, "MANIFEST_UNKNOWN");
        assert!(answer.message().contains(words), "{path}: {}", answer.message());
        assert_eq!(answer.header("oci-namespace"), None);
    }
    assert_eq!(get(&mirror.gate, "/v2/app/manifests/v1", "strange.example").status, 404);
    assert_eq!((mirror.up.count("GET", "/manifests/"), other.connections()), (1, 0), "one path names the upstream");
}

#[test]
fn dockerd_finds_the_hub_behind_its_mirror_and_the_registry_before_it() {
    let mirror = Mirror::start("docker_mirror = true\nofficial = \"library\"");
    let (there, layer) = mirror.up.image("library/alpine", "v1", b"a layer");
    let get = |path: &str| pull(mirror.gate.main, path, &[]).unwrap();
    pull(mirror.gate.main, "/v2/", &[]).unwrap().expect(200);
    assert_eq!(digest(&get("/v2/library/alpine/manifests/v1").expect(200).body), there);
    assert_eq!(get(&format!("/v2/library/alpine/blobs/{layer}")).expect(200).body, b"a layer");
    // What is pushed here under such a name comes from here.
    let here = push_image(&mirror.gate.plain(), "library/alpine", "v1");
    assert_ne!(here, there);
    assert_eq!(digest(&get("/v2/library/alpine/manifests/v1").expect(200).body), here);
    // Other names are not the hub's.
    mirror.up.image("team/app", "v1", b"another layer");
    assert_eq!(get("/v2/team/app/manifests/v1").status, 404);
    assert_eq!(mirror.up.count("HEAD", "team/app"), 0);
    // By its prefix it is still there, and short names are those of the hub.
    assert_eq!(digest(&get("/v2/up/alpine/manifests/v1").expect(200).body), there);
}

#[test]
fn nothing_is_pushed_to_a_mirror() {
    let mirror = Mirror::start("");
    mirror.up.image("app", "v1", b"a layer");
    let client = mirror.gate.plain();
    let blob = digest(b"more");
    for (method, path) in [
        ("POST", "/v2/up/app/blobs/uploads/".to_owned()),
        ("POST", format!("/v2/up/app/blobs/uploads/?digest={blob}")),
        ("POST", format!("/v2/up/app/blobs/uploads/?mount={blob}&from=up/other")),
        ("PUT", "/v2/up/app/manifests/v2".to_owned()),
        ("DELETE", "/v2/up/app/manifests/v1".to_owned()),
        ("DELETE", format!("/v2/up/app/blobs/{blob}")),
    ] {
        let answer = client.send(method, &path, &[], b"");
        is_error(&answer, 405, "UNSUPPORTED");
        assert!(answer.message().contains("up is a mirror"), "{method}: {}", answer.message());
    }
    assert!(mirror.up.asked().is_empty());
    // The registry inside goes on beside it, and its uploads are not those of the mirror.
    push_image(&client, "app", "v1");
    begin(&client, "app");
    client.get("/v2/app/manifests/v1").expect(200);
    put_manifest(&client, "app", "v2", b"{}").expect(400);
}

#[test]
fn a_mirror_can_be_what_answers_names_without_a_prefix() {
    let up = V2Upstream::start();
    let (image, _) = up.image("team/app", "v1", b"a layer");
    up.guard(Door::default());
    let gate = prepare(&format!("{OPEN}[registry]\ndefault = \"up\"\n"), &mirror_of(&up.url(), "")).start();
    for path in ["/v2/team/app/manifests/v1", "/v2/up/team/app/manifests/v1"] {
        assert_eq!(digest(&get(&gate, path, "localhost").expect(200).body), image, "{path}");
    }
    let tags = get(&gate, "/v2/team/app/tags/list", "localhost").expect(200).json();
    assert_eq!(tags, serde_json::json!({ "name": "team/app", "tags": ["v1"] }));
}

/// One mistake in one file, and nobody could push or pull anything.
#[test]
fn a_mistake_in_the_file_of_an_upstream_stopped_all_else() {
    let up = V2Upstream::start();
    let prepared = prepare(OPEN, &mirror_of(&up.url(), ""));
    let names = "prefix = \"docker.io\"\nhosts = [\"hub.example\"]\nnamespaces = [\"docker.io\"]";
    for (file, text) in [
        ("typo", format!("kind = \"mirror\"\nuurl = \"https://registry.example\"\n{names}\n")),
        (
            "secret",
            "kind = \"mirror\"\nurl = \"https://r.example\"\nusername = \"a\"\npassword_file = \"no-file\"\n".into(),
        ),
        ("twice", mirror_of("https://registry.example", "prefix = \"up\"")),
        ("half", "kind = \"fronted\"\nurl = \"".to_owned()),
    ] {
        prepared.write(&format!("upstreams/{file}.toml"), &text);
    }
    let (code, told) = prepared.fail(&["check"]);
    assert_eq!(code, 78, "{told}");
    for file in ["typo.toml", "secret.toml", "up.toml", "half.toml"] {
        assert!(told.contains(file), "{file} is not in {told}");
    }
    let gate = prepared.start();
    for file in ["typo", "secret", "half"] {
        gate.wait_for_log(&format!("an upstream is left out; mend its file, and restart upstream=\"{file}\""));
    }
    let ways = [
        ("/v2/docker.io/library/app/manifests/1", "localhost"),
        ("/docker.io/v2/library/app/manifests/1", "localhost"),
        ("/v2/library/app/manifests/1?ns=docker.io", "localhost"),
        ("/v2/library/app/manifests/1", "hub.example"),
        ("/v2/secret/app/manifests/1", "localhost"),
        ("/v2/half/app/manifests/1", "localhost"),
    ];
    for (path, host) in ways {
        let answer = get(&gate, path, host);
        is_error(&answer, 503, "UNAVAILABLE");
        assert!(answer.message().contains("dockgate check"), "{}", answer.message());
    }
    let pushed = gate.plain().send("POST", "/v2/docker.io/library/app/blobs/uploads/", &[], b"");
    is_error(&pushed, 503, "UNAVAILABLE");
    push_image(&gate.plain(), "team/app", "v1");
    gate.plain().get("/v2/team/app/manifests/v1").expect(200);
}

#[test]
fn a_push_under_a_name_of_the_mirror_could_not_be_completed() {
    let mirror = Mirror::start("docker_mirror = true\nofficial = \"library\"");
    mirror.up.image("library/app", "v1", b"a layer");
    let client = mirror.gate.plain();
    let blob = format!("/v2/library/app/blobs/{}", digest(b"a layer"));
    // As clients push: what is there is not sent.
    let push = |bytes: &[u8]| {
        if client.head(&format!("/v2/library/app/blobs/{}", digest(bytes))).status != 200 {
            push_blob(&client, "library/app", bytes);
        }
    };
    // What the mirror has is asked for first: with the other blob the repository is here.
    push(b"a layer");
    push(b"{}");
    let bytes = manifest(&[b"{}", b"a layer"]);
    put_manifest(&client, "library/app", "v2", &bytes).expect(201);
    assert_eq!(client.get(&blob).expect(200).body, b"a layer");
    assert_eq!(client.get("/v2/library/app/manifests/v2").expect(200).body, bytes);
    // From a name that only the mirror has nothing is mounted here either.
    mirror.up.image("library/base", "v1", b"a base");
    let mount = format!("/v2/library/app/blobs/uploads/?mount={}&from=library/base", digest(b"a base"));
    client.send("POST", &mount, &[], b"").expect(202);
}

/// docker 29 and containerd ask for blobs before they say who they are, and for the manifest when the blobs are there.
#[test]
fn a_pusher_who_did_not_say_who_it_is_was_told_of_the_mirror_s_blobs() {
    let rules = "[[access]]\nwho = [\"anyone\"]\nrepositories = [\"**\"]\nactions = [\"pull\"]\n\
                 [[access]]\nwho = [\"user:ada\"]\nrepositories = [\"**\"]\nactions = [\"*\"]\n";
    let up = V2Upstream::start();
    let (_, layer) = up.image("library/app", "v1", b"a layer");
    let hub = "docker_mirror = true\nofficial = \"library\"\nnamespaces = [\"docker.io\"]";
    let prepared = prepare(rules, &mirror_of(&up.url(), hub));
    prepared.write("htpasswd", &format!("{ADA}\n"));
    let gate = prepared.start();
    let (nobody, ada) = (gate.plain(), gate.plain().user("ada", "ada"));
    let blob = format!("/v2/library/app/blobs/{layer}");
    assert!(nobody.head(&blob).expect(401).header("www-authenticate").is_some_and(|asked| asked.contains("Bearer")));
    // Who pulls says whose name it is, or gets what it asks for.
    nobody.head(&format!("{blob}?ns=docker.io")).expect(200);
    let image = nobody.get("/v2/library/app/manifests/v1").expect(200).body;
    let config = serde_json::from_slice::<serde_json::Value>(&image).unwrap()["config"]["digest"].clone();
    let blobs = [config.as_str().unwrap(), &layer].map(|digest| format!("/v2/library/app/blobs/{digest}"));
    let contents = blobs.map(|blob| (nobody.get(&blob).expect(200).body, blob));
    for (content, blob) in contents {
        ada.head(&blob).expect(404);
        push_blob(&ada, "library/app", &content);
    }
    ada.head("/v2/library/app/manifests/v1").expect(404);
    put_manifest(&ada, "library/app", "v1", &image).expect(201);
    assert_eq!(ada.get("/v2/_catalog").expect(200).body, br#"{"repositories":["library/app"]}"#);
}

#[test]
fn who_only_pulls_finds_the_blobs_of_the_mirror_by_head_too() {
    let pulls = "[[access]]\nwho = [\"anyone\"]\nrepositories = [\"**\"]\nactions = [\"pull\"]\n";
    let mirror = Mirror::start_with(pulls, "docker_mirror = true\nofficial = \"library\"");
    let (_, layer) = mirror.up.image("library/app", "v1", b"a layer");
    mirror.pull("/v2/library/app/manifests/v1").expect(200);
    mirror.gate.plain().head(&format!("/v2/library/app/blobs/{layer}")).expect(200);
}

#[test]
fn a_fronted_registry_that_is_the_default_never_asked_who_pushes() {
    let up = V2Upstream::start();
    up.image("app", "v1", b"a layer");
    let rules = "[[access]]\nwho = [\"anyone\"]\nrepositories = [\"**\"]\nactions = [\"pull\"]\n\
                 [[access]]\nwho = [\"user:ada\"]\nrepositories = [\"**\"]\nactions = [\"*\"]\n";
    let prepared = prepare(&format!("{rules}[registry]\ndefault = \"up\"\n"), &upstream("fronted", &up.url(), ""));
    prepared.write("htpasswd", &format!("{ADA}\n"));
    let gate = prepared.start();
    let client = gate.tls();
    assert!(client.get("/v2/").expect(401).header("www-authenticate").is_some());
    client.user("ada", "wrong").get("/v2/").expect(401);
    client.user("ada", "ada").get("/v2/").expect(200);
    client.get("/v2/app/manifests/v1").expect(200);
}

/// docker 28 asks its mirror for a name, docker 29 says whose name it is.
#[test]
fn docker_29_was_given_another_image_than_docker_28() {
    let mirror = Mirror::start("docker_mirror = true\nofficial = \"library\"\nnamespaces = [\"docker.io\"]");
    let (there, _) = mirror.up.image("library/alpine", "v1", b"a layer");
    let (others, _) = mirror.up.image("team/app", "v1", b"another layer");
    let client = mirror.gate.plain();
    let get = |path: &str| client.get(path).expect(200);
    let both = || {
        let (old, new) = (get("/v2/library/alpine/manifests/v1"), get("/v2/library/alpine/manifests/v1?ns=docker.io"));
        assert_eq!((old.header("oci-namespace"), new.header("oci-namespace")), (None, Some("docker.io")));
        assert_eq!(old.body, new.body);
        digest(&new.body)
    };
    assert_eq!(both(), there);
    let here = push_image(&client, "library/alpine", "v1");
    assert_ne!(here, there);
    assert_eq!(both(), here);
    // What is no name for docker's mirror is the upstream's, and so is what its prefix says.
    assert_eq!(digest(&get("/v2/team/app/manifests/v1?ns=docker.io").body), others);
    assert_eq!(digest(&get("/v2/up/library/alpine/manifests/v1?ns=docker.io").body), there);
    assert_eq!(digest(&get("/up/v2/library/alpine/manifests/v1?ns=docker.io").body), there);
}

#[test]
fn a_prefix_in_the_path_decides_before_an_unknown_namespace() {
    let mirror = Mirror::start("");
    let (there, _) = mirror.up.image("team/app", "v1", b"a layer");
    let answer = mirror.pull("/up/v2/team/app/manifests/v1?ns=strange.example").expect(200);
    assert_eq!((digest(&answer.body), answer.header("oci-namespace")), (there, None));
    is_error(&mirror.pull("/v2/team/app/manifests/v1?ns=strange.example"), 404, "MANIFEST_UNKNOWN");
}
