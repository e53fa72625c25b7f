//! An HTTP/1.1 client; stands in for the real one until that is merged.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client as Pool, Error as PoolError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// What goes wrong inside a body.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// A body of a request or an answer.
pub type Body = BoxBody<Bytes, BoxError>;

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// More certificate authorities that are trusted, as PEM.
    pub ca: Option<PathBuf>,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long an answer may take to begin, from when it was asked for.
    pub first_byte_timeout: Duration,
    /// How many connections per peer are kept open for the next request.
    pub idle_connections: usize,
}

/// A request was not answered.
#[derive(Debug)]
pub enum ClientError {
    /// The certificates cannot be used.
    Certificates(String),
    /// No connection came about: nothing was sent.
    Connect(String),
    /// No answer began within this time.
    Silent(Duration),
    /// The exchange broke off before the answer began.
    Broken(String),
}

/// A client with a pool of connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    pool: Pool<hyper_rustls::HttpsConnector<HttpConnector>, Body>,
    first_byte_timeout: Duration,
}

impl Client {
    /// Makes one; fails when the certificates cannot be read.
    pub fn new(settings: ClientSettings) -> Result<Self, ClientError> {
        let mut roots = rustls::RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        if let Some(path) = &settings.ca {
            let broken = |error| ClientError::Certificates(format!("{}: {error}", path.display()));
            for certificate in CertificateDer::pem_file_iter(path).map_err(broken)? {
                let certificate = certificate.map_err(broken)?;
                roots.add(certificate).map_err(|error| ClientError::Certificates(error.to_string()))?;
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| ClientError::Certificates(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(settings.connect_timeout));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(settings.idle_connections)
            .build(connector);
        Ok(Self { pool, first_byte_timeout: settings.first_byte_timeout })
    }

    /// Sends one request; its URI names the peer.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, ClientError> {
        match tokio::time::timeout(self.first_byte_timeout, self.pool.request(request)).await {
            Err(_) => Err(ClientError::Silent(self.first_byte_timeout)),
            Ok(answer) => answer.map_err(|error| ClientError::from(&error)),
        }
    }
}

impl ClientError {
    /// Whether there was no connection: nothing of the request was sent.
    pub const fn is_connect(&self) -> bool {
        matches!(self, Self::Connect(_))
    }
}

impl From<&PoolError> for ClientError {
    fn from(error: &PoolError) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        if error.is_connect() { Self::Connect(text) } else { Self::Broken(text) }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificates(text) | Self::Connect(text) | Self::Broken(text) => f.write_str(text),
            Self::Silent(waited) => write!(f, "no answer within {} s", waited.as_secs()),
        }
    }
}

impl Error for ClientError {}
