//! Whoever knows the id of another's image gets nothing by it: not by a list, a tag, its JSON, or a child of it; whether it was
//! pushed through the gateway, before there was one, half, or after they spoke of it.

use http::{Method, StatusCode, header};

use super::super::support::Gate;
use super::super::support::v1_client::{AGENT, Image, V1Client, nothing};
use super::index::{BOTH, Registry, house};
use super::{basic, images, noise, top_first};

const RULES: &str = r#"
[[access]]
who = ["user:team"]
repositories = ["team/**"]
actions = ["*"]
[[access]]
who = ["user:other"]
repositories = ["other/**"]
actions = ["*"]
[[access]]
who = ["user:root"]
repositories = ["**"]
actions = ["*"]
"#;

fn docker(gate: &Gate, user: &str) -> V1Client {
    V1Client::plain(&gate.main.to_string()).with_basic(user, user)
}

/// A stranger to the images of the team, with a repository of their own.
struct Stranger<'a> {
    docker: V1Client,
    images: &'a [Image],
}

impl Stranger<'_> {
    async fn put(&mut self, path: &str, body: impl Into<bytes::Bytes>) -> StatusCode {
        self.docker.ask(Method::PUT, path, body).await.status
    }

    /// Everything that could make the gateway believe that an image is theirs; each of them is refused.
    async fn tries_everything(&mut self) {
        let own = "other/app";
        self.docker.open(Method::PUT, own, &[]).await.expect(&[StatusCode::OK]);
        for image in self.images {
            let (id, child) = (&image.id, Image::new(&format!("child of {}", image.id), Some(image), noise(10)));
            let listed = self.docker.open(Method::PUT, own, &[id]).await;
            assert_eq!(listed.status, StatusCode::FORBIDDEN, "own list: {listed:?}");
            let list = format!("[{{\"id\":\"{id}\",\"checksum\":\"x\"}}]");
            let headers = [basic("other", "other")];
            let path = format!("/v1/repositories/{own}/images");
            let body = super::super::support::v1_client::full(list);
            let listed = self.docker.call(Method::PUT, &path, AGENT, &headers, body).await;
            assert_eq!(listed.status, StatusCode::FORBIDDEN, "own list after the push: {listed:?}");
            let tagged = self.docker.tag(own, "mine", id).await;
            assert_eq!(tagged.status, StatusCode::FORBIDDEN, "own tag: {tagged:?}");
            let path = format!("/v1/images/{id}");
            let json = self.put(&format!("{path}/json"), image.json.clone()).await;
            // What it stands on is not theirs; it is not theirs; it is being pushed.
            assert!(matches!(json.as_u16(), 400 | 403 | 409), "its JSON: {json}");
            assert_eq!(self.put(&format!("{path}/layer"), "a layer").await, 404, "its layer");
            assert_eq!(self.put(&format!("{path}/checksum"), "").await, 404, "its checksum");
            let path = format!("/v1/images/{}/json", child.id);
            assert_eq!(self.put(&path, child.json.clone()).await, 400, "a child of it");
            assert_eq!(self.docker.ask(Method::GET, &path, "").await.status, 404, "a child of it");
            let twice = String::from_utf8_lossy(&child.json).replacen('{', "{\"parent\":\"\",", 1);
            assert_eq!(self.put(&path, twice).await, 400, "a child of it, and of nothing");
            self.gets_nothing(id).await;
        }
    }

    async fn gets_nothing(&mut self, id: &str) {
        for part in ["images", "tags"] {
            let seen = self.docker.ask(Method::GET, &format!("/v1/repositories/other/app/{part}"), "").await;
            assert!(!String::from_utf8_lossy(&seen.body).contains(id), "{part}: {seen:?}");
        }
        for word in ["json", "layer", "ancestry", "files", "diff"] {
            let path = format!("/v1/images/{id}/{word}");
            for method in [Method::GET, Method::HEAD] {
                let by_token = self.docker.ask(method.clone(), &path, "").await;
                assert_eq!(by_token.status, StatusCode::NOT_FOUND, "{method} {path} by the token");
                let headers = [basic("other", "other")];
                let by_password = self.docker.call(method.clone(), &path, AGENT, &headers, nothing()).await;
                assert_eq!(by_password.status, StatusCode::NOT_FOUND, "{method} {path} by the password");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_images_that_were_pushed_here() {
    for registry in BOTH {
        let (_registry, gate) = house(registry, RULES);
        let images = images("pushed");
        let mut team = docker(&gate, "team");
        team.push("team/app", "1.0", &images).await;
        Stranger { docker: docker(&gate, "other"), images: &images }.tries_everything().await;
        assert_eq!(team.pull("team/app", "1.0").await, top_first(&images), "{registry:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_images_that_were_there_before_the_gateway() {
    let (registry, gate) = house(Registry::ItsOwn, RULES);
    let images = images("before");
    V1Client::plain(&registry.address().to_string()).push("team/app", "1.0", &images).await;
    Stranger { docker: docker(&gate, "other"), images: &images }.tries_everything().await;
    assert_eq!(docker(&gate, "team").pull("team/app", "1.0").await, top_first(&images));
    Stranger { docker: docker(&gate, "other"), images: &images }.tries_everything().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_images_that_are_half_there() {
    for registry in BOTH {
        let (_registry, gate) = house(registry, RULES);
        let images = images("half");
        let mut team = docker(&gate, "team");
        let ids: Vec<&str> = images.iter().map(|image| image.id.as_str()).collect();
        team.open(Method::PUT, "team/app", &ids).await.expect(&[StatusCode::OK]);
        for image in &images {
            let path = format!("/v1/images/{}/json", image.id);
            team.ask(Method::PUT, &path, image.json.clone()).await.expect(&[StatusCode::OK]);
        }
        Stranger { docker: docker(&gate, "other"), images: &images }.tries_everything().await;
        // Docker begins again where it broke off.
        team.push("team/app", "1.0", &images).await;
        assert_eq!(team.pull("team/app", "1.0").await, top_first(&images), "{registry:?}");
    }
}

/// To name what is not there is no harm: it keeps others from beginning it for a day, and opens nothing.
#[tokio::test(flavor = "multi_thread")]
async fn of_images_that_they_spoke_of_before_they_were_pushed() {
    for registry in BOTH {
        let (_registry, gate) = house(registry, RULES);
        let images = images("squatted");
        let ids: Vec<&str> = images.iter().map(|image| image.id.as_str()).collect();
        let mut squatter = docker(&gate, "other");
        squatter.open(Method::PUT, "other/app", &ids).await.expect(&[StatusCode::OK]);
        let mut team = docker(&gate, "team");
        team.open(Method::PUT, "team/app", &ids).await.expect(&[StatusCode::OK]);
        let path = format!("/v1/images/{}/json", images[0].id);
        assert_eq!(team.ask(Method::PUT, &path, images[0].json.clone()).await.status, StatusCode::CONFLICT);
        // Who may push there too need not wait.
        let mut root = docker(&gate, "root");
        root.push("team/app", "1.0", &images).await;
        for image in &images {
            let mut stranger = Stranger { docker: squatter.clone(), images: &images };
            for word in ["json", "layer", "ancestry"] {
                let path = format!("/v1/images/{}/{word}", image.id);
                assert_eq!(stranger.docker.ask(Method::GET, &path, "").await.status, 404, "{registry:?} {path}");
            }
            assert_eq!(stranger.put(&format!("/v1/images/{}/layer", image.id), "a layer").await, 404);
            assert_eq!(stranger.docker.tag("other/app", "mine", &image.id).await.status, StatusCode::FORBIDDEN);
        }
        assert_eq!(team.pull("team/app", "1.0").await, top_first(&images), "{registry:?}");
    }
}

/// A reader sees in the list what is about to be pushed.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_began_an_image_that_was_about_to_be_pushed() {
    let rules =
        format!("{RULES}\n[[access]]\nwho = [\"user:other\"]\nrepositories = [\"team/**\"]\nactions = [\"pull\"]\n");
    let (_registry, gate) = house(Registry::ItsOwn, &rules);
    let image = Image::new("about to be pushed", None, noise(100));
    let (mut team, mut reader) = (docker(&gate, "team"), docker(&gate, "other"));
    team.open(Method::PUT, "team/app", &[&image.id]).await.expect(&[StatusCode::OK]);
    let list = reader.open(Method::GET, "team/app", &[]).await;
    assert!(String::from_utf8_lossy(&list.body).contains(&image.id), "{list:?}");
    reader.open(Method::PUT, "other/app", &[&image.id]).await.expect(&[StatusCode::OK]);
    let path = format!("/v1/images/{}/json", image.id);
    assert_eq!(reader.ask(Method::PUT, &path, image.json.clone()).await.status, StatusCode::CONFLICT);
    team.push("team/app", "1.0", std::slice::from_ref(&image)).await;
    assert_eq!(reader.pull("team/app", "1.0").await, [image]);
}

/// By the password an image was begun in every repository that had named it.
#[tokio::test(flavor = "multi_thread")]
async fn who_may_push_everywhere_gave_an_image_to_all_who_had_named_it() {
    let (_registry, gate) = house(Registry::ItsOwn, RULES);
    let image = Image::new("named by two", None, noise(100));
    let mut squatter = docker(&gate, "other");
    squatter.open(Method::PUT, "other/app", &[&image.id]).await.expect(&[StatusCode::OK]);
    let mut root = docker(&gate, "root");
    root.open(Method::PUT, "team/app", &[&image.id]).await.expect(&[StatusCode::OK]);
    let path = format!("/v1/images/{}", image.id);
    let headers = [basic("root", "root"), (header::CONTENT_TYPE, "application/json".to_owned())];
    for (word, body) in [("json", image.json.clone()), ("layer", image.layer.clone())] {
        let body = super::super::support::v1_client::full(body);
        let put = root.call(Method::PUT, &format!("{path}/{word}"), AGENT, &headers, body).await;
        assert_eq!(put.status, StatusCode::OK, "{put:?}");
    }
    for (word, status) in [("json", 404), ("layer", 404)] {
        assert_eq!(squatter.ask(Method::GET, &format!("{path}/{word}"), "").await.status, status);
        assert_eq!(
            squatter.ask(Method::PUT, &format!("{path}/{word}"), image.json.clone()).await.status.as_u16() / 100,
            4
        );
    }
    docker(&gate, "team").push("team/app", "1.0", std::slice::from_ref(&image)).await;
}

/// A private repository's image is not there for whoever asks by another one, says the registry.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_was_taken_over_by_way_of_a_private_repository() {
    let (_registry, gate) = house(Registry::Ours, RULES);
    let images = images("private");
    let mut team = docker(&gate, "team");
    team.push("team/app", "1.0", &images).await;
    let mut stranger = docker(&gate, "other");
    stranger.open(Method::PUT, "other/app", &[]).await.expect(&[StatusCode::OK]);
    let private = stranger.ask(Method::PUT, "/v1/repositories/other/app/properties", "{\"access\":\"private\"}").await;
    assert_eq!(private.status, StatusCode::OK);
    Stranger { docker: stranger, images: &images }.tries_everything().await;
    assert_eq!(team.pull("team/app", "1.0").await, top_first(&images));
    // And private repositories can be pulled and pushed again.
    team.open(Method::PUT, "team/app", &[]).await.expect(&[StatusCode::OK]);
    let private = team.ask(Method::PUT, "/v1/repositories/team/app/properties", "{\"access\":\"private\"}").await;
    assert_eq!(private.status, StatusCode::OK);
    let next = Image::new("private next", Some(&images[1]), noise(50));
    team.push("team/app", "2.0", &[images[0].clone(), images[1].clone(), next.clone()]).await;
    assert_eq!(team.pull("team/app", "2.0").await, [next, images[1].clone(), images[0].clone()]);
}

/// What the registry did not take has changed nothing.
#[test]
fn an_image_that_the_registry_refused_is_nobodys() {
    use super::super::support::v1_upstream::{V1Upstream, reply};
    let upstream = V1Upstream::start(|asked| {
        let json = asked.target.ends_with("/json");
        let status = if json && asked.method == "PUT" {
            400
        } else if json {
            404
        } else {
            200
        };
        reply(status, &[("Content-Type", "application/json")], b"{\"error\": \"Invalid JSON\"}")
    });
    let gate = super::prepare(RULES, &[upstream.address], "").start();
    let id = "cccccccccccccccc";
    let client = |user: &str| gate.plain().user(user, user);
    let list = format!("[{{\"id\":\"{id}\"}}]");
    let json = format!("{{\"id\":\"{id}\"}}");
    client("other").send("PUT", "/v1/repositories/other/app/", &[], list.as_bytes()).expect(200);
    client("other").send("PUT", &format!("/v1/images/{id}/json"), &[], json.as_bytes()).expect(400);
    client("other").get(&format!("/v1/images/{id}/layer")).expect(404);
    client("other").send("PUT", &format!("/v1/images/{id}/layer"), &[], b"layer").expect(404);
    client("other").send("PUT", "/v1/repositories/other/app/tags/x", &[], format!("\"{id}\"").as_bytes()).expect(403);
}

/// Half a push, a deletion, and the push once more: the images could be pulled never again.
#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_was_deleted_within_a_push_can_be_pushed_again() {
    for registry in BOTH {
        let (_registry, gate) = house(registry, RULES);
        let images = images("abandoned");
        let mut team = docker(&gate, "team");
        let ids: Vec<&str> = images.iter().map(|image| image.id.as_str()).collect();
        team.open(Method::PUT, "team/app", &ids).await.expect(&[StatusCode::OK]);
        let path = format!("/v1/images/{}/json", images[0].id);
        team.ask(Method::PUT, &path, images[0].json.clone()).await.expect(&[StatusCode::OK]);
        team.delete("team/app", "").await;
        assert_eq!(team.ask(Method::GET, &path, "").await.status, StatusCode::NOT_FOUND);
        team.push("team/app", "1.0", &images).await;
        assert_eq!(team.pull("team/app", "1.0").await, top_first(&images), "{registry:?}");
    }
}

/// Of two who begin the same image at the same time one has it, and the other nothing.
#[tokio::test(flavor = "multi_thread")]
async fn of_an_image_that_two_begin_at_once() {
    let (_registry, gate) = house(Registry::ItsOwn, RULES);
    for round in 0..10 {
        let image = Image::new(&format!("race {round}"), None, noise(100));
        let (mut team, mut other) = (docker(&gate, "team"), docker(&gate, "other"));
        team.open(Method::PUT, "team/app", &[&image.id]).await.expect(&[StatusCode::OK]);
        other.open(Method::PUT, "other/app", &[&image.id]).await.expect(&[StatusCode::OK]);
        let path = format!("/v1/images/{}/json", image.id);
        let (mine, theirs) = tokio::join!(
            team.ask(Method::PUT, &path, image.json.clone()),
            other.ask(Method::PUT, &path, image.json.clone()),
        );
        let mut statuses = [mine.status.as_u16(), theirs.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409], "round {round}");
        let path = format!("/v1/images/{}/layer", image.id);
        let loser = if mine.status == StatusCode::OK { &mut other } else { &mut team };
        assert_eq!(loser.ask(Method::PUT, &path, "a layer").await.status, StatusCode::NOT_FOUND);
    }
}

/// Who may pull an image may put it into a repository of their own; while it is being pushed that lets nobody write it.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_wrote_an_image_that_was_being_pushed() {
    let rules =
        format!("{RULES}\n[[access]]\nwho = [\"user:other\"]\nrepositories = [\"team/**\"]\nactions = [\"pull\"]\n");
    let (_registry, gate) = house(Registry::ItsOwn, &rules);
    let image = Image::new("shared", None, noise(100));
    let (mut team, mut reader) = (docker(&gate, "team"), docker(&gate, "other"));
    team.open(Method::PUT, "team/app", &[&image.id]).await.expect(&[StatusCode::OK]);
    let path = format!("/v1/images/{}", image.id);
    team.ask(Method::PUT, &format!("{path}/json"), image.json.clone()).await.expect(&[StatusCode::OK]);
    reader.open(Method::PUT, "other/app", &[&image.id]).await.expect(&[StatusCode::OK]);
    let poison = String::from_utf8_lossy(&image.json).replace("amd64", "arm64");
    let answer = reader.ask(Method::PUT, &format!("{path}/json"), poison).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert!(String::from_utf8_lossy(&answer.body).contains("being pushed by somebody else"), "{answer:?}");
    let answer = reader.ask(Method::PUT, &format!("{path}/layer"), "a layer").await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    team.push("team/app", "1.0", std::slice::from_ref(&image)).await;
    assert_eq!(reader.pull("team/app", "1.0").await, std::slice::from_ref(&image));
    let tagged = reader.tag("other/app", "1.0", &image.id).await;
    assert_eq!(tagged.status, StatusCode::UNAUTHORIZED, "the token of the pull is for the other repository");
    reader.open(Method::PUT, "other/app", &[&image.id]).await.expect(&[StatusCode::OK]);
    assert_eq!(reader.tag("other/app", "1.0", &image.id).await.status, StatusCode::OK);
    assert_eq!(reader.pull("other/app", "1.0").await, [image]);
}
