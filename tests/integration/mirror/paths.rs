//! Registries below a path of their host: Nexus, docker's registry with `http.prefix`.

use serde_json::json;

use super::{Mirror, OPEN, noise, prepare, upstream};
use crate::support::V2Upstream;
use crate::support::content::{OCI_MANIFEST, begin, digest, push_blob, push_image};
use crate::support::gate::wait_until;
use crate::support::v2_upstream::{Door, Fault};

const PATH: &str = "/repository/docker-hub";

fn referrer(subject: &str, number: usize) -> Vec<u8> {
    let bytes = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [], "annotations": { "number": number.to_string() },
        "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(b"{}"), "size": 2 },
        "subject": { "mediaType": OCI_MANIFEST, "digest": subject, "size": 1 },
    });
    bytes.to_string().into_bytes()
}

#[test]
fn a_registry_below_a_path_could_not_be_named() {
    for user in ["", "username = \"ada\"\npassword = \"ada\"\n"] {
        let up = V2Upstream::start();
        let url = up.url_below(PATH) + "/";
        if !user.is_empty() {
            // The realm is at the root, as the upstream says it.
            up.guard(Door::bearer().user("ada", "ada", &["*"]));
        }
        let gate =
            prepare(OPEN, &upstream("fronted", &url, &format!("{user}health = {{ interval = \"1s\" }}"))).start();
        let mirror = Mirror { gate, up };
        let client = mirror.gate.plain();
        let image = push_image(&client, "up/app", "v1");
        mirror.up.manifest("app", "v2", &referrer(&image, 2));
        let pulled = mirror.pull("/v2/up/app/manifests/v2").expect(200);
        assert_eq!(pulled.header("content-type"), Some(OCI_MANIFEST));
        assert_eq!(mirror.pull(&format!("/v2/up/app/blobs/{}", digest(b"a layer"))).expect(200).body, b"a layer");
        // In pieces, to where the Location of the one before leads, relative or absolute.
        let bytes = noise(1, 1_000);
        let mut location = begin(&client, "up/app");
        let patched = client.send("PATCH", &location, &[("Content-Range", "0-499")], &bytes[..500]).expect(202);
        location = patched.header("location").unwrap().to_owned();
        let last = mirror.up.asked_for("PATCH", "/blobs/uploads/").pop().unwrap();
        let absolute = format!("{}{}?{}", mirror.up.url(), last.path, last.query);
        mirror.up.fault("PATCH", "/blobs/uploads/", Fault::Header("Location", absolute.leak()));
        let patched = client.send("PATCH", &location, &[("Content-Range", "500-999")], &bytes[500..]).expect(202);
        location = patched.header("location").unwrap().to_owned();
        client.send("PUT", &format!("{location}?digest={}", digest(&bytes)), &[], b"").expect(201);
        assert!(mirror.up.has_blob("app", &digest(&bytes)));
        push_blob(&client, "up/other", b"elsewhere");
        let mount = format!("/v2/up/app/blobs/uploads/?mount={}&from=up/other", digest(b"elsewhere"));
        client.send("POST", &mount, &[], b"").expect(201);
        let catalog = mirror.pull("/up/v2/_catalog").expect(200).json();
        assert_eq!(catalog, json!({ "repositories": ["app", "other"] }));
        client.delete("/v2/up/app/manifests/v1").expect(202);
        mirror.up.wait_for("GET", &format!("{PATH}/v2/"), 1);
        for asked in mirror.up.asked() {
            let is_here = asked.path.starts_with(&format!("{PATH}/v2/"));
            assert!(is_here || asked.path == "/token", "{} {}", asked.method, asked.path);
        }
    }
}

/// Each server of an upstream has a path of its own, and a page that one of them names is asked of any.
#[test]
fn pages_and_redirects_of_servers_below_paths_of_their_own() {
    let (one, other) = (V2Upstream::start(), V2Upstream::start());
    let urls = [one.url_below("/one"), other.url_below("/the/other") + "/"];
    let file = upstream("mirror", "X", "health = { interval = \"1s\" }");
    let gate = prepare(OPEN, &file.replace("url = \"X\"", &format!("peers = {urls:?}"))).start();
    let mut subject = String::new();
    for up in [&one, &other] {
        up.has_pages();
        subject = up.image("app", "a", b"a layer").0;
        for number in 0..9 {
            up.manifest("app", &format!("b{number}"), &referrer(&subject, number));
        }
    }
    let get = |path: &str| super::pull(gate.main, path, &[]).unwrap().expect(200);
    for _ in 0..4 {
        let referrers = get(&format!("/v2/up/app/referrers/{subject}")).json();
        assert_eq!(referrers["manifests"].as_array().unwrap().len(), 9, "{referrers}");
        let first = get("/v2/up/app/tags/list?n=7");
        let next = first.header("link").unwrap().split(['<', '>']).nth(1).unwrap().to_owned();
        assert_eq!(get(&next).json()["tags"], json!(["b6", "b7", "b8"]));
    }
    // A Link out of the registry's own path is followed as it is, at the server that said it.
    for up in [&one, &other] {
        up.fault("GET", "/tags/list", Fault::Header("Link", "</elsewhere/tags/list?page=2>; rel=\"next\""));
    }
    let _ = super::pull(gate.main, "/v2/up/app/tags/list", &[]);
    assert!(one.count("GET", "/elsewhere/tags/list") + other.count("GET", "/elsewhere/tags/list") > 0);
    for up in [&one, &other] {
        up.heal();
        up.fault("GET", "/blobs/", Fault::Redirect("/the/files/x".to_owned()));
    }
    let _ = super::pull(gate.main, &format!("/v2/up/app/blobs/{}", digest(b"a layer")), &[]);
    wait_until("the redirect to be followed", || {
        one.count("GET", "/the/files/x") + other.count("GET", "/the/files/x") > 0
    });
    assert!(one.count("GET", "/one/v2/") > 0 && other.count("GET", "/the/other/v2/") > 0, "each has its turn");
}

/// As an upstream may write it (RFC 9110, section 10.2.2); clients that go straight follow it.
#[test]
fn a_location_of_an_upload_may_be_relative_to_the_request() {
    for path in ["", PATH] {
        let up = V2Upstream::start();
        let url = up.url_below(path);
        let gate = prepare(OPEN, &upstream("fronted", &url, "")).start();
        let client = gate.plain();
        let bytes = noise(2, 1_000);
        up.fault("POST", "/blobs/uploads/", Fault::Header("Location", "upload-1?state=of-upload-1"));
        let location = begin(&client, "up/app");
        up.fault_some("PATCH", "/blobs/uploads/", 0..1, Fault::Header("Location", "?state=second"));
        up.fault_some("PATCH", "/blobs/uploads/", 1..2, Fault::Header("Location", "../uploads/upload-1?state=third"));
        let patched = client.send("PATCH", &location, &[("Content-Range", "0-499")], &bytes[..500]).expect(202);
        let location = patched.header("location").unwrap();
        let patched = client.send("PATCH", location, &[("Content-Range", "500-999")], &bytes[500..]).expect(202);
        let location = patched.header("location").unwrap();
        client.send("PUT", &format!("{location}?digest={}", digest(&bytes)), &[], b"").expect(201);
        assert!(up.has_blob("app", &digest(&bytes)));
        let there = format!("{path}/v2/app/blobs/uploads/upload-1");
        let asked: Vec<_> = up.asked().into_iter().filter(|asked| asked.method != "POST").collect();
        assert!(asked.iter().all(|asked| asked.path == there), "{asked:?}");
        let states = ["state=of-upload-1", "state=second", "state=third"];
        assert!(asked.iter().zip(states).all(|(asked, state)| asked.query.contains(state)), "{asked:?}");
        up.heal();
        // Nowhere else, whatever way it is written.
        for location in ["//elsewhere.example/upload-2", "https://elsewhere.example/upload-2", "https://["] {
            up.heal();
            up.fault("POST", "/blobs/uploads/", Fault::Header("Location", location));
            client.send("POST", "/v2/up/app/blobs/uploads/", &[], b"").expect(502);
        }
    }
}
