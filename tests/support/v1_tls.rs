//! The TLS of docker 1.3 to 1.5.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use rustls::SignatureScheme;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, SignatureVerificationAlgorithm};
use tokio::net::TcpStream;

/// Which algorithms each scheme stands for.
type Mapping = Vec<(SignatureScheme, &'static [&'static dyn SignatureVerificationAlgorithm])>;

/// TLS as docker 1.3 to 1.5 (Go 1.3 and 1.4) speak it: 1.2 at most, no ALPN.
pub(super) async fn handshake(stream: TcpStream, host: &str, ca: &Path) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(ca).unwrap_or_else(|error| panic!("{}: {error}", ca.display()));
    for certificate in certificates {
        roots.add(certificate.expect("a certificate")).expect("an authority");
    }
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(go_1_4()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .expect("TLS 1.2")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(name).expect("a server's name");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.unwrap_or_else(|error| panic!("no TLS with {host}: {error}"))
}

/// What Go 1.3 and 1.4 have of what rustls knows: ECDHE with AES-128-GCM, P-256 and P-384, signatures with SHA-256.
fn go_1_4() -> CryptoProvider {
    const SCHEMES: [SignatureScheme; 2] = [SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PKCS1_SHA256];
    static MAPPING: LazyLock<Mapping> = LazyLock::new(|| {
        let all = aws_lc_rs::default_provider().signature_verification_algorithms.mapping;
        all.iter().filter(|(scheme, _)| SCHEMES.contains(scheme)).copied().collect()
    });
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![
        aws_lc_rs::cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ];
    provider.kx_groups = vec![aws_lc_rs::kx_group::SECP256R1, aws_lc_rs::kx_group::SECP384R1];
    provider.signature_verification_algorithms.mapping = &MAPPING;
    provider
}
