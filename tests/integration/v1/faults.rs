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
    let limits = "[limits]\nbody_idle_timeout = \"300ms\"\nkeep_alive_timeout = \"300ms\"\n";
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

#[test]
fn a_push_that_breaks_off_breaks_off_at_the_registry() {
    let upstream = V1Upstream::start(|_| reply(200, &[], b"true"));
    let gate = start(&[upstream.address]);
    let (_, authorization) = basic("dev", "dev");
    for framing in ["Content-Length: 100\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let request =
            format!("PUT /v1/images/{IMAGE}/layer HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\n{framing}");
        for client in [gate.plain(), gate.tls()] {
            let before = upstream.heads();
            let mut stream = client.connect();
            stream.write_all(request.as_bytes()).unwrap();
            stream.flush().unwrap();
            wait_until("the registry to be asked", || upstream.heads() > before);
            drop(stream);
            wait_until("the registry to see the end", || upstream.asked().len() > before);
            let layer = upstream.asked().pop().unwrap();
            assert!(!layer.whole, "{framing}: {layer:?}");
        }
    }
}

/// What the gateway asks or reads itself must not hang, and must not be taken for whole when it is half.
#[test]
fn a_registry_that_answers_half_or_not_at_all_is_told() {
    let half =
        |length: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n[\"{IMAGE}\"");
    let upstream = V1Upstream::start(move |asked| match asked.target.as_str() {
        "/v1/_ping" => reply(200, &[], b"{}"),
        target if target.ends_with("/tags/silent") => {
            std::thread::sleep(std::time::Duration::from_secs(3));
            Vec::new()
        }
        target if target.ends_with("/tags/closed") => Vec::from(*b"Connection: close\r\n"),
        target if target.ends_with("/tags/odd") => reply(200, &[], b"\n<html>"),
        target if target.ends_with("/tags/strange") => reply(200, &[], b"nothing that is known"),
        target if target.ends_with("/tags/refused") => reply(401, &[("WWW-Authenticate", "Token")], b"{}"),
        _ => half(1000).into_bytes(),
    });
    let rules = "[[access]]\nwho = [\"user:team\"]\nrepositories = [\"team/**\"]\nactions = [\"*\"]\n";
    let file = "first_byte_timeout = \"1s\"\nidle_timeout = \"1s\"\nretries = 0";
    let gate = prepare(rules, &[upstream.address], &format!("{QUICK_HEALTH}\n{file}")).start();
    let team = gate.plain().user("team", "team");
    let tags = |tag: &str| team.get(&format!("/v1/repositories/team/app/tags/{tag}"));
    v1_error(tags("silent"), 504);
    v1_error(tags("closed"), 502);
    // Who may not be let in is the gateway, not the caller: they must not be asked for a password again and again.
    let refused = tags("refused");
    assert_eq!(refused.header("www-authenticate"), None);
    v1_error(refused, 502);
    v1_error(tags("odd"), 502);
    let strange = tags("strange").expect(200).text();
    assert_eq!(strange, "nothing that is known", "it teaches nothing, and passes as it is");
    for path in ["/v1/repositories/team/app/tags", "/v1/repositories/team/app/images"] {
        let message = v1_error(team.get(path), 502);
        assert!(message.contains("try again later"), "{message}");
    }
    // Nothing of it was believed.
    v1_error(team.get(&format!("/v1/images/{IMAGE}/json")), 404);
    // What is asked before a push is allowed, too.
    let list = format!("[{{\"id\":\"{IMAGE}\"}}]");
    let put = team.send("PUT", "/v1/repositories/team/app/", &[], list.as_bytes());
    v1_error(put, 502);
    team.get("/v1/_ping").expect(200);
    team.get("/v1/users/").expect(200);
}

/// A push to a registry that stopped thinking: each of its steps says so, and none of them stays in the way of the others.
#[test]
fn a_registry_that_hangs_in_a_push_is_told() {
    let is_whole = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let whole = std::sync::Arc::clone(&is_whole);
    let upstream = V1Upstream::start(move |asked| {
        let hangs = |target: &str| target.contains("hang") || target.starts_with("/v1/images/ffffffffffffffff/");
        match (asked.method.as_str(), asked.target.as_str()) {
            ("PUT", target) if hangs(target) || target.ends_with("/layer") || target.ends_with("/checksum") => {
                std::thread::sleep(std::time::Duration::from_secs(2));
                Vec::new()
            }
            ("GET", target) if target.starts_with("/v1/search") => {
                std::thread::sleep(std::time::Duration::from_secs(2));
                Vec::new()
            }
            ("GET", target) if target.ends_with("/json") && !whole.load(std::sync::atomic::Ordering::Acquire) => {
                reply(404, &[], b"{}")
            }
            _ => reply(200, &[], b"{}"),
        }
    });
    let file = "first_byte_timeout = \"1s\"\nretries = 0";
    let gate = prepare(RULES, &[upstream.address], &format!("{QUICK_HEALTH}\n{file}")).start();
    let dev = dev(&gate);
    let (begun, never) = ("0123456789abcdef", "ffffffffffffffff");
    let list = format!("[{{\"id\":\"{begun}\"}},{{\"id\":\"{never}\"}}]");
    dev.send("PUT", "/v1/repositories/team/app/", &[], list.as_bytes()).expect(200);
    let json =
        |id: &str| dev.send("PUT", &format!("/v1/images/{id}/json"), &[], format!("{{\"id\":\"{id}\"}}").as_bytes());
    v1_error(json(never), 504);
    json(begun).expect(200);
    for word in ["layer", "checksum"] {
        v1_error(dev.send("PUT", &format!("/v1/images/{begun}/{word}"), &[], b"x"), 504);
    }
    is_whole.store(true, std::sync::atomic::Ordering::Release);
    let tag = |tag: &str| {
        dev.send("PUT", &format!("/v1/repositories/team/app/tags/{tag}"), &[], format!("\"{begun}\"").as_bytes())
    };
    v1_error(tag("hang"), 504);
    tag("goes-on").expect(200);
    v1_error(dev.get("/v1/search?q=app"), 504);
}

/// Root with the token of a push.
fn pushing(gate: &super::super::support::Gate, repository: &str) -> Client {
    let root = gate.plain().user("root", "root");
    let answer = root.send("PUT", &format!("/v1/repositories/{repository}/"), &[], b"[]").expect(200);
    gate.plain().with("Authorization", &format!("Token {}", answer.header("x-docker-token").unwrap()))
}

/// Old clients print what comes after `error`, so each of these says in these words what is wrong.
#[test]
fn names_and_ids_that_are_none_are_told_as_old_clients_print_it() {
    let upstream = V1Upstream::echo();
    let gate = start(&[upstream.address]);
    let root = gate.plain().user("root", "root");
    let (short, long) = ("0123456789abcdef", IMAGE);
    let pushing = pushing(&gate, "a/b");
    for id in [short, long] {
        root.get(&format!("/v1/images/{id}/json")).expect(200);
    }
    let upper = IMAGE.to_uppercase();
    for id in
        [upper.as_str(), "0123456789abcde", &format!("{short}0"), &format!("{long}0"), "g123456789abcdef", "latest"]
    {
        for (method, path) in [
            ("GET", format!("/v1/images/{id}/json")),
            ("PUT", format!("/v1/images/{id}/layer")),
            ("GET", format!("/v1/repositories/a/b/layer/{id}/access")),
        ] {
            assert!(v1_error(root.send(method, &path, &[], b""), 400).contains("16 or 64"), "{path}");
        }
        for (path, body) in [
            ("/v1/repositories/a/b/", format!("[{{\"id\":\"{id}\"}}]")),
            ("/v1/repositories/a/b/images", format!("[{{\"id\":\"{id}\"}}]")),
            ("/v1/repositories/a/b/tags/x", format!("\"{id}\"")),
            ("/v1/images/0123456789abcdef/json", format!("{{\"id\":\"0123456789abcdef\",\"parent\":\"{id}\"}}")),
        ] {
            let client = if path.starts_with("/v1/images/") { &pushing } else { &root };
            assert!(
                v1_error(client.send("PUT", path, &[], body.as_bytes()), 400).contains("16 or 64"),
                "{path} {body}"
            );
        }
    }
    for path in [
        "/v1/images/../repositories/a/b/json",
        "/v1/images/%2e%2e/json",
        "/v1/images/..%2f..%2fetc/layer",
        "/v1/repositories/../../etc/tags",
        "/v1/repositories/a/b/tags/..",
        "/v1/repositories/a/b/tags/%2e%2e%2fx",
    ] {
        v1_error(root.get(path), 400);
    }
    for name in ["a/b/c", "a/b/c/d", "docker.io/library/alpine"] {
        for (method, rest) in [("PUT", "/"), ("GET", "/images"), ("GET", "/tags"), ("PUT", "/tags/1"), ("DELETE", "/")]
        {
            let message = v1_error(root.send(method, &format!("/v1/repositories/{name}{rest}"), &[], b"[]"), 400);
            assert!(message.contains("one or two parts") && message.contains("1.10"), "{message}");
        }
    }
    for name in ["UPPER/app", "team/app-", "team/a..b", ".team/app"] {
        v1_error(root.get(&format!("/v1/repositories/{name}/tags")), 400);
    }
    let asked = upstream.asked();
    assert_eq!(asked.len(), 3, "{asked:?}");
}

#[test]
fn bodies_that_are_read_have_an_end() {
    let upstream = V1Upstream::echo();
    let rules = format!("{RULES}\n[limits]\nmanifest_bytes = \"64KiB\"\n");
    let gate = prepare(&rules, &[upstream.address], "").start();
    let root = gate.plain().user("root", "root");
    let large = format!("[{}]", vec![format!("{{\"id\":\"{IMAGE}\"}}"); 2_000].join(","));
    let pushing = pushing(&gate, "a/b");
    for (client, path) in [
        (&root, "/v1/repositories/a/b/"),
        (&root, "/v1/repositories/a/b/tags/x"),
        (&pushing, &format!("/v1/images/{IMAGE}/json")),
    ] {
        assert!(v1_error(client.send("PUT", path, &[], large.as_bytes()), 413).contains("limits.manifest_bytes"));
    }
    assert_eq!(upstream.asked().len(), 1);
    // A layer has none.
    root.send("PUT", &format!("/v1/images/{IMAGE}/layer"), &[], large.as_bytes()).expect(200);
}

/// A list is read into memory, so only as much of it as is named; what is longer passes by.
#[test]
fn an_answer_that_is_too_long_to_learn_from_passes_by() {
    let tags = format!("{{\"1.0\":\"{IMAGE}\",\"padding\":\"{}\"}}", "x".repeat(9 << 20));
    let answer = tags.clone();
    let upstream = V1Upstream::start(move |asked| match asked.target.as_str() {
        "/v1/_ping" => reply(200, &[], b"{}"),
        _ => reply(200, &[], answer.as_bytes()),
    });
    let rules = "[[access]]\nwho = [\"user:team\"]\nrepositories = [\"team/**\"]\nactions = [\"pull\"]\n";
    let gate = prepare(rules, &[upstream.address], "").start();
    let team = gate.plain().user("team", "team");
    assert_eq!(team.get("/v1/repositories/team/app/tags").expect(200).text(), tags);
    v1_error(team.get(&format!("/v1/images/{IMAGE}/json")), 404);
    gate.wait_for_log("too long to learn from");
}
