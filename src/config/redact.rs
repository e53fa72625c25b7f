//! What is printed and logged of a URL that somebody else wrote: all but the secrets that people put into them.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// What stands in place of a secret.
const CUT: &str = "***";

/// The longest name of a parameter that is shown; a longer one may be a token that stands where a name belongs.
const NAME_BYTES_MAX: usize = 32;

/// The parameters of registries, whose values are no secrets. The values of all others are cut: `access_token`, `password`,
/// `signature`, and whatever name the next secret has.
const OPEN: [&str; 16] = [
    "account",
    "all",
    "artifactType",
    "client_id",
    "digest",
    "from",
    "image",
    "last",
    "mount",
    "n",
    "ns",
    "offline_token",
    "page",
    "q",
    "scope",
    "service",
];

/// The target of a request, `/PATH?QUERY`, without secrets.
pub fn target(text: &str) -> Cow<'_, str> {
    let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
    match (without_user(path), query) {
        (Cow::Borrowed(_), None) => Cow::Borrowed(text),
        (path, None) => path,
        (path, Some(query)) => {
            let parameters: Vec<Cow<'_, str>> = query.split('&').map(parameter).collect();
            format!("{path}?{}", parameters.join("&")).into()
        }
    }
}

/// A text in which a URL is expected, without the secrets that it has if it is one.
pub(super) fn url(text: &str) -> Cow<'_, str> {
    match (without_user(text), text.split_once("://")) {
        (Cow::Borrowed(text), Some(_)) => match text.split_once('#') {
            Some((text, _)) => format!("{}#{CUT}", target(text)).into(),
            None => target(text),
        },
        (text, _) => text,
    }
}

/// Without what stands before the last `@`: a user and a password, if there is a colon or it is a URL. That may be more than
/// those, since a password that was not escaped can hold anything.
fn without_user(text: &str) -> Cow<'_, str> {
    let (scheme, rest) = text.split_once("//").map_or(("", text), |(scheme, rest)| (scheme, rest));
    let slashes = if rest.len() < text.len() { "//" } else { "" };
    match rest.rsplit_once('@') {
        Some((user, host)) if !slashes.is_empty() || user.contains(':') => {
            format!("{scheme}{slashes}{CUT}@{host}").into()
        }
        _ => Cow::Borrowed(text),
    }
}

/// One `name=value` of a query.
fn parameter(text: &str) -> Cow<'_, str> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    let has_user = |value: &str| {
        let decoded = percent_decode_str(value).decode_utf8_lossy();
        matches!(without_user(&decoded), Cow::Owned(_))
    };
    if OPEN.contains(&name) {
        return if has_user(value) { format!("{name}={CUT}").into() } else { Cow::Borrowed(text) };
    }
    let is_name = !name.is_empty() && name.len() <= NAME_BYTES_MAX && text.len() > name.len();
    if is_name { format!("{name}={CUT}").into() } else { CUT.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_registries_are_asked_is_shown_whole() {
        for text in [
            "/v2/",
            "/v2/team/app/blobs/uploads/?mount=sha256:00&from=team/other",
            "/v2/_catalog?n=3&last=team%2Fapp",
            "/v2/app/manifests/v1@sha256:00",
            "/token?account=ada@registry.example&client_id=docker&offline_token=true&scope=repository:a:pull&service=s",
        ] {
            assert!(matches!(target(text), Cow::Borrowed(_)) || target(text) == text, "{text}");
        }
    }

    #[test]
    fn secrets_in_a_target_are_cut() {
        for (text, shown) in [
            ("/v2/?access_token=canary", "/v2/?access_token=***"),
            ("/v2/a/tags/list?n=1&password=canary&last=b", "/v2/a/tags/list?n=1&password=***&last=b"),
            ("/token?refresh_token=canary&token=canary=canary", "/token?refresh_token=***&token=***"),
            ("/v2/?%61ccess_token=canary", "/v2/?%61ccess_token=***"),
            ("/v2/?canary", "/v2/?***"),
            ("/v2/?=canary", "/v2/?***"),
            ("/v2/?a?b&canarycanarycanarycanarycanarycanary=x", "/v2/?***&***"),
            ("/v2/?password=a;canary&n=1", "/v2/?password=***&n=1"),
            ("/http://ada:canary@registry.example/v2/", "/http://***@registry.example/v2/"),
            ("/v2/ada:canary@registry.example/x", "***@registry.example/x"),
            ("/token?service=https%3A%2F%2Fada%3Acanary%40a&n=1", "/token?service=***&n=1"),
            ("/token?service=//canary@a", "/token?service=***"),
        ] {
            assert_eq!(target(text), shown, "{text}");
        }
    }

    #[test]
    fn secrets_in_a_url_are_cut() {
        for (text, shown) in [
            ("https://registry.example:5000/v1", "https://registry.example:5000/v1"),
            ("what?", "what?"),
            ("ada@registry.example", "ada@registry.example"),
            ("https://ada:canary@registry.example/x", "https://***@registry.example/x"),
            ("https://canary@registry.example", "https://***@registry.example"),
            ("https://ada:can/a?r#y canary@registry.example", "https://***@registry.example"),
            ("ada:canary@registry.example:5000", "***@registry.example:5000"),
            ("https://a/?access_token=canary", "https://a/?access_token=***"),
            ("https://a/?n=1#access_token=canary", "https://a/?n=1#***"),
        ] {
            assert_eq!(url(text), shown, "{text}");
        }
    }
}
