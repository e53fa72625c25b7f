//! The token service whole: forms, refresh tokens, keys that change, other services, networks (threat A8).

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::support::gate::{ADA, wait_until};
use super::support::{Answer, Client, Gate, content};

const FORM: [(&str, &str); 1] = [("Content-Type", "application/x-www-form-urlencoded")];

/// Ada may pull and push, under `create/` make new tags only, and see everything; another service is served.
const RULES: &str = r#"
[identity.token]
services = ["registry.example"]
[[access]]
who = ["anyone"]
repositories = ["public/**"]
actions = ["pull"]
[[access]]
who = ["user:ada"]
repositories = ["team/**"]
actions = ["pull", "push"]
[[access]]
who = ["user:ada"]
repositories = ["create/**"]
actions = ["pull", "create"]
[[access]]
who = ["user:root"]
repositories = ["**"]
actions = ["*"]
"#;

fn house(config: &str) -> Gate {
    let prepared = Gate::prepare(config);
    prepared.write("htpasswd", &format!("{ADA}\n{}\n", ADA.replace("ada:", "root:")));
    prepared.start()
}

fn post(gate: &Gate, form: &str) -> Answer {
    gate.tls().send("POST", "/token", &FORM, form.as_bytes())
}

fn bearer(gate: &Gate, token: &Value) -> Client {
    gate.tls().with("Authorization", &format!("Bearer {}", token.as_str().unwrap()))
}

fn part(token: &Value, index: usize) -> Value {
    let part = token.as_str().unwrap().split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

const LOGIN: &str = "grant_type=password&service=dockgate&client_id=docker&username=ada&password=ada";

#[test]
fn a_form_gets_a_token_for_what_the_rules_grant() {
    let gate = house(RULES);
    content::push_image(&gate.tls().user("ada", "ada"), "team/app", "v1");
    let scope = "scope=repository:team/app:pull,push,delete%20repository:other:pull";
    let answer = post(&gate, &format!("{LOGIN}&{scope}")).expect(200);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let answer = answer.json();
    assert_eq!((&answer["expires_in"], &answer["scope"]), (&json!(300), &json!("repository:team/app:pull,push")));
    assert_eq!(answer["refresh_token"], Value::Null, "it was not asked for");
    bearer(&gate, &answer["access_token"]).get("/v2/team/app/manifests/v1").expect(200);
    let nobody = post(&gate, "grant_type=password&username=&password=&access_type=offline").expect(200).json();
    assert_eq!(nobody["refresh_token"], Value::Null, "there is no user");
}

#[test]
fn wrong_passwords_in_a_form_are_counted_like_others() {
    let gate = house(&format!("{RULES}\n[limits]\nlogin_failures = 3\n"));
    for attempt in 0..3 {
        let answer = match attempt {
            1 => gate.tls().user("ada", "wrong1").get("/v2/"),
            _ => post(&gate, &LOGIN.replace("password=ada", &format!("password=wrong{attempt}"))),
        };
        assert_eq!(answer.expect(401).code(), "UNAUTHORIZED");
    }
    let refused = post(&gate, LOGIN).expect(503);
    assert!(refused.header("retry-after").is_some());
}

#[test]
fn a_form_that_is_not_right_says_why() {
    let gate = house(RULES);
    for (form, says) in [
        ("", "grant_type"),
        ("grant_type=implicit", "grant_type"),
        ("grant_type=password&username=ada", "password"),
        (&*format!("{LOGIN}&username=root"), "twice"),
        (&*format!("{LOGIN}&service=elsewhere").replace("service=dockgate&", ""), "service"),
        (
            &*format!("{LOGIN}&scope={}", "a%20".repeat(65)).replace("service=dockgate", "service=registry.example"),
            "scopes",
        ),
    ] {
        let answer = post(&gate, form).expect(400);
        assert!(answer.message().contains(says), "{form}: {}", answer.message());
    }
    gate.tls().send("POST", "/token", &[("Content-Type", "application/json")], LOGIN.as_bytes()).expect(400);
    let long = post(&gate, &format!("{LOGIN}&scope={}", "x".repeat(64 * 1024))).expect(413);
    assert!(long.message().contains("65536"), "{}", long.message());
    gate.tls().get("/token?service=elsewhere").expect(400);
    let by_name = gate.tls().get(&format!("/token?service=localhost:{}", gate.main.port())).expect(200).json();
    assert_eq!(part(&by_name["token"], 1)["aud"], "dockgate", "the name by which we were called is ours");
}

#[test]
fn a_refresh_token_gets_tokens_until_the_password_changes() {
    let gate = house(RULES);
    content::push_image(&gate.tls().user("ada", "ada"), "team/app", "v1");
    let login = post(&gate, &format!("{LOGIN}&access_type=offline")).expect(200).json();
    let get = "/token?account=ada&client_id=docker&offline_token=true&service=dockgate";
    let by_get = gate.tls().user("ada", "ada").get(get).expect(200).json();
    assert_eq!(gate.tls().get(get).expect(200).json()["refresh_token"], Value::Null);
    let refresh = |gate: &Gate, token: &Value, service: &str| {
        let scope = "scope=repository:team/app:pull";
        let token = token.as_str().unwrap();
        post(
            gate,
            &format!("grant_type=refresh_token&service={service}&client_id=docker&{scope}&refresh_token={token}"),
        )
    };
    for token in [&login["refresh_token"], &by_get["refresh_token"]] {
        let answer = refresh(&gate, token, "dockgate").expect(200).json();
        assert_eq!(answer["refresh_token"], *token, "it does not prolong itself");
        bearer(&gate, &answer["access_token"]).get("/v2/team/app/manifests/v1").expect(200);
    }
    let token = login["refresh_token"].clone();
    refresh(&gate, &token, "registry.example").expect(401);
    refresh(&gate, &login["access_token"], "dockgate").expect(401);
    bearer(&gate, &token).get("/v2/").expect(401);

    let prepared = gate.prepared();
    assert_eq!(gate.stop(), 0);
    let gate = prepared.start();
    refresh(&gate, &token, "dockgate").expect(200);
    // Nobody knows its password; it is another hash.
    let other_hash = ADA.replace("$04$V", "$04$W");
    assert_ne!(other_hash, ADA);
    prepared.write(
        "htpasswd",
        &format!(
            "{other_hash}
"
        ),
    );
    wait_until("the new password", || refresh(&gate, &token, "dockgate").status == 401);
}

#[test]
fn the_key_set_verifies_a_token_with_another_library() {
    let gate = house(RULES);
    let answer = gate.tls().with("Authorization", "Bearer nonsense").get("/token/keys").expect(200);
    assert_eq!(answer.header("cache-control"), Some("public, max-age=300"));
    assert_eq!(answer.header("content-type"), Some("application/jwk-set+json"));
    let token =
        gate.tls().user("ada", "ada").get("/token?service=registry.example").expect(200).json()["token"].clone();
    let keys = answer.json();
    let key = &keys["keys"][0];
    assert_eq!((&key["kid"], &key["alg"]), (&part(&token, 0)["kid"], &json!("ES256")));
    let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
    verify(&[&[4], &*coordinate("x"), &*coordinate("y")].concat(), token.as_str().unwrap());
}

/// ECDSA on P-256 with SHA-256, by the library below TLS.
fn verify(point: &[u8], token: &str) {
    let (message, signature) = token.rsplit_once('.').unwrap();
    let key =
        aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED, point.to_vec());
    key.verify(message.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
}

#[test]
fn a_token_for_another_service_carries_a_chain_to_the_certificate_that_is_given_out() {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;
    use x509_parser::prelude::{FromDer, X509Certificate};
    let gate = house(RULES);
    let pem = gate.tls().get("/token/certificates").expect(200).text();
    let root = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let (_, root) = X509Certificate::from_der(&root).unwrap();
    let token =
        gate.tls().user("ada", "ada").get("/token?service=registry.example").expect(200).json()["token"].clone();
    let leaf = STANDARD.decode(part(&token, 0)["x5c"][0].as_str().unwrap()).unwrap();
    let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
    leaf.verify_signature(Some(root.public_key())).unwrap();
    assert!(leaf.validity().is_valid() && root.validity().is_valid());
    verify(&leaf.public_key().subject_public_key.data, token.as_str().unwrap());

    let own = gate.tls().user("ada", "ada").get("/token").expect(200).json()["token"].clone();
    assert_eq!((&part(&own, 1)["aud"], &part(&own, 0)["x5c"]), (&json!("dockgate"), &Value::Null));
    let prepared = gate.prepared();
    assert_eq!(gate.stop(), 0);
    assert_eq!(prepared.start().tls().get("/token/certificates").text(), pem, "a restart changes nothing");
}

#[test]
fn another_service_is_told_what_the_rules_say_and_no_more() {
    let gate = house(RULES);
    let asked = "registry:catalog:*&scope=repository:team/app:*&scope=repository:create/app:push,pull\
                 &scope=repository:other:pull";
    let claims = |service: &str, user: &str| {
        let path = format!("/token?service={service}&scope={asked}");
        let token = gate.tls().user(user, "ada").get(&path).expect(200).json()["token"].clone();
        (bearer(&gate, &token), part(&token, 1))
    };
    let (client, other) = claims("registry.example", "ada");
    let access = json!([
        {"type": "repository", "name": "team/app", "actions": ["pull", "push"]},
        {"type": "repository", "name": "create/app", "actions": ["pull"]},
    ]);
    assert_eq!((&other["iss"], &other["aud"]), (&json!("dockgate"), &json!("registry.example")));
    assert_eq!(other["access"], access, "no list of everything, and no tags that could be moved");
    client.get("/v2/").expect(401);
    client.get("/token?service=registry.example").expect(401);
    let lists = |claims: &Value| claims["access"].as_array().unwrap().iter().any(|access| access["name"] == "catalog");
    assert!(lists(&claims("registry.example", "root").1));
    // One for ourselves names no repositories: the rules say what is shown.
    let own = claims("dockgate", "ada").1;
    assert_eq!((&own["access"], &own["ceiling"]), (&Value::Null, &json!(["pull", "push", "delete"])));
}

#[test]
fn keys_change_while_it_runs_and_what_is_out_goes_on() {
    let quick = "key_lifetime = \"5s\"\nrefresh_lifetime = \"1m\"\nservices =";
    let gate = house(&RULES.replace("services =", quick));
    let ada = gate.tls().user("ada", "ada");
    let login = ada.get("/token?service=dockgate&offline_token=true").expect(200).json();
    let old = part(&login["token"], 0)["kid"].clone();
    wait_until("another key to sign", || part(&ada.get("/token").json()["token"], 0)["kid"] != old);
    let new = ada.get("/token").expect(200).json()["token"].clone();
    let keys = |gate: &Gate| {
        let set = gate.tls().get("/token/keys").expect(200).json();
        set["keys"].as_array().unwrap().iter().map(|key| key["kid"].clone()).collect::<Vec<_>>()
    };
    assert!(keys(&gate).contains(&old));
    bearer(&gate, &login["token"]).get("/v2/").expect(200);
    gate.wait_for_log("a new key for tokens was made");
    let gate = gate.kill().start();
    assert!(keys(&gate).contains(&old));
    bearer(&gate, &login["token"]).get("/v2/").expect(200);
    // It was kept before it signed.
    bearer(&gate, &new).get("/v2/").expect(200);
    let form = format!("grant_type=refresh_token&refresh_token={}", login["refresh_token"].as_str().unwrap());
    post(&gate, &form).expect(200);
}

#[test]
fn forged_tokens_are_refused_whatever_they_say_of_themselves() {
    let (gate, other) = (house(RULES), house(RULES));
    let token = gate.tls().user("ada", "ada").get("/token").expect(200).json()["token"].clone();
    let (head, claims) = (part(&token, 0), part(&token, 1));
    let foreign = other.tls().user("ada", "ada").get("/token").expect(200).json()["token"].clone();
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let forged = |head: Value, signature: &str| format!("{}.{}.{signature}", encode(&head), encode(&claims));
    let genuine = token.as_str().unwrap().rsplit_once('.').unwrap().1.to_owned();
    let none = json!({"alg": "none", "typ": "JWT", "kid": head["kid"]});
    let set = gate.tls().get("/token/keys").json();
    let mac = jsonwebtoken::Header {
        kid: head["kid"].as_str().map(str::to_owned),
        ..jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256)
    };
    let public = set["keys"][0].to_string();
    let mac = jsonwebtoken::encode(&mac, &claims, &jsonwebtoken::EncodingKey::from_secret(public.as_bytes()).unwrap())
        .unwrap();
    for (forged, why) in [
        (forged(none.clone(), ""), "alg none"),
        (forged(none, &genuine), "alg none with a signature"),
        (mac, "HS256 with the public key"),
        (forged(json!({"alg": "ES384", "typ": "JWT", "kid": head["kid"]}), &genuine), "another algorithm"),
        (forged(json!({"alg": "ES256", "typ": "JWT", "kid": "unknown"}), &genuine), "an unknown key"),
        (foreign.as_str().unwrap().to_owned(), "another gateway's key"),
    ] {
        let answer = gate.tls().with("Authorization", &format!("Bearer {forged}")).get("/v2/");
        assert_eq!(answer.status, 401, "{why}");
        let form = format!("grant_type=refresh_token&refresh_token={forged}");
        assert_eq!(post(&gate, &form).status, 401, "{why}");
    }
    bearer(&gate, &token).get("/v2/").expect(200);
}

const NETWORK: &str = r#"
[listen.main]
address = "127.0.0.1:0"
trusted_proxies = ["127.0.0.1"]
[identity.token]
services = ["registry.example"]
[[access]]
who = ["network:10.0.0.0/8"]
repositories = ["mirror/**"]
actions = ["pull"]
[[access]]
who = ["user:ada"]
repositories = ["**"]
actions = ["*"]
"#;

#[test]
fn a_network_is_served_without_a_login_and_others_are_not() {
    let gate = house(NETWORK);
    let ada = gate.tls().user("ada", "ada");
    content::push_image(&ada, "mirror/app", "v1");
    content::push_image(&ada, "private/app", "v1");
    let inside = gate.tls().with("X-Forwarded-For", "10.1.2.3");
    let outside = gate.tls().with("X-Forwarded-For", "192.0.2.1");
    inside.get("/v2/mirror/app/manifests/v1").expect(200);
    inside.get("/v2/private/app/manifests/v1").expect(401);
    inside.send("POST", "/v2/mirror/app/blobs/uploads/", &[], b"").expect(401);
    outside.get("/v2/mirror/app/manifests/v1").expect(401);
    let challenge = |client: &Client| client.get("/v2/").expect(401).header("www-authenticate").unwrap().to_owned();
    assert!(challenge(&inside).starts_with("Bearer realm="), "a mirror has nothing to answer Basic with");
    assert!(challenge(&outside).starts_with("Basic realm="));

    let token = inside.get("/token?service=dockgate&scope=repository:mirror/app:pull,push").expect(200).json();
    assert_eq!(part(&token["token"], 1)["access"], Value::Null);
    let header = format!("Bearer {}", token["token"].as_str().unwrap());
    inside.with("Authorization", &header).get("/v2/mirror/app/manifests/v1").expect(200);
    let carried_out = outside.with("Authorization", &header).get("/v2/mirror/app/manifests/v1").expect(401);
    assert!(carried_out.header("www-authenticate").is_some());
    let outside = outside.get("/token?service=registry.example&scope=repository:mirror/app:pull").expect(200).json();
    assert_eq!(part(&outside["token"], 1)["access"], json!([]));
    let user = gate.tls().user("ada", "ada").with("X-Forwarded-For", "10.1.2.3");
    user.get("/v2/private/app/manifests/v1").expect(200);
}
