//! Connections that are made in time or not at all: straight, or through the proxy that the environment names.

use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::net::address::{AddressRule, Resolver};

use super::{BoxError, Settings};

/// Makes connections: name, TCP and TLS together within one deadline.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    inner: HttpsConnector<Dial>,
    timeout: Duration,
}

/// Makes TCP connections, straight or through a proxy.
#[derive(Clone)]
struct Dial {
    tcp: HttpConnector<Resolver>,
    rule: Arc<AddressRule>,
    /// To the proxy: the operator named it.
    to_proxy: HttpConnector,
    proxies: Option<Arc<Matcher>>,
}

/// The deadline passed before there was a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimedOut;

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no connection within connect_timeout")
    }
}

impl std::error::Error for TimedOut {}

impl Connector {
    pub(super) fn new(tls: ClientConfig, settings: &Settings) -> Self {
        let rule = Arc::new(settings.addresses.clone());
        let mut tcp = HttpConnector::new_with_resolver(Resolver::new(Arc::clone(&rule)));
        let mut to_proxy = HttpConnector::new();
        // Shared out among the addresses of a name, so that one dead address leaves time for the next.
        tcp.set_connect_timeout(Some(settings.connect_timeout));
        to_proxy.set_connect_timeout(Some(settings.connect_timeout));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        to_proxy.enforce_http(false);
        to_proxy.set_nodelay(true);
        let proxies = settings.proxy.then(|| Arc::new(Matcher::from_env()));
        let dial = Dial { tcp, rule, to_proxy, proxies };
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let inner =
            if settings.http2 { builder.enable_http2().wrap_connector(dial) } else { builder.wrap_connector(dial) };
        Self { inner, timeout: settings.connect_timeout }
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let connecting = self.inner.call(target);
        let timeout = self.timeout;
        Box::pin(async move {
            match tokio::time::timeout(timeout, connecting).await {
                Ok(connection) => connection,
                Err(_) => Err(TimedOut.into()),
            }
        })
    }
}

impl Service<Uri> for Dial {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        if let Err(refused) = self.rule.check_host(target.host().unwrap_or_default()) {
            return Box::pin(std::future::ready(Err(refused.into())));
        }
        let proxy = self.proxies.as_ref().filter(|_| !is_here(&target)).and_then(|proxies| proxies.intercept(&target));
        let Some(proxy) = proxy else {
            let connecting = self.tcp.call(target);
            return Box::pin(async move { Ok(connecting.await?) });
        };
        // A tunnel for plain HTTP too: a registry's answers are nothing for a proxy to read.
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.to_proxy.clone());
        if let Some(authorization) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(authorization.clone());
        }
        Box::pin(async move { Ok(tunnel.call(target).await?) })
    }
}

/// Nothing on this machine is ever asked for through a proxy.
fn is_here(target: &Uri) -> bool {
    let host = target.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dial")
            .field("rule", &self.rule)
            .field("proxied", &self.proxies.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_never_asked_through_a_proxy() {
        for here in ["http://127.0.0.1:5000", "https://localhost", "http://[::1]:80/x", "https://127.9.9.9"] {
            assert!(is_here(&here.parse().unwrap()), "{here}");
        }
        assert!(!is_here(&"https://registry.example".parse().unwrap()));
    }
}
