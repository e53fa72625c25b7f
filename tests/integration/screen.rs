//! Ambiguous requests never reach anything that reads them (threats B1, B4, B6).

use super::support::{Gate, content};

/// Requests that two readers could read differently, or that no client of a registry sends.
fn ambiguous() -> Vec<(String, Vec<u16>)> {
    let mut requests = Vec::new();
    let mut add = |head: String, statuses: &[u16]| requests.push((head, statuses.to_vec()));
    for path in ["/v2/", "/v2/a/tags/list", "/v2/a/manifests/x", "/v1/_ping", "/token", "/other"] {
        for host in [
            "",
            "Host: a\r\nHost: a\r\n",
            "Host: a\r\nHost: b\r\n",
            "Host: a/x?y#z\r\n",
            "Host: u@a\r\n",
            "Host: a b\r\n",
            "Host: \r\n",
        ] {
            add(format!("GET {path} HTTP/1.1\r\n{host}\r\n"), &[400]);
        }
        for length in [
            "Content-Length: 3\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 3",
            "Transfer-Encoding: identity, chunked",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: gzip, chunked",
            "Content-Length: 3\r\nContent-Length: 4",
            "Content-Length: 3, 4",
            "Content-Length: -3",
            "Content-Length: +3",
            "Content-Length: 0x3",
            "Content-Length: 99999999999999999999",
        ] {
            for method in ["POST", "PUT"] {
                add(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{length}\r\n\r\nabc"), &[400]);
            }
        }
        add(format!("GET http://b{path} HTTP/1.1\r\nHost: a\r\n\r\n"), &[400]);
        add(format!("GET {path}\r\nHost: a\r\n\r\n"), &[400]);
        add(format!("GET {path} HTTP/1.1\r\nHost : a\r\n\r\n"), &[400]);
        add(format!("GET {path} HTTP/1.1\r\nHost: a\r\n Folded: x\r\n\r\n"), &[400]);
        add(format!("TRACE {path} HTTP/1.1\r\nHost: a\r\n\r\n"), &[405]);
        add(format!("GET {path} HTTP/3.0\r\nHost: a\r\n\r\n"), &[400, 505]);
    }
    for path in [
        "//v2/",
        "/v2//a/tags/list",
        "/v2/%2e%2e/a",
        "/v2/..%2fa",
        "/v2/a%2fb/manifests/x",
        "/v2/a;x/tags/list",
        "/v2/a/..;/b",
        "/v2/../v1/_ping",
        "/v2/./a",
        "/v2/a%00b/tags/list",
        "/v2/a%5cb/tags/list",
        "/v2/a/%6danifests/x",
        "/V2/%",
        "/v2/a\\b",
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            add(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n"), &[400]);
        }
    }
    add("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n".into(), &[400, 405]);
    requests
}

#[test]
fn ambiguous_requests_are_refused_and_the_connection_closed() {
    let gate = Gate::start("");
    let (plain, tls) = (gate.plain(), gate.tls());
    let requests = ambiguous();
    assert!(requests.len() >= 200, "only {} requests", requests.len());
    for (index, (request, statuses)) in requests.iter().enumerate() {
        // A second request hides behind the first: it must never be answered.
        let smuggled = format!("{request}GET /v2/ HTTP/1.1\r\nHost: smuggled\r\n\r\n");
        let client = if index % 2 == 0 { &plain } else { &tls };
        let mut stream = client.connect();
        let _ = std::io::Write::write_all(&mut stream, smuggled.as_bytes())
            .and_then(|()| std::io::Write::flush(&mut stream));
        let mut bytes = Vec::new();
        let _ = std::io::Read::read_to_end(&mut stream, &mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        assert!(statuses.contains(&status), "{request:?} was answered {text:?}");
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{request:?} was answered twice: {text:?}");
    }
}

#[test]
fn manifests_larger_than_the_limit_are_refused() {
    let gate = Gate::start("");
    let root = gate.root();
    let mut large = content::manifest(&[b"{}"]);
    large.resize(4 * 1024 * 1024 + 1, b' ');
    let put = |headers: &[(&str, &str)], body: &[u8]| root.send("PUT", "/v2/app/manifests/x", headers, body);
    assert_eq!(put(&[("Content-Type", content::OCI_MANIFEST)], &large).expect(413).code(), "SIZE_INVALID");
    large.truncate(4 * 1024 * 1024);
    // Of the right size it is read, and found to name a blob that is not there.
    assert_eq!(put(&[("Content-Type", content::OCI_MANIFEST)], &large).expect(400).code(), "MANIFEST_BLOB_UNKNOWN");
}

#[test]
fn pages_are_never_larger_than_their_limit() {
    let gate = Gate::start("[limits]\npage_entries = 2\n");
    let root = gate.root();
    for tag in ["a", "b", "c"] {
        content::push_image(&root, "app", tag);
    }
    for n in ["3", "2147483648", "9223372036854775808", "99999999999999999999999"] {
        let answer = root.get(&format!("/v2/app/tags/list?n={n}")).expect(200);
        assert_eq!(answer.json()["tags"].to_string(), r#"["a","b"]"#);
        assert_eq!(answer.header("link"), Some("</v2/app/tags/list?last=b&n=2>; rel=\"next\""));
    }
    assert_eq!(root.get("/v2/app/tags/list?n=-1").expect(400).code(), "PAGINATION_NUMBER_INVALID");
}

#[test]
fn headers_have_a_limit() {
    let gate = Gate::start("");
    let many: String = (0..200).map(|n| format!("X-{n}: x\r\n")).collect();
    let large = format!("X: {}\r\n", "x".repeat(64 * 1024));
    for headers in [many, large] {
        let answer = gate.plain().raw(format!("GET /v2/ HTTP/1.1\r\nHost: a\r\n{headers}\r\n").as_bytes(), "GET");
        assert_eq!(answer.status, 431);
    }
}

#[test]
fn a_client_that_sends_no_head_is_cut_off() {
    let gate = Gate::start("[limits]\nheader_read_timeout = \"300ms\"\ntls_handshake_timeout = \"300ms\"\n");
    for beginning in [&b""[..], b"GET /v2/ HT", b"\x16\x03\x01"] {
        let mut stream = gate.plain().connect();
        std::io::Write::write_all(&mut stream, beginning).unwrap();
        let mut rest = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut rest).expect("the gateway closes the connection");
    }
}

#[test]
fn a_body_that_stops_is_cut_off() {
    let gate = Gate::start("[limits]\nbody_idle_timeout = \"300ms\"\n");
    let root = gate.root();
    let location = content::begin(&root, "app");
    let password = std::fs::read_to_string(gate.path("data/initial-password")).unwrap();
    let basic = {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(format!("admin:{}", password.trim()))
    };
    let head = format!(
        "PATCH {location} HTTP/1.1\r\nHost: a\r\nAuthorization: Basic {basic}\r\nContent-Length: 100\r\n\r\nabc"
    );
    let answer = gate.tls().raw(head.as_bytes(), "PATCH").expect(408);
    assert_eq!(answer.code(), "BLOB_UPLOAD_INVALID");
    // What arrived before the silence is there, to go on from.
    assert_eq!(root.get(&location).expect(204).header("range"), Some("0-2"));
}
