//! The v1 client of the tests and the real docker-registry 0.9.1, with nothing between them: what the gateway has to be as
//! good as.

use super::support::v1_client::{AGENT, Image, PING_AGENT, V1Client, nothing};
use super::support::v1_registry::V1Registry;
use bytes::Bytes;
use http::{Method, StatusCode, header};

fn images(seed: &str) -> Vec<Image> {
    let noise = |length: usize| -> Bytes { (0..length).map(|i| ((i * i) >> 7) as u8).collect::<Vec<_>>().into() };
    let base = Image::new(&format!("{seed} base"), None, noise(300_000));
    let top = Image::new(&format!("{seed} top"), Some(&base), noise(1_000));
    vec![base, top]
}

/// Everything that docker 1.5 does, at `host`.
async fn walk(host: &str, seed: &str) {
    let mut client = V1Client::plain(host);
    push_and_pull(&mut client, seed).await;
    assert_eq!(client.login("somebody", "secret").await, StatusCode::CREATED);
    assert_eq!(client.search("app").await["results"][0]["name"], "team/app");

    // A tag remembers the User-Agent that set it, so that has to arrive.
    let tag = client.call(Method::GET, "/v1/repositories/team/app/json", AGENT, &[], nothing()).await;
    let tag: serde_json::Value = serde_json::from_slice(&tag.body).expect("tag JSON");
    assert_eq!((&tag["docker_version"], &tag["docker_go_version"]), (&"1.5.0".into(), &"go1.4.1".into()));
    assert_eq!((&tag["arch"], &tag["kernel"]), (&"amd64".into(), &"3.16.0".into()));

    let moved = client.call(Method::GET, "/v1/users", PING_AGENT, &[], nothing()).await;
    assert_eq!((moved.status.as_u16(), moved.header("location")), (301, &*format!("http://{host}/v1/users/")));
}

async fn push_and_pull(client: &mut V1Client, seed: &str) {
    let images = images(seed);
    client.push("team/app", "1.0", &images).await;
    let mut expected = images.clone();
    expected.reverse();
    assert_eq!(client.pull("team/app", "1.0").await, expected);
    // A second push finds its images there and sends no layer again.
    let before = client.seen().len();
    client.push("team/app", "latest", &images).await;
    assert!(client.seen()[before..].iter().all(|seen| !seen.path.ends_with("/layer")), "a layer was sent twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn straight_to_the_registry() {
    let registry = V1Registry::start();
    let host = registry.address().to_string();
    walk(&host, "straight").await;

    // The oddities that our side has to mend, so that this test says when they are gone.
    let images = images("straight");
    let mut client = V1Client::plain(&host);
    let layer = &images[0].layer;
    assert_eq!(client.resume(&images[0].id, 1_000, layer.len()).await, layer.slice(1_000..));
    let [part, rest] = client.seen() else { panic!("{:?}", client.seen()) };
    assert_eq!(part.header("content-range"), format!("1000-{0}/{0}", layer.len()));
    assert_eq!(part.header("content-length"), (layer.len() - 1_000 + 1).to_string());
    assert!(part.broken.is_some(), "one byte more was announced than there is");
    assert_eq!((rest.status, rest.header("content-length")), (StatusCode::RANGE_NOT_SATISFIABLE, "0"));
    let put = client.call(Method::PUT, "/v1/users/somebody/", AGENT, &json(), nothing()).await;
    assert_eq!((put.status, put.header("content-length")), (StatusCode::NO_CONTENT, "2"));
}

fn json() -> [(header::HeaderName, String); 1] {
    [(header::CONTENT_TYPE, "application/json".to_owned())]
}
