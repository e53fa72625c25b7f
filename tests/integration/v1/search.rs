//! `docker search` and `podman search`: the registry inside and the v1 registry in one list, as far as the caller may see it.

use serde_json::{Value, json};

use super::super::support::v1_upstream::{V1Upstream, nobody, reply};
use super::super::support::{Answer, Client, Gate, content};
use super::prepare;
use super::wire::v1_error;

const RULES: &str = r#"
[[access]]
who = ["user:root"]
repositories = ["**"]
actions = ["*"]
[[access]]
who = ["user:team"]
repositories = ["team/**"]
actions = ["pull"]
[[access]]
who = ["anyone"]
repositories = ["public/**"]
actions = ["pull"]
"#;

const OLD: [&str; 5] = ["team/old-app", "public/old-app", "library/secret", "team/both", "no name"];

fn upstream() -> V1Upstream {
    V1Upstream::start(|asked| match asked.target.as_str() {
        "/v1/_ping" => reply(200, &[], b"{}"),
        target => {
            let term = target.strip_prefix("/v1/search?q=").unwrap().replace("%2D", "-").replace("%2F", "/");
            let found: Vec<Value> = OLD
                .iter()
                .filter(|name| name.contains(&term))
                .map(|name| json!({ "name": name, "description": format!("about {name}") }))
                .collect();
            reply(
                200,
                &[],
                json!({ "query": term, "num_results": found.len(), "results": found }).to_string().as_bytes(),
            )
        }
    })
}

fn house(rules: &str, upstream: &V1Upstream) -> Gate {
    let gate = prepare(rules, &[upstream.address], "").start();
    let root = gate.tls().user("root", "root");
    for name in ["team/new-app", "public/new-app", "secret/new-app", "team/both"] {
        content::push_image(&root, name, "v1");
    }
    gate
}

/// docker says that it takes v1 credentials; where it has none it sends empty ones over TLS.
fn docker(client: &Client) -> Client {
    client.with("X-Docker-Token", "true")
}

fn names(answer: Answer) -> String {
    let json = answer.expect(200).json();
    let names: Vec<_> =
        json["results"].as_array().unwrap().iter().map(|found| found["name"].as_str().unwrap()).collect();
    assert_eq!(json["num_results"], names.len(), "{json}");
    names.join(" ")
}

#[test]
fn both_registries_are_searched_for_what_the_caller_may_see() {
    let upstream = upstream();
    let gate = house(RULES, &upstream);
    for (client, term, expected) in [
        (
            gate.tls().user("root", "root"),
            "app",
            "public/new-app public/old-app secret/new-app team/new-app team/old-app",
        ),
        (
            gate.tls().user("root", "root"),
            "",
            "library/secret public/new-app public/old-app secret/new-app team/both team/new-app team/old-app",
        ),
        (gate.tls().user("root", "root"), "none", ""),
        (gate.plain().user("team", "team"), "app", "public/new-app public/old-app team/new-app team/old-app"),
        (gate.plain().user("team", "team"), "team/", "team/both team/new-app team/old-app"),
        (gate.plain().user("team", "team"), "secret", ""),
        (docker(&gate.tls().user("", "")), "app", "public/new-app public/old-app"),
        (docker(&gate.plain()), "app", "public/new-app public/old-app"),
    ] {
        assert_eq!(names(client.get(&format!("/v1/search?q={term}"))), expected, "{term}");
    }
    // No token, and nothing of the caller, is said to the registry.
    assert!(upstream.asked().iter().all(|asked| asked.all("authorization").is_empty()));
}

#[test]
fn a_result_has_what_docker_and_podman_read() {
    let upstream = upstream();
    let gate = house(RULES, &upstream);
    let found = gate.tls().user("team", "team").get("/v1/search?q=OLD-app&n=25").expect(200);
    assert_eq!(found.header("content-type"), Some("application/json"));
    assert_eq!(found.json()["results"], json!([]), "the old registry looks for the letters as they are");
    let found = gate.tls().user("team", "team").get("/v1/search?q=NEW-app&n=25").expect(200).json();
    assert_eq!(found["results"].as_array().unwrap().len(), 2, "the names inside are of small letters: {found}");
    let found = gate.tls().user("team", "team").get("/v1/search?q=team/old&n=25").expect(200).json();
    let expected = json!({
        "query": "team/old", "num_results": 1, "num_pages": 1, "page": 1, "page_size": 25,
        "results": [{
            "name": "team/old-app", "description": "about team/old-app", "star_count": 0,
            "is_official": false, "is_automated": false, "is_trusted": false,
        }],
    });
    assert_eq!(found, expected);
}

#[test]
fn a_search_has_pages() {
    let upstream = upstream();
    let gate = house(RULES, &upstream);
    let page = |query: &str| {
        let json = gate.tls().user("root", "root").get(&format!("/v1/search?q=app&{query}")).expect(200).json();
        let names = json["results"].as_array().unwrap().iter().map(|found| found["name"].as_str().unwrap().to_owned());
        assert_eq!(json["num_results"], 5);
        (names.collect::<Vec<_>>().join(" "), json["num_pages"].as_u64().unwrap(), json["page_size"].as_u64().unwrap())
    };
    assert_eq!(page("n=2"), ("public/new-app public/old-app".into(), 3, 2));
    assert_eq!(page("n=2&page=2"), ("secret/new-app team/new-app".into(), 3, 2));
    assert_eq!(page("n=2&page=3"), ("team/old-app".into(), 3, 2));
    assert_eq!(page("n=2&page=4"), (String::new(), 3, 2));
    assert_eq!(page("n=0").2, 5, "all of them");
    assert_eq!(page("n=1000000").2, 100);
    v1_error(gate.tls().user("root", "root").get("/v1/search?q=app&n=many"), 400);
}

/// It need not have a search; where it has one, that knows what was there before the gateway.
#[test]
fn of_a_registry_whose_index_we_are_what_is_known_and_what_it_finds_is_found() {
    for (search, expected) in [
        (reply(404, &[], b""), "team/learnt-app"),
        (reply(500, &[], b""), "team/learnt-app"),
        (
            reply(200, &[], br#"{"results":[{"name":"team/old-app"},{"name":"secret/app"}]}"#),
            "team/learnt-app team/old-app",
        ),
    ] {
        let upstream = V1Upstream::start(move |asked| match asked.target.as_str() {
            target if target.starts_with("/v1/search") => search.clone(),
            target if target.ends_with("/tags") => reply(200, &[], br#"{"1.0":"0123456789abcdef"}"#),
            _ => reply(200, &[], b"{}"),
        });
        let gate = prepare(RULES, &[upstream.address], "standalone = false").start();
        for repository in ["team/learnt-app", "secret/learnt-app"] {
            gate.tls().user("root", "root").get(&format!("/v1/repositories/{repository}/tags")).expect(200);
        }
        assert_eq!(names(gate.tls().user("team", "team").get("/v1/search?q=app")), expected);
        let searched = upstream.asked().into_iter().find(|asked| asked.target.starts_with("/v1/search")).unwrap();
        assert!(searched.all("authorization").is_empty(), "{searched:?}");
    }
}

/// podman never says here who it is. Refused, it asks for the list of v2, and says it there.
#[test]
fn who_shows_nothing_is_asked_unless_nobody_needs_to() {
    let upstream = upstream();
    let gate = house(RULES, &upstream);
    v1_error(gate.tls().get("/v1/search?q=app"), 401);
    v1_error(gate.tls().user("root", "wrong").get("/v1/search?q=app"), 401);
    v1_error(docker(&gate.tls()).user("root", "wrong").get("/v1/search?q=app"), 401);
    let everybody = "[[access]]\nwho = [\"anyone\"]\nrepositories = [\"**\"]\nactions = [\"pull\", \"push\"]\n";
    let gate = prepare(everybody, &[upstream.address], "").start();
    assert_eq!(names(gate.plain().get("/v1/search?q=old-app")), "public/old-app team/old-app");
    let nobody = "[[access]]\nwho = [\"user:root\"]\nrepositories = [\"**\"]\nactions = [\"*\"]\n";
    let gate = prepare(nobody, &[upstream.address], "").start();
    v1_error(docker(&gate.tls().user("", "")).get("/v1/search?q=app"), 401);
}

#[test]
fn without_a_v1_registry_there_is_still_a_search() {
    let prepared = Gate::prepare(RULES);
    prepared.write("htpasswd", &format!("root:{}\n", bcrypt::hash("root", 4).unwrap()));
    let gate = prepared.start();
    let root = gate.tls().user("root", "root");
    content::push_image(&root, "team/app", "v1");
    content::push_image(&root, "public/app", "v1");
    assert_eq!(names(root.get("/v1/search?q=app")), "public/app team/app");
    assert_eq!(names(docker(&gate.plain()).get("/v1/search?q=app")), "public/app");
    gate.tls().get("/v1/_ping").expect(200);
}

#[test]
fn a_v1_registry_that_cannot_be_searched_hides_nothing_and_makes_nothing_up() {
    let searching = |answer: fn() -> Vec<u8>| {
        V1Upstream::start(move |asked| if asked.target == "/v1/_ping" { reply(200, &[], b"{}") } else { answer() })
    };
    let without = searching(|| reply(404, &[], b"<h1>Not Found</h1>"));
    let gate = house(RULES, &without);
    assert_eq!(names(gate.tls().user("team", "team").get("/v1/search?q=new")), "public/new-app team/new-app");
    assert_eq!(names(gate.tls().user("team", "team").get("/v1/search?q=old")), "", "it has no search of its own");
    let failing = searching(|| reply(500, &[], b"{}"));
    let half =
        searching(|| b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{\"results\":".to_vec());
    let odd = searching(|| reply(200, &[], b"{\"results\":[{\"name\":7},{},[],{\"name\":\"../x\"}]}"));
    for (upstream, status) in [(&failing, 502), (&half, 502), (&odd, 200)] {
        let gate = house(RULES, upstream);
        let team = gate.tls().user("team", "team");
        assert_eq!(names(team.get("/v1/search?q=new")), "public/new-app team/new-app");
        assert_eq!(team.get("/v1/search?q=old").status, status);
    }
    let down = prepare(RULES, &[nobody()], "").start();
    let message = v1_error(down.tls().user("team", "team").get("/v1/search?q=old"), 503);
    assert!(message.contains("upstreams/legacy-v1.toml"), "{message}");
}
