//! Killed at any moment, without power at any moment, and on a disk that fails: what was acknowledged is there, what was
//! not is whole or not visible.

mod at_random;
mod disk_errors;
mod every_call;
mod ledger;
mod power;
mod push;
mod strace;

use std::time::{Duration, Instant};

use super::support::Gate;
use super::support::gate::Prepared;

/// Everyone may do everything, over plain HTTP: what is tested here is the disk.
const OPEN: &str = "[[access]]\nwho = [\"anyone\"]\nrepositories = [\"**\"]\nactions = [\"*\"]\n";

/// How long a start may take after a kill.
const START_TIMEOUT: Duration = Duration::from_secs(5);

fn prepare() -> Prepared {
    let prepared = Gate::prepare(OPEN);
    // With users there is no first user to be made, whose password costs a bcrypt.
    prepared.write("htpasswd", &format!("{}\n", super::support::gate::ADA));
    prepared
}

/// Starts after a kill: soon, and without a complaint.
fn start_again(prepared: &Prepared) -> Gate {
    let began = Instant::now();
    let gate = prepared.start();
    assert!(began.elapsed() < START_TIMEOUT, "the start took {:?}", began.elapsed());
    gate.admin().get("/readyz").expect(200);
    let log = gate.log.lock().unwrap().clone();
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "the start was not clean:\n{log}");
    gate
}

/// A generator of numbers that gives the same ones for the same seed (splitmix64).
struct Random(u64);

impl Random {
    /// Seeded by `DOCKGATE_SEED`, or by the clock; the seed is printed, so that a failure can be repeated.
    fn new() -> Self {
        let clock = || std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos().to_string();
        let seed = std::env::var("DOCKGATE_SEED").unwrap_or_else(|_| clock());
        println!("seed {seed}: to push the same and kill at the same steps, run with DOCKGATE_SEED={seed}");
        Self(u64::from_str_radix(&content_hash(&seed), 16).unwrap())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to `end` - 1.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn bytes(&mut self, length: u64) -> Vec<u8> {
        let words = (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes());
        words.take(usize::try_from(length).unwrap()).collect()
    }
}

/// Sixteen digits of a text's hash.
fn content_hash(text: &str) -> String {
    super::support::content::digest(text.as_bytes())["sha256:".len()..][..16].to_owned()
}
