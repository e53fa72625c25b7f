//! What the v1 registry is asked: only what was allowed, in its own spelling, and as few things as need be.

use http::{Method, StatusCode};

use super::super::support::v1_client::{AGENT, V1Client, nothing};
use super::super::support::v1_registry::V1Registry;
use super::super::support::v1_upstream::V1Upstream;
use super::super::support::{Client, Gate};
use super::wire::v1_error;
use super::{PATIENT_HEALTH, RULES, basic, images, prepare, top_first};

const IMAGE: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn start(upstream: &V1Upstream, settings: &str) -> Gate {
    prepare(RULES, &[upstream.address], settings).start()
}

fn dev(gate: &Gate) -> Client {
    gate.tls().user("dev", "dev")
}

/// The registry's rule for a repository's root takes any path, and that for its images none with a slash at its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_slash_at_the_end_made_the_registry_delete_another_repository() {
    let registry = V1Registry::start();
    let rules = "[[access]]\nwho = [\"user:team\"]\nrepositories = [\"library/foo\"]\nactions = [\"*\"]\n";
    let gate = prepare(rules, &[registry.address()], PATIENT_HEALTH).start();
    let mut straight = V1Client::plain(&registry.address().to_string());
    for repository in ["foo", "foo/images"] {
        straight.push(repository, "1.0", &images(repository)).await;
    }
    let mut client = V1Client::tls(&gate.main.to_string(), &gate.path("certs/ca.crt"));
    for word in ["images", "tags", "json", "properties", "auth"] {
        for end in ["", "/"] {
            for method in [Method::DELETE, Method::PUT, Method::POST, Method::PATCH] {
                if (&method, word, end) == (&Method::DELETE, "tags", "") {
                    continue; // The same as to delete the repository itself.
                }
                let path = format!("/v1/repositories/foo/{word}{end}");
                client.call(method, &path, AGENT, &[basic("team", "team")], nothing()).await;
            }
        }
    }
    for repository in ["foo", "foo/images"] {
        assert_eq!(straight.pull(repository, "1.0").await, top_first(&images(repository)), "{repository}");
    }
    let deleted = client.call(Method::DELETE, "/v1/repositories/foo", AGENT, &[basic("team", "team")], nothing()).await;
    assert_eq!(deleted.status, StatusCode::OK);
    let tags = straight.call(Method::GET, "/v1/repositories/foo/tags", AGENT, &[], nothing()).await;
    assert_eq!(tags.status, StatusCode::NOT_FOUND);
    assert_eq!(straight.pull("foo/images", "1.0").await, top_first(&images("foo/images")));
}

/// Whether a path has a word behind the repository's name.
fn is_of_repository(path: &str) -> bool {
    let words = ["/tags", "/images", "/auth", "/json", "/properties"];
    path.starts_with("/v1/repositories/") && words.iter().any(|word| path.contains(word))
}

/// The paths of 0.9.1, whatever the caller's look like.
#[test]
fn the_callers_spelling_reached_the_registry() {
    let upstream = V1Upstream::echo();
    let gate = start(&upstream, "");
    let client = gate.tls().user("root", "root");
    let image = |word: &str| format!("/v1/images/{IMAGE}/{word}");
    for (methods, path, expected) in [
        (&["PUT", "DELETE"][..], "/v1/repositories/team/app".to_owned(), "/v1/repositories/team/app/".to_owned()),
        (&["PUT", "DELETE"], "/v1/repositories/app".to_owned(), "/v1/repositories/library/app/".to_owned()),
        (
            &["GET", "HEAD", "DELETE"],
            "/v1/repositories/app/tags".to_owned(),
            "/v1/repositories/library/app/tags".to_owned(),
        ),
        (&["GET", "PUT"], "/v1/repositories/a/b/images".to_owned(), "/v1/repositories/a/b/images".to_owned()),
        (&["GET", "HEAD"], "/v1/repositories/a/b/json".to_owned(), "/v1/repositories/a/b/json".to_owned()),
        (&["GET", "PUT"], "/v1/repositories/a/b/properties".to_owned(), "/v1/repositories/a/b/properties".to_owned()),
        (
            &["GET", "PUT", "DELETE"],
            "/v1/repositories/a/b/tags/1.0".to_owned(),
            "/v1/repositories/a/b/tags/1.0".to_owned(),
        ),
        (&["GET"], "/v1/repositories/a/b/tags/1.0/json".to_owned(), "/v1/repositories/a/b/tags/1.0/json".to_owned()),
        (&["GET", "HEAD"], image("json"), image("json")),
        (&["GET", "HEAD", "PUT"], image("layer"), image("layer")),
        (&["PUT"], image("checksum"), image("checksum")),
        (&["GET"], image("ancestry"), image("ancestry")),
        (&["GET"], image("files"), image("files")),
        (&["GET"], image("diff"), image("diff")),
    ] {
        for method in methods {
            for end in ["", "/", "?q=x", "/?_method=DELETE"] {
                let body = match path.as_str() {
                    _ if *method != "PUT" => String::new(),
                    path if path.ends_with("/tags/1.0") => format!("\"{IMAGE}\""),
                    path if path.starts_with("/v1/images/") => format!("{{\"id\":\"{IMAGE}\"}}"),
                    _ => "[]".to_owned(),
                };
                // With a slash at its end it is the name of another repository, which v1 cannot have.
                let is_name = end.starts_with('/') && is_of_repository(&path);
                let answer = client.send(method, &format!("{path}{end}"), &[], body.as_bytes());
                let answer = answer.expect(if is_name { 400 } else { 200 });
                if is_name {
                    assert!(*method == "HEAD" || answer.text().contains("nothing can be called"), "{answer:?}");
                    continue;
                }
                let asked = upstream.asked().pop().unwrap();
                assert_eq!((asked.method.as_str(), asked.target), (*method, expected.clone()), "{path}{end}");
            }
        }
    }
    for (target, expected) in [
        ("/v1/search?q=a%2Fb&n=25", "/v1/search?q=a%2Fb"),
        ("/v1/search/?q=a", "/v1/search?q=a"),
        ("/v1/search", "/v1/search?q="),
    ] {
        client.get(target).expect(200);
        assert_eq!(upstream.asked().pop().unwrap().target, expected);
    }
}

#[test]
fn methods_that_a_path_does_not_have_reached_the_registry() {
    let upstream = V1Upstream::echo();
    let gate = start(&upstream, "");
    let client = gate.tls().user("root", "root");
    let image = |word: &str| format!("/v1/images/{IMAGE}/{word}");
    for (path, allow) in [
        ("/v1/repositories/team/app/".to_owned(), "PUT, DELETE"),
        ("/v1/repositories/app/tags".to_owned(), "GET, HEAD, DELETE"),
        ("/v1/repositories/app/images".to_owned(), "GET, HEAD, PUT, DELETE"),
        ("/v1/repositories/app/auth".to_owned(), "PUT"),
        ("/v1/repositories/app/json".to_owned(), "GET, HEAD"),
        ("/v1/repositories/app/properties".to_owned(), "GET, HEAD, PUT"),
        ("/v1/repositories/app/tags/1.0".to_owned(), "GET, HEAD, PUT, DELETE"),
        ("/v1/repositories/app/tags/1.0/json".to_owned(), "GET, HEAD"),
        (image("json"), "GET, HEAD, PUT"),
        (image("layer"), "GET, HEAD, PUT"),
        (image("checksum"), "PUT"),
        (image("ancestry"), "GET, HEAD"),
        (image("files"), "GET, HEAD"),
        (image("diff"), "GET, HEAD"),
        ("/v1/search".to_owned(), "GET, HEAD"),
        ("/v1/_ping".to_owned(), "GET, HEAD"),
        ("/v1/users/".to_owned(), "GET, HEAD, POST"),
    ] {
        for end in ["", "/"] {
            let path = format!("{}{end}", path.trim_end_matches('/'));
            for method in ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"] {
                if end == "/" && is_of_repository(&path) {
                    client.send(method, &path, &[], b"").expect(400);
                } else if !allow.split(", ").any(|allowed| allowed == method) {
                    let answer = client.send(method, &path, &[], b"").expect(405);
                    assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
                }
            }
        }
    }
    assert_eq!(client.get(&image("layer_files")).status, 404, "0.9.1 has no such path");
    assert_eq!(upstream.asked().len(), 0);
}

/// WSGI reads `X_Forwarded_For` as `X-Forwarded-For`.
#[test]
fn a_name_with_an_underscore_said_who_called() {
    let upstream = V1Upstream::echo();
    let gate = start(&upstream, "");
    let sent = [
        ("X_Forwarded_For", "10.0.0.1"),
        ("X-Forwarded_Proto", "gopher"),
        ("X_Real-IP", "10.0.0.1"),
        ("X_Docker_Token", "true"),
        ("Content_Length", "7"),
        ("X-Docker-Token", "true"),
    ];
    dev(&gate).send("GET", "/v1/repositories/a/b/json", &sent, b"").expect(200);
    let asked = upstream.asked().pop().unwrap();
    let odd: Vec<_> = asked.headers.iter().filter(|(name, _)| name.contains('_')).collect();
    assert!(odd.is_empty(), "{odd:?}");
    assert_eq!(asked.all("x-docker-token"), ["true"]);
}

/// Since a login gives docker a refresh token, it searches with a token for the list.
#[test]
fn docker_could_not_search_after_a_login() {
    let upstream = V1Upstream::echo();
    let gate = start(&upstream, "");
    let search = |scope: &str| {
        let token = dev(&gate).get(&format!("/token?service=dockgate&scope={scope}")).expect(200).json();
        let bearer = format!("Bearer {}", token["token"].as_str().unwrap());
        gate.tls().send("GET", "/v1/search?q=a", &[("Authorization", &bearer)], b"").status
    };
    assert_eq!(search("registry:catalog:search"), 200);
    assert!(upstream.asked().pop().unwrap().all("authorization").is_empty(), "a token of ours is for us alone");
    // Whatever else it was asked for, it says who searches.
    assert_eq!(search("repository:team/app:pull"), 200);
}

/// Docker up to 1.10 asks to make a user, and only where that fails in one of these ways whether the password is right.
#[test]
fn a_login_made_a_user_in_the_registry() {
    let upstream = V1Upstream::echo();
    let gate = start(&upstream, "");
    let account = br#"{"username":"dev","password":"dev","email":"a@b.example"}"#;
    let json = [("Content-Type", "application/json")];
    for path in ["/v1/users/", "/v1/users"] {
        for client in [gate.tls(), gate.tls().user("", ""), gate.tls().user("dev", "wrong")] {
            let wrong = client.get(path).expect(401);
            assert_eq!(wrong.header("www-authenticate"), Some("Basic realm=\"dockgate\""));
        }
        let right = dev(&gate).get(path).expect(200);
        assert_eq!((right.header("content-type"), right.text().as_str()), (Some("application/json"), "\"OK\""));
        assert_eq!(right.header("docker-distribution-api-version"), None);
        dev(&gate).head(path).expect(200);
        // Whoever asks is told the same: who is a user is for nobody to find out.
        let other = br#"{"username":"nobody","password":"dev","email":"a@b.example"}"#;
        for (client, account) in [(gate.tls(), &account[..]), (gate.tls(), other), (dev(&gate), account)] {
            let exists = client.send("POST", path, &json, account).expect(400);
            assert_eq!(exists.text(), "\"Username or email already exists\"");
        }
    }
    assert_eq!(upstream.asked().len(), 0);
}

#[test]
fn old_clients_were_sent_to_a_registry_that_is_not_there() {
    let gate = Gate::start(RULES);
    for path in ["/v2/", "/v2/team/app/tags/list"] {
        let answer = gate.tls().with("User-Agent", "Go 1.1 package http").get(path).expect(404);
        assert_eq!(answer.header("docker-distribution-api-version"), None);
        assert!(answer.text().contains("no v1 registry is configured"), "{answer:?}");
        assert!(answer.text().contains("upstreams/legacy-v1.toml"), "{answer:?}");
    }
}

/// It was told as if there were none, with 404, which docker takes for an image that is not there.
#[test]
fn a_mistake_in_the_file_of_the_v1_registry_was_told_as_no_file() {
    let upstream = V1Upstream::echo();
    let gate = prepare(RULES, &[upstream.address], "standalon = false").start();
    let root = gate.tls().user("root", "root");
    root.get("/v1/_ping").expect(200);
    root.get("/v1/search?q=a").expect(200);
    for path in ["/v1/repositories/team/app/tags", "/v1/users/"] {
        let message = v1_error(root.get(path), 503);
        assert!(message.contains("has a mistake"), "{message}");
    }
    let old = gate.tls().with("User-Agent", "Go 1.1 package http").get("/v2/").expect(404);
    assert!(old.text().contains("has a mistake"), "{old:?}");
    assert!(upstream.asked().is_empty());
}

#[test]
fn a_caller_behind_a_proxy_forged_its_name() {
    let upstream = V1Upstream::echo();
    let rules = format!("{RULES}\n[listen.main]\naddress = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1\"]\n");
    let gate = prepare(&rules, &[upstream.address], "").start();
    let sent = [
        ("Forwarded", "for=10.0.0.1;proto=http;host=evil.example"),
        ("X-Forwarded-For", "198.51.100.7"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "hub.example"),
    ];
    gate.plain().user("dev", "dev").send("GET", "/v1/repositories/a/b/json", &sent, b"").expect(200);
    let asked = upstream.asked().pop().unwrap();
    for (name, value) in [
        ("x-forwarded-for", "198.51.100.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "hub.example"),
        ("host", "hub.example"),
    ] {
        assert_eq!(asked.all(name), [value], "{name}");
    }
}

/// A registry whose name leads back to the gateway was asked for ever.
#[test]
fn a_request_of_ours_that_comes_back_is_told() {
    let upstream = V1Upstream::echo();
    let gate = start(&upstream, "");
    let client = gate.plain().user("dev", "dev");
    client.get("/v1/search?q=a").expect(200);
    let via = upstream.asked().pop().unwrap().all("via")[0].to_owned();
    let answer = client.with("Via", &format!("1.1 other, {via}")).get("/v1/search?q=a");
    assert_eq!(answer.status, 508, "{}", answer.text());
    assert!(answer.json()["error"].as_str().unwrap().contains("leads back"), "{}", answer.text());
    assert_eq!(upstream.asked().len(), 1);
}

/// Two gateways before each other: each took the name of the other away, and neither knew its own request.
#[test]
fn the_names_of_others_on_the_way_were_lost() {
    let upstream = V1Upstream::echo();
    let gate = start(&upstream, "");
    let client = gate.plain().user("dev", "dev").with("Via", "1.1 dockgate-0123456789abcdef");
    client.get("/v1/search?q=a").expect(200);
    let asked = upstream.asked().pop().unwrap();
    let vias = asked.all("via").join(", ");
    assert!(vias.starts_with("1.1 dockgate-0123456789abcdef, 1.1 dockgate-"), "{vias}");
}
