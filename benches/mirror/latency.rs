//! One client that pulls images of ten layers: not cached, then again, then after a restart from the disk.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::runtime::Handle;

use crate::content::{Blob, Image, Images};
use crate::random::Random;
use crate::report::{bytes, head, parse_size, quantile, seconds, time};
use crate::runner::{Runner, Seen};
use crate::servers::{Kind, Server, Tiers};
use crate::upstream::Upstream;
use crate::{Common, Line, Outcome, Servers};

const REPOSITORY: &str = "latency/app";
/// docker's registry stores what it has sent only afterwards, by a second download.
const SETTLE: Duration = Duration::from_secs(3);
/// Enough for all images, so that what is told is the tier and not its size.
const MEMORY: u64 = 4 << 30;

/// One client pulls images that are cold, in memory, on disk.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    servers: Servers,
    #[command(flatten)]
    line: Line,
    /// How many images, each pulled cold once
    #[arg(long, default_value_t = 20)]
    images: usize,
    /// How often each of them is pulled again, from memory and from disk
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The large layer; up to 16MiB dockgate keeps it in memory
    #[arg(long, value_parser = parse_size, default_value = "16MiB")]
    layer: u64,
}

/// Where the images are before they are pulled.
#[derive(Debug, Clone, Copy)]
enum State {
    Cold,
    Memory,
    Disk,
}

#[derive(Default)]
struct Times {
    pulls: Vec<Duration>,
    first_bytes: Vec<Duration>,
}

/// Whether every server did what was asked.
pub async fn run(options: &Options, threads: &Handle) -> Outcome<bool> {
    let large = Blob::new(Random::new(3).bytes(usize::try_from(options.layer)?).into());
    // Each image has a large layer of its own, so that none is known already.
    let own = |index: usize| {
        let name = format!("{index:016}");
        let whole = [name.as_bytes(), &large.piece(0, large.len())[name.len().min(large.len())..]].concat();
        Image::new(&format!("v{index}"), &Blob::new(whole.into()))
    };
    let images: Vec<Image> = (0..options.images).map(own).collect();
    let size = images.first().map_or(0, Image::bytes);
    println!(
        "One client pulls {} images of {} in ten layers, three layers at a time; {} rounds from memory and from disk. \
         The upstream answers after {} ms and sends {} Mbit/s. From disk means after a restart, with nothing of the cache \
         in the page cache. Loopback, plain HTTP, one machine.\n",
        options.images,
        bytes(size),
        options.rounds,
        options.line.delay,
        options.line.mbit
    );
    println!("{}", head(&["server", "image is", "pull p50", "p99", "first byte p50", "p99", "pulls"]));
    let mut csv = String::from("server,state,pull_p50,pull_p99,first_byte_p50,first_byte_p99,pulls\n");
    let mut is_good = true;
    for &kind in &options.servers.servers {
        if let Err(error) = server(options, kind, &images, threads, &mut csv).await {
            is_good = false;
            println!("| {} | not measured |", kind.name());
            eprintln!("{} was not measured: {error}", kind.name());
        }
    }
    options.common.write_csv(&csv)?;
    Ok(is_good)
}

async fn server(options: &Options, kind: Kind, images: &[Image], threads: &Handle, csv: &mut String) -> Outcome {
    let upstream = Upstream::start(Arc::new(Images::new(images)), options.line.shape(), threads)?;
    let tiers = Tiers { memory: MEMORY, ..Tiers::default() };
    let mut server = Server::prepare(kind, &options.common.dockgate, upstream.address, &tiers)?;
    server.start().await?;
    let mut times = Times::default();
    pull_all(&server, images, &mut times).await?;
    print(kind, State::Cold, &mut times, csv);
    tokio::time::sleep(SETTLE).await;
    let mut times = Times::default();
    for _ in 0..options.rounds {
        pull_all(&server, images, &mut times).await?;
    }
    print(kind, State::Memory, &mut times, csv);
    let mut times = Times::default();
    for _ in 0..options.rounds {
        server.stop().await;
        server.drop_page_cache()?;
        server.start().await?;
        pull_all(&server, images, &mut times).await?;
    }
    print(kind, State::Disk, &mut times, csv);
    server.stop().await;
    Ok(())
}

/// Each by a client of its own, with new connections.
async fn pull_all(server: &Server, images: &[Image], times: &mut Times) -> Outcome {
    let seen = Seen::default();
    let repository = server.kind.repository(REPOSITORY);
    for image in images {
        let began = Instant::now();
        let pulled = Runner::new(&server.url(), &seen).pull(&repository, image).await;
        pulled.map_err(|fault| format!("{}: {fault}\n{}", image.tag, server.log_end()))?;
        times.pulls.push(began.elapsed());
    }
    times.first_bytes.extend(seen.take_first_bytes());
    Ok(())
}

fn print(kind: Kind, state: State, times: &mut Times, csv: &mut String) {
    let Times { pulls, first_bytes } = times;
    let count = pulls.len();
    let values = [quantile(pulls, 0.5), quantile(pulls, 0.99), quantile(first_bytes, 0.5), quantile(first_bytes, 0.99)];
    let state = match state {
        State::Cold => "cold",
        State::Memory => "pulled again",
        State::Disk => "on disk",
    };
    println!("| {} | {state} | {} | {count} |", kind.name(), values.map(time).join(" | "));
    let _ = writeln!(csv, "{},{state},{},{count}", kind.name(), values.map(seconds).join(","));
}
