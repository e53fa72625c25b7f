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
        let path = format!("/v1/images/{}/json", images[0].id);
        team.ask(Method::PUT, &path, images[0].json.clone()).await.expect(&[StatusCode::OK]);
        // Nothing stands on half an image.
        let path = format!("/v1/images/{}/json", images[1].id);
        assert_eq!(team.ask(Method::PUT, &path, images[1].json.clone()).await.status, StatusCode::CONFLICT);
        Stranger { docker: docker(&gate, "other"), images: &images[..1] }.tries_everything().await;
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

/// By the password an image was begun in every repository that had named it, or in none, where the list of another one then
/// taught it.
#[tokio::test(flavor = "multi_thread")]
async fn who_may_push_everywhere_gave_an_image_to_all_who_had_named_it() {
    let (_registry, gate) = house(Registry::ItsOwn, RULES);
    let image = Image::new("named by two", None, noise(100));
    let mut squatter = docker(&gate, "other");
    squatter.open(Method::PUT, "other/app", &[&image.id]).await.expect(&[StatusCode::OK]);
    let mut root = docker(&gate, "root");
    let path = format!("/v1/images/{}", image.id);
    let headers = [basic("root", "root"), (header::CONTENT_TYPE, "application/json".to_owned())];
    let put = |mut root: V1Client, word: &'static str, body: bytes::Bytes| {
        let (path, headers) = (format!("{path}/{word}"), headers.clone());
        async move {
            let body = super::super::support::v1_client::full(body);
            root.call(Method::PUT, &path, AGENT, &headers, body).await.status
        }
    };
    assert_eq!(put(root.clone(), "json", image.json.clone()).await, StatusCode::FORBIDDEN, "it is for no repository");
    root.open(Method::PUT, "team/app", &[&image.id]).await.expect(&[StatusCode::OK]);
    assert_eq!(put(root.clone(), "json", image.json.clone()).await, StatusCode::OK);
    assert_eq!(put(root.clone(), "layer", image.layer.clone()).await, StatusCode::OK);
    for word in ["json", "layer"] {
        squatter.ask(Method::GET, "/v1/repositories/other/app/images", "").await;
        assert_eq!(squatter.ask(Method::GET, &format!("{path}/{word}"), "").await.status, 404);
        let put = squatter.ask(Method::PUT, &format!("{path}/{word}"), image.json.clone()).await;
        assert!(put.status.is_client_error(), "{put:?}");
    }
    docker(&gate, "team").push("team/app", "1.0", std::slice::from_ref(&image)).await;
}

/// A base of which another push left a half can be pushed by who may push there, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_base_that_was_left_half_blocked_all_other_repositories() {
    for registry in BOTH {
        let (_registry, gate) = house(registry, RULES);
        let images = images("left half");
        let mut team = docker(&gate, "team");
        team.open(Method::PUT, "team/one", &[&images[0].id]).await.expect(&[StatusCode::OK]);
        let path = format!("/v1/images/{}/json", images[0].id);
        team.ask(Method::PUT, &path, images[0].json.clone()).await.expect(&[StatusCode::OK]);
        let mut again = docker(&gate, "team");
        again.push("team/two", "1.0", &images).await;
        assert_eq!(again.pull("team/two", "1.0").await, top_first(&images), "{registry:?}");
    }
}

/// An image of which there is half since before the gateway was there is begun anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_half_that_nobody_pushes_any_more_blocked_a_push() {
    let (registry, gate) = house(Registry::ItsOwn, RULES);
    let images = images("half before");
    let mut straight = V1Client::plain(&registry.address().to_string());
    let path = format!("/v1/images/{}/json", images[0].id);
    straight.ask(Method::PUT, &path, images[0].json.clone()).await.expect(&[StatusCode::OK]);
    let mut team = docker(&gate, "team");
    team.push("team/app", "1.0", &images).await;
    assert_eq!(team.pull("team/app", "1.0").await, top_first(&images));
}

/// A registry that fails may have taken half of it; whoever began it goes on.
#[test]
fn a_push_in_which_the_registry_failed_could_not_be_tried_again() {
    use super::super::support::v1_upstream::{V1Upstream, reply};
    let failures = std::sync::atomic::AtomicUsize::new(0);
    let upstream = V1Upstream::start(move |asked| {
        use std::sync::atomic::Ordering;
        let (json, put) = (asked.target.ends_with("/json"), asked.method == "PUT");
        let status = match failures.load(Ordering::SeqCst) {
            0 if json && put => {
                failures.store(1, Ordering::SeqCst);
                500
            }
            0 if json => 404,
            _ if json && !put => 400,
            _ => 200,
        };
        reply(status, &[("Content-Type", "application/json")], b"{}")
    });
    let gate = super::prepare(RULES, &[upstream.address], "").start();
    let id = "dddddddddddddddd";
    let team = gate.plain().user("team", "team");
    let list = format!("[{{\"id\":\"{id}\"}}]");
    let json = format!("{{\"id\":\"{id}\"}}");
    let push = |status: u16| {
        let answer = team.send("PUT", "/v1/repositories/team/app/", &[], list.as_bytes()).expect(200);
        let token = format!("Token {}", answer.header("x-docker-token").unwrap());
        let docker = gate.plain().with("Authorization", &token);
        docker.send("PUT", &format!("/v1/images/{id}/json"), &[], json.as_bytes()).expect(status);
        docker
    };
    push(500);
    let docker = push(200);
    docker.send("PUT", &format!("/v1/images/{id}/layer"), &[], b"layer").expect(200);
    // Others may not.
    let other = gate.plain().user("other", "other");
    other.send("PUT", "/v1/repositories/other/app/", &[], list.as_bytes()).expect(403);
}

/// By a token for one repository another one's images came into it, once they had been named there.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_widened_itself_by_naming_what_its_user_pushed_elsewhere_later() {
    let (_registry, gate) = house(Registry::ItsOwn, RULES);
    let image = Image::new("secret", None, noise(100));
    let mut thief = docker(&gate, "team");
    thief.open(Method::PUT, "team/two", &[]).await.expect(&[StatusCode::OK]);
    let list = format!("[{{\"id\":\"{}\"}}]", image.id);
    thief.ask(Method::PUT, "/v1/repositories/team/two/", list).await.expect(&[StatusCode::OK]);
    docker(&gate, "team").push("team/secret", "1.0", std::slice::from_ref(&image)).await;
    let path = format!("/v1/images/{}", image.id);
    let put = thief.ask(Method::PUT, &format!("{path}/json"), image.json.clone()).await;
    assert_eq!(put.status, StatusCode::FORBIDDEN, "{put:?}");
    assert_eq!(thief.ask(Method::GET, &format!("{path}/layer"), "").await.status, StatusCode::NOT_FOUND);
}

/// A tag on half an image would name whatever became of it.
#[tokio::test(flavor = "multi_thread")]
async fn half_an_image_gets_no_tag() {
    let (_registry, gate) = house(Registry::ItsOwn, RULES);
    let image = Image::new("half tagged", None, noise(100));
    let mut team = docker(&gate, "team");
    team.open(Method::PUT, "team/app", &[&image.id]).await.expect(&[StatusCode::OK]);
    let path = format!("/v1/images/{}/json", image.id);
    team.ask(Method::PUT, &path, image.json.clone()).await.expect(&[StatusCode::OK]);
    assert_eq!(team.tag("team/app", "1.0", &image.id).await.status, StatusCode::CONFLICT);
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
        // Root may push to team/app too, so that nothing is reserved: only their turns are between the two.
        let (mut team, mut other) = (docker(&gate, "team"), docker(&gate, "root"));
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
    assert!(String::from_utf8_lossy(&answer.body).contains("is being pushed"), "{answer:?}");
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

/// One user pushes the same new base to two repositories at once; and when the second comes to it, it is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_base_that_was_pushed_to_two_repositories_at_once_was_refused_in_one() {
    for registry in BOTH {
        let (_registry, gate) = house(registry, RULES);
        let base = Image::new("new base", None, noise(1_000));
        let (one, two) = (Image::new("one", Some(&base), noise(10)), Image::new("two", Some(&base), noise(10)));
        let (mut first, mut second) = (docker(&gate, "team"), docker(&gate, "team"));
        first.open(Method::PUT, "team/one", &[&base.id, &one.id]).await.expect(&[StatusCode::OK]);
        second.open(Method::PUT, "team/two", &[&base.id, &two.id]).await.expect(&[StatusCode::OK]);
        let path = format!("/v1/images/{}", base.id);
        for docker in [&mut first, &mut second] {
            assert_eq!(docker.ask(Method::GET, &format!("{path}/json"), "").await.status, StatusCode::NOT_FOUND);
            docker.ask(Method::PUT, &format!("{path}/json"), base.json.clone()).await.expect(&[StatusCode::OK]);
        }
        second.ask(Method::PUT, &format!("{path}/layer"), base.layer.clone()).await.expect(&[StatusCode::OK]);
        first.push("team/one", "1.0", &[base.clone(), one.clone()]).await;
        assert_eq!(first.pull("team/one", "1.0").await, [one, base.clone()], "{registry:?}");
        // The second goes on with what it had begun.
        let again = second.ask(Method::PUT, &format!("{path}/json"), base.json.clone()).await;
        assert_eq!(again.status, StatusCode::CONFLICT);
        assert!(String::from_utf8_lossy(&again.body).contains("Image already exists"), "{again:?}");
        second.push("team/two", "1.0", &[base.clone(), two.clone()]).await;
        assert_eq!(second.pull("team/two", "1.0").await, [two, base], "{registry:?}");
    }
}

/// The same when the first is done before the second comes to the base.
#[tokio::test(flavor = "multi_thread")]
async fn a_base_that_was_pushed_elsewhere_since_it_was_listed_was_refused() {
    let (_registry, gate) = house(Registry::ItsOwn, RULES);
    let base = Image::new("listed twice", None, noise(1_000));
    let (mut first, mut second) = (docker(&gate, "team"), docker(&gate, "team"));
    second.open(Method::PUT, "team/two", &[&base.id]).await.expect(&[StatusCode::OK]);
    first.push("team/one", "1.0", std::slice::from_ref(&base)).await;
    let path = format!("/v1/images/{}/json", base.id);
    let there = second.ask(Method::PUT, &path, base.json.clone()).await;
    assert!(String::from_utf8_lossy(&there.body).contains("Image already exists"), "{there:?}");
    assert_eq!(second.tag("team/two", "1.0", &base.id).await.status, StatusCode::OK);
    assert_eq!(second.pull("team/two", "1.0").await, [base]);
}

/// Who may push where a stranger had begun an image joined it, and gave them the layer.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_joined_the_half_that_a_stranger_had_begun() {
    let rules = format!(
        "{RULES}\n[[access]]\nwho = [\"user:team\"]\nrepositories = [\"other/**\"]\nactions = [\"pull\", \"push\"]\n"
    );
    for registry in BOTH {
        let (_registry, gate) = house(registry, &rules);
        let image = Image::new("begun by a stranger", None, noise(100));
        let mut stranger = docker(&gate, "other");
        stranger.open(Method::PUT, "other/app", &[&image.id]).await.expect(&[StatusCode::OK]);
        let path = format!("/v1/images/{}", image.id);
        stranger.ask(Method::PUT, &format!("{path}/json"), image.json.clone()).await.expect(&[StatusCode::OK]);
        let mut team = docker(&gate, "team");
        team.open(Method::PUT, "team/secret", &[&image.id]).await.expect(&[StatusCode::OK]);
        let put = team.ask(Method::PUT, &format!("{path}/json"), image.json.clone()).await;
        assert_eq!(put.status, StatusCode::CONFLICT, "{registry:?}: {put:?}");
        let put = team.ask(Method::PUT, &format!("{path}/layer"), image.layer.clone()).await;
        assert_eq!(put.status, StatusCode::FORBIDDEN, "{registry:?}: {put:?}");
    }
}
