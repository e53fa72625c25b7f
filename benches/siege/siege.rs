//! What all sieges have in common: a gateway, its neighbours in quiet, and the same neighbours while it is besieged.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::content::Content;
use crate::gateway::{Gateway, Setup};
use crate::neighbours::{Neighbours, Seen, Tally};
use crate::report::{Figure, bytes, quantile, time};

/// What resident memory may grow by under a siege, in bytes.
const MEMORY_MAX: u64 = 64 << 20;
/// More than this has no bound that anybody set, whatever the machine.
const MEMORY_BROKEN: u64 = 192 << 20;
/// How many times their p99 in quiet good pulls may take at their p99.
pub const SLOWER_MAX: f64 = 2.0;
/// How long the operator's probe may take.
const PROBE_MAX: Duration = Duration::from_millis(100);

/// How long things are done.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Before anything is measured, so that memory and caches are warm.
    pub warm: Duration,
    pub quiet: Duration,
    pub siege: Duration,
    /// Each flood, and the same one at a sink.
    pub flood: Duration,
    pub hour: Duration,
    /// Between two looks at the memory in the hour.
    pub sample: Duration,
    /// Passwords for each kind of user, when their times are compared.
    pub passwords: u8,
}

/// With what the sieges are run.
pub struct Context<'a> {
    pub program: &'a Path,
    pub content: Arc<Content>,
    /// Where the neighbours run.
    pub thread: Handle,
    pub times: Times,
    pub command: Option<String>,
    /// What the names of floods have in them.
    pub flood: &'a str,
    /// Whether speed is judged: not in the short form, which runs wherever and beside whatever.
    pub speed: bool,
}

/// One round: quiet beside siege.
pub struct Round {
    pub quiet: Seen,
    pub siege: Seen,
    /// Of resident memory, at its peak, in bytes.
    pub growth: u64,
}

impl Context<'_> {
    pub async fn start(&self, setup: &Setup) -> Outcome<(Gateway, Neighbours)> {
        let gateway = Gateway::start(self.program, setup, &self.content).await?;
        let neighbours = Neighbours::new(&gateway, &self.content, self.command.as_ref());
        neighbours.call(&self.thread, self.times.warm, false).await?;
        Ok((gateway, neighbours))
    }

    /// Quiet first, then with the besiegers, who are gone at its end.
    pub async fn round(&self, setup: &Setup, besiege: impl FnOnce(&Gateway) -> JoinSet<()>) -> Outcome<Round> {
        let (mut gateway, neighbours) = self.start(setup).await?;
        gateway.forget_peak()?;
        let quiet = neighbours.call(&self.thread, self.times.quiet, false).await?;
        let before = gateway.memory().peak;
        let besiegers = besiege(&gateway);
        let siege = neighbours.call(&self.thread, self.times.siege, true).await?;
        let growth = gateway.memory().peak.saturating_sub(before);
        drop(besiegers);
        if gateway.has_ended() {
            return Err(format!("the gateway ended under siege:\n{}", gateway.log_end()).into());
        }
        Ok(Round { quiet, siege, growth })
    }
}

impl Round {
    /// Of the sieges that are not floods or logins.
    pub fn figures(&self, siege: &str) -> Vec<Figure> {
        let mut figures = vec![
            memory(siege, self.growth),
            slower(siege, "good pulls' p99, beside quiet", &self.quiet.pulls, &self.siege.pulls),
            slowest(siege, &self.siege.pulls),
            all(siege, "good pulls that failed", &self.siege.pulls),
            all(siege, "good pushes that failed", &self.siege.pushes),
            probes(siege, &self.siege.probes),
        ];
        if self.siege.commands.all() > 0 {
            figures.push(all(siege, "real clients' pulls that failed", &self.siege.commands));
        }
        figures
    }
}

pub fn memory(siege: &str, growth: u64) -> Figure {
    let value = format!("+{}", bytes(growth));
    let figure = if growth <= MEMORY_BROKEN { Figure::speed } else { Figure::rule };
    figure(siege, "resident memory", "≤ +64 MiB", value, growth <= MEMORY_MAX)
}

/// The times are of those that succeeded, so where some failed it is not met.
pub fn slower(siege: &str, name: &str, quiet: &Tally, besieged: &Tally) -> Figure {
    let [before, after] = [quiet, besieged].map(|tally| quantile(&mut tally.times.clone(), 0.99));
    let (value, met) = match (before, after) {
        (Some(before), Some(after)) => {
            let ratio = after.as_secs_f64() / before.as_secs_f64();
            (
                format!("{ratio:.1} × ({} → {})", time(Some(before)), time(Some(after))),
                ratio <= SLOWER_MAX && besieged.failed == 0,
            )
        }
        _ => ("none succeeded".to_owned(), false),
    };
    Figure::speed(siege, name, "≤ 2 ×", value, met)
}

/// What the p99 leaves out: how it is while thousands come at once.
fn slowest(siege: &str, tally: &Tally) -> Figure {
    let value = time(tally.times.iter().max().copied());
    Figure::speed(siege, "the slowest good pull", "", value, !tally.times.is_empty())
}

/// Every one must succeed, and there must be some.
pub fn all(siege: &str, name: &str, tally: &Tally) -> Figure {
    let reason = tally.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let value = format!("{} of {}{reason}", tally.failed, tally.all());
    Figure::rule(siege, name, "0", value, tally.failed == 0 && tally.all() > 0)
}

fn probes(siege: &str, tally: &Tally) -> Figure {
    let longest = tally.times.iter().max().copied();
    let (name, target) = ("`/readyz`, the longest", "≤ 100 ms");
    if tally.failed > 0 {
        let value = format!("{} of {} not answered", tally.failed, tally.all());
        return Figure::rule(siege, name, target, value, false);
    }
    Figure::speed(siege, name, target, time(longest), longest.is_some_and(|longest| longest <= PROBE_MAX))
}
