//! What a flood costs by itself: a process that accepts and throws away, or accepts and closes.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use clap::Args;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

use crate::Outcome;

/// Of what is thrown away, in bytes.
const BUFFER: usize = 64 << 10;

/// For the driver itself: listens, tells its port, and throws away what comes.
#[derive(Debug, Args)]
pub struct Options {
    /// Closes at once in place of reading
    #[arg(long)]
    closes: bool,
}

/// A sink that runs until it is dropped.
pub struct Sink {
    process: Child,
    pub address: SocketAddr,
}

impl Sink {
    pub fn start(closes: bool) -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("sink").args(closes.then_some("--closes"));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let output = process.stdout.take().ok_or("a sink without output")?;
        BufReader::new(output).read_line(&mut line)?;
        Ok(Self { process, address: line.trim().parse()? })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Ends with its input, which is the driver's end.
pub fn run(options: &Options) -> Outcome<bool> {
    let closes = options.closes;
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        println!("{}", listener.local_addr()?);
        std::io::stdout().flush()?;
        std::thread::spawn(|| {
            let _ = std::io::stdin().read_line(&mut String::new());
            std::process::exit(0);
        });
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            if !closes {
                tokio::spawn(throw_away(stream));
            }
        }
    })
}

async fn throw_away(mut stream: TcpStream) {
    let mut buffer = vec![0; BUFFER];
    while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
}
