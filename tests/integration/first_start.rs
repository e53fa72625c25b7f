//! The first start, on nothing but defaults.

use std::os::unix::fs::PermissionsExt;

use super::support::{Gate, content};

#[test]
fn the_first_start_makes_all_that_is_needed() {
    let gate = Gate::start("");
    let mode = |file: &str| std::fs::metadata(gate.path(file)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("data/initial-password"), 0o600);
    assert_eq!(mode("certs/ca.key"), 0o600);
    assert_eq!(mode("certs/server.key"), 0o600);
    let printed = gate.printed.lock().unwrap().clone();
    let password = std::fs::read_to_string(gate.path("data/initial-password")).unwrap();
    assert!(!printed.contains(password.trim()), "the password must not be printed");
    for word in
        ["docker login", "docker push", "certs.d", "initial-password", "containerd", "podman", "update-ca-certificates"]
    {
        assert!(printed.contains(word), "{word} is not in {printed}");
    }
    content::push_image(&gate.root(), "app", "v1");
}

#[test]
fn a_second_start_keeps_everything() {
    let gate = Gate::start("");
    let digest = content::push_image(&gate.root(), "app", "v1");
    let (ca, password) =
        (std::fs::read(gate.path("certs/ca.crt")).unwrap(), std::fs::read(gate.path("data/initial-password")).unwrap());
    let prepared = gate.prepared();
    assert_eq!(gate.stop(), 0);
    let gate = prepared.start();
    assert_eq!(std::fs::read(gate.path("certs/ca.crt")).unwrap(), ca);
    assert_eq!(std::fs::read(gate.path("data/initial-password")).unwrap(), password);
    let answer = gate.root().get("/v2/app/manifests/v1").expect(200);
    assert_eq!(answer.header("docker-content-digest"), Some(&*digest));
}

#[test]
fn cert_trust_prints_what_the_ready_text_said() {
    let gate = Gate::prepare("[listen.main]\naddress = \"127.0.0.1:5443\"\n");
    let output = gate.run(&["cert", "trust"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("/etc/docker/certs.d/HOST:5443/ca.crt"), "{text}");
    assert!(text.contains(&gate.path("certs/ca.crt").display().to_string()), "{text}");
}

#[test]
fn admin_says_live_ready_and_metrics() {
    let gate = Gate::start("");
    assert_eq!(
        gate.admin().raw(b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "GET").expect(200).text(),
        "live\n"
    );
    gate.admin().get("/readyz").expect(200);
    content::push_image(&gate.root(), "app", "v1");
    for _ in 0..2 {
        gate.root().get("/v2/app/manifests/v1").expect(200);
    }
    let page = gate.admin().get("/metrics").expect(200).text();
    let line = r#"dockgate_requests_total{route="manifest",status="200",backend="hosted",tier="memory"} 1"#;
    assert!(page.contains(line), "{page}");
    gate.tls().get("/metrics").expect(404);
    gate.tls().get("/livez").expect(404);
}

#[test]
fn every_request_leaves_one_line_with_its_id() {
    let gate = Gate::start("[log]\nformat = \"json\"\n");
    let answer = gate.tls().with("User-Agent", "x\u{9b}31m").get("/v2/app/manifests/v1").expect(401);
    let id = answer.header("x-request-id").unwrap().to_owned();
    assert!(answer.whole_message().ends_with(&format!(" (request {id})")), "{}", answer.text());
    assert!(answer.json()["errors"][0]["detail"].is_null());
    gate.wait_for_log(&id);
    let log = gate.log.lock().unwrap().clone();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(&id)).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(!log.contains('\u{9b}') && log.contains(r"\\xc2\\x9b"), "control bytes are escaped: {log}");
    let line: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
    let fields = if line["fields"].is_object() { &line["fields"] } else { &line };
    assert_eq!((&fields["status"], &fields["route"]), (&401.into(), &"manifest".into()), "{line}");
}

#[test]
fn secrets_are_never_logged() {
    let gate = Gate::start("[log]\nlevel = \"trace\"\n");
    let password = std::fs::read_to_string(gate.path("data/initial-password")).unwrap();
    let token = gate.root().get("/token?service=dockgate&scope=repository:app:pull").expect(200).json();
    let token = token["token"].as_str().unwrap().to_owned();
    gate.tls().with("Authorization", &format!("Bearer {token}")).get("/v2/").expect(200);
    gate.tls().user("canary", "canary-password").get("/v2/").expect(401);
    for target in [
        "/v2/no/such/path?password=canary-password",
        "/v2/?access_token=canary-password&n=1",
        "/token?refresh_token=canary-password&service=dockgate",
        "/v2/a/tags/list?n=1&n=2&signature=canary-password",
        "/http://ada:canary-password@registry.example/v2/",
    ] {
        gate.root().get(target);
        let bad_head = format!("GET {target} HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n");
        gate.plain().raw(bad_head.as_bytes(), "GET").expect(400);
    }
    gate.plain().raw(b"GET http://ada:canary-password@a/v2/ HTTP/1.1\r\nHost: a\r\n\r\n", "GET").expect(400);
    gate.wait_for_log("access_token=***");
    let metrics = gate.admin().get("/metrics").text();
    let log = gate.log.lock().unwrap().clone();
    for secret in [password.trim(), &token, "canary-password"] {
        assert!(!log.contains(secret) && !metrics.contains(secret), "{secret} is in the log or the metrics");
    }
}

#[test]
fn a_certificate_that_cannot_be_used_leaves_nothing_behind() {
    let prepared = Gate::prepare("[tls]\ncertificate = \"own.crt\"\nkey = \"own.key\"\n");
    prepared.write("own.crt", "no certificate");
    prepared.write("own.key", "no key");
    let (code, said) = prepared.fail(&["serve"]);
    assert_eq!(code, 78, "{said}");
    for made in ["htpasswd", "data/initial-password"] {
        assert!(!prepared.path(made).exists(), "{made} was made");
    }
}
