//! Measures mirrors: dockgate, docker's registry and nginx in front of one upstream. `make storm`, `make trace` and
//! `make latency` call it; `cargo bench --bench mirror -- storm --help` tells the options.

#![expect(unreachable_pub, reason = "one crate; nothing is exported")]

mod catalog;
mod check;
mod content;
mod latency;
mod link;
mod lru;
mod model;
mod process;
mod push;
mod random;
mod replay;
mod report;
mod runner;
mod servers;
mod storm;
mod trace;
mod upstream;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::{Builder, Handle};

use crate::link::Shape;
use crate::servers::Kind;

/// What is said of an error is all that is done with it.
type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
    /// What cargo says to every benchmark
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    Storm(storm::Options),
    Trace(trace::Options),
    Latency(latency::Options),
}

/// What all measurements take.
#[derive(Debug, Args)]
struct Common {
    /// The program; the default is the one built with this benchmark
    #[arg(long, default_value = env!("CARGO_BIN_EXE_dockgate"))]
    dockgate: PathBuf,
    /// Where to write the numbers, as CSV
    #[arg(long)]
    csv: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Servers {
    /// Which servers
    #[arg(long, value_delimiter = ',', value_enum, default_values = ["dockgate", "registry", "nginx"])]
    servers: Vec<Kind>,
}

/// The line to the upstream.
#[derive(Debug, Args)]
struct Line {
    /// Milliseconds from a request to the upstream to the first byte of its answer
    #[arg(long, default_value_t = 50)]
    delay: u64,
    /// What the upstream sends at most, to all of its clients together
    #[arg(long, default_value_t = 1000)]
    mbit: u32,
}

impl Line {
    fn shape(&self) -> Shape {
        Shape { delay: Duration::from_millis(self.delay), rate: Some(f64::from(self.mbit) * 1e6 / 8.0) }
    }
}

impl Common {
    fn write_csv(&self, text: &str) -> Outcome {
        if let Some(path) = &self.csv {
            std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The upstream has a thread of its own, so that busy clients do not bend its shape.
fn measure(arguments: &Arguments) -> Outcome<bool> {
    allow_many_files()?;
    let upstream = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let clients = Builder::new_multi_thread().enable_all().build()?;
    let result = clients.block_on(async {
        tokio::select! {
            result = run(&arguments.what, upstream.handle()) => result,
            _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        }
    });
    upstream.shutdown_background();
    result
}

async fn run(what: &What, upstream: &Handle) -> Outcome<bool> {
    match what {
        What::Storm(options) => storm::run(options, upstream).await,
        What::Trace(options) => trace::run(options, upstream).await,
        What::Latency(options) => latency::run(options, upstream).await,
    }
}

/// Three connections for each of 500 runners, and as many to the upstream. The servers inherit it.
fn allow_many_files() -> Outcome {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    Ok(())
}
