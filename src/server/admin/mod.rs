//! The operator's way in: an address for what anyone there may look at, and a Unix socket for what changes anything.
//!
//! It has a thread, a runtime and descriptors of its own, so that it answers however busy the public side is: one request a
//! connection, short deadlines, and no waiting for the other runtime before a look is answered.

mod socket;
mod spares;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::BindError;
use spares::Spares;

pub use socket::{SOCKET_NAME, Socket, SocketError, connect};

/// How many connections to the address are open at a time; one more cuts off the one that is open longest.
const LOOKS_MAX: usize = 64;
/// How many connections to the socket are open at a time; one more is closed.
const COMMANDS_MAX: usize = 64;
/// How long a request's head may take from the connection on.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a connection to the address may last.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the commands that run have when the gateway stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);
/// The most that is kept of a request's head and of an answer that waits to be sent.
const BUFFER_BYTES: usize = 16 << 10;
/// The pause after an accept that failed, and how often spare descriptors are looked for while some are missing.
const PAUSE: Duration = Duration::from_millis(10);

/// How many descriptors the operator's side takes at the most: connections, spares, two sockets, and those of its runtime.
pub const DESCRIPTORS_MAX: usize = LOOKS_MAX + COMMANDS_MAX + spares::SPARES + 8;

/// Who is at the other end of the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// The system user that the gateway runs as, or root.
    Operator,
    /// Another user, who came by the socket in spite of its mode.
    Stranger,
}

/// Who answers the operator. A clone is made for each connection.
pub trait Operator: Clone + Send + Sync + 'static {
    /// What answers carry.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static;

    /// Answers a look at the address, at once: it changes nothing, and waits for nothing.
    fn look(&self, request: &Request<Incoming>) -> Response<Self::Body>;

    /// Does what `caller` asks over the socket.
    fn command(&self, caller: Caller, request: Request<Incoming>) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// Takes the address; connections wait until it is [served](serve).
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let bound = TcpListener::bind(address).and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    bound.map_err(|error| BindError {
        listener: "admin".into(),
        address,
        kind: error.kind(),
        reason: error.to_string(),
    })
}

/// The operator's side while it runs; it ends with the process, or when it is [stopped](Self::stop).
#[derive(Debug)]
pub struct Serving {
    stop: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

/// Answers on both from now on; either may be missing.
pub fn serve<O: Operator>(listener: Option<TcpListener>, socket: Option<Socket>, operator: O) -> io::Result<Serving> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let guard = runtime.enter();
    let listener = listener.map(tokio::net::TcpListener::from_std).transpose()?;
    let listening = socket.as_ref().map(Socket::listen).transpose()?;
    drop(guard);
    let desk = Desk { operator, spares: Spares::open()?, looks: VecDeque::new(), commands: JoinSet::new() };
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::Builder::new().name("admin".into()).spawn(move || {
        runtime.block_on(desk.serve(listener, listening, stopped));
        // The socket's file goes when nobody can be answered there any more.
        drop((runtime, socket));
    })?;
    Ok(Serving { stop, thread })
}

impl Serving {
    /// Takes no more, and ends what runs. Blocks for [`STOP_TIMEOUT`] at the most.
    pub fn stop(self) {
        // Whoever is gone has stopped already.
        let _ = self.stop.send(());
        if self.thread.join().is_err() {
            tracing::error!("the thread of the admin listener ended in a panic");
        }
    }
}

/// Where the operator's connections come in.
struct Desk<O> {
    operator: O,
    spares: Spares,
    /// Connections to the address, the one that is open longest first.
    looks: VecDeque<AbortHandle>,
    commands: JoinSet<()>,
}

/// A connection.
enum Accepted {
    Look(tokio::net::TcpStream),
    Command(tokio::net::UnixStream),
}

impl<O: Operator> Desk<O> {
    async fn serve(
        mut self,
        listener: Option<tokio::net::TcpListener>,
        socket: Option<tokio::net::UnixListener>,
        mut stopped: oneshot::Receiver<()>,
    ) {
        loop {
            let accepted = tokio::select! {
                _ = &mut stopped => break,
                accepted = accept(listener.as_ref(), socket.as_ref()) => accepted,
                () = tokio::time::sleep(PAUSE), if !self.spares.is_full() => {
                    self.spares.refill();
                    continue;
                }
            };
            match accepted {
                Ok(Accepted::Look(stream)) => self.look(stream),
                Ok(Accepted::Command(stream)) => self.command(stream),
                // The descriptor that is given up is free for the next accept, unless another thread is faster.
                Err(error) if is_out_of_descriptors(&error) && self.spares.give_up_one() => {}
                Err(error) => {
                    tracing::debug!(%error, "the admin listener cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        drop((listener, socket));
        let _ = timeout(STOP_TIMEOUT, async { while self.commands.join_next().await.is_some() {} }).await;
    }

    fn look(&mut self, stream: tokio::net::TcpStream) {
        self.looks.retain(|look| !look.is_finished());
        if self.looks.len() >= LOOKS_MAX
            && let Some(oldest) = self.looks.pop_front()
        {
            oldest.abort();
        }
        let operator = self.operator.clone();
        let answered = one_request(stream, move |request| {
            let response = operator.look(&request);
            async move { response }
        });
        let look = tokio::spawn(async move {
            // A client that takes its time is no news.
            let _ = timeout(LOOK_TIMEOUT, answered).await;
        });
        self.looks.push_back(look.abort_handle());
    }

    fn command(&mut self, stream: tokio::net::UnixStream) {
        while self.commands.try_join_next().is_some() {}
        if self.commands.len() >= COMMANDS_MAX {
            return;
        }
        let caller = socket::caller(&stream);
        let operator = self.operator.clone();
        self.commands.spawn(one_request(stream, move |request| {
            let operator = operator.clone();
            async move { operator.command(caller, request).await }
        }));
    }
}

async fn accept(
    listener: Option<&tokio::net::TcpListener>,
    socket: Option<&tokio::net::UnixListener>,
) -> io::Result<Accepted> {
    let look = async {
        match listener {
            Some(listener) => listener.accept().await.map(|(stream, _)| Accepted::Look(stream)),
            None => std::future::pending().await,
        }
    };
    let command = async {
        match socket {
            Some(socket) => socket.accept().await.map(|(stream, _)| Accepted::Command(stream)),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        accepted = look => accepted,
        accepted = command => accepted,
    }
}

/// Reads one request, answers it, and closes.
async fn one_request<S, F, R, B>(stream: S, answer: F)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Request<Incoming>) -> R,
    R: Future<Output = Response<B>>,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + 'static,
{
    let service = service_fn(|request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection to the admin listener broke");
    }
}

/// Whether this process, or the system, has as many files open as it may.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}
