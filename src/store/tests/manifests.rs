use futures_util::future::join_all;

use super::*;
use crate::oci::MediaType;

pub(super) async fn a_manifest_comes_back_byte_for_byte(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    let bytes = push_image(&store, &app, "v1", "  ").await;
    let digest = Digest::sha256(&bytes);
    assert_eq!(store.tag(&app, &tag("v1")).await.unwrap(), Some(digest));
    let found = store.manifest(&app, &digest).await.unwrap().unwrap();
    assert_eq!((found.digest, found.media_type, found.bytes), (digest, MediaType::OciManifest, bytes));
    assert_eq!(store.manifest(&repository("other"), &digest).await.unwrap(), None);
    assert_eq!(store.tag(&app, &tag("v2")).await.unwrap(), None);
}

pub(super) async fn missing_parts_are_named(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    push_blob(&store, &app, b"{}".as_slice()).await;
    let missing = put(&store, &app, &image(b"{}", b"layer", ""), None, true).await;
    assert_eq!(missing, Err(PutError::MissingChildren(vec![Digest::sha256(b"layer")])));
    let missing = put(&store, &app, &image(b"same", b"same", ""), None, true).await;
    assert_eq!(missing, Err(PutError::MissingChildren(vec![Digest::sha256(b"same")])));
}

pub(super) async fn parts_of_another_repository_do_not_count(ground: &Ground) {
    let store = ground.open().await;
    push_blob(&store, &repository("other"), b"{}".as_slice()).await;
    push_blob(&store, &repository("other"), b"layer".as_slice()).await;
    let missing = put(&store, &repository("app"), &image(b"{}", b"layer", ""), None, true).await;
    let expected = vec![Digest::sha256(b"{}"), Digest::sha256(b"layer")];
    assert_eq!(missing, Err(PutError::MissingChildren(expected)));
}

pub(super) async fn a_size_may_be_wrong(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    push_image(&store, &app, "v1", "").await;
    let text = String::from_utf8(image(b"{}", b"layer", "").to_vec()).unwrap();
    let lying: Bytes = text.replace("\"size\":5", "\"size\":6").into();
    assert_eq!(put(&store, &app, &lying, None, true).await, Ok(Put { created: true }));
}

pub(super) async fn the_bytes_must_be_what_the_digest_says(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    let bytes = push_image(&store, &app, "v1", "").await;
    let manifest = Manifest::parse(&bytes, None).unwrap();
    let digest = Digest::sha256(b"something else");
    let put =
        PutManifest { repository: &app, bytes, digest, manifest: &manifest, tags: &[], overwrite: true, principal: "" };
    assert!(matches!(store.put_manifest(put).await, Err(PutError::Mismatch(_))));
    assert_eq!(store.manifest(&app, &digest).await.unwrap(), None);
}

pub(super) async fn a_tag_moves_only_if_it_may(ground: &Ground) {
    let store = ground.open().await;
    let (app, v1) = (repository("app"), tag("v1"));
    let first = push_image(&store, &app, "v1", "").await;
    let second = image(b"{}", b"layer", " ");
    assert_eq!(put(&store, &app, &second, Some(&v1), false).await, Err(PutError::TagExists(v1.clone())));
    assert_eq!(store.tag(&app, &v1).await.unwrap(), Some(Digest::sha256(&first)));
    assert_eq!(store.manifest(&app, &Digest::sha256(&second)).await.unwrap(), None);
    assert_eq!(put(&store, &app, &first, Some(&v1), false).await, Ok(Put { created: false }));
    assert_eq!(put(&store, &app, &second, Some(&v1), true).await, Ok(Put { created: true }));
    assert_eq!(store.tag(&app, &v1).await.unwrap(), Some(Digest::sha256(&second)));
    let fresh = put(&store, &app, &second, Some(&tag("v2")), false).await;
    assert_eq!(fresh, Ok(Put { created: false }));
}

pub(super) async fn a_foreign_layer_need_not_be_here(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    push_blob(&store, &app, b"{}".as_slice()).await;
    let text = String::from_utf8(image(b"{}", b"elsewhere", "").to_vec()).unwrap();
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let bytes = text.replace("application/vnd.oci.image.layer.v1.tar+gzip", foreign).into();
    put(&store, &app, &bytes, None, true).await.unwrap();
}

fn index(children: &[&[u8]], more: &str) -> Bytes {
    let children: Vec<_> = children.iter().map(|child| descriptor(MediaType::OciManifest.as_str(), child)).collect();
    format!(r#"{{"schemaVersion":2,"manifests":[{}]{more}}}"#, children.join(",")).into()
}

pub(super) async fn an_index_needs_its_manifests(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    let child = push_image(&store, &app, "v1", "").await;
    // A blob of that name is not a manifest of that name.
    push_blob(&store, &app, b"blob".as_slice()).await;
    let missing = put(&store, &app, &index(&[&child, b"blob"], ""), None, true).await;
    assert_eq!(missing, Err(PutError::MissingChildren(vec![Digest::sha256(b"blob")])));
    put(&store, &app, &index(&[&child], ""), Some(&tag("all")), true).await.unwrap();
    put(&store, &app, &index(&[], ""), Some(&tag("empty")), true).await.unwrap();
}

pub(super) async fn deleting_a_manifest_takes_its_tags(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    let bytes = push_image(&store, &app, "v1", "").await;
    let other = push_image(&store, &app, "other", " ").await;
    put(&store, &app, &bytes, Some(&tag("latest")), true).await.unwrap();
    let digest = Digest::sha256(&bytes);
    assert!(store.delete_manifest(&repository("none"), &digest).await.unwrap().is_none());
    assert!(store.delete_manifest(&app, &digest).await.unwrap().is_some());
    assert!(store.delete_manifest(&app, &digest).await.unwrap().is_none());
    assert_eq!(store.manifest(&app, &digest).await.unwrap(), None);
    assert_eq!(store.tags(&app, None, 9).await.unwrap().unwrap().names, ["other"]);
    assert_eq!(store.tag(&app, &tag("other")).await.unwrap(), Some(Digest::sha256(&other)));
    // The blobs stay until they are collected, so the same image can be pushed again at once.
    put(&store, &app, &bytes, Some(&tag("v1")), false).await.unwrap();
}

pub(super) async fn deleting_a_tag_leaves_its_manifest(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    let bytes = push_image(&store, &app, "v1", "").await;
    assert!(store.delete_tag(&app, &tag("v1")).await.unwrap());
    assert!(!store.delete_tag(&app, &tag("v1")).await.unwrap());
    assert_eq!(store.tag(&app, &tag("v1")).await.unwrap(), None);
    assert!(store.manifest(&app, &Digest::sha256(&bytes)).await.unwrap().is_some());
    assert_eq!(store.tags(&app, None, 9).await.unwrap().unwrap().names, Vec::<String>::new());
}

pub(super) async fn a_refused_manifest_leaves_nothing(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    put(&store, &app, &image(b"{}", b"layer", ""), Some(&tag("v1")), true).await.unwrap_err();
    assert_eq!(store.tags(&app, None, 9).await.unwrap(), None);
    assert_eq!(store.repositories(None, 9).await.unwrap(), []);
}

pub(super) async fn neighbours_in_a_commit_do_not_harm_each_other(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    push_image(&store, &app, "v0", "").await;
    let pushes = (0..64).map(|number| {
        let (store, app) = (store.clone(), app.clone());
        async move {
            let layer: &[u8] = if number % 2 == 0 { b"layer" } else { b"missing" };
            let bytes = image(b"{}", layer, &" ".repeat(number));
            put(&store, &app, &bytes, Some(&tag(&format!("t{number:02}"))), false).await
        }
    });
    for (number, pushed) in join_all(pushes).await.into_iter().enumerate() {
        let refused = Err(PutError::MissingChildren(vec![Digest::sha256(b"missing")]));
        let stored = Ok(Put { created: number != 0 });
        assert_eq!(pushed, if number % 2 == 0 { stored } else { refused }, "{number}");
    }
    let page = store.tags(&app, Some("t"), 100).await.unwrap().unwrap();
    let expected: Vec<_> = (0..64).step_by(2).map(|number| format!("t{number:02}")).collect();
    assert_eq!(page.names[..page.names.len() - 1], expected);
}

pub(super) async fn referrers_are_found_by_type_and_page(ground: &Ground) {
    let store = ground.open().await;
    let app = repository("app");
    let subject = push_image(&store, &app, "v1", "").await;
    let digest = Digest::sha256(&subject);
    let about = descriptor(MediaType::OciManifest.as_str(), &subject);
    let mut expected = Vec::new();
    for number in 0..6 {
        let artifact_type = if number % 2 == 0 { "x/even" } else { "x/odd" };
        let more = format!(r#","subject":{about},"artifactType":"{artifact_type}"{}"#, " ".repeat(number));
        let bytes = image(b"{}", b"layer", &more);
        put(&store, &app, &bytes, None, true).await.unwrap();
        expected.push((Digest::sha256(&bytes), bytes, artifact_type));
    }
    expected.sort_by_key(|(digest, ..)| digest.to_string());

    let page = store.referrers(&app, &digest, None, None, 4).await.unwrap();
    assert!(page.more);
    let rest = store.referrers(&app, &digest, None, Some(&page.referrers[3].digest), 4).await.unwrap();
    assert!(!rest.more);
    let found: Vec<_> = page.referrers.into_iter().chain(rest.referrers).collect();
    assert_eq!(found.len(), 6);
    for (found, (digest, bytes, artifact_type)) in found.iter().zip(&expected) {
        assert_eq!((&found.digest, &found.bytes), (digest, bytes));
        assert_eq!((found.artifact_type.as_deref(), found.size), (Some(*artifact_type), bytes.len() as u64));
    }
    let odd = store.referrers(&app, &digest, Some("x/odd"), None, 9).await.unwrap().referrers;
    assert!(odd.len() == 3 && odd.iter().all(|referrer| referrer.artifact_type.as_deref() == Some("x/odd")));
    assert_eq!(store.referrers(&repository("other"), &digest, None, None, 9).await.unwrap().referrers, []);
    assert_eq!(store.referrers(&app, &Digest::sha256(b"none"), None, None, 9).await.unwrap().referrers, []);
}
