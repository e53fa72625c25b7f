//! Challenges and tokens: "What a caller is told".

use super::support::{Gate, content};

fn challenge(gate: &Gate, path: &str) -> String {
    gate.tls().get(path).expect(401).header("www-authenticate").unwrap().to_owned()
}

const USERS_ONLY: &str = "[[access]]\nwho = [\"authenticated\"]\nrepositories = [\"**\"]\nactions = [\"*\"]\n";
const ANYONE_ONLY: &str = "[[access]]\nwho = [\"anyone\"]\nrepositories = [\"**\"]\nactions = [\"*\"]\n";

#[test]
fn where_only_users_may_anything_the_challenge_is_basic() {
    let gate = Gate::start(USERS_ONLY);
    assert_eq!(challenge(&gate, "/v2/"), "Basic realm=\"dockgate\"");
}

#[test]
fn where_some_things_are_for_anyone_the_challenge_is_bearer() {
    let gate = Gate::start("");
    let port = gate.main.port();
    let bearer = format!("Bearer realm=\"https://localhost:{port}/token\",service=\"dockgate\"");
    assert_eq!(challenge(&gate, "/v2/"), bearer);
    assert_eq!(challenge(&gate, "/v2/a/b/manifests/x"), format!("{bearer},scope=\"repository:a/b:pull\""));
    let put = gate.tls().send("POST", "/v2/a/b/blobs/uploads/", &[], b"").expect(401);
    assert_eq!(put.header("www-authenticate"), Some(&*format!("{bearer},scope=\"repository:a/b:pull,push\"")));
    let plain = gate.plain().get("/v2/").expect(401);
    assert!(plain.header("www-authenticate").unwrap().starts_with("Bearer realm=\"http://localhost"));
}

#[test]
fn where_anyone_may_everything_nobody_is_asked() {
    let gate = Gate::start(ANYONE_ONLY);
    gate.tls().get("/v2/").expect(200);
    content::push_image(&gate.tls(), "app", "v1");
}

#[test]
fn basic_is_always_taken_and_empty_credentials_are_anonymous() {
    let gate = Gate::start("");
    gate.root().get("/v2/").expect(200);
    content::push_image(&gate.root(), "public/app", "v1");
    gate.tls().user("", "").get("/v2/public/app/manifests/v1").expect(200);
    gate.tls().user("", "").get("/v2/private/app/manifests/v1").expect(401);
    for client in [gate.tls().user("admin", "wrong"), gate.tls().user("nobody", "wrong")] {
        client.get("/v2/public/app/manifests/v1").expect(401);
        let refused = client.get("/token?service=dockgate").expect(401);
        assert_eq!(refused.header("www-authenticate"), Some("Basic realm=\"dockgate\""));
    }
}

#[test]
fn anonymous_tokens_pull_what_is_public() {
    let gate = Gate::start("");
    content::push_image(&gate.root(), "public/app", "v1");
    content::push_image(&gate.root(), "private/app", "v1");
    let scope = "scope=repository:public/app:pull,push&scope=repository:private/app:pull";
    let answer = gate.tls().get(&format!("/token?service=dockgate&{scope}")).expect(200).json();
    assert_eq!(answer["expires_in"], 300);
    assert_eq!(answer["token"], answer["access_token"]);
    let client = gate.tls().with("Authorization", &format!("Bearer {}", answer["token"].as_str().unwrap()));
    client.get("/v2/").expect(200);
    client.get("/v2/public/app/manifests/v1").expect(200);
    client.get("/v2/private/app/manifests/v1").expect(401);
    client.send("POST", "/v2/public/app/blobs/uploads/", &[], b"").expect(401);
}

/// oras-py and oci-client ask for pull, and then push with it; BuildKit hands its token to a daemon that others use, too.
#[test]
fn a_token_says_who_and_the_rules_say_what_but_for_deleting() {
    let gate = Gate::start("");
    content::push_image(&gate.root(), "app", "v1");
    let token = |scope: &str| {
        let token = gate.root().get(&format!("/token?service=dockgate&scope={scope}")).expect(200).json();
        gate.tls().with("Authorization", &format!("Bearer {}", token["token"].as_str().unwrap()))
    };
    let client = token("repository:app:pull");
    client.get("/v2/app/manifests/v1").expect(200);
    client.send("POST", "/v2/app/blobs/uploads/", &[], b"").expect(202);
    client.send("POST", "/v2/other/blobs/uploads/", &[], b"").expect(202);
    let answer = client.delete("/v2/app/manifests/v1").expect(401);
    let challenge = answer.header("www-authenticate").unwrap();
    assert!(
        challenge.contains("error=\"insufficient_scope\"") && challenge.contains("repository:app:delete"),
        "{challenge}"
    );
    token("repository:app:delete").delete("/v2/app/manifests/v1").expect(202);
    // A token does not get another token.
    client.get("/token?service=dockgate&scope=repository:app:pull,push").expect(401);
}

#[test]
fn forged_tokens_are_refused() {
    let gate = Gate::start("");
    let token = gate.root().get("/token?service=dockgate").expect(200).json()["token"].as_str().unwrap().to_owned();
    let other = Gate::start("").root().get("/token?service=dockgate").json()["token"].as_str().unwrap().to_owned();
    let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
    for forged in [other, unsigned, "x".into(), "a.b.c".into(), format!("{token}x")] {
        let answer = gate.tls().with("Authorization", &format!("Bearer {forged}")).get("/v2/").expect(401);
        assert!(answer.header("www-authenticate").unwrap().contains("invalid_token"));
    }
}

#[test]
fn a_token_outlives_a_restart() {
    let gate = Gate::start("");
    let token = gate.root().get("/token?service=dockgate").expect(200).json()["token"].as_str().unwrap().to_owned();
    let prepared = gate.prepared();
    assert_eq!(gate.stop(), 0);
    let gate = prepared.start();
    gate.tls().with("Authorization", &format!("Bearer {token}")).get("/v2/").expect(200);
}

#[test]
fn credentials_that_cannot_be_read_are_answered_with_a_challenge() {
    let gate = Gate::start("");
    for header in ["Basic", "Basic !!!", "Basic YQ==", "Bearer"] {
        let answer = gate.tls().with("Authorization", header).get("/v2/").expect(401);
        assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer realm="), "{header}");
    }
    let twice = gate.root().with("Authorization", "Basic Og==").get("/v2/").expect(401);
    assert!(twice.header("www-authenticate").is_some());
}

/// regclient asks for all that it will need.
#[test]
fn a_token_for_five_hundred_repositories_was_refused() {
    let gate = Gate::start("");
    let scopes: Vec<String> = (0..500).map(|n| format!("repository:team/app-{n}:pull")).collect();
    let by_get = gate.root().get(&format!("/token?service=dockgate&scope={}", scopes.join("&scope=")));
    let password = std::fs::read_to_string(gate.path("data/initial-password")).unwrap();
    let form = format!(
        "grant_type=password&service=dockgate&client_id=x&username=admin&password={}&scope={}",
        password.trim(),
        scopes.join("%20")
    );
    let by_form =
        gate.tls().send("POST", "/token", &[("Content-Type", "application/x-www-form-urlencoded")], form.as_bytes());
    for answer in [by_get, by_form] {
        let token = answer.expect(200).json()["access_token"].as_str().unwrap().to_owned();
        assert!(token.len() < 1_000, "{}", token.len());
        gate.tls().with("Authorization", &format!("Bearer {token}")).get("/v2/").expect(200);
    }
}

#[test]
fn a_list_shows_what_the_rules_let_a_token_see() {
    let gate = Gate::start("");
    content::push_image(&gate.root(), "secret/app", "v1");
    let token = |scope: &str| {
        let answer = gate.root().get(&format!("/token?service=dockgate&scope={scope}")).expect(200).json();
        gate.tls().with("Authorization", &format!("Bearer {}", answer["token"].as_str().unwrap()))
    };
    for scope in ["repository:public/none:pull", "registry:catalog:*"] {
        let listed = token(scope).get("/v2/_catalog").expect(200).json();
        assert_eq!(listed["repositories"].to_string(), r#"["secret/app"]"#);
    }
    let nobody = gate.tls().get("/token?service=dockgate&scope=registry:catalog:*").expect(200).json();
    let nobody = gate.tls().with("Authorization", &format!("Bearer {}", nobody["token"].as_str().unwrap()));
    assert_eq!(nobody.get("/v2/_catalog").expect(200).json()["repositories"].to_string(), "[]");
}

#[test]
fn a_bad_token_on_a_push_is_asked_for_one_that_may_push() {
    let gate = Gate::start("");
    let client = gate.tls().with("Authorization", "Bearer bad");
    let answer = client.send("POST", "/v2/app/blobs/uploads/?mount=sha256:1&from=base", &[], b"").expect(400);
    assert_eq!(answer.code(), "DIGEST_INVALID");
    let mount = format!("/v2/app/blobs/uploads/?mount={}&from=base", content::digest(b""));
    let answer = client.send("POST", &mount, &[], b"").expect(401);
    let challenge = answer.header("www-authenticate").unwrap();
    assert!(challenge.contains("scope=\"repository:app:pull,push repository:base:pull\""), "{challenge}");
}

#[test]
fn the_operator_may_say_how_callers_are_asked_who_they_are() {
    const MIXED: &str = "[[access]]\nwho = [\"anyone\"]\nrepositories = [\"public/**\"]\nactions = [\"pull\"]\n\
                         [[access]]\nwho = [\"authenticated\"]\nrepositories = [\"**\"]\nactions = [\"*\"]\n";
    const CLOSED: &str = "[[access]]\nwho = [\"authenticated\"]\nrepositories = [\"**\"]\nactions = [\"*\"]\n";
    for (rules, challenge, begins) in [
        (MIXED, "auto", "Bearer realm="),
        (CLOSED, "auto", "Basic realm="),
        (MIXED, "basic", "Basic realm="),
        (CLOSED, "bearer", "Bearer realm="),
    ] {
        let gate = Gate::start(&format!("[identity]\nchallenge = \"{challenge}\"\n{rules}"));
        let answer = gate.tls().get("/v2/").expect(401);
        assert!(answer.header("www-authenticate").unwrap().starts_with(begins), "{challenge} {rules}");
        // A password is taken in any case.
        gate.root().get("/v2/").expect(200);
    }
}
