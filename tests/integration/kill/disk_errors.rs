//! A disk that is full, broken or read-only at every system call of a push: the push fails as it should, nothing that
//! was acknowledged is lost, and pulls go on.

use std::collections::BTreeSet;
use std::path::Path;

use super::ledger::Ledger;
use super::push::{Push, STEPS, Step};
use super::strace::{CALLS, Calls, Hit, Strace};
use super::{Random, prepare, start_again};
use crate::support::gate::{files, wait_until};
use crate::support::{Answer, Gate};

/// No request makes more calls of one kind.
const CALLS_MAX: usize = 60;

#[test]
fn a_full_disk_fails_pushes_with_507_and_loses_nothing() {
    let points = Patient::new("ENOSPC").fail_everywhere();
    assert!(points.contains(&point(Step::Patch, "pwrite64", "uploads/ID", 507)));
    assert!(points.contains(&point(Step::Put, "fsync", "blobs/sha256/XX", 507)));
    assert!(points.contains(&point(Step::Manifest, "pwrite64", "metadata.db-wal", 507)));
}

#[test]
fn a_broken_disk_fails_pushes_with_500_and_loses_nothing() {
    let points = Patient::new("EIO").fail_everywhere();
    assert!(points.contains(&point(Step::Patch, "pwrite64", "uploads/ID", 500)));
    assert!(points.contains(&point(Step::Put, "fsync", "uploads/ID", 500)));
    assert!(points.contains(&point(Step::Manifest, "fsync", "metadata.db-wal", 500)));
}

#[test]
fn a_read_only_disk_fails_pushes_with_503_and_loses_nothing() {
    let points = Patient::new("EROFS").fail_everywhere();
    assert!(points.contains(&point(Step::Begin, "openat", "uploads/ID", 503)));
    assert!(points.contains(&point(Step::Put, "rename", "blobs/sha256/XX/DIGEST.ID", 503)));
}

type Point = (Step, Hit, u16);

fn point(step: Step, call: &str, path: &str, status: u16) -> Point {
    (step, Hit { call: call.into(), path: path.into() }, status)
}

/// What a failure must lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It does not matter, or need not.
    Harmless,
    /// The status, and whether pushes go on once the disk is well again.
    Refused { status: u16, ready: bool },
}

impl Outcome {
    /// That of two failures in one request: it is refused for the first, and both have to be got over.
    fn and(self, later: Self) -> Self {
        match (self, later) {
            (Self::Refused { status, ready: first }, Self::Refused { ready: second, .. }) => {
                Self::Refused { status, ready: first && second }
            }
            (Self::Harmless, other) | (other, Self::Harmless) => other,
        }
    }
}

struct Patient {
    error: &'static str,
    gate: Option<Gate>,
    random: Random,
    ledger: Ledger,
    points: BTreeSet<Point>,
}

impl Patient {
    fn new(error: &'static str) -> Self {
        let gate = Some(prepare().start());
        Self { error, gate, random: Random::new(), ledger: Ledger::default(), points: BTreeSet::new() }
    }

    fn fail_everywhere(mut self) -> BTreeSet<Point> {
        for step in STEPS {
            // A new process makes and syncs every directory anew.
            let gate = self.gate.take().unwrap();
            let prepared = gate.prepared();
            assert_eq!(gate.stop(), 0);
            self.gate = Some(prepared.start());
            for calls in CALLS {
                let survived = (1..=CALLS_MAX).find(|number| !self.fail(step, calls, *number));
                assert!(survived.is_some(), "{step:?} makes more than {CALLS_MAX} calls of {calls:?}");
            }
        }
        let gate = self.gate.take().unwrap();
        self.ledger.check(&gate.plain());
        println!("{} at {} points: {:?}", self.error, self.points.len(), self.points);
        self.points
    }

    /// Pushes and has one call fail; false if the step makes no such call.
    fn fail(&mut self, step: Step, calls: Calls, number: usize) -> bool {
        let mut gate = self.gate.take().unwrap();
        let (mut push, mut ledger) = (Push::new(&mut self.random), Ledger::default());
        let before = STEPS.iter().position(|other| *other == step).unwrap();
        push.succeed(&STEPS[..before], &gate.plain(), &mut ledger);
        let strace = Strace::attach(&gate, calls, number, &format!("error={}", self.error));
        let answer = push.send(step, &gate.plain(), &mut ledger).unwrap();
        let hits = strace.detach(false);
        let outcome =
            hits.iter().map(|hit| expected(self.error, hit)).reduce(Outcome::and).unwrap_or(Outcome::Harmless);
        self.check_answer(&gate, step, &hits, &answer, outcome);
        ledger.check_pulls(&gate.plain());
        if let Outcome::Refused { ready: false, .. } = outcome {
            gate = restart_after_lost_sync(gate);
        }
        ledger.check(&gate.plain());
        push.succeed(&STEPS, &gate.plain(), &mut ledger);
        ledger.check(&gate.plain());
        if hits.iter().any(|hit| hit.call.starts_with("unlink")) {
            // What could not be removed is removed by the next start.
            let prepared = gate.prepared();
            assert_eq!(gate.stop(), 0);
            gate = start_again(&prepared);
        }
        if hits.len() > 1 {
            // After a second failure an upload may stay open, as one whose client never came back.
            files(&gate.path("data/uploads")).iter().for_each(|file| cancel(&gate, file));
        } else {
            let what = format!("nothing to be left of {} at {step:?} {hits:?}", self.error);
            wait_until(&what, || files(&gate.path("data/uploads")).is_empty());
        }
        self.ledger.absorb(ledger);
        self.gate = Some(gate);
        self.points.extend(hits.first().map(|hit| (step, hit.clone(), answer.status)));
        !hits.is_empty()
    }

    fn check_answer(&self, gate: &Gate, step: Step, hits: &[Hit], answer: &Answer, outcome: Outcome) {
        let what = format!("{} at {step:?} {hits:?}: {} {}", self.error, answer.status, answer.text());
        let Outcome::Refused { status, ready } = outcome else {
            let unused = hits.iter().any(|hit| hit.path.starts_with("metadata.db"));
            assert!(answer.status == step.success() || (unused && answer.status == 500), "{what}");
            return;
        };
        assert_eq!(answer.status, status, "{what}");
        let code = if status == 500 { "UNKNOWN" } else { "UNAVAILABLE" };
        assert_eq!(answer.code(), code, "{what}");
        let readiness = gate.admin().get("/readyz");
        assert_eq!(readiness.status == 200, ready, "{what}: {}", readiness.text());
        if status == 500 {
            let id = answer.header("x-request-id").unwrap().to_owned();
            let told = |line: &str| line.contains(&id) && line.contains("ERROR");
            wait_until("the reason in the log", || gate.log.lock().unwrap().lines().any(told));
        }
    }
}

/// What a failing call must lead to, by the durability rules 4 and 5.
fn expected(error: &str, hit: &Hit) -> Outcome {
    assert!(!hit.path.is_empty() || hit.call.starts_with("open"), "{} outside of the data directory", hit.call);
    let (sync, database) = (hit.call.contains("sync"), hit.path.starts_with("metadata.db"));
    let refused = |status, ready| Outcome::Refused { status, ready };
    match error {
        // Not ours, or made up for by the next start; and a checkpoint copies what the log has safe.
        _ if hit.path.is_empty() || hit.call.starts_with("unlink") || hit.path == "metadata.db" => Outcome::Harmless,
        _ if database && hit.call.starts_with("open") => Outcome::Harmless,
        // What is read once a second, whoever pushes.
        _ if hit.path == "version" => Outcome::Harmless,
        // SQLite cannot say why a sync failed.
        _ if database && sync => refused(500, false),
        "ENOSPC" => refused(507, true),
        // SQLite cannot say why a write failed either, and here another file can be written.
        "EROFS" if !database => refused(503, true),
        _ => refused(500, !sync),
    }
}

/// After a failed sync nothing more is written, until a new process begins.
fn restart_after_lost_sync(gate: Gate) -> Gate {
    let refused = gate.plain().send("POST", "/v2/app/blobs/uploads/", &[], b"");
    assert_eq!(refused.status, 500, "{}", refused.text());
    let prepared = gate.prepared();
    assert_eq!(gate.stop(), 0);
    start_again(&prepared)
}

fn cancel(gate: &Gate, file: &Path) {
    let id = file.file_name().unwrap().to_str().unwrap();
    let cancelled = ["app", "other"].map(|name| gate.plain().delete(&format!("/v2/{name}/blobs/uploads/{id}")).status);
    assert!(cancelled == [204, 404] || cancelled == [404, 204], "{id} is no open upload: {cancelled:?}");
}
