//! What several repositories, users and requests share.

use std::sync::{Arc, Barrier};
use std::thread;

use super::{open, some_bytes};
use crate::support::content::{self, digest, manifest, push_blob, push_image, put_manifest};
use crate::support::gate::{ADA, files};
use crate::support::{Client, Gate};

#[test]
fn a_mount_gives_a_repository_what_another_has() {
    let gate = open("");
    let client = gate.plain();
    let blob = push_blob(&client, "source", &some_bytes(1_000));
    let mount = |query: &str| client.send("POST", &format!("/v2/target/blobs/uploads/?{query}"), &[], b"");
    let path = format!("/v2/target/blobs/{blob}");
    // What cannot be mounted is to be uploaded; the answer says where.
    let missing = digest(b"missing");
    for query in [
        format!("mount={missing}&from=source"),
        format!("mount={blob}&from=nowhere"),
        format!("mount={blob}&from=target"),
        format!("mount={blob}"),
        format!("mount={blob}&from="),
        format!("mount={blob}&from=No/Name"),
        format!("mount={blob}&from=registry.example:5000/source"),
    ] {
        let answer = mount(&query).expect(202);
        client.get(answer.header("location").unwrap()).expect(204);
        client.get(&path).expect(404);
    }
    let mounted = mount(&format!("mount={blob}&from=source")).expect(201);
    assert_eq!(mounted.header("location"), Some(&*path));
    assert_eq!(client.get(&path).expect(200).body, some_bytes(1_000));
    mount(&format!("mount={blob}&from=source")).expect(201);
    assert_eq!(mount("mount=sha256:short&from=source").expect(400).code(), "DIGEST_INVALID");
}

/// Threat A6: a blob that several repositories have is deleted in one, and in no other.
#[test]
fn what_is_deleted_in_one_repository_stays_in_the_others() {
    let gate = open("");
    let client = gate.plain();
    let bytes = some_bytes(1_000);
    let blob = push_blob(&client, "a", &bytes);
    push_blob(&client, "b", &bytes);
    let (in_a, in_b) = (format!("/v2/a/blobs/{blob}"), format!("/v2/b/blobs/{blob}"));
    // Read first, so that every cache has it.
    for path in [&in_a, &in_b, &in_a, &in_b] {
        client.get(path).expect(200);
    }
    client.delete(&in_a).expect(202);
    client.head(&in_b).expect(200);
    assert_eq!(client.get(&in_a).expect(404).code(), "NAME_UNKNOWN", "nothing else was in it");
    client.head(&in_a).expect(404);
    assert_eq!(client.delete(&in_a).expect(404).status, 404);
    assert_eq!(client.get(&in_b).expect(200).body, bytes);
    // What is not in a any more cannot be mounted from there either.
    client.send("POST", &format!("/v2/c/blobs/uploads/?mount={blob}&from=a"), &[], b"").expect(202);
    client.send("POST", &format!("/v2/a/blobs/uploads/?mount={blob}&from=b"), &[], b"").expect(201);
    assert_eq!(client.get(&in_a).expect(200).body, bytes);

    let manifest = push_image(&client, "a", "v1");
    push_image(&client, "b", "v1");
    client.delete(&format!("/v2/a/manifests/{manifest}")).expect(202);
    assert_eq!(client.get(&format!("/v2/a/manifests/{manifest}")).expect(404).code(), "MANIFEST_UNKNOWN");
    client.get(&format!("/v2/b/manifests/{manifest}")).expect(200);
    client.get("/v2/b/manifests/v1").expect(200);
}

/// What was known of it before must not hide the new file.
#[test]
fn a_blob_whose_file_is_gone_is_mended_by_a_push() {
    let gate = open("[cache]\nmemory_object_max = \"1KiB\"\n");
    let client = gate.plain();
    let bytes = some_bytes(100_000);
    let blob = push_blob(&client, "a", &bytes);
    push_blob(&client, "b", &bytes);
    let (in_a, in_b) = (format!("/v2/a/blobs/{blob}"), format!("/v2/b/blobs/{blob}"));
    for path in [&in_a, &in_b] {
        client.get(path).expect(200);
    }
    let found = files(&gate.path("data/blobs"));
    let [file] = found.as_slice() else { panic!("{found:?}") };
    std::fs::remove_file(file).unwrap();
    assert_eq!(client.get(&in_a).expect(404).code(), "BLOB_UNKNOWN");
    gate.wait_for_log("whoever pushes the blob again mends it");
    push_blob(&client, "a", &bytes);
    for path in [&in_a, &in_b] {
        assert!(client.get(path).expect(200).body == bytes, "{path}");
    }
}

const CREATE_ONLY: &str = "[[access]]\nwho = [\"user:ada\"]\nrepositories = [\"**\"]\nactions = [\"pull\", \"create\"]\n\
                           [[access]]\nwho = [\"user:root\"]\nrepositories = [\"**\"]\nactions = [\"*\"]\n";

#[test]
fn who_may_only_create_cannot_move_a_tag() {
    let prepared = Gate::prepare(CREATE_ONLY);
    prepared.write("htpasswd", &format!("{ADA}\n{}\n", ADA.replace("ada:", "root:")));
    let gate = prepared.start();
    let (ada, root) = (gate.plain().user("ada", "ada"), gate.plain().user("root", "ada"));
    let first = push_image(&ada, "app", "v1");
    let (same, other) = (manifest(&[b"{}", b"a layer"]), manifest(&[b"{}"]));
    put_manifest(&ada, "app", "v1", &same).expect(201);
    let refused = put_manifest(&ada, "app", "v1", &other).expect(403);
    assert_eq!(refused.code(), "DENIED");
    assert!(refused.message().contains("push under another tag"), "{}", refused.message());
    let named = |client: &Client| {
        client.get("/v2/app/manifests/v1").expect(200).header("docker-content-digest").unwrap().to_owned()
    };
    assert_eq!(named(&ada), first);
    // What was refused was not stored either.
    ada.get(&format!("/v2/app/manifests/{}", digest(&other))).expect(404);
    put_manifest(&ada, "app", &digest(&other), &other).expect(201);
    put_manifest(&ada, "app", "v2", &other).expect(201);
    for path in ["/v2/app/manifests/v1".to_owned(), format!("/v2/app/manifests/{first}")] {
        assert_eq!(ada.delete(&path).expect(403).code(), "DENIED");
    }
    assert_eq!(named(&ada), first);
    put_manifest(&root, "app", "v1", &other).expect(201);
    assert_eq!(named(&ada), digest(&other));
}

/// Runs `work` in so many threads at the same moment.
fn at_once<T: Send + 'static>(threads: usize, work: impl Fn(usize) -> T + Send + Sync + 'static) -> Vec<T> {
    let (barrier, work) = (Arc::new(Barrier::new(threads)), Arc::new(work));
    let run = |number| {
        let (barrier, work) = (Arc::clone(&barrier), Arc::clone(&work));
        thread::spawn(move || {
            barrier.wait();
            work(number)
        })
    };
    let running: Vec<_> = (0..threads).map(run).collect();
    running.into_iter().map(|thread| thread.join().unwrap()).collect()
}

#[test]
fn one_blob_may_be_pushed_by_many_at_once() {
    let gate = open("");
    let client = gate.plain();
    let bytes = Arc::new(some_bytes(1_500_000));
    let (pushed, by) = (Arc::clone(&bytes), client.clone());
    let names = at_once(16, move |number| push_blob(&by, &format!("app-{}", number % 4), &pushed));
    assert!(names.iter().all(|name| *name == digest(&bytes)));
    for number in 0..4 {
        assert!(client.get(&format!("/v2/app-{number}/blobs/{}", names[0])).expect(200).body == *bytes);
    }
    assert_eq!(files(&gate.path("data/blobs")).len(), 1, "one file is kept");
    assert_eq!(files(&gate.path("data/uploads")).len(), 0);
}

#[test]
fn one_tag_may_be_moved_by_many_at_once() {
    let gate = open("");
    let client = gate.plain();
    push_blob(&client, "app", b"{}");
    let images: Vec<Vec<u8>> = (0..16)
        .map(|number| {
            let number = format!("{{\"annotations\":{{\"number\":\"{number}\"}},");
            String::from_utf8(manifest(&[b"{}"])).unwrap().replacen('{', &number, 1).into_bytes()
        })
        .collect();
    let (pushed, by) = (images.clone(), client.clone());
    at_once(16, move |number| {
        put_manifest(&by, "app", "v1", &pushed[number]).expect(201);
        // Whoever reads meanwhile sees one of them, whole.
        let read = by.get("/v2/app/manifests/v1").expect(200);
        assert!(pushed.contains(&read.body), "{}", read.text());
    });
    let last = client.get("/v2/app/manifests/v1").expect(200);
    assert!(images.contains(&last.body));
    assert_eq!(client.head("/v2/app/manifests/v1").header("docker-content-digest"), Some(&*digest(&last.body)));
    for image in &images {
        assert_eq!(client.get(&format!("/v2/app/manifests/{}", digest(image))).expect(200).body, *image);
    }
}

#[test]
fn many_uploads_go_on_at_once() {
    let gate = open("");
    let client = gate.plain();
    let by = client.clone();
    let names = at_once(50, move |number| {
        let bytes = [format!("upload {number}").into_bytes(), some_bytes(100_000 + number)].concat();
        let location = content::begin(&by, "app");
        for chunk in bytes.chunks(40_000) {
            by.send("PATCH", &location, &[], chunk).expect(202);
        }
        by.send("PUT", &format!("{location}?digest={}", digest(&bytes)), &[], b"").expect(201);
        digest(&bytes)
    });
    for name in &names {
        assert_eq!(digest(&client.get(&format!("/v2/app/blobs/{name}")).expect(200).body), *name);
    }
    assert_eq!(files(&gate.path("data/blobs")).len(), 50);
    assert_eq!(files(&gate.path("data/uploads")).len(), 0);
}
