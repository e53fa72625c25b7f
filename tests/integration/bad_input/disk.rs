//! Disks that are full or read-only, for real: mounted by the test, which needs root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::says;
use crate::support::content::{begin, digest, manifest, push_blob, push_image, put_manifest};
use crate::support::disk::{Disk, is_without_loop_devices};
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

const READ_ONLY: &str = "the registry's data directory is read-only";

/// Pulls as before, pushes with a reason, on a gateway that was started where nothing can be written.
#[track_caller]
fn only_pulls(gate: &Gate, image: &str, large: &[u8]) {
    let client = gate.plain();
    is_whole(&client, image, large);
    let words = "make it writable and to restart";
    for answer in [
        client.send("POST", "/v2/app/blobs/uploads/", &[], b""),
        post(&client, b"more"),
        put_manifest(&client, "app", "v2", &manifest(&[b"{}", b"a layer"])),
        client.send("POST", &format!("/v2/other/blobs/uploads/?mount={}&from=app", digest(large)), &[], b""),
        client.delete("/v2/app/manifests/v1"),
    ] {
        says(&answer.clone().expect(503).message(), &[words]);
        refused(answer, 503, READ_ONLY);
    }
    let readiness = gate.admin().get("/readyz").expect(200).text();
    assert_eq!(readiness, "ready: pulls only, the data directory is read-only\n");
    gate.wait_for_log("the data directory is read-only: pulls are served, pushes are refused");
}

/// A gateway with an image in a data directory on a disk of its own.
fn with_image() -> (Prepared, Disk, Gate, String, Vec<u8>) {
    let prepared = prepare();
    let disk = Disk::memory(&prepared, "6m");
    let gate = prepared.start();
    let large = blob(0, 100_000);
    let image = push_image(&gate.plain(), "app", "v1");
    push_blob(&gate.plain(), "app", &large);
    (prepared, disk, gate, image, large)
}

#[test]
fn a_data_directory_that_is_read_only_at_the_start_serves_pulls() {
    let (prepared, disk, gate, image, large) = with_image();
    assert_eq!(gate.stop(), 0);
    disk.remount("ro");
    let gate = prepared.start();
    only_pulls(&gate, &image, &large);
    // Another may read too; what changes anything has no socket.
    only_pulls(&prepared.start(), &image, &large);
    says(&prepared.fail(&["cache", "ls"]).1, &["a gateway on a read-only data directory has no socket"]);
    assert_eq!(gate.stop(), 0);

    disk.remount("rw");
    let gate = prepared.start();
    is_whole(&gate.plain(), &image, &large);
    push_blob(&gate.plain(), "app", b"more");
}

#[test]
fn a_data_directory_that_may_not_be_written_serves_pulls() {
    let (prepared, _disk, gate, image, large) = with_image();
    assert_eq!(gate.stop(), 0);
    fs::set_permissions(prepared.path("disk/data"), PermissionsExt::from_mode(0o500)).unwrap();
    let inner = prepared.command(&["serve"]);
    let mut command = Command::new("setpriv");
    command.arg("--bounding-set=-dac_override,-dac_read_search").arg(inner.get_program()).args(inner.get_args());
    command.current_dir(prepared.directory.path());
    let gate = prepared.start_under(&mut command);
    only_pulls(&gate, &image, &large);
}

/// What was written last is only in the log that the killed gateway left.
#[test]
fn what_was_acknowledged_last_is_served_from_a_disk_that_is_read_only_since() {
    let (prepared, disk, gate, image, large) = with_image();
    let gate = gate.kill();
    assert!(fs::metadata(gate.path("disk/data/metadata.db-wal")).unwrap().len() > 0);
    disk.remount("ro");
    let gate = prepared.start();
    only_pulls(&gate, &image, &large);
    assert_eq!(gate.stop(), 0);
    // Without the index of the log, which cannot be made anew there, SQLite reads nothing of it.
    disk.remount("rw");
    fs::remove_file(prepared.path("disk/data/metadata.db-shm")).unwrap();
    disk.remount("ro");
    let (code, text) = prepared.fail(&["serve"]);
    assert_eq!(code, 65, "{text}");
    says(&text, &["metadata.db-wal", "make the directory writable, start dockgate and stop it"]);
    disk.remount("rw");
    assert_eq!(prepared.start().stop(), 0);
    disk.remount("ro");
    only_pulls(&prepared.start(), &image, &large);
}

#[test]
fn a_first_start_needs_a_data_directory_that_can_be_written() {
    let prepared = prepare();
    let disk = Disk::memory(&prepared, "6m");
    for data in ["disk", "disk/other/data"] {
        prepared.configure(&CONFIG.replace("disk/data", data));
        disk.remount("ro");
        let (code, text) = prepared.fail(&["serve"]);
        assert_eq!(code, 73, "{text}");
        says(&text, &["cannot write in", data, "make it writable", "registry.data"]);
        assert_eq!(prepared.succeed(&["check"]), "the configuration is good\n");
    }
}

/// A disk that its users keep busy is made read-only by nobody but the kernel, when it fails.
#[test]
fn a_disk_that_becomes_read_only_refuses_pushes_and_serves_pulls() {
    if is_without_loop_devices() {
        return;
    }
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
    refused(client.send("POST", "/v2/app/blobs/uploads/", &[], b""), 503, READ_ONLY);
    refused(post(&client, b"more"), 503, READ_ONLY);
    refused(client.send("PATCH", &location, &[], b" more"), 503, READ_ONLY);
    let path = format!("{location}?digest={}", digest(b"begun"));
    refused(client.send("PUT", &path, &[], b""), 503, READ_ONLY);
    refused(put_manifest(&client, "app", "v2", &manifest(&[b"{}", b"a layer"])), 503, READ_ONLY);
    let mount = format!("/v2/other/blobs/uploads/?mount={}&from=app", digest(&large));
    refused(client.send("POST", &mount, &[], b""), 503, READ_ONLY);
    refused(client.delete("/v2/app/manifests/v1"), 503, READ_ONLY);
    is_whole(&client, &image, &large);
    gate.admin().get("/readyz").expect(200);
    gate.stop();
    is_whole(&prepared.start().plain(), &image, &large);

    drop(disk);
    let _disk = Disk::file(&prepared);
    let gate = prepared.start();
    is_whole(&gate.plain(), &image, &large);
    assert_eq!(push_image(&gate.plain(), "after", "v1"), image);
}
