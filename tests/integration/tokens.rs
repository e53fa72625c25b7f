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

#[test]
fn a_token_that_lacks_a_scope_is_asked_for_a_better_one() {
    let gate = Gate::start("");
    content::push_image(&gate.root(), "app", "v1");
    let token = gate.root().get("/token?service=dockgate&scope=repository:app:pull").expect(200).json();
    let client = gate.tls().with("Authorization", &format!("Bearer {}", token["token"].as_str().unwrap()));
    client.get("/v2/app/manifests/v1").expect(200);
    let answer = client.send("POST", "/v2/app/blobs/uploads/", &[], b"").expect(401);
    let challenge = answer.header("www-authenticate").unwrap();
    assert!(
        challenge.contains("error=\"insufficient_scope\"") && challenge.contains("repository:app:pull,push"),
        "{challenge}"
    );
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

#[test]
fn a_token_for_one_repository_does_not_list_the_others() {
    let gate = Gate::start("");
    content::push_image(&gate.root(), "secret/app", "v1");
    let token = |scope: &str| {
        let answer = gate.root().get(&format!("/token?service=dockgate&scope={scope}")).expect(200).json();
        gate.tls().with("Authorization", &format!("Bearer {}", answer["token"].as_str().unwrap()))
    };
    let answer = token("repository:public/none:pull").get("/v2/_catalog").expect(401);
    let challenge = answer.header("www-authenticate").unwrap();
    assert!(challenge.contains("registry:catalog:*") && challenge.contains("insufficient_scope"), "{challenge}");
    let listed = token("registry:catalog:*").get("/v2/_catalog").expect(200).json();
    assert_eq!(listed["repositories"].to_string(), r#"["secret/app"]"#);
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
