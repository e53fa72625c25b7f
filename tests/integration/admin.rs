//! The operator's side: what is at its address, who may use its socket, and that it answers whatever else is going on.

use std::fs::{self, Permissions};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::support::Gate;
use crate::support::gate::{Prepared, wait_until};

/// How soon readiness is told on a machine that strace slows down.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Until a connection that ended may have made room for another.
const A_WHILE: Duration = Duration::from_millis(50);

/// Descriptors beside those that the gateway has for itself.
const LEFT_FOR_CONNECTIONS: u64 = 8;

/// The disk is tried each second.
const THREE_TRIES: Duration = Duration::from_secs(3);

/// Exit codes.
const UNAVAILABLE: i32 = 69;
const NO_PERMISSION: i32 = 77;

#[track_caller]
fn says(output: &Output, code: i32, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "{word} is not in {text}");
    }
}

#[test]
fn the_address_is_only_for_looking() {
    let gate = Gate::start("");
    let admin = gate.admin();
    for path in ["/livez", "/readyz", "/metrics"] {
        assert!(admin.head(path).expect(200).body.is_empty());
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let refused = admin.send(method, path, &[], b"").expect(405);
            assert_eq!(refused.header("allow"), Some("GET, HEAD"));
        }
    }
    for method in ["GET", "POST", "PUT", "DELETE"] {
        for path in ["/", "/cache", "/cache/pin?image=a/b", "/livez/", "/v2/"] {
            admin.send(method, path, &[], b"").expect(404);
        }
    }
}

#[test]
fn the_socket_is_there_from_the_start_to_the_stop() {
    let prepared = Gate::prepare("[admin]\naddress = \"127.0.0.1:0\"\n");
    let socket = prepared.path("data/admin.sock");
    says(&prepared.run(&["cache", "ls"]), UNAVAILABLE, &["admin.sock", "is it running?", "dockgate serve"]);
    let gate = prepared.start();
    assert_eq!(fs::metadata(&socket).unwrap().mode() & 0o777, 0o600);
    prepared.succeed(&["cache", "ls"]);
    // One that a killed gateway left is no socket to connect to, and no hindrance.
    let prepared = gate.kill();
    assert!(socket.exists());
    says(&prepared.run(&["cache", "ls"]), UNAVAILABLE, &["nobody answers", "is it running?"]);
    let gate = prepared.start();
    prepared.succeed(&["cache", "ls"]);
    assert_eq!(gate.stop(), 0);
    assert!(!socket.exists());
}

/// Runs `dockgate cache ls` as the user nobody, who may look into all directories.
fn ls_as_nobody(prepared: &Prepared) -> Output {
    assert!(rustix::process::geteuid().is_root(), "this test acts as two users: run it as root");
    for (path, mode) in [("", 0o755), ("data", 0o755), ("gateway.toml", 0o644)] {
        fs::set_permissions(prepared.path(path), Permissions::from_mode(mode)).unwrap();
    }
    // The program itself may lie where only root looks.
    let program = prepared.path("dockgate");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_dockgate"), &program).unwrap();
    }
    let inner = prepared.command(&["cache", "ls"]);
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program).args(inner.get_args());
    command.output().expect("setpriv is needed; tests/install.sh installs it (util-linux)")
}

#[test]
fn another_user_of_the_machine_is_refused() {
    let gate = Gate::start("");
    let prepared = gate.prepared();
    says(&ls_as_nobody(&prepared), NO_PERMISSION, &["admin.sock", "the user 0", "as root"]);
    // Were the mode wrong, the system still says who is calling.
    fs::set_permissions(prepared.path("data/admin.sock"), Permissions::from_mode(0o666)).unwrap();
    says(&ls_as_nobody(&prepared), NO_PERMISSION, &["only root and the system user"]);
    prepared.succeed(&["cache", "ls"]);
}

#[test]
fn a_data_directory_with_a_long_path_has_its_socket_too() {
    let data = format!("{}/data", "d".repeat(150));
    let prepared = Gate::prepare(&format!("[registry]\ndata = \"{data}\"\n"));
    let gate = prepared.start();
    prepared.succeed(&["cache", "ls"]);
    assert_eq!(gate.stop(), 0);
    assert!(!prepared.path(&data).join("admin.sock").exists());
}

/// All that the gateway has open.
fn descriptors(gate: &Gate) -> Vec<u64> {
    let open = fs::read_dir(format!("/proc/{}/fd", gate.id())).unwrap();
    open.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn health_is_told_while_there_is_not_one_descriptor_left() {
    let gate = Gate::start("");
    let highest = descriptors(&gate).into_iter().max().unwrap();
    // Connections fill what is left. It is not nothing: else the public port could not answer when they have gone.
    let limit = format!("--nofile={0}:{0}", highest + LEFT_FOR_CONNECTIONS);
    let lowered = Command::new("prlimit").args(["--pid", &gate.id().to_string(), &limit]).status();
    assert!(lowered.expect("prlimit is needed; tests/install.sh installs it (util-linux)").success());
    let mut crowd: Vec<TcpStream> = (0..highest + 50).map(|_| TcpStream::connect(gate.main).unwrap()).collect();
    gate.wait_for_log("cannot accept connections for now");
    // Longer than it takes until the disk is tried again: that no file can be opened is not the disk's fault.
    let began = Instant::now();
    while began.elapsed() < THREE_TRIES {
        // One for what may have been closed; more of them at once than the queue of the socket takes would wait for ever.
        crowd.push(TcpStream::connect(gate.main).unwrap());
        sleep(A_WHILE);
        assert_eq!(gate.admin().get("/readyz").expect(200).text(), "ready\n");
        gate.admin().get("/livez").expect(200);
    }
    gate.prepared().succeed(&["cache", "ls"]);
    drop(crowd);
    wait_until("the public port to answer again", || {
        gate.plain().try_send("GET", "/v2/", &[], b"").is_ok_and(|answer| answer.status == 401)
    });
}

/// Has a system call end otherwise than it would, until it is dropped.
struct Tampered(Child);

impl Tampered {
    /// Every read of a file ends as `effect` says.
    fn reads(gate: &Gate, effect: &str) -> Self {
        Self::calls(gate, "pread64", effect)
    }

    fn calls(gate: &Gate, call: &str, effect: &str) -> Self {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-p", &gate.id().to_string(), "-e", &format!("trace={call}")]);
        command.args(["-e", &format!("inject={call}:{effect}")]).stdin(Stdio::null());
        Self(command.spawn().expect("strace is needed; tests/install.sh installs it"))
    }
}

impl Drop for Tampered {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

/// Waits until readiness is so; what was said. Every answer comes at once.
fn readiness_becomes(gate: &Gate, status: u16) -> String {
    let mut said = String::new();
    wait_until(&format!("readiness to be {status}"), || {
        let began = Instant::now();
        let answer = gate.admin().get("/readyz");
        assert!(began.elapsed() < AT_ONCE, "it took {:?} to tell {}", began.elapsed(), answer.status);
        said = answer.text();
        answer.status == status
    });
    said
}

#[test]
fn a_file_that_cannot_be_opened_for_want_of_descriptors_was_a_broken_disk() {
    let gate = Gate::start("");
    readiness_becomes(&gate, 200);
    for error in ["EMFILE", "ENFILE"] {
        let _tampered = Tampered::calls(&gate, "openat", &format!("error={error}"));
        let began = Instant::now();
        while began.elapsed() < THREE_TRIES {
            gate.admin().get("/readyz").expect(200);
        }
    }
    let _tampered = Tampered::calls(&gate, "openat", "error=EIO");
    readiness_becomes(&gate, 503);
}

#[test]
fn a_disk_that_cannot_be_read_is_told_and_so_is_its_return() {
    let gate = Gate::start("");
    readiness_becomes(&gate, 200);
    let tampered = Tampered::reads(&gate, "error=EIO");
    let said = readiness_becomes(&gate, 503);
    assert!(said.contains("the data directory cannot be read; check its disk") && said.contains("version: "), "{said}");
    gate.wait_for_log("the data directory cannot be read");
    drop(tampered);
    readiness_becomes(&gate, 200);
    gate.wait_for_log("the data directory can be read again");
    // As if it had been unmounted.
    fs::rename(gate.path("data"), gate.path("elsewhere")).unwrap();
    readiness_becomes(&gate, 503);
    fs::rename(gate.path("elsewhere"), gate.path("data")).unwrap();
    readiness_becomes(&gate, 200);
}

#[test]
fn a_disk_that_never_answers_keeps_nobody_waiting_for_readiness() {
    let gate = Gate::start("");
    let tampered = Tampered::reads(&gate, "delay_enter=60s");
    let said = readiness_becomes(&gate, 503);
    assert!(said.contains("a read takes longer than 5s"), "{said}");
    drop(tampered);
    readiness_becomes(&gate, 200);
}
