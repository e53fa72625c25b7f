//! Upstreams behind a proxy of the environment, and upstreams that are not asked for more bytes a second than is said.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::loops::hand_on;
use super::{Mirror, OPEN, is_error, mirror_of, noise, prepare, pull};
use crate::support::V2Upstream;
use crate::support::gate::Prepared;

/// The name is nobody's: only the proxy knows where it leads.
const NAME: &str = "registry.invalid";
const VARIABLES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];

/// A proxy that leads all who come to one address, and remembers where they wanted to go.
fn proxy(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, wanted) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
    let log = Arc::clone(&wanted);
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).is_ok_and(|read| read == 1) {
                head.push(byte[0]);
            }
            let first = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
            log.lock().unwrap().push(first);
            let Ok(other) = TcpStream::connect(to) else { continue };
            if socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").is_ok() {
                hand_on(socket.try_clone().unwrap(), other.try_clone().unwrap());
                hand_on(other, socket);
            }
        }
    });
    (address, wanted)
}

/// The gateway with these variables and no other that speaks of proxies.
fn serve(prepared: &Prepared, variables: &[(&str, String)]) -> Command {
    let mut command = prepared.command(&["serve"]);
    for name in VARIABLES {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    command
}

#[test]
fn the_proxy_of_the_environment_is_used_unless_somebody_says_no() {
    let up = V2Upstream::start();
    up.image("app", "v1", b"a layer");
    let (proxy, wanted) = proxy(up.address);
    let url = format!("http://{NAME}:{}", up.address.port());
    let http = ("HTTP_PROXY", format!("http://{proxy}"));
    for (more, variables, is_used) in [
        ("", vec![http.clone()], true),
        ("proxy = false", vec![http.clone()], false),
        ("", vec![http.clone(), ("NO_PROXY", NAME.to_owned())], false),
        ("", vec![], false),
    ] {
        wanted.lock().unwrap().clear();
        let prepared = prepare(OPEN, &mirror_of(&url, more));
        let gate = prepared.start_under(&mut serve(&prepared, &variables));
        let answer = pull(gate.main, "/v2/up/app/manifests/v1", &[]).unwrap();
        let asked = wanted.lock().unwrap().clone();
        if is_used {
            answer.expect(200);
            assert!(asked[0].starts_with(&format!("CONNECT {NAME}:{} ", up.address.port())), "{asked:?}");
        } else {
            assert_eq!(answer.code(), "UNAVAILABLE", "{more} {variables:?}");
            assert!(asked.is_empty(), "{more} {variables:?}: {asked:?}");
        }
    }
}

#[test]
fn no_more_bytes_a_second_are_taken_than_is_said() {
    let mirror = Mirror::start("bytes_per_second = \"1MiB\"\nfirst_byte_timeout = \"10s\"\nidle_timeout = \"10s\"");
    let bytes = noise(1, 3 << 20);
    let (_, blob) = mirror.up.image("app", "v1", &bytes);
    let began = Instant::now();
    assert!(mirror.pull(&format!("/v2/up/app/blobs/{blob}")).expect(200).body == bytes);
    assert!(began.elapsed() > Duration::from_millis(1_500), "{:?}", began.elapsed());
    let again = Instant::now();
    assert!(mirror.pull(&format!("/v2/up/app/blobs/{blob}")).expect(200).body == bytes);
    assert!(again.elapsed() < Duration::from_secs(1), "what is here is not held: {:?}", again.elapsed());
    is_error(&mirror.pull("/v2/up/app/manifests/v9"), 404, "MANIFEST_UNKNOWN");
}
