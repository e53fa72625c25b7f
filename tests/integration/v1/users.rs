//! The login of docker up to 1.10: who is a user already, who becomes one, and who changes a password.

use http::StatusCode;

use super::super::support::v1_client::V1Client;
use super::super::support::v1_upstream::V1Upstream;
use super::super::support::{Answer, Client, Gate};
use super::prepare;
use super::wire::v1_error;

fn start(settings: &str) -> (V1Upstream, Gate) {
    let upstream = V1Upstream::echo();
    let rules = "[[access]]\nwho = [\"authenticated\"]\nrepositories = [\"team/**\"]\nactions = [\"pull\"]\n\
                 [[access]]\nwho = [\"user:boss\"]\nrepositories = [\"**\"]\nactions = [\"*\"]\n";
    let config = format!("[identity]\ngroups = {{ ci = [\"runner\"] }}\n{settings}\n{rules}");
    let gate = prepare(&config, &[upstream.address], "").start();
    (upstream, gate)
}

fn post(client: &Client, user: &str, password: &str) -> Answer {
    let account = serde_json::json!({ "username": user, "password": password, "email": "a@b.example", "auth": "" });
    client.send("POST", "/v1/users/", &[("Content-Type", "application/json")], account.to_string().as_bytes())
}

fn put(client: &Client, user: &str, body: &str) -> Answer {
    client.send("PUT", &format!("/v1/users/{user}/"), &[("Content-Type", "application/json")], body.as_bytes())
}

fn htpasswd(gate: &Gate) -> String {
    std::fs::read_to_string(gate.path("htpasswd")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_of_docker_1_3_and_1_5_over_tls_and_plain() {
    let (upstream, gate) = start("");
    let before = htpasswd(&gate);
    for docker in [
        V1Client::tls(&gate.main.to_string(), &gate.path("certs/ca.crt")),
        V1Client::plain(&gate.main.to_string()),
        V1Client::plain(&gate.main.to_string()).docker_1_3(),
        V1Client::tls(&gate.main.to_string(), &gate.path("certs/ca.crt")).docker_1_3(),
    ] {
        for (user, password, expected) in [
            ("dev", "dev", StatusCode::OK),
            ("dev", "no", StatusCode::UNAUTHORIZED),
            ("new", "new", StatusCode::UNAUTHORIZED),
        ] {
            assert_eq!(docker.clone().login(user, password).await, expected, "{user} {password}");
        }
    }
    assert_eq!(htpasswd(&gate), before, "nobody is registered");
    assert!(upstream.asked().is_empty(), "the registry is not asked about users");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_becomes_a_user_where_that_is_allowed() {
    let (upstream, gate) = start("registration = true");
    let mut docker = V1Client::plain(&gate.main.to_string());
    assert_eq!(docker.login("new", "a password").await, StatusCode::CREATED);
    assert_eq!(docker.login("new", "a password").await, StatusCode::OK);
    assert_eq!(docker.login("new", "another").await, StatusCode::UNAUTHORIZED);
    assert_eq!(docker.login("dev", "dev").await, StatusCode::OK, "who was a user stays one");
    assert!(htpasswd(&gate).contains("\nnew:$2"), "{}", htpasswd(&gate));
    gate.plain().user("new", "a password").get("/v1/repositories/team/app/json").expect(200);
    assert_eq!(upstream.asked().len(), 1);
    gate.wait_for_log("a user was registered");
}

/// Whoever took such a name would get the rights that the configuration gives it.
#[test]
fn a_name_that_the_configuration_speaks_of_is_not_to_be_had() {
    let (_upstream, gate) = start("registration = true");
    let before = htpasswd(&gate);
    for (user, password) in [("boss", "x"), ("runner", "x")] {
        assert!(v1_error(post(&gate.plain(), user, password), 400).contains("taken"));
    }
    for (user, password) in [("", "x"), ("a:b", "x"), (" a", "x"), ("a\nb", "x"), ("ok", ""), ("ok", &"x".repeat(73))] {
        v1_error(post(&gate.plain(), user, password), 400);
    }
    for body in ["", "[]", "{\"username\":7}", "{\"username\":\"a\",\"username\":\"b\"}"] {
        v1_error(gate.plain().send("POST", "/v1/users/", &[], body.as_bytes()), 400);
    }
    assert_eq!(htpasswd(&gate), before);
}

#[test]
fn an_address_gets_a_few_new_users_a_minute() {
    let (_upstream, gate) = start("registration = true\n[limits]\nlogin_failures = 3");
    for number in 0..3 {
        post(&gate.plain(), &format!("user-{number}"), "x").expect(201);
    }
    let answer = post(&gate.plain(), "user-3", "x");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    assert!(v1_error(answer, 503).contains("minute"));
    assert!(!htpasswd(&gate).contains("user-3"));
    gate.plain().user("user-0", "x").get("/v1/users/").expect(200);
}

#[test]
fn a_user_changes_the_own_password_where_that_is_allowed() {
    let (_upstream, gate) = start("password_changes = true");
    let dev = gate.plain().user("dev", "dev");
    // A token of before ends with the password.
    let answer = gate.plain().user("dev", "dev").get("/v1/repositories/team/app/images").expect(200);
    let token = gate.plain().with("Authorization", &format!("Token {}", answer.header("x-docker-token").unwrap()));
    token.get("/v1/repositories/team/app/tags").expect(200);
    put(&dev, "dev", "{\"email\":\"new@b.example\"}").expect(204);
    dev.get("/v1/users/").expect(200);
    put(&dev, "dev", "{\"password\":\"another\",\"email\":\"a@b.example\"}").expect(204);
    v1_error(dev.get("/v1/users/"), 401);
    v1_error(token.get("/v1/repositories/team/app/tags"), 401);
    let dev = gate.plain().user("dev", "another");
    dev.get("/v1/users/").expect(200);
    let token = dev.get("/v1/repositories/team/app/images").expect(200);
    let token = gate.plain().with("Authorization", &format!("Token {}", token.header("x-docker-token").unwrap()));
    for (client, user, status) in [
        (&gate.plain(), "dev", 401),
        (&gate.plain().user("dev", "dev"), "dev", 401),
        (&token, "dev", 401),
        (&dev, "root", 403),
        (&dev, "nobody", 403),
    ] {
        v1_error(put(client, user, "{\"password\":\"mine now\"}"), status);
    }
    v1_error(put(&dev, "dev", &format!("{{\"password\":\"{}\"}}", "x".repeat(73))), 400);
    let large = v1_error(put(&dev, "dev", &format!("{{\"password\":\"{}\"}}", "x".repeat(17_000))), 413);
    assert!(large.contains("account is larger than 16384"), "{large}");
    gate.plain().user("root", "root").get("/v1/users/").expect(200);
}

#[test]
fn passwords_are_the_operators_unless_they_say_otherwise() {
    let (_upstream, gate) = start("");
    let before = htpasswd(&gate);
    let message = v1_error(put(&gate.plain().user("dev", "dev"), "dev", "{\"password\":\"another\"}"), 403);
    assert!(message.contains("dockgate user add"), "{message}");
    assert_eq!(htpasswd(&gate), before);
}

#[test]
fn a_file_of_users_that_cannot_be_written_is_told() {
    let (_upstream, gate) = start("registration = true\npassword_changes = true");
    // Root writes whatever the mode says, so the file is made something that is none.
    std::fs::rename(gate.path("htpasswd"), gate.path("was")).unwrap();
    std::fs::create_dir(gate.path("htpasswd")).unwrap();
    assert!(v1_error(post(&gate.plain(), "new", "x"), 503).contains("file of users"));
    v1_error(put(&gate.plain().user("dev", "dev"), "dev", "{\"password\":\"x\"}"), 503);
    gate.wait_for_log("request failed");
}

#[test]
fn a_name_on_a_bad_line_is_nobodys_to_register() {
    let (_upstream, gate) = start("registration = true");
    let broken = htpasswd(&gate) + "bob:$apr1$x$y\n";
    std::fs::write(gate.path("htpasswd"), &broken).unwrap();
    // As it is answered for every user, so that docker goes on to log in.
    assert_eq!(post(&gate.plain(), "bob", "x").body, post(&gate.plain(), "dev", "x").body);
    assert_eq!(htpasswd(&gate), broken);
    v1_error(gate.plain().user("bob", "x").get("/v1/users/"), 401);
    gate.wait_for_log("bob");
    assert_eq!(post(&gate.plain(), "new", "x").status, 201, "others become users as ever");
    gate.plain().user("new", "x").get("/v1/users/").expect(200);
}
