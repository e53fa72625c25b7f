//! Which v1 images are in which repositories.

use crate::docker::ImageId;

use super::super::Standing::{self, Deleted, Listed, Present, Pushed};
use super::super::Store;
use super::{Ground, RepositoryName};

fn image(digit: char) -> ImageId {
    digit.to_string().repeat(16).parse().unwrap()
}

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

async fn put(store: &Store, repository: &str, images: &[(char, Standing)]) {
    let images = images.iter().map(|(digit, standing)| (image(*digit), *standing)).collect();
    store.put_legacy_images("old", &name(repository), images, || true).await.unwrap();
}

async fn stands(store: &Store, digit: char) -> Vec<(String, Standing)> {
    let found = store.legacy_image("old", &image(digit)).await.unwrap();
    found.into_iter().map(|(name, standing)| (name.to_string(), standing)).collect()
}

pub(super) async fn an_image_stands_to_repositories(ground: &Ground) {
    let store = ground.open().await;
    put(&store, "team/app", &[('a', Present), ('b', Listed)]).await;
    put(&store, "other/app", &[('a', Present)]).await;
    // A list does not take away, and what was listed becomes present.
    put(&store, "team/app", &[('a', Listed), ('b', Present)]).await;
    let store = ground.reopen(store).await;
    assert_eq!(stands(&store, 'a').await, [("other/app".into(), Present), ("team/app".into(), Present)]);
    assert_eq!(stands(&store, 'b').await, [("team/app".into(), Present)]);
    assert_eq!(store.legacy_image("elsewhere", &image('a')).await, Ok(vec![]));
    let images = store.legacy_repository("old", &name("team/app")).await;
    assert_eq!(images, Ok(vec![(image('a'), Present), (image('b'), Present)]));

    store.put_legacy_images("old", &name("team/app"), vec![(image('c'), Present)], || false).await.unwrap();
    assert_eq!(stands(&store, 'c').await, []);
}

pub(super) async fn a_deleted_repository_has_no_images(ground: &Ground) {
    let store = ground.open().await;
    put(&store, "team/app", &[('a', Present), ('b', Listed)]).await;
    put(&store, "other/app", &[('a', Present)]).await;
    store.forget_legacy_repository("old", &name("team/app"), || ()).await.unwrap();
    assert_eq!(stands(&store, 'a').await, [("other/app".into(), Present), ("team/app".into(), Deleted)]);
    assert_eq!(stands(&store, 'b').await, []);
    put(&store, "team/app", &[('a', Listed)]).await;
    assert_eq!(stands(&store, 'a').await, [("other/app".into(), Present), ("team/app".into(), Deleted)]);
    put(&store, "team/app", &[('a', Present)]).await;
    assert_eq!(stands(&store, 'a').await, [("other/app".into(), Present), ("team/app".into(), Present)]);
}

pub(super) async fn who_begins_an_image_has_it(ground: &Ground) {
    let store = ground.open().await;
    put(&store, "squatter/app", &[('a', Present)]).await;
    put(&store, "old/app", &[('a', Present)]).await;
    store.forget_legacy_repository("old", &name("old/app"), || ()).await.unwrap();
    store.begin_legacy_image("old", &image('a'), vec![name("team/app")]).await.unwrap();
    let expected = [("old/app".into(), Listed), ("squatter/app".into(), Listed), ("team/app".into(), Pushed)];
    assert_eq!(stands(&store, 'a').await, expected);
    put(&store, "team/app", &[('a', Present)]).await;
    assert_eq!(stands(&store, 'a').await, expected, "who pushed it may write it");
}

pub(super) async fn only_what_stands_nowhere_is_unknown(ground: &Ground) {
    let store = ground.open().await;
    put(&store, "team/app", &[('a', Present), ('b', Listed)]).await;
    let images = vec![image('a'), image('b'), image('c')];
    let other = name("other/app");
    store.put_unknown_legacy_images("old", &other, images.clone(), || false).await.unwrap();
    assert_eq!(stands(&store, 'c').await, []);
    store.put_unknown_legacy_images("old", &other, images, || true).await.unwrap();
    assert_eq!(stands(&store, 'a').await, [("team/app".into(), Present)]);
    assert_eq!(stands(&store, 'b').await, [("team/app".into(), Listed)]);
    assert_eq!(stands(&store, 'c').await, [("other/app".into(), Present)]);
}
