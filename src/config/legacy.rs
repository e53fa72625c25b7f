//! Upstreams of the kind `legacy`.

use crate::docker::LegacyClients;

use super::defaults::{
    LEGACY_CONCURRENCY, LEGACY_FIRST_BYTE_TIMEOUT, LEGACY_IDLE_TIMEOUT, LEGACY_RETRIES, legacy_health,
};
use super::reader::Section;
use super::transport::{self, BasicCredentials, Defaults, Transport};

const LEGACY_CLIENTS: [(&str, LegacyClients); 2] =
    [("docker < 1.6", LegacyClients::Before1_6), ("docker < 1.10", LegacyClients::Before1_10)];

/// A v1 registry, for old docker clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Legacy {
    /// How it is reached.
    pub transport: Transport,
    /// Which clients are sent there when they ask for `/v2/`.
    pub clients: LegacyClients,
    /// Whether the registry is its own index; else it asks us, its index, about every request.
    pub standalone: bool,
    /// Whether the caller's Basic credentials are sent on.
    pub forward_basic: bool,
    /// The credentials that are sent as Basic; never together with `forward_basic`.
    pub credentials: Option<BasicCredentials>,
}

pub(super) fn read_legacy(root: &mut Section<'_>, name: &str) -> Option<Legacy> {
    let peers = transport::read_peers(root);
    let defaults = Defaults {
        health: legacy_health(),
        // The Host of a v1 request is the caller's, and HTTP/2 takes it for the server's.
        http2: false,
        first_byte_timeout: LEGACY_FIRST_BYTE_TIMEOUT,
        idle_timeout: LEGACY_IDLE_TIMEOUT,
        retries: LEGACY_RETRIES,
        concurrency: LEGACY_CONCURRENCY,
    };
    let legacy = Legacy {
        clients: root.choice("clients", LegacyClients::default(), &LEGACY_CLIENTS),
        standalone: root.boolean("standalone", true),
        forward_basic: root.boolean("forward_basic", false),
        credentials: transport::read_credentials(root),
        transport: transport::read_transport(root, name, defaults),
    };
    if legacy.transport.http2 {
        root.report.conflict("http2", "http2", "a v1 registry is told the caller's Host, which HTTP/2 cannot".into());
    }
    if legacy.forward_basic && legacy.credentials.is_some() {
        let text = format!("true does not go with {}: only one of them can be sent", root.report.end("username"));
        root.report.conflict("forward_basic", "username", text);
    }
    // To a registry that has an index goes our token, and there can be one Authorization only.
    for (key, is_set) in [("forward_basic", legacy.forward_basic), ("username", legacy.credentials.is_some())] {
        if !legacy.standalone && is_set {
            let text = format!("false does not go with {}: only one of them can be sent", root.report.end(key));
            root.report.conflict("standalone", key, text);
        }
    }
    Some(Legacy { transport: Transport { peers: peers?, ..legacy.transport }, ..legacy })
}
