//! kill -9 before every system call of a push that changes what is on the disk.

use std::collections::BTreeSet;

use super::ledger::Ledger;
use super::push::{Push, STEPS, Step};
use super::strace::{CALLS, Calls, Strace};
use super::{Random, prepare, start_again};
use crate::support::Gate;

/// No request makes more calls of one kind.
const CALLS_MAX: usize = 60;

/// Points that must be among those where it was killed.
const POINTS: [(Step, &str, &str); 16] = [
    (Step::Begin, "openat", "uploads/ID"),
    (Step::Begin, "pwrite64", "metadata.db-wal"),
    (Step::Begin, "fsync", "metadata.db-wal"),
    (Step::Patch, "pwrite64", "uploads/ID"),
    (Step::Put, "pwrite64", "uploads/ID"),
    (Step::Put, "fsync", "uploads/ID"),
    (Step::Put, "mkdir", "blobs/sha256/XX"),
    (Step::Put, "fsync", "blobs/sha256"),
    (Step::Put, "rename", "blobs/sha256/XX/DIGEST.ID"),
    (Step::Put, "fsync", "blobs/sha256/XX"),
    (Step::Put, "pwrite64", "metadata.db-wal"),
    (Step::Put, "fsync", "metadata.db-wal"),
    (Step::Mount, "fsync", "metadata.db-wal"),
    (Step::Again, "unlink", "uploads/ID"),
    (Step::Manifest, "pwrite64", "metadata.db-wal"),
    (Step::Manifest, "fsync", "metadata.db-wal"),
];

struct Victim {
    gate: Option<Gate>,
    random: Random,
    ledger: Ledger,
    kills: usize,
    points: BTreeSet<(Step, String, String)>,
}

#[test]
fn a_kill_before_any_call_of_a_push_loses_nothing_that_was_acknowledged() {
    let gate = Some(prepare().start());
    let mut victim =
        Victim { gate, random: Random::new(), ledger: Ledger::default(), kills: 0, points: BTreeSet::new() };
    for step in STEPS {
        for calls in CALLS {
            let survived = (1..=CALLS_MAX).find(|number| !victim.kill(step, calls, *number));
            assert!(survived.is_some(), "{step:?} makes more than {CALLS_MAX} calls of {calls:?}");
        }
    }
    println!("{} kills at {} points: {:#?}", victim.kills, victim.points.len(), victim.points);
    for (step, call, path) in POINTS {
        // On some machines the newer calls are the only ones.
        let is = |point: &&(Step, String, String)| point.0 == step && point.1.starts_with(call) && point.2 == path;
        assert!(victim.points.iter().any(|point| is(&point)), "{step:?} was never killed at {call} of {path}");
    }
    let gate = victim.gate.take().unwrap();
    victim.ledger.check(&gate.plain());
}

impl Victim {
    /// Pushes and kills at one call; false if the step makes no such call.
    fn kill(&mut self, step: Step, calls: Calls, number: usize) -> bool {
        let mut gate = self.gate.take().unwrap();
        let (mut push, mut ledger) = (Push::new(&mut self.random), Ledger::default());
        let before = STEPS.iter().position(|other| *other == step).unwrap();
        push.succeed(&STEPS[..before], &gate.plain(), &mut ledger);
        let strace = Strace::attach(&gate, calls, number, "signal=KILL");
        let answer = push.send(step, &gate.plain(), &mut ledger);
        if answer.is_err() {
            gate.wait();
        }
        let hits = strace.detach(answer.is_err());
        if hits.is_empty() {
            assert_eq!(answer.map(|answer| answer.status), Ok(step.success()), "{step:?}");
            self.gate = Some(gate);
            self.ledger.absorb(ledger);
            return false;
        }
        self.kills += 1;
        self.points.extend(hits.into_iter().map(|hit| (step, hit.call, hit.path)));
        let gate = start_again(&gate.prepared());
        ledger.check(&gate.plain());
        // The client comes back and pushes all of it once more.
        push.succeed(&STEPS, &gate.plain(), &mut ledger);
        ledger.check(&gate.plain());
        self.ledger.absorb(ledger);
        self.gate = Some(gate);
        true
    }
}
