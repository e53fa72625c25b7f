//! The power is cut at random moments of many pushes at once: what was acknowledged had reached the disk before.
//!
//! A disk's own cache is not lost here: that a sync empties it is the kernel's work.

use super::at_random::{Ending, survive};
use super::ledger::Ledger;
use super::prepare;
use crate::support::Gate;
use crate::support::disk::{Disk, Switch, is_without_loop_devices};
use crate::support::gate::Prepared;

/// How often the short form cuts it; `DOCKGATE_POWER_CUTS` says another number.
const CUTS: usize = 5;
/// Room for hundreds of cuts; only what is written takes any.
const DISK_BYTES: u64 = 16 << 30;

#[test]
fn a_power_cut_at_a_random_moment_loses_nothing_that_was_acknowledged() {
    cut_often("has_journal");
}

/// With a journal, every sync of the database takes along what was done to directories before. Without one, only what was
/// itself synced is there: this is what finds the forgotten sync of a directory.
#[test]
fn a_power_cut_on_a_disk_without_a_journal_loses_nothing_that_was_acknowledged() {
    cut_often("^has_journal");
}

fn cut_often(features: &str) {
    if is_without_loop_devices() {
        return;
    }
    let cuts = std::env::var("DOCKGATE_POWER_CUTS").map_or(CUTS, |text| text.parse().unwrap());
    let prepared = prepare();
    let disk = Disk::image(&prepared, "data", DISK_BYTES, features);
    survive(cuts, prepared.start(), &mut PowerCut { switch: Switch::of(&disk), disk });
}

struct PowerCut {
    switch: Switch,
    disk: Disk,
}

impl Ending for PowerCut {
    fn end(&mut self, gate: Gate) -> Prepared {
        self.switch.cut();
        let prepared = gate.kill();
        self.disk.restart();
        prepared
    }

    /// What was sent of an upload is synced when the upload ends. One that was under way may be gone, or shorter, or hold
    /// zeros, which its digest tells; its client begins again.
    fn excuse(&self, ledger: &mut Ledger) {
        ledger.doubt_uploads();
    }
}
