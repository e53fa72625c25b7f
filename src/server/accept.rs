//! The accept loop of one listener.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::budget::Budget;
use super::connection::{self, Phase, Setting};
use super::handshake::HandshakeLog;
use super::opening::canonical;
use super::pace::Turnstile;
use super::{ConnectionEvent, Handler, Limits, Listener};

/// The pause after an accept that failed for want of something (descriptors, memory); it doubles up to the second.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What all listeners have in common.
#[derive(Clone)]
pub(super) struct Shared<H> {
    pub(super) handler: H,
    pub(super) limits: Arc<ArcSwap<Limits>>,
    pub(super) tls: Option<Arc<ArcSwap<ServerConfig>>>,
    pub(super) budget: Arc<Budget>,
    pub(super) turnstile: Turnstile,
    pub(super) handshakes: Arc<HandshakeLog>,
}

/// Accept connections until the server drains.
pub(super) async fn accept<H: Handler>(
    listener: Arc<Listener>,
    socket: TcpListener,
    shared: Shared<H>,
    phases: watch::Receiver<Phase>,
) {
    let mut stop = std::pin::pin!(connection::reached(phases.clone(), Phase::Draining));
    let mut pause = PAUSE;
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => return,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = PAUSE;
                admit(&listener, &shared, &phases, stream, canonical(peer)).await;
            }
            Err(error) if is_of_one_client(&error) => {}
            Err(error) => {
                // It may be the descriptors that are short.
                shared.budget.make_room();
                tracing::warn!(listener = &*listener.name, %error, ?pause, "cannot accept connections for now");
                tokio::select! {
                    biased;
                    () = &mut stop => return,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// Whether only one client is concerned, which left before it was accepted (accept(2), "Error handling").
fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkDown,
        NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
    )
}

/// Start a task for `stream`, if there may be one more.
async fn admit<H: Handler>(
    listener: &Arc<Listener>,
    shared: &Shared<H>,
    phases: &watch::Receiver<Phase>,
    stream: TcpStream,
    peer: std::net::SocketAddr,
) {
    let limits = shared.limits.load_full();
    shared.handler.observe(ConnectionEvent::Opened);
    let mut slot = shared.budget.take(limits.connections, peer.ip());
    if slot.is_none() {
        // Those that were told to make room need a moment; meanwhile the system holds who else comes.
        tokio::time::sleep(PAUSE).await;
        slot = shared.budget.take(limits.connections, peer.ip());
    }
    let Some(slot) = slot else {
        shared.handler.observe(ConnectionEvent::OverConnections);
        return;
    };
    // Without it, small answers wait 40 ms for the client's delayed acknowledgement; a socket that refuses it is gone.
    let _ = stream.set_nodelay(true);
    let setting = Setting {
        handler: shared.handler.clone(),
        listener: Arc::clone(listener),
        limits,
        tls: shared.tls.as_ref().map(|tls| tls.load_full()),
        phases: phases.clone(),
        turnstile: shared.turnstile.clone(),
        handshakes: Arc::clone(&shared.handshakes),
    };
    tokio::spawn(async move {
        let cut = slot.cut();
        let event = tokio::select! {
            event = connection::run(&setting, stream, peer, slot) => event,
            () = cut => ConnectionEvent::MadeRoom,
        };
        setting.handler.observe(event);
    });
}
