//! Which v1 images are in which repositories.

use crate::docker::ImageId;
use crate::store::Standing::{self, Abandoned, Deleted, Listed, Present, Pushed};
use crate::store::{LegacyRow, Named, Store};

use super::{Ground, RepositoryName};

fn image(digit: char) -> ImageId {
    digit.to_string().repeat(16).parse().unwrap()
}

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

async fn put(store: &Store, repository: &str, images: &[(char, Standing)]) {
    put_by(store, repository, None, images).await;
}

async fn put_by(store: &Store, repository: &str, by: Option<&str>, images: &[(char, Standing)]) {
    let named =
        |(digit, standing): &(char, Standing)| Named { image: image(*digit), standing: *standing, by: by.map(name) };
    store
        .name_legacy_images("old", &name(repository), ("alice", false), images.iter().map(named).collect())
        .await
        .unwrap();
}

async fn rows(store: &Store, digit: char) -> Vec<LegacyRow> {
    store.legacy_image("old", &image(digit)).await.unwrap()
}

async fn stands(store: &Store, digit: char) -> Vec<(String, Standing)> {
    rows(store, digit).await.into_iter().map(|row| (row.repository.to_string(), row.standing)).collect()
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
    assert_eq!(store.search_legacy("old", "APP", 1).await, Ok(vec![name("other/app")]));
    assert_eq!(store.search_legacy("old", "m/a", 9).await, Ok(vec![name("team/app")]));
    assert_eq!(store.search_legacy("old", "_", 9).await, Ok(vec![]));
}

pub(super) async fn what_justifies_a_standing_must_still_hold(ground: &Ground) {
    let store = ground.open().await;
    put_by(&store, "own/app", Some("team/app"), &[('a', Present)]).await;
    assert_eq!(stands(&store, 'a').await, []);
    put(&store, "team/app", &[('a', Listed)]).await;
    put_by(&store, "own/app", Some("team/app"), &[('a', Present)]).await;
    assert_eq!(stands(&store, 'a').await, [("team/app".into(), Listed)]);
    put(&store, "team/app", &[('a', Present)]).await;
    put_by(&store, "own/app", Some("team/app"), &[('a', Present)]).await;
    assert_eq!(stands(&store, 'a').await, [("own/app".into(), Present), ("team/app".into(), Present)]);
}

pub(super) async fn who_listed_an_image_first_has_it_reserved(ground: &Ground) {
    let store = ground.open().await;
    put(&store, "team/app", &[('a', Listed)]).await;
    let first = rows(&store, 'a').await.remove(0);
    assert!(first.is_reserved() && first.named_by == "alice" && first.named_at > 0, "{first:?}");
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    put(&store, "team/app", &[('a', Listed)]).await;
    assert_eq!(rows(&store, 'a').await, std::slice::from_ref(&first));
    store.begin_legacy_image("old", &image('a'), vec![name("other/app")], "bob").await.unwrap();
    // It opens nothing, so it is left to whoever wants to push there next.
    let after = rows(&store, 'a').await;
    assert!(after[0].standing == Pushed && after[0].named_by == "bob" && after.len() == 2, "{after:?}");
    assert_eq!(after[1], first);
}

pub(super) async fn a_deleted_repository_has_no_images(ground: &Ground) {
    let store = ground.open().await;
    put(&store, "team/app", &[('a', Present), ('b', Listed), ('c', Pushed)]).await;
    put(&store, "other/app", &[('a', Present)]).await;
    store.forget_legacy_repository("old", &name("team/app"), true, || ()).await.unwrap();
    assert_eq!(stands(&store, 'a').await, [("other/app".into(), Present), ("team/app".into(), Deleted)]);
    assert_eq!(stands(&store, 'b').await, []);
    assert_eq!(stands(&store, 'c').await, [("team/app".into(), Abandoned)]);
    put(&store, "team/app", &[('a', Listed), ('c', Listed)]).await;
    assert_eq!(stands(&store, 'a').await, [("other/app".into(), Present), ("team/app".into(), Deleted)]);
    put_by(&store, "team/app", Some("team/app"), &[('a', Present), ('c', Pushed)]).await;
    assert_eq!(stands(&store, 'a').await, [("other/app".into(), Present), ("team/app".into(), Present)]);
    assert_eq!(stands(&store, 'c').await, [("team/app".into(), Pushed)]);
    assert_eq!(store.search_legacy("old", "team", 9).await, Ok(vec![name("team/app")]));
    store.forget_legacy_repository("old", &name("team/app"), true, || ()).await.unwrap();
    assert_eq!(store.search_legacy("old", "team", 9).await, Ok(vec![]));
}

pub(super) async fn who_begins_an_image_has_it(ground: &Ground) {
    let store = ground.open().await;
    put(&store, "squatter/app", &[('a', Pushed)]).await;
    put(&store, "old/app", &[('a', Present)]).await;
    store.forget_legacy_repository("old", &name("old/app"), true, || ()).await.unwrap();
    let team = vec![name("team/app")];
    let before = store.begin_legacy_image("old", &image('a'), team.clone(), "bob").await.unwrap();
    let expected = [("old/app".into(), Listed), ("squatter/app".into(), Listed), ("team/app".into(), Pushed)];
    assert_eq!(stands(&store, 'a').await, expected);
    put(&store, "team/app", &[('a', Present)]).await;
    assert_eq!(stands(&store, 'a').await, expected, "who pushed it may write it");

    // The registry did not take it, and what came of it meanwhile.
    put(&store, "new/app", &[('a', Listed)]).await;
    put_by(&store, "late/app", Some("team/app"), &[('a', Pushed)]).await;
    store.restore_legacy_image("old", &image('a'), team, before.clone()).await.unwrap();
    let expected = [("new/app".into(), Listed), ("old/app".into(), Deleted), ("squatter/app".into(), Pushed)];
    assert_eq!(stands(&store, 'a').await, expected);
}

pub(super) async fn what_changed_meanwhile_is_not_restored(ground: &Ground) {
    let store = ground.open().await;
    put(&store, "team/app", &[('a', Pushed)]).await;
    let team = vec![name("team/app")];
    let before = store.begin_legacy_image("old", &image('a'), team.clone(), "bob").await.unwrap();
    store.forget_legacy_repository("old", &team[0], true, || ()).await.unwrap();
    store.restore_legacy_image("old", &image('a'), team, before).await.unwrap();
    assert_eq!(stands(&store, 'a').await, [("team/app".into(), Abandoned)]);
}

pub(super) async fn a_list_teaches_only_what_stands_nowhere(ground: &Ground) {
    let store = ground.open().await;
    put(&store, "team/app", &[('a', Present), ('b', Listed)]).await;
    let images = vec![image('a'), image('b'), image('c')];
    let other = name("other/app");
    store.learn_legacy_images("old", &other, images.clone(), true, || false).await.unwrap();
    assert_eq!(stands(&store, 'c').await, []);
    store.learn_legacy_images("old", &other, images.clone(), true, || true).await.unwrap();
    assert_eq!(stands(&store, 'a').await, [("team/app".into(), Present)]);
    assert_eq!(stands(&store, 'b').await, [("team/app".into(), Listed)]);
    assert_eq!(stands(&store, 'c').await, [("other/app".into(), Present)]);
    store.learn_legacy_images("old", &other, images, false, || true).await.unwrap();
    assert_eq!(stands(&store, 'a').await, [("other/app".into(), Present), ("team/app".into(), Present)]);
}

pub(super) async fn what_an_image_stands_on_is_where_it_is(ground: &Ground) {
    let store = ground.open().await;
    put(&store, "team/app", &[('a', Pushed)]).await;
    put(&store, "other/app", &[('a', Present), ('b', Listed)]).await;
    put(&store, "third/app", &[('a', Listed)]).await;
    let ancestry = vec![image('a'), image('b'), image('c')];
    let missing = async || store.missing_legacy_ancestors("old", &image('a'), ancestry.clone()).await;
    assert_eq!(missing().await, Ok(vec![image('b'), image('c')]));
    store.learn_legacy_ancestry("old", &image('a'), ancestry.clone()).await.unwrap();
    assert_eq!(missing().await, Ok(vec![]));
    for digit in ['b', 'c'] {
        assert_eq!(stands(&store, digit).await, [("other/app".into(), Present), ("team/app".into(), Present)]);
    }
    assert_eq!(stands(&store, 'a').await.len(), 3);
}

pub(super) async fn what_was_listed_and_never_pushed_is_swept(ground: &Ground) {
    let store = ground.open().await;
    put(&store, "team/app", &[('a', Listed), ('b', Present)]).await;
    store
        .name_legacy_images(
            "old",
            &name("team/app"),
            ("alice", true),
            vec![Named { image: image('c'), standing: Listed, by: None }],
        )
        .await
        .unwrap();
    assert_eq!(rows(&store, 'c').await[0].named_by, "", "who came by a token");
    let day = std::time::Duration::from_secs(86_400);
    assert_eq!(store.sweep_legacy(day).await, Ok(0));
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    assert_eq!(store.sweep_legacy(std::time::Duration::ZERO).await, Ok(2));
    assert_eq!(stands(&store, 'b').await, [("team/app".into(), Present)]);
    // A repository that was not found may have left its list behind.
    put(&store, "team/app", &[('a', Listed)]).await;
    store.forget_legacy_repository("old", &name("team/app"), false, || ()).await.unwrap();
    assert_eq!(stands(&store, 'a').await, [("team/app".into(), Listed)]);
    assert_eq!(stands(&store, 'b').await, [("team/app".into(), Deleted)]);
}
