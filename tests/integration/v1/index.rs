//! Docker 1.3 and 1.5, over TLS and plain, before a real docker-registry that is its own index, and before one whose index the
//! gateway is.

use http::{Method, StatusCode};

use super::super::support::Gate;
use super::super::support::gate::wait_until;
use super::super::support::v1_client::{AGENT, Image, V1Client, nothing};
use super::super::support::v1_registry::{Stopped, V1Registry};
use super::{PATIENT_HEALTH, basic, healthy, images, noise, prepare, top_first};

/// Nobody may do anything everywhere.
const RULES: &str = r#"
[[access]]
who = ["user:team"]
repositories = ["team/**", "library/**"]
actions = ["*"]
[[access]]
who = ["user:reader"]
repositories = ["team/**"]
actions = ["pull"]
[[access]]
who = ["user:other"]
repositories = ["other/**"]
actions = ["*"]
[[access]]
who = ["anyone"]
repositories = ["public/**"]
actions = ["pull"]
[[access]]
who = ["user:team"]
repositories = ["public/**"]
actions = ["push"]
"#;

/// Whose index it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Registry {
    ItsOwn,
    Ours,
}

pub(super) const BOTH: [Registry; 2] = [Registry::ItsOwn, Registry::Ours];

/// A gateway before a registry of this kind.
pub(super) fn house(registry: Registry, rules: &str) -> (V1Registry, Gate) {
    let stopped = Stopped::new();
    let address = stopped.address();
    match registry {
        Registry::ItsOwn => {
            let registry = stopped.start();
            (registry, prepare(rules, &[address], PATIENT_HEALTH).start())
        }
        Registry::Ours => {
            let health = "health = { path = \"/v1/_ping\", interval = \"200ms\", failures = 3, successes = 1 }";
            let gate = prepare(rules, &[address], &format!("standalone = false\n{health}")).start();
            let registry = stopped.start_before(gate.main);
            wait_until("the registry to be found", || healthy(&gate) == 1);
            (registry, gate)
        }
    }
}

/// Docker 1.5 and 1.3, over TLS and plain.
fn dockers(gate: &Gate) -> Vec<(&'static str, V1Client)> {
    let tls = || V1Client::tls(&gate.main.to_string(), &gate.path("certs/ca.crt"));
    let plain = || V1Client::plain(&gate.main.to_string());
    vec![
        ("1.5 over TLS", tls()),
        ("1.5 plain", plain()),
        ("1.3 over TLS", tls().docker_1_3()),
        ("1.3 plain", plain().docker_1_3()),
    ]
}

fn layers_sent(client: &V1Client) -> usize {
    client.seen().iter().filter(|seen| seen.method == Method::PUT && seen.path.ends_with("/layer")).count()
}

async fn everything(registry: Registry) {
    let (_registry, gate) = house(registry, RULES);
    for (number, (name, docker)) in dockers(&gate).into_iter().enumerate() {
        let mut docker = docker.with_basic("team", "team");
        let (repository, images) = (format!("team/app-{number}"), images(name));
        assert_eq!(docker.login("team", "team").await, StatusCode::OK, "{name}");
        docker.push(&repository, "1.0", &images).await;
        assert_eq!(layers_sent(&docker), 2, "{name}");
        assert_eq!(docker.pull(&repository, "1.0").await, top_first(&images), "{name}");

        // A second push finds its images there.
        docker.push(&repository, "latest", &images).await;
        assert_eq!(layers_sent(&docker), 2, "{name}: a layer was sent twice");
        let tagged = docker.tag(&repository, "old", &images[0].id).await;
        assert_eq!(tagged.status, StatusCode::OK, "{name}");
        assert_eq!(docker.pull(&repository, "old").await, top_first(&images[..1]), "{name}");

        let layer = &images[0].layer;
        assert_eq!(docker.resume(&images[0].id, 1_000, layer.len()).await, layer.slice(1_000..), "{name}");
        assert_eq!(docker.resume(&images[0].id, layer.len(), layer.len()).await, "", "{name}");

        let found = docker.search(&format!("app-{number}")).await;
        assert_eq!(found["results"][0]["name"], repository, "{name}: {found}");
        assert_eq!(docker.delete(&repository, "tags/old").await.status, StatusCode::OK, "{name}");
        assert_eq!(docker.pull(&repository, "1.0").await, top_first(&images), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_dockers_do_everything_at_a_registry_that_is_its_own_index() {
    everything(Registry::ItsOwn).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_dockers_do_everything_at_a_registry_whose_index_we_are() {
    everything(Registry::Ours).await;
}

/// After the index calls, docker over plain HTTP says the token alone; so it does over TLS.
#[tokio::test(flavor = "multi_thread")]
async fn the_password_is_said_to_the_index_and_to_nobody_else() {
    let (_registry, gate) = house(Registry::ItsOwn, RULES);
    let mut docker = V1Client::tls(&gate.main.to_string(), &gate.path("certs/ca.crt")).with_basic("team", "team");
    docker.push("team/app", "1.0", &images("token")).await;
    let answered = docker.seen().iter().filter(|seen| seen.headers.contains_key("x-docker-token"));
    let paths: Vec<_> = answered.map(|seen| (seen.method.as_str(), seen.path.as_str())).collect();
    assert_eq!(paths, [("PUT", "/v1/repositories/team/app/"), ("PUT", "/v1/repositories/team/app/images")]);
    docker.pull("team/app", "1.0").await;
    let log = gate.log.lock().unwrap().clone();
    let by_token = log.lines().filter(|line| line.contains("/v1/images/") && line.contains("user=team"));
    assert!(by_token.count() > 8, "{log}");
}

/// A base image of another repository that may be pulled is not pushed again, and can be pulled with what stands on it.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_on_top_of_an_image_of_another_repository() {
    for registry in BOTH {
        let (_registry, gate) = house(registry, RULES);
        let mut docker = V1Client::plain(&gate.main.to_string()).with_basic("team", "team");
        let [base, top] = &images("base")[..] else { panic!() };
        docker.push("library/base", "1.0", std::slice::from_ref(base)).await;
        docker.push("team/app", "1.0", &[base.clone(), top.clone()]).await;
        assert_eq!(layers_sent(&docker), 2, "{registry:?}");
        let mut reader = V1Client::plain(&gate.main.to_string()).with_basic("reader", "reader");
        assert_eq!(reader.pull("team/app", "1.0").await, [top.clone(), base.clone()], "{registry:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_repository_is_forgotten_and_can_be_pushed_again() {
    for registry in BOTH {
        let (_registry, gate) = house(registry, RULES);
        let mut docker = V1Client::plain(&gate.main.to_string()).with_basic("team", "team");
        let images = images("deleted");
        docker.push("team/app", "1.0", &images).await;
        docker.pull("team/app", "1.0").await;
        let layer = format!("/v1/images/{}/layer", images[1].id);
        assert_eq!(docker.ask(Method::GET, &layer, "").await.status, StatusCode::OK);
        let deleted = docker.delete("team/app", "").await;
        assert_eq!(deleted.status, StatusCode::OK, "{registry:?}");
        assert!(deleted.header("x-docker-token").ends_with("access=delete"), "{deleted:?}");
        for (user, expected) in [("team", 404), ("reader", 404), ("other", 404)] {
            let headers = [basic(user, user)];
            let answer = docker.call(Method::GET, &layer, AGENT, &headers, nothing()).await;
            assert_eq!(answer.status, expected, "{registry:?}: {user}");
            let gone = docker.call(Method::GET, "/v1/repositories/team/app/images", AGENT, &headers, nothing()).await;
            assert_eq!(gone.status, StatusCode::NOT_FOUND, "{registry:?}: {user}");
        }
        docker.push("team/app", "2.0", &images).await;
        assert_eq!(docker.pull("team/app", "2.0").await, top_first(&images), "{registry:?}");
    }
}

/// What was there before the gateway is learnt as it is pulled; a push finds what its own repository has.
#[tokio::test(flavor = "multi_thread")]
async fn images_that_were_there_before_the_gateway_are_learnt() {
    let (registry, gate) = house(Registry::ItsOwn, RULES);
    let mut straight = V1Client::plain(&registry.address().to_string());
    let [base, top] = &images("before")[..] else { panic!() };
    straight.push("team/app", "1.0", &[base.clone(), top.clone()]).await;
    straight.push("public/app", "1.0", std::slice::from_ref(base)).await;
    let mut docker = V1Client::plain(&gate.main.to_string()).with_basic("team", "team");
    let next = Image::new("before next", Some(top), noise(2_000));
    docker.push("team/app", "2.0", &[base.clone(), top.clone(), next.clone()]).await;
    assert_eq!(layers_sent(&docker), 1, "only the new one");
    let expected = [next, top.clone(), base.clone()];
    assert_eq!(docker.pull("team/app", "2.0").await, expected);
    let mut nobody = V1Client::plain(&gate.main.to_string());
    assert_eq!(
        nobody.pull("public/app", "1.0").await,
        top_first(std::slice::from_ref(base)),
        "and by anyone elsewhere"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_was_there_before_the_gateway_gets_us_for_its_index() {
    let stopped = Stopped::new();
    let address = stopped.address();
    let registry = stopped.start();
    let images = images("before");
    V1Client::plain(&address.to_string()).push("team/app", "1.0", &images).await;
    let stopped = registry.stop();
    let gate = prepare(RULES, &[address], "standalone = false\nhealth = { interval = \"200ms\" }").start();
    let _registry = stopped.start_before(gate.main);
    wait_until("the registry to be found", || healthy(&gate) == 1);
    let mut docker = V1Client::plain(&gate.main.to_string()).with_basic("reader", "reader");
    assert_eq!(docker.pull("team/app", "1.0").await, top_first(&images));
}

/// The list had what was pushed last, and nothing of what was there before.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_before_was_not_listed_after_a_push() {
    let stopped = Stopped::new();
    let address = stopped.address();
    let registry = stopped.start();
    let (before, after) = (images("before"), images("after"));
    V1Client::plain(&address.to_string()).push("team/app", "1.0", &before).await;
    let stopped = registry.stop();
    let gate = prepare(RULES, &[address], "standalone = false\nhealth = { interval = \"200ms\" }").start();
    let _registry = stopped.start_before(gate.main);
    wait_until("the registry to be found", || healthy(&gate) == 1);
    V1Client::plain(&gate.main.to_string()).with_basic("team", "team").push("team/app", "2.0", &after).await;
    let mut docker = V1Client::plain(&gate.main.to_string()).with_basic("reader", "reader");
    assert_eq!(docker.pull("team/app", "1.0").await, top_first(&before));
    assert_eq!(docker.pull("team/app", "2.0").await, top_first(&after));
    let list = gate.plain().user("reader", "reader").get("/v1/repositories/team/app/images").expect(200).json();
    assert_eq!(list.as_array().unwrap().len(), before.len() + after.len(), "{list}");
}

/// What a registry asks its index by the token that went with a request opens nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_registry_is_given_opens_what_it_asks_and_nothing_else() {
    use super::super::support::v1_upstream::{V1Upstream, reply};
    let upstream = V1Upstream::start(|asked| reply(if asked.target == "/v1/_ping" { 200 } else { 404 }, &[], b"{}"));
    let gate = prepare(RULES, &[upstream.address], "standalone = false").start();
    let team = gate.plain().user("team", "team");
    team.get("/v1/repositories/team/app/tags").expect(404);
    let token = upstream.asked().pop().unwrap().all("authorization")[0].to_owned();
    assert!(
        token.starts_with("Token signature=ey") && token.contains("repository=\"team/app\",access=read"),
        "{token}"
    );
    let registry = gate.plain().with("Authorization", &token);
    assert_eq!(registry.get("/v1/repositories/team/app/images").expect(200).text(), "[]");
    let id = "0123456789abcdef";
    let access = registry.get(&format!("/v1/repositories/team/app/layer/{id}/access")).expect(200);
    assert_eq!(access.json()["access"], true, "the gateway looked before");
    let before = upstream.asked().len();
    for (method, path) in [
        ("GET", "/v1/repositories/team/other/images"),
        ("GET", "/v1/repositories/team/app/tags"),
        ("PUT", "/v1/repositories/team/app/"),
        ("DELETE", "/v1/repositories/team/app/"),
        ("GET", "/v1/images/0123456789abcdef/json"),
        ("GET", "/v1/users/"),
        ("GET", "/v2/"),
        ("GET", "/v1/search"),
    ] {
        registry.send(method, path, &[], b"[]").expect(401);
    }
    assert_eq!(upstream.asked().len(), before);
    team.delete("/v1/repositories/team/app/").expect(404);
    let token = upstream.asked().pop().unwrap().all("authorization")[0].to_owned();
    let registry = gate.plain().with("Authorization", &token);
    assert_eq!(registry.send("PUT", "/v1/repositories/team/app/auth", &[], b"").expect(200).text(), "\"OK\"");
    let read = gate.plain().with("Authorization", &token.replace("delete", "write"));
    read.send("PUT", "/v1/repositories/team/app/auth", &[], b"").expect(401);
}
