//! The storm: many runners start at once on an image that nobody has pulled yet.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use futures_util::future::join_all;
use tokio::runtime::Handle;

use crate::content::{Blob, Image, Images};
use crate::link::Shape;
use crate::random::Random;
use crate::report::{bytes, head, parse_size, quantile, ratio, seconds, time};
use crate::runner::{Fault, Runner, Seen};
use crate::servers::{Kind, Server, Tiers};
use crate::upstream::Upstream;
use crate::{Common, Line, Outcome, Servers};

const REPOSITORY: &str = "storm/app";
/// Within which all runners start.
const START: Duration = Duration::from_secs(2);

/// Many runners pull one cold image at once, through each server.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    servers: Servers,
    #[command(flatten)]
    line: Line,
    /// How many runners
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 100, 500])]
    runners: Vec<usize>,
    /// The large layer: one size for each number of runners, or one for all
    ///
    /// A server that fetches once for each runner sends runners × image through 1 Gbit/s: with 1 GiB and 500 of them that
    /// is an hour and a quarter. The defaults keep such a case within some minutes; the others can take 1GiB at every number.
    #[arg(long, value_delimiter = ',', value_parser = parse_size, default_values = ["1GiB", "1GiB", "256MiB", "64MiB"])]
    layer: Vec<u64>,
    /// Seconds after which a case is ended, whoever has not finished
    #[arg(long, default_value_t = 900)]
    limit: u64,
}

/// One server and one number of runners.
struct Case {
    server: Kind,
    runners: usize,
    layer: u64,
    image: u64,
    upstream: u64,
    gets: u64,
    first_bytes: Vec<Duration>,
    completions: Vec<Duration>,
    memory: u64,
    cpu: f64,
    retries: u64,
    faults: Vec<Fault>,
}

/// Whether every server started and nobody got wrong bytes.
pub async fn run(options: &Options, threads: &Handle) -> Outcome<bool> {
    if options.layer.len() != 1 && options.layer.len() != options.runners.len() {
        return Err("--layer takes one size, or one for each number of --runners".into());
    }
    print_head(options);
    let largest = usize::try_from(options.layer.iter().copied().max().unwrap_or_default())?;
    let original: Bytes = Random::new(1).bytes(largest).into();
    let mut csv = String::from(CSV_HEAD);
    let mut is_good = true;
    for (index, &runners) in options.runners.iter().enumerate() {
        let layer = options.layer[index.min(options.layer.len() - 1)];
        let large = Blob::new(original.slice(..usize::try_from(layer)?));
        let image = Image::new("storm", &large);
        for &kind in &options.servers.servers {
            match case(options, kind, runners, &image, threads).await {
                Ok(case) => {
                    let case = Case { layer, ..case };
                    is_good &= !case.faults.iter().any(|fault| matches!(fault, Fault::Wrong(_)));
                    print(&case);
                    csv.push_str(&csv_line(&case));
                }
                Err(error) => {
                    is_good = false;
                    println!("| {} | {runners} | not measured |", kind.name());
                    eprintln!("{} with {runners} runners was not measured: {error}", kind.name());
                }
            }
        }
    }
    options.common.write_csv(&csv)?;
    Ok(is_good)
}

async fn case(options: &Options, kind: Kind, runners: usize, image: &Image, threads: &Handle) -> Outcome<Case> {
    let upstream = Upstream::start(Arc::new(Images::new([image])), options.line.shape(), threads)?;
    let program = &options.common.dockgate;
    let mut server = Server::prepare(kind, program, upstream.address, &Tiers::default())?;
    server.start().await?;
    let seen = Seen::default();
    let limit = Duration::from_secs(options.limit);
    let pulls = (0..runners)
        .map(|index| pull(&server, &seen, image, START.mul_f64(ratio(index as u64, runners as u64)), limit));
    let results = join_all(pulls).await;
    let process = server.process().ok_or("it was not running")?;
    let (memory, cpu) = (process.memory_peak(), process.cpu_seconds());
    if memory == 0 {
        return Err(format!("it died on the way:\n{}", server.log_end()).into());
    }
    let mut completions = Vec::new();
    let mut faults = Vec::new();
    for result in results {
        completions.push(result.as_ref().map_or(Duration::MAX, |took| *took));
        faults.extend(result.err());
    }
    server.stop().await;
    Ok(Case {
        server: kind,
        runners,
        layer: 0,
        image: image.bytes(),
        upstream: upstream.tally().bytes(),
        gets: upstream.tally().gets_max(),
        first_bytes: seen.take_first_bytes(),
        completions,
        memory,
        cpu,
        retries: seen.retries.load(Ordering::Relaxed),
        faults,
    })
}

/// From the runner's own start to its last byte.
async fn pull(
    server: &Server,
    seen: &Seen,
    image: &Image,
    start: Duration,
    limit: Duration,
) -> Result<Duration, Fault> {
    tokio::time::sleep(start).await;
    let began = Instant::now();
    let runner = Runner::new(&server.url(), seen);
    let repository = server.kind.repository(REPOSITORY);
    let late = |_| Err(Fault::Broken(format!("not done after {} s", limit.as_secs())));
    tokio::time::timeout(limit, runner.pull(&repository, image)).await.unwrap_or_else(late)?;
    Ok(began.elapsed())
}

fn print_head(options: &Options) {
    let Shape { delay, .. } = options.line.shape();
    println!(
        "Runners start within {} s on an image of ten layers that is not cached, and take three at a time. The upstream \
         answers after {} ms and sends {} Mbit/s to all of its clients together. Everything is on one machine, over \
         loopback and plain HTTP; its processors are shared by the server, the upstream and the runners. Every runner \
         compares every byte with the original, whose sha256 is the digest asked for. A case ends after {} s.\n",
        START.as_secs(),
        delay.as_millis(),
        options.line.mbit,
        options.limit
    );
    let columns = [
        "server",
        "runners",
        "large layer",
        "upstream ÷ image",
        "GETs of one blob, at most",
        "first byte p50",
        "p99",
        "completion p50",
        "p99",
        "memory peak",
        "CPU",
        "finished",
        "retries",
    ];
    println!("{}", head(&columns));
}

fn print(case: &Case) {
    let (mut first_bytes, mut completions) = (case.first_bytes.clone(), case.completions.clone());
    println!(
        "| {} | {} | {} | {:.2} | {} | {} | {} | {} | {} | {} | {:.1} s | {} | {} |",
        case.server.name(),
        case.runners,
        bytes(case.layer),
        ratio(case.upstream, case.image),
        case.gets,
        time(quantile(&mut first_bytes, 0.5)),
        time(quantile(&mut first_bytes, 0.99)),
        time(quantile(&mut completions, 0.5)),
        time(quantile(&mut completions, 0.99)),
        bytes(case.memory),
        case.cpu,
        case.runners - case.faults.len(),
        case.retries,
    );
    if let Some(fault) = case.faults.first() {
        eprintln!("{}: {} runners did not finish; the first of them: {fault}", case.server.name(), case.faults.len());
    }
}

const CSV_HEAD: &str = "server,runners,layer_bytes,image_bytes,upstream_bytes,ratio,gets_max,first_byte_p50,first_byte_p99,\
                        completion_p50,completion_p99,memory_bytes,cpu_seconds,finished,retries\n";

fn csv_line(case: &Case) -> String {
    let (mut first_bytes, mut completions) = (case.first_bytes.clone(), case.completions.clone());
    let mut line = format!("{},{},{},{},{}", case.server.name(), case.runners, case.layer, case.image, case.upstream);
    let _ = write!(line, ",{:.4},{}", ratio(case.upstream, case.image), case.gets);
    for values in [&mut first_bytes, &mut completions] {
        for share in [0.5, 0.99] {
            let _ = write!(line, ",{}", seconds(quantile(values, share)));
        }
    }
    let finished = case.runners - case.faults.len();
    let _ = writeln!(line, ",{},{:.2},{finished},{}", case.memory, case.cpu, case.retries);
    line
}
