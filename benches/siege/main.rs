//! Besieges a gateway and measures what its other clients see meanwhile (docs/reliability.md). `make siege` calls it;
//! `cargo bench --bench siege -- --help` tells the options.

#![expect(unreachable_pub, reason = "one crate; nothing is exported")]

mod client;
mod content;
mod flood_kinds;
mod floods;
mod frames;
mod gateway;
mod hour;
mod logins;
mod neighbours;
#[expect(dead_code, reason = "the mirrors' benchmark uses more of it")]
#[path = "../mirror/random.rs"]
mod random;
mod readers;
mod report;
mod siege;
mod sink;
mod upstream;
mod writers;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::{Builder, Handle};

use crate::content::Content;
use crate::report::{Figure, Verdict, record, recorded, table, write_page};
use crate::siege::{Context, Times};

/// What is said of an error is all that is done with it.
type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// What is pushed comes out of this.
const SEED: u64 = 9;

/// Besieges a gateway that it starts itself, on loopback addresses alone, and ends by itself.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// The program; the default is the one built with this benchmark
    #[arg(long, default_value = env!("CARGO_BIN_EXE_dockgate"))]
    binary: PathBuf,
    /// Another build of it, besieged in turn; its figures stand beside
    #[arg(long)]
    against: Option<PathBuf>,
    /// The file of figures that stand beside, where no other build is given
    #[arg(long)]
    beside: Option<PathBuf>,
    /// Only these sieges
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Siege>,
    /// Of the floods only those with this in their names
    #[arg(long, default_value = "")]
    flood: String,
    /// Some seconds for each, and two minutes for all
    #[arg(long)]
    short: bool,
    /// Fails where a rule is broken that does not depend on the speed of the machine
    #[arg(long)]
    check: bool,
    /// Minutes of the hour of mixed load
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// A shell's command that is run again and again during the sieges, with REGISTRY and IMAGE in its environment
    #[arg(long)]
    during: Option<String>,
    /// The page that gets the table
    #[arg(long)]
    page: Option<PathBuf>,
    /// The file that gets the figures; what else it has stays, and is in the table too
    #[arg(long)]
    record: Option<PathBuf>,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// What this program is besides the driver.
#[derive(Debug, Subcommand)]
enum Part {
    #[command(hide = true)]
    Sink(sink::Options),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "kebab-case")]
enum Siege {
    /// 50 × 100 streams whose windows are 0, and 2,000 silent connections
    Windows0,
    /// The same against 1,024 descriptors
    Windows0Few,
    /// The same with windows of 1
    Windows1,
    /// 50 × 100 streams of HTTP/2 that take a byte a second
    Bytes2,
    /// 5,000 connections of HTTP/1 that take a byte a second
    Bytes1,
    /// 1,100 connections that say nothing, against 1,024 descriptors
    Silent,
    /// 200 stalled pushes of manifests over HTTP/1
    Writers1,
    /// 200 stalled pushes of manifests over HTTP/2
    Writers2,
    /// 100 wrong passwords a second for ever-new names, from one address
    LoginsOne,
    /// 100 wrong passwords a second for ever-new names, from 250 addresses
    LoginsMany,
    /// Whether the time of a refusal tells who exists
    Timing,
    /// The eighteen floods of frames and requests
    Floods,
    /// Mixed load for an hour
    Hour,
}

impl Siege {
    async fn run(self, context: &Context<'_>) -> Outcome<Vec<Figure>> {
        match self {
            Self::Windows0 => readers::windows_0(context).await,
            Self::Windows0Few => readers::windows_0_few(context).await,
            Self::Windows1 => readers::windows_1(context).await,
            Self::Bytes2 => readers::bytes_2(context).await,
            Self::Bytes1 => readers::bytes_1(context).await,
            Self::Silent => readers::silent(context).await,
            Self::Writers1 => writers::http_1(context).await,
            Self::Writers2 => writers::http_2(context).await,
            Self::LoginsOne => logins::from_one(context).await,
            Self::LoginsMany => logins::from_many(context).await,
            Self::Timing => logins::timing(context).await,
            Self::Floods => floods::run(context).await,
            Self::Hour => hour::run(context).await,
        }
    }
}

impl Arguments {
    fn times(&self) -> Times {
        let [second, millisecond] = [Duration::from_secs, Duration::from_millis];
        if self.short {
            Times {
                warm: millisecond(500),
                quiet: second(1),
                siege: second(4),
                flood: millisecond(1200),
                hour: second(15),
                sample: second(1),
                passwords: 10,
            }
        } else {
            Times {
                warm: second(2),
                quiet: second(6),
                siege: second(30),
                flood: second(5),
                hour: second(60 * self.minutes),
                sample: second(10),
                passwords: 40,
            }
        }
    }

    fn sieges(&self) -> Vec<Siege> {
        if self.only.is_empty() { Siege::value_variants().to_vec() } else { self.only.clone() }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.part {
        Some(Part::Sink(options)) => sink::run(options),
        None => measure(&arguments),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Outcome<bool> {
    allow_many_files()?;
    let neighbours = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let besiegers = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let result = besiegers.block_on(async {
        tokio::select! {
            result = run(arguments, neighbours.handle()) => result,
            _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        }
    });
    neighbours.shutdown_background();
    result
}

/// Each siege of each build in turn, so that a busy moment of the machine meets both.
async fn run(arguments: &Arguments, thread: &Handle) -> Outcome<bool> {
    let content = Arc::new(Content::new(SEED));
    let context = |program| Context {
        program,
        content: content.clone(),
        thread: thread.clone(),
        times: arguments.times(),
        command: arguments.during.clone(),
        flood: &arguments.flood,
        speed: !arguments.short,
    };
    let mut figures = Vec::new();
    let mut today = arguments.beside.as_deref().map(recorded).transpose()?.unwrap_or_default();
    for siege in arguments.sieges() {
        if let Some(program) = &arguments.against {
            println!("--- {}", program.display());
            today = [besiege(siege, &context(program)).await?, today].concat();
            println!("--- {}", arguments.binary.display());
        }
        figures.extend(besiege(siege, &context(&arguments.binary)).await?);
    }
    let holds = figures.iter().all(|figure| figure.verdict != Verdict::Broken);
    tell(arguments, figures, &today)?;
    Ok(holds || !arguments.check)
}

async fn besiege(siege: Siege, context: &Context<'_>) -> Outcome<Vec<Figure>> {
    let figures = siege.run(context).await.map_err(|error| format!("{siege:?}: {error}"))?;
    if siege != Siege::Floods {
        figures.iter().for_each(|figure| println!("{}", figure.line()));
    }
    Ok(figures)
}

/// The page gets all that is recorded, so that a part of the sieges can be run again.
fn tell(arguments: &Arguments, figures: Vec<Figure>, today: &[Figure]) -> Outcome {
    let figures = match &arguments.record {
        Some(path) => record(path, &figures)?,
        None => figures,
    };
    let table = table(&figures, today);
    println!("\n{table}");
    arguments.page.as_deref().map_or(Ok(()), |page| write_page(page, &table))
}

/// The besiegers are thousands of connections.
fn allow_many_files() -> Outcome {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    Ok(())
}
