//! What came through one upstream is given through another only when that one has itself sent bytes that hashed right, and
//! is kept once (ADR 9).

use super::{
    Bounded, OPEN, cache_is_clean, crowd, is_error, kept_blobs, mirror_of, noise, prepare, pull, pullers, upstream,
};
use crate::support::content::{manifest, push_image};
use crate::support::v2_upstream::{Fault, Latch};
use crate::support::{Answer, Gate, V2Upstream};

/// Nothing is held in memory.
const DISK: &str = "[cache]\nmemory = \"0\"\n";

/// A gateway before two upstreams: `up`, and `other`, whose file is of `kind`.
struct Two {
    gate: Gate,
    up: V2Upstream,
    other: V2Upstream,
}

impl Two {
    fn start(config: &str, kind: &str) -> Self {
        let (up, other) = (V2Upstream::start(), V2Upstream::start());
        let prepared = prepare(
            &format!("{OPEN}{config}"),
            &mirror_of(&up.url(), "idle_timeout = \"9s\"\nrate_window = \"9s\"\ndeadline = \"9s\""),
        );
        prepared.write(
            "upstreams/other.toml",
            &upstream(kind, &other.url(), "retries = 0\ntag_ttl = \"0s\"\nfirst_byte_timeout = \"2s\""),
        );
        Self { gate: prepared.start(), up, other }
    }

    /// Pulls an image through `up`, often enough for all tiers.
    fn pull_privately(&self, layer: &[u8]) -> (String, String) {
        let (image, blob) = self.up.image("private", "v1", layer);
        for _ in 0..3 {
            self.pull("/v2/up/private/manifests/v1");
            assert!(self.pull(&format!("/v2/up/private/blobs/{blob}")) == layer);
        }
        (image, blob)
    }

    fn pull(&self, path: &str) -> Vec<u8> {
        pull(self.gate.main, path, &[]).unwrap().expect(200).body
    }

    /// `other` says of everything that it has it, and names the image and its layer.
    fn claim(&self, image: &str, layer: &[u8]) {
        self.other.fault("HEAD", "/", Fault::Status(200));
        self.other.fault("HEAD", "/manifests/claim", Fault::Digest(image.to_owned()));
        let names = self.other.manifest("app", "names", &manifest(&[b"{}", layer, layer]));
        self.other.fault("HEAD", "/manifests/names", Fault::Digest(names));
    }

    /// Whoever asks gets an error, or nothing that is of `secret`.
    #[track_caller]
    fn gives_nothing_of(&self, secret: &[u8], path: &str, headers: &[(&str, &str)]) {
        let Ok(answer) = pull(self.gate.main, path, headers) else { return };
        let is_of_it = |bytes: &[u8]| secret.windows(bytes.len()).any(|part| part == bytes);
        let is_range = !headers.is_empty();
        assert!(answer.status >= 400 || is_range, "{path}: {}", answer.status);
        assert!(answer.body.is_empty() || !is_of_it(&answer.body), "{path}: {}", answer.text());
    }

    fn blobs(&self) -> usize {
        kept_blobs(&self.gate.path("cache")).len()
    }
}

#[test]
fn an_upstream_that_says_that_it_has_everything_opens_nothing() {
    for config in ["", DISK] {
        let two = Two::start(config, "mirror");
        let secret = noise(1, 3_000);
        let (image, blob) = two.pull_privately(&secret);
        two.claim(&image, &secret);
        let path = format!("/v2/other/app/blobs/{blob}");
        two.pull("/v2/other/app/manifests/names");
        let gives_nothing = || {
            two.gives_nothing_of(&secret, &path, &[]);
            two.gives_nothing_of(&secret, &path, &[("Range", "bytes=10-99")]);
        };
        gives_nothing();
        is_error(&pull(two.gate.main, &path, &[]).unwrap(), 404, "BLOB_UNKNOWN");
        for reference in [&*image, "claim"] {
            let manifest = format!("/v2/other/app/manifests/{reference}");
            let answer = pull(two.gate.main, &manifest, &[]).unwrap();
            is_error(&answer, 404, "MANIFEST_UNKNOWN");
            assert_eq!(two.gate.plain().head(&manifest).status, 404);
        }
        two.other.blob("app", &secret);
        two.other.fault("GET", "/blobs/", Fault::WrongBytes);
        gives_nothing();
        two.gate.wait_for_log("an upstream sent other bytes than its digest says");
        two.other.fault("GET", "/blobs/", Fault::Silent);
        gives_nothing();
        let asked = two.up.count("GET", "");
        assert!(two.pull(&format!("/v2/up/private/blobs/{blob}")) == secret, "the right ones stay");
        assert_eq!(two.up.count("GET", ""), asked);
        cache_is_clean(&two.gate.path("cache"));
    }
}

/// HEAD tells what the upstream itself says, and not how long the other one's blob is.
#[test]
fn head_is_answered_by_the_upstream_that_is_asked() {
    let two = Two::start("", "mirror");
    let (_, blob) = two.pull_privately(&noise(2, 3_000));
    let path = format!("/v2/other/app/blobs/{blob}");
    assert_eq!(two.gate.plain().head(&path).status, 404);
    two.other.fault("HEAD", "/blobs/", Fault::Status(200));
    assert_ne!(two.gate.plain().head(&path).expect(200).header("content-length"), Some("3000"));
    assert_eq!(two.other.count("HEAD", &blob), 2);
}

#[test]
fn an_upstream_that_cannot_be_reached_gives_nothing() {
    let Two { gate, up, other } = Two::start("", "mirror");
    let (_, blob) = up.image("private", "v1", b"a secret layer");
    assert_eq!(
        pull(gate.main, &format!("/v2/up/private/blobs/{blob}"), &[]).unwrap().expect(200).body,
        b"a secret layer"
    );
    drop(other);
    let answer = pull(gate.main, &format!("/v2/other/app/blobs/{blob}"), &[]).unwrap();
    assert!(answer.status >= 500, "{}", answer.text());
}

#[test]
fn a_download_through_one_upstream_is_not_read_through_another() {
    let two = Two::start("", "mirror");
    let secret = noise(3, 300_000);
    let blob = two.up.blob("private", &secret);
    let (held, path) = (Latch::new(), format!("/v2/other/app/blobs/{blob}"));
    two.up.fault("GET", "/blobs/", Fault::HoldAt(90, held.clone()));
    let mut first = Bounded::ask(two.gate.main, &format!("/v2/up/private/blobs/{blob}"), &[]);
    assert_eq!(first.head(), 200);
    first.exactly(100_000);
    two.other.fault("HEAD", "/", Fault::Status(200));
    for headers in [&[][..], &[("Range", "bytes=0-99")]] {
        is_error(&pull(two.gate.main, &path, headers).unwrap(), 404, "BLOB_UNKNOWN");
    }
    // One that has it sends it, whatever the first one does.
    two.other.blob("app", &secret);
    assert!(two.pull(&path) == secret);
    held.open();
    assert!(first.exactly(200_000) == secret[100_000..]);
    cache_is_clean(&two.gate.path("cache"));
    assert_eq!((two.blobs(), two.other.count("GET", &blob)), (1, 3));
}

#[test]
fn an_upstream_that_sends_the_same_serves_it_from_then_on_and_it_is_kept_once() {
    for config in ["", DISK] {
        let two = Two::start(config, "mirror");
        let shared = noise(4, 200_000);
        let (_, blob) = two.pull_privately(&shared);
        two.other.image("app", "v1", &shared);
        let (path, kept, held) = (format!("/v2/other/app/blobs/{blob}"), two.blobs(), Latch::new());
        two.other.fault_some("GET", &blob, 0..1, Fault::Hold(held.clone()));
        let pullers = crowd(&two.gate, 20, &path);
        held.open();
        for puller in pullers {
            assert!(puller.join().unwrap().unwrap().expect(200).body == shared);
        }
        cache_is_clean(&two.gate.path("cache"));
        assert_eq!((two.blobs(), two.other.count("GET", &blob)), (kept, 1));
        let range = pull(two.gate.main, &path, &[("Range", "bytes=5-99")]).unwrap().expect(206);
        assert!(range.body == shared[5..100]);
        assert_eq!(two.gate.plain().head(&path).expect(200).header("content-length"), Some("200000"));
        two.pull("/v2/other/app/manifests/v1");
        two.pull("/v2/other/app/manifests/v1");
        assert_eq!((two.other.count("GET", &blob), two.other.count("GET", "/manifests/")), (1, 1));
        assert_eq!(two.blobs(), kept);

        let Two { gate, up, other } = two;
        let prepared = gate.prepared();
        assert_eq!(gate.stop(), 0);
        let gate = prepared.start();
        for puller in pullers_of(&gate, &path) {
            assert!(puller.expect(200).body == shared);
        }
        assert_eq!((up.count("GET", &blob), other.count("GET", &blob)), (1, 1), "it is known after a restart");
    }
}

fn pullers_of(gate: &Gate, path: &str) -> Vec<Answer> {
    pullers(gate, 5, path).into_iter().map(|puller| puller.join().unwrap().unwrap()).collect()
}

/// A range that is asked for first takes the whole, as everywhere.
#[test]
fn a_range_is_proven_by_the_whole() {
    let two = Two::start(DISK, "mirror");
    let shared = noise(5, 50_000);
    let (_, blob) = two.pull_privately(&shared);
    two.other.blob("app", &shared);
    let path = format!("/v2/other/app/blobs/{blob}");
    let range = pull(two.gate.main, &path, &[("Range", "bytes=40000-49999")]).unwrap().expect(206);
    assert!(range.body == shared[40_000..]);
    assert!(two.pull(&path) == shared);
    assert_eq!(two.other.count("GET", &blob), 1);
}

/// That a registry says that it mounted a blob is its word and no more.
#[test]
fn a_mount_opens_nothing() {
    let two = Two::start("", "fronted");
    let (_, blob) = two.pull_privately(&noise(6, 3_000));
    two.other.fault("POST", "/blobs/uploads/", Fault::Status(201));
    let mount = format!("/v2/other/app/blobs/uploads/?mount={blob}&from=other/more");
    two.gate.plain().send("POST", &mount, &[], b"").expect(201);
    is_error(&pull(two.gate.main, &format!("/v2/other/app/blobs/{blob}"), &[]).unwrap(), 404, "BLOB_UNKNOWN");
}

/// What was pushed here is not what the upstream sent.
#[test]
fn what_is_hosted_here_is_not_given_through_an_upstream() {
    let two = Two::start("", "mirror");
    let image = push_image(&two.gate.plain(), "private/app", "v1");
    two.pull("/v2/private/app/manifests/v1");
    two.claim(&image, b"");
    for reference in [&*image, "claim"] {
        is_error(
            &pull(two.gate.main, &format!("/v2/other/app/manifests/{reference}"), &[]).unwrap(),
            404,
            "MANIFEST_UNKNOWN",
        );
    }
}
