//! One download, many readers: each has what is there, nobody slows down another, and nobody takes the download along who
//! leaves.

use std::io::Read;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use super::{Bounded, Mirror, cache_is_clean, noise};
use crate::support::gate::wait_until;
use crate::support::v2_upstream::{Fault, Latch};

const SIZE: usize = 4 << 20;
const HALF: usize = SIZE / 2;
/// While the test holds the upstream, that is not to be taken for silence.
const PATIENT: &str = "idle_timeout = \"20s\"\nfirst_byte_timeout = \"20s\"\ndeadline = \"20s\"";

/// A blob that stops half-way until the latch is open.
struct Held {
    mirror: Mirror,
    bytes: Arc<Vec<u8>>,
    blob: String,
    path: String,
    latch: Latch,
}

fn held(more: &str) -> Held {
    let mirror = Mirror::start(&format!("{PATIENT}\n{more}"));
    let (bytes, latch) = (Arc::new(noise(9, SIZE)), Latch::new());
    let (_, blob) = mirror.up.image("app", "v1", &bytes);
    mirror.pull("/v2/up/app/manifests/v1").expect(200);
    mirror.up.fault_some("GET", "/blobs/", 0..1, Fault::HoldAt(50, latch.clone()));
    let path = format!("/v2/up/app/blobs/{blob}");
    Held { mirror, bytes, blob, path, latch }
}

impl Held {
    fn ask(&self, range: Option<&str>) -> Bounded {
        let headers: Vec<_> = range.map(|range| ("Range", range)).into_iter().collect();
        let mut stream = Bounded::ask(self.mirror.gate.main, &self.path, &headers);
        assert_eq!(stream.head(), if range.is_some() { 206 } else { 200 });
        stream
    }

    /// Many who read the first half, say so, and read on.
    fn crowd(&self, count: usize) -> (Vec<JoinHandle<()>>, Receiver<()>) {
        let (told, half) = channel();
        let readers = (0..count).map(|_| {
            let (bytes, told) = (Arc::clone(&self.bytes), told.clone());
            let (address, path) = (self.mirror.gate.main, self.path.clone());
            std::thread::spawn(move || {
                let mut stream = Bounded::ask(address, &path, &[]);
                assert_eq!(stream.head(), 200);
                assert!(stream.exactly(HALF) == bytes[..HALF]);
                told.send(()).unwrap();
                // Until all have it nothing more comes, however long that takes.
                stream.0.set_read_timeout(Some(crate::support::gate::PATIENCE)).unwrap();
                let (rest, ended) = stream.rest();
                assert!(ended && rest == bytes[HALF..]);
            })
        });
        (readers.collect(), half)
    }

    fn is_fetched_once(&self) {
        assert_eq!(self.mirror.up.count("GET", &self.blob), 1);
        cache_is_clean(&self.mirror.gate.path("cache"));
    }
}

#[test]
fn fifty_readers_have_the_first_half_before_the_upstream_goes_on() {
    let held = held("");
    let (readers, half) = held.crowd(50);
    (0..50).for_each(|_| half.recv().unwrap());
    held.latch.open();
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    held.is_fetched_once();
}

#[test]
fn ranges_behind_at_and_ahead_of_what_came() {
    let held = held("");
    let mut first = held.ask(None);
    assert!(first.exactly(HALF) == held.bytes[..HALF]);
    let mut behind = held.ask(Some("bytes=1000-1999"));
    assert!(behind.rest() == (held.bytes[1_000..2_000].to_vec(), true));
    let mut at = held.ask(Some(&format!("bytes={}-{}", HALF - 500, HALF + 499)));
    assert!(at.exactly(500) == held.bytes[HALF - 500..HALF]);
    let mut ahead = held.ask(Some(&format!("bytes={}-", SIZE - 1_000)));
    let mut last = held.ask(Some("bytes=-1"));
    for stream in [&mut at, &mut ahead, &mut last] {
        assert!(stream.is_quiet(), "bytes came that the upstream has not sent");
    }
    held.latch.open();
    assert!(at.rest() == (held.bytes[HALF..HALF + 500].to_vec(), true));
    assert!(ahead.rest() == (held.bytes[SIZE - 1_000..].to_vec(), true));
    assert!(last.rest() == (held.bytes[SIZE - 1..].to_vec(), true));
    assert!(first.rest() == (held.bytes[HALF..].to_vec(), true));
    held.is_fetched_once();
}

#[test]
fn who_asked_first_may_leave_half_way() {
    let held = held("");
    let mut leader = held.ask(None);
    assert!(leader.exactly(HALF) == held.bytes[..HALF]);
    let (readers, half) = held.crowd(49);
    (0..49).for_each(|_| half.recv().unwrap());
    drop(leader);
    wait_until("the first one to be gone", || held.mirror.metric("dockgate_connections") <= 49);
    held.latch.open();
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    held.is_fetched_once();
}

#[test]
fn what_everybody_left_is_still_downloaded() {
    let held = held("abandoned_fills = 1");
    assert!(held.ask(None).exactly(HALF) == held.bytes[..HALF]);
    wait_until("it to be gone", || held.mirror.metric("dockgate_connections") == 0);
    held.latch.open();
    let done = "dockgate_fills_total{upstream=\"up\",outcome=\"done\"}";
    wait_until("the download to end", || held.mirror.metric(done) == 1);
    assert!(held.mirror.pull(&held.path).expect(200).body == *held.bytes);
    held.is_fetched_once();
}

#[test]
fn not_more_than_may_are_downloaded_for_nobody() {
    let held = held("abandoned_fills = 0");
    assert!(held.ask(None).exactly(HALF) == held.bytes[..HALF]);
    let given_up = "dockgate_fills_total{upstream=\"up\",outcome=\"abandoned\"}";
    wait_until("the download to be given up", || held.mirror.metric(given_up) == 1);
    held.latch.open();
    assert!(held.mirror.pull(&held.path).expect(200).body == *held.bytes);
    assert_eq!(held.mirror.up.count("GET", &held.blob), 2);
    cache_is_clean(&held.mirror.gate.path("cache"));
}

#[test]
fn a_slow_reader_holds_nobody_up() {
    let mirror = Mirror::start(PATIENT);
    let bytes = noise(10, 24 << 20);
    let blob = mirror.up.blob("app", &bytes);
    let path = format!("/v2/up/app/blobs/{blob}");
    let mut slow = Bounded::ask(mirror.gate.main, &path, &[]);
    assert_eq!(slow.head(), 200);
    assert!(slow.exactly(1_000) == bytes[..1_000]);
    assert!(mirror.pull(&path).expect(200).body == bytes, "the fast one has it all");
    let (mut piece, mut came) = (vec![0; 1 << 16], 1_000);
    loop {
        let read = slow.read(&mut piece).unwrap();
        if read == 0 {
            break;
        }
        assert!(piece[..read] == bytes[came..came + read], "at {came}");
        came += read;
    }
    assert_eq!(came, bytes.len());
    assert_eq!(mirror.up.count("GET", &blob), 1);
    cache_is_clean(&mirror.gate.path("cache"));
}
