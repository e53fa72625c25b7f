//! The header rules of a proxy: what belongs to one connection stays on it (RFC 9110 section 7.6.1), and who called is
//! said by us alone.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue};

/// Headers about one connection, beside those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// How the caller reached us: what the upstream is told, and what it may not learn from the caller's own headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded {
    /// The caller's address.
    pub client: IpAddr,
    /// The gateway's name as the caller wrote it: `host`, or `host:port`.
    pub host: String,
    /// Whether the caller came over TLS.
    pub https: bool,
}

impl Forwarded {
    /// The scheme the caller used.
    pub const fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }
}

/// Takes out what concerns one connection only: the fixed names, all of `Proxy-*`, and what `Connection` names.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let mut names: Vec<HeaderName> = HOP_BY_HOP.to_vec();
    for value in headers.get_all(header::CONNECTION) {
        let tokens = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        names.extend(tokens.filter_map(|token| HeaderName::from_bytes(token).ok()));
    }
    names.extend(headers.keys().filter(|name| name.as_str().starts_with("proxy-")).cloned());
    for name in names {
        headers.remove(name);
    }
}

/// Puts our own word about the caller in place of whatever the request said about it. `Host` stays the caller's. Names
/// with an underscore go, for some servers read it as a hyphen (WSGI: both are `HTTP_X_FORWARDED_FOR`).
pub fn set_forwarded(headers: &mut HeaderMap, forwarded: &Forwarded) -> Result<(), InvalidHeaderValue> {
    let claims = |name: &&HeaderName| {
        let name = name.as_str();
        name.starts_with("x-forwarded-") || name == "forwarded" || name == "x-real-ip" || name.contains('_')
    };
    for name in headers.keys().filter(claims).cloned().collect::<Vec<_>>() {
        headers.remove(name);
    }
    let host = HeaderValue::from_str(&forwarded.host)?;
    headers.insert("x-forwarded-for", HeaderValue::from_str(&forwarded.client.to_string())?);
    headers.insert("x-forwarded-proto", HeaderValue::from_static(forwarded.scheme()));
    headers.insert("x-forwarded-host", host.clone());
    headers.insert(header::HOST, host);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_end_to_end_headers_go_on() {
        for (line, stays) in [
            (("connection", "close"), false),
            (("keep-alive", "timeout=5"), false),
            (("te", "trailers"), false),
            (("trailer", "x-sum"), false),
            (("transfer-encoding", "chunked"), false),
            (("upgrade", "h2c"), false),
            (("proxy-authorization", "Basic eDp5"), false),
            (("proxy-authenticate", "Basic"), false),
            (("proxy-connection", "keep-alive"), false),
            (("proxy-status", "made-up"), false),
            (("user-agent", "docker/1.5.0"), true),
            (("x-docker-token", "true"), true),
            (("content-length", "5"), true),
            (("cookie", "session=1"), true),
        ] {
            let mut map = headers(&[line]);
            strip_hop_by_hop(&mut map);
            assert_eq!(map.contains_key(line.0), stays, "{line:?}");
        }
    }

    #[test]
    fn what_connection_names_is_taken_out_too() {
        let mut map = headers(&[
            ("connection", "close, X-Docker-Token ,, authorization"),
            ("connection", "x-second"),
            ("x-docker-token", "true"),
            ("authorization", "Token a"),
            ("x-second", "1"),
            ("x-third", "1"),
        ]);
        strip_hop_by_hop(&mut map);
        assert_eq!(map, headers(&[("x-third", "1")]));
    }

    #[test]
    fn a_caller_cannot_say_who_it_is() {
        let mut map = headers(&[
            ("host", "evil.example"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-port", "443"),
            ("forwarded", "for=10.0.0.1"),
            ("x-real-ip", "10.0.0.1"),
            // WSGI servers read an underscore as a hyphen.
            ("x_forwarded_for", "10.0.0.1"),
            ("x_docker-token", "true"),
            ("accept", "*/*"),
        ]);
        let forwarded =
            Forwarded { client: "2001:db8::1".parse().unwrap(), host: "gw.example:5000".to_owned(), https: false };
        set_forwarded(&mut map, &forwarded).unwrap();
        let expected = headers(&[
            ("accept", "*/*"),
            ("host", "gw.example:5000"),
            ("x-forwarded-for", "2001:db8::1"),
            ("x-forwarded-host", "gw.example:5000"),
            ("x-forwarded-proto", "http"),
        ]);
        assert_eq!(map, expected);
    }
}
