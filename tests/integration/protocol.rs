//! One port: TLS and plain HTTP, HTTP/1.1 and HTTP/2.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::process::Command;

use super::support::{Client, Gate};

/// An address of this machine that is not loopback; nothing is sent.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").unwrap();
    socket.local_addr().unwrap().ip()
}

#[test]
fn both_protocols_answer_on_one_port() {
    let gate = Gate::start("");
    gate.tls().get("/v2/").expect(401);
    gate.plain().get("/v2/").expect(401);
}

#[test]
fn plain_http_from_elsewhere_is_told_what_to_do() {
    let gate = Gate::start("[listen.main]\naddress = \"0.0.0.0:0\"\n");
    let address = (own_address(), gate.main.port()).into();
    let answer = Client::plain(address).get("/v2/").expect(400);
    assert!(answer.message().contains("HTTPS"), "{}", answer.message());
    Client::tls(address, &gate.path("certs/ca.crt")).get("/v2/").expect(401);
}

/// A rule, and what stands in the log, for who comes over IPv4 to a socket of both families.
#[test]
fn a_client_over_ipv4_is_known_by_its_ipv4_address_where_all_addresses_are_listened_on() {
    const RULE: &str = "[[access]]\nwho = [\"network:127.0.0.0/8\", \"network:10.0.0.0/8\"]\nrepositories = [\"**\"]\nactions = [\"pull\"]\n";
    let gate = Gate::start(&format!("[listen.main]\naddress = \"[::]:0\"\n{RULE}"));
    let at = |ip: IpAddr| Client::plain((ip, gate.main.port()).into());
    let four = at(Ipv4Addr::LOCALHOST.into());
    four.get("/v2/app/tags/list").expect(404);
    gate.wait_for_log("client=127.0.0.1");
    Client::tls(four.address, &gate.path("certs/ca.crt")).get("/v2/app/tags/list").expect(404);
    // A machine without IPv6 has got what it has.
    if gate.main.is_ipv6() {
        at(Ipv6Addr::LOCALHOST.into()).get("/v2/app/tags/list").expect(401);
        gate.wait_for_log("client=::1");
    }
    four.connect().write_all(b"\x16\x03\x01\x00\x04nope").unwrap();
    gate.wait_for_log("what the client sent is no TLS");
    let log = gate.log.lock().unwrap().clone();
    assert!(log.contains("peer=127.0.0.1:") && !log.contains("::ffff"), "{log}");

    let proxy = "trusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = true\nplain = \"anyone\"\n";
    let gate = Gate::start(&format!("[listen.main]\naddress = \"[::]:0\"\n{proxy}{RULE}"));
    let client = Client::plain((Ipv4Addr::LOCALHOST, gate.main.port()).into());
    for (announced, status) in [
        ("TCP6 ::ffff:10.1.2.3 ::ffff:10.0.0.1", 404),
        ("TCP4 10.1.2.3 10.0.0.1", 404),
        ("TCP6 ::ffff:11.1.2.3 ::1", 401),
    ] {
        let request = format!(
            "PROXY {announced} 1 2\r\nGET /v2/app/tags/list HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        );
        client.raw(request.as_bytes(), "GET").expect(status);
    }
    gate.wait_for_log("client=10.1.2.3");
}

#[test]
fn a_tls_listener_tells_plain_clients_what_to_do() {
    let gate = Gate::start("[listen.main]\naddress = \"127.0.0.1:0\"\nprotocol = \"tls\"\n");
    let answer = gate.plain().get("/v2/").expect(400);
    assert!(answer.message().contains("HTTPS"), "{}", answer.message());
}

#[test]
fn a_plain_listener_serves_plain_http() {
    let gate = Gate::start("[listen.main]\naddress = \"127.0.0.1:0\"\nprotocol = \"plain\"\n");
    gate.plain().get("/v2/").expect(401);
}

#[test]
fn curl_speaks_http_2_and_1_and_verifies_the_certificate() {
    let gate = Gate::start("");
    for (version, expected) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let url = format!("https://localhost:{}/v2/", gate.main.port());
        let output = Command::new("curl")
            .args(["-sS", version, "-o", "/dev/null", "-w", "%{http_version} %{http_code}", "--cacert"])
            .arg(gate.path("certs/ca.crt"))
            .arg(&url)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text, format!("{expected} 401"), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_client_of_docker_1_3_can_shake_hands() {
    // Go 1.3: TLS 1.2, ECDHE with AES-128-GCM, P-256, no ALPN.
    let gate = Gate::start("");
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &gate.main.to_string(), "-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"])
        .args(["-groups", "P-256", "-sigalgs", "ECDSA+SHA256", "-noservername", "-verify_return_error", "-CAfile"])
        .arg(gate.path("certs/ca.crt"))
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("Verify return code: 0 (ok)") && text.contains("ECDHE-ECDSA-AES128-GCM-SHA256"), "{text}");
}

#[test]
fn a_client_certificate_is_a_principal() {
    let rules = "[tls]\nclient_ca = \"clients.crt\"\n[[access]]\nwho = [\"cert:robot\"]\nrepositories = [\"**\"]\nactions = [\"*\"]\n";
    let prepared = Gate::prepare(rules);
    let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out clients.crt -subj /CN=clients -days 2 \
        && openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout robot.key -out robot.csr -subj /CN=robot \
        && openssl x509 -req -in robot.csr -CA clients.crt -CAkey ca.key -CAcreateserial -out robot.crt -days 2 -extfile v3 \
        && openssl x509 -req -in robot.csr -CA clients.crt -CAkey ca.key -CAcreateserial -out plain.crt -days 2 \
        && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout own.key -out own.crt -subj /CN=robot -days 2";
    prepared.write("v3", "basicConstraints = CA:FALSE\n");
    let made = Command::new("sh").args(["-c", script]).current_dir(prepared.directory.path()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let gate = prepared.start();
    let status = |arguments: &[&str]| {
        let output = Command::new("curl")
            .args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", "certs/ca.crt"])
            .args(arguments)
            .arg(format!("https://localhost:{}/v2/_catalog", gate.main.port()))
            .current_dir(gate.directory.path())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(status(&[]), "401");
    assert_eq!(status(&["--cert", "robot.crt", "--key", "robot.key"]), "200");
    // The recipe of most guides has no extension file, and makes version 1.
    assert_eq!(status(&["--cert", "plain.crt", "--key", "robot.key"]), "000");
    gate.wait_for_log("the client's certificate is of X.509 version 1");
    // Somebody else's authority.
    assert_eq!(status(&["--cert", "own.crt", "--key", "own.key"]), "000");
    gate.wait_for_log("it must be issued by an authority in tls.client_ca");
    for reason in ["client_certificate_version_1", "client_certificate"] {
        let page = gate.admin().get("/metrics").expect(200).text();
        assert!(page.contains(&format!("dockgate_tls_handshakes_failed_total{{reason=\"{reason}\"}} 1")), "{page}");
    }
}

#[test]
fn a_handshake_that_failed_left_no_line() {
    let gate = Gate::start("");
    let openssl = |arguments: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &gate.main.to_string()]).args(arguments);
        command.stdin(std::process::Stdio::null()).output().unwrap();
    };
    openssl(&["-verify_return_error"]);
    gate.wait_for_log("the client does not trust our certificate");
    openssl(&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
    gate.wait_for_log("the client speaks no version of TLS");
    let mut nonsense = gate.plain().connect();
    nonsense.write_all(b"\x16\x03\x01\x00\x04nope").unwrap();
    gate.wait_for_log("what the client sent is no TLS");
}

#[test]
fn who_only_looks_whether_somebody_is_here_is_answered() {
    let gate = Gate::start("");
    for client in [gate.plain(), gate.tls()] {
        let answer = client.get("/").expect(200);
        assert!(answer.body.is_empty());
        client.head("/").expect(200);
        assert_eq!(client.send("POST", "/", &[], b"").expect(405).header("allow"), Some("GET, HEAD"));
    }
}

#[test]
fn a_base_url_that_ends_in_a_slash_is_put_right() {
    let gate = Gate::start("");
    let client = gate.plain();
    for method in ["GET", "PUT", "POST", "DELETE"] {
        let moved = client.send(method, "//v2/app/manifests/v1?ns=docker.io", &[], b"").expect(308);
        assert_eq!(moved.header("location"), Some("/v2/app/manifests/v1?ns=docker.io"));
    }
    assert_eq!(client.get("//v2/").expect(308).header("location"), Some("/v2/"));
    // Nowhere else: what such a path means is not for us to guess.
    for other in
        ["//v1/_ping", "///v2/", "//v2//app/tags/list", "//v2/../token", "/v2//", "//token", "//example.com/v2/"]
    {
        client.get(other).expect(400);
    }
}

#[test]
fn browsers_guess_no_types() {
    let gate = Gate::start("");
    let client = gate.plain();
    for path in ["/", "/v2/", "//v2/", "/v2//", "/token/keys", "/nothing", "/v1/_ping", "/v2/a/manifests/1"] {
        assert_eq!(client.get(path).header("x-content-type-options"), Some("nosniff"), "{path}");
    }
}
