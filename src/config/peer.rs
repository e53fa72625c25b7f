//! Where an upstream answers.

use http::Uri;

use super::errors::{Place, Problem};
use super::reader::Section;
use super::tree::{Node, Value};

/// The most peers of one upstream.
const PEERS_MAX: usize = 64;

/// One server of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// As it was written: `http://127.0.0.1:5002`.
    pub url: String,
    /// Whether it speaks TLS.
    pub https: bool,
    /// Host and port: `127.0.0.1:5002`.
    pub authority: String,
    /// What its paths begin with there: nothing, or `/repository/docker-hub`.
    pub path: String,
}

/// What the URL of a peer may have.
pub(super) struct Shape {
    has_path: bool,
    /// In words.
    pub(super) allowed: &'static str,
}

/// A v1 registry.
pub(super) const LEGACY: Shape =
    Shape { has_path: false, allowed: "URLs such as \"http://127.0.0.1:5002\", without a user, a path or a query" };

/// A v2 registry, which may live below a path.
pub(super) const REMOTE: Shape = Shape {
    has_path: true,
    allowed: "URLs such as \"http://127.0.0.1:5002\" or \"https://nexus.example/repository/docker-hub\", without a user or \
              a query, and without the /v2/ that follows",
};

impl Peer {
    fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let (https, port) = match uri.scheme_str()? {
            "http" => (false, 80_u16),
            "https" => (true, 443),
            _ => return None,
        };
        let authority = uri.authority()?;
        let is_bare = uri.query().is_none() && !url.contains(['@', '#']);
        let path = uri.path().strip_suffix('/').unwrap_or(uri.path());
        let port = match authority.as_str().rsplit_once(':') {
            Some((_, port)) if !port.ends_with(']') => port.parse().ok()?,
            _ => port,
        };
        let host = authority.host();
        (is_bare && is_base(path) && !host.is_empty() && port != 0).then(|| Self {
            url: url.into(),
            https,
            authority: format!("{host}:{port}"),
            path: path.into(),
        })
    }
}

/// Whether `/v2/…` can follow: each part is one that no reader of URLs takes for another.
fn is_base(path: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'~' | b'%');
    let is_part = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(known);
    path.is_empty() || path.split('/').skip(1).all(is_part) && !path.ends_with("/v2")
}

impl Section<'_> {
    /// A list of peers. A URL that is refused is not repeated, for it may hold a password.
    pub(super) fn peers(&self, node: Node, path: &str, shape: &Shape) -> Option<Vec<Peer>> {
        let nodes = match node.value {
            Value::Array(nodes) if nodes.len() <= PEERS_MAX => nodes,
            Value::Array(nodes) => {
                let found = format!("{} peers", nodes.len());
                let problem = Problem::Value { found, allowed: format!("at most {PEERS_MAX}"), nearest: None };
                self.report.error(node.place, path, problem);
                return None;
            }
            value => {
                let found = if value.as_text().is_some() { "a string".into() } else { value.to_string() };
                self.refuse_peer(node.place, path, found, &format!("a list of {}", shape.allowed));
                return None;
            }
        };
        let nodes = nodes.into_iter().enumerate();
        Some(nodes.filter_map(|(index, node)| self.peer(node, &format!("{path}[{index}]"), shape)).collect())
    }

    /// One peer.
    pub(super) fn peer(&self, node: Node, path: &str, shape: &Shape) -> Option<Peer> {
        let peer = node.value.as_text().and_then(Peer::parse).filter(|peer| shape.has_path || peer.path.is_empty());
        if peer.is_none() {
            let found = match node.value.as_text() {
                Some(text) if text.contains('@') => "a URL with a user in it".into(),
                _ => node.value.to_string(),
            };
            self.refuse_peer(node.place, path, found, shape.allowed);
        }
        peer
    }

    fn refuse_peer(&self, place: Place, path: &str, found: String, allowed: &str) {
        self.report.error(place, path, Problem::Value { found, allowed: allowed.into(), nearest: None });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_peer_is_a_scheme_an_authority_and_perhaps_a_path() {
        for (url, https, authority, path) in [
            ("http://127.0.0.1:5002", false, "127.0.0.1:5002", ""),
            ("http://registry/", false, "registry:80", ""),
            ("https://registry.example", true, "registry.example:443", ""),
            ("https://[::1]", true, "[::1]:443", ""),
            ("http://[::1]:5002", false, "[::1]:5002", ""),
            ("https://nexus/repository/docker-hub/", true, "nexus:443", "/repository/docker-hub"),
            ("http://a:81/x", false, "a:81", "/x"),
            ("http://a/v2/x", false, "a:80", "/v2/x"),
        ] {
            let expected = Peer { url: url.into(), https, authority: authority.into(), path: path.into() };
            assert_eq!(Peer::parse(url), Some(expected));
        }
        for bad in [
            "",
            "registry:5002",
            "127.0.0.1",
            "ftp://a",
            "http://",
            "http://a/v2",
            "http://a/x/v2/",
            "http://a//x",
            "http://a/x//",
            "http://a/../x",
            "http://a/x/.",
            "http://a/x;y",
            "http://a?b",
            "http://a/x?b",
            "http://a/x#b",
            "http://u:p@a/x",
            "http://u:p@a",
            "http://a:0",
            "http://a:70000",
            "http://a:",
            "http://a#b",
            "http:///x",
            "/x",
        ] {
            assert_eq!(Peer::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(https?://)?.{0,30}") {
            let _ = Peer::parse(&text);
        }
    }
}
