//! The operator's side, over real sockets.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::Path;

use http_body_util::Full;

use super::*;

/// Says which way it was asked.
#[derive(Clone)]
struct Parrot;

impl Operator for Parrot {
    type Body = Full<Bytes>;

    fn look(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        Response::new(format!("look {}", request.uri().path()).into())
    }

    async fn command(&self, caller: Caller, request: Request<Incoming>) -> Response<Full<Bytes>> {
        Response::new(format!("{caller:?} {} {}", request.method(), request.uri().path()).into())
    }
}

/// Both ways, and where the first is.
fn start(data: Option<&Path>) -> (Serving, SocketAddr) {
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let socket = data.map(|data| Socket::bind(data).unwrap());
    (serve(Some(listener), socket, Parrot).unwrap(), address)
}

fn exchange(mut stream: impl std::io::Read + std::io::Write) -> String {
    stream.write_all(b"GET /here HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn command(data: &Path) -> String {
    let path = data.join(SOCKET_NAME);
    exchange(with_path(&path))
}

fn with_path(path: &Path) -> std::os::unix::net::UnixStream {
    socket::with_short_path(path, |short| std::os::unix::net::UnixStream::connect(short)).unwrap()
}

#[test]
fn it_answers_while_the_other_runtime_is_blocked() {
    let directory = tempfile::tempdir().unwrap();
    let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    other.block_on(async {
        let (serving, address) = start(Some(directory.path()));
        // This blocks the only thread of this runtime.
        assert!(exchange(TcpStream::connect(address).unwrap()).ends_with("\r\n\r\nlook /here"));
        assert!(command(directory.path()).ends_with("\r\n\r\nOperator GET /here"));
        serving.stop();
        assert!(TcpStream::connect(address).is_err());
    });
}

#[test]
fn silent_connections_give_way_to_one_that_asks() {
    let (serving, address) = start(None);
    let silent: Vec<_> = (0..LOOKS_MAX * 2).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert!(exchange(TcpStream::connect(address).unwrap()).ends_with("look /here"));
    drop(silent);
    serving.stop();
}

#[test]
fn one_request_is_answered_and_the_connection_closed() {
    let (serving, address) = start(None);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /first HTTP/1.1\r\nHost: a\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.ends_with("look /first"), "{answer}");
    serving.stop();
}

#[test]
fn the_socket_is_for_its_owner_and_goes_at_the_stop() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let (serving, _) = start(Some(directory.path()));
    let metadata = std::fs::metadata(directory.path().join(SOCKET_NAME)).unwrap();
    assert_eq!(metadata.mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left there");
    serving.stop();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_socket_that_was_left_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(SOCKET_NAME);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    // And what is left of one that was being made.
    std::fs::create_dir(directory.path().join("admin.new")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(directory.path().join("admin.new").join(SOCKET_NAME)).unwrap());
    let (serving, _) = start(Some(directory.path()));
    assert!(command(directory.path()).ends_with("Operator GET /here"));
    serving.stop();
}

#[test]
fn a_data_directory_may_have_a_long_path() {
    let directory = tempfile::tempdir().unwrap();
    let deep = directory.path().join("d".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    let (serving, _) = start(Some(&deep));
    assert!(command(&deep).ends_with("Operator GET /here"));
    serving.stop();
    assert_eq!(std::fs::read_dir(&deep).unwrap().count(), 0);
}

#[tokio::test]
async fn why_the_socket_is_not_reached_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(SOCKET_NAME);
    assert_eq!(connect(directory.path()).await.unwrap_err(), SocketError::Missing { path: path.clone() });
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert_eq!(connect(directory.path()).await.unwrap_err(), SocketError::Stale { path });
}
