//! Which addresses a connection may be made to, wherever a name leads (server-side request forgery, DNS rebinding).

use std::fmt;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use ipnet::IpNet;
use tower_service::Service;

use super::client::BoxError;

/// Which addresses may be connected to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AddressRule {
    /// Any: the operator wrote the name.
    #[default]
    Any,
    /// Public ones, and those in these networks: somebody else wrote the name.
    Public(Vec<IpNet>),
}

/// No address that a name leads to may be connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NotPublic(String);

impl fmt::Display for NotPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} leads to an address that is not public; if it is meant, list its network in private_addresses",
            self.0
        )
    }
}

impl std::error::Error for NotPublic {}

impl AddressRule {
    /// Whether this address may be connected to.
    pub fn allows(&self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Public(except) => {
                let address = address.to_canonical();
                is_public(address) || except.iter().any(|network| network.contains(&address))
            }
        }
    }

    /// An error, if the host of a URL is an address that may not be connected to. Names are looked at when they are
    /// resolved.
    pub(super) fn check_host(&self, host: &str) -> Result<(), NotPublic> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            Ok(address) if !self.allows(address) => Err(NotPublic(host.to_owned())),
            _ => Ok(()),
        }
    }
}

/// Whether an address is one of the public internet's (the IANA special-purpose registries).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        // Shared by carriers (RFC 6598), protocol assignments (RFC 6890), benchmarks (RFC 2544).
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (18..20).contains(&b));
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // What carries an IPv4 address inside is as good as that one: NAT64 (RFC 6052) and 6to4 (RFC 3056).
    let segments = address.segments();
    if segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        return is_public_v4(embedded(segments[6], segments[7]));
    }
    if segments[0] == 0x2002 {
        return is_public_v4(embedded(segments[1], segments[2]));
    }
    // Global unicast is 2000::/3; within it, documentation and Teredo are not.
    let is_global = segments[0] & 0xe000 == 0x2000;
    let is_special = segments[..2] == [0x2001, 0xdb8] || segments[..2] == [0x2001, 0] || segments[0] == 0x3fff;
    is_global && !is_special
}

fn embedded(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

/// Resolves names as the system does, and leaves out what may not be connected to: what is looked at is what is used.
#[derive(Debug, Clone)]
pub(super) struct Resolver {
    inner: GaiResolver,
    rule: Arc<AddressRule>,
}

impl Resolver {
    pub(super) fn new(rule: Arc<AddressRule>) -> Self {
        Self { inner: GaiResolver::new(), rule }
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (text, rule) = (name.as_str().to_owned(), Arc::clone(&self.rule));
        let resolving = self.inner.call(name);
        Box::pin(async move {
            let addresses: Vec<SocketAddr> = resolving.await?.filter(|address| rule.allows(address.ip())).collect();
            if addresses.is_empty() { Err(NotPublic(text).into()) } else { Ok(addresses.into_iter()) }
        })
    }
}

/// Who counts as one client: one IPv4 address, or one IPv6 /64, since whoever has one address of it has them all.
pub fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for public in ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::101:101", "2002:101:101::1"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for other in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "192.0.2.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "192.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "2001:db8::1",
            "64:ff9b::a00:1",
            "2002:7f00:1::1",
            "2001::1",
        ] {
            assert!(!is_public(other.parse().unwrap()), "{other}");
        }
    }

    #[test]
    fn an_address_inside_of_another_is_seen() {
        let rule = AddressRule::Public(vec![]);
        assert!(!rule.allows("::ffff:127.0.0.1".parse().unwrap()));
        assert!(rule.check_host("[::ffff:10.0.0.1]").is_err());
        assert!(rule.check_host("169.254.169.254").is_err());
        assert!(rule.check_host("registry.example").is_ok(), "a name is looked at when it is resolved");
        let except = AddressRule::Public(vec!["10.0.0.0/8".parse().unwrap()]);
        assert!(except.allows("10.9.9.9".parse().unwrap()) && !except.allows("192.168.0.1".parse().unwrap()));
        assert!(AddressRule::Any.allows("127.0.0.1".parse().unwrap()));
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_not_followed() {
        let resolve = async |rule| {
            let mut resolver = Resolver::new(Arc::new(rule));
            resolver.call("localhost".parse().unwrap()).await.map(Iterator::count)
        };
        assert!(resolve(AddressRule::Any).await.unwrap() > 0);
        let refused = resolve(AddressRule::Public(vec![])).await.unwrap_err();
        assert!(refused.to_string().contains("private_addresses"), "{refused}");
    }
}
