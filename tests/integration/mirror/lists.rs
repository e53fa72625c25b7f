//! Lists from elsewhere: page by page to their end, whatever the upstream knows of pages.

use std::time::{Duration, Instant};

use super::{LONGEST_WAIT, Mirror, OPEN, is_error};
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
