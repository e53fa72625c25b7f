//! What every request pays before anybody looks for bytes: time and allocations of reading its words.
#![expect(clippy::unwrap_used, reason = "what is measured here is known to be good")]

use std::hint::black_box;

use divan::{AllocProfiler, Bencher};
use dockgate::access::{Actions, Principal, Pull, Rule, Rules};
use dockgate::docker::Client;
use dockgate::gateway::route;
use dockgate::oci::{Digest, Manifest, MediaType, RepositoryName};
use http::{Method, Uri};

#[global_allocator]
static ALLOCATOR: AllocProfiler<tikv_jemallocator::Jemalloc> = AllocProfiler::new(tikv_jemallocator::Jemalloc);

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn main() {
    divan::main();
}

#[divan::bench]
fn digest_parse() -> Digest {
    black_box(DIGEST).parse().unwrap()
}

#[divan::bench]
fn digest_print(bencher: Bencher) {
    let digest = Digest::sha256(b"");
    bencher.bench(|| black_box(&digest).to_string());
}

#[divan::bench(args = ["/v2/", "/v2/team/app/manifests/v1.0", "/v2/team/app/tags/list?n=50&last=v1"])]
fn route_parse(bencher: Bencher, target: &str) {
    let uri: Uri = target.parse().unwrap();
    bencher.bench(|| route::parse(&Method::GET, black_box(&uri)));
}

#[divan::bench]
fn route_parse_blob(bencher: Bencher) {
    let uri: Uri = format!("/v2/team/app/blobs/{DIGEST}").parse().unwrap();
    bencher.bench(|| route::parse(&Method::GET, black_box(&uri)));
}

#[divan::bench(args = ["docker/28.2.2 go/go1.24 git-commit/45873be kernel/6.1.0 os/linux arch/amd64", "docker/1.5.0"])]
fn client_parse(user_agent: &str) -> Client {
    Client::parse(black_box(user_agent.as_bytes()))
}

/// A manifest of as many layers.
#[divan::bench(args = [1, 10, 100])]
fn manifest_parse(bencher: Bencher, layers: usize) {
    let layer =
        format!(r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{DIGEST}","size":3}}"#);
    let text = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{DIGEST}","size":3}},"layers":[{}]}}"#,
        vec![layer; layers].join(",")
    );
    let media_type = MediaType::OciManifest.as_str();
    bencher.bench(|| Manifest::parse(black_box(text.as_bytes()), Some(media_type)).unwrap());
}

/// As many rules, of which the last one grants.
#[divan::bench(args = [3, 30, 300])]
fn rules_authorize(bencher: Bencher, count: usize) {
    let rule = |index: usize| Rule {
        who: vec!["user:ada".parse().unwrap()],
        repositories: vec![format!("team-{index}/*/app-*/**").parse().unwrap()],
        actions: Actions::ALL,
    };
    let rules = Rules::new((1..=count).map(rule).collect());
    let repository: RepositoryName = format!("team-{count}/x/app-y/z").parse().unwrap();
    let ada = Principal::user("ada", vec![]);
    bencher.bench(|| rules.authorize::<Pull>(black_box(&ada), black_box(&repository)).unwrap());
}
