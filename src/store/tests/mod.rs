//! The suite that every kind of store must pass, and what is only true of files.

mod blobs;
mod files;
mod legacy;
mod manifests;
mod mirrors;
mod paging;
mod rot;
mod uploads;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;

use crate::oci::{Algorithm, Digest, Manifest, RepositoryName, Tag, UploadId};

use super::{BlobInfo, OpenError, Put, PutError, PutManifest, Settings, Store};

/// Who pushes in the tests.
const ALICE: &str = "alice";

/// A place where a store can be opened, again and again.
struct Ground {
    settings: Settings,
    _directory: TempDir,
}

impl Ground {
    /// A store of files in a directory that goes away afterwards.
    fn files() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings {
            data: directory.path().join("data"),
            uploads: 100,
            upload_lifetime: Duration::from_secs(3600),
            disk_reserve: 0,
            disk_reserve_percent: 0,
        };
        Self { settings, _directory: directory }
    }

    async fn open(&self) -> Store {
        self.try_open().await.unwrap()
    }

    async fn try_open(&self) -> Result<Store, OpenError> {
        Store::open(self.settings.clone()).await
    }

    /// As if the program had been stopped and started.
    async fn reopen(&self, store: Store) -> Store {
        store.close().await;
        drop(store);
        self.open().await
    }

    fn data(&self, path: &str) -> PathBuf {
        self.settings.data.join(path)
    }
}

/// Runs every case of the suite on one kind of store.
macro_rules! suite {
    ($name:ident, $ground:expr, $($room:ident: [$($case:ident),* $(,)?]),* $(,)?) => {
        mod $name {
            $(mod $room {
                use crate::store::tests::{Ground, $room};
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $case() {
                        $room::$case(&$ground).await;
                    }
                )*
            })*
        }
    };
}

suite! {
    on_files, Ground::files(),
    blobs: [
        a_pushed_blob_reads_back,
        a_range_is_just_that_range,
        a_blob_is_known_only_where_it_is_linked,
        a_mount_needs_the_blob_in_its_source,
        unlinking_in_one_repository_leaves_the_other,
        the_same_blob_may_be_pushed_twice,
        many_links_at_once_are_all_there,
        a_setting_keeps_its_first_value,
    ],
    uploads: [
        an_upload_goes_on_over_requests,
        an_upload_goes_on_after_a_restart,
        what_came_before_the_client_left_is_kept,
        how_the_bytes_are_cut_does_not_matter,
        a_wrong_digest_leaves_the_session,
        sha512_is_taken_too,
        nobody_else_finds_the_session,
        one_request_at_a_time,
        sessions_are_counted,
        a_cancelled_upload_is_gone,
        a_commit_goes_on_when_the_client_leaves,
        an_upload_for_one_request_leaves_nothing_but_its_blob,
        an_offset_is_told_and_the_session_left_alone,
    ],
    manifests: [
        a_manifest_comes_back_byte_for_byte,
        missing_parts_are_named,
        parts_of_another_repository_do_not_count,
        a_size_may_be_wrong,
        the_bytes_must_be_what_the_digest_says,
        a_tag_moves_only_if_it_may,
        a_foreign_layer_need_not_be_here,
        an_index_needs_its_manifests,
        deleting_a_manifest_takes_its_tags,
        deleting_a_tag_leaves_its_manifest,
        a_refused_manifest_leaves_nothing,
        neighbours_in_a_commit_do_not_harm_each_other,
        referrers_are_found_by_type_and_page,
    ],
    legacy: [
        an_image_stands_to_repositories,
        a_deleted_repository_has_no_images,
        who_begins_an_image_has_it,
        what_justifies_a_standing_must_still_hold,
        who_listed_an_image_first_has_it_reserved,
        what_changed_meanwhile_is_not_restored,
        a_list_teaches_only_what_stands_nowhere,
        what_an_image_stands_on_is_where_it_is,
        what_was_listed_and_never_pushed_is_swept,
    ],
    mirrors: [
        a_digest_belongs_to_one_repository_of_one_upstream,
        what_one_upstream_sent_another_one_did_not,
        what_a_tag_names_is_known_and_since_when,
        lists_of_referrers_are_forgotten_without_the_tags,
        what_was_not_asked_for_in_a_long_time_is_swept,
        an_image_is_pinned_by_what_it_is_made_of,
    ],
    rot: [
        a_rotten_blob_is_not_there_until_it_is_pushed_again,
        a_file_that_is_gone_or_cut_is_a_blob_that_is_gone,
        a_push_mends_what_nobody_has_found_yet,
        wrong_checksums_are_made_anew,
        blobs_from_before_get_checksums_and_rot_among_them_is_found,
        a_file_that_is_put_back_heals_its_blob,
        a_manifest_that_was_changed_is_not_there_until_it_is_pushed_again,
        parts_that_are_rotten_are_missing_from_a_manifest,
    ],
    paging: [
        tags_page_by_bytes,
        a_repository_without_content_has_no_tags,
        repositories_page_by_bytes,
    ],
}

fn repository(name: &str) -> RepositoryName {
    name.parse().unwrap()
}

fn tag(name: &str) -> Tag {
    name.parse().unwrap()
}

/// Bytes that do not repeat every power of two.
fn some_bytes(length: usize) -> Bytes {
    (0..length).map(|at| (at % 251) as u8).collect::<Vec<_>>().into()
}

/// An upload session of alice with these bytes in it, given back.
async fn upload(store: &Store, repository: &RepositoryName, bytes: &Bytes) -> UploadId {
    let id = store.begin_upload(repository, ALICE, Algorithm::Sha256).await.unwrap();
    let mut upload = store.upload(repository, ALICE, id).await.unwrap();
    upload.write(bytes.clone()).await.unwrap();
    assert_eq!(upload.pause().await.unwrap(), bytes.len() as u64);
    id
}

async fn push_blob(store: &Store, repository: &RepositoryName, bytes: impl Into<Bytes>) -> BlobInfo {
    let bytes = bytes.into();
    let id = upload(store, repository, &bytes).await;
    let upload = store.upload(repository, ALICE, id).await.unwrap();
    upload.commit(&Digest::sha256(&bytes)).await.unwrap()
}

async fn read_blob(store: &Store, info: &BlobInfo) -> Bytes {
    store.open_blob(info).await.unwrap().read_all().await.unwrap()
}

fn descriptor(media_type: &str, bytes: &[u8]) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":{}}}"#, Digest::sha256(bytes), bytes.len())
}

/// An image manifest of one config and one layer, with more keys at its end.
fn image(config: &[u8], layer: &[u8], more: &str) -> Bytes {
    let config = descriptor("application/vnd.oci.image.config.v1+json", config);
    let layer = descriptor("application/vnd.oci.image.layer.v1.tar+gzip", layer);
    format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]{more}}}"#).into()
}

async fn put(
    store: &Store,
    repository: &RepositoryName,
    bytes: &Bytes,
    tag: Option<&Tag>,
    overwrite: bool,
) -> Result<Put, PutError> {
    let manifest = Manifest::parse(bytes, None).unwrap();
    let (digest, bytes) = (Digest::sha256(bytes), bytes.clone());
    let tags = tag.map(std::slice::from_ref).unwrap_or_default();
    let put = PutManifest { repository, bytes, digest, manifest: &manifest, tags, overwrite, principal: ALICE };
    store.put_manifest(put).await
}

/// An image whose parts are pushed first.
async fn push_image(store: &Store, repository: &RepositoryName, name: &str, more: &str) -> Bytes {
    push_blob(store, repository, b"{}".as_slice()).await;
    push_blob(store, repository, b"layer".as_slice()).await;
    let bytes = image(b"{}", b"layer", more);
    put(store, repository, &bytes, Some(&tag(name)), true).await.unwrap();
    bytes
}
