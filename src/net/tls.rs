//! Stands in for the file of the same name until that is merged.

use std::path::Path;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// TLS material cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsError {
    /// It was refused.
    Refused {
        /// Why.
        reason: String,
    },
}

impl std::fmt::Display for TlsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self::Refused { reason } = self;
        f.write_str(reason)
    }
}

impl std::error::Error for TlsError {}

pub(super) fn roots(file: &Path) -> Result<RootCertStore, TlsError> {
    let refused = |reason: String| TlsError::Refused { reason: format!("{}: {reason}", file.display()) };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| refused(error.to_string()))? {
        let certificate = certificate.map_err(|error| refused(error.to_string()))?;
        roots.add(certificate).map_err(|error| refused(error.to_string()))?;
    }
    Ok(roots)
}
