//! From a method and a target to a route: what was understood, written down again, is the path that was asked for.
//!
//! The input is a request line, `METHOD TARGET`.
#![no_main]

use dockgate::gateway::route::{
    self, BlobVerb, LegacyImage, LegacyRepository, LegacyRoute, RepositoryPart, Route, RouteError, Routed, UploadStart, UploadVerb, Verb,
};
use http::{Method, Uri};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Some((method, target)) = text.split_once(' ') else { return };
    let (Ok(method), Ok(uri)) = (method.parse::<Method>(), target.parse::<Uri>()) else { return };
    match route::parse(&method, &uri) {
        Ok(Routed { route, prefix, namespace }) => {
            assert!(!route.label().is_empty());
            assert!(namespace.is_none_or(|namespace| (1..=255).contains(&namespace.len())));
            let path = match prefix {
                Some(prefix) => uri.path().strip_prefix(&format!("/{prefix}")).expect("a path with its prefix"),
                None => uri.path(),
            };
            // The token service has its own methods, and its paths hold nothing that was read.
            if path != "/token" && !path.starts_with("/token/") {
                is_written(&route, path);
                verb(&route, &method);
            }
        }
        Err(RouteError::MethodNotAllowed { allow }) => {
            assert!(!allow.split(", ").any(|allowed| allowed == method.as_str()), "{method} is in {allow}");
        }
        Err(RouteError::Unknown) => {}
        Err(RouteError::Invalid { detail, .. } | RouteError::TooLong { detail }) => assert!(!detail.is_empty()),
    }
});

fn is_written(route: &Route, path: &str) {
    let written = match route {
        Route::Ping => "/v2/".into(),
        Route::Root => "/".into(),
        Route::Catalog(_) => "/v2/_catalog".into(),
        Route::Tags(name, _) => format!("/v2/{name}/tags/list"),
        Route::Manifest(name, reference, _) => format!("/v2/{name}/manifests/{reference}"),
        Route::Blob(name, digest, _) => format!("/v2/{name}/blobs/{digest}"),
        Route::UploadStart(name, _) => format!("/v2/{name}/blobs/uploads/"),
        Route::Upload(name, id, _) => format!("/v2/{name}/blobs/uploads/{id}"),
        Route::Referrers { name, subject, .. } => format!("/v2/{name}/referrers/{subject}"),
        Route::Legacy(route) => return legacy(route, path),
        other => panic!("{path} was read as {other:?}"),
    };
    // Two of them may be written with or without their last slash.
    let same = path == written || (path.len() + 1 == written.len() && written.strip_suffix('/') == Some(path));
    assert!(same, "{path} was read as {written}");
}

fn legacy(route: &LegacyRoute, path: &str) {
    let path = path.strip_prefix("/v1").unwrap_or(path);
    if let LegacyRoute::Repository(LegacyRepository { part, .. }) = route {
        assert!(!path.ends_with('/') || *part == RepositoryPart::Root, "{path} is a name, and was read as {part:?} of one");
    }
    let path = path.strip_suffix('/').unwrap_or(path);
    match route {
        LegacyRoute::Ping => assert_eq!(path, "/_ping"),
        LegacyRoute::Search(_) => assert_eq!(path, "/search"),
        LegacyRoute::Users => assert_eq!(path, "/users"),
        LegacyRoute::User(name) => assert_eq!(path, format!("/users/{name}")),
        LegacyRoute::Image(LegacyImage { id, .. }) => assert!(path.starts_with(&format!("/images/{id}/"))),
        LegacyRoute::Repository(LegacyRepository { name, .. }) => {
            let rest = path.strip_prefix("/repositories/").expect("a repository's path");
            let bare = name.as_str().strip_prefix("library/").unwrap_or(name.as_str());
            let follows =
                |name: &str| rest.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            assert!(follows(name.as_str()) || follows(bare), "{path} was read as {name}");
        }
    }
}

/// What changes something is never asked for by GET or HEAD.
fn verb(route: &Route, method: &Method) {
    let reads = match route {
        Route::Manifest(_, _, verb) => matches!(verb, Verb::Get | Verb::Head),
        Route::Blob(_, _, verb) => matches!(verb, BlobVerb::Get | BlobVerb::Head),
        Route::UploadStart(_, UploadStart::Session(_) | UploadStart::Monolithic(_) | UploadStart::Mount { .. }) => false,
        Route::Upload(_, _, verb) => *verb == UploadVerb::Status,
        Route::Legacy(LegacyRoute::Repository(_) | LegacyRoute::Image(_) | LegacyRoute::Users | LegacyRoute::User(_)) => return,
        _ => true,
    };
    assert_eq!(reads, method == Method::GET || method == Method::HEAD);
}
