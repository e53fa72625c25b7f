//! Where an upstream's redirects lead, and what goes along.

use http::header::LOCATION;
use http::{HeaderMap, StatusCode, Uri};
use url::{Origin, Url};

use super::error::SendError;
use super::tokens::host;

/// How many redirects are followed for one answer.
pub(super) const REDIRECTS_MAX: usize = 5;

/// Where the next request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) url: Url,
    /// Whether it is another scheme, host or port than the one that redirects: credentials stay here.
    pub(super) is_elsewhere: bool,
}

/// Whether an answer redirects a read.
pub(super) const fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Reads `Location` against the URL that was asked. The URL may be signed: no error repeats more of it than its host.
pub(super) fn step(upstream: &str, asked: &Uri, headers: &HeaderMap) -> Result<Step, SendError> {
    let refused = |reason: String| SendError::Redirect { upstream: upstream.to_owned(), reason };
    let text = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let text = text.ok_or_else(|| refused("the redirect has no Location".into()))?;
    let base = Url::parse(&asked.to_string()).map_err(|_| refused("what was asked is no URL".into()))?;
    let url = base.join(text).map_err(|_| refused("its Location is no URL".into()))?;
    match (base.scheme(), url.scheme()) {
        (_, "https") | ("http", "http") => {}
        ("https", "http") => return Err(refused(format!("from https to http at {}", host(&url)))),
        (_, scheme) => return Err(refused(format!("to a URL of the kind {scheme}:"))),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused(format!("to a URL with a user in it at {}", host(&url))));
    }
    let is_elsewhere = !same(&base.origin(), &url.origin());
    Ok(Step { url, is_elsewhere })
}

fn same(one: &Origin, other: &Origin) -> bool {
    one.is_tuple() && one == other
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn from(asked: &str, location: &str) -> Result<(String, bool), SendError> {
        let headers = HeaderMap::from_iter([(LOCATION, HeaderValue::from_str(location).unwrap())]);
        step("hub", &asked.parse().unwrap(), &headers).map(|step| (step.url.to_string(), step.is_elsewhere))
    }

    #[test]
    fn credentials_stay_on_their_scheme_host_and_port() {
        let asked = "https://registry.example/v2/a/blobs/x";
        for (location, url, is_elsewhere) in [
            ("/v2/b", "https://registry.example/v2/b", false),
            ("y?z=1", "https://registry.example/v2/a/blobs/y?z=1", false),
            ("https://registry.example:443/c", "https://registry.example/c", false),
            ("https://registry.example:444/c", "https://registry.example:444/c", true),
            ("https://cdn.registry.example/c", "https://cdn.registry.example/c", true),
            ("//cdn.example/c", "https://cdn.example/c", true),
        ] {
            assert_eq!(from(asked, location), Ok((url.to_owned(), is_elsewhere)), "{location}");
        }
        assert_eq!(from("http://a/x", "https://a/x"), Ok(("https://a/x".to_owned(), true)));
    }

    #[test]
    fn some_redirects_are_not_followed_and_no_signed_url_is_told() {
        for location in
            ["http://cdn.example/c?signature=canary", "file:///etc/passwd?canary", "https://u:canary@a/", "https://["]
        {
            let error = from("https://registry.example/v2/", location).unwrap_err().to_string();
            assert!(!error.contains("canary"), "{error}");
        }
    }
}
