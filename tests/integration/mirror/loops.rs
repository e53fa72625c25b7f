//! An upstream that leads back to the gateway.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, OnceLock};

use super::{OPEN, is_error, mirror_of, prepare, pull};
use crate::support::V2Upstream;
use crate::support::content::{digest, push_image};

/// Another address of the gateway, as a load balancer before it has: whatever comes is handed on.
fn second_address(gateway: Arc<OnceLock<SocketAddr>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let Some(Ok(other)) = gateway.get().map(TcpStream::connect) else { return };
            hand_on(socket.try_clone().unwrap(), other.try_clone().unwrap());
            hand_on(other, socket);
        }
    });
    address
}

/// Whatever comes from one goes to the other.
pub(super) fn hand_on(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
}

#[test]
fn a_request_of_ours_that_comes_back_is_told() {
    let (up, gateway) = (V2Upstream::start(), Arc::new(OnceLock::new()));
    let (image, _) = up.image("app", "v1", b"a layer");
    let loops = format!("http://{}", second_address(Arc::clone(&gateway)));
    let prepared = prepare(OPEN, &mirror_of(&up.url(), ""));
    // Asked for ROUND/round/x it asks itself for round/x, and that is its own.
    prepared.write("upstreams/round.toml", &mirror_of(&loops, ""));
    let gate = prepared.start();
    gateway.set(gate.main).unwrap();
    for path in ["/v2/round/round/app/manifests/v1".to_owned(), format!("/v2/round/round/app/blobs/{image}")] {
        let answer = pull(gate.main, &path, &[]).unwrap();
        is_error(&answer, 508, "UNSUPPORTED");
        let message = answer.message();
        for words in ["leads back to", "url", "upstreams/"] {
            assert!(message.contains(words), "{words} is not in {message}");
        }
    }
    gate.wait_for_log("an upstream leads back to it; mend its url in upstreams/");
    // All else goes on.
    assert_eq!(digest(&pull(gate.main, "/v2/up/app/manifests/v1", &[]).unwrap().expect(200).body), image);
    push_image(&gate.plain(), "app", "v1");
    gate.plain().get("/v2/app/manifests/v1").expect(200);
}

#[test]
fn an_address_of_ours_is_a_mistake_that_is_told_at_the_start() {
    let address = crate::support::v1_upstream::nobody();
    for url in [format!("http://{address}"), format!("http://localhost:{}", address.port())] {
        let prepared = prepare(&format!("{OPEN}[listen.main]\naddress = \"{address}\"\n"), &mirror_of(&url, ""));
        let (code, text) = prepared.fail(&["check"]);
        assert_eq!(code, 78, "{text}");
        for words in ["upstreams/up.toml", "is this gateway itself", "name another registry"] {
            assert!(text.contains(words), "{words} is not in {text}");
        }
        let gate = prepared.start();
        gate.wait_for_log("is this gateway itself");
        is_error(&pull(gate.main, "/v2/up/app/manifests/v1", &[]).unwrap(), 503, "UNAVAILABLE");
    }
}
