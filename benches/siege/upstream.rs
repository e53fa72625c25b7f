//! A registry that the gateway is a mirror of. It keeps nothing: what image `img-N` is, N decides.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::Outcome;
use crate::content::{Blob, Image, MANIFEST_TYPE};
use crate::random::Random;

/// Of the file in an image's layer.
const FILE_BYTES: usize = 48 << 10;
/// No number of an image is a seed of anything else.
const SEEDS: u64 = 1 << 32;

pub fn image(number: u64) -> Image {
    Image::new(&mut Random::new(SEEDS + number), FILE_BYTES)
}

/// Answers until the set is dropped.
pub async fn start(running: &mut JoinSet<()>) -> Outcome<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    running.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                connections.spawn(async move { drop(serve(stream).await) });
            }
            while connections.try_join_next().is_some() {}
        }
    });
    Ok(address)
}

async fn serve(stream: TcpStream) -> Outcome {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await? == 0 {
                return Ok(());
            }
        }
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (status, kind, blob) = match find(path) {
            Some((kind, blob)) => ("200 OK", kind, blob),
            None if path == "/v2/" => ("200 OK", "application/json", Blob::new(b"{}".to_vec())),
            None => ("404 Not Found", "application/json", Blob::new(b"{}".to_vec())),
        };
        let (length, digest) = (blob.bytes.len(), &blob.digest);
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nDocker-Content-Digest: {digest}\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await?;
        if method != "HEAD" {
            stream.write_all(&blob.bytes).await?;
        }
        stream.flush().await?;
    }
}

fn find(path: &str) -> Option<(&'static str, Blob)> {
    let (name, rest) = path.strip_prefix("/v2/img-")?.split_once('/')?;
    let image = image(name.parse().ok()?);
    let (kind, reference) = rest.split_once('/')?;
    let blobs = [
        (MANIFEST_TYPE, image.manifest),
        ("application/octet-stream", image.configuration),
        ("application/octet-stream", image.layer),
    ];
    match kind {
        "manifests" if reference == "latest" => blobs.into_iter().next(),
        _ => blobs.into_iter().find(|(_, blob)| blob.digest == reference),
    }
}
