use super::*;
use proptest::prelude::*;

fn descriptor(media_type: &str) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":3}}"#, Digest::sha256(b"abc"))
}

fn image() -> String {
    let (config, layer) = (descriptor("c/c"), descriptor("application/vnd.oci.image.layer.v1.tar+gzip"));
    format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#)
}

#[test]
fn an_image_manifest_names_its_children_in_order() {
    let manifest = Manifest::parse(image().as_bytes(), Some(MediaType::OciManifest.as_str())).unwrap();
    let kinds: Vec<_> = manifest.children().iter().map(|child| child.kind).collect();
    assert_eq!(kinds, [ChildKind::Config, ChildKind::Layer]);
    assert_eq!(manifest.artifact_type(), Some("c/c"));
    assert!(manifest.children().iter().all(|child| child.required));
}

#[test]
fn a_foreign_layer_need_not_be_here() {
    let layer = descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
    let text = format!(r#"{{"schemaVersion":2,"config":{},"layers":[{layer}]}}"#, descriptor("c/c"));
    let manifest = Manifest::parse(text.as_bytes(), None).unwrap();
    assert!(!manifest.children()[1].required);
}

#[test]
fn an_image_without_layers_may_say_null() {
    let text = format!(r#"{{"schemaVersion":2,"config":{},"layers":null}}"#, descriptor("c/c"));
    let manifest = Manifest::parse(text.as_bytes(), None).unwrap();
    assert_eq!(manifest.children().len(), 1);
    assert_eq!(manifest.media_type(), MediaType::OciManifest);
    let index = Manifest::parse(br#"{"schemaVersion":2,"manifests":null}"#, None).unwrap();
    assert_eq!((index.media_type(), index.children().len()), (MediaType::OciIndex, 0));
    let bare = format!(r#"{{"schemaVersion":2,"config":{}}}"#, descriptor("c/c"));
    assert_eq!(Manifest::parse(bare.as_bytes(), None).unwrap().children().len(), 1);
    let bare = Manifest::parse(br#"{"schemaVersion":2}"#, Some(MediaType::OciIndex.as_str())).unwrap();
    assert_eq!(bare.children(), []);
    assert!(matches!(Manifest::parse(br#"{"schemaVersion":2}"#, None), Err(ManifestError::Malformed(_))));
    let without_config = br#"{"schemaVersion":2,"layers":[]}"#;
    assert!(matches!(Manifest::parse(without_config, None), Err(ManifestError::Malformed(_))));
}

#[test]
fn the_image_for_linux_on_amd64_is_found_in_a_list() {
    let entry = |os: &str, architecture: &str, name: &[u8]| {
        let digest = Digest::sha256(name);
        format!(r#"{{"digest":"{digest}","platform":{{"os":"{os}","architecture":"{architecture}"}}}}"#)
    };
    let list = |entries: &[String]| of_linux_amd64(format!(r#"{{"manifests":[{}]}}"#, entries.join(",")).as_bytes());
    let (arm, windows, linux) =
        (entry("linux", "arm64", b"1"), entry("windows", "amd64", b"2"), entry("linux", "amd64", b"3"));
    assert_eq!(list(&[arm.clone(), windows.clone(), linux]), Some(Digest::sha256(b"3")));
    let bare = format!(r#"{{"digest":"{}"}}"#, Digest::sha256(b"4"));
    assert_eq!(list(&[arm, windows, bare]), None);
    assert_eq!(of_linux_amd64(b"[]"), None);
}

#[test]
fn a_size_is_a_number_of_bytes_where_there_is_one() {
    let with = |size: &str| Manifest::parse(image().replace(r#","size":3"#, size).as_bytes(), None);
    for taken in ["", r#","size":null"#, r#","size":0"#, r#","size":4"#] {
        assert!(with(taken).is_ok(), "{taken}");
    }
    for refused in [r#","size":-1"#, r#","size":"3""#, r#","size":3.0"#] {
        assert!(matches!(with(refused), Err(ManifestError::Malformed(_))), "{refused}");
    }
}

#[test]
fn what_is_no_manifest_in_an_index_is_a_blob() {
    let kinds = |media_type: &str| {
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, descriptor(media_type));
        Manifest::parse(text.as_bytes(), None).unwrap().children()[0].kind
    };
    for blob in ["application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.buildkit.cacheconfig.v0"] {
        assert_eq!(kinds(blob), ChildKind::Layer, "{blob}");
    }
    let manifests = MediaType::ALL.map(MediaType::as_str);
    for manifest in manifests.into_iter().chain(OTHER_MANIFESTS) {
        assert_eq!(kinds(manifest), ChildKind::Manifest, "{manifest}");
    }
}

#[test]
fn a_manifest_that_is_also_an_index_is_refused() {
    let both = image().replace(r#""layers""#, r#""manifests":[],"layers""#);
    for media_type in [None, Some(MediaType::OciManifest.as_str()), Some(MediaType::OciIndex.as_str())] {
        assert_eq!(Manifest::parse(both.as_bytes(), media_type), Err(ManifestError::Ambiguous));
    }
    let wrong = Manifest::parse(image().as_bytes(), Some(MediaType::OciIndex.as_str()));
    assert_eq!(wrong, Err(ManifestError::Ambiguous));
}

#[test]
fn the_header_and_the_body_must_agree() {
    let body = image().replacen('{', r#"{"mediaType":"application/vnd.oci.image.manifest.v1+json","#, 1);
    assert!(
        Manifest::parse(body.as_bytes(), Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8")).is_ok()
    );
    let docker = Manifest::parse(body.as_bytes(), Some(MediaType::DockerManifest.as_str()));
    assert!(matches!(docker, Err(ManifestError::MediaTypeMismatch { .. })));
    let other = Manifest::parse(image().as_bytes(), Some("text/plain"));
    assert_eq!(other, Err(ManifestError::UnsupportedMediaType("text/plain".into())));
}

#[test]
fn schema_1_is_told_from_what_is_only_wrong() {
    let text = r#"{"schemaVersion":1,"name":"app","tag":"1","fsLayers":[],"history":[],"signatures":[]}"#;
    for header in [None, Some("application/vnd.docker.distribution.manifest.v1+prettyjws"), Some("application/json")] {
        assert_eq!(Manifest::parse(text.as_bytes(), header), Err(ManifestError::Schema1));
    }
}

#[test]
fn a_key_said_twice_or_in_another_case_is_refused() {
    let image = image();
    for doubled in [
        image.replacen('{', r#"{"schemaVersion":2,"#, 1),
        image.replacen('{', r#"{"Layers":[],"#, 1),
        image.replacen(r#"{"mediaType""#, r#"{"SIZE":1,"mediaType""#, 1),
        image.replacen('{', r#"{"x":{"y":1,"y":2},"#, 1),
    ] {
        assert!(matches!(Manifest::parse(doubled.as_bytes(), None), Err(ManifestError::Malformed(_))), "{doubled}");
    }
}

#[test]
fn annotations_may_use_any_word() {
    let text = image().replacen('{', r#"{"annotations":{"Size":"3","size":"3"},"#, 1);
    assert!(Manifest::parse(text.as_bytes(), None).is_ok());
}

#[test]
fn more_keys_than_any_manifest_has_are_refused() {
    let keys: String = (0..=KEYS_MAX).map(|n| format!(r#""{n}":0,"#)).collect();
    let many = image().replacen('{', &format!("{{{keys}"), 1);
    assert!(matches!(Manifest::parse(many.as_bytes(), None), Err(ManifestError::Malformed(_))));
}

#[test]
fn deep_nesting_is_an_error_and_not_a_crash() {
    let deep =
        |depth: usize| image().replacen('{', &format!(r#"{{"x":{}1{},"#, "[".repeat(depth), "]".repeat(depth)), 1);
    assert!(Manifest::parse(deep(MANIFEST_DEPTH_MAX / 2).as_bytes(), None).is_ok());
    for depth in [MANIFEST_DEPTH_MAX, 100_000] {
        assert!(matches!(Manifest::parse(deep(depth).as_bytes(), None), Err(ManifestError::Malformed(_))));
    }
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(bytes: Vec<u8>, header: Option<String>) {
        let _ = Manifest::parse(&bytes, header.as_deref());
    }

    #[test]
    fn a_changed_manifest_never_panics(at in 0usize..200, byte: u8) {
        let mut bytes = image().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = Manifest::parse(&bytes, None);
    }
}
