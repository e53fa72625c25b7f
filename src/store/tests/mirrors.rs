//! What is known of registries elsewhere.

use std::time::{Duration, SystemTime};

use crate::store::{Known, Member, Pointer};

use super::*;

fn member(text: &[u8], size: Option<u64>, media_type: Option<&str>) -> Member {
    Member { digest: Digest::sha256(text), size, media_type: media_type.map(str::to_owned), proven: false }
}

pub(super) async fn a_digest_belongs_to_one_repository_of_one_upstream(ground: &Ground) {
    let store = ground.open().await;
    let (app, other) = ("library/app".parse().unwrap(), "library/other".parse().unwrap());
    let layer = member(b"layer", Some(5), None);
    store.put_members("hub", &app, vec![layer.clone(), member(b"manifest", None, Some("type"))]).await.unwrap();
    assert_eq!(store.member("hub", &app, &layer.digest).await, Ok(Some(layer.clone())));
    assert_eq!(store.member("hub", &other, &layer.digest).await, Ok(None));
    assert_eq!(store.member("quay", &app, &layer.digest).await, Ok(None));

    // What is known already stays where nothing new is said.
    store
        .put_members("hub", &app, vec![member(b"layer", None, None), member(b"manifest", Some(8), None)])
        .await
        .unwrap();
    assert_eq!(store.member("hub", &app, &layer.digest).await, Ok(Some(layer.clone())));
    let manifest = member(b"manifest", Some(8), Some("type"));
    assert_eq!(store.member("hub", &app, &manifest.digest).await, Ok(Some(manifest)));

    store.put_members("hub", &app, vec![Member { proven: true, ..layer.clone() }]).await.unwrap();
    store.put_members("hub", &app, vec![layer.clone()]).await.unwrap();
    assert!(store.member("hub", &app, &layer.digest).await.unwrap().unwrap().proven, "a proof stays");

    // Of what a manifest said of a size the upstream's own word says nothing.
    let proof = Member { proven: true, ..member(b"manifest", None, Some("type")) };
    store.put_members("hub", &app, vec![proof.clone()]).await.unwrap();
    assert_eq!(store.member("hub", &app, &proof.digest).await, Ok(Some(proof.clone())));
    // Nor does what the next manifest says of it count any more.
    store.put_members("hub", &app, vec![member(b"manifest", Some(9), None)]).await.unwrap();
    assert_eq!(store.member("hub", &app, &proof.digest).await, Ok(Some(proof)));

    store.forget_member("hub", &app, &layer.digest).await.unwrap();
    assert_eq!(store.member("hub", &app, &layer.digest).await, Ok(None));
}

pub(super) async fn what_one_upstream_sent_another_one_did_not(ground: &Ground) {
    let (store, digest) = (ground.open().await, Digest::sha256(b"layer"));
    let began = SystemTime::now() - Duration::from_secs(1);
    store.put_sent("hub", &digest).await.unwrap();
    store.put_sent("hub", &digest).await.unwrap();
    let store = ground.reopen(store).await;
    assert!(store.sent("hub", &digest).await.unwrap().is_some_and(|used_at| used_at > began));
    assert_eq!(store.sent("quay", &digest).await, Ok(None));
    assert_eq!(store.sent("hub", &Digest::sha256(b"other")).await, Ok(None));
}

pub(super) async fn what_a_tag_names_is_known_and_since_when(ground: &Ground) {
    let (name, tag) = ("library/app".parse().unwrap(), Pointer::Tag("1".parse().unwrap()));
    let began = SystemTime::now() - Duration::from_secs(1);
    let is = |known: Option<Known<Digest>>, text: &[u8]| {
        known.is_some_and(|known| known.what == Some(Digest::sha256(text)) && known.checked_at > began)
    };
    let store = ground.open().await;
    assert_eq!(store.known("hub", &name, &tag).await, Ok(None));
    for text in [b"1", b"2"] {
        store.put_known("hub", &name, &tag, &Digest::sha256(text)).await.unwrap();
        assert!(is(store.known("hub", &name, &tag).await.unwrap(), text));
    }
    let store = ground.reopen(store).await;
    assert!(is(store.known("hub", &name, &tag).await.unwrap(), b"2"));
    assert_eq!(store.known("quay", &name, &tag).await, Ok(None));
    store.forget_known("hub", &name, &tag).await.unwrap();
    assert_eq!(store.known("hub", &name, &tag).await, Ok(None));
}

pub(super) async fn lists_of_referrers_are_forgotten_without_the_tags(ground: &Ground) {
    let store = ground.open().await;
    let (app, other) = ("library/app".parse().unwrap(), "library/other".parse().unwrap());
    let subject = Digest::sha256(b"subject");
    let tag = Pointer::Tag(format!("sha256-{}", subject.hex()).parse().unwrap());
    let pointers = [Pointer::Referrers(subject), tag];
    for (name, pointer) in [(&app, &pointers[0]), (&app, &pointers[1]), (&other, &pointers[0])] {
        store.put_known("hub", name, pointer, &Digest::sha256(b"it")).await.unwrap();
    }
    store.forget_lists("hub", &app).await.unwrap();
    assert_eq!(store.known("hub", &app, &pointers[0]).await, Ok(None));
    assert!(store.known("hub", &app, &pointers[1]).await.unwrap().is_some());
    assert!(store.known("hub", &other, &pointers[0]).await.unwrap().is_some());
}

pub(super) async fn what_was_not_asked_for_in_a_long_time_is_swept(ground: &Ground) {
    let store = ground.open().await;
    let name = "library/app".parse().unwrap();
    let layer = member(b"layer", None, None);
    store.put_members("hub", &name, vec![layer.clone()]).await.unwrap();
    store.put_known("hub", &name, &Pointer::Referrers(layer.digest), &layer.digest).await.unwrap();
    store.put_sent("hub", &layer.digest).await.unwrap();
    assert_eq!(store.sweep_mirrors(Duration::from_secs(60)).await, Ok(0));
    assert!(store.member("hub", &name, &layer.digest).await.unwrap().is_some());
    let now = SystemTime::now();
    while SystemTime::now() < now + Duration::from_millis(2) {
        std::thread::yield_now();
    }
    assert_eq!(store.sweep_mirrors(Duration::ZERO).await, Ok(3));
    assert_eq!(store.sent("hub", &layer.digest).await, Ok(None));
    assert_eq!(store.member("hub", &name, &layer.digest).await, Ok(None));
}

pub(super) async fn an_image_is_pinned_by_what_it_is_made_of(ground: &Ground) {
    let store = ground.open().await;
    let digests = vec![Digest::sha256(b"1"), Digest::sha256(b"2")];
    store.put_pins("docker.io/library/app:1", digests.clone()).await.unwrap();
    store.put_pins("docker.io/library/other:1", vec![digests[0]]).await.unwrap();
    assert_eq!(store.pins().await.unwrap().len(), 3);
    store.put_pins("docker.io/library/app:1", vec![]).await.unwrap();
    assert_eq!(store.pins().await, Ok(vec![("docker.io/library/other:1".to_owned(), digests[0])]));
}
