//! Bad requests.

use serde_json::json;

use super::says;
use crate::support::content::{OCI_MANIFEST, begin, digest, manifest, push_blob, push_image, put_manifest};
use crate::support::gate::ADA;
use crate::support::{Answer, Client, Gate};

/// ada may do everything, puller may read app, and nobody else anything.
const RULES: &str = r#"
[[access]]
who = ["user:ada"]
repositories = ["**"]
actions = ["*"]
[[access]]
who = ["user:puller"]
repositories = ["app"]
actions = ["pull"]
"#;

/// A gateway with an image in it, which must be there at the end.
struct House {
    gate: Gate,
    ada: Client,
    image: String,
}

impl House {
    fn open() -> Self {
        let prepared = Gate::prepare(RULES);
        let users = ["ada:", "puller:", "stranger:"].map(|name| ADA.replace("ada:", name));
        prepared.write("htpasswd", &(users.join("\n") + "\n"));
        let gate = prepared.start();
        let ada = gate.plain().user("ada", "ada");
        let image = push_image(&ada, "app", "v1");
        Self { gate, ada, image }
    }

    fn user(&self, name: &str, password: &str) -> Client {
        self.gate.plain().user(name, password)
    }

    /// Nothing was lost, and pushing goes on.
    fn is_whole(&self) {
        let answer = self.ada.get("/v2/app/manifests/v1").expect(200);
        assert_eq!(digest(&answer.body), self.image);
        for blob in [&b"{}"[..], b"a layer"] {
            let answer = self.ada.get(&format!("/v2/app/blobs/{}", digest(blob))).expect(200);
            assert_eq!(answer.body, blob);
        }
        assert_eq!(push_image(&self.ada, "after", "v1"), self.image);
    }
}

/// An answer that says no as it should.
#[track_caller]
fn refused(answer: Answer, status: u16, code: &str, words: &[&str]) -> Answer {
    let answer = answer.expect(status);
    assert_eq!(answer.code(), code, "{}", answer.text());
    says(&answer.message(), words);
    let id = answer.header("x-request-id").unwrap();
    assert!(answer.whole_message().ends_with(&format!(" (request {id})")), "{}", answer.text());
    assert_eq!(answer.header("docker-distribution-api-version"), Some("registry/2.0"));
    answer
}

#[test]
fn who_somebody_is_and_what_they_may() {
    let house = House::open();
    let path = "/v2/app/manifests/v1";
    let mut told = Vec::new();
    for (name, password) in [("ada", "wrong"), ("nobody", "ada"), ("ada", ""), ("", "ada"), ("ada", &*"x".repeat(100))]
    {
        let answer = house.user(name, password).get(path);
        let answer = refused(answer, 401, "UNAUTHORIZED", &["wrong user name or password", "log in again"]);
        told.push((answer.header("www-authenticate").unwrap().to_owned(), answer.message()));
    }
    told.dedup();
    assert_eq!(told.len(), 1, "nobody learns which users there are: {told:?}");
    says(&told[0].0, &["Basic realm=\"dockgate\""]);
    refused(house.gate.plain().get(path), 401, "UNAUTHORIZED", &["authentication required", "log in"]);
    for odd in ["Basic !!!", "Basic YWRh", "Bearer x.y.z", "Token x", "Basic"] {
        let answer = house.gate.plain().with("Authorization", odd).get(path);
        refused(answer, 401, "UNAUTHORIZED", &["log in"]);
    }

    let (puller, stranger) = (house.user("puller", "ada"), house.user("stranger", "ada"));
    puller.get(path).expect(200);
    let uploads = "/v2/app/blobs/uploads/";
    let words = ["you may not push app", "ask the operator", "[[access]]"];
    refused(puller.send("POST", uploads, &[], b""), 403, "DENIED", &words);
    refused(put_manifest(&puller, "app", "v1", b"{}"), 403, "DENIED", &["you may not", "app"]);
    refused(puller.delete(path), 403, "DENIED", &["you may not delete app"]);
    let words = ["not known", "check its name", "log in as a user who may pull it"];
    for (path, code) in [
        (path, "MANIFEST_UNKNOWN"),
        ("/v2/missing/manifests/v1", "MANIFEST_UNKNOWN"),
        ("/v2/app/tags/list", "NAME_UNKNOWN"),
    ] {
        refused(stranger.get(path), 404, code, &words);
    }
    // Who may not push is told so, whether or not there is such a repository.
    for uploads in [uploads, "/v2/missing/blobs/uploads/"] {
        refused(stranger.send("POST", uploads, &[], b""), 403, "DENIED", &["you may not push", "[[access]]"]);
    }
    house.is_whole();
}

#[test]
fn names_digests_and_ranges_that_are_none() {
    let house = House::open();
    let ada = &house.ada;
    for name in ["App", "a_", "-a", "a..b", "a--_b", &*"x".repeat(256)] {
        let start = ada.send("POST", &format!("/v2/{name}/blobs/uploads/"), &[], b"");
        refused(start, 400, "NAME_INVALID", &["name"]);
        refused(ada.get(&format!("/v2/{name}/manifests/v1")), 400, "NAME_INVALID", &["name"]);
    }
    for tag in ["-v1", ".v1", "v+1", &*"x".repeat(129)] {
        refused(put_manifest(ada, "app", tag, b"{}"), 400, "TAG_INVALID", &["tag"]);
        refused(ada.get(&format!("/v2/app/manifests/{tag}")), 404, "MANIFEST_UNKNOWN", &["tag"]);
    }
    let upper = digest(b"x").to_uppercase().replace("SHA256", "sha256");
    let hex = "0".repeat(32);
    let cases = [
        ("sha256:short", "DIGEST_INVALID", "64"),
        (&*upper, "DIGEST_INVALID", "lower-case"),
        (&*format!("md5:{hex}"), "UNSUPPORTED", "only sha256 and sha512"),
        ("sha256", "DIGEST_INVALID", "algorithm:hex"),
    ];
    let location = begin(ada, "app");
    for (bad, code, word) in cases {
        refused(ada.get(&format!("/v2/app/blobs/{bad}")), 400, code, &[word]);
        let put = ada.send("PUT", &format!("{location}?digest={bad}"), &[], b"x");
        refused(put, 400, code, &[word]);
        let path = format!("/v2/app/blobs/uploads/?digest={bad}");
        refused(ada.send("POST", &path, &[], b"x"), 400, code, &[word]);
    }
    refused(ada.send("PUT", &location, &[], b"x"), 400, "DIGEST_INVALID", &["algorithm:hex"]);
    // The upload still waits, and is what it was.
    ada.send("PUT", &format!("{location}?digest={}", digest(b"good")), &[], b"good").expect(201);

    let path = format!("/v2/app/blobs/{}", digest(b"a layer"));
    let answer = ada.with("Range", "bytes=7-").get(&path);
    let answer = refused(answer, 416, "RANGE_INVALID", &["7 bytes", "ask for a range inside"]);
    assert_eq!(answer.header("content-range"), Some("bytes */7"));
    house.is_whole();
}

#[test]
fn uploads_that_go_wrong() {
    let house = House::open();
    let ada = &house.ada;
    let location = begin(ada, "app");
    ada.send("PATCH", &location, &[("Content-Range", "0-3")], b"0123").expect(202);
    let wrong = ada.send("PATCH", &location, &[("Content-Range", "3-6")], b"3456");
    let wrong = refused(wrong, 416, "BLOB_UPLOAD_INVALID", &["has 4 bytes", "must begin there"]);
    assert_eq!(wrong.json()["errors"][0]["detail"]["offset"], 4, "{}", wrong.text());
    let malformed = ada.send("PATCH", &location, &[("Content-Range", "4 to 7")], b"4567");
    refused(malformed, 416, "BLOB_UPLOAD_INVALID", &["FIRST-LAST"]);
    ada.send("PATCH", &location, &[("Content-Range", "4-7")], b"4567").expect(202);

    // A digest that does not match, and then the right one: what was there before is still there.
    let other = digest(b"other");
    let mismatch = ada.send("PUT", &format!("{location}?digest={other}"), &[], b"89");
    let mismatch = refused(mismatch, 400, "DIGEST_INVALID", &[&other, &digest(b"0123456789"), "again"]);
    let detail = mismatch.json()["errors"][0]["detail"].clone();
    assert_eq!((&detail["expected"], &detail["actual"]), (&json!(other), &json!(digest(b"0123456789"))));
    let missing = ada.get(&format!("/v2/app/blobs/{other}"));
    refused(missing, 404, "BLOB_UNKNOWN", &["this repository has no blob", &other]);
    assert_eq!(ada.get(&location).expect(204).header("range"), Some("0-7"));
    ada.send("PUT", &format!("{location}?digest={}", digest(b"0123456789")), &[], b"89").expect(201);
    let path = format!("/v2/app/blobs/{}", digest(b"0123456789"));
    assert_eq!(ada.get(&path).expect(200).body, b"0123456789");

    for id in ["0123456789abcdef0123456789abcdef", "short", "00000000-0000-0000-0000-000000000000", "%2e%2e"] {
        let path = format!("/v2/app/blobs/uploads/{id}");
        if id.starts_with('%') {
            ada.get(&path).expect(400);
            continue;
        }
        for method in ["GET", "PATCH", "DELETE"] {
            refused(ada.send(method, &path, &[], b""), 404, "BLOB_UPLOAD_UNKNOWN", &["upload"]);
        }
        let put = ada.send("PUT", &format!("{path}?digest={other}"), &[], b"other");
        refused(put, 404, "BLOB_UPLOAD_UNKNOWN", &["upload"]);
    }
    house.is_whole();
}

#[test]
fn manifests_that_go_wrong() {
    let house = House::open();
    let ada = &house.ada;
    let (config, first, second) = (&b"{\"a\":1}"[..], &b"first"[..], &b"second"[..]);
    let bytes = manifest(&[config, first, second]);
    push_blob(ada, "app", config);
    let missing = put_manifest(ada, "app", "v2", &bytes);
    let words = ["push these first", &*digest(first), &*digest(second)];
    let missing = refused(missing, 400, "MANIFEST_BLOB_UNKNOWN", &words);
    let named = &missing.json()["errors"][0]["detail"]["missing"];
    assert_eq!(*named, json!([digest(first), digest(second)]));
    refused(ada.get("/v2/app/manifests/v2"), 404, "MANIFEST_UNKNOWN", &["no manifest v2"]);
    // What it names, pushed as it says.
    push_blob(ada, "app", first);
    push_blob(ada, "app", second);
    put_manifest(ada, "app", "v2", &bytes).expect(201);

    let other = digest(b"other");
    let put = put_manifest(ada, "app", &other, &bytes);
    refused(put, 400, "DIGEST_INVALID", &[&other, &digest(&bytes)]);
    let text = String::from_utf8(bytes).unwrap();
    let size = text.replacen("\"size\":7", "\"size\":-7", 1);
    refused(put_manifest(ada, "app", "v3", size.as_bytes()), 400, "MANIFEST_INVALID", &["-7", "expected u64"]);
    let put = |media_type: &str, text: &str| {
        ada.send("PUT", "/v2/app/manifests/v3", &[("Content-Type", media_type)], text.as_bytes())
    };
    refused(put(OCI_MANIFEST, &text[..50]), 400, "MANIFEST_INVALID", &["cannot be read"]);
    refused(put("text/plain", &text), 400, "MANIFEST_INVALID", &["text/plain", "push docker schema 2 or OCI"]);
    refused(put("application/json", &text), 400, "MANIFEST_INVALID", &["application/json", "not supported"]);
    ada.get("/v2/app/manifests/v3").expect(404);
    house.is_whole();
}

#[test]
fn paths_and_methods_that_are_not_served() {
    let house = House::open();
    let ada = &house.ada;
    refused(ada.get("/v2/app/nothing/here"), 404, "UNSUPPORTED", &["registries answer under /v2/"]);
    for (method, path, allow) in [
        ("POST", "/v2/app/manifests/v1", "GET, HEAD, PUT, DELETE"),
        ("PUT", "/v2/app/tags/list", "GET, HEAD"),
        ("GET", "/v2/app/blobs/uploads/", "POST"),
    ] {
        let answer = refused(ada.send(method, path, &[], b""), 405, "UNSUPPORTED", &["takes", allow]);
        assert_eq!(answer.header("allow"), Some(allow));
    }
    refused(ada.get("/v2/app/tags/list?n=-1"), 400, "PAGINATION_NUMBER_INVALID", &["0 or more"]);
    house.is_whole();
}
