//! `dockgate serve`: wires the rooms together, and keeps them until the end.

mod first_start;
mod handlers;
mod reload;
mod remotes;
mod rooms;
mod signals;
mod token_keys;
mod trust;

pub(super) use rooms::{certificates, open_legacy, tls_problem, tls_settings};
pub(super) use trust::{Door, trust_text};

use std::io::Write;
use std::net::TcpListener;
use std::sync::Arc;

use arc_swap::ArcSwap;
use time::OffsetDateTime;
use tokio::runtime::Handle;
use tokio::sync::watch;

use dockgate::config::Config;
use dockgate::net::describe;
use dockgate::server::{Listeners, admin, descriptors};
use dockgate::telemetry::{Metrics, log};

use super::Common;
use super::exit::{Code, Exit};
use handlers::{AdminHandler, GatewayHandler};
use reload::{Reach, Reload, Watch};
use rooms::House;
use signals::Signals;

pub(super) fn run(common: &Common) -> Result<(), Exit> {
    let config = common.load()?;
    let no_threads = |error| Exit::new(Code::Software, format_args!("no threads can be started: {error}"));
    // Until this returns: what is told last is written, too.
    let _log = log::init(&config.log).map_err(no_threads)?;
    let descriptors = descriptors::raise();
    if descriptors < descriptors::LEAST {
        return Err(Exit::new(Code::Unavailable, descriptors::too_few(descriptors)));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(no_threads)?;
    runtime.block_on(serve(config, common))
}

async fn serve(config: Config, common: &Common) -> Result<(), Exit> {
    let mut signals = Signals::install()?;
    let metrics = Metrics::new();
    warn_of_configuration(&config);
    let listeners = Listeners::bind(&rooms::listeners(&config));
    let listeners = listeners.map_err(|error| Exit::new(Code::Unavailable, error))?;
    let address = config.admin.address.map(admin::bind).transpose();
    let address = address.map_err(|error| Exit::new(Code::Unavailable, error.explain("admin.address")))?;
    // What the operator brought is looked at before anything is made.
    if config.tls.certificate.is_some() {
        rooms::tls(&config)?;
    }
    let house = House::open(&config, &metrics).await?;
    if config.tls.certificate.is_none() {
        rooms::certificates(&config)?;
    }
    let watch = Watch::of(&config);
    let tls = Arc::new(ArcSwap::new(rooms::tls(&config)?));
    warn_of_certificate(&config);
    let limits = Arc::new(ArcSwap::from_pointee(rooms::server_limits(&config.limits)));
    let admin_address = address.as_ref().and_then(|listener| listener.local_addr().ok());
    let ready = first_start::ready_text(&config, &listeners, admin_address, house.first_user.as_deref());

    let (stop, stopped) = watch::channel(false);
    let handler = GatewayHandler { gateway: house.gateway.clone(), metrics: metrics.clone() };
    let public = tokio::spawn(listeners.serve(handler, Arc::clone(&limits), Arc::clone(&tls), until(stopped.clone())));
    let admin = serve_admin(&config, address, &house)?;
    let tasks = house.spawn_tasks(&metrics, stopped);
    house.admin.set_ready(true);
    print(&ready);

    let (gateway, identity) = (house.gateway.clone(), Arc::clone(&house.identity));
    let file = common.config.clone();
    Reload::new(config, watch, Reach { file, gateway, identity, tls, limits, metrics }).run(&mut signals).await;

    // Readiness is false first, so that a balancer sends no more while the last requests are finished.
    house.admin.set_ready(false);
    tracing::info!("stopping: the requests that run are finished");
    stop.send_replace(true);
    let drained = public.await.map_err(|error| Exit::new(Code::Software, error))?;
    if drained.forced > 0 {
        tracing::warn!(connections = drained.forced, "cut off: still busy after limits.drain_timeout");
    }
    tokio::task::spawn_blocking(|| admin.stop()).await.map_err(|error| Exit::new(Code::Software, error))?;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    house.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// Answers the operator: at the address, and over a socket in the data directory, which is locked by now.
fn serve_admin(config: &Config, address: Option<TcpListener>, house: &House) -> Result<admin::Serving, Exit> {
    // Nothing can be made in a read-only directory, and what comes over the socket is for changes.
    let socket = (!house.is_read_only()).then(|| admin::Socket::bind(&config.registry.data)).transpose();
    let socket = socket.unwrap_or_else(|error| {
        tracing::error!(%error, "`dockgate cache` cannot be used; all else goes on");
        None
    });
    let handler = AdminHandler { admin: house.admin.clone(), runtime: Handle::current() };
    admin::serve(address, socket, handler)
        .map_err(|error| Exit::new(Code::Software, format_args!("the admin listener cannot be served: {error}")))
}

fn warn_of_configuration(config: &Config) {
    for (upstream, error) in
        config.broken.iter().flat_map(|(name, broken)| broken.errors.iter().map(move |e| (name, e)))
    {
        tracing::error!(upstream, %error, "an upstream is left out; mend its file, and restart");
    }
    if let Some(problem) = descriptors::shortage(config.limits.connections, descriptors::available()) {
        tracing::warn!(%problem, "fewer connections are taken");
    }
    config.warnings.iter().for_each(|problem| tracing::warn!(%problem, "the configuration is taken as it is"));
}

/// What clients will not like about the certificate.
fn warn_of_certificate(config: &Config) {
    let file = rooms::tls_settings(config).certificate;
    // What cannot be read was told when it was loaded.
    let concerns = describe(&file).map(|found| found.concerns(OffsetDateTime::now_utc())).unwrap_or_default();
    concerns.iter().for_each(|problem| tracing::warn!(file = %file.display(), %problem, "the certificate"));
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is the end too.
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// A closed standard output is no reason to stop serving.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}
