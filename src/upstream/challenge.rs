//! What an upstream asks for in `WWW-Authenticate` (RFC 9110, section 11.6.1; docker's token protocol), and who may be
//! shown credentials for it.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;
use http_auth::parser::ChallengeParser;
use url::Url;

/// What an upstream asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Challenge {
    /// A user and a password.
    Basic,
    /// A token of this service.
    Bearer {
        /// Where tokens are to be had.
        realm: Url,
        /// For whom they are.
        service: String,
        /// What they must allow, if the upstream says so.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The first challenge that we understand; Bearer rather than Basic where both are there.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let mut basic = None;
        for (scheme, parameters) in texts.flat_map(read) {
            let parameter = |name: &str| {
                let mut found = parameters.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
                found.next().map(|(_, value)| value.clone())
            };
            if scheme.eq_ignore_ascii_case("bearer") {
                let realm = parameter("realm").and_then(|realm| Url::parse(&realm).ok());
                if let Some(realm) = realm {
                    let service = parameter("service").unwrap_or_default();
                    return Some(Self::Bearer { realm, service, scope: parameter("scope") });
                }
            } else if scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Self::Basic);
            }
        }
        basic
    }
}

/// A scheme, and its parameters.
type Read = (String, Vec<(String, String)>);

/// The challenges of one header. What is not quite as RFC 9110 has it (`Basic realm=/`, a URL without quotes) is read as one
/// challenge, for clients do so too.
fn read(text: &str) -> Vec<Read> {
    let whole: Result<Vec<_>, _> = ChallengeParser::new(text).collect();
    let Ok(challenges) = whole else { return vec![read_loosely(text)] };
    let own = |challenge: http_auth::ChallengeRef<'_>| {
        let parameters = challenge.params.iter().map(|(key, value)| ((*key).to_owned(), value.to_unescaped()));
        (challenge.scheme.to_owned(), parameters.collect())
    };
    challenges.into_iter().map(own).collect()
}

fn read_loosely(text: &str) -> Read {
    let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    let mut quoted = false;
    let parts = rest.split(|letter| {
        quoted ^= letter == '"';
        letter == ',' && !quoted
    });
    let parameters = parts.filter_map(|part| part.split_once('='));
    let parameters = parameters.map(|(key, value)| (key.trim().to_owned(), value.trim().trim_matches('"').to_owned()));
    (scheme.to_owned(), parameters.collect())
}

/// Whether a token service may be asked, and shown credentials: the upstream chose it, not the operator (CVE-2026-33540).
///
/// It is served by https, or by http where the upstream itself is; and it is on the upstream's host, in the same
/// registrable domain, or among those that the operator listed.
pub(super) fn is_trusted_realm(realm: &Url, upstream: &http::Uri, listed: &[String]) -> bool {
    let (Some(host), Some(own)) = (realm.host_str(), upstream.host()) else { return false };
    let (host, own) = (host.to_ascii_lowercase(), own.to_ascii_lowercase());
    let is_encrypted = realm.scheme() == "https" || realm.scheme() == "http" && upstream.scheme_str() == Some("http");
    let is_bare = realm.username().is_empty() && realm.password().is_none();
    let is_listed =
        |listed: &String| *listed == host || realm.port().is_some_and(|port| *listed == format!("{host}:{port}"));
    is_encrypted && is_bare && (host == own || listed.iter().any(is_listed) || are_siblings(&host, &own))
}

/// Whether two names were registered together: `auth.docker.io` and `registry-1.docker.io`, not two customers of one cloud.
fn are_siblings(one: &str, other: &str) -> bool {
    let domain = |name: &str| psl::domain_str(name).map(str::to_owned);
    let is_address = |name: &str| name.starts_with('[') || name.parse::<std::net::IpAddr>().is_ok();
    !is_address(one) && !is_address(other) && domain(one).is_some_and(|one| Some(one) == domain(other))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn challenge(lines: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(line).unwrap());
        }
        Challenge::of(&headers)
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let realm = Url::parse("https://auth.docker.io/token").unwrap();
        let bearer = |scope: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.clone(),
                service: "registry.docker.io".into(),
                scope: scope.map(str::to_owned),
            })
        };
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io""#;
        assert_eq!(challenge(&[hub]), bearer(None));
        let scoped = format!(r#"{hub},scope="repository:library/alpine:pull,push",error="insufficient_scope""#);
        assert_eq!(challenge(&[&scoped]), bearer(Some("repository:library/alpine:pull,push")));
        assert_eq!(challenge(&["Basic realm=\"x\"", hub]), bearer(None), "Bearer is preferred");
        assert_eq!(challenge(&["Basic realm=\"x\""]), Some(Challenge::Basic));
        assert_eq!(challenge(&["bASIC"]), Some(Challenge::Basic));
        // As Nexus, and some proxies, write them.
        assert_eq!(challenge(&["Basic realm=/"]), Some(Challenge::Basic));
        assert_eq!(challenge(&["BASIC  realm=a registry"]), Some(Challenge::Basic));
        let loose = "bearer  Realm=https://auth.docker.io/token, SERVICE=registry.docker.io";
        assert_eq!(challenge(&[loose]), bearer(None));
        let spaced = r#"Bearer  realm="https://auth.docker.io/token" , service="registry.docker.io""#;
        assert_eq!(challenge(&[spaced]), bearer(None));
        for other in
            ["", "Negotiate", "Bearer", "Bearer realm=\"/token\"", "Digest realm=\"x\"", "Bearer realm=\"https:"]
        {
            assert_eq!(challenge(&[other]), None, "{other}");
        }
    }

    #[test]
    fn credentials_go_to_the_upstreams_own_token_service_only() {
        let trusted = |realm: &str, upstream: &str| {
            let listed = ["listed.example".to_owned(), "port.example:5001".to_owned()];
            is_trusted_realm(&Url::parse(realm).unwrap(), &upstream.parse().unwrap(), &listed)
        };
        for (realm, upstream) in [
            ("https://auth.docker.io/token", "https://registry-1.docker.io"),
            ("https://ghcr.io/token", "https://ghcr.io"),
            ("https://listed.example/token", "https://ghcr.io"),
            ("https://listed.example:5001/token", "https://ghcr.io"),
            ("https://port.example:5001/token", "https://ghcr.io"),
            ("https://GHCR.io/token", "https://ghcr.io"),
            ("http://127.0.0.1:5003/token", "http://127.0.0.1:5002"),
            ("https://localhost/token", "http://localhost:5000"),
        ] {
            assert!(trusted(realm, upstream), "{realm} {upstream}");
        }
        for (realm, upstream) in [
            ("https://evil.example/token", "https://registry-1.docker.io"),
            ("http://auth.docker.io/token", "https://registry-1.docker.io"),
            ("https://docker.io.evil.example/token", "https://registry-1.docker.io"),
            ("https://mine.github.io/token", "https://yours.github.io"),
            ("https://evil.co.uk/token", "https://registry.co.uk"),
            ("https://127.0.0.2/token", "https://127.0.0.1"),
            ("https://port.example:5002/token", "https://ghcr.io"),
            ("https://user:password@ghcr.io/token", "https://ghcr.io"),
            ("ftp://ghcr.io/token", "https://ghcr.io"),
        ] {
            assert!(!trusted(realm, upstream), "{realm} {upstream}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_survived(text in "[ -~]{0,80}") {
            let _ = challenge(&[&text]);
            let _ = challenge(&[&format!("Bearer {text}")]);
        }
    }
}
