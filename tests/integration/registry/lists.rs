//! Lists: tags, catalog, referrers, page by page.

use dockgate::oci::Algorithm;
use serde_json::{Value, json};

use super::open;
use crate::support::content::{OCI_INDEX, OCI_MANIFEST, begin, digest, manifest, push_blob, push_image, put_manifest};
use crate::support::{Answer, Client};

/// The next page, if there is one.
fn next(answer: &Answer) -> Option<String> {
    let link = answer.header("link")?;
    let (path, rel) = link.strip_prefix('<').unwrap().split_once('>').unwrap();
    assert_eq!(rel, "; rel=\"next\"");
    Some(path.to_owned())
}

/// Every entry under `key` of every page, and how long the pages are.
fn follow(client: &Client, first: &str, key: &str) -> (Vec<Value>, Vec<usize>) {
    let (mut all, mut lengths) = (Vec::new(), Vec::new());
    let mut path = Some(first.to_owned());
    while let Some(page) = path {
        assert!(lengths.len() < 100, "the pages do not end");
        let answer = client.get(&page).expect(200);
        let entries = answer.json()[key].as_array().unwrap().clone();
        lengths.push(entries.len());
        all.extend(entries);
        path = next(&answer);
    }
    (all, lengths)
}

#[test]
fn tags_are_paged_to_the_end() {
    let gate = open("");
    let client = gate.plain();
    push_blob(&client, "app", b"{}");
    assert_eq!(client.get("/v2/app/tags/list").expect(200).json(), json!({ "name": "app", "tags": [] }));
    // In the order of their bytes, as the spec's "lexical order": capitals first.
    let mut tags: Vec<String> = (0..20).map(|n| format!("v{n}")).collect();
    tags.extend(["A", "Z", "a", "_x", "1.0", "1.0-rc", "1.0_rc"].map(str::to_owned));
    for tag in &tags {
        put_manifest(&client, "app", tag, &manifest(&[b"{}"])).expect(201);
    }
    tags.sort();
    for n in [1, 4, 26, 27, 28, 1000] {
        let (all, lengths) = follow(&client, &format!("/v2/app/tags/list?n={n}"), "tags");
        assert_eq!(all, tags, "n={n}");
        assert_eq!(lengths.len(), tags.len().div_ceil(n), "n={n}");
    }
    assert_eq!(follow(&client, "/v2/app/tags/list", "tags").0, tags);
    let after = |last: &str| client.get(&format!("/v2/app/tags/list?last={last}")).expect(200).json()["tags"].clone();
    assert_eq!(after("v8"), json!(["v9"]));
    assert_eq!(after("v80"), json!(["v9"]), "the last one need not exist");
    assert_eq!(after("zzz"), json!([]));
    let none = client.get("/v2/app/tags/list?n=0").expect(200);
    assert_eq!((none.json()["tags"].clone(), next(&none)), (json!([]), None));
    let both = client.get("/v2/app/tags/list?n=2&last=1.0").expect(200);
    assert_eq!(both.json()["tags"], json!(["1.0-rc", "1.0_rc"]));
}

#[test]
fn the_catalog_is_paged_to_the_end() {
    let gate = open("");
    let client = gate.plain();
    let mut names: Vec<String> = (0..11).map(|n| format!("team-{}/app-{n}", n % 3)).collect();
    names.iter().for_each(|name| drop(push_image(&client, name, "v1")));
    names.sort();
    for n in [1, 3, 11, 12] {
        let (all, lengths) = follow(&client, &format!("/v2/_catalog?n={n}"), "repositories");
        assert_eq!(all, names, "n={n}");
        assert_eq!(lengths.len(), names.len().div_ceil(n), "n={n}");
    }
    let none = client.get("/v2/_catalog?n=0").expect(200);
    assert_eq!((none.json()["repositories"].clone(), next(&none)), (json!([]), None));
}

const SIGNATURE: &str = "application/vnd.test.signature+json";
const SBOM: &str = "application/vnd.test.sbom";

/// Pushes a manifest that refers to `subject`.
fn push_referrer(client: &Client, subject: &str, kind: Option<&str>, number: usize) -> String {
    let descriptor =
        |kind: &str, digest: &str, size: usize| json!({ "mediaType": kind, "digest": digest, "size": size });
    let mut text = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [],
        "config": descriptor("application/vnd.test.config+json", &digest(b"{}"), 2),
        "subject": descriptor(OCI_MANIFEST, subject, 7),
        "annotations": { "number": number.to_string() },
    });
    if let Some(kind) = kind {
        text["artifactType"] = kind.into();
    }
    let bytes = text.to_string();
    let pushed = put_manifest(client, "app", &digest(bytes.as_bytes()), bytes.as_bytes()).expect(201);
    assert_eq!(pushed.header("oci-subject"), Some(subject));
    digest(bytes.as_bytes())
}

#[test]
fn referrers_are_found_by_their_kind_and_page() {
    let gate = open("[limits]\npage_entries = 2\n");
    let client = gate.plain();
    push_blob(&client, "app", b"{}");
    // Whom they refer to need not be there.
    let subject = digest(b"a manifest that comes later");
    let path = format!("/v2/app/referrers/{subject}");
    let empty = client.get(&path).expect(200);
    assert_eq!(empty.json(), json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] }));
    assert_eq!(empty.header("content-type"), Some(OCI_INDEX));
    let signatures: Vec<String> = (0..5).map(|n| push_referrer(&client, &subject, Some(SIGNATURE), n)).collect();
    let sbom = push_referrer(&client, &subject, Some(SBOM), 5);
    // Without a kind of its own it is of its config's.
    let plain = push_referrer(&client, &subject, None, 6);
    push_referrer(&client, &digest(b"another"), Some(SBOM), 7);

    let (all, lengths) = follow(&client, &path, "manifests");
    assert_eq!((all.len(), &*lengths), (7, &[2, 2, 2, 1][..]));
    for referrer in &all {
        let name = referrer["digest"].as_str().unwrap();
        let bytes = client.get(&format!("/v2/app/manifests/{name}")).expect(200).body;
        assert_eq!((&referrer["size"], &referrer["mediaType"]), (&bytes.len().into(), &OCI_MANIFEST.into()));
        let text: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(referrer["annotations"], text["annotations"]);
    }
    let of_kind = |kind: &str| {
        let first = format!("{path}?artifactType={kind}");
        assert_eq!(client.get(&first).expect(200).header("oci-filters-applied"), Some("artifactType"), "{kind}");
        let (found, _) = follow(&client, &first, "manifests");
        let mut names: Vec<String> = found.iter().map(|one| one["digest"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    let mut sorted = signatures.clone();
    sorted.sort();
    assert_eq!(of_kind("application%2Fvnd.test.signature%2Bjson"), sorted);
    // Media types have no spaces: a plus sign that a client did not escape is one.
    assert_eq!(of_kind(SIGNATURE), sorted);
    assert_eq!(of_kind(SBOM), [sbom]);
    assert_eq!(of_kind("application/vnd.test.config%2Bjson"), std::slice::from_ref(&plain));
    assert_eq!(of_kind("application/vnd.test.none"), [""; 0]);

    client.delete(&format!("/v2/app/manifests/{plain}")).expect(202);
    assert_eq!(follow(&client, &path, "manifests").0.len(), 6);
    assert_eq!(client.get("/v2/app/referrers/sha256:short").expect(400).code(), "DIGEST_INVALID");
}

/// distribution-spec 1.1, "Listing Referrers": an empty index, and MUST NOT be 404.
#[test]
fn nothing_refers_to_what_is_in_a_repository_that_is_not_there() {
    let gate = open("");
    let client = gate.plain();
    let path = |query: &str| format!("/v2/never/pushed/referrers/{}{query}", digest(b"a manifest"));
    for query in ["", "?artifactType=application%2Fvnd.test.sbom"] {
        let empty = client.get(&path(query)).expect(200);
        assert_eq!(empty.json(), json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] }));
        assert_eq!(empty.header("content-type"), Some(OCI_INDEX));
        client.head(&path(query)).expect(200);
    }
    assert_eq!(client.get("/v2/never/pushed/tags/list").expect(404).code(), "NAME_UNKNOWN");
}

#[test]
fn a_repository_in_which_only_an_upload_has_begun_is_not_there() {
    let gate = open("");
    let client = gate.plain();
    let location = begin(&client, "team/begun");
    client.send("PATCH", &location, &[], b"half").expect(202);
    client.send("POST", &format!("/v2/team/begun/blobs/uploads/?mount={}", digest(b"x")), &[], b"").expect(202);
    for (method, path) in [
        ("GET", "tags/list".to_owned()),
        ("DELETE", "manifests/v1".to_owned()),
        ("DELETE", format!("blobs/{}", digest(b"half"))),
        ("GET", format!("blobs/{}", digest(b"half"))),
    ] {
        let ask = |name: &str| client.send(method, &format!("/v2/team/{name}/{path}"), &[], b"").expect(404);
        let (begun, never) = (ask("begun"), ask("never"));
        let said = |answer: &Answer| (answer.code(), answer.message());
        assert_eq!((said(&begun), begun.code().as_str()), (said(&never), "NAME_UNKNOWN"), "{method} {path}");
    }
    assert_eq!(client.get("/v2/_catalog").expect(200).json(), json!({ "repositories": [] }));
    assert_eq!(client.get("/v1/search?q=begun").expect(200).json()["num_results"], 0);
}

#[test]
fn the_tag_of_referrers_is_their_list_where_nobody_pushed_such_a_tag() {
    let gate = open("");
    let client = gate.plain();
    let subject = push_image(&client, "app", "v1");
    let tag = subject.replace(':', "-");
    let path = |reference: &str| format!("/v2/app/manifests/{reference}");
    assert_eq!(client.get(&path(&tag)).expect(404).code(), "MANIFEST_UNKNOWN");
    client.delete(&path(&tag)).expect(404);
    let image = String::from_utf8(manifest(&[b"{}", b"a layer"])).unwrap();
    let refers = format!(r#"{{"subject":{{"mediaType":"x/y","digest":"{subject}","size":1}},"#);
    let referrer = image.replacen('{', &refers, 1);
    put_manifest(&client, "app", &digest(referrer.as_bytes()), referrer.as_bytes()).expect(201);
    let got = client.get(&path(&tag)).expect(200);
    assert_eq!(got.header("content-type"), Some(OCI_INDEX));
    assert_eq!(got.json()["manifests"][0]["digest"], digest(referrer.as_bytes()));
    assert_eq!(got.body, client.get(&format!("/v2/app/referrers/{subject}")).expect(200).body);
    let name = got.header("docker-content-digest").unwrap().to_owned();
    assert_eq!(name, digest(&got.body));
    for reference in [&tag, &name] {
        assert_eq!(client.head(&path(reference)).expect(200).header("docker-content-digest"), Some(&*name));
        assert_eq!(client.get(&path(reference)).expect(200).body, got.body);
        client.delete(&path(reference)).expect(202);
    }
    assert_eq!(client.get("/v2/app/tags/list").expect(200).json()["tags"], json!(["v1"]));
    client.get(&format!("/v2/other/manifests/{name}")).expect(404);
    // What is pushed under the tag is what is there.
    push_image(&client, "app", &tag);
    assert_eq!(client.get(&path(&tag)).expect(200).body, image.as_bytes());
}

/// Of a sha512 the tag has the first 64 of 128 digits (distribution-spec 1.1, "Referrers Tag Schema").
#[test]
fn the_tag_of_referrers_of_a_sha512_was_nobodys() {
    let gate = open("");
    let client = gate.plain();
    push_blob(&client, "app", b"{}");
    let subject = Algorithm::Sha512.digest(b"a manifest").to_string();
    let tag = subject.replace(':', "-")[.."sha512-".len() + 64].to_owned();
    let path = |name: &str| format!("/v2/{name}/manifests/{tag}");
    assert_eq!(client.get(&path("app")).expect(404).code(), "MANIFEST_UNKNOWN");
    let referrers = [0, 1].map(|number| push_referrer(&client, &subject, Some(SBOM), number));
    let got = client.get(&path("app")).expect(200);
    assert_eq!(got.header("content-type"), Some(OCI_INDEX));
    assert_eq!(got.body, client.get(&format!("/v2/app/referrers/{subject}")).expect(200).body);
    assert_eq!(got.json()["manifests"].as_array().unwrap().len(), referrers.len());
    let name = got.header("docker-content-digest").unwrap();
    assert_eq!(client.get(&format!("/v2/app/manifests/{name}")).expect(200).body, got.body);
    push_blob(&client, "other", b"{}");
    client.get(&path("other")).expect(404);
    // Whom it stands for cannot be told any more where there is another one that begins like it.
    let last = if subject.ends_with('0') { '1' } else { '0' };
    push_referrer(&client, &format!("{}{last}", &subject[..subject.len() - 1]), Some(SBOM), 2);
    assert_eq!(client.get(&path("app")).expect(404).code(), "MANIFEST_UNKNOWN");
}
