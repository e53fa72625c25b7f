//! The servers that are compared, each a child process in a directory of its own.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Outcome;
use crate::process::Process;

/// How long a server may take to answer its first request.
const START: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    Dockgate,
    /// docker-registry with `proxy.remoteurl`.
    Registry,
    /// `proxy_cache` with `cache_lock on`.
    Nginx,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dockgate => "dockgate",
            Self::Registry => "docker-registry",
            Self::Nginx => "nginx",
        }
    }

    /// How a repository of the upstream is named here.
    pub fn repository(self, name: &str) -> String {
        match self {
            Self::Dockgate => format!("up/{name}"),
            Self::Registry | Self::Nginx => name.into(),
        }
    }
}

/// The sizes of dockgate's tiers, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Tiers {
    pub memory: u64,
    pub memory_object_max: u64,
    pub disk: u64,
}

/// dockgate's defaults.
impl Default for Tiers {
    fn default() -> Self {
        Self { memory: 256 << 20, memory_object_max: 16 << 20, disk: 20 << 30 }
    }
}

/// A server with a directory, running or not.
pub struct Server {
    /// Before the directory: it ends before that is removed.
    process: Option<Process>,
    pub kind: Kind,
    directory: TempDir,
    pub address: SocketAddr,
    admin: SocketAddr,
    program: PathBuf,
}

impl Server {
    /// Writes the configuration of a server with nothing cached.
    pub fn prepare(kind: Kind, program: &Path, upstream: SocketAddr, tiers: &Tiers) -> Outcome<Self> {
        let directory = tempfile::Builder::new().prefix("dockgate-mirror.").tempdir()?;
        let [address, admin] = [free_address()?, free_address()?];
        let program = match kind {
            Kind::Dockgate => program.into(),
            other => other.name().into(),
        };
        let server = Self { process: None, kind, directory, address, admin, program };
        let place = server.directory.path();
        match kind {
            Kind::Dockgate => {
                fs::create_dir(place.join("upstreams"))?;
                fs::write(place.join("gateway.toml"), gateway_toml(address, admin, tiers))?;
                fs::write(place.join("upstreams/up.toml"), up_toml(upstream))?;
            }
            Kind::Registry => fs::write(place.join("config.yml"), registry_yml(address, upstream, place))?,
            Kind::Nginx => fs::write(place.join("nginx.conf"), nginx_conf(address, upstream, place))?,
        }
        Ok(server)
    }

    /// Starts it and waits until it answers. The error says why it does not.
    pub async fn start(&mut self) -> Outcome {
        let place = self.directory.path();
        let log = File::options().create(true).append(true).open(place.join("log"))?;
        let mut command = Command::new(&self.program);
        match self.kind {
            Kind::Dockgate => command.args(["serve", "--config"]).arg(place.join("gateway.toml")),
            Kind::Registry => command.arg("serve").arg(place.join("config.yml")),
            Kind::Nginx => command.arg("-p").arg(place).arg("-c").arg(place.join("nginx.conf")),
        };
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = Process::spawn(command).map_err(|error| format!("{}: {error}", self.program.display()))?;
        self.process = Some(process);
        let until = Instant::now() + START;
        while Instant::now() < until {
            if self.process.as_mut().is_some_and(Process::has_ended) {
                return Err(format!("it ended at once:\n{}", self.log_end()).into());
            }
            if self.get("/v2/").await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(format!("it did not answer within {} s:\n{}", START.as_secs(), self.log_end()).into())
    }

    pub async fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            process.stop().await;
        }
    }

    pub const fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The metrics, of dockgate only.
    pub async fn metrics(&self) -> Outcome<String> {
        get(self.admin, "/metrics").await
    }

    async fn get(&self, path: &str) -> Outcome<String> {
        get(self.address, path).await
    }

    /// Makes the next read of what was cached come from the disk.
    pub fn drop_page_cache(&self) -> Outcome {
        let mut folders = vec![self.directory.path().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if kind.is_file() {
                    let file = File::open(entry.path())?;
                    file.sync_all()?;
                    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
                }
            }
        }
        Ok(())
    }

    /// The end of what it printed.
    pub fn log_end(&self) -> String {
        let log = fs::read(self.directory.path().join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(8)..];
        last.iter().map(|line| format!("    {line}\n")).collect()
    }
}

fn free_address() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

async fn get(address: SocketAddr, path: &str) -> Outcome<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Outcome::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = tokio::time::timeout(Duration::from_secs(5), exchange).await??;
    if answer.starts_with("HTTP/1.1 ") { Ok(answer) } else { Err("no HTTP answer".into()) }
}

fn gateway_toml(address: SocketAddr, admin: SocketAddr, tiers: &Tiers) -> String {
    let Tiers { memory, memory_object_max, disk } = tiers;
    format!(
        r#"[listen.main]
address = "{address}"
protocol = "plain"
[cache]
path = "cache"
disk = "{disk}"
memory = "{memory}"
memory_object_max = "{memory_object_max}"
[admin]
address = "{admin}"
[[access]]
who = ["anyone"]
repositories = ["**"]
actions = ["pull", "push"]
[log]
access = false
"#
    )
}

fn up_toml(upstream: SocketAddr) -> String {
    format!(
        r#"kind = "mirror"
url = "http://{upstream}"
prefix = "up"
concurrency = 16
"#
    )
}

fn registry_yml(address: SocketAddr, upstream: SocketAddr, place: &Path) -> String {
    format!(
        "version: 0.1
log:
  level: error
  accesslog: {{ disabled: true }}
storage:
  filesystem: {{ rootdirectory: '{}/registry' }}
  cache: {{ blobdescriptor: inmemory }}
http:
  addr: '{address}'
proxy:
  remoteurl: 'http://{upstream}'
",
        place.display()
    )
}

/// Without `user`, workers that root starts are nobody's and may not write here.
fn nginx_conf(address: SocketAddr, upstream: SocketAddr, place: &Path) -> String {
    let user = if rustix::process::getuid().is_root() { "user root;" } else { "" };
    let place = place.display();
    format!(
        "{user}
daemon off;
pid {place}/nginx.pid;
error_log {place}/log error;
worker_processes auto;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000;
  client_body_temp_path {place}/body;
  proxy_temp_path {place}/proxy;
  fastcgi_temp_path {place}/fastcgi;
  uwsgi_temp_path {place}/uwsgi;
  scgi_temp_path {place}/scgi;
  proxy_cache_path {place}/cache levels=1:2 keys_zone=blobs:32m max_size=20g inactive=7d use_temp_path=off;
  upstream registry {{ server {upstream}; keepalive 64; }}
  server {{
    listen {address} backlog=4096;
    location / {{
      proxy_pass http://registry;
      proxy_http_version 1.1;
      proxy_set_header Connection '';
      proxy_cache blobs;
      proxy_cache_key $uri;
      proxy_cache_valid 200 7d;
      proxy_cache_lock on;
      proxy_cache_lock_timeout 1h;
      proxy_cache_lock_age 1h;
      proxy_read_timeout 1h;
    }}
  }}
}}
"
    )
}
