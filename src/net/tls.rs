//! The TLS that clients meet: versions, certificate, and whether they have to show one themselves.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// How many TLS 1.2 sessions are remembered for clients that know no tickets (Go before 1.3 and the like).
const REMEMBERED_SESSIONS: usize = 4096;

/// Protocols offered in the handshake (RFC 7301), the preferred one first.
const APPLICATION_PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What to load, and what to demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// PEM: the server's certificate, then those that lead to its root.
    pub certificate: PathBuf,
    /// PEM: the private key of the first certificate, not encrypted.
    pub key: PathBuf,
    /// The oldest version that is spoken.
    pub min_version: MinVersion,
    /// PEM: who may have issued the certificates that clients show. Without it none is asked for.
    pub client_ca: Option<PathBuf>,
    /// Whether a client must show one. Means nothing without `client_ca`.
    pub client_auth: ClientAuth,
}

/// The oldest version of TLS that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MinVersion {
    /// TLS 1.2 (RFC 5246), which docker before 1.12 needs.
    #[default]
    Tls12,
    /// TLS 1.3 (RFC 8446) only.
    Tls13,
}

/// Whether a client must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAuth {
    /// It may; one that is shown must be good.
    #[default]
    Optional,
    /// It must.
    Required,
}

/// Why there is no TLS to be had from these files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsError {
    /// The file cannot be read.
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        kind: io::ErrorKind,
    },
    /// The file looks like PEM but is damaged.
    NotPem {
        /// Which.
        file: PathBuf,
    },
    /// There is no certificate in it.
    NoCertificate {
        /// Which.
        file: PathBuf,
    },
    /// There is no private key in it that can be used.
    NoKey {
        /// Which.
        file: PathBuf,
    },
    /// A certificate in it cannot be understood.
    BadCertificate {
        /// Which.
        file: PathBuf,
    },
    /// The private key in it is of a kind that cannot be used.
    BadKey {
        /// Which.
        file: PathBuf,
    },
    /// The key belongs to another certificate.
    KeyMismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// The TLS library does not want them.
    Refused {
        /// What it said.
        reason: String,
    },
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { file, kind } => {
                write!(f, "cannot read {}: {kind}; check the path and who may read it", file.display())
            }
            Self::NotPem { file } => {
                write!(f, "{} is damaged: it should be PEM, with whole BEGIN and END lines", file.display())
            }
            Self::NoCertificate { file } => {
                write!(f, "{} has no certificate in it: expected a PEM block BEGIN CERTIFICATE", file.display())
            }
            Self::NoKey { file } => write!(
                f,
                "{} has no private key that can be used: expected a PEM block BEGIN PRIVATE KEY, BEGIN EC PRIVATE KEY \
                 or BEGIN RSA PRIVATE KEY; an encrypted key must be decrypted first (openssl pkey -in … -out …)",
                file.display()
            ),
            Self::BadCertificate { file } => {
                write!(f, "a certificate in {} cannot be understood; issue it again", file.display())
            }
            Self::BadKey { file } => write!(
                f,
                "the private key in {} cannot be used: take ECDSA P-256 or P-384, RSA of 2048 bits or more, or Ed25519",
                file.display()
            ),
            Self::KeyMismatch { certificate, key } => write!(
                f,
                "the key in {} does not belong to the first certificate in {}: put the server's own certificate \
                 first, or take the key that it was issued for",
                key.display(),
                certificate.display()
            ),
            Self::Refused { reason } => write!(f, "TLS cannot be set up: {reason}"),
        }
    }
}

impl std::error::Error for TlsError {}

impl TlsError {
    /// The file to mend; none, where no single one is to blame.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Unreadable { file, .. }
            | Self::NotPem { file }
            | Self::NoCertificate { file }
            | Self::NoKey { file }
            | Self::BadCertificate { file }
            | Self::BadKey { file }
            | Self::KeyMismatch { key: file, .. } => Some(file),
            Self::Refused { .. } => None,
        }
    }

    /// Whether it is about a private key.
    pub const fn is_about_key(&self) -> bool {
        matches!(self, Self::NoKey { .. } | Self::BadKey { .. } | Self::KeyMismatch { .. })
    }
}

/// Load what [`Settings`] name into a configuration that connections can share.
///
/// Session tickets live as long as the configuration; a reload makes clients do one full handshake.
pub fn load(settings: &Settings) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions(settings.min_version))
        .map_err(refused)?;
    let builder = match &settings.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => builder.with_client_cert_verifier(verifier(file, settings.client_auth, provider)?),
    };
    let (chain, key) = certified_key(&settings.certificate, &settings.key)?;
    let mut config = builder.with_single_cert(chain, key).map_err(refused)?;
    config.alpn_protocols = APPLICATION_PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(refused)?;
    config.session_storage = ServerSessionMemoryCache::new(REMEMBERED_SESSIONS);
    Ok(Arc::new(config))
}

/// Whether `file` can tell who may have issued the certificates that clients show.
pub fn check_client_ca(file: &Path) -> Result<(), TlsError> {
    verifier(file, ClientAuth::Required, Arc::new(aws_lc_rs::default_provider())).map(drop)
}

fn verifier(
    file: &Path,
    auth: ClientAuth,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(file)?), provider);
    let verifier = match auth {
        ClientAuth::Optional => verifier.allow_unauthenticated(),
        ClientAuth::Required => verifier,
    };
    verifier.build().map_err(refused)
}

/// Whether the certificate and the key can be used together.
pub fn check_pair(certificate: &Path, key: &Path) -> Result<(), TlsError> {
    certified_key(certificate, key).map(drop)
}

/// The name that a verified client certificate gives its holder: its common name, else its first DNS or URI name.
pub fn certificate_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let common_name = parsed.subject().iter_common_name().find_map(|name| name.as_str().ok());
    let name = common_name.filter(|name| !name.is_empty()).map(str::to_owned);
    name.or_else(|| {
        let names = parsed.subject_alternative_name().ok().flatten()?;
        names.value.general_names.iter().find_map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::URI(name) if !name.is_empty() => Some((*name).to_owned()),
            _ => None,
        })
    })
}

/// When the first certificate in `file` ends.
pub fn expiry(file: &Path) -> Result<OffsetDateTime, TlsError> {
    let chain = read_certificates(file)?;
    let bad = || TlsError::BadCertificate { file: file.into() };
    let (_, parsed) = X509Certificate::from_der(chain.first().ok_or_else(bad)?).map_err(|_| bad())?;
    Ok(parsed.validity().not_after.to_datetime())
}

/// The certificates of a PEM file, as those whom to trust.
pub(super) fn roots(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(file)? {
        roots.add(certificate).map_err(|_| TlsError::BadCertificate { file: file.into() })?;
    }
    Ok(roots)
}

/// All certificates of a PEM file; at least one.
pub(super) fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(file)?;
    let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&text).collect();
    match chain {
        Err(_) => Err(TlsError::NotPem { file: file.into() }),
        Ok(chain) if chain.is_empty() => Err(TlsError::NoCertificate { file: file.into() }),
        Ok(chain) => Ok(chain),
    }
}

/// The chain and the key, after making sure that they belong together.
pub(super) fn certified_key(
    certificate: &Path,
    key: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let chain = read_certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NoKey { file: key.into() },
        _ => TlsError::NotPem { file: key.into() },
    })?;
    let signing = aws_lc_rs::sign::any_supported_type(&private).map_err(|_| TlsError::BadKey { file: key.into() })?;
    match CertifiedKey::new(chain.clone(), signing).keys_match() {
        Ok(()) => Ok((chain, private)),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(TlsError::KeyMismatch { certificate: certificate.into(), key: key.into() })
        }
        Err(_) => Err(TlsError::BadCertificate { file: certificate.into() }),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(file).map_err(|error| TlsError::Unreadable { file: file.into(), kind: error.kind() })
}

fn versions(min: MinVersion) -> &'static [&'static SupportedProtocolVersion] {
    static TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
    static TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
    match min {
        MinVersion::Tls12 => TLS12,
        MinVersion::Tls13 => TLS13,
    }
}

fn refused(error: impl fmt::Display) -> TlsError {
    TlsError::Refused { reason: error.to_string() }
}

#[cfg(test)]
mod tests;
