use tempfile::TempDir;

use super::*;
use crate::access::{Actions, Purpose, Rule, Rules};
use crate::store::Settings;

struct Ground {
    images: Images,
    _directory: TempDir,
}

impl Ground {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings {
            data: directory.path().join("data"),
            uploads: 1,
            upload_lifetime: Duration::from_secs(60),
            disk_reserve: 0,
            disk_reserve_percent: 0,
        };
        let images = Images::new(Store::open(settings).await.unwrap(), "old".into());
        Self { images, _directory: directory }
    }

    /// The registry answered that it is in the repository.
    async fn learn(&self, repository: &str, image: &ImageId) {
        let repository = repository.parse().unwrap();
        let moment = self.images.moment(&repository);
        self.images.learn(moment, &repository, vec![image.clone()], false).await.unwrap();
    }

    /// Through which repositories an image is to be read, as readers are told.
    async fn readable(&self, image: &ImageId) -> Vec<String> {
        let remembered = self.images.remembered(image).await.unwrap();
        assert_eq!(*remembered, self.images.standings(image).await.unwrap(), "what is remembered is not what is so");
        remembered.present().map(ToString::to_string).collect()
    }
}

fn image(digit: char) -> ImageId {
    digit.to_string().repeat(64).parse().unwrap()
}

fn permit<A: Purpose>(repository: &str) -> Permit<A> {
    let who = vec!["anyone".parse().unwrap()];
    let everybody = Rule { who, repositories: vec!["**".parse().unwrap()], actions: Actions::ALL };
    let principal = Principal::user("ada", vec![]);
    Rules::new(vec![everybody]).authorize(&principal, &repository.parse().unwrap()).unwrap()
}

#[tokio::test]
async fn readers_are_told_what_is_so_after_every_change() {
    let ground = Ground::new().await;
    let (child, parent) = (image('c'), image('a'));
    assert!(ground.readable(&child).await.is_empty() && ground.readable(&parent).await.is_empty());
    ground.learn("team/app", &child).await;
    assert_eq!(ground.readable(&child).await, ["team/app"]);
    ground.images.learn_ancestry(&child, vec![child.clone(), parent.clone()]).await.unwrap();
    assert_eq!(ground.readable(&parent).await, ["team/app"]);
    let named = Named { image: parent.clone(), standing: Standing::Present, by: None };
    ground.images.name(&permit("other/app"), vec![named]).await.unwrap();
    assert_eq!(ground.readable(&parent).await, ["other/app", "team/app"]);
    let begun = vec!["new/app".parse().unwrap()];
    let before = ground.images.begin(&child, begun.clone(), &Principal::anonymous()).await.unwrap();
    assert_eq!(ground.readable(&child).await, ["new/app"]);
    ground.images.restore(&child, begun, before).await.unwrap();
    assert_eq!(ground.readable(&child).await, ["team/app"]);
    ground.images.forget(&permit("team/app"), true).await.unwrap();
    assert_eq!((ground.readable(&child).await, ground.readable(&parent).await), (vec![], vec!["other/app".to_owned()]));
}

#[tokio::test]
async fn what_was_known_before_is_no_change() {
    let ground = Ground::new().await;
    let (child, parent) = (image('c'), image('a'));
    let learn = async || {
        ground.learn("team/app", &child).await;
        ground.images.learn_ancestry(&child, vec![child.clone(), parent.clone()]).await.unwrap();
        ground.images.remembered(&child).await.unwrap()
    };
    let first = learn().await;
    assert!(Arc::ptr_eq(&first, &learn().await), "each pull learns the same, and all would look at the table");
}

#[tokio::test]
async fn who_changes_the_table_and_leaves_is_not_forgotten() {
    let ground = Ground::new().await;
    ground.learn("team/app", &image('c')).await;
    assert_eq!(ground.readable(&image('c')).await, ["team/app"]);
    let permit = permit("team/app");
    let mut forget = Box::pin(ground.images.forget(&permit, true));
    assert!(futures_util::poll!(forget.as_mut()).is_pending());
    drop(forget);
    let asked = async {
        while !ground.images.remembered(&image('c')).await.unwrap().0.iter().all(|row| row.standing.is_gone()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), asked).await.expect("it is still remembered");
}

#[tokio::test]
async fn nobody_waits_for_a_turn_for_ever() {
    let ground = Ground::new().await;
    let (first, second) = (image('a'), image('c'));
    let held = ground.images.turn(&[&first, &second]).await.expect("nobody has it");
    tokio::time::pause();
    for images in [&[&first][..], &[&second, &first]] {
        let turn = tokio::time::timeout(Duration::from_secs(3_600), ground.images.turn(images));
        assert!(turn.await.expect("it waits for ever").is_none());
    }
    drop(held);
    assert!(ground.images.turn(&[&second, &first]).await.is_some());
}
