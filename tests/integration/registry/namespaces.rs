//! What another registry has, asked of this one: `?ns=` of containerd, docker 29, kind, k3d and k3s.

use serde_json::json;

use super::{OPEN, open};
use crate::support::content::{OCI_MANIFEST, digest, manifest, push_image};
use crate::support::gate::ADA;
use crate::support::{Answer, Client, Gate};

const NAMESPACES: &str = "[registry]\nnamespaces = [\"localhost:5001\", \"*\"]\n";

/// A client that says in each request whose names it means.
struct Mirrored {
    client: Client,
    namespace: &'static str,
}

impl Mirrored {
    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let separator = if path.contains('?') { '&' } else { '?' };
        let answer = self.client.send(method, &format!("{path}{separator}ns={}", self.namespace), headers, body);
        if answer.status < 400 {
            assert_eq!(answer.header("oci-namespace"), Some(self.namespace), "{method} {path}");
        }
        answer
    }

    fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }

    /// Each step by the Location of the one before it, with ns and without.
    fn push_blob(&self, repository: &str, bytes: &[u8], here: &str) {
        let leads_here = |answer: &Answer| {
            let location = answer.header("location").unwrap().to_owned();
            assert!(location.starts_with(&format!("/v2/{here}/blobs/")), "{location} is not in {here}");
            location
        };
        let begun = self.send("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"").expect(202);
        let (first, last) = bytes.split_at(bytes.len() / 2);
        let patched = self.send("PATCH", &leads_here(&begun), &[], first).expect(202);
        let patched = self.client.send("PATCH", &leads_here(&patched), &[], last).expect(202);
        self.send("GET", &leads_here(&patched), &[], b"").expect(204);
        let end = format!("{}?digest={}", leads_here(&patched), digest(bytes));
        leads_here(&self.send("PUT", &end, &[], b"").expect(201));
    }
}

#[test]
fn a_push_with_a_namespace_was_refused_and_so_was_its_pull() {
    let gate = open(NAMESPACES);
    let blobs: [&[u8]; 2] = [b"{}", b"a layer"];
    for (namespace, app, base) in [
        ("localhost:5001", "team/app", "base"),
        ("ghcr.io", "ghcr.io/team/app", "ghcr.io/base"),
        ("GHCR.example", "ghcr.example/team/app", "ghcr.example/base"),
        ("kind:5000", "kind_5000/team/app", "kind_5000/base"),
    ] {
        let client = Mirrored { client: gate.plain(), namespace };
        let layer = [blobs[1], namespace.as_bytes()].concat();
        client.push_blob("base", &layer, base);
        client.push_blob("team/app", blobs[0], app);
        let mount = format!("/v2/team/app/blobs/uploads/?mount={}&from=base", digest(&layer));
        let mounted = client.send("POST", &mount, &[], b"").expect(201);
        assert_eq!(mounted.header("location"), Some(&*format!("/v2/{app}/blobs/{}", digest(&layer))));
        let image = manifest(&[blobs[0], &layer]);
        let kind = [("Content-Type", OCI_MANIFEST)];
        for tag in ["v1", "v2"] {
            let pushed = client.send("PUT", &format!("/v2/team/app/manifests/{tag}"), &kind, &image).expect(201);
            assert!(pushed.header("location").unwrap().starts_with(&format!("/v2/{app}/manifests/")));
        }
        assert_eq!(client.get("/v2/team/app/manifests/v1").expect(200).body, image);
        assert_eq!(client.get(&format!("/v2/team/app/blobs/{}", digest(&layer))).expect(200).body, layer);
        assert_eq!(client.client.get(&format!("/v2/{app}/manifests/v1")).expect(200).body, image, "by its name here");
        let referrers = client.get(&format!("/v2/team/app/referrers/{}", digest(&image))).expect(200).json();
        assert_eq!(referrers["manifests"], json!([]));
        let tags = client.get("/v2/team/app/tags/list?n=1").expect(200);
        let next = tags.header("link").unwrap().split(['<', '>']).nth(1).unwrap().to_owned();
        assert_eq!(
            (&tags.json()["tags"], &client.get(&next).expect(200).json()["tags"]),
            (&json!(["v1"]), &json!(["v2"]))
        );
        client.get("/v2/").expect(200);
        assert_eq!(client.get("/v2/team/app/manifests/none").expect(404).code(), "MANIFEST_UNKNOWN");
    }
    let other = Mirrored { client: gate.plain(), namespace: "quay.io" };
    assert_eq!(other.get("/v2/team/app/manifests/v1").expect(404).code(), "MANIFEST_UNKNOWN", "nobody pushed that");
}

#[test]
fn a_catalog_of_a_namespace_has_the_names_of_that_registry() {
    let gate = open(NAMESPACES);
    for name in ["a", "ghcr.io/a/app", "ghcr.io/b", "ghcr.io/c", "ghcr.iox/a", "kind_5000/a"] {
        push_image(&gate.plain(), name, "v1");
    }
    let listed = |namespace, limit: usize| {
        let client = Mirrored { client: gate.plain(), namespace };
        let (mut names, mut next) = (Vec::new(), Some(client.get(&format!("/v2/_catalog?n={limit}"))));
        while let Some(page) = next {
            let page = page.expect(200);
            names.extend(page.json()["repositories"].as_array().unwrap().iter().map(ToString::to_string));
            assert!(names.len() < 10, "{names:?}");
            let link = page.header("link").map(|link| link.split(['<', '>']).nth(1).unwrap().to_owned());
            assert!(link.as_ref().is_none_or(|link| link.contains("ns=")), "{link:?}");
            next = link.map(|link| gate.plain().get(&link));
        }
        names.join(" ").replace('"', "")
    };
    for limit in [1, 2, 100] {
        assert_eq!(listed("ghcr.io", limit), "a/app b c");
        assert_eq!(listed("kind:5000", limit), "a");
        assert_eq!(listed("quay.io", limit), "");
        assert_eq!(listed("localhost:5001", limit), "a ghcr.io/a/app ghcr.io/b ghcr.io/c ghcr.iox/a kind_5000/a");
    }
}

#[test]
fn rules_and_scopes_have_the_name_by_which_a_repository_is_known_here() {
    let rules = "[[access]]\nwho = [\"authenticated\"]\nrepositories = [\"ghcr.io/**\"]\nactions = [\"pull\", \"push\"]\n\
                 [[access]]\nwho = [\"anyone\"]\nrepositories = [\"public/**\"]\nactions = [\"pull\"]\n";
    let prepared = Gate::prepare(&format!("{NAMESPACES}{rules}"));
    prepared.write("htpasswd", &format!("{ADA}\n"));
    let gate = prepared.start();
    let asked = |namespace| Mirrored { client: gate.plain(), namespace };
    for (namespace, scope) in [
        ("ghcr.io", "repository:ghcr.io/app:pull,push"),
        ("kind:5000", "repository:kind_5000/app:pull,push"),
        ("localhost:5001", "repository:app:pull,push"),
    ] {
        let answer = asked(namespace).send("POST", "/v2/app/blobs/uploads/", &[], b"").expect(401);
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.contains(&format!("scope=\"{scope}\"")), "{challenge}");
    }
    let token =
        gate.plain().user("ada", "ada").get("/token?service=dockgate&scope=repository:app:pull,push").expect(200);
    let token = token.json()["token"].as_str().unwrap().to_owned();
    let ada = |namespace| {
        let client = gate.plain().with("Authorization", &format!("Bearer {token}"));
        Mirrored { client, namespace }.send("POST", "/v2/app/blobs/uploads/", &[], b"").status
    };
    assert_eq!((ada("ghcr.io"), ada("quay.io"), ada("localhost:5001")), (202, 403, 403));
}

#[test]
fn a_namespace_that_nobody_has_is_nobodys() {
    let gate = open("[registry]\nnamespaces = [\"localhost:5001\"]\n");
    push_image(&gate.plain(), "app", "v1");
    let own = format!("localhost:{}", gate.main.port());
    gate.plain().get(&format!("/v2/app/manifests/v1?ns={own}")).expect(200);
    gate.plain().get("/v2/app/manifests/v1?ns=localhost:5001").expect(200);
    let answer = gate.plain().get("/v2/app/manifests/v1?ns=ghcr.io").expect(404);
    assert!(answer.message().contains("in [registry]"), "{}", answer.message());
    let prepared = Gate::prepare(&format!("[registry]\ndefault = \"up\"\nnamespaces = [\"*\"]\n{OPEN}"));
    prepared.write("upstreams/up.toml", "kind = \"mirror\"\nurl = \"http://127.0.0.1:9\"\n");
    let (code, said) = prepared.fail(&["check"]);
    assert_eq!(code, 78);
    assert!(said.contains("registry.namespaces: ") && said.contains("the built-in one is not asked"), "{said}");
}
