use super::*;
use crate::docker::ImageId;
use proptest::prelude::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const ID: &str = "0123456789abcdef0123456789abcdef";
const IMAGE: &str = "0123456789abcdef";

fn routed(method: &str, target: &str) -> Result<Routed, RouteError> {
    parse(&method.parse().unwrap(), &target.parse().unwrap())
}

fn route(method: &str, target: &str) -> Result<Route, RouteError> {
    let routed = routed(method, target)?;
    assert_eq!((routed.prefix, routed.namespace), (None, None), "{target}");
    Ok(routed.route)
}

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

#[test]
fn tags_stand_beside_the_digest_of_a_manifest() {
    let of = |query: &str| routed("PUT", &format!("/v2/a/manifests/v1?{query}"));
    let tags = |routed: Result<Routed, RouteError>| match routed.unwrap().route {
        Route::Manifest(_, _, Verb::Put(tags)) => tags,
        other => panic!("{other:?}"),
    };
    assert_eq!(tags(of("")), []);
    assert_eq!(tags(of("tag=b&tag=a&x=1&tag=b")), ["b", "a"].map(|tag| tag.parse().unwrap()));
    let many = |count: usize| (0..count).map(|number| format!("tag=t{number}")).collect::<Vec<_>>().join("&");
    assert_eq!(tags(of(&many(TAGS_MAX))).len(), TAGS_MAX);
    assert!(matches!(of(&many(TAGS_MAX + 1)), Err(RouteError::TooLong { .. })));
    assert!(matches!(of("tag="), Err(RouteError::Invalid { code: ErrorCode::TagInvalid, .. })));
    assert!(routed("GET", "/v2/a/manifests/v1?tag=").is_ok(), "it is of no matter there");
}

#[test]
fn every_endpoint_of_the_spec_has_a_route() {
    let digest: Digest = DIGEST.parse().unwrap();
    let id: UploadId = ID.parse().unwrap();
    let tag = |text: &str| Reference::Tag(text.parse().unwrap());
    let session = |algorithm| Route::UploadStart(name("a"), UploadStart::Session(algorithm));
    for (method, target, expected) in [
        ("GET", "/v2/".to_owned(), Route::Ping),
        ("HEAD", "/v2".to_owned(), Route::Ping),
        ("GET", "/v2/_catalog?n=3&last=a".to_owned(), Route::Catalog(Page { limit: Some(3), last: Some("a".into()) })),
        ("GET", "/v2/a/b/tags/list".to_owned(), Route::Tags(name("a/b"), Page::default())),
        ("GET", "/v2/a/manifests/v1".to_owned(), Route::Manifest(name("a"), tag("v1"), Verb::Get)),
        (
            "PUT",
            "/v2/blobs/uploads/manifests/x".to_owned(),
            Route::Manifest(name("blobs/uploads"), tag("x"), Verb::Put(Vec::new())),
        ),
        ("GET", format!("/v2/a/blobs/{DIGEST}"), Route::Blob(name("a"), digest, BlobVerb::Get)),
        ("DELETE", format!("/v2/tags/list/blobs/{DIGEST}"), Route::Blob(name("tags/list"), digest, BlobVerb::Delete)),
        ("POST", "/v2/a/blobs/uploads/".to_owned(), session(Algorithm::Sha256)),
        ("POST", "/v2/a/blobs/uploads".to_owned(), session(Algorithm::Sha256)),
        ("POST", "/v2/a/blobs/uploads/?digest-algorithm=sha512".to_owned(), session(Algorithm::Sha512)),
        (
            "POST",
            format!("/v2/a/blobs/uploads/?digest={DIGEST}"),
            Route::UploadStart(name("a"), UploadStart::Monolithic(digest)),
        ),
        (
            "POST",
            format!("/v2/a/blobs/uploads/?mount={}&from=b%2Fc", DIGEST.replace(':', "%3A")),
            Route::UploadStart(name("a"), UploadStart::Mount { digest, from: Some(name("b/c")) }),
        ),
        ("PATCH", format!("/v2/a/blobs/uploads/{ID}"), Route::Upload(name("a"), id, UploadVerb::Patch)),
        (
            "PUT",
            format!("/v2/a/blobs/uploads/{ID}?digest={DIGEST}"),
            Route::Upload(name("a"), id, UploadVerb::Put(digest)),
        ),
        (
            "GET",
            format!("/v2/a/referrers/{DIGEST}?artifactType=x%2Fy"),
            Route::Referrers { name: name("a"), subject: digest, artifact_type: Some("x/y".into()), last: None },
        ),
        (
            "GET",
            "/token?scope=repository:a:pull&scope=b".to_owned(),
            Route::Token(TokenQuery { scopes: vec!["repository:a:pull".into(), "b".into()], ..Default::default() }),
        ),
        (
            "GET",
            "/token?account=a&client_id=docker&offline_token=true&service=s".to_owned(),
            Route::Token(TokenQuery { service: Some("s".into()), scopes: vec![], offline: true }),
        ),
        ("POST", "/token".to_owned(), Route::TokenForm),
        ("GET", "/".to_owned(), Route::Root),
        ("GET", "/v2/a/tags/list?n=".to_owned(), Route::Tags(name("a"), Page { limit: None, last: None })),
        (
            "POST",
            format!("/v2/a/blobs/uploads/?mount={DIGEST}&from=No/Name"),
            Route::UploadStart(name("a"), UploadStart::Mount { digest, from: None }),
        ),
        ("GET", "/token/keys".to_owned(), Route::TokenKeys),
        ("HEAD", "/token/certificates".to_owned(), Route::TokenCertificates),
    ] {
        assert_eq!(route(method, &target), Ok(expected), "{method} {target}");
    }
}

#[test]
fn what_is_wrong_is_told_in_the_words_of_the_protocol() {
    let code = |method: &str, target: &str| match route(method, target) {
        Err(RouteError::Invalid { code, .. }) => code,
        other => panic!("{method} {target}: {other:?}"),
    };
    assert_eq!(code("GET", "/v2/UPPER/manifests/x"), ErrorCode::NameInvalid);
    assert_eq!(code("GET", "/v2/a/../b/manifests/x"), ErrorCode::NameInvalid);
    assert_eq!(code("GET", "/v2/a/manifests/.x"), ErrorCode::ManifestUnknown);
    assert_eq!(code("PUT", "/v2/a/manifests/.x"), ErrorCode::TagInvalid);
    assert_eq!(code("GET", "/v2/a/manifests/sha256:1"), ErrorCode::DigestInvalid);
    assert_eq!(code("GET", "/v2/a/blobs/md5:abc"), ErrorCode::Unsupported);
    assert_eq!(code("PATCH", "/v2/a/blobs/uploads/nonsense"), ErrorCode::BlobUploadUnknown);
    assert_eq!(code("PUT", &format!("/v2/a/blobs/uploads/{ID}")), ErrorCode::DigestInvalid);
    for n in ["-1", "x", "1e3", "+1"] {
        assert_eq!(code("GET", &format!("/v2/a/tags/list?n={n}")), ErrorCode::PaginationNumberInvalid, "{n}");
    }
    let huge = route("GET", "/v2/a/tags/list?n=99999999999999999999");
    assert_eq!(huge, Ok(Route::Tags(name("a"), Page { limit: Some(usize::MAX), last: None })));
}

#[test]
fn a_parameter_that_is_there_twice_is_refused() {
    for (method, path, parameter) in [
        ("PUT", format!("/v2/a/blobs/uploads/{ID}"), "digest"),
        ("POST", "/v2/a/blobs/uploads/".to_owned(), "digest"),
        ("POST", "/v2/a/blobs/uploads/".to_owned(), "mount"),
        ("GET", "/v2/_catalog".to_owned(), "n"),
        ("GET", "/v2/a/tags/list".to_owned(), "last"),
        ("GET", "/v2/a/tags/list".to_owned(), "ns"),
        ("GET", format!("/v2/a/referrers/{DIGEST}"), "artifactType"),
        ("GET", "/token".to_owned(), "service"),
        ("GET", "/token".to_owned(), "account"),
        ("GET", "/token".to_owned(), "offline_token"),
        ("GET", "/v1/search".to_owned(), "q"),
        ("GET", "/v2/".to_owned(), "of_no_route"),
    ] {
        let escaped = parameter.replacen(char::is_alphabetic, &format!("%{:x}", parameter.as_bytes()[0]), 1);
        for twice in [format!("{parameter}={DIGEST}&{parameter}={DIGEST}"), format!("{parameter}=1&x=y&{escaped}=2")] {
            let refused = matches!(
                route(method, &format!("{path}?{twice}")),
                Err(RouteError::Invalid { code: ErrorCode::Unsupported, detail }) if detail.contains(parameter)
            );
            assert!(refused, "{method} {path}?{twice}");
        }
    }
    let mount = format!("/v2/a/blobs/uploads/?mount={DIGEST}&from=b&from=c");
    assert!(matches!(route("POST", &mount), Err(RouteError::Invalid { .. })));
}

#[test]
fn a_prefix_stands_before_every_path_of_v2() {
    for prefix in ["docker.io", "registry.example/team", "a/v1", "b/token"] {
        for (method, path) in [
            ("GET", "/v2/".to_owned()),
            ("GET", "/v2".to_owned()),
            ("GET", "/v2/_catalog?n=3".to_owned()),
            ("GET", "/v2/v2/v2/tags/list".to_owned()),
            ("PUT", "/v2/a/manifests/v1".to_owned()),
            ("HEAD", format!("/v2/a/blobs/{DIGEST}")),
            ("POST", "/v2/a/blobs/uploads/".to_owned()),
            ("PATCH", format!("/v2/a/blobs/uploads/{ID}")),
            ("GET", format!("/v2/a/referrers/{DIGEST}")),
        ] {
            let found = routed(method, &format!("/{prefix}{path}")).unwrap();
            let expected = Routed { route: route(method, &path).unwrap(), prefix: Some(name(prefix)), namespace: None };
            assert_eq!(found, expected, "{method} /{prefix}{path}");
        }
    }
}

#[test]
fn a_namespace_is_a_host() {
    let namespace = |query: &str| routed("GET", &format!("/v2/a/tags/list?{query}")).map(|routed| routed.namespace);
    assert_eq!(namespace("ns=docker.io"), Ok(Some("docker.io".into())));
    assert_eq!(namespace("n=1&ns=gw.example%3A5000"), Ok(Some("gw.example:5000".into())));
    assert_eq!(namespace("ns=[::1]:5000"), Ok(Some("[::1]:5000".into())));
    assert_eq!(namespace("ns="), Ok(None));
    assert_eq!(namespace(&format!("ns={}", "a".repeat(255))), Ok(Some("a".repeat(255))));
    for bad in ["a/b", "user@host", "%0d%0a", "a+b", "%C3%A9", &"a".repeat(256)] {
        let error = namespace(&format!("ns={bad}"));
        assert!(matches!(error, Err(RouteError::Invalid { code: ErrorCode::Unsupported, .. })), "{bad}: {error:?}");
    }
    let both = routed("GET", "/docker.io/v2/?ns=docker.io").unwrap();
    assert_eq!((both.prefix, both.namespace), (Some(name("docker.io")), Some("docker.io".into())));
    for other in ["/v1/_ping?ns=a", "/token?ns=a", "/_ping?ns=a"] {
        assert_eq!(routed("GET", other).map(|routed| routed.namespace), Ok(None), "{other}");
    }
}

#[test]
fn wrong_methods_name_the_right_ones() {
    for (method, target, allow) in [
        ("POST", "/v2/", "GET, HEAD"),
        ("PUT", "/v2/a/tags/list", "GET, HEAD"),
        ("POST", "/v2/a/manifests/x", "GET, HEAD, PUT, DELETE"),
        ("GET", "/v2/a/blobs/uploads/", "POST"),
        ("PUT", "/token", "GET, HEAD, POST"),
        ("POST", "/token/keys", "GET, HEAD"),
    ] {
        assert_eq!(route(method, target), Err(RouteError::MethodNotAllowed { allow }), "{method} {target}");
    }
}

#[test]
fn v1_paths_name_the_repository_that_is_asked_for() {
    let by = |method: &str, target: &str| match route(method, target) {
        Ok(Route::Legacy(LegacyRoute::Repository(LegacyRepository { name, .. }))) => name.to_string(),
        other => panic!("{target}: {other:?}"),
    };
    let repository = |target: &str| by("GET", target);
    assert_eq!(by("PUT", "/v1/repositories/a/"), "library/a");
    assert_eq!(repository("/v1/repositories/a/tags"), "library/a");
    assert_eq!(repository("/v1/repositories/n/a/tags/v1"), "n/a");
    assert_eq!(repository("/v1/repositories/n/a/tags/v1/json"), "n/a");
    assert_eq!(repository("/v1/repositories/n/a/images"), "n/a");
    assert_eq!(
        route("GET", &format!("/v1/images/{IMAGE}/layer")),
        Ok(Route::Legacy(LegacyRoute::Image(LegacyImage { id: IMAGE.parse().unwrap(), part: ImagePart::Layer })))
    );
    assert_eq!(route("GET", "/_ping"), Ok(Route::Legacy(LegacyRoute::Ping)));
    assert_eq!(route("POST", "/v1/users/"), Ok(Route::Legacy(LegacyRoute::Users)));
    assert_eq!(route("PUT", "/v1/users/"), Err(RouteError::MethodNotAllowed { allow: "GET, HEAD, POST" }));
}

#[test]
fn v1_paths_that_read_two_ways_have_no_route() {
    for target in [
        "/v1/repositories/",
        "/v1/images/x/other",
        "/v1/images/0123456789abcdef/layer_files",
        "/v1/",
        "/v1/unknown",
        "/v3/",
        "/v2/a",
        "/v2/a/b",
        "/v1/v2/",
        "/v1/a/v2/b/tags/list",
        "/v2/v2/",
        "/token/v2/",
        "/_ping/v2/",
        "/UPPER/v2/",
        "/a..b/v2/",
        "/docker.iov2/",
        "//v2/",
    ] {
        assert_eq!(route("GET", target), Err(RouteError::Unknown), "{target}");
    }
}

#[test]
fn a_name_that_v2_knows_and_v1_does_not_says_so() {
    for target in [
        "/v1/repositories/a/b/c/tags",
        "/v1/repositories/a/b/c/",
        "/v1/repositories/a/b/c/layer/0123456789abcdef/access",
    ] {
        let Err(RouteError::Invalid { code: ErrorCode::NameInvalid, detail }) = route("GET", target) else {
            panic!("{target}: {:?}", route("GET", target));
        };
        assert!(detail.contains("one or two parts"), "{detail}");
    }
}

/// With a slash at its end, `app/tags` is a repository to docker and to the registry: `library/app` was deleted.
#[test]
fn a_repository_called_like_a_word_was_taken_for_another_one() {
    for (method, target) in [
        ("DELETE", "/v1/repositories/app/tags/"),
        ("PUT", "/v1/repositories/team/images/"),
        ("PUT", "/v1/repositories/team/images/images"),
        ("GET", "/v1/repositories/app/tags/v1/"),
        ("GET", "/v1/repositories/tags/app/images"),
        ("GET", "/v1/repositories/tags/tags"),
        ("PUT", "/v1/repositories/a/tags/tags"),
        ("GET", "/v1/repositories/a/b/tags/images/json"),
        ("GET", "/v1/repositories/a/tags/x/tags"),
        ("GET", "/v1/repositories/n/images/tags/v1"),
    ] {
        let Err(RouteError::Invalid { code: ErrorCode::NameInvalid, detail }) = route(method, target) else {
            panic!("{target}: {:?}", route(method, target));
        };
        assert!(detail.contains("nothing can be called tags"), "{detail}");
    }
}

#[test]
fn what_a_registry_asks_its_index_about_a_layer() {
    let (name, id): (RepositoryName, ImageId) = ("a/b".parse().unwrap(), "0123456789abcdef".parse().unwrap());
    let expected = LegacyRepository { name, part: RepositoryPart::LayerAccess(id) };
    let found = route("GET", "/v1/repositories/a/b/layer/0123456789abcdef/access");
    assert_eq!(found, Ok(Route::Legacy(LegacyRoute::Repository(expected))));
    assert_eq!(route("GET", "/v1/repositories/a/layer/x"), route("GET", "/v1/repositories/a/b/c"));
}

#[test]
fn a_search_has_a_term_a_size_and_a_page() {
    let search = |term: &str, limit, page| {
        Ok(Route::Legacy(LegacyRoute::Search(SearchQuery { term: term.into(), limit, page })))
    };
    assert_eq!(route("GET", "/v1/search?q=a%2Fb&n=5&page=2"), search("a/b", Some(5), Some(2)));
    assert_eq!(route("GET", "/v1/search/"), search("", None, None));
    for bad in ["n=x", "n=-1", "page=", "page=99999999999999999999999"] {
        assert!(matches!(route("GET", &format!("/v1/search?{bad}")), Err(RouteError::Invalid { .. })), "{bad}");
    }
}

proptest! {
    #[test]
    fn what_the_v1_registry_is_asked_for_is_what_was_understood(
        method in "(GET|PUT|DELETE)",
        name in "(library|[a-z0-9]{1,4})(/(tags|images|[a-z0-9]{1,4})){0,2}",
        rest in "(|/tags|/images|/auth|/json|/properties|/tags/(x|tags|json)|/tags/x/(json|images))/{0,2}",
    ) {
        if let Ok(Route::Legacy(found)) = route(&method, &format!("/v1/repositories/{name}{rest}")) {
            prop_assert_eq!(route(&method, &found.path()), Ok(Route::Legacy(found)));
        }
    }

    #[test]
    fn nothing_makes_it_panic(method in "(GET|PUT|POST|PATCH|DELETE|HEAD|X)", path in "(/|/v[12]/)[ -~]{0,60}") {
        if let Ok(uri) = path.parse() {
            let _ = parse(&method.parse().unwrap(), &uri);
        }
    }

    #[test]
    fn what_stands_before_v2_changes_nothing_behind_it(
        method in "(GET|PUT|POST|DELETE)",
        prefix in "[a-u]{1,3}(\\.[a-z]{1,2})?(/[a-u][a-z0-9]{0,2}){0,2}",
        path in "/v2(/[a-z0-9_:?=&]{0,6}){0,5}",
    ) {
        prop_assume!(!prefix.starts_with("token"));
        let plain = routed(&method, &path);
        let expected = plain.map(|plain| Routed { prefix: Some(name(&prefix)), ..plain });
        prop_assert_eq!(routed(&method, &format!("/{}{}", prefix, path)), expected);
    }

    #[test]
    fn a_route_always_names_the_repository_of_its_path(
        repository in "[a-z0-9]{1,4}(/(manifests|blobs|uploads|tags|list|[a-z0-9]{1,4})){0,4}",
        end in "(tags/list|manifests/x|blobs/uploads/|blobs/uploads)",
    ) {
        let method = if end.starts_with("blobs") { "POST" } else { "GET" };
        let found = route(method, &format!("/v2/{repository}/{end}")).unwrap();
        prop_assert_eq!(found.repository().unwrap().as_str(), repository);
    }
}
