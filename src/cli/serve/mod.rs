//! `dockgate serve`: wires the rooms together, and keeps them until the end.

mod first_start;
mod handlers;
mod reload;
mod rooms;
mod signals;

pub(super) use first_start::trust_text;
pub(super) use rooms::{certificates, tls_settings};

use std::io::Write;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use dockgate::config::Config;
use dockgate::server::{BindError, Listeners};
use dockgate::telemetry::{Metrics, log};

use super::Common;
use super::exit::{Code, Exit};
use handlers::{AdminHandler, GatewayHandler};
use reload::Reload;
use rooms::House;
use signals::Signals;

pub(super) fn run(common: &Common) -> Result<(), Exit> {
    let config = common.load()?;
    log::init(&config.log);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Exit::new(Code::Software, format_args!("no threads can be started: {error}")))?;
    runtime.block_on(serve(config, common))
}

async fn serve(config: Config, common: &Common) -> Result<(), Exit> {
    let mut signals = Signals::install()?;
    let metrics = Metrics::new();
    let listeners = bind(rooms::listeners(&config))?;
    let admin_listeners = bind(rooms::admin_listener(&config))?;
    let tls = Arc::new(ArcSwap::new(rooms::tls(&config)?));
    let first_user = first_start::ensure_user(&config)?;
    let house = House::open(&config, &metrics).await?;

    let (stop, stopped) = watch::channel(false);
    let limits = Arc::new(ArcSwap::from_pointee(config.limits.clone()));
    let ready = first_start::ready_text(&config, &listeners, &admin_listeners, first_user.as_deref());
    let gateway = GatewayHandler(house.gateway.clone());
    let public = listeners.serve(gateway, Arc::clone(&limits), Arc::clone(&tls), metrics.clone(), until(stopped.clone()));
    let public = tokio::spawn(public);
    let (stop_admin, admin_stopped) = watch::channel(false);
    let admin = AdminHandler(house.admin.clone());
    let admin = tokio::spawn(admin_listeners.serve(admin, Arc::clone(&limits), Arc::clone(&tls), metrics.clone(), until(admin_stopped)));
    let tasks = house.spawn_tasks(stopped.clone());

    house.admin.set_ready(true);
    print(&ready);
    let mut reload = Reload::new(config, common, &house, tls, limits, metrics);
    reload.run(&mut signals).await;

    // Readiness is false first, so that a balancer sends no more while the last requests are finished.
    house.admin.set_ready(false);
    tracing::info!("stopping: finishing the requests that run");
    // The receivers are gone only if the tasks are over already.
    let _ = stop.send(true);
    let drained = public.await.map_err(|error| Exit::new(Code::Software, error))?;
    if drained.forced > 0 {
        tracing::warn!(connections = drained.forced, "cut off: still busy after limits.drain_timeout");
    }
    let _ = stop_admin.send(true);
    admin.await.map_err(|error| Exit::new(Code::Software, error))?;
    for task in tasks {
        task.abort();
    }
    house.close().await;
    tracing::info!("stopped");
    Ok(())
}

fn bind(listeners: Vec<dockgate::server::ListenerSettings>) -> Result<Listeners, Exit> {
    Listeners::bind(&listeners).map_err(|error: BindError| Exit::new(Code::Unavailable, error))
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
