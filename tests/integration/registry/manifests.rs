//! Manifests: what is stored, what is refused, what deleting means.

use serde_json::{Value, json};

use super::open;
use crate::support::content::{self, OCI_INDEX, OCI_MANIFEST, digest, manifest, push_blob, push_image, put_manifest};
use crate::support::gate::ADA;
use crate::support::{Answer, Client, Gate};

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

fn put(client: &Client, reference: &str, media_type: &str, bytes: &[u8]) -> Answer {
    client.send("PUT", &format!("/v2/app/manifests/{reference}"), &[("Content-Type", media_type)], bytes)
}

fn index(media_type: &str, children: &[(&str, &str, usize)]) -> Vec<u8> {
    let child =
        |(kind, digest, size): &(&str, &str, usize)| json!({ "mediaType": kind, "digest": digest, "size": size });
    let children: Vec<Value> = children.iter().map(child).collect();
    json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": children }).to_string().into_bytes()
}

#[test]
fn stored_bytes_come_back_as_they_were() {
    let gate = open("");
    let client = gate.plain();
    push_blob(&client, "app", b"{}");
    let plain = String::from_utf8(manifest(&[b"{}"])).unwrap();
    let texts = [
        plain.clone(),
        format!("\n\n  {plain}\n\t "),
        plain
            .replace(',', " ,\r\n    ")
            .replace(':', " : ")
            .replace(" : \"sha256 : ", " : \"sha256:")
            .replace("sha256 : ", "sha256:"),
        plain.replacen(
            '{',
            "{\"annotations\":{\"name\":\"h\\u00e9 \u{1f600} \\/\",\"a\":\"\"},\"unknown\":[1.0,1e3,null],",
            1,
        ),
    ];
    for text in texts {
        let (bytes, name) = (text.as_bytes(), digest(text.as_bytes()));
        assert_eq!(put_manifest(&client, "app", "v1", bytes).expect(201).header("docker-content-digest"), Some(&*name));
        // From the store, and from memory.
        for reference in ["v1", &name, "v1"] {
            let answer = client.get(&format!("/v2/app/manifests/{reference}")).expect(200);
            assert_eq!(answer.body, bytes);
            assert_eq!(answer.header("content-type"), Some(OCI_MANIFEST));
        }
    }
}

#[test]
fn an_index_needs_its_children() {
    let gate = open("");
    let client = gate.plain();
    let child = push_image(&client, "app", "child");
    let size = client.get("/v2/app/manifests/child").body.len();
    let missing = digest(b"missing");
    let half = index(OCI_INDEX, &[(OCI_MANIFEST, &child, size), (OCI_MANIFEST, &missing, 7)]);
    let refused = put(&client, "index", OCI_INDEX, &half).expect(400);
    assert_eq!(refused.code(), "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(refused.json()["errors"][0]["detail"]["missing"], json!([missing]));
    client.get("/v2/app/manifests/index").expect(404);

    let docker = index(DOCKER_LIST, &[(OCI_MANIFEST, &child, size)]);
    for (media_type, bytes) in [(OCI_INDEX, index(OCI_INDEX, &[(OCI_MANIFEST, &child, size)])), (DOCKER_LIST, docker)] {
        put(&client, "index", media_type, &bytes).expect(201);
        let answer = client.get("/v2/app/manifests/index").expect(200);
        assert_eq!((answer.header("content-type"), &answer.body), (Some(media_type), &bytes));
    }
    // A child of another repository does not count.
    let elsewhere = format!("/v2/other/manifests/{}", digest(&half));
    client.send("PUT", &elsewhere, &[("Content-Type", OCI_INDEX)], &half).expect(400);
    put(&client, "empty", OCI_INDEX, &index(OCI_INDEX, &[])).expect(201);
}

#[test]
fn a_manifest_that_could_be_read_two_ways_is_refused() {
    let gate = open("");
    let client = gate.plain();
    push_blob(&client, "app", b"{}");
    let image = String::from_utf8(manifest(&[b"{}"])).unwrap();
    let docker = image.replace(OCI_MANIFEST, DOCKER_MANIFEST);
    let untyped = image.replace(&format!("\"mediaType\":\"{OCI_MANIFEST}\","), "");
    assert!(untyped.matches("mediaType").count() == 1, "{untyped}");
    let cases = [
        (OCI_MANIFEST, image.replacen('{', "{\"manifests\":[],", 1)),
        (OCI_INDEX, image.replacen('{', "{\"manifests\":[],", 1)),
        (OCI_INDEX, image.clone()),
        (OCI_INDEX, untyped.clone()),
        (DOCKER_MANIFEST, image.clone()),
        (OCI_MANIFEST, docker.clone()),
        (OCI_MANIFEST, image.replacen('{', "{\"config\":{},", 1)),
        (OCI_MANIFEST, image.replacen('{', "{\"Layers\":[],", 1)),
        (OCI_MANIFEST, image.replacen('{', "{\"fsLayers\":[],", 1)),
        (OCI_MANIFEST, image.replacen('{', "{\"blobs\":[],", 1)),
        (OCI_MANIFEST, image.replace("\"schemaVersion\":2", "\"schemaVersion\":1")),
        (OCI_MANIFEST, format!("{image}{image}")),
        ("application/vnd.docker.distribution.manifest.v1+json", untyped.clone()),
        ("text/plain", untyped.clone()),
        (OCI_MANIFEST, "[]".into()),
        (OCI_MANIFEST, String::new()),
    ];
    for (media_type, text) in &cases {
        let refused = put(&client, "v1", media_type, text.as_bytes()).expect(400);
        assert_eq!(refused.code(), "MANIFEST_INVALID", "{media_type} {text}");
        client.get("/v2/app/manifests/v1").expect(404);
        client.get(&format!("/v2/app/manifests/{}", digest(text.as_bytes()))).expect(404);
    }
    // The header alone says what it is.
    for (media_type, text) in [(OCI_MANIFEST, &untyped), (DOCKER_MANIFEST, &docker), (OCI_MANIFEST, &image)] {
        put(&client, "v1", media_type, text.as_bytes()).expect(201);
        assert_eq!(client.get("/v2/app/manifests/v1").expect(200).header("content-type"), Some(media_type));
    }
}

#[test]
fn deleting_a_tag_leaves_its_manifest() {
    let gate = open("");
    let client = gate.plain();
    let name = push_image(&client, "app", "v1");
    push_image(&client, "app", "v2");
    // Read first, so that every cache has it.
    client.get("/v2/app/manifests/v1").expect(200);
    client.delete("/v2/app/manifests/v1").expect(202);
    assert_eq!(client.get("/v2/app/manifests/v1").expect(404).code(), "MANIFEST_UNKNOWN");
    client.get("/v2/app/manifests/v2").expect(200);
    client.get(&format!("/v2/app/manifests/{name}")).expect(200);
    assert_eq!(client.get("/v2/app/tags/list").expect(200).json()["tags"], json!(["v2"]));
    assert_eq!(client.delete("/v2/app/manifests/v1").expect(404).code(), "MANIFEST_UNKNOWN");
}

#[test]
fn deleting_a_manifest_takes_its_tags() {
    let gate = open("");
    let client = gate.plain();
    let name = push_image(&client, "app", "v1");
    push_image(&client, "app", "v2");
    for reference in ["v1", "v2", &name] {
        client.get(&format!("/v2/app/manifests/{reference}")).expect(200);
    }
    client.delete(&format!("/v2/app/manifests/{name}")).expect(202);
    for reference in ["v1", "v2", &name] {
        let path = format!("/v2/app/manifests/{reference}");
        assert_eq!(client.get(&path).expect(404).code(), "MANIFEST_UNKNOWN");
        client.head(&path).expect(404);
    }
    // The blobs are still there, so the repository is too, without tags.
    assert_eq!(client.get("/v2/app/tags/list").expect(200).json()["tags"], json!([]));
    client.get(&format!("/v2/app/blobs/{}", digest(b"a layer"))).expect(200);
    put_manifest(&client, "app", "v1", &manifest(&[b"{}", b"a layer"])).expect(201);
    client.get("/v2/app/manifests/v1").expect(200);
}

#[test]
fn where_deleting_is_switched_off_nothing_is_deleted() {
    let gate = open("[registry]\ndelete = false\n");
    let client = gate.plain();
    let name = push_image(&client, "app", "v1");
    let blob = digest(b"a layer");
    let paths = [
        ("/v2/app/manifests/v1".to_owned(), "GET, HEAD, PUT"),
        (format!("/v2/app/manifests/{name}"), "GET, HEAD, PUT"),
        (format!("/v2/app/blobs/{blob}"), "GET, HEAD"),
        ("/v2/app/manifests/missing".into(), "GET, HEAD, PUT"),
    ];
    for (path, allow) in &paths {
        let refused = client.delete(path).expect(405);
        assert_eq!(refused.code(), "UNSUPPORTED");
        assert!(refused.message().contains("registry.delete"), "{}", refused.message());
        // RFC 9110, section 15.5.6.
        assert_eq!(refused.header("allow"), Some(*allow), "{path}");
    }
    for (path, _) in &paths[..3] {
        client.get(path).expect(200);
    }
    // An upload may be given up all the same.
    client.delete(&content::begin(&client, "app")).expect(204);
}

#[test]
fn one_digest_may_be_pushed_again_and_again() {
    let gate = open("");
    let client = gate.plain();
    let name = push_image(&client, "app", "v1");
    let bytes = client.get("/v2/app/manifests/v1").body;
    for reference in ["v1", &name, "v2", "v1"] {
        let pushed = put_manifest(&client, "app", reference, &bytes).expect(201);
        assert_eq!(pushed.header("docker-content-digest"), Some(&*name));
    }
    assert_eq!(client.get("/v2/app/tags/list").json()["tags"], json!(["v1", "v2"]));
}

/// BuildKit's cache with image-manifest=false is an index of layers and of a description.
#[test]
fn an_index_of_blobs_could_not_be_pushed() {
    let gate = open("");
    let client = gate.plain();
    let (layer, description) = (push_blob(&client, "app", b"a layer"), digest(b"{}"));
    let cache = index(
        OCI_INDEX,
        &[
            ("application/vnd.oci.image.layer.v1.tar+gzip", &layer, 7),
            ("application/vnd.buildkit.cacheconfig.v0", &description, 2),
        ],
    );
    let refused = put(&client, "cache", OCI_INDEX, &cache).expect(400);
    assert_eq!(refused.code(), "MANIFEST_BLOB_UNKNOWN");
    assert!(refused.text().contains(&description) && !refused.text().contains(&layer), "{}", refused.text());
    push_blob(&client, "app", b"{}");
    put(&client, "cache", OCI_INDEX, &cache).expect(201);
    assert_eq!(client.get("/v2/app/manifests/cache").expect(200).body, cache);
    // A blob is no manifest, whatever its digest is called.
    let wrong = index(OCI_INDEX, &[(OCI_MANIFEST, &layer, 7)]);
    put(&client, "wrong", OCI_INDEX, &wrong).expect(400);
}

/// BuildKit writes it for `FROM scratch` with labels alone.
#[test]
fn an_image_without_layers_could_not_be_pushed_where_it_said_null() {
    let gate = open("");
    let client = gate.plain();
    let config = push_blob(&client, "app", b"{}");
    let config = json!({ "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2 });
    let bytes = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": null }).to_string();
    put(&client, "v1", OCI_MANIFEST, bytes.as_bytes()).expect(201);
    assert_eq!(client.get("/v2/app/manifests/v1").expect(200).text(), bytes);
}

#[test]
fn what_docker_s_registries_take_was_refused_for_its_sizes() {
    let gate = open("");
    let client = gate.plain();
    let child = push_image(&client, "app", "child");
    let image = String::from_utf8(manifest(&[b"{}", b"a layer"])).unwrap();
    assert!(image.contains("\"size\":7") && image.contains("\"size\":2"), "{image}");
    let size = image.len();
    for (what, text) in [
        ("a layer's is wrong", image.replace("\"size\":7", "\"size\":8")),
        ("0", image.replace("\"size\":7", "\"size\":0")),
        ("null", image.replace("\"size\":7", "\"size\":null")),
        ("not there", image.replace(",\"size\":7", "")),
        ("a config's is wrong", image.replace("\"size\":2", "\"size\":1")),
    ] {
        let pushed = put(&client, "v1", OCI_MANIFEST, text.as_bytes());
        assert_eq!(pushed.status, 201, "{what}: {}", pushed.text());
        assert_eq!(client.get("/v2/app/manifests/v1").expect(200).body, text.as_bytes());
    }
    for (media_type, size) in [(OCI_INDEX, size + 1), (DOCKER_LIST, 0)] {
        put(&client, "v2", media_type, &index(media_type, &[(OCI_MANIFEST, &child, size)])).expect(201);
    }
    for wrong in ["-7", "\"7\"", "7.0"] {
        let text = image.replace("\"size\":7", &format!("\"size\":{wrong}"));
        assert_eq!(put(&client, "v3", OCI_MANIFEST, text.as_bytes()).expect(400).code(), "MANIFEST_INVALID");
    }
}

/// The tags that an answer says name the manifest.
fn tags_of(answer: &Answer) -> Vec<&str> {
    answer.headers.iter().filter(|(name, _)| name == "oci-tag").map(|(_, value)| value.as_str()).collect()
}

#[test]
fn a_manifest_is_pushed_with_many_tags_at_once() {
    let gate = open("");
    let client = gate.plain();
    let first = push_image(&client, "app", "old");
    let tags: Vec<String> = (0..100).map(|number| format!("v{number}")).collect();
    let query = |tags: &[String]| tags.iter().map(|tag| format!("tag={tag}")).collect::<Vec<_>>().join("&");
    let bytes = manifest(&[b"{}", b"a layer"]);
    let pushed = put(&client, &format!("{first}?{}&tag=v0", query(&tags)), OCI_MANIFEST, &bytes).expect(201);
    assert_eq!(tags_of(&pushed), tags, "each is named once");
    for tag in &tags {
        assert_eq!(digest(&client.get(&format!("/v2/app/manifests/{tag}")).expect(200).body), first);
    }
    // By tag, too: the one in the path is none of those that were asked for beside it.
    let other = [bytes.as_slice(), b"\n"].concat();
    let pushed = put(&client, "one?tag=two", OCI_MANIFEST, &other).expect(201);
    assert_eq!(tags_of(&pushed), ["two"]);
    for tag in ["one", "two"] {
        assert_eq!(client.get(&format!("/v2/app/manifests/{tag}")).expect(200).body, other);
    }
    assert_eq!(tags_of(&put(&client, "three", OCI_MANIFEST, &other).expect(201)), [""; 0]);
    // More than can be done at once, or what is no tag: nothing is done.
    let more: Vec<String> = (0..101).map(|number| format!("w{number}")).collect();
    put(&client, &format!("{first}?{}", query(&more)), OCI_MANIFEST, &bytes).expect(414);
    let refused = put(&client, &format!("{first}?tag=w0&tag=.w1"), OCI_MANIFEST, &bytes).expect(400);
    assert_eq!(refused.code(), "TAG_INVALID");
    client.get("/v2/app/manifests/w0").expect(404);
}

#[test]
fn who_may_only_make_new_tags_moves_none_of_several() {
    let creates = "[[access]]\nwho = [\"anyone\"]\nrepositories = [\"**\"]\nactions = [\"pull\", \"create\"]\n";
    let prepared = Gate::prepare(creates);
    prepared.write("htpasswd", &format!("{ADA}\n"));
    let gate = prepared.start();
    let client = gate.plain();
    push_image(&client, "app", "v1");
    let other = [manifest(&[b"{}", b"a layer"]).as_slice(), b"\n"].concat();
    let refused = put(&client, &format!("{}?tag=new&tag=v1", digest(&other)), OCI_MANIFEST, &other).expect(403);
    assert!(refused.message().contains("the tag v1 exists"), "{}", refused.message());
    client.get("/v2/app/manifests/new").expect(404);
    client.get(&format!("/v2/app/manifests/{}", digest(&other))).expect(404);
    put(&client, &format!("{}?tag=new&tag=v2", digest(&other)), OCI_MANIFEST, &other).expect(201);
}

#[test]
fn who_takes_docker_s_images_alone_is_given_one_of_a_list() {
    let gate = open("");
    let client = gate.plain();
    push_image(&client, "app", "child");
    let image = String::from_utf8(manifest(&[b"{}", b"a layer"])).unwrap().replace(OCI_MANIFEST, DOCKER_MANIFEST);
    put(&client, "amd64", DOCKER_MANIFEST, image.as_bytes()).expect(201);
    let other = format!("{image}\n");
    put(&client, "arm64", DOCKER_MANIFEST, other.as_bytes()).expect(201);
    let child = |bytes: &str, architecture: &str| {
        json!({ "mediaType": DOCKER_MANIFEST, "digest": digest(bytes.as_bytes()), "size": bytes.len(),
                "platform": { "os": "linux", "architecture": architecture } })
    };
    let list = |children: Vec<Value>| {
        json!({ "schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": children }).to_string().into_bytes()
    };
    let both = list(vec![child(&other, "arm64"), child(&image, "amd64")]);
    put(&client, "both", DOCKER_LIST, &both).expect(201);
    let get = |accept: &str, reference: &str| {
        client.with("Accept", accept).get(&format!("/v2/app/manifests/{reference}")).expect(200)
    };
    for accept in [DOCKER_MANIFEST, &format!("application/json;q=0.1, {DOCKER_MANIFEST}; q=1")] {
        let got = get(accept, "both");
        assert_eq!((got.header("content-type"), &*got.body), (Some(DOCKER_MANIFEST), image.as_bytes()), "{accept}");
        assert_eq!(got.header("docker-content-digest"), Some(&*digest(image.as_bytes())));
        let head = client.with("Accept", accept).head("/v2/app/manifests/both").expect(200);
        assert_eq!(head.header("docker-content-digest"), Some(&*digest(image.as_bytes())));
    }
    for accept in
        ["*/*", OCI_MANIFEST, &format!("{DOCKER_MANIFEST}, {DOCKER_LIST}"), &format!("{DOCKER_MANIFEST}, */*;q=0.1")]
    {
        assert_eq!(get(accept, "both").body, both, "{accept}");
    }
    assert_eq!(client.get("/v2/app/manifests/both").body, both);
    assert_eq!(get(DOCKER_MANIFEST, &digest(&both)).body, both, "by digest it is those bytes");
    let arm = list(vec![child(&other, "arm64")]);
    put(&client, "arm", DOCKER_LIST, &arm).expect(201);
    assert_eq!(get(DOCKER_MANIFEST, "arm").body, arm, "there is nothing else to give");
}
