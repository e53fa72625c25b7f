//! What a proxy says of the caller: `X-Forwarded-*`, and `Forwarded` (RFC 7239). Read only where the proxy is trusted.

use std::net::{IpAddr, SocketAddr};
use std::sync::Once;

use http::HeaderMap;
use ipnet::IpNet;

/// What was said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Told {
    pub(super) client: Option<IpAddr>,
    pub(super) https: Option<bool>,
    pub(super) host: Option<String>,
    /// The port that the caller called, where the host says none.
    pub(super) port: Option<u16>,
}

/// Reads the headers. A proxy writes one kind and may let the other through as its caller wrote it; most write
/// `X-Forwarded-*`, so `Forwarded` counts only where nothing of that kind is there. Of a chain of proxies the last part was written by the one that is connected to us; from there on
/// back, the first address that is no trusted proxy is the caller.
pub(super) fn read(headers: &HeaderMap, trusted: &[IpNet]) -> Told {
    let hops = values(headers, "forwarded");
    let of_the_other_kind = headers.keys().any(|name| name.as_str().starts_with("x-forwarded-"));
    if !hops.is_empty() && !of_the_other_kind {
        let client = caller(hops.iter().rev().map(|hop| parameter(hop, "for")), trusted);
        let last = hops.last().map(String::as_str).unwrap_or_default();
        let https = parameter(last, "proto").map(|proto| proto.eq_ignore_ascii_case("https"));
        return Told { client, https, host: parameter(last, "host").map(str::to_owned), port: None };
    }
    let addresses = values(headers, "x-forwarded-for");
    let schemes = values(headers, "x-forwarded-proto");
    if schemes.len() > 1 {
        LISTS.call_once(|| {
            tracing::warn!(
                schemes = schemes.join(","),
                "a trusted proxy sends a list as X-Forwarded-Proto; the last of it counts, which the nearest proxy wrote. Have \
                 proxies set this header, and not add to it"
            );
        });
    }
    Told {
        client: caller(addresses.iter().rev().map(|address| Some(address.as_str())), trusted),
        https: schemes.last().map(|proto| proto.eq_ignore_ascii_case("https")),
        host: values(headers, "x-forwarded-host").pop(),
        port: values(headers, "x-forwarded-port").pop().and_then(|port| port.parse().ok()),
    }
}

/// That is how proxies are set up, so it is said once.
static LISTS: Once = Once::new();

/// All parts of a header that is a list, in order.
fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// The first address, going back, that is no trusted proxy; nothing beyond one that cannot be read is believed.
fn caller<'a>(addresses: impl Iterator<Item = Option<&'a str>>, trusted: &[IpNet]) -> Option<IpAddr> {
    let mut caller = None;
    for address in addresses {
        let Some(address) = address.and_then(parse_address) else { break };
        caller = Some(address);
        if !trusted.iter().any(|network| network.contains(&address)) {
            break;
        }
    }
    caller
}

fn parse_address(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches('"');
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse()
        .ok()
        .or_else(|| text.parse().ok().map(|address: SocketAddr| address.ip()))
        .map(|ip: IpAddr| ip.to_canonical())
}

fn parameter<'a>(hop: &'a str, name: &str) -> Option<&'a str> {
    let pairs = hop.split(';').filter_map(|pair| pair.split_once('='));
    let mut named = pairs.filter(|(key, _)| key.trim().eq_ignore_ascii_case(name));
    named.next().map(|(_, value)| value.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(headers: &[(&'static str, &str)]) -> Told {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        read(&map, &["10.0.0.0/8".parse().unwrap()])
    }

    #[test]
    fn the_caller_is_the_last_address_that_is_no_proxy_of_ours() {
        let client = |text: &str| told(&[("x-forwarded-for", text)]).client.map(|client| client.to_string());
        assert_eq!(client("203.0.113.9, 198.51.100.7, 10.0.0.2").as_deref(), Some("198.51.100.7"));
        assert_eq!(client("198.51.100.7:1234").as_deref(), Some("198.51.100.7"));
        assert_eq!(client("203.0.113.9, nonsense"), None);
        assert_eq!(client("10.0.0.3, 10.0.0.2").as_deref(), Some("10.0.0.3"));
    }

    #[test]
    fn forwarded_says_all_in_one_header() {
        let host = Some("a:5000".into());
        let expected = Told { client: "2001:db8::1".parse().ok(), https: Some(true), host, port: None };
        assert_eq!(told(&[("forwarded", "for=unknown, for=\"[2001:db8::1]:4711\";proto=https;host=a:5000")]), expected);
    }

    /// A proxy that knows only one kind lets the other through as the caller wrote it.
    #[test]
    fn forwarded_spoke_for_a_proxy_that_does_not_write_it() {
        let forged = ("forwarded", "for=203.0.113.1;proto=https;host=evil.example");
        let client = told(&[forged, ("x-forwarded-for", "198.51.100.7")]);
        assert_eq!(client, Told { client: "198.51.100.7".parse().ok(), ..Told::default() });
        let scheme = told(&[forged, ("x-forwarded-proto", "http")]);
        assert_eq!(scheme, Told { https: Some(false), ..Told::default() });
        assert_eq!(told(&[forged, ("x-forwarded-port", "443")]), Told { port: Some(443), ..Told::default() });
        let lists = told(&[("x-forwarded-proto", "https,http"), ("x-forwarded-port", "1, 2")]);
        assert_eq!(lists, Told { https: Some(false), port: Some(2), ..Told::default() });
    }
}
