//! Where an upstream's answers lead, which redirects are followed, and what goes along.

use http::header::LOCATION;
use http::{HeaderMap, StatusCode, Uri};
use url::{Origin, Url};

use super::error::SendError;
use super::tokens::host;

/// How many redirects are followed for one answer.
pub(super) const REDIRECTS_MAX: usize = 5;

/// Where an answer leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The whole URL.
    pub url: Url,
    /// Whether it is another scheme, host or port than the one that answered: credentials stay here.
    pub is_elsewhere: bool,
}

/// What a reference in an answer means (`Location`, `Link`), as it is read against the URL that was asked (RFC 3986, section 5);
/// none, if that is no URL.
pub fn resolve(asked: &Uri, reference: &str) -> Option<Step> {
    let base = Url::parse(&asked.to_string()).ok()?;
    let url = base.join(reference).ok()?;
    let is_elsewhere = !same(&base.origin(), &url.origin());
    Some(Step { url, is_elsewhere })
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
    let step = resolve(asked, text).ok_or_else(|| refused("its Location is no URL".into()))?;
    let url = &step.url;
    match (asked.scheme_str(), url.scheme()) {
        (_, "https") | (Some("http"), "http") => {}
        (Some("https"), "http") => return Err(refused(format!("from https to http at {}", host(url)))),
        (_, scheme) => return Err(refused(format!("to a URL of the kind {scheme}:"))),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused(format!("to a URL with a user in it at {}", host(url))));
    }
    Ok(step)
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
    fn references_are_read_as_rfc_3986_has_it() {
        let asked = "https://registry.example/base/v2/a/blobs/uploads/?mount=b".parse().unwrap();
        for (reference, url) in [
            ("uuid?_state=x%2B=", "https://registry.example/base/v2/a/blobs/uploads/uuid?_state=x%2B="),
            ("./uuid", "https://registry.example/base/v2/a/blobs/uploads/uuid"),
            ("../../../b", "https://registry.example/base/v2/b"),
            ("?_state=x", "https://registry.example/base/v2/a/blobs/uploads/?_state=x"),
            ("/v2/a/blobs/uploads/uuid", "https://registry.example/v2/a/blobs/uploads/uuid"),
            ("//other.example/uuid", "https://other.example/uuid"),
        ] {
            assert_eq!(
                resolve(&asked, reference).map(|step| step.url.to_string()).as_deref(),
                Some(url),
                "{reference}"
            );
        }
        assert_eq!(resolve(&asked, "https://["), None);
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
