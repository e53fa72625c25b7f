//! The v1 registry is down, slow, or breaks off.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::mpsc;

use super::super::support::gate::wait_until;
use super::super::support::v1_upstream::{V1Upstream, nobody, reply};
use super::super::support::{Answer, Client, content};
use super::wire::{IMAGE, QUICK_HEALTH, dev, start, v1_error};
use super::{RULES, basic, healthy, prepare};

#[test]
fn a_registry_that_is_down_is_told_and_found_again() {
    let gate = start(&[nobody()]);
    let addresses = std::fs::read_to_string(gate.path("upstreams/legacy-v1.toml")).unwrap();
    let address: SocketAddr = addresses.split("http://").nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
    assert_eq!(gate.admin().get("/readyz").status, 200, "what else there is goes on");
    for client in [dev(&gate), gate.plain()] {
        client.get("/v1/_ping").expect(200);
        let message = v1_error(client.get("/v1/repositories/public/app/tags"), 503);
        assert!(message.contains("upstreams/legacy-v1.toml"), "{message}");
        assert!(!message.contains(&address.port().to_string()), "callers need not know where it is: {message}");
    }
    v1_error(dev(&gate).send("PUT", "/v1/repositories/team/app/", &[], b"[]"), 503);
    assert!(gate.log.lock().unwrap().contains(&address.to_string()), "the operator must");
    content::push_image(&dev(&gate), "team/app", "v2");
    wait_until("the metrics to tell", || healthy(&gate) == 0);

    let _upstream = V1Upstream::start_at(address, |_| reply(200, &[], b"true"));
    wait_until("the registry to be found", || healthy(&gate) == 1);
    dev(&gate).get("/v1/repositories/public/app/tags").expect(200);
}

#[test]
fn of_two_registries_one_is_enough() {
    let alive = V1Upstream::start(|_| reply(200, &[], b"true"));
    let other = V1Upstream::start(|_| reply(200, &[], b"true"));
    let gate = start(&[nobody(), alive.address, other.address]);
    wait_until("the metrics to tell", || healthy(&gate) == 2);
    let (dev, push) =
        (dev(&gate), |client: &Client| client.send("PUT", "/v1/repositories/team/app/", &[], b"[]").expect(200));
    (0..8).for_each(|_| drop(push(&dev)));
    assert!(!other.asked().is_empty() && !alive.asked().is_empty(), "both are asked");
    drop(other);
    // Before any check has found out, and after.
    (0..8).for_each(|_| drop(push(&dev)));
    wait_until("the metrics to tell", || healthy(&gate) == 1);
    (0..8).for_each(|_| drop(push(&dev)));
}

/// v1 registries think long: what limits slow clients must not limit them.
#[test]
fn a_registry_may_think_longer_than_a_client_may_be_silent() {
    let (begun, began) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let (begun, released) = (std::sync::Mutex::new(begun), std::sync::Mutex::new(released));
    let upstream = V1Upstream::start(move |asked| {
        if !asked.target.ends_with("/_ping") {
            begun.lock().unwrap().send(()).unwrap();
            released.lock().unwrap().recv().unwrap();
        }
        reply(200, &[], b"true")
    });
    let limits =
        "[limits]\nbody_idle_timeout = \"300ms\"\nheader_read_timeout = \"300ms\"\nkeep_alive_timeout = \"300ms\"\n";
    let gate = prepare(&format!("{RULES}\n{limits}"), &[upstream.address], QUICK_HEALTH).start();
    let (client, path) = (dev(&gate), format!("/v1/images/{IMAGE}/layer"));
    let thinking = std::thread::spawn(move || client.send("PUT", &path, &[], b"layer"));
    began.recv().unwrap();
    // A client that is silent for as long is cut off meanwhile, twice in a row.
    for _ in 0..2 {
        let location = content::begin(&dev(&gate), "team/app");
        let authorization = basic("dev", "dev").1;
        let head = format!(
            "PATCH {location} HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\nContent-Length: 9\r\n\r\nabc"
        );
        gate.tls().raw(head.as_bytes(), "PATCH").expect(408);
    }
    release.send(()).unwrap();
    thinking.join().unwrap().expect(200);
}

#[test]
fn an_answer_that_breaks_off_breaks_off_at_the_client() {
    for head in ["Content-Length: 100\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let answer = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{head}");
        let upstream = V1Upstream::start(move |asked| match asked.target.as_str() {
            "/v1/_ping" => reply(200, &[], b"true"),
            _ => answer.clone().into_bytes(),
        });
        let gate = start(&[upstream.address]);
        let (_, authorization) = basic("dev", "dev");
        let request = format!(
            "GET /v1/images/{IMAGE}/layer HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: {authorization}\r\n\r\n"
        );
        for client in [gate.plain(), gate.tls()] {
            let mut stream = client.connect();
            stream.write_all(request.as_bytes()).unwrap();
            Answer::read(&mut *stream, "GET").expect_err("the end must not look clean");
        }
        gate.wait_for_log("complete=false");
    }
}
