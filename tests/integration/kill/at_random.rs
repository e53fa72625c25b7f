//! Ended at random moments of many pushes at once: by kill -9 here, by a power cut next door.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::ledger::{Attempt, Ledger, Totals, Upload};
use super::{Random, prepare, start_again};
use crate::support::content::{self, digest, push_blob};
use crate::support::gate::{PATIENCE, Prepared, files};
use crate::support::{Answer, Client, Gate};

const ROUNDS: usize = 100;
const PUSHERS: u64 = 4;
/// The end comes after at most so many requests, and so long into the next.
const REQUESTS_MAX: u64 = 150;
const INTO_REQUEST_MAX: u64 = 3_000;
/// Where the layers are that many images share.
const BASE: &str = "base";
/// The tag that every push moves.
const LATEST: &str = "latest";

/// How a gateway ends.
pub(super) trait Ending {
    /// Ends it at once; where another one can be started.
    fn end(&mut self, gate: Gate) -> Prepared;

    /// Takes from a ledger what such an end may take from the gateway.
    fn excuse(&self, ledger: &mut Ledger);
}

struct Kill;

impl Ending for Kill {
    fn end(&mut self, gate: Gate) -> Prepared {
        gate.kill()
    }

    fn excuse(&self, _: &mut Ledger) {}
}

#[test]
fn a_kill_at_a_random_moment_loses_nothing_that_was_acknowledged() {
    survive(ROUNDS, prepare().start(), &mut Kill);
}

/// Ends a gateway again and again while many push, and looks each time whether the next one has what was acknowledged.
pub(super) fn survive(rounds: usize, mut gate: Gate, ending: &mut impl Ending) {
    let mut random = Random::new();
    let bases: Vec<Vec<u8>> = (0..4).map(|_| random.bytes(40_000)).collect();
    bases.iter().for_each(|base| drop(push_blob(&gate.plain(), BASE, base)));
    let bases = Arc::new(bases);
    let (mut all, mut totals) = (Ledger::default(), Totals::default());
    for round in 0..rounds {
        let (prepared, mut pushed) = push_until_the_end(gate, round, &bases, &mut random, ending);
        totals.acknowledged += pushed.totals().acknowledged;
        totals.attempts += pushed.totals().attempts;
        ending.excuse(&mut pushed);
        // Where this round's pushes did not move the tag, it is where the rounds before left it.
        let mut ledger = all.only_tag(LATEST);
        ledger.absorb(pushed);
        gate = start_again(&prepared);
        ledger.check(&gate.plain());
        all.absorb(ledger);
    }
    println!("{totals:?} in {rounds} rounds");
    // Of a few rounds all may be short ones.
    assert!(totals.acknowledged + 80 > 20 * rounds && totals.attempts > rounds, "too little was pushed: {totals:?}");
    all.check(&gate.plain());
    content::push_image(&gate.plain(), "after", "v1");
    // Files without rows are kept for a day; there is at most one for each push that was cut off.
    let kept = files(&gate.path("data/blobs")).len();
    let most = all.blob_digests().len() + bases.len() + 2 + totals.attempts;
    assert!(kept <= most, "{kept} files where {most} can be explained");
}

/// Where to start again, and everything that was acknowledged until the end, and what was under way.
fn push_until_the_end(
    gate: Gate,
    round: usize,
    bases: &Arc<Vec<Vec<u8>>>,
    random: &mut Random,
    ending: &mut impl Ending,
) -> (Prepared, Ledger) {
    let course = Arc::new(Course::default());
    let pushers: Vec<_> = (0..PUSHERS)
        .map(|number| {
            let pusher = Pusher {
                client: gate.plain(),
                repository: format!("app-{number}"),
                tag: format!("round-{round}"),
                random: Random(random.next()),
                ledger: Ledger::default(),
                course: Arc::clone(&course),
                bases: Arc::clone(bases),
            };
            std::thread::spawn(move || pusher.run())
        })
        .collect();
    course.wait_for_moment(random);
    course.is_over.store(true, Ordering::SeqCst);
    let prepared = ending.end(gate);
    let mut all = Ledger::default();
    pushers.into_iter().for_each(|pusher| all.absorb(pusher.join().expect("a pusher saw what may not be")));
    (prepared, all)
}

/// How far the pushers of one round are.
#[derive(Default)]
struct Course {
    requests: AtomicU64,
    /// Whether the end has begun, so that no answer counts any more.
    is_over: AtomicBool,
}

impl Course {
    /// Waits for a number of requests, and then for a part of one.
    fn wait_for_moment(&self, random: &mut Random) {
        let (count, into) = (1 + random.below(REQUESTS_MAX), Duration::from_micros(random.below(INTO_REQUEST_MAX)));
        let began = Instant::now();
        while self.requests.load(Ordering::Relaxed) < count {
            assert!(began.elapsed() < PATIENCE, "the pushers do not push");
            std::thread::yield_now();
        }
        let reached = Instant::now();
        while reached.elapsed() < into {
            std::thread::yield_now();
        }
    }
}

/// Pushes images until the gateway is gone.
struct Pusher {
    client: Client,
    repository: String,
    tag: String,
    random: Random,
    ledger: Ledger,
    course: Arc<Course>,
    bases: Arc<Vec<Vec<u8>>>,
}

/// The gateway did not answer.
struct Gone;

impl Pusher {
    fn run(mut self) -> Ledger {
        while self.push_image().is_ok() {}
        self.ledger
    }

    fn push_image(&mut self) -> Result<(), Gone> {
        let (config_length, layer_length) = (1 + self.random.below(2_000), self.layer_length());
        let (config, layer) = (self.random.bytes(config_length), self.random.bytes(layer_length));
        let base = self.bases[usize::try_from(self.random.below(4)).unwrap()].clone();
        self.push_in_chunks(&layer)?;
        self.push_blob(&config)?;
        match self.random.below(3) {
            0 => self.mount(&base)?,
            _ => self.push_blob(&base)?,
        }
        let bytes = content::manifest(&[&config, &layer, &base]);
        for tag in [self.tag.clone(), LATEST.to_owned()] {
            self.push_manifest(&tag, &bytes)?;
        }
        Ok(())
    }

    /// Most are small; some are larger than what is collected in memory.
    fn layer_length(&mut self) -> u64 {
        match self.random.below(8) {
            0 => 1_000_000 + self.random.below(2_000_000),
            _ => 1 + self.random.below(60_000),
        }
    }

    /// POST, PATCH, PUT with the rest.
    fn push_in_chunks(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        let location = self.begin()?;
        let upload = Upload {
            repository: self.repository.clone(),
            location: location.clone(),
            bytes: bytes.to_vec(),
            acknowledged: 0,
            closing: false,
            is_doubtful: false,
        };
        self.ledger.attempt(Attempt::Upload(upload));
        let (first, rest) = bytes.split_at(bytes.len() / 2);
        self.send("PATCH", &location, first)?.expect(202);
        self.ledger.upload().acknowledged = first.len() as u64;
        self.ledger.upload().closing = true;
        self.ledger.attempt(self.blob(bytes));
        self.send("PUT", &format!("{location}?digest={}", digest(bytes)), rest)?.expect(201);
        self.ledger.acknowledge();
        self.ledger.acknowledge();
        Ok(())
    }

    /// POST and PUT, or all in one POST.
    fn push_blob(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        let digest = digest(bytes);
        if self.random.below(2) == 0 {
            let location = self.begin()?;
            self.ledger.attempt(self.blob(bytes));
            self.send("PUT", &format!("{location}?digest={digest}"), bytes)?.expect(201);
        } else {
            let path = format!("/v2/{}/blobs/uploads/?digest={digest}", self.repository);
            self.ledger.attempt(self.blob(bytes));
            self.send("POST", &path, bytes)?.expect(201);
        }
        self.ledger.acknowledge();
        Ok(())
    }

    fn mount(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        let path = format!("/v2/{}/blobs/uploads/?mount={}&from={BASE}", self.repository, digest(bytes));
        self.ledger.attempt(self.blob(bytes));
        self.send("POST", &path, b"")?.expect(201);
        self.ledger.acknowledge();
        Ok(())
    }

    fn push_manifest(&mut self, tag: &str, bytes: &[u8]) -> Result<(), Gone> {
        let (repository, tag) = (self.repository.clone(), tag.to_owned());
        let path = format!("/v2/{repository}/manifests/{tag}");
        self.ledger.attempt(Attempt::Manifest { repository, tag, bytes: bytes.to_vec() });
        self.send("PUT", &path, bytes)?.expect(201);
        self.ledger.acknowledge();
        Ok(())
    }

    fn begin(&mut self) -> Result<String, Gone> {
        let answer = self.send("POST", &format!("/v2/{}/blobs/uploads/", self.repository), b"")?.expect(202);
        Ok(answer.header("location").unwrap().to_owned())
    }

    fn blob(&self, bytes: &[u8]) -> Attempt {
        Attempt::Blob { repository: self.repository.clone(), digest: digest(bytes) }
    }

    fn send(&self, method: &str, path: &str, body: &[u8]) -> Result<Answer, Gone> {
        self.course.requests.fetch_add(1, Ordering::Relaxed);
        let headers: &[_] = if path.contains("/manifests/") { &[("Content-Type", content::OCI_MANIFEST)] } else { &[] };
        let answer = self.client.try_send(method, path, headers, body).map_err(|_| Gone)?;
        if self.course.is_over.load(Ordering::SeqCst) { Err(Gone) } else { Ok(answer) }
    }
}
