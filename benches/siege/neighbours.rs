//! The good clients beside a siege: pulls, pushes and an operator's probe, and what they see. They run on a thread of
//! their own, so that the besiegers' work in this process does not slow what is measured.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::process::Command;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::interval;

use crate::Outcome;
use crate::client::Way;
use crate::content::{Blob, Content, IMAGE, Image, MANIFEST_TYPE};
use crate::gateway::Gateway;
use crate::random::Random;

const PULLERS: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 1, 1), Ipv4Addr::new(127, 0, 1, 2)];
const PUSHER: Ipv4Addr = Ipv4Addr::new(127, 0, 2, 1);
const OPERATOR: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Between the beginnings of two pulls.
const PULL_EVERY: Duration = Duration::from_millis(20);
const PUSH_PAUSE: Duration = Duration::from_millis(100);
const PROBE_PAUSE: Duration = Duration::from_millis(100);
/// Of the file in a pushed layer.
const PUSH_BYTES: usize = 16 << 10;
/// Whoever gave `--during` waits this long for one run of it.
const COMMAND_PATIENCE: Duration = Duration::from_secs(60);

/// What clients of one kind saw.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// How long those took that succeeded.
    pub times: Vec<Duration>,
    pub failed: usize,
    /// Why the first of those failed.
    pub reason: Option<String>,
}

#[derive(Debug, Default)]
pub struct Seen {
    pub pulls: Tally,
    pub pushes: Tally,
    pub probes: Tally,
    /// Of the command that was given with `--during`; nobody, without one.
    pub commands: Tally,
}

impl Seen {
    pub fn join(&mut self, other: Self) {
        self.pulls.join(other.pulls);
        self.pushes.join(other.pushes);
        self.probes.join(other.probes);
        self.commands.join(other.commands);
    }
}

impl Tally {
    pub fn add(&mut self, began: Instant, outcome: Outcome) {
        match outcome {
            Ok(()) => self.times.push(began.elapsed()),
            Err(error) => {
                self.failed += 1;
                self.reason.get_or_insert(error.to_string());
            }
        }
    }

    pub fn join(&mut self, other: Self) {
        self.times.extend(other.times);
        self.failed += other.failed;
        self.reason = self.reason.take().or(other.reason);
    }

    pub fn all(&self) -> usize {
        self.times.len() + self.failed
    }
}

/// Whom the neighbours call, and with what.
#[derive(Debug, Clone)]
pub struct Neighbours {
    address: SocketAddr,
    admin: SocketAddr,
    content: Arc<Content>,
    /// A shell's command that is run again and again.
    command: Option<String>,
    pushed: Arc<AtomicU64>,
}

impl Neighbours {
    pub fn new(gateway: &Gateway, content: &Arc<Content>, command: Option<&String>) -> Self {
        Self {
            address: gateway.address,
            admin: gateway.admin,
            content: content.clone(),
            command: command.cloned(),
            pushed: Arc::default(),
        }
    }

    /// Calls for as long as that, and says what came of it.
    /// The command is for sieges: in quiet it would take the time of what is compared.
    pub async fn call(&self, thread: &Handle, time: Duration, siege: bool) -> Outcome<Seen> {
        let this = Self { command: self.command.clone().filter(|_| siege), ..self.clone() };
        let until = Instant::now() + time;
        let calls = async move {
            let (pulls, pushes, probes, commands) =
                tokio::join!(this.pulls(until), this.pushes(until), this.probes(until), this.commands(until));
            Seen { pulls, pushes, probes, commands }
        };
        Ok(thread.spawn(calls).await?)
    }

    async fn pulls(&self, until: Instant) -> Tally {
        let mut pullers = PULLERS.into_iter().cycle();
        at_rate(PULL_EVERY, until, || {
            let way = Way { from: pullers.next().unwrap_or(OPERATOR), to: self.address };
            let content = self.content.clone();
            async move { pull(way, &content.image).await }
        })
        .await
    }

    async fn pushes(&self, until: Instant) -> Tally {
        let way = Way { from: PUSHER, to: self.address };
        let mut tally = Tally::default();
        while Instant::now() < until {
            let number = self.pushed.fetch_add(1, Ordering::Relaxed);
            let image = Image::new(&mut Random::new(number + 1), PUSH_BYTES);
            let began = Instant::now();
            tally.add(began, image.push(way, "open/pushed", &format!("t-{}", number % 50)).await);
            tokio::time::sleep(PUSH_PAUSE).await;
        }
        tally
    }

    async fn probes(&self, until: Instant) -> Tally {
        let way = Way { from: OPERATOR, to: self.admin };
        let mut tally = Tally::default();
        while Instant::now() < until {
            let began = Instant::now();
            let outcome = async { way.ask("GET", "/readyz", "", b"").await?.expect(200).map(drop) };
            tally.add(began, outcome.await);
            tokio::time::sleep(PROBE_PAUSE).await;
        }
        tally
    }

    /// Real clients; one that runs when the time is over is waited for, and the siege goes on around it.
    async fn commands(&self, until: Instant) -> Tally {
        let mut tally = Tally::default();
        let Some(command) = &self.command else { return tally };
        while Instant::now() < until {
            let began = Instant::now();
            let run = Command::new("sh")
                .args(["-c", command])
                .env("REGISTRY", self.address.to_string())
                .env("IMAGE", IMAGE)
                .stdin(Stdio::null())
                .kill_on_drop(true)
                .output();
            let outcome = async {
                let output =
                    tokio::time::timeout(COMMAND_PATIENCE, run).await.map_err(|_| "it did not end in time")??;
                let said = String::from_utf8_lossy(&output.stderr);
                let last = said.lines().last().unwrap_or("it said nothing");
                if output.status.success() { Ok(()) } else { Err(last.into()) }
            };
            tally.add(began, outcome.await);
        }
        tally
    }
}

/// One after another begins, whether or not those before it are done: nobody's pull waits because another one does.
pub async fn at_rate<F>(every: Duration, until: Instant, mut once: impl FnMut() -> F) -> Tally
where
    F: Future<Output = Outcome> + Send + 'static,
{
    let mut running = JoinSet::new();
    let mut ticks = interval(every);
    let mut all = Tally::default();
    while Instant::now() < until {
        ticks.tick().await;
        let call = once();
        running.spawn(async move {
            let began = Instant::now();
            let mut tally = Tally::default();
            tally.add(began, call.await);
            tally
        });
        while let Some(one) = running.try_join_next() {
            all.join(one.unwrap_or_default());
        }
    }
    while let Some(one) = running.join_next().await {
        all.join(one.unwrap_or_default());
    }
    all
}

/// A manifest and its layer, each on a connection of its own, and every byte as it was pushed.
pub async fn pull(way: Way, image: &Image) -> Outcome {
    let accept = format!("Accept: {MANIFEST_TYPE}\r\n");
    get(way, format!("/v2/{IMAGE}/manifests/latest"), accept, image.manifest.clone()).await?;
    get(way, format!("/v2/{IMAGE}/blobs/{}", image.layer.digest), String::new(), image.layer.clone()).await
}

pub async fn get(way: Way, path: String, headers: String, expected: Blob) -> Outcome {
    let answer = way.ask("GET", &path, &headers, b"").await?.expect(200)?;
    if answer.body == expected.bytes { Ok(()) } else { Err(format!("GET {path}: other bytes").into()) }
}
