//! The gateway under siege: a child process in a directory of its own.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::Outcome;
use crate::client::Way;
use crate::content::{Content, IMAGE, LARGE, push_blob};

/// How long it may take to answer its first request.
const START: Duration = Duration::from_secs(20);
/// What it is started with.
const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// How it is set up.
#[derive(Debug, Default)]
pub struct Setup {
    /// The soft limit of descriptors; the hard one stays as it is. `None`: the hard one.
    pub descriptors: Option<u32>,
    /// The file of users.
    pub users: String,
    /// Lines of `[limits]`.
    pub limits: String,
    /// The registry that `up/…` is a mirror of.
    pub upstream: Option<SocketAddr>,
}

pub struct Gateway {
    process: Child,
    directory: TempDir,
    pub address: SocketAddr,
    pub admin: SocketAddr,
}

/// Of resident memory, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    pub now: u64,
    /// The most since the peak was forgotten.
    pub peak: u64,
}

impl Gateway {
    /// Starts it, waits until it answers, and fills it. The error says why it does not.
    pub async fn start(program: &Path, setup: &Setup, content: &Content) -> Outcome<Self> {
        let directory = tempfile::Builder::new().prefix("dockgate-siege.").tempdir()?;
        let place = directory.path();
        let [address, admin] = [free_address()?, free_address()?];
        fs::create_dir(place.join("upstreams"))?;
        fs::write(place.join("gateway.toml"), configuration(address, admin, setup))?;
        fs::write(place.join("htpasswd"), &setup.users)?;
        if let Some(upstream) = setup.upstream {
            let text = format!("kind = \"mirror\"\nurl = \"http://{upstream}\"\nprefix = \"up\"\n");
            fs::write(place.join("upstreams/up.toml"), text)?;
        }
        let log = File::create(place.join("log"))?;
        let limit = setup.descriptors.map_or_else(|| "$(ulimit -Hn)".to_owned(), |number| number.to_string());
        let process = Command::new("sh")
            .args(["-c", &format!(r#"ulimit -Sn {limit} && exec "$0" serve --config gateway.toml"#)])
            .arg(program)
            .current_dir(place)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let mut gateway = Self { process, directory, address, admin };
        gateway.answers().await?;
        let way = gateway.way(HERE);
        content.image.push(way, IMAGE, "latest").await?;
        push_blob(way, LARGE, &content.large).await?;
        Ok(gateway)
    }

    async fn answers(&mut self) -> Outcome {
        let until = Instant::now() + START;
        while Instant::now() < until {
            if self.has_ended() {
                return Err(format!("the gateway ended at once:\n{}", self.log_end()).into());
            }
            if self.way(HERE).ask("GET", "/v2/", "", b"").await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(format!("the gateway did not answer within {} s:\n{}", START.as_secs(), self.log_end()).into())
    }

    pub const fn way(&self, from: Ipv4Addr) -> Way {
        Way { from, to: self.address }
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.process.try_wait(), Ok(None))
    }

    pub fn memory(&self) -> Memory {
        let status = fs::read_to_string(self.proc("status")).unwrap_or_default();
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() << 10
        };
        Memory { now: value("VmRSS:"), peak: value("VmHWM:") }
    }

    /// From now on the peak counts anew. 5: see `clear_refs` in proc_pid_clear_refs(5).
    pub fn forget_peak(&self) -> Outcome {
        Ok(fs::write(self.proc("clear_refs"), "5")?)
    }

    fn proc(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.process.id().unwrap_or_default().to_string()).join(file)
    }

    /// The end of what it printed.
    pub fn log_end(&self) -> String {
        let log = fs::read(self.directory.path().join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].iter().map(|line| format!("    {line}\n")).collect()
    }
}

fn free_address() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind((HERE, 0))?.local_addr()?)
}

fn configuration(address: SocketAddr, admin: SocketAddr, setup: &Setup) -> String {
    let limits = &setup.limits;
    format!(
        r#"[listen.main]
address = "{address}"
[cache]
memory = "8MiB"
disk = "256MiB"
[admin]
address = "{admin}"
[[access]]
who = ["anyone"]
repositories = ["**"]
actions = ["pull", "push"]
[log]
access = false
[limits]
{limits}
"#
    )
}
