//! An hour of mixed load: does memory stay where it is?

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::Outcome;
use crate::client::Way;
use crate::content::{Content, IMAGE, MANIFEST_TYPE};
use crate::gateway::{Gateway, Setup};
use crate::logins::login;
use crate::neighbours::{Tally, at_rate, get};
use crate::random::Random;
use crate::report::{Figure, bytes};
use crate::siege::{Context, all};
use crate::upstream;

const NAME: &str = "mixed load";
/// Images of the registry that is mirrored; the cache in memory holds a tenth of them.
const IMAGES: usize = 1000;
const SEED: u64 = 60;
const PULL_EVERY: Duration = Duration::from_millis(100);
const LARGE_EVERY: Duration = Duration::from_secs(5);
const LIST_EVERY: Duration = Duration::from_millis(500);
const WRONG_EVERY: Duration = Duration::from_secs(2);
/// The share of the time after which memory must be flat: the first ten minutes of an hour.
const WARM: f64 = 1.0 / 6.0;
/// How many medians are taken of all of the time: one for each five minutes of an hour.
const WINDOWS: usize = 12;
/// How far they may be from their middle, then.
const FLAT: f64 = 0.05;

pub async fn run(context: &Context<'_>) -> Outcome<Vec<Figure>> {
    let mut besiegers = JoinSet::new();
    let upstream = upstream::start(&mut besiegers).await?;
    let (gateway, neighbours) = context.start(&Setup { upstream: Some(upstream), ..Setup::default() }).await?;
    let time = context.times.hour;
    let until = Instant::now() + time;
    let more = others(&gateway, &context.content, until);
    let (seen, (mirror, rest), samples) =
        tokio::join!(neighbours.call(&context.thread, time, true), more, sample(&gateway, context, until));
    let seen = seen?;
    drop(besiegers);
    let mut figures = Vec::from(flat(&samples, context));
    figures.push(all(NAME, "good pulls that failed", &seen.pulls));
    figures.push(all(NAME, "good pushes that failed", &seen.pushes));
    figures.push(all(NAME, "pulls through the mirror that failed", &mirror));
    figures.push(all(NAME, "large pulls, lists and refusals that failed", &rest));
    if seen.commands.all() > 0 {
        figures.push(all(NAME, "real clients' pulls that failed", &seen.commands));
    }
    Ok(figures)
}

async fn sample(gateway: &Gateway, context: &Context<'_>, until: Instant) -> Vec<u64> {
    let (mut samples, began) = (Vec::new(), Instant::now());
    while Instant::now() < until {
        sleep(context.times.sample).await;
        let now = gateway.memory().now;
        eprintln!("{:5.1} min: {} resident", began.elapsed().as_secs_f64() / 60.0, bytes(now));
        samples.push(now);
    }
    samples
}

/// Whether memory stays where it is, and how far it ever was from there. The first sixth is not judged, and the short form
/// not at all: it ends before anything is warm.
fn flat(samples: &[u64], context: &Context<'_>) -> [Figure; 2] {
    let warm = (samples.len() as f64 * WARM) as usize;
    let rest = samples.get(warm..).unwrap_or_default();
    // What one pull holds while it runs comes and goes within seconds.
    let middles: Vec<u64> = rest.chunks((samples.len() / WINDOWS).max(1)).filter_map(median).collect();
    let (least, most) = bounds(&middles);
    let half = (most - least) as f64 / (most + least).max(1) as f64;
    let minutes = context.times.hour.as_secs_f64() / 60.0;
    let value = format!("{} to {} (± {:.1} %) in {minutes:.0} min", bytes(least), bytes(most), half * 100.0);
    let name = "resident memory after a sixth of the time, the medians of twelfths";
    let flat = Figure::speed(NAME, name, "± 5 %", value, half <= FLAT || !context.speed);
    let (least, most) = bounds(rest);
    let ever = format!("{} and {}", bytes(least), bytes(most));
    [flat, Figure::speed(NAME, "the least and the most that it was", "", ever, true)]
}

fn median(samples: &[u64]) -> Option<u64> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

fn bounds(sizes: &[u64]) -> (u64, u64) {
    (sizes.iter().min().copied().unwrap_or(0), sizes.iter().max().copied().unwrap_or(0))
}

/// Pulls through the mirror, and all else.
async fn others(gateway: &Gateway, content: &Arc<Content>, until: Instant) -> (Tally, Tally) {
    let way = |last| gateway.way(Ipv4Addr::new(127, 0, 7, last));
    let mut random = Random::new(SEED);
    let mirror = at_rate(PULL_EVERY, until, || {
        let number = random.below(IMAGES);
        pull_through(way(1), number)
    });
    let large = at_rate(LARGE_EVERY, until, || get(way(2), content.large_path(), String::new(), content.large.clone()));
    let list = way(3);
    let lists = at_rate(LIST_EVERY, until, || async move {
        list.ask("GET", &format!("/v2/{IMAGE}/tags/list"), "", b"").await?.expect(200)?;
        list.ask("HEAD", &format!("/v2/{IMAGE}/manifests/latest"), "", b"").await?.expect(200).map(drop)
    });
    let mut number = 0;
    let wrong = at_rate(WRONG_EVERY, until, || {
        number += 1;
        let caller = way(4);
        async move { login(caller, &format!("nobody-{number}"), "wrong").await?.expect(401).map(drop) }
    });
    let (mirror, mut rest, lists, wrong) = tokio::join!(mirror, large, lists, wrong);
    rest.join(lists);
    rest.join(wrong);
    (mirror, rest)
}

async fn pull_through(way: Way, number: usize) -> Outcome {
    let image = upstream::image(number as u64);
    let name = format!("up/img-{number}");
    let accept = format!("Accept: {MANIFEST_TYPE}\r\n");
    get(way, format!("/v2/{name}/manifests/latest"), accept, image.manifest).await?;
    for blob in [image.configuration, image.layer] {
        get(way, format!("/v2/{name}/blobs/{}", blob.digest), String::new(), blob).await?;
    }
    Ok(())
}
