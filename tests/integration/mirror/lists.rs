//! Lists from elsewhere: page by page to their end, whatever the upstream knows of pages.

use std::time::{Duration, Instant};

use super::{LONGEST_WAIT, Mirror, OPEN, is_error};
use serde_json::json;

use crate::support::content::{OCI_INDEX, OCI_MANIFEST, digest};
use crate::support::v2_upstream::{Door, Fault};
use crate::support::{Answer, Client};

/// Follows every Link.
fn all(client: &Client, path: &str, key: &str) -> Vec<String> {
    let (mut next, mut names) = (Some(path.to_owned()), Vec::new());
    while let Some(path) = next {
        let answer = client.get(&path).expect(200);
        let page = answer.json()[key].as_array().unwrap().clone();
        names.extend(page.iter().map(|name| name.as_str().unwrap().to_owned()));
        assert!(names.len() < 50, "no end: {names:?}");
        next = link(&answer);
    }
    names
}

fn link(answer: &Answer) -> Option<String> {
    let link = answer.header("link")?;
    Some(link.strip_prefix('<')?.split_once('>')?.0.to_owned())
}

/// docker's registry 2.8 sends all tags for every page.
#[test]
fn the_second_page_of_tags_was_the_first_again() {
    let mirror = Mirror::start("");
    let tags = ["a", "b", "c", "d", "e"];
    for tag in tags {
        mirror.up.image("app", tag, tag.as_bytes());
    }
    let client = mirror.gate.plain();
    assert_eq!(all(&client, "/v2/up/app/tags/list?n=2", "tags"), tags);
    assert_eq!(all(&client, "/v2/up/app/tags/list", "tags"), tags);
    mirror.up.has_pages();
    assert_eq!(all(&client, "/v2/up/app/tags/list?n=2", "tags"), tags);
}

#[test]
fn the_second_page_of_a_catalog_was_another_registrys() {
    let mirror = Mirror::start("namespaces = [\"up.example\"]");
    for name in ["a/app", "b/app", "c/app"] {
        mirror.up.image(name, "v1", b"a layer");
    }
    let client = mirror.gate.plain();
    for pages in [false, true] {
        if pages {
            mirror.up.has_pages();
        }
        for path in ["/up/v2/_catalog?n=1", "/v2/_catalog?n=1&ns=up.example"] {
            assert_eq!(all(&client, path, "repositories"), ["a/app", "b/app", "c/app"], "{path}");
        }
    }
}

#[test]
fn a_page_without_anything_to_show_ended_the_catalog() {
    let rules = "[[access]]\nwho = [\"authenticated\"]\nrepositories = [\"up/z/**\"]\nactions = [\"pull\"]\n";
    let mirror = Mirror::start_with(rules, "");
    for name in ["a/app", "b/app", "c/app", "z/app"] {
        mirror.up.image(name, "v1", b"a layer");
    }
    mirror.up.has_pages();
    let client = mirror.gate.tls().user("ada", "ada");
    assert_eq!(all(&client, "/up/v2/_catalog?n=1", "repositories"), ["z/app"]);
    let first = client.get("/up/v2/_catalog?n=1");
    assert!(!first.text().contains("a/app") && !format!("{:?}", first.headers).contains("b%2F"), "{:?}", first.headers);
}

#[test]
fn a_catalog_was_asked_for_without_the_callers_password() {
    let rules = "[[access]]\nwho = [\"authenticated\"]\nrepositories = [\"**\"]\nactions = [\"pull\"]\n";
    let mirror = Mirror::start_with(rules, "authorization = \"forward\"");
    mirror.up.guard(Door::basic().user("ada", "ada", &["*"]));
    mirror.up.image("app", "v1", b"a layer");
    let client = mirror.gate.tls().user("ada", "ada");
    assert_eq!(all(&client, "/up/v2/_catalog", "repositories"), ["app"]);
}

/// Fast enough byte by byte, and never there.
#[test]
fn a_list_that_drips_had_no_end() {
    let mirror = Mirror::start_with(OPEN, "rate_bytes = \"1\"");
    mirror.up.image("app", "v1", b"a layer");
    mirror.up.fault("GET", "/tags/list", Fault::Trickle(Duration::from_millis(300)));
    let began = Instant::now();
    is_error(&mirror.pull("/v2/up/app/tags/list"), 504, "UNAVAILABLE");
    assert!(began.elapsed() < LONGEST_WAIT, "{:?}", began.elapsed());
}

/// Ten of twenty-five were listed, and nobody was told.
#[test]
fn referrers_were_those_of_the_first_page() {
    let mirror = Mirror::start("");
    let (subject, _) = mirror.up.image("app", "v1", b"a layer");
    let mut referrers: Vec<String> = (0..25)
        .map(|number| {
            let bytes = json!({
                "schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [], "annotations": { "number": number.to_string() },
                "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(b"{}"), "size": 2 },
                "subject": { "mediaType": OCI_MANIFEST, "digest": subject, "size": 1 },
            });
            mirror.up.manifest("app", &format!("signature-{number}"), bytes.to_string().as_bytes())
        })
        .collect();
    referrers.sort_unstable();
    let path = format!("/v2/up/app/referrers/{subject}");
    for pages in [false, true] {
        if pages {
            mirror.up.has_pages();
        }
        let answer = mirror.pull(&path).expect(200);
        assert_eq!(answer.header("content-type"), Some(OCI_INDEX));
        let listed = answer.json()["manifests"].as_array().unwrap().clone();
        let mut listed: Vec<_> = listed.iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()).collect();
        listed.sort_unstable();
        assert_eq!(listed, referrers, "{pages}");
    }
    // Thirteen pages.
    assert_eq!(mirror.up.count("GET", "/referrers/"), 1 + 13);
    // What another host says is not the upstream's.
    mirror.up.fault(
        "GET",
        "/referrers/",
        Fault::Header("Link", "<https://elsewhere.example/v2/app/referrers/x>; rel=next"),
    );
    is_error(&mirror.pull(&path), 502, "UNAVAILABLE");
    mirror.up.heal();
    mirror.up.fault("GET", "/referrers/", Fault::Header("Link", "<?token=0>; rel=next"));
    is_error(&mirror.pull(&path), 502, "UNAVAILABLE");
}

/// Clients then look for the list that is kept under a tag.
#[test]
fn an_upstream_that_knows_no_referrers_has_none() {
    for status in [400, 404, 405, 501] {
        let mirror = Mirror::start("");
        let (subject, _) = mirror.up.image("app", "v1", b"a layer");
        mirror.up.fault("GET", "/referrers/", Fault::Status(status));
        is_error(&mirror.pull(&format!("/v2/up/app/referrers/{subject}")), 404, "UNSUPPORTED");
    }
}

/// Quay, GitLab and Nexus go on by a token of their own.
#[test]
fn a_list_that_goes_on_in_its_own_way_did_not_go_on() {
    let mirror = Mirror::start("");
    for tag in ["a", "b", "c", "d", "e"] {
        mirror.up.image("app", tag, tag.as_bytes());
    }
    mirror.up.has_pages();
    // Its first page says that the next is where a token leads, which here is a page by its usual name.
    mirror.up.fault_some("GET", "/tags/list", 0..1, Fault::Header("Link", "<list?last=b&n=2&token=x>; rel=next"));
    let listed = mirror.pull("/v2/up/app/tags/list?n=2").expect(200);
    assert_eq!(listed.json()["tags"], json!(["a", "b"]));
    assert_eq!(link(&listed).as_deref(), Some("/v2/up/app/tags/list?last=b&n=2"));
    assert_eq!(mirror.up.count("GET", "/tags/list"), 1);
    mirror.up.heal();
    mirror.up.forget_asked();
    mirror.up.fault_some("GET", "/tags/list", 0..1, Fault::Header("Link", "<list?token=x&n=2&last=a>; rel=next"));
    let listed = mirror.pull("/v2/up/app/tags/list?n=2").expect(200);
    assert_eq!(listed.json()["tags"], json!(["a", "b"]));
    assert!(mirror.up.count("GET", "/tags/list") > 1, "it is taken to its end");
}
