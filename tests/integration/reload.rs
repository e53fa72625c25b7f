//! Changes while the gateway runs.

use super::support::gate::{ADA, wait_until};
use super::support::{Answer, Gate, content};

#[test]
fn users_are_in_force_within_a_second() {
    let gate = Gate::start("");
    let add =
        gate.prepared().command(&["user", "add", "eve", "--password-stdin"]).stdin(password("first")).output().unwrap();
    assert!(add.status.success(), "{}", String::from_utf8_lossy(&add.stderr));
    let began = std::time::Instant::now();
    wait_until("eve to be let in", || gate.tls().user("eve", "first").get("/v2/").status == 200);
    assert!(began.elapsed().as_millis() < 2_000, "{:?}", began.elapsed());
    assert!(gate.prepared().run(&["user", "remove", "eve"]).status.success());
    wait_until("eve to be out", || gate.tls().user("eve", "first").get("/v2/").status == 401);
}

fn password(text: &str) -> std::process::Stdio {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    std::fs::File::open(file.path()).unwrap().into()
}

#[test]
fn a_bad_line_kept_everybody_out() {
    let prepared = Gate::prepare("");
    let ada2 = ADA.replace("ada:", "ada2:");
    prepared.write("htpasswd", &format!("{ADA}\nmallory:plain\n{ada2}\n:empty\n"));
    let gate = prepared.start();
    let asked = |user: &str, password: &str| gate.tls().user(user, password).get("/v2/");
    for problem in ["htpasswd:2: user \\\"mallory", "htpasswd:4: user \\\"\\\": "] {
        gate.wait_for_log(problem);
    }
    let log = gate.log.lock().unwrap().clone();
    assert!(log.lines().any(|line| line.contains("WARN") && line.contains("htpasswd:2")), "{log}");
    asked("ada", "ada").expect(200);
    asked("ada2", "ada").expect(200);
    // Who is out fails as everybody does whose password is wrong.
    let (wrong, out) = (asked("nobody", "ada"), asked("mallory", "plain"));
    let words = |answer: &Answer| answer.message().split(" (request").next().unwrap().to_owned();
    assert_eq!((out.status, words(&out)), (401, words(&wrong)));
    // A new line for a name beside its old one: neither holds, and both are told.
    prepared.write("htpasswd", &format!("{ADA}\n{ada2}\nada:$apr1$x$y\n"));
    gate.wait_for_log("htpasswd:1: user");
    gate.wait_for_log("htpasswd:3: user");
    assert_eq!(asked("ada", "ada").status, 401, "the old password lived on");
    asked("ada2", "ada").expect(200);
    prepared.write("htpasswd", &format!("{ADA}\n{ada2}\n"));
    wait_until("ada to be let in", || asked("ada", "ada").status == 200);
}

#[test]
fn an_unreadable_htpasswd_is_reported_and_the_old_one_goes_on() {
    let prepared = Gate::prepare("");
    prepared.write("htpasswd", &format!("{ADA}\n"));
    let gate = prepared.start();
    gate.tls().user("ada", "ada").get("/v2/").expect(200);
    std::fs::remove_file(gate.path("htpasswd")).unwrap();
    std::fs::create_dir(gate.path("htpasswd")).unwrap();
    gate.wait_for_log("htpasswd: not a file");
    gate.tls().user("ada", "ada").get("/v2/").expect(200);
}

#[test]
fn rules_are_read_again_on_sighup_and_when_the_file_changes() {
    let rules =
        |actions: &str| format!("[[access]]\nwho = [\"anyone\"]\nrepositories = [\"**\"]\nactions = [{actions}]\n");
    let prepared = Gate::prepare(&rules("\"*\""));
    let gate = prepared.start();
    content::push_image(&gate.tls(), "app", "v1");
    prepared.configure(&rules("\"pull\""));
    gate.signal("HUP");
    wait_until("pushes to be refused", || gate.tls().send("POST", "/v2/app/blobs/uploads/", &[], b"").status == 401);
    prepared.configure(&rules("\"*\""));
    wait_until("pushes to be taken", || gate.tls().send("POST", "/v2/app/blobs/uploads/", &[], b"").status == 202);
}

#[test]
fn a_bad_configuration_is_reported_and_the_old_one_goes_on() {
    let prepared = Gate::prepare("");
    let gate = prepared.start();
    prepared.write("gateway.toml", "[listen.main]\nadress = \"127.0.0.1:0\"\n");
    gate.signal("HUP");
    gate.wait_for_log("did you mean");
    gate.root().get("/v2/").expect(200);
}

#[test]
fn a_certificate_is_replaced_without_dropping_a_connection() {
    use std::io::{Read, Write};
    let prepared = Gate::prepare("");
    let gate = prepared.start();
    let old_ca = prepared.path("old-ca.crt");
    std::fs::copy(prepared.path("certs/ca.crt"), &old_ca).unwrap();
    let mut stream = gate.tls().connect();
    let mut ask = || {
        stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        // The rest of the answer is read up to the end of its body.
        let mut rest = Vec::new();
        let mut byte = [0];
        while !rest.ends_with(b"}]}") {
            stream.read_exact(&mut byte).unwrap();
            rest.push(byte[0]);
        }
        answer
    };
    assert_eq!(&ask(), b"HTTP/1.1 401");
    for file in ["ca.crt", "ca.key", "server.crt", "server.key"] {
        std::fs::remove_file(prepared.path("certs").join(file)).unwrap();
    }
    // Unless the gateway looked just now, and made new ones by itself.
    let made = prepared.run(&["cert", "init"]);
    assert!(made.status.success() || prepared.path("certs/server.crt").exists(), "{made:?}");
    gate.signal("HUP");
    wait_until("the new certificate", || {
        let client = gate.tls();
        std::panic::catch_unwind(move || client.get("/v2/").status).is_ok_and(|status| status == 401)
    });
    assert_eq!(&ask(), b"HTTP/1.1 401", "the old connection goes on");
    let old = super::support::Client::tls(gate.main, &old_ca);
    assert!(std::panic::catch_unwind(move || old.get("/v2/")).is_err(), "the old CA is not good any more");
}

#[test]
fn sigterm_lets_running_requests_finish() {
    use std::io::Write;
    let gate = Gate::start("");
    let location = content::begin(&gate.root(), "app");
    let password = std::fs::read_to_string(gate.path("data/initial-password")).unwrap();
    let basic = {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(format!("admin:{}", password.trim()))
    };
    let bytes = b"0123456789";
    let digest = content::digest(bytes);
    let mut stream = gate.tls().connect();
    let head = format!(
        "PUT {location}?digest={digest} HTTP/1.1\r\nHost: a\r\nAuthorization: Basic {basic}\r\nContent-Length: 10\r\n\r\n01234"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.flush().unwrap();
    // The request has arrived once the upload is busy.
    wait_until("the upload to be busy", || gate.root().get(&location).status == 409);
    gate.signal("TERM");
    wait_until("readiness to be false", || gate.admin().get("/readyz").status == 503);
    stream.write_all(b"56789").unwrap();
    let answer = super::support::Answer::read(&mut stream, "PUT").unwrap();
    assert_eq!(answer.status, 201);
    let mut gate = gate;
    assert_eq!(gate.wait(), 0);
}

/// Upstreams take a restart anyway, so nothing has to wait for them.
#[test]
fn a_mistake_in_the_file_of_an_upstream_kept_a_rule_in_force() {
    let rules =
        |actions: &str| format!("[[access]]\nwho = [\"anyone\"]\nrepositories = [\"**\"]\nactions = [{actions}]\n");
    let prepared = Gate::prepare(&rules("\"*\""));
    prepared.write("upstreams/hub.toml", "kind = \"mirror\"\nurl = \"http://127.0.0.1:1\"\nprefix = \"docker.io\"\n");
    let gate = prepared.start();
    let push = |status| gate.tls().send("POST", "/v2/app/blobs/uploads/", &[], b"").status == status;
    assert!(push(202));
    prepared.write("upstreams/hub.toml", "kind = \"mirror\"\nurl = \"");
    prepared.configure(&rules("\"pull\""));
    gate.signal("HUP");
    wait_until("pushes to be refused", || push(401));
    gate.wait_for_log("the file of an upstream is not good; upstreams go on as they were");
    gate.wait_for_log("hub.toml");
    assert_eq!(gate.tls().get("/v2/docker.io/library/app/manifests/1").expect(503).code(), "UNAVAILABLE");
}
