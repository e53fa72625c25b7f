//! Wrong passwords for ever-new names, beside users who log in; and whether the time of a refusal tells who exists.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::Outcome;
use crate::client::{Answer, Way};
use crate::gateway::{Gateway, Setup};
use crate::neighbours::{Neighbours, Seen, Tally, at_rate};
use crate::report::{Figure, quantile, time};
use crate::siege::{Context, all, memory, slower};
use crate::sink::Sink;

const PASSWORD: &str = "a good password";
/// What `dockgate user add` makes.
const COST: u32 = 10;
/// What `htpasswd -B` makes.
const COST_LOW: u32 = 5;
const SALT: [u8; 16] = *b"siege of a day..";

/// Users who have not logged in before.
const NEW_USERS: u32 = 400;
const NEW_EVERY: Duration = Duration::from_millis(500);
/// Users who have, and whose check is due again at each login.
const REGULARS: u32 = 5;
const REGULAR_EVERY: Duration = Duration::from_millis(400);
/// Shorter than a regular's time between two logins.
const CREDENTIAL_LIFETIME: &str = "credential_lifetime = \"1s\"";
/// Between two wrong passwords: a hundred a second.
const WRONG_EVERY: Duration = Duration::from_millis(10);
/// Where new users log in, and where the others do.
const NEW: Ipv4Addr = Ipv4Addr::new(127, 0, 4, 1);
const REGULAR: Ipv4Addr = Ipv4Addr::new(127, 0, 5, 1);
/// Addresses of the siege that comes from many.
const MANY: u32 = 250;
/// At a p99 that long, good logins may take.
const LOGIN_MAX: Duration = Duration::from_millis(500);
/// How far the times of refusals may be apart.
const APART_MAX: f64 = 0.03;

pub async fn from_one(context: &Context<'_>) -> Outcome<Vec<Figure>> {
    siege(context, "100 wrong logins/s from one address", 1).await
}

pub async fn from_many(context: &Context<'_>) -> Outcome<Vec<Figure>> {
    siege(context, "100 wrong logins/s from 250 addresses", MANY).await
}

async fn siege(context: &Context<'_>, name: &str, addresses: u32) -> Outcome<Vec<Figure>> {
    let hash = bcrypt::hash_with_salt(PASSWORD, COST, SALT)?.to_string();
    let mut users = String::new();
    for name in (0..NEW_USERS).map(|number| format!("new-{number}")).chain((0..REGULARS).map(regular)) {
        let _ = writeln!(users, "{name}:{hash}");
    }
    let setup = Setup { users, limits: CREDENTIAL_LIFETIME.into(), ..Setup::default() };
    let (gateway, neighbours) = context.start(&setup).await?;
    let good = Good { new: Arc::default() };
    let sink = Sink::start(true)?;
    let sunk = good.beside(context, &gateway, &neighbours, addresses, |from| Way { from, to: sink.address }).await?;
    gateway.forget_peak()?;
    let before = gateway.memory().peak;
    let seen = good.beside(context, &gateway, &neighbours, addresses, |from| gateway.way(from)).await?;
    let growth = gateway.memory().peak.saturating_sub(before);
    let mut figures = vec![
        all(name, "logins of new users that failed", &seen.new),
        in_time(name, "their p99", &seen.new),
        all(name, "logins of users whose check is due again that failed", &seen.regular),
        in_time(name, "p99 of those", &seen.regular),
        slower(name, "good pulls' p99, beside a sink", &sunk.others.pulls, &seen.others.pulls),
        all(name, "good pulls that failed", &seen.others.pulls),
        memory(name, growth),
    ];
    if seen.others.commands.all() > 0 {
        figures.push(all(name, "real clients' pulls that failed", &seen.others.commands));
    }
    Ok(figures)
}

fn regular(number: u32) -> String {
    format!("regular-{number}")
}

fn in_time(siege: &str, name: &str, tally: &Tally) -> Figure {
    let value = quantile(&mut tally.times.clone(), 0.99);
    Figure::speed(siege, name, "≤ 500 ms", time(value), value.is_some_and(|value| value <= LOGIN_MAX))
}

/// Those whose passwords are right.
struct Good {
    /// The next user who was never here.
    new: Arc<AtomicU32>,
}

struct Logins {
    new: Tally,
    regular: Tally,
    others: Seen,
}

impl Good {
    /// Good logins and pulls at the gateway, beside wrong logins at either.
    async fn beside(
        &self,
        context: &Context<'_>,
        gateway: &Gateway,
        neighbours: &Neighbours,
        addresses: u32,
        wrong: impl Fn(Ipv4Addr) -> Way,
    ) -> Outcome<Logins> {
        let mut besiegers = JoinSet::new();
        let ways = (0..addresses).map(|number| wrong(Ipv4Addr::new(127, 0, 9, 1 + number as u8))).collect();
        besiegers.spawn(wrong_logins(ways));
        let time = context.times.siege;
        let until = Instant::now() + time;
        let next = self.new.clone();
        let news = logins(gateway.way(NEW), NEW_EVERY, until, move || {
            format!("new-{}", next.fetch_add(1, Ordering::Relaxed) % NEW_USERS)
        });
        let mut turn = 0;
        let regulars = logins(gateway.way(REGULAR), REGULAR_EVERY, until, move || {
            turn = (turn + 1) % REGULARS;
            regular(turn)
        });
        let (news, regulars) = (context.thread.spawn(news), context.thread.spawn(regulars));
        let others = neighbours.call(&context.thread, time, true).await?;
        Ok(Logins { new: news.await?, regular: regulars.await?, others })
    }
}

/// Right passwords, all from one address: a fleet stands behind one.
async fn logins(way: Way, every: Duration, until: Instant, mut name: impl FnMut() -> String) -> Tally {
    at_rate(every, until, || {
        let name = name();
        async move { login(way, &name, PASSWORD).await?.expect(200).map(drop) }
    })
    .await
}

async fn wrong_logins(ways: Vec<Way>) {
    let mut running = JoinSet::new();
    let mut ticks = interval(WRONG_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for (number, way) in ways.iter().cycle().enumerate() {
        ticks.tick().await;
        let way = *way;
        running.spawn(async move { drop(login(way, &format!("nobody-{number}"), "wrong").await) });
        while running.try_join_next().is_some() {}
    }
}

pub async fn login(way: Way, name: &str, password: &str) -> Outcome<Answer> {
    let credentials = STANDARD.encode(format!("{name}:{password}"));
    way.ask("GET", "/v2/", &format!("Authorization: Basic {credentials}\r\n"), b"").await
}

/// A wrong password for a user with a cheap hash, for one with a hash of the usual cost, and for nobody, in turn.
pub async fn timing(context: &Context<'_>) -> Outcome<Vec<Figure>> {
    const SIEGE: &str = "what the time of a refusal tells";
    let [usual, low] = [COST, COST_LOW].map(|cost| bcrypt::hash_with_salt(PASSWORD, cost, SALT));
    let (usual, low) = (usual?.to_string(), low?.to_string());
    let mut users = String::new();
    for number in 0..context.times.passwords {
        let _ = write!(users, "usual-{number}:{usual}\nlow-{number}:{low}\n");
    }
    let (gateway, _) = context.start(&Setup { users, ..Setup::default() }).await?;
    let kinds = ["usual", "low", "nobody"];
    let mut times = [const { Vec::new() }; 3];
    for number in 0..context.times.passwords {
        let way = gateway.way(Ipv4Addr::new(127, 0, 6, number + 1));
        for turn in 0..kinds.len() {
            let kind = (usize::from(number) + turn) % kinds.len();
            let began = Instant::now();
            login(way, &format!("{}-{number}", kinds[kind]), "wrong").await?.expect(401)?;
            times[kind].push(began.elapsed());
        }
    }
    let [usual, low, nobody] = times.map(|mut times| quantile(&mut times, 0.5).unwrap_or_default());
    let figure = |name, other: Duration| {
        let ratio = other.as_secs_f64() / usual.as_secs_f64();
        let value = format!("{ratio:.3} × ({} beside {})", time(Some(other)), time(Some(usual)));
        Figure::speed(SIEGE, name, "0.97 to 1.03 ×", value, (ratio - 1.0).abs() <= APART_MAX)
    };
    Ok(vec![figure("a hash of cost 5 beside one of cost 10", low), figure("a name that nobody has, beside it", nobody)])
}
