//! What changed is never answered as it was: caches of what can change, and clients that leave half-way.

use std::io::Write;
use std::time::{Duration, Instant};

use super::support::content::{self, OCI_MANIFEST, digest, manifest, push_blob, push_image, put_manifest};
use super::support::gate::wait_until;
use super::support::{Answer, Client, Gate};

const ANYONE: &str = "[[access]]\nwho = [\"anyone\"]\nrepositories = [\"**\"]\nactions = [\"*\"]\n";

/// Sends a request and leaves without reading the answer; every second time only after another request was answered, so
/// that some are caught in the middle.
fn send_and_leave(client: &Client, head: &str, body: &[u8], round: usize) {
    let mut stream = client.connect();
    let length = body.len();
    let head =
        format!("{head} HTTP/1.1\r\nHost: a\r\nContent-Type: {OCI_MANIFEST}\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).and_then(|()| stream.flush()).unwrap();
    if round.is_multiple_of(2) {
        client.get("/v2/");
    }
}

#[test]
fn a_deleted_tag_does_not_come_back_with_its_manifest() {
    let gate = Gate::start(ANYONE);
    let client = gate.plain();
    let name = push_image(&client, "app", "t1");
    client.get("/v2/app/manifests/t1").expect(200);
    client.delete(&format!("/v2/app/manifests/{name}")).expect(202);
    client.get("/v2/app/manifests/t1").expect(404);
    put_manifest(&client, "app", &name, &manifest(&[b"{}", b"a layer"])).expect(201);
    client.get(&format!("/v2/app/manifests/{name}")).expect(200);
    client.get("/v2/app/manifests/t1").expect(404);
}

#[test]
fn what_a_client_deleted_before_it_left_is_gone() {
    let gate = Gate::start(ANYONE);
    let client = gate.plain();
    let mut deleted = 0;
    for round in 0..60 {
        let tag = format!("t{round}");
        push_image(&client, "app", &tag);
        client.get(&format!("/v2/app/manifests/{tag}")).expect(200);
        send_and_leave(&client, &format!("DELETE /v2/app/manifests/{tag}"), b"", round);
        // The list is read from the database, the tag from memory: they must come to agree.
        let listed = || client.get("/v2/app/tags/list").text().contains(&format!("\"{tag}\""));
        let answered = || client.head(&format!("/v2/app/manifests/{tag}")).status == 200;
        for _ in 0..5 {
            let _ = answered();
        }
        wait_until("list and tag to agree", || answered() == listed());
        deleted += usize::from(!listed());
    }
    assert!(deleted > 0, "no client was caught in the middle");
}

#[test]
fn a_tag_that_a_client_moved_before_it_left_is_moved() {
    let gate = Gate::start(ANYONE);
    let client = gate.plain();
    let mut moved = 0;
    for round in 0..60 {
        let layer = format!("layer {round}").into_bytes();
        push_image(&client, "app", "t");
        push_blob(&client, "app", &layer);
        let next = manifest(&[b"{}", &layer]);
        send_and_leave(&client, "PUT /v2/app/manifests/t", &next, round);
        // Once the manifest is there, it was stored with its tag in one transaction.
        let stored = || client.head(&format!("/v2/app/manifests/{}", digest(&next))).status == 200;
        let tagged = || client.head("/v2/app/manifests/t").header("docker-content-digest") == Some(&*digest(&next));
        for _ in 0..5 {
            let _ = tagged();
        }
        wait_until("manifest and tag to agree", || stored() == tagged());
        moved += usize::from(stored());
    }
    assert!(moved > 0, "no client was caught in the middle");
}

#[test]
fn a_lost_blob_is_mended_by_pushing_it_again() {
    let gate = Gate::start(&format!("{ANYONE}[cache]\nmemory = \"0\"\nmemory_object_max = \"0\"\n"));
    let client = gate.plain();
    let name = push_blob(&client, "app", b"some bytes");
    client.get(&format!("/v2/app/blobs/{name}")).expect(200);
    super::support::gate::files(&gate.path("data/blobs")).iter().for_each(|file| std::fs::remove_file(file).unwrap());
    client.get(&format!("/v2/app/blobs/{name}")).expect(404);
    push_blob(&client, "app", b"some bytes");
    assert_eq!(client.get(&format!("/v2/app/blobs/{name}")).expect(200).body, b"some bytes");
}

#[test]
fn an_upload_that_nobody_can_take_up_again_leaves_nothing() {
    let gate = Gate::start(ANYONE);
    let client = gate.plain();
    for _ in 0..20 {
        let mut stream = client.connect();
        let head = format!(
            "POST /v2/app/blobs/uploads/?digest={} HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\nhalf",
            digest(b"")
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.flush()).unwrap();
        wait_until("the upload to begin", || !super::support::gate::files(&gate.path("data/uploads")).is_empty());
        drop(stream);
        wait_until("the upload to be gone", || super::support::gate::files(&gate.path("data/uploads")).is_empty());
    }
    let wrong = format!("/v2/app/blobs/uploads/?digest={}", digest(b"other"));
    assert_eq!(client.send("POST", &wrong, &[], b"bytes").expect(400).code(), "DIGEST_INVALID");
    wait_until("the upload to be gone", || super::support::gate::files(&gate.path("data/uploads")).is_empty());
}

#[test]
fn one_user_cannot_take_all_uploads() {
    let prepared = Gate::prepare("[limits]\nuploads = 20\n");
    let gate = prepared.start();
    let add = prepared.command(&["user", "add", "low", "--password-stdin"]).stdin(password("pw")).output().unwrap();
    assert!(add.status.success());
    let low = gate.tls().user("low", "pw");
    wait_until("the user to be known", || low.get("/v2/").status == 200);
    let statuses: Vec<u16> = (0..20).map(|_| low.send("POST", "/v2/a/blobs/uploads/", &[], b"").status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 202).count(), 10, "{statuses:?}");
    content::begin(&gate.root(), "b");
}

fn password(text: &str) -> std::process::Stdio {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    std::fs::File::open(file.path()).unwrap().into()
}

#[test]
fn a_chunk_longer_than_it_said_is_not_kept() {
    let gate = Gate::start(ANYONE);
    let client = gate.plain();
    let location = content::begin(&client, "app");
    let head = format!(
        "PATCH {location} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Range: 0-3\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    client.raw(format!("{head}4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n").as_bytes(), "PATCH").expect(400);
    assert_eq!(client.get(&location).expect(204).header("range"), Some("0-3"));
}

#[test]
fn who_is_refused_while_still_sending_reads_why() {
    let gate = Gate::start("");
    let large = vec![0; 4 * 1024 * 1024];
    for _ in 0..10 {
        let location = "/v2/app/blobs/uploads/0123456789abcdef0123456789abcdef";
        gate.tls().send("PATCH", location, &[], &large).expect(401);
    }
}

/// Two requests on one connection: one that is answered before its body was read, with `rest` bytes of body, and one that
/// shows whether the connection was kept. What the first is answered, and the second, if it is.
fn two_on_one_connection(gate: &Gate, head: &str, rest: usize) -> (Answer, Option<Answer>) {
    let mut stream = gate.plain().connect();
    let request = format!("{head}Host: localhost\r\nContent-Length: {rest}\r\n\r\n");
    let _ = stream.write_all(&[request.as_bytes(), &vec![0; rest]].concat());
    let first = Answer::next(&mut stream, "PUT").expect("an answer, not a reset");
    let _ = stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    (first, Answer::next(&mut stream, "GET"))
}

#[test]
fn an_answer_before_the_body_was_read_ended_the_connection_unannounced() {
    let gate = Gate::start("");
    let login = "Authorization: Basic bm9ib2R5Ondyb25n\r\n";
    let refused = [
        "PUT /v2/app/manifests/latest HTTP/1.1\r\n".to_owned(),
        format!("PUT /v2/app/manifests/latest HTTP/1.1\r\n{login}"),
        "POST /v2/app/blobs/uploads/ HTTP/1.1\r\n".to_owned(),
        "PATCH /v2/app/blobs/uploads/0123456789abcdef0123456789abcdef HTTP/1.1\r\n".to_owned(),
        "PUT /v2/app/blobs/uploads/0123456789abcdef0123456789abcdef HTTP/1.1\r\n".to_owned(),
        "DELETE /v2/app/manifests/latest HTTP/1.1\r\n".to_owned(),
        "PUT /v1/images/0123/layer HTTP/1.1\r\n".to_owned(),
        "POST /nothing/is/here HTTP/1.1\r\n".to_owned(),
        "GET /v2/app/manifests/latest HTTP/1.1\r\n".to_owned(),
    ];
    for head in &refused {
        for rest in [1, 10_000, 256 << 10] {
            let (first, second) = two_on_one_connection(&gate, head, rest);
            assert!(first.status >= 400, "{head}");
            assert_eq!(first.header("connection"), None, "{head}{rest}: {first:?}");
            assert_eq!(second.map(|second| second.status), Some(401), "{head}{rest}");
        }
        // What is longer may be read all the same; where it is not, that is said.
        let (first, second) = two_on_one_connection(&gate, head, (256 << 10) + 1);
        let is_closed = first.header("connection") == Some("close");
        assert_eq!(second.is_none(), is_closed, "{head}: {first:?}");
        assert!(is_closed || !head.starts_with("PATCH"), "{head}");
    }
}

#[test]
fn who_waits_to_be_told_to_go_on_is_answered_at_once() {
    let gate = Gate::start("");
    let mut stream = gate.plain().connect();
    let head = "PUT /v2/app/manifests/latest HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let began = Instant::now();
    let answer = Answer::next(&mut stream, "PUT").unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    // Whether the body still comes is the client's choice, so nothing can be read after it.
    assert_eq!((answer.status, answer.header("connection")), (401, Some("close")));
}
