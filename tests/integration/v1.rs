//! Old clients at the gateway's port: docker 1.3 and 1.5 before the real docker-registry 0.9.1.

mod faults;
mod images;
mod index;
mod matrix;
mod paths;
mod search;
mod users;
mod wire;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{Method, StatusCode};

use super::support::gate::{Prepared, wait_until};
use super::support::v1_client::{AGENT, Image, V1Client, nothing};
use super::support::v1_registry::V1Registry;
use super::support::{Client, Gate, content};

const MEBIBYTE: usize = 1 << 20;

/// The rule for `public/**` makes the v2 side ask for tokens, which v1 clients do not know.
const RULES: &str = r#"
[[access]]
who = ["user:root"]
repositories = ["**"]
actions = ["*"]
[[access]]
who = ["user:dev"]
repositories = ["**"]
actions = ["pull", "push"]
[[access]]
who = ["user:reader", "user:creator"]
repositories = ["**"]
actions = ["pull"]
[[access]]
who = ["user:creator"]
repositories = ["**"]
actions = ["create"]
[[access]]
who = ["user:team"]
repositories = ["team/**"]
actions = ["pull", "push"]
[[access]]
who = ["user:other"]
repositories = ["other/**"]
actions = ["pull", "push"]
[[access]]
who = ["anyone"]
repositories = ["public/**"]
actions = ["pull"]
"#;

/// Everybody's password is their name.
const USERS: [&str; 6] = ["root", "dev", "reader", "creator", "team", "other"];

/// One that is busy with a large layer answers late.
const PATIENT_HEALTH: &str = "health = { path = \"/v1/_ping\", interval = \"2s\", failures = 3, successes = 1 }";

/// A directory for a gateway with `peers` as its v1 registry; `upstream` stands in the upstream's file.
fn prepare(rules: &str, peers: &[SocketAddr], upstream: &str) -> Prepared {
    let prepared = Gate::prepare(rules);
    let users: String = USERS.iter().map(|user| format!("{user}:{}\n", bcrypt::hash(user, 4).unwrap())).collect();
    prepared.write("htpasswd", &users);
    let peers: Vec<_> = peers.iter().map(|peer| format!("\"http://{peer}\"")).collect();
    let text = format!("kind = \"legacy\"\npeers = [{}]\n{upstream}\n", peers.join(", "));
    prepared.write("upstreams/legacy-v1.toml", &text);
    prepared
}

fn house() -> (V1Registry, Gate) {
    let registry = V1Registry::start();
    let gate = prepare(RULES, &[registry.address()], PATIENT_HEALTH).start();
    (registry, gate)
}

/// Docker 1.5 over TLS, logged in as `user`.
fn docker(gate: &Gate, user: &str) -> V1Client {
    logged_out(gate).with_basic(user, user)
}

fn logged_out(gate: &Gate) -> V1Client {
    V1Client::tls(&gate.main.to_string(), &gate.path("certs/ca.crt"))
}

fn basic(user: &str, password: &str) -> (HeaderName, String) {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    (header::AUTHORIZATION, format!("Basic {text}"))
}

/// Bytes that do not compress to nothing.
fn noise(length: usize) -> Bytes {
    (0..length).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect::<Vec<_>>().into()
}

/// Two layers, the base first.
fn images(seed: &str) -> Vec<Image> {
    let base = Image::new(&format!("{seed} base"), None, noise(300_000));
    let top = Image::new(&format!("{seed} top"), Some(&base), noise(1_000));
    vec![base, top]
}

/// Pushes, pulls again, and compares what came with what was sent, bytes and checksums.
async fn round_trip(client: &mut V1Client, repository: &str, images: &[Image]) {
    client.push(repository, "1.0", images).await;
    assert_eq!(client.pull(repository, "1.0").await, top_first(images));
}

fn top_first(images: &[Image]) -> Vec<Image> {
    images.iter().rev().cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_1_5_pushes_and_pulls_over_tls_with_a_password() {
    let (registry, gate) = house();
    let images = images("1.5");
    let mut client = docker(&gate, "dev");
    round_trip(&mut client, "team/app", &images).await;
    assert_eq!(client.search("app").await["results"][0]["name"], "team/app");

    // What the registry has is what was pushed, and it knows which docker pushed it.
    let mut straight = V1Client::plain(&registry.address().to_string());
    assert_eq!(straight.pull("team/app", "1.0").await, top_first(&images));
    let tag = straight.call(Method::GET, "/v1/repositories/team/app/tags/1.0/json", AGENT, &[], nothing()).await;
    assert!(String::from_utf8_lossy(&tag.body).contains("\"docker_version\": \"1.5.0\""), "{:?}", tag.body);

    let log = gate.log.lock().unwrap().clone();
    let pull = log.lines().rfind(|line| line.contains("/layer")).expect("a line for a layer");
    assert!(pull.contains("user=dev") && pull.contains("backend=\"legacy\""), "{pull}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_rules_let_every_user_push_and_pull() {
    let registry = V1Registry::start();
    let gate = prepare("", &[registry.address()], PATIENT_HEALTH).start();
    round_trip(&mut docker(&gate, "dev"), "team/app", &images("defaults")).await;
}

/// Every TOML of docs/legacy.md, written where its first line says.
#[test]
fn what_the_guide_says_to_write_is_taken() {
    let guide = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/legacy.md")).unwrap();
    let blocks: Vec<_> = guide.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 3, "{} blocks", blocks.len());
    for block in blocks {
        let file = block.lines().next().unwrap().trim_start_matches("# ");
        let prepared = Gate::prepare("");
        prepared.write(file, block);
        let checked = prepared.run(&["check"]);
        assert!(checked.status.success(), "{block}\n{}", String::from_utf8_lossy(&checked.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_1_3_pushes_and_pulls_over_tls_with_a_password() {
    let (_registry, gate) = house();
    let mut client = docker(&gate, "dev").docker_1_3();
    round_trip(&mut client, "team/app", &images("1.3")).await;
    assert!(client.seen().iter().all(|seen| !seen.path.starts_with("/v2")), "docker 1.3 does not ask for v2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_without_a_namespace_is_in_the_library() {
    let (_registry, gate) = house();
    round_trip(&mut docker(&gate, "dev"), "app", &images("library")).await;
    let same = docker(&gate, "dev").pull("library/app", "1.0").await;
    assert_eq!(same, top_first(&images("library")));
}

#[tokio::test(flavor = "multi_thread")]
async fn old_clients_can_log_in() {
    let (_registry, gate) = house();
    let mut client = logged_out(&gate);
    assert_eq!(client.login("dev", "dev").await, StatusCode::OK);
    assert_eq!(client.login("dev", "wrong").await, StatusCode::UNAUTHORIZED);
    assert_eq!(client.login("nobody", "dev").await, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_and_new_clients_push_and_pull_at_the_same_time() {
    let (_registry, gate) = house();
    let new = gate.tls().user("dev", "dev");
    let (pushed, is_enough) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, enough) = (Arc::clone(&pushed), Arc::clone(&is_enough));
    let modern = tokio::task::spawn_blocking(move || {
        while !enough.load(Ordering::Acquire) {
            let digest = content::push_image(&new, "team/app", &format!("v{}", count.load(Ordering::Acquire) % 20));
            new.get(&format!("/v2/team/app/manifests/{digest}")).expect(200);
            count.fetch_add(1, Ordering::AcqRel);
        }
        new.get("/v2/team/app/tags/list").expect(200).json()["tags"].as_array().unwrap().len()
    });
    let mut old = docker(&gate, "dev");
    for number in 0..3 {
        let before = pushed.load(Ordering::Acquire);
        round_trip(&mut old, "team/app", &images(&format!("beside v2 {number}"))).await;
        wait_until("the new one to have pushed, too", || pushed.load(Ordering::Acquire) > before);
    }
    is_enough.store(true, Ordering::Release);
    assert_eq!(modern.await.unwrap(), pushed.load(Ordering::Acquire).min(20));
}

/// Every request that shows or changes something.
fn asks(id: &str) -> Vec<(Method, String)> {
    let image = |word: &str| format!("/v1/images/{id}/{word}");
    let repository = |rest: &str| format!("/v1/repositories/team/app/{rest}");
    let mut asks = Vec::new();
    for word in ["json", "layer", "ancestry"] {
        asks.push((Method::GET, image(word)));
        asks.push((Method::HEAD, image(word)));
    }
    for rest in ["images", "tags", "tags/1.0", "tags/1.0/json", "json", "properties"] {
        asks.push((Method::GET, repository(rest)));
    }
    asks.push((Method::GET, "/v1/search?q=app".to_owned()));
    asks.extend(["json", "layer", "checksum"].map(|word| (Method::PUT, image(word))));
    asks.extend(["", "images", "tags/1.0", "properties", "auth"].map(|rest| (Method::PUT, repository(rest))));
    asks.extend(["", "tags/1.0"].map(|rest| (Method::DELETE, repository(rest))));
    asks
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_refused_and_sees_nothing() {
    let registry = V1Registry::start();
    let rules = format!("{RULES}\n[limits]\nlogin_failures = 1000\n");
    let gate = prepare(&rules, &[registry.address()], PATIENT_HEALTH).start();
    let images = images("private");
    let top = &images[1].id;
    docker(&gate, "dev").push("team/app", "1.0", &images).await;
    let mut client = logged_out(&gate);
    for (method, path) in asks(top) {
        let reads = matches!(method, Method::GET | Method::HEAD);
        // Who may read an image is told that it is there already.
        let exists = path.ends_with("/json") && path.starts_with("/v1/images");
        let (search, deletes) = (path.starts_with("/v1/search"), method == Method::DELETE);
        // A search shows nothing, and who begins an image must say first where to.
        let elsewhere = match exists && method == Method::PUT {
            _ if search => 0,
            _ if !reads && path.starts_with("/v1/repositories/") => 403,
            true => 403,
            false => 404,
        };
        for (caller, headers, expected) in [
            ("nobody", vec![], 401),
            ("a logged out docker", vec![basic("", "")], 401),
            ("a wrong password", vec![basic("dev", "wrong")], 401),
            ("the registry's token", vec![token()], 401),
            ("who may elsewhere", vec![basic("other", "other")], elsewhere),
            ("who may this repository only", vec![basic("team", "team")], if search || !deletes { 0 } else { 403 }),
            ("who may read", vec![basic("reader", "reader")], if reads || exists { 0 } else { 403 }),
            ("who may create", vec![basic("creator", "creator")], if reads || exists { 0 } else { 403 }),
            ("who may not delete", vec![basic("dev", "dev")], if method == Method::DELETE { 403 } else { 0 }),
        ] {
            if expected == 0 {
                continue;
            }
            let answer = client.call(method.clone(), &path, AGENT, &headers, nothing()).await;
            assert_eq!(answer.status, expected, "{method} {path} by {caller}: {answer:?}");
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(images.iter().all(|image| !text.contains(&image.id)), "{method} {path} by {caller}: {text}");
            let challenges = usize::from(expected == 401);
            assert_eq!(answer.headers.get_all(header::WWW_AUTHENTICATE).iter().count(), challenges, "{method} {path}");
        }
    }
    assert_eq!(docker(&gate, "reader").pull("team/app", "1.0").await, top_first(&images), "nothing was changed");
    let deleted =
        client.call(Method::DELETE, "/v1/repositories/team/app/", AGENT, &[basic("root", "root")], nothing()).await;
    assert_eq!(deleted.status, StatusCode::OK);
}

fn token() -> (HeaderName, String) {
    (header::AUTHORIZATION, "Token Token signature=AAAAAAAAAAAAAAAA,repository=\"team/app\",access=write".to_owned())
}

/// The registry's own tokens open nothing here, but they must not close what is open to anyone.
#[tokio::test(flavor = "multi_thread")]
async fn where_anyone_may_docker_1_5_goes_on_with_the_registrys_token_over_plain_http() {
    let registry = V1Registry::start();
    let rules = "[[access]]\nwho = [\"anyone\"]\nrepositories = [\"**\"]\nactions = [\"pull\", \"push\"]\n";
    let gate = prepare(rules, &[registry.address()], PATIENT_HEALTH).start();
    let mut client = V1Client::plain(&gate.main.to_string());
    round_trip(&mut client, "team/app", &images("plain")).await;
    let mut client = logged_out(&gate);
    round_trip(&mut client, "team/app", &images("logged out, over TLS")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_is_resumed_where_it_broke_off() {
    let (_registry, gate) = house();
    let images = images("resume");
    let mut client = docker(&gate, "dev");
    client.push("team/app", "1.0", &images).await;
    let (id, layer) = (&images[0].id, &images[0].layer);
    client.ping().await;
    assert_eq!(client.resume(id, 1_000, layer.len()).await, layer.slice(1_000..));
    let part = client.seen().last().unwrap();
    assert_eq!(part.header("content-length"), (layer.len() - 1_000).to_string());
    assert_eq!(part.header("content-range"), format!("1000-{0}/{0}", layer.len()));
    assert_eq!(client.resume(id, layer.len(), layer.len()).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_layer_streams_through() {
    let (_registry, gate) = house();
    let mut client = docker(&gate, "dev");
    round_trip(&mut client, "team/app", &images("small")).await;
    let before = resident_peak(&gate);
    let large = [Image::new("large", None, noise(64 * MEBIBYTE))];
    round_trip(&mut client, "team/large", &large).await;
    let grown = resident_peak(&gate) - before;
    assert!(grown < 48 * MEBIBYTE, "the gateway grew by {grown} bytes");
    assert!(gate.log.lock().unwrap().contains(&format!("received={} ", 64 * MEBIBYTE)), "the push is counted");
}

/// The most memory that a process ever had, in bytes.
fn resident_peak(gate: &Gate) -> usize {
    let status = std::fs::read_to_string(Path::new("/proc").join(gate.id().to_string()).join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_breaks_off_is_not_taken_for_whole() {
    use std::io::Write as _;
    let (registry, gate) = house();
    let image = Image::new("cut off", None, noise(MEBIBYTE));
    let mut client = docker(&gate, "dev");
    let (json, path) = (image.json.clone(), format!("/v1/images/{}", image.id));
    let body =
        http_body_util::BodyExt::boxed(http_body_util::BodyExt::map_err(http_body_util::Full::new(json), |never| {
            match never {}
        }));
    let headers = [basic("dev", "dev"), (header::CONTENT_TYPE, "application/json".to_owned())];
    client.open(Method::PUT, "team/app", &[&image.id]).await.expect(&[StatusCode::OK]);
    assert_eq!(client.call(Method::PUT, &format!("{path}/json"), AGENT, &headers, body).await.status, StatusCode::OK);

    let (_, authorization) = basic("dev", "dev");
    let head = format!(
        "PUT {path}/layer HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let mut stream = Client::plain(gate.main).connect();
    let half = [head.as_bytes(), b"80000\r\n", &image.layer[..0x80000], b"\r\n"].concat();
    stream.write_all(&half).unwrap();
    drop(stream);
    gate.wait_for_log("/layer");
    // 0.9.1 keeps the half, and says nothing of it: the checksum of the whole is what it lacks.
    let sum = [(HeaderName::from_static("x-docker-checksum-payload"), image.payload_checksum())];
    let mut straight = V1Client::plain(&registry.address().to_string());
    let refused = straight.call(Method::PUT, &format!("{path}/checksum"), AGENT, &sum, nothing()).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "half a layer was taken for a whole one");
    // It can be pushed again, and then it is whole.
    round_trip(&mut client, "team/app", &[image]).await;
}

/// curl asks before it sends much; docker does not.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_whether_to_send_a_layer_is_told_to() {
    let (_registry, gate) = house();
    let image = Image::new("expected", None, noise(4 * MEBIBYTE));
    docker(&gate, "dev").open(Method::PUT, "team/app", &[&image.id]).await.expect(&[StatusCode::OK]);
    let prepared = gate.prepared();
    for (word, body) in [("json", &image.json), ("layer", &image.layer)] {
        std::fs::write(prepared.path(word), body).unwrap();
        let url = format!("https://localhost:{}/v1/images/{}/{word}", gate.main.port(), image.id);
        let arguments = ["-sSv", "-o", "/dev/null", "-w", "%{http_code}", "-u", "dev:dev", "--cacert", "certs/ca.crt"];
        for version in ["--http1.1", "--http2"].iter().take(if word == "layer" { 2 } else { 1 }) {
            let mut curl = std::process::Command::new("curl");
            curl.args(arguments).args([version, "-H", "Content-Type: application/json", "-H", "Expect: 100-continue"]);
            let output = curl.args(["-T", word]).arg(&url).current_dir(prepared.directory.path()).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(String::from_utf8_lossy(&output.stdout), "200", "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_registry_can_go_and_come_back() {
    let (registry, gate) = house();
    let mut client = docker(&gate, "dev");
    round_trip(&mut client, "team/app", &images("before")).await;
    let registry = registry.stop();
    wait_until("the registry to be found dead", || healthy(&gate) == 0);
    let refused =
        client.call(Method::GET, "/v1/repositories/team/app/tags", AGENT, &[basic("dev", "dev")], nothing()).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    let _registry = registry.start();
    wait_until("the registry to be found alive", || healthy(&gate) == 1);
    assert_eq!(client.pull("team/app", "1.0").await, top_first(&images("before")));
}

/// How many peers the metrics call healthy.
fn healthy(gate: &Gate) -> usize {
    let page = gate.admin().get("/metrics").expect(200).text();
    let line =
        page.lines().find_map(|line| line.strip_prefix("dockgate_upstream_healthy_peers{upstream=\"legacy-v1\"} "));
    line.map_or(usize::MAX, |count| count.parse().unwrap())
}
