//! Several peers of one registry, and how many requests each upstream gets at a time.

use super::{Mirror, OPEN, TIMES, cache_is_clean, crowd, noise, prepare, pull};
use crate::support::V2Upstream;
use crate::support::v1_upstream::nobody;
use crate::support::v2_upstream::{Door, Fault, Latch};

fn with_peers(peers: &[String]) -> String {
    format!("kind = \"mirror\"\npeers = {peers:?}\n{TIMES}\nhealth = {{ interval = \"1s\" }}\n")
}

#[test]
fn what_one_peer_broke_off_another_goes_on_with() {
    let (sick, well) = (V2Upstream::start(), V2Upstream::start());
    let layers = [noise(1, 300_000), noise(2, 300_000), noise(3, 300_000), noise(4, 300_000)];
    let blobs = layers.each_ref().map(|layer| {
        sick.blob("app", layer);
        well.blob("app", layer)
    });
    sick.fault("GET", "/blobs/", Fault::Truncated(50));
    let gate = prepare(OPEN, &with_peers(&[sick.url(), well.url()])).start();
    for (layer, blob) in layers.iter().zip(&blobs) {
        assert!(pull(gate.main, &format!("/v2/up/app/blobs/{blob}"), &[]).unwrap().expect(200).body == *layer);
    }
    assert!(sick.count("GET", "/blobs/") >= 1, "each has its turn");
    let ranges = well.asked_for("GET", "/blobs/").iter().filter(|asked| asked.header("range").is_some()).count();
    assert_eq!(ranges, sick.count("GET", "/blobs/"));
    cache_is_clean(&gate.path("cache"));
}

#[test]
fn a_peer_that_is_gone_is_not_missed() {
    let well = V2Upstream::start();
    let gate = prepare(OPEN, &with_peers(&[format!("http://{}", nobody()), well.url()])).start();
    for seed in 0..6 {
        let layer = noise(seed, 50_000);
        let blob = well.blob("app", &layer);
        assert!(pull(gate.main, &format!("/v2/up/app/blobs/{blob}"), &[]).unwrap().expect(200).body == layer);
        assert_eq!(well.count("GET", &blob), 1);
    }
}

#[test]
fn half_of_the_requests_failed_where_each_peer_has_its_token_service() {
    let peers = ["127.0.0.1", "127.0.0.2"].map(V2Upstream::at);
    let user = "username = \"ada\"\npassword = \"secret\"\n";
    let file = with_peers(&peers.each_ref().map(V2Upstream::url)) + user;
    peers.iter().for_each(|peer| peer.guard(Door::bearer().user("ada", "secret", &["*"])));
    let gate = prepare(OPEN, &file).start();
    for seed in 0..8 {
        let layer = noise(seed, 5_000);
        let blobs = peers.each_ref().map(|peer| peer.blob("app", &layer));
        let answer = pull(gate.main, &format!("/v2/up/app/blobs/{}", blobs[0]), &[]).unwrap();
        assert!(answer.expect(200).body == layer);
    }
    for peer in &peers {
        assert_eq!(peer.count("GET", "/token"), 1, "each has its turn, and gives a token");
    }
}

#[test]
fn more_than_an_upstream_gets_at_a_time_wait_and_are_not_refused() {
    let mirror = Mirror::start("concurrency = 1\nfirst_byte_timeout = \"3s\"\nidle_timeout = \"20s\"");
    let (first, second) = (noise(5, 200_000), noise(6, 200_000));
    let (first_blob, second_blob) = (mirror.up.blob("app", &first), mirror.up.blob("app", &second));
    let latch = Latch::new();
    mirror.up.fault("GET", &first_blob, Fault::HoldAt(50, latch.clone()));
    let one = crowd(&mirror.gate, 1, &format!("/v2/up/app/blobs/{first_blob}")).remove(0);
    mirror.up.wait_for("GET", &first_blob, 1);
    let (address, path) = (mirror.gate.main, format!("/v2/up/app/blobs/{second_blob}"));
    let other = std::thread::spawn(move || pull(address, &path, &[]));
    super::are_there(&mirror.gate, 2);
    assert_eq!(mirror.up.count("GET", &second_blob), 0);
    latch.open();
    assert!(one.join().unwrap().unwrap().expect(200).body == first);
    assert!(other.join().unwrap().unwrap().expect(200).body == second);
}
