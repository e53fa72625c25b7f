//! strace on a running gateway: the k-th call of a kind kills it, or fails.

use std::collections::HashMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::support::Gate;
use crate::support::gate::{follow, wait_until};

/// A kind of system call, under the names that it has on this and that machine; of files, or of the database's files
/// only. strace counts for each thread by itself, and files come first in each request, so that a fault meant for
/// the database would never be reached among them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Calls {
    pub(super) names: &'static str,
    pub(super) database: bool,
}

/// Every kind of call that changes what is on the disk, and those that must come before.
pub(super) const CALLS: [Calls; 9] = [
    Calls { names: "?mkdir,mkdirat", database: false },
    Calls { names: "?open,openat", database: false },
    Calls { names: "pwrite64", database: false },
    Calls { names: "fsync,fdatasync", database: false },
    Calls { names: "?rename,?renameat,renameat2", database: false },
    Calls { names: "?unlink,unlinkat", database: false },
    Calls { names: "pwrite64", database: true },
    Calls { names: "fsync,fdatasync", database: true },
    Calls { names: "?open,openat", database: true },
];

/// strace, attached.
pub(super) struct Strace {
    child: Child,
    said: Arc<Mutex<String>>,
    output: tempfile::NamedTempFile,
}

/// What a fault hit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hit {
    pub(super) call: String,
    /// Below the data directory, with `ID`, `XX` and `DIGEST` for what differs from push to push; empty if it was elsewhere.
    pub(super) path: String,
}

impl Strace {
    /// From now on the call with this number, counted from 1, meets `effect`: `signal=KILL` or `error=EIO`.
    pub(super) fn attach(gate: &Gate, calls: Calls, number: usize, effect: &str) -> Self {
        let output = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("strace");
        command.args(["-f", "-y", "-s", "0", "-p", &gate.id().to_string(), "-o"]).arg(output.path());
        command.args(["-e", &format!("trace={}", calls.names)]);
        command.args(["-e", &format!("inject={}:{effect}:when={number}", calls.names)]);
        if calls.database {
            let database = fs::canonicalize(gate.path("data")).unwrap().join("metadata.db");
            command.arg("-P").arg(&database).arg("-P").arg(database.with_extension("db-wal"));
        }
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.expect("strace is needed; tests/install.sh installs it");
        let said = follow(child.stderr.take().unwrap());
        wait_until("strace to attach", || {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "strace cannot attach: {}", said.lock().unwrap());
            said.lock().unwrap().contains(" attached")
        });
        Self { child, said, output }
    }

    /// Lets go of the gateway; what was hit: a call in one thread, and perhaps one with the same number in another. After
    /// the gateway's end strace ends by itself.
    pub(super) fn detach(mut self, gateway_ended: bool) -> Vec<Hit> {
        if !gateway_ended {
            let pid = rustix::process::Pid::from_child(&self.child);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        wait_until("strace to let go", || self.child.try_wait().unwrap().is_some());
        let text = fs::read_to_string(self.output.path()).unwrap();
        let is_hit = |line: &&String| line.contains("(INJECTED)") || (gateway_ended && line.ends_with('?'));
        let hits: Vec<_> = whole_lines(&text).iter().filter(is_hit).map(|line| Hit::parse(line)).collect();
        let said = || self.said.lock().unwrap().clone();
        assert!(
            !hits.is_empty() || !gateway_ended,
            "not what was to kill the gateway has killed it: {text}\n{}",
            said()
        );
        hits
    }
}

/// Lines of strace, in which calls that another thread interrupted are whole again.
fn whole_lines(text: &str) -> Vec<String> {
    let mut begun: HashMap<&str, &str> = HashMap::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        let (thread, rest) = line.split_once(' ').unwrap_or((line, ""));
        if let Some(beginning) = line.strip_suffix(" <unfinished ...>") {
            begun.insert(thread, beginning);
        } else if let Some((beginning, end)) = begun.remove(thread).zip(rest.split_once(" resumed>")) {
            lines.push(format!("{beginning}{}", end.1));
        } else {
            lines.push(line.to_owned());
        }
    }
    // What a kill has cut off.
    lines.extend(begun.into_values().map(|beginning| format!("{beginning} = ?")));
    lines
}

impl Drop for Strace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Hit {
    /// Reads `123 fsync(24</tmp/…/data/uploads/…>) = -1 EIO (…) (INJECTED)`.
    fn parse(line: &str) -> Self {
        let (_, rest) = line.split_once(' ').expect("a thread and a call");
        let (call, arguments) = rest.trim_start().split_once('(').expect("a call");
        let path = arguments.rsplit_once("/data/").map_or("", |(_, path)| path);
        let path = path.split(['"', '>', '<']).next().unwrap_or_default();
        let parts: Vec<String> = path.split('/').map(name).collect();
        Self { call: call.to_owned(), path: parts.join("/") }
    }
}

/// A part of a path, with what differs from push to push replaced.
fn name(part: &str) -> String {
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words = part.split('.').map(|word| match word.len() {
        2 if hex(part) => "XX",
        32 if hex(word) => "ID",
        64 if hex(word) => "DIGEST",
        _ => word,
    });
    words.collect::<Vec<_>>().join(".")
}
