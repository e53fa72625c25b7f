//! Lists from elsewhere: page by page to their end, whatever the upstream knows of pages.

use std::time::{Duration, Instant};

use super::{LONGEST_WAIT, Mirror, OPEN, is_error, mirror_of, prepare, pull, upstream};
use dockgate::oci::Algorithm;
use serde_json::json;

use crate::support::content::{OCI_INDEX, OCI_MANIFEST, digest, manifest, push_blob, push_image, put_manifest};
use crate::support::gate::wait_until;
use crate::support::v2_upstream::{Door, Fault};
use crate::support::{Answer, Client, Gate, V2Upstream};

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

/// A manifest there that refers to another one.
fn refer(mirror: &Mirror, subject: &str, number: usize) -> String {
    let bytes = referrer(subject, number);
    mirror.up.manifest("app", &format!("signature-{number}"), bytes.as_bytes())
}

fn referrer(subject: &str, number: usize) -> String {
    let config = json!({ "mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(b"{}"), "size": 2 });
    let subject = json!({ "mediaType": OCI_MANIFEST, "digest": subject, "size": 1 });
    json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": format!("application/x.{}", number % 2),
        "annotations": { "number": number.to_string() }, "config": config, "layers": [], "subject": subject,
    })
    .to_string()
}

/// Ten of twenty-five were listed, and nobody was told.
#[test]
fn referrers_were_those_of_the_first_page() {
    let mirror = Mirror::start("tag_ttl = \"0s\"\nstale = \"0s\"");
    let (subject, _) = mirror.up.image("app", "v1", b"a layer");
    let mut referrers: Vec<String> = (0..25).map(|number| refer(&mirror, &subject, number)).collect();
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
    is_error(&mirror.pull(&path), 404, "UNSUPPORTED");
    mirror.gate.wait_for_log("a Link that leads to another host");
    mirror.up.heal();
    mirror.up.fault("GET", "/referrers/", Fault::Header("Link", "<?token=0>; rel=next"));
    is_error(&mirror.pull(&path), 404, "UNSUPPORTED");
    mirror.gate.wait_for_log("a Link that leads to the page that it is on");
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

/// The digests of what refers to a manifest.
fn listed(answer: &Answer) -> Vec<String> {
    let json = answer.json();
    let mut listed: Vec<String> = json["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["digest"].as_str().unwrap().to_owned())
        .collect();
    listed.sort_unstable();
    listed
}

#[test]
fn referrers_are_kept_as_long_as_tags_and_given_while_the_upstream_fails() {
    let mirror = Mirror::start("tag_ttl = \"1s\"");
    let (subject, _) = mirror.up.image("app", "v1", b"a layer");
    let mut all = vec![refer(&mirror, &subject, 0)];
    let path = format!("/v2/up/app/referrers/{subject}");
    for _ in 0..3 {
        assert_eq!(listed(&mirror.pull(&path).expect(200)), all);
    }
    assert_eq!(mirror.up.count("GET", "/referrers/"), 1);
    all.push(refer(&mirror, &subject, 1));
    all.sort_unstable();
    wait_until("the new list", || listed(&mirror.pull(&path).expect(200)) == all);
    for fault in [Fault::Status(503), Fault::Silent] {
        mirror.up.fault("GET", "/referrers/", fault);
        let began = Instant::now();
        wait_until("an older list", || {
            let answer = mirror.pull(&path).expect(200);
            assert_eq!(listed(&answer), all);
            answer.header("warning").is_some_and(|warning| warning.starts_with("299 - \"stale: up "))
        });
        assert!(began.elapsed() < LONGEST_WAIT);
        mirror.up.heal();
    }
}

/// Whoever pulls while lists take long waits for one of them, not for each, and gets new tags.
#[test]
fn that_lists_take_long_says_nothing_of_tags() {
    let mirror = Mirror::start("tag_ttl = \"0s\"");
    let (subject, _) = mirror.up.image("app", "v1", b"a layer");
    refer(&mirror, &subject, 0);
    let (list, tag) = (format!("/v2/up/app/referrers/{subject}"), "/v2/up/app/manifests/v1");
    for path in [&list, tag] {
        mirror.pull(path).expect(200);
    }
    mirror.up.fault("GET", "/referrers/", Fault::Silent);
    let asked = mirror.up.count("GET", "/referrers/");
    for _ in 0..5 {
        assert!(mirror.pull(&list).expect(200).header("warning").is_some());
        assert_eq!(mirror.pull(tag).expect(200).header("warning"), None);
    }
    // One question, which may be repeated once.
    assert!(mirror.up.count("GET", "/referrers/") <= asked + 2);
}

#[test]
fn whoever_pulls_gets_a_list_of_referrers_or_404_from_a_mirror() {
    for fault in [
        Fault::Status(403),
        Fault::Status(401),
        Fault::Status(500),
        Fault::Silent,
        Fault::Instead("text/html", "<html>"),
    ] {
        let mirror = Mirror::start("");
        let (subject, _) = mirror.up.image("app", "v1", b"a layer");
        mirror.up.fault("GET", "/referrers/", fault.clone());
        is_error(&mirror.pull(&format!("/v2/up/app/referrers/{subject}")), 404, "UNSUPPORTED");
        mirror.up.fault("HEAD", "/manifests/sha256-", fault.clone());
        mirror.up.fault("GET", "/manifests/sha256-", fault.clone());
        if !matches!(fault, Fault::Status(401 | 403)) {
            let tag = subject.replace(':', "-");
            is_error(&mirror.pull(&format!("/v2/up/app/manifests/{tag}")), 404, "MANIFEST_UNKNOWN");
        }
    }
}

#[test]
fn those_of_a_kind_are_told_from_all_that_are_kept() {
    let mirror = Mirror::start("");
    let (subject, _) = mirror.up.image("app", "v1", b"a layer");
    let all: Vec<String> = (0..4).map(|number| refer(&mirror, &subject, number)).collect();
    let path = format!("/v2/up/app/referrers/{subject}");
    // Who says of none what it is has them all told.
    let answer = mirror.pull(&format!("{path}?artifactType=application/x.0")).expect(200);
    assert_eq!((listed(&answer).len(), answer.header("oci-filters-applied")), (4, None));

    let behind = Gate::start(OPEN);
    push_image(&behind.plain(), "app", "v1");
    push_blob(&behind.plain(), "app", b"{}");
    for number in 0..4 {
        let bytes = referrer(&subject, number);
        put_manifest(&behind.plain(), "app", &digest(bytes.as_bytes()), bytes.as_bytes()).expect(201);
    }
    let gate = prepare(OPEN, &mirror_of(&format!("http://{}", behind.main), "")).start();
    let are_told = |gate: &Gate| {
        for kind in ["application/x.0", "application/x.1", "application/y"] {
            let answer = gate.plain().get(&format!("{path}?artifactType={kind}")).expect(200);
            let of_kind = |digest: &&String| {
                all.iter()
                    .position(|other| other == *digest)
                    .is_some_and(|at| kind == format!("application/x.{}", at % 2))
            };
            let mut expected: Vec<String> = all.iter().filter(of_kind).cloned().collect();
            expected.sort_unstable();
            assert_eq!(listed(&answer), expected, "{kind}");
            assert_eq!(answer.header("oci-filters-applied"), Some("artifactType"));
        }
    };
    are_told(&gate);
    // Also after a restart, where nobody is there who could tell.
    drop(behind);
    are_told(&gate.kill().start());
}

#[test]
fn referrers_that_were_known_were_none_after_a_restart() {
    for (ttl, is_stale) in [("1h", false), ("0s", true)] {
        let mirror = Mirror::start(&format!("tag_ttl = \"{ttl}\""));
        let (subject, _) = mirror.up.image("app", "v1", b"a layer");
        (0..5).for_each(|number| drop(refer(&mirror, &subject, number)));
        mirror.up.has_pages();
        let path = format!("/v2/up/app/referrers/{subject}");
        let all = mirror.pull(&path).expect(200).body;
        let Mirror { gate, up } = mirror;
        let prepared = gate.prepared();
        assert_eq!(gate.stop(), 0);
        up.forget_asked();
        let mirror = Mirror { gate: prepared.start(), up };
        assert_eq!(mirror.pull(&path).expect(200).body, all);
        // Three pages.
        assert_eq!(mirror.up.count("GET", "/referrers/"), if is_stale { 3 } else { 0 });
        let none = format!("/v2/up/app/referrers/{}", digest(b"none"));
        for _ in 0..2 {
            // What lists nothing is not written down; it is asked for.
            let asked = mirror.up.count("GET", &digest(b"none"));
            mirror.pull(&none).expect(200);
            assert_eq!(
                mirror.up.count("GET", &digest(b"none")),
                if asked == 0 || is_stale { asked + 1 } else { asked }
            );
        }
        let nothing = format!("/v2/up/app/manifests/{}", digest(&mirror.pull(&none).expect(200).body));
        let Mirror { gate, up } = mirror;
        drop(up);
        let gate = gate.kill().start();
        for path in [&path, &format!("/v2/up/app/manifests/{}", subject.replace(':', "-"))] {
            let answer = pull(gate.main, path, &[]).unwrap().expect(200);
            assert_eq!(answer.body, all);
            let warning = answer.header("warning").is_some_and(|text| text.starts_with("299 - \"stale: up "));
            assert_eq!(warning, is_stale, "{ttl} {path}: {:?}", answer.headers);
        }
        is_error(&pull(gate.main, &none, &[]).unwrap(), 404, "UNSUPPORTED");
        is_error(&pull(gate.main, &nothing, &[]).unwrap(), 503, "UNAVAILABLE");
    }
}

#[test]
fn that_there_is_no_list_was_remembered_as_long_as_a_list() {
    for status in [400, 404, 405, 501] {
        let mirror = Mirror::start("tag_ttl = \"1h\"\nnegative_ttl = \"1s\"");
        let (subject, _) = mirror.up.image("app", "v1", b"a layer");
        let referrer = refer(&mirror, &subject, 0);
        let path = format!("/v2/up/app/referrers/{subject}");
        mirror.up.fault("GET", "/referrers/", Fault::Status(status));
        (0..3).for_each(|_| is_error(&mirror.pull(&path), 404, "UNSUPPORTED"));
        assert!(mirror.up.count("GET", "/referrers/") <= 2, "it is remembered");
        mirror.up.heal();
        wait_until("the list", || mirror.pull(&path).status == 200);
        assert_eq!(listed(&mirror.pull(&path).expect(200)), [referrer]);
    }
}

#[test]
fn what_refers_to_an_image_was_not_purged_with_it() {
    let mirror = Mirror::start("tag_ttl = \"1h\"");
    let (subject, _) = mirror.up.image("app", "v1", b"a layer");
    refer(&mirror, &subject, 0);
    mirror.pull("/v2/up/app/manifests/v1").expect(200);
    for (count, purged) in [(1, "up/app:v1"), (2, "--all"), (3, "")] {
        let path = format!("/v2/up/app/referrers/{subject}");
        (0..2).for_each(|_| drop(mirror.pull(&path).expect(200)));
        assert_eq!(mirror.up.count("GET", "/referrers/"), count);
        if !purged.is_empty() {
            mirror.gate.prepared().succeed(&["cache", "purge", purged]);
        }
    }
}

/// By what was pushed through the gateway; what others push there is seen after `tag_ttl`.
#[test]
fn a_push_changes_what_is_known_of_referrers() {
    let behind = Gate::start(OPEN);
    let gate = prepare(OPEN, &upstream("fronted", &format!("http://{}", behind.main), "tag_ttl = \"1h\"")).start();
    let client = gate.plain();
    let subject = push_image(&behind.plain(), "app", "v1");
    push_blob(&behind.plain(), "app", b"{}");
    let path = format!("/v2/up/app/referrers/{subject}");
    let mut all = Vec::new();
    for number in 0..3 {
        let bytes = referrer(&subject, number);
        all.push(digest(bytes.as_bytes()));
        all.sort_unstable();
        put_manifest(&client, "up/app", &digest(bytes.as_bytes()), bytes.as_bytes()).expect(201);
        assert_eq!(listed(&client.get(&path).expect(200)), all);
    }
    let gone = all.remove(1);
    client.delete(&format!("/v2/up/app/manifests/{gone}")).expect(202);
    assert_eq!(listed(&client.get(&path).expect(200)), all);
}

/// The tag under which what refers to a manifest is looked for: at most 64 digits.
fn cut(subject: &str) -> String {
    subject.replace(':', "-").chars().take("sha512-".len() + 64).collect()
}

/// Tags of sha512 are cut, so whom they stand for is looked up among what is here.
#[test]
fn the_tag_of_referrers_of_a_sha512_was_nobodys() {
    let behind = Gate::start(OPEN);
    let image = String::from_utf8(manifest(&[b"{}", b"a layer"])).unwrap();
    let subject = Algorithm::Sha512.digest(image.as_bytes()).to_string();
    [&b"{}"[..], b"a layer"].iter().for_each(|blob| drop(push_blob(&behind.plain(), "app", blob)));
    put_manifest(&behind.plain(), "app", &subject, image.as_bytes()).expect(201);
    let bytes = referrer(&subject, 0);
    put_manifest(&behind.plain(), "app", &digest(bytes.as_bytes()), bytes.as_bytes()).expect(201);
    let gate = prepare(OPEN, &mirror_of(&format!("http://{}", behind.main), "negative_ttl = \"0s\"")).start();
    let client = gate.plain();
    let tag = format!("/v2/up/app/manifests/{}", cut(&subject));
    client.get(&format!("/v2/up/app/manifests/{subject}")).expect(200);
    assert_eq!(listed(&client.get(&tag).expect(200)), [digest(bytes.as_bytes())]);
    // Of another repository nothing is known.
    is_error(&client.get(&tag.replace("/app/", "/other/")), 404, "MANIFEST_UNKNOWN");
}

/// BuildKit reads signatures by it alone, docker where there is no list.
#[test]
fn the_tag_of_referrers_is_the_list_where_there_is_no_such_tag() {
    let mirror = Mirror::start("");
    let (subject, _) = mirror.up.image("app", "v1", b"a layer");
    let tag = subject.replace(':', "-");
    let path = |reference: &str| format!("/v2/up/app/manifests/{reference}");
    // Nothing refers to it.
    is_error(&mirror.pull(&path(&tag)), 404, "MANIFEST_UNKNOWN");
    let mirror = Mirror::start("");
    mirror.up.image("app", "v1", b"a layer");
    let referrer = refer(&mirror, &subject, 0);
    let got = mirror.pull(&path(&tag)).expect(200);
    assert_eq!((got.header("content-type"), listed(&got)), (Some(OCI_INDEX), vec![referrer]));
    let name = got.header("docker-content-digest").unwrap().to_owned();
    assert_eq!(digest(&got.body), name);
    assert_eq!(mirror.gate.plain().head(&path(&tag)).expect(200).header("docker-content-digest"), Some(&*name));
    assert_eq!(mirror.pull(&path(&name)).expect(200).body, got.body);
    let tags = mirror.pull("/v2/up/app/tags/list").expect(200).json();
    assert!(!tags["tags"].as_array().unwrap().contains(&json!(tag)), "{tags}");
    // Elsewhere it is nothing.
    is_error(&mirror.pull(&format!("/v2/up/other/manifests/{name}")), 404, "MANIFEST_UNKNOWN");
    // What is there under the tag comes first.
    let mirror = Mirror::start("");
    mirror.up.image("app", "v1", b"a layer");
    refer(&mirror, &subject, 0);
    mirror.up.manifest("app", &tag, br#"{"schemaVersion":2,"manifests":[]}"#);
    assert_eq!(mirror.pull(&path(&tag)).expect(200).body, br#"{"schemaVersion":2,"manifests":[]}"#);
}

#[test]
fn the_tag_of_referrers_can_be_deleted_at_a_fronted_registry() {
    let up = V2Upstream::start();
    let gate = prepare(OPEN, &upstream("fronted", &up.url(), "")).start();
    let mirror = Mirror { gate, up };
    let client = mirror.gate.plain();
    let (subject, _) = mirror.up.image("app", "v1", b"a layer");
    let tag = format!("/v2/up/app/manifests/{}", subject.replace(':', "-"));
    is_error(&client.delete(&tag), 404, "MANIFEST_UNKNOWN");
    refer(&mirror, &subject, 0);
    client.get(&tag).expect(200);
    client.delete(&tag).expect(202);
}
