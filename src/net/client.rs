//! The HTTP client that asks other servers.
//!
//! It follows no redirect, adds no credentials and decodes nothing. It goes through the proxies that the environment names
//! (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`) where it is told to.

mod connect;
mod error;
mod progress;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::Instant;

pub use error::{ClientError, Fault, Retry};

use super::address::AddressRule;
use super::tls::{self, TlsError};
use connect::Connector;
use progress::{Progress, Watched};

/// Anything that can go wrong in a body that is sent.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How to reach a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// PEM: authorities to trust.
    pub ca: Option<PathBuf>,
    /// Whether those that Mozilla trusts are trusted, too.
    pub public_authorities: bool,
    /// For the name, the connection and the TLS handshake together.
    pub connect_timeout: Duration,
    /// How long the server may take nothing of the request, and how long it may think once it has all of it.
    pub first_byte_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// How many unused connections are kept to each server.
    pub idle_connections: usize,
    /// The certificate and the key that are shown to servers that ask for one (PEM).
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// Whether the proxies that the environment names are used.
    pub proxy: bool,
    /// Which addresses may be connected to.
    pub addresses: AddressRule,
    /// Whether HTTP/2 is spoken where an `https` server offers it. Not where `Host` has to be another name than the server's.
    pub http2: bool,
}

/// An HTTP client with its pool of connections. Clones share the pool.
///
/// `https` URLs speak HTTP/2 where the server offers it, `http` ones always HTTP/1.1.
#[derive(Debug, Clone)]
pub struct Client {
    inner: legacy::Client<Connector, UnsyncBoxBody<Bytes, BoxError>>,
    connect_timeout: Duration,
    first_byte_timeout: Duration,
}

impl Client {
    /// A client without connections yet. Fails only if `settings.ca` cannot be used.
    pub fn new(settings: &Settings) -> Result<Self, TlsError> {
        let connector = Connector::new(tls_config(settings)?, settings);
        let inner = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(settings.idle_timeout)
            .pool_max_idle_per_host(settings.idle_connections)
            .build(connector);
        Ok(Self { inner, connect_timeout: settings.connect_timeout, first_byte_timeout: settings.first_byte_timeout })
    }

    /// Send `request`, whose URI is absolute, and wait for the head of the answer.
    ///
    /// A request body that waits for its own source is not held against the server; whoever made the body limits that.
    /// How long the answer's body may pause is for its reader to limit.
    pub async fn send<B>(&self, request: Request<B>) -> Result<Response<Incoming>, ClientError>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if !matches!(request.uri().scheme_str(), Some("http" | "https")) {
            let reason =
                format!("the scheme {:?} is neither http nor https", request.uri().scheme_str().unwrap_or_default());
            return Err(ClientError::Request { reason });
        }
        let progress = Arc::new(Progress::start(self.connect_timeout + self.first_byte_timeout));
        let watch = Arc::clone(&progress);
        let request = request.map(|body| Watched::new(body.map_err(Into::into), watch).boxed_unsync());
        let mut response = std::pin::pin!(self.inner.request(request));
        loop {
            // A phase that begins later may end earlier than the one that runs now.
            let due = progress.due(self.first_byte_timeout).min(Instant::now() + self.first_byte_timeout);
            tokio::select! {
                biased;
                answer = &mut response => return answer.map_err(|error| error::classify(&error, progress.body_failed())),
                () = tokio::time::sleep_until(due) => {
                    if progress.is_overdue(self.first_byte_timeout) {
                        return Err(ClientError::FirstByteTimeout);
                    }
                }
            }
        }
    }
}

fn tls_config(settings: &Settings) -> Result<ClientConfig, TlsError> {
    let mut roots = settings.ca.as_deref().map_or_else(|| Ok(RootCertStore::empty()), tls::roots)?;
    if settings.public_authorities {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Refused { reason: error.to_string() })?;
    let builder = builder.with_root_certificates(roots);
    match &settings.client_certificate {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            let (chain, key) = tls::certified_key(certificate, key)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| TlsError::Refused { reason: error.to_string() })
        }
    }
}

impl Default for Settings {
    /// As for one's own servers: any address, no proxy, the authorities that Mozilla trusts.
    fn default() -> Self {
        const TIMEOUT: Duration = Duration::from_secs(30);
        Self {
            ca: None,
            public_authorities: true,
            connect_timeout: TIMEOUT,
            first_byte_timeout: TIMEOUT,
            idle_timeout: TIMEOUT,
            idle_connections: 1,
            client_certificate: None,
            proxy: false,
            addresses: AddressRule::Any,
            http2: false,
        }
    }
}

#[cfg(test)]
mod tests;
