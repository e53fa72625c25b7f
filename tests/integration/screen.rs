//! What is too large is refused before it costs anything (threat B4).

use super::support::{Gate, content};

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
        for client in [gate.plain(), gate.tls()] {
            let answer =
                client.raw(format!("GET /v2/ HTTP/1.1\r\nHost: a\r\n{headers}\r\n").as_bytes(), "GET").expect(431);
            assert!(answer.message().contains("limits.header"), "{}", answer.message());
            assert_eq!(answer.header("connection"), Some("close"));
        }
    }
}
