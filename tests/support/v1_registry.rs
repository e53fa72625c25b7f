//! The real docker-registry 0.9.1, started for one test.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long it may take to answer after it was started.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait before asking again whether it answers.
const AGAIN: Duration = Duration::from_millis(100);

/// A running v1 registry; it is stopped and its files are gone when this is dropped.
pub(crate) struct V1Registry {
    address: SocketAddr,
    server: Server,
    storage: TempDir,
}

/// A v1 registry that was stopped, with its files.
pub(crate) struct Stopped {
    address: SocketAddr,
    storage: TempDir,
}

/// The process; dropped, it is stopped.
struct Server(Child);

impl V1Registry {
    /// Installs it where it is not yet, which takes a minute, and waits until it answers. Panics where it cannot be had.
    pub(crate) fn start() -> Self {
        Stopped::new().start()
    }

    /// Where it answers.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops it and keeps its files.
    pub(crate) fn stop(self) -> Stopped {
        let Self { address, storage, .. } = self;
        Stopped { address, storage }
    }

    fn wait(&mut self) {
        let begin = Instant::now();
        while !self.answers() {
            let ended = self.server.0.try_wait().expect("the server's state");
            let log = || std::fs::read_to_string(self.storage.path().join("log")).unwrap_or_default();
            assert!(ended.is_none(), "docker-registry 0.9.1 ended at once: {}", log());
            assert!(begin.elapsed() < PATIENCE, "docker-registry 0.9.1 does not answer: {}", log());
            std::thread::sleep(AGAIN);
        }
    }

    /// Its master takes connections before its worker can answer.
    fn answers(&self) -> bool {
        let mut answer = Vec::new();
        let asked = TcpStream::connect(self.address).and_then(|mut stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(b"GET /v1/_ping HTTP/1.0\r\n\r\n")?;
            stream.read_to_end(&mut answer)
        });
        asked.is_ok() && answer.starts_with(b"HTTP/1.0 200")
    }
}

impl Stopped {
    /// One that was never started.
    pub(crate) fn new() -> Self {
        Self { address: free_address(), storage: tempfile::tempdir().expect("a temporary directory") }
    }

    /// Where it will answer.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts it where it was, as its own index.
    pub(crate) fn start(self) -> V1Registry {
        self.start_with(&[])
    }

    /// The same, with another index than itself.
    pub(crate) fn start_before(self, index: SocketAddr) -> V1Registry {
        self.start_with(&[("STANDALONE", "false"), ("INDEX_ENDPOINT", &format!("http://{index}"))])
    }

    fn start_with(self, environment: &[(&str, &str)]) -> V1Registry {
        let Self { address, storage } = self;
        let directory = install();
        let log = File::create(storage.path().join("log")).expect("a log");
        let server = Command::new(project().join("tests/v1/run.sh"))
            .args([&directory, Path::new(&address.port().to_string()), &storage.path().join("files")])
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("tests/v1/run.sh can be run");
        let mut registry = V1Registry { address, server: Server(server), storage };
        registry.wait();
        registry
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // gunicorn's master stops its workers on SIGTERM; on SIGKILL it would leave them behind.
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

fn install() -> PathBuf {
    let directory = project().join(".test/v1");
    let installed = Command::new(project().join("tests/v1/install.sh")).arg(&directory).output();
    let installed = installed.expect("tests/v1/install.sh can be run");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, error) = (said(&installed.stdout), said(&installed.stderr));
    assert!(
        installed.status.success(),
        "docker-registry 0.9.1 cannot be installed, and this test needs it:\n{out}{error}"
    );
    directory
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}
