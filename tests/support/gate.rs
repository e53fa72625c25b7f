//! A gateway of the real binary, in a directory of its own, on ports that the system picks.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::client::Client;

/// How long anything may take that the tests wait for.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The user ada with the password ada; bcrypt at cost 4, which is quick.
pub const ADA: &str = "ada:$2y$04$V/beqf6odThiu48mpJBXXOIFeHdi4jsD/XhqncLqdj3z7EAD8zde2";

pub struct Gate {
    child: Child,
    pub directory: Arc<TempDir>,
    pub main: SocketAddr,
    pub admin: SocketAddr,
    /// Everything printed to standard output up to the ready text, and what follows.
    pub printed: Arc<Mutex<String>>,
    /// The log.
    pub log: Arc<Mutex<String>>,
}

impl Gate {
    /// A gateway with `config` beside ports of the system's choice, in a new directory.
    pub fn start(config: &str) -> Self {
        Self::prepare(config).start()
    }

    pub fn prepare(config: &str) -> Prepared {
        let directory = tempfile::tempdir().unwrap();
        let prepared = Prepared { directory: Arc::new(directory) };
        prepared.configure(config);
        prepared
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    /// A client over TLS that trusts the gateway's CA.
    pub fn tls(&self) -> Client {
        Client::tls(self.main, &self.path("certs/ca.crt"))
    }

    /// A client that speaks plain HTTP.
    pub fn plain(&self) -> Client {
        Client::plain(self.main)
    }

    /// The admin listener.
    pub fn admin(&self) -> Client {
        Client::plain(self.admin)
    }

    /// The first user, over TLS.
    pub fn root(&self) -> Client {
        let password = std::fs::read_to_string(self.path("data/initial-password")).unwrap();
        self.tls().user("admin", password.trim())
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: &str) {
        let done = Command::new("kill").args([format!("-{signal}"), self.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    pub fn prepared(&self) -> Prepared {
        Prepared { directory: Arc::clone(&self.directory) }
    }

    /// Waits until the log holds `text`.
    pub fn wait_for_log(&self, text: &str) {
        wait_until(&format!("{text:?} in the log"), || self.log.lock().unwrap().contains(text));
    }

    /// Sends SIGTERM and waits; the exit code.
    pub fn stop(mut self) -> i32 {
        self.signal("TERM");
        self.wait()
    }

    pub fn wait(&mut self) -> i32 {
        let mut code = None;
        wait_until("the gateway to end", || {
            code = self.child.try_wait().unwrap().map(|status| status.code().unwrap_or(-1));
            code.is_some()
        });
        code.unwrap()
    }

    /// kill -9.
    pub fn kill(mut self) -> Prepared {
        let prepared = self.prepared();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        prepared
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the gateway's log\n{}", self.log.lock().unwrap());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory in which a gateway can be started.
#[derive(Clone)]
pub struct Prepared {
    pub directory: Arc<TempDir>,
}

impl Prepared {
    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    pub fn configure(&self, config: &str) {
        let listen = if config.contains("[listen") { "" } else { "[listen.main]\naddress = \"127.0.0.1:0\"\n" };
        let admin = if config.contains("[admin]") { "" } else { "[admin]\naddress = \"127.0.0.1:0\"\n" };
        self.write("gateway.toml", &format!("{config}\n{listen}{admin}"));
    }

    pub fn write(&self, file: &str, text: &str) {
        let path = self.path(file);
        let directory = path.parent().unwrap();
        std::fs::create_dir_all(directory).unwrap();
        // At once: what is half there is another file, and may be a good one.
        let new = directory.join(format!(".new-{}", path.file_name().unwrap().to_str().unwrap()));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dockgate"));
        command.args(arguments).arg("--config").arg(self.path("gateway.toml")).current_dir(self.directory.path());
        command.stdin(Stdio::null());
        command
    }

    /// Runs a subcommand to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a subcommand that must refuse: its exit code and what it said. One that goes on is ended.
    pub fn fail(&self, arguments: &[&str]) -> (i32, String) {
        let child = self.command(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut child = Ended(child);
        let log = follow(child.0.stderr.take().unwrap());
        let mut code = None;
        wait_until(&format!("{arguments:?} to refuse"), || {
            code = child.0.try_wait().unwrap().map(|status| status.code().unwrap_or(-1));
            code.is_some()
        });
        assert_ne!(code, Some(0), "{arguments:?} refuses nothing");
        // The follower is done when it lets go of its copy.
        wait_until("the end of the log", || Arc::strong_count(&log) == 1);
        let text = log.lock().unwrap().clone();
        (code.unwrap(), text)
    }

    /// Runs a subcommand that must succeed: what it printed.
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn start(&self) -> Gate {
        self.start_under(&mut self.command(&["serve"]))
    }

    pub fn start_under(&self, command: &mut Command) -> Gate {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = follow(child.stderr.take().unwrap());
        let printed = follow(child.stdout.take().unwrap());
        wait_until("the ready line", || {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "the gateway ended: {}", log.lock().unwrap());
            printed.lock().unwrap().lines().any(|line| line.contains(" is ready: ") && line.contains("admin="))
        });
        let line = printed.lock().unwrap().lines().next().unwrap().to_owned();
        let address = |name: &str| {
            let word = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            word.unwrap_or_else(|| panic!("no {name} in {line}")).parse().unwrap()
        };
        Gate {
            main: address("main"),
            admin: address("admin"),
            child,
            directory: Arc::clone(&self.directory),
            printed,
            log,
        }
    }
}

/// A process that does not outlive the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn follow(pipe: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let copy = Arc::clone(&text);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let mut text = copy.lock().unwrap();
            text.push_str(&String::from_utf8_lossy(&line));
            text.push('\n');
        }
    });
    text
}

/// Looks again and again until it is so; panics when it takes too long.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// All files below a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
