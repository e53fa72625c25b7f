//! Every fault of a download, for one client and for fifty at once.

use std::time::{Duration, Instant};

use super::{Mirror, cache_is_clean, crowd, is_error, noise, pull, pullers};
use crate::support::Answer;
use crate::support::content::manifest;
use crate::support::gate::wait_until;
use crate::support::v2_upstream::{Fault, Latch};

const MANY: usize = 50;

/// What clients see while a fault lasts.
#[derive(Debug, Clone, Copy)]
enum Seen {
    /// Nothing of it.
    Whole,
    /// A body that breaks off.
    Broken,
    /// An error of this status and code.
    Error(u16, &'static str),
}

struct Case {
    fault: Fault,
    /// While it lasts: what is seen, and how often the blob is asked for.
    lasting: (Seen, usize),
    /// The same, if only the first answer is wrong.
    once: (Seen, usize),
}

const fn case(fault: Fault, lasting: (Seen, usize), once: (Seen, usize)) -> Case {
    Case { fault, lasting, once }
}

use Seen::{Broken, Error, Whole};

/// Runs a case with one client and with many.
fn run(Case { fault, lasting, once }: &Case) {
    for clients in [1, MANY] {
        check(fault, clients, usize::MAX, *lasting);
        check(fault, clients, 1, *once);
    }
}

/// The first `times` answers are wrong; then the upstream is well again.
fn check(fault: &Fault, clients: usize, times: usize, (seen, asked): (Seen, usize)) {
    // A little longer than elsewhere: many clients need a moment to be there.
    let mirror = Mirror::start("first_byte_timeout = \"2s\"");
    let layer = noise(clients as u64, 512 << 10);
    let (_, digest) = mirror.up.image("app", "v1", &layer);
    let (path, latch) = (format!("/v2/up/app/blobs/{digest}"), Latch::new());
    mirror.pull("/v2/up/app/manifests/v1").expect(200);
    mirror.up.fault_some("GET", "/blobs/", 0..times, fault.clone());
    // Nobody may come after the others have their answer.
    mirror.up.fault_some("GET", "/blobs/", 0..1, Fault::Hold(latch.clone()));
    let pullers = crowd(&mirror.gate, clients, &path);
    latch.open();
    for puller in pullers {
        is_seen(seen, puller.join().unwrap(), &layer);
    }
    assert_eq!(mirror.up.count("GET", &digest), asked, "{seen:?} by {clients}, {times} times");
    cache_is_clean(&mirror.gate.path("cache"));

    mirror.up.heal();
    wait_until("the upstream to be asked again", || mirror.pull(&path).status == 200);
    assert!(mirror.pull(&path).body == layer, "{seen:?} by {clients}, {times} times");
    cache_is_clean(&mirror.gate.path("cache"));
}

#[track_caller]
fn is_seen(seen: Seen, answer: Result<Answer, String>, layer: &[u8]) {
    match (seen, answer) {
        (Whole, Ok(answer)) => assert!(answer.expect(200).body == layer),
        (Broken, Err(_)) => {}
        (Error(status, code), Ok(answer)) => is_error(&answer, status, code),
        (seen, Ok(answer)) => panic!("{seen:?}, but {} and {} bytes", answer.status, answer.body.len()),
        (seen, Err(text)) => panic!("{seen:?}, but {text}"),
    }
}

#[test]
fn a_truncated_body_is_taken_up_again_once() {
    run(&case(Fault::Truncated(50), (Broken, 2), (Whole, 2)));
}

#[test]
fn a_connection_that_is_reset_is_taken_up_again_once() {
    for at in [30, 60, 90] {
        run(&case(Fault::Reset(at), (Broken, 2), (Whole, 2)));
    }
}

#[test]
fn a_body_that_falls_silent_is_taken_up_again_once() {
    run(&case(Fault::SilentAt(50), (Broken, 2), (Whole, 2)));
}

#[test]
fn a_byte_a_second_is_too_slow() {
    // The silence between two bytes is no fault of its own here.
    let trickle = Fault::Trickle(Duration::from_millis(900));
    run(&case(trickle, (Broken, 2), (Whole, 2)));
}

#[test]
fn more_bytes_than_there_are_is_an_error() {
    let error = Error(502, "UNAVAILABLE");
    run(&case(Fault::Extra, (error, 1), (error, 1)));
    run(&case(Fault::ExtraChunked, (Broken, 1), (Broken, 1)));
}

#[test]
fn an_answer_that_nobody_asked_for_is_not_taken_for_the_next() {
    run(&case(Fault::Unasked, (Whole, 1), (Whole, 1)));
}

#[test]
fn other_bytes_are_never_whole_and_never_kept() {
    run(&case(Fault::WrongBytes, (Broken, 1), (Broken, 1)));
}

#[test]
fn a_length_that_lies_is_an_error() {
    let error = Error(502, "UNAVAILABLE");
    for off in [-7, 7] {
        run(&case(Fault::Length(off), (error, 1), (error, 1)));
    }
}

#[test]
fn without_a_length_the_manifest_says_it() {
    run(&case(Fault::NoLength, (Whole, 1), (Whole, 1)));
}

#[test]
fn a_header_that_names_another_digest_changes_nothing() {
    let other = Fault::Digest(crate::support::content::digest(b"another"));
    run(&case(other, (Whole, 1), (Whole, 1)));
}

#[test]
fn a_failing_upstream_is_asked_once_more() {
    for status in [500, 502, 503, 429] {
        run(&case(Fault::Status(status), (Error(503, "UNAVAILABLE"), 2), (Whole, 2)));
    }
}

#[test]
fn retry_after_is_waited_for_by_all() {
    run(&case(Fault::StatusRetryAfter(429, 1), (Error(503, "UNAVAILABLE"), 2), (Whole, 2)));
}

#[test]
fn an_upstream_that_says_nothing_is_given_up() {
    let error = Error(504, "UNAVAILABLE");
    run(&case(Fault::Silent, (error, 1), (error, 1)));
}

#[test]
fn a_missing_blob_is_missing() {
    let error = Error(404, "BLOB_UNKNOWN");
    run(&case(Fault::Status(404), (error, 1), (error, 1)));
}

/// The second answer goes wrong where the first broke off.
fn resumed(second: &Fault, clients: usize, seen: Seen) {
    let mirror = Mirror::start("first_byte_timeout = \"2s\"");
    let layer = noise(7, 512 << 10);
    let (_, digest) = mirror.up.image("app", "v1", &layer);
    let (path, latch) = (format!("/v2/up/app/blobs/{digest}"), Latch::new());
    mirror.pull("/v2/up/app/manifests/v1").expect(200);
    mirror.up.fault_some("GET", "/blobs/", 0..1, Fault::Truncated(40));
    mirror.up.fault_some("GET", "/blobs/", 1..2, second.clone());
    mirror.up.fault_some("GET", "/blobs/", 0..1, Fault::Hold(latch.clone()));
    let pullers = crowd(&mirror.gate, clients, &path);
    latch.open();
    for puller in pullers {
        is_seen(seen, puller.join().unwrap(), &layer);
    }
    let ranges: Vec<_> = mirror.up.asked_for("GET", &digest);
    let ranges: Vec<_> = ranges.iter().map(|asked| asked.header("range")).collect();
    let rest = format!("bytes={}-{}", layer.len() * 40 / 100, layer.len() - 1);
    assert_eq!(ranges, [None, Some(rest.as_str())]);
    mirror.up.heal();
    assert!(mirror.pull(&path).expect(200).body == layer);
    cache_is_clean(&mirror.gate.path("cache"));
}

#[test]
fn all_of_it_in_place_of_a_range_is_taken_from_where_it_broke_off() {
    for clients in [1, MANY] {
        resumed(&Fault::WholeForRange, clients, Whole);
    }
}

#[test]
fn an_upstream_that_refuses_ranges_is_asked_for_all_of_it() {
    for status in [400, 403, 416, 501] {
        // It is another question, and so no try of the same one.
        let mirror = Mirror::start("retries = 1");
        let layer = noise(7, 512 << 10);
        let (_, digest) = mirror.up.image("app", "v1", &layer);
        mirror.pull("/v2/up/app/manifests/v1").expect(200);
        mirror.up.fault_some("GET", "/blobs/", 0..1, Fault::Truncated(40));
        mirror.up.fault("GET", "/blobs/", Fault::StatusForRange(status));
        assert!(mirror.pull(&format!("/v2/up/app/blobs/{digest}")).expect(200).body == layer, "{status}");
        assert_eq!(mirror.up.count("GET", &digest), 3);
    }
}

#[test]
fn an_upstream_that_closed_every_ten_megabytes_never_gave_a_large_layer() {
    let mirror = Mirror::start("deadline = \"20s\"");
    let layer = noise(7, 12 << 20);
    let (_, digest) = mirror.up.image("app", "v1", &layer);
    mirror.pull("/v2/up/app/manifests/v1").expect(200);
    mirror.up.fault("GET", "/blobs/", Fault::TruncatedAfter(1 << 20));
    assert!(mirror.pull(&format!("/v2/up/app/blobs/{digest}")).expect(200).body == layer);
    assert_eq!(mirror.up.count("GET", &digest), 12);
    cache_is_clean(&mirror.gate.path("cache"));
}

#[test]
fn another_range_than_was_asked_for_is_not_taken() {
    for clients in [1, MANY] {
        resumed(&Fault::WrongRange, clients, Broken);
        resumed(&Fault::WrongBytes, clients, Broken);
    }
}

#[test]
fn who_wants_to_be_left_alone_for_an_hour_is() {
    let mirror = Mirror::start("");
    let (_, digest) = mirror.up.image("app", "v1", b"a layer");
    mirror.pull("/v2/up/app/manifests/v1").expect(200);
    mirror.up.fault("GET", "/blobs/", Fault::StatusRetryAfter(429, 3600));
    let path = format!("/v2/up/app/blobs/{digest}");
    for puller in pullers(&mirror.gate, MANY, &path) {
        let answer = puller.join().unwrap().unwrap();
        is_error(&answer, 503, "UNAVAILABLE");
        let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((3000..=3600).contains(&after), "{after}");
    }
    // They came before it said so, or were told at once.
    assert_eq!(mirror.up.count("GET", &digest), 1);
    // What is here is given all the same.
    mirror.pull("/v2/up/app/manifests/v1").expect(200);
}

/// Docker Hub counts who gets manifests, and not who asks for their heads; containerd waited for 85 s before it went on to its next host.
#[test]
fn a_known_refusal_kept_everybody_waiting_for_its_end() {
    let mirror = Mirror::start("deadline = \"30s\"\nfirst_byte_timeout = \"20s\"\ntag_ttl = \"0s\"");
    let (_, digest) = mirror.up.image("app", "v1", b"a layer");
    let (kept, _) = mirror.up.image("app", "kept", b"another layer");
    mirror.pull("/v2/up/app/manifests/kept").expect(200);
    mirror.up.fault("GET", "/manifests/", Fault::StatusRetryAfter(429, 10));
    for _ in 0..3 {
        let began = Instant::now();
        let answer = mirror.pull("/v2/up/app/manifests/v1");
        is_error(&answer, 503, "UNAVAILABLE");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((5..=10).contains(&after), "{after}");
    }
    // What was not refused goes on: heads, and blobs.
    let heads = mirror.up.count("HEAD", "/manifests/kept");
    assert_eq!(mirror.pull("/v2/up/app/manifests/kept").expect(200).header("docker-content-digest"), Some(&*kept));
    assert_eq!(mirror.up.count("HEAD", "/manifests/kept"), heads + 1);
    mirror.pull(&format!("/v2/up/app/blobs/{digest}")).expect(200);
}

#[test]
fn the_operator_learns_who_sends_wrong_bytes() {
    let mirror = Mirror::start("");
    let (_, digest) = mirror.up.image("app", "v1", b"a layer");
    mirror.up.fault("GET", "/blobs/", Fault::WrongBytes);
    super::pull(mirror.gate.main, &format!("/v2/up/app/blobs/{digest}"), &[]).expect_err("it is not whole");
    mirror.gate.wait_for_log("an upstream sent other bytes than its digest says");
    assert_eq!(mirror.metric("dockgate_upstream_mismatches_total{upstream=\"up\"}"), 1);
    assert_eq!(mirror.metric("dockgate_fills_total{upstream=\"up\",outcome=\"mismatch\"}"), 1);
    let log = mirror.gate.log.lock().unwrap().clone();
    let line = log.lines().find(|line| line.contains("sent other bytes")).unwrap();
    assert!(line.contains("upstream=\"up\"") && line.contains(&digest), "{line}");
}

/// A download ends after so many bytes, and there is no more.
fn breaks_off(mirror: &Mirror, at: usize) {
    mirror.up.fault_some("GET", "/blobs/", 0..1, Fault::TruncatedAfter(at));
    mirror.up.fault_some("GET", "/blobs/", 1..9, Fault::Status(503));
}

/// As a client sees it: it breaks off, asks for the rest, and does not wait for what it has.
#[test]
fn what_came_before_a_break_was_downloaded_again() {
    const MIB: usize = 1 << 20;
    let mirror = Mirror::start("retries = 0");
    let bytes = noise(8, 8 * MIB + 12_345);
    let (_, layer) = mirror.up.image("app", "v1", &bytes);
    mirror.pull("/v2/up/app/manifests/v1").expect(200);
    let path = format!("/v2/up/app/blobs/{layer}");
    let downloads = || mirror.up.asked_for("GET", "/blobs/");
    breaks_off(&mirror, 5 * MIB + 777);
    assert!(pull(mirror.gate.main, &path, &[]).is_err(), "half of it was taken for the whole");
    mirror.gate.wait_for_log("a blob could not be downloaded");
    mirror.up.heal();
    let rest = format!("bytes={}-", 4 * MIB + 1);
    let answer = pull(mirror.gate.main, &path, &[("Range", &rest)]).unwrap().expect(206);
    assert!(answer.body == bytes[4 * MIB + 1..], "{} bytes", answer.body.len());
    let asked = downloads();
    assert_eq!(asked.len(), 3);
    let range = asked[2].header("range").unwrap().to_owned();
    assert_eq!(range, format!("bytes={}-{}", 5 * MIB + 777, bytes.len() - 1));
    // And all of it is there, and right.
    assert!(pull(mirror.gate.main, &path, &[]).unwrap().expect(200).body == bytes);
    assert_eq!(downloads().len(), 3);
}

#[test]
fn what_came_before_a_break_is_nobody_s_before_the_upstream_gives_it() {
    const MIB: usize = 1 << 20;
    let mirror = Mirror::start("retries = 0");
    let bytes = noise(9, 4 * MIB);
    let (_, layer) = mirror.up.image("app", "v1", &bytes);
    mirror.pull("/v2/up/app/manifests/v1").expect(200);
    let path = format!("/v2/up/app/blobs/{layer}");
    breaks_off(&mirror, 2 * MIB);
    assert!(pull(mirror.gate.main, &path, &[]).is_err());
    mirror.gate.wait_for_log("a blob could not be downloaded");
    mirror.up.heal();
    for status in [403, 503] {
        mirror.up.fault("GET", "/blobs/", Fault::Status(status));
        assert!(pull(mirror.gate.main, &path, &[]).unwrap().status >= 400);
        mirror.up.heal();
    }
    // A part of other bytes is not taken for a part of these.
    mirror.up.fault_some("GET", "/blobs/", 0..1, Fault::WrongBytes);
    assert!(pull(mirror.gate.main, &path, &[]).is_err());
    assert!(pull(mirror.gate.main, &path, &[]).unwrap().expect(200).body == bytes);
    cache_is_clean(&mirror.gate.path("cache"));
}

#[test]
fn what_came_before_a_break_is_for_those_who_come_the_same_way() {
    const MIB: usize = 1 << 20;
    let mirror = Mirror::start("retries = 0");
    let bytes = noise(10, 4 * MIB);
    let (_, layer) = mirror.up.image("strange", "v1", &bytes);
    mirror.up.image("app", "v1", &bytes);
    for name in ["strange", "app"] {
        mirror.pull(&format!("/v2/up/{name}/manifests/v1")).expect(200);
    }
    mirror.up.fault_some("GET", "/strange/blobs/", 0..1, Fault::TruncatedAfter(2 * MIB));
    mirror.up.fault_some("GET", "/strange/blobs/", 0..1, Fault::WrongBytes);
    mirror.up.fault_some("GET", "/strange/blobs/", 1..9, Fault::Status(503));
    assert!(pull(mirror.gate.main, &format!("/v2/up/strange/blobs/{layer}"), &[]).is_err());
    mirror.gate.wait_for_log("a blob could not be downloaded");
    assert!(pull(mirror.gate.main, &format!("/v2/up/app/blobs/{layer}"), &[]).unwrap().expect(200).body == bytes);
    let asked = mirror.up.asked_for("GET", "/app/blobs/");
    assert_eq!((asked.len(), asked[0].header("range")), (1, None));
}

#[test]
fn a_wrong_size_was_kept_with_what_came_of_a_download() {
    const MIB: usize = 1 << 20;
    let bytes = noise(11, 3 * MIB);
    for wrong in [4 * MIB, 2 * MIB] {
        let mirror = Mirror::start("retries = 0");
        let layer = mirror.up.blob("app", &bytes);
        mirror.up.blob("app", b"{}");
        let text = String::from_utf8(manifest(&[b"{}", &bytes])).unwrap();
        let lying = text.replace(&format!("\"size\":{}", bytes.len()), &format!("\"size\":{wrong}"));
        let name = mirror.up.manifest("app", "v1", lying.as_bytes());
        mirror.pull(&format!("/v2/up/app/manifests/{name}")).expect(200);
        // Nobody but the manifest says how long it is.
        mirror.up.fault("GET", "/blobs/", Fault::NoLength);
        let path = format!("/v2/up/app/blobs/{layer}");
        assert!(!pull(mirror.gate.main, &path, &[]).is_ok_and(|answer| answer.status == 200), "{wrong}");
        assert!(pull(mirror.gate.main, &path, &[]).unwrap().expect(200).body == bytes, "{wrong}");
    }
}
