use std::collections::BTreeSet;

use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::*;

pub(super) async fn tags_page_by_bytes(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    for name in ["b", "B", "a", "_", "10", "9", "a.b", "a-b"] {
        push_image(&store, &app, name, "").await;
    }
    let page = store.tags(&app, None, 3).await.unwrap().unwrap();
    assert_eq!((page.names, page.more), (vec!["10".to_owned(), "9".into(), "B".into()], true));
    let page = store.tags(&app, Some("B"), 5).await.unwrap().unwrap();
    assert_eq!((page.names.join(" "), page.more), ("_ a a-b a.b b".to_owned(), false));
    // What comes after need not be a tag.
    let page = store.tags(&app, Some("a-zzz"), 1).await.unwrap().unwrap();
    assert_eq!((page.names.join(" "), page.more), ("a.b".to_owned(), true));
    let page = store.tags(&app, None, 0).await.unwrap().unwrap();
    assert_eq!((page.names.len(), page.more), (0, true));
    assert!(store.tags(&app, Some("~"), 9).await.unwrap().unwrap().names.is_empty());
}

pub(super) async fn a_repository_without_content_has_no_tags(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    assert_eq!(store.tags(&app, None, 9).await.unwrap(), None);
    store.begin_upload(&app, ALICE, Algorithm::Sha256).await.unwrap();
    assert_eq!(store.tags(&app, None, 9).await.unwrap(), None);
    let info = push_blob(&store, &app, b"blob".as_slice()).await;
    assert!(store.tags(&app, None, 9).await.unwrap().is_some());
    store.unlink_blob(&app, &info.digest).await.unwrap();
    assert_eq!(store.tags(&app, None, 9).await.unwrap(), None);
}

pub(super) async fn repositories_page_by_bytes(ground: &Ground) {
    let store = ground.open().await;
    for name in ["b", "a/b", "a-b", "a", "a0"] {
        push_image(&store, &repository(name), "v1", "").await;
    }
    push_blob(&store, &repository("only-a-blob"), b"blob".as_slice()).await;
    let names = |found: Vec<RepositoryName>| found.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(store.repositories(None, 3).await.unwrap()), ["a", "a-b", "a/b"]);
    assert_eq!(names(store.repositories(Some("a/b"), 9).await.unwrap()), ["a0", "b"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn pages_of_any_size_make_the_whole(names: BTreeSet<String>, tags in proptest::collection::btree_set("[a-zA-Z0-9_][a-zA-Z0-9._-]{0,3}", 0..20), limit in 1usize..7) {
        let after: Vec<_> = names.into_iter().take(3).collect();
        Runtime::new().unwrap().block_on(async {
            let ground = Ground::files();
            let store = ground.open().await;
            let app = repository("app");
            push_image(&store, &app, "first", "").await;
            store.delete_tag(&app, &tag("first")).await.unwrap();
            let bytes = image(b"{}", b"layer", "");
            for name in &tags {
                put(&store, &app, &bytes, Some(&tag(name)), true).await.unwrap();
            }
            for after in after.iter().map(String::as_str).chain([""]) {
                let expected: Vec<_> = tags.iter().filter(|name| name.as_str() > after).cloned().collect();
                let mut found = Vec::new();
                loop {
                    let last = found.last().cloned().unwrap_or_else(|| after.to_owned());
                    let page = store.tags(&app, Some(&last), limit).await.unwrap().unwrap();
                    assert!(page.names.len() <= limit);
                    found.extend(page.names);
                    if !page.more {
                        break;
                    }
                    assert!(found.len() < expected.len());
                }
                assert_eq!(found, expected);
            }
        });
    }
}
