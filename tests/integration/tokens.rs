//! Challenges and tokens: "What a caller is told".

use super::support::gate::{ADA, wait_until};
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

/// Fields, as a form is sent.
fn post(gate: &Gate, form: &str) -> super::support::Answer {
    let kind = [("Content-Type", "application/x-www-form-urlencoded")];
    gate.tls().send("POST", "/token", &kind, form.as_bytes())
}

fn bearer(gate: &Gate, token: &serde_json::Value) -> super::support::Client {
    gate.tls().with("Authorization", &format!("Bearer {}", token.as_str().unwrap()))
}

fn gate_with_ada(config: &str) -> Gate {
    let prepared = Gate::prepare(config);
    prepared.write("htpasswd", ADA);
    prepared.start()
}

#[test]
fn the_oauth2_form_gives_tokens_for_a_password() {
    let gate = gate_with_ada("");
    let form =
        "grant_type=password&service=dockgate&client_id=test&username=ada&password=ada&scope=repository:a:pull,push";
    let answer = post(&gate, form).expect(200);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let answer = answer.json();
    assert_eq!(answer["scope"], "repository:a:pull,push");
    assert!(answer.get("refresh_token").is_none(), "it was not asked for");
    content::push_image(&bearer(&gate, &answer["access_token"]), "a", "v1");
    for (form, status) in [
        ("grant_type=password&username=ada&password=wrong", 401),
        ("grant_type=password&password=ada", 400),
        ("grant_type=client_credentials", 400),
        ("", 400),
        ("grant_type=refresh_token&refresh_token=x", 401),
        ("grant_type=password&username=ada&password=ada&service=elsewhere", 400),
    ] {
        post(&gate, form).expect(status).code();
    }
    post(&gate, &format!("x={}", "y".repeat(70_000))).expect(413);
    gate.tls().send("PUT", "/token", &[], b"").expect(405);
}

#[test]
fn a_refresh_token_outlives_a_restart_and_ends_with_the_password() {
    let gate = gate_with_ada("");
    let ada = gate.tls().user("ada", "ada");
    let answer = ada.get("/token?service=dockgate&offline_token=true&account=ada&client_id=docker").expect(200).json();
    let refresh = answer["refresh_token"].as_str().unwrap().to_owned();
    let form =
        format!("grant_type=refresh_token&service=dockgate&scope=repository:a:pull,push&refresh_token={refresh}");
    // It opens nothing by itself.
    gate.tls().with("Authorization", &format!("Bearer {refresh}")).get("/v2/").expect(401);
    let prepared = gate.prepared();
    assert_eq!(gate.stop(), 0);
    let gate = prepared.start();
    let answer = post(&gate, &form).expect(200).json();
    content::push_image(&bearer(&gate, &answer["access_token"]), "a", "v1");
    prepared.write("htpasswd", &ADA.replace("ada:$2y$04$V", "ada:$2y$04$W"));
    wait_until("the new password", || post(&gate, &form).status == 401);
    // Nobody, and nobody with a token, gets one.
    assert!(gate.tls().get("/token?offline_token=true").expect(200).json().get("refresh_token").is_none());
}

#[test]
fn the_public_keys_verify_what_is_issued() {
    let gate = gate_with_ada("[identity.token]\nservices = [\"registry.example\"]\n");
    let keys: jsonwebtoken::jwk::JwkSet =
        serde_json::from_slice(&gate.tls().get("/token/keys").expect(200).body).unwrap();
    let ada = gate.tls().user("ada", "ada");
    let token = ada.get("/token?service=registry.example&scope=repository:a:pull").expect(200).json();
    let token = token["token"].as_str().unwrap();
    let kid = jsonwebtoken::decode_header(token).unwrap().kid.unwrap();
    let key = jsonwebtoken::DecodingKey::from_jwk(keys.find(&kid).unwrap()).unwrap();
    let mut expected = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    expected.set_audience(&["registry.example"]);
    expected.set_issuer(&["dockgate"]);
    let claims = jsonwebtoken::decode::<serde_json::Value>(token, &key, &expected).unwrap().claims;
    assert_eq!(claims["access"][0]["name"], "a");
    // It is for that service and not for us.
    gate.tls().with("Authorization", &format!("Bearer {token}")).get("/v2/").expect(401);
    let bundle = gate.tls().get("/token/certificates").expect(200).text();
    assert!(bundle.starts_with("-----BEGIN CERTIFICATE-----"), "{bundle}");
}

#[test]
fn callers_of_a_network_need_no_credentials_and_others_do() {
    let rules = "[[access]]\nwho = [\"network:127.0.0.0/8\"]\nrepositories = [\"mirror/**\"]\nactions = [\"pull\", \"push\"]\n\
                 [[access]]\nwho = [\"authenticated\"]\nrepositories = [\"**\"]\nactions = [\"*\"]\n";
    let gate = gate_with_ada(rules);
    content::push_image(&gate.tls(), "mirror/app", "v1");
    gate.tls().get("/v2/mirror/app/manifests/v1").expect(200);
    assert!(challenge(&gate, "/v2/other/manifests/v1").starts_with("Bearer "), "docker without a login goes on");
    let token =
        gate.tls().get("/token?scope=repository:mirror/app:pull&scope=repository:other:pull").expect(200).json();
    bearer(&gate, &token["token"]).get("/v2/mirror/app/manifests/v1").expect(200);
    bearer(&gate, &token["token"]).get("/v2/other/manifests/v1").expect(401);
    let elsewhere = gate_with_ada(&rules.replace("127.0.0.0/8", "192.0.2.0/24"));
    assert!(challenge(&elsewhere, "/v2/mirror/app/manifests/v1").starts_with("Basic "));
}
