//! A child process and what the kernel booked on it and its children.

use std::fs;
use std::io;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a server may take to end by itself.
const STOP: Duration = Duration::from_secs(5);
/// Of the times in `/proc`: what every Linux that Rust runs on has.
const TICKS: f64 = 100.0;

pub struct Process {
    child: Child,
}

impl Process {
    pub fn spawn(mut command: Command) -> io::Result<Self> {
        command.spawn().map(|child| Self { child })
    }

    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)) | Err(_))
    }

    /// Itself and its children, as far as they are alive.
    fn family(&self) -> Vec<u32> {
        let own = self.child.id();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        std::iter::once(own).chain(children.split_whitespace().filter_map(|id| id.parse().ok())).collect()
    }

    /// The most memory that was resident, in bytes: the sum over the processes.
    pub fn memory_peak(&self) -> u64 {
        let peak = |id: u32| {
            let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() << 10
        };
        self.family().into_iter().map(peak).sum()
    }

    /// Seconds of processor time, of all of its threads.
    pub fn cpu_seconds(&self) -> f64 {
        let ticks = |id: u32| {
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            let fields = stat.rsplit_once(") ").map(|(_, fields)| fields).unwrap_or_default();
            fields.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>()
        };
        self.family().into_iter().map(ticks).sum::<u64>() as f64 / TICKS
    }

    /// Asks it to end, and ends it where it does not.
    pub async fn stop(mut self) {
        signal(self.child.id(), Signal::TERM);
        let until = Instant::now() + STOP;
        while !self.has_ended() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Children first: without their parent nobody would end them.
impl Drop for Process {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.family().into_iter().rev().for_each(|id| signal(id, Signal::KILL));
            let _ = self.child.wait();
        }
    }
}

fn signal(id: u32, signal: Signal) {
    if let Some(id) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        let _ = kill_process(id, signal);
    }
}
