//! Disks that are full or read-only, for real: mounted by the test, which needs root.

use std::fs;

use super::says;
use crate::support::content::{begin, digest, manifest, push_blob, push_image, put_manifest};
use crate::support::disk::Disk;
use crate::support::gate::{ADA, Prepared};
use crate::support::{Answer, Client, Gate};

/// Open to all; keeps its data on a disk of its own, of which it uses the last byte.
const CONFIG: &str = r#"
[[access]]
who = ["anyone"]
repositories = ["**"]
actions = ["*"]
[registry]
data = "disk/data"
[limits]
disk_reserve = "0"
disk_reserve_percent = 0
[cache]
memory_object_max = "1KiB"
"#;

fn prepare() -> Prepared {
    let prepared = Gate::prepare(CONFIG);
    prepared.write("htpasswd", &format!("{ADA}\n"));
    prepared
}

/// Incompressible, and different for each number.
fn blob(number: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at / 7 + usize::from(number) * 31) % 253).unwrap()).collect()
}

#[track_caller]
fn refused(answer: Answer, status: u16, words: &str) {
    let answer = answer.expect(status);
    assert_eq!(answer.code(), "UNAVAILABLE");
    says(&answer.message(), &[words, "pulls go on"]);
}

fn post(client: &Client, bytes: &[u8]) -> Answer {
    client.send("POST", &format!("/v2/app/blobs/uploads/?digest={}", digest(bytes)), &[], bytes)
}

/// Everything that was pushed before the disk failed.
fn is_whole(client: &Client, image: &str, large: &[u8]) {
    let answer = client.get("/v2/app/manifests/v1").expect(200);
    assert_eq!(digest(&answer.body), image);
    client.get(&format!("/v2/app/blobs/{}", digest(b"a layer"))).expect(200);
    assert!(client.get(&format!("/v2/app/blobs/{}", digest(large))).expect(200).body == large);
}

#[test]
fn a_full_disk_refuses_pushes_and_serves_pulls() {
    let prepared = prepare();
    let disk = Disk::memory(&prepared, "6m");
    let gate = prepared.start();
    let client = gate.plain();
    let large = blob(0, 1_000_000);
    let image = push_image(&client, "app", "v1");
    push_blob(&client, "app", &large);
    let location = begin(&client, "app");
    let begun = blob(1, 300_000);
    client.send("PATCH", &location, &[], &begun[..100_000]).expect(202);

    let filler = disk.fill();
    let full = "the registry's disk is full";
    refused(post(&client, &blob(2, 1_000_000)), 507, full);
    refused(client.send("PATCH", &location, &[], &begun[100_000..]), 507, full);
    refused(client.send("POST", "/v2/app/blobs/uploads/", &[], b""), 507, full);
    let tagged = manifest(&[b"{}", b"a layer", &large]);
    refused(put_manifest(&client, "app", "v2", &tagged), 507, full);
    is_whole(&client, &image, &large);
    client.get("/v2/app/manifests/v2").expect(404);
    gate.admin().get("/readyz").expect(200);

    // With space again all goes on, in the same process and in the same upload.
    fs::remove_file(filler).unwrap();
    let range = client.get(&location).expect(204).header("range").unwrap().to_owned();
    let offset: usize = range.strip_prefix("0-").unwrap().parse::<usize>().unwrap() + 1;
    assert!((100_000..=begun.len()).contains(&offset), "{range}");
    let path = format!("{location}?digest={}", digest(&begun));
    client.send("PUT", &path, &[], &begun[offset..]).expect(201);
    assert!(client.get(&format!("/v2/app/blobs/{}", digest(&begun))).expect(200).body == begun);
    put_manifest(&client, "app", "v2", &tagged).expect(201);
    post(&client, &blob(2, 1_000_000)).expect(201);
    assert_eq!(gate.stop(), 0);
    let gate = prepared.start();
    is_whole(&gate.plain(), &image, &large);
    gate.plain().get("/v2/app/manifests/v2").expect(200);
}

#[test]
fn a_reserve_that_is_used_up_refuses_pushes_and_serves_pulls() {
    let prepared = prepare();
    let gate = prepared.start();
    let large = blob(0, 1_000_000);
    let image = push_image(&gate.plain(), "app", "v1");
    push_blob(&gate.plain(), "app", &large);
    assert_eq!(gate.stop(), 0);
    prepared.configure(&CONFIG.replace("disk_reserve = \"0\"", "disk_reserve = \"1000000GB\""));
    let gate = prepared.start();
    let (client, full) = (gate.plain(), "the registry's disk is full");
    refused(post(&client, b"more"), 507, full);
    refused(client.send("POST", "/v2/app/blobs/uploads/", &[], b""), 507, full);
    refused(put_manifest(&client, "app", "v2", &manifest(&[b"{}", b"a layer"])), 507, full);
    is_whole(&client, &image, &large);
    // What makes room is let through.
    client.delete("/v2/app/manifests/v1").expect(202);
    gate.admin().get("/readyz").expect(200);
}

#[test]
fn a_read_only_data_directory_does_not_start() {
    let prepared = prepare();
    let disk = Disk::memory(&prepared, "6m");
    let gate = prepared.start();
    let large = blob(0, 100_000);
    let image = push_image(&gate.plain(), "app", "v1");
    push_blob(&gate.plain(), "app", &large);
    assert_eq!(gate.stop(), 0);
    disk.remount("ro");
    let (code, text) = prepared.fail(&["serve"]);
    assert_eq!(code, 73, "{text}");
    let data = prepared.path("disk/data").display().to_string();
    says(&text, &["cannot write in", &data, "make it writable", "registry.data"]);
    assert_eq!(prepared.succeed(&["check"]), "the configuration is good\n");
    // Where there is none yet, none can be made.
    let other = Prepared { directory: std::sync::Arc::clone(&prepared.directory) };
    other.configure(&CONFIG.replace("disk/data", "disk/other/data"));
    let (code, text) = other.fail(&["serve"]);
    assert_eq!(code, 73, "{text}");
    says(&text, &["cannot write in", "disk/other/data", "make it writable"]);

    prepared.configure(CONFIG);
    disk.remount("rw");
    let gate = prepared.start();
    is_whole(&gate.plain(), &image, &large);
    push_blob(&gate.plain(), "app", b"more");
}

/// A disk that its users keep busy is made read-only by nobody but the kernel, when it fails.
#[test]
fn a_disk_that_becomes_read_only_refuses_pushes_and_serves_pulls() {
    let prepared = prepare();
    let disk = Disk::file(&prepared);
    let gate = prepared.start();
    let client = gate.plain();
    let large = blob(0, 1_000_000);
    let image = push_image(&client, "app", "v1");
    push_blob(&client, "app", &large);
    let location = begin(&client, "app");
    client.send("PATCH", &location, &[], b"begun").expect(202);

    disk.break_down();
    let read_only = "the registry's disk is read-only";
    refused(client.send("POST", "/v2/app/blobs/uploads/", &[], b""), 503, read_only);
    refused(post(&client, b"more"), 503, read_only);
    refused(client.send("PATCH", &location, &[], b" more"), 503, read_only);
    let path = format!("{location}?digest={}", digest(b"begun"));
    refused(client.send("PUT", &path, &[], b""), 503, read_only);
    refused(put_manifest(&client, "app", "v2", &manifest(&[b"{}", b"a layer"])), 503, read_only);
    let mount = format!("/v2/other/blobs/uploads/?mount={}&from=app", digest(&large));
    refused(client.send("POST", &mount, &[], b""), 503, read_only);
    refused(client.delete("/v2/app/manifests/v1"), 503, read_only);
    is_whole(&client, &image, &large);
    gate.admin().get("/readyz").expect(200);
    gate.stop();
    assert_eq!(prepared.fail(&["serve"]).0, 73);

    drop(disk);
    let _disk = Disk::file(&prepared);
    let gate = prepared.start();
    is_whole(&gate.plain(), &image, &large);
    assert_eq!(push_image(&gate.plain(), "after", "v1"), image);
}
