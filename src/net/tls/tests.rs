use std::net::{IpAddr, Ipv4Addr};

use rcgen::{CertificateParams, DnType, DnValue, IsCa, Issuer, KeyPair, SanType};
use rustls::crypto::CryptoProvider;
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, HandshakeKind, NamedGroup, ProtocolVersion, ServerConnection,
};
use rustls_pki_types::ServerName;
use tempfile::TempDir;

use super::*;
use crate::net::certificates;

fn made() -> (TempDir, Settings) {
    let directory = tempfile::tempdir().unwrap();
    let made = certificates::ensure(directory.path(), &[], &[]).unwrap();
    let settings = Settings {
        certificate: made.certificate,
        key: made.key,
        min_version: MinVersion::Tls12,
        client_ca: None,
        client_auth: ClientAuth::Optional,
    };
    (directory, settings)
}

fn localhost() -> ServerName<'static> {
    ServerName::IpAddress(IpAddr::from(Ipv4Addr::LOCALHOST).into())
}

fn client(ca: &Path, provider: CryptoProvider, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(versions).unwrap();
    builder.with_root_certificates(roots(ca).unwrap()).with_no_client_auth()
}

/// What a Go 1.3 or 1.4 client can do at best.
fn old_client(ca: &Path, suite: CipherSuite) -> ClientConfig {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|known| known.suite() == suite);
    provider.kx_groups.retain(|group| group.name() == NamedGroup::secp256r1);
    client(ca, provider, &[&rustls::version::TLS12])
}

/// Hand the two ends' bytes to each other until the handshake is over or one of them refuses.
fn handshake(
    client: ClientConfig,
    server: &Arc<ServerConfig>,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let mut client = ClientConnection::new(Arc::new(client), localhost()).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    while client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut bytes = Vec::new();
        server.write_tls(&mut bytes).unwrap();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

#[test]
fn a_client_of_go_1_3_is_served() {
    let (directory, settings) = made();
    let server = load(&settings).unwrap();
    let suite = CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
    let (client, server) = handshake(old_client(&directory.path().join("ca.crt"), suite), &server).unwrap();
    assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_2));
    assert_eq!(client.negotiated_cipher_suite().unwrap().suite(), suite);
    assert_eq!((server.alpn_protocol(), server.server_name()), (None, None));
}

#[test]
fn a_client_of_go_1_3_is_served_with_an_rsa_certificate() {
    let (directory, mut settings) = made();
    let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    params.is_ca = IsCa::NoCa;
    settings.certificate = directory.path().join("rsa.crt");
    settings.key = directory.path().join("rsa.key");
    let ca_key = KeyPair::from_pem(&std::fs::read_to_string(directory.path().join("ca.key")).unwrap()).unwrap();
    let ca = read_certificates(&directory.path().join("ca.crt")).unwrap();
    let certificate = params.signed_by(&key, &Issuer::from_ca_cert_der(&ca[0], ca_key).unwrap()).unwrap();
    std::fs::write(&settings.certificate, certificate.pem()).unwrap();
    std::fs::write(&settings.key, key.serialize_pem()).unwrap();
    let suite = CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256;
    let client = old_client(&directory.path().join("ca.crt"), suite);
    let (client, _) = handshake(client, &load(&settings).unwrap()).unwrap();
    assert_eq!(client.negotiated_cipher_suite().unwrap().suite(), suite);
}

#[test]
fn a_new_client_gets_tls_1_3_and_http_2_and_resumes() {
    let (directory, settings) = made();
    let server = load(&settings).unwrap();
    let mut client = client(&directory.path().join("ca.crt"), aws_lc_rs::default_provider(), rustls::DEFAULT_VERSIONS);
    client.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    let (first, _) = handshake(client.clone(), &server).unwrap();
    assert_eq!(first.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(first.alpn_protocol(), Some(&b"h2"[..]));
    let (second, _) = handshake(client.clone(), &server).unwrap();
    assert_eq!(second.handshake_kind(), Some(HandshakeKind::Resumed));
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    assert_eq!(handshake(client, &server).unwrap().0.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[test]
fn an_old_client_resumes_too() {
    let (directory, settings) = made();
    let server = load(&settings).unwrap();
    let suite = CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
    let client = old_client(&directory.path().join("ca.crt"), suite);
    handshake(client.clone(), &server).unwrap();
    assert_eq!(handshake(client, &server).unwrap().0.handshake_kind(), Some(HandshakeKind::Resumed));
}

#[test]
fn tls_1_3_only_means_it() {
    let (directory, mut settings) = made();
    settings.min_version = MinVersion::Tls13;
    let client = client(&directory.path().join("ca.crt"), aws_lc_rs::default_provider(), &[&rustls::version::TLS12]);
    assert!(handshake(client, &load(&settings).unwrap()).is_err());
}

/// A certificate for clients, with this common name and these names, and the authority that issued it.
fn client_certificate(directory: &Path, common_name: &str, names: Vec<SanType>) -> (PathBuf, PathBuf) {
    let ca = directory.join("clients");
    certificates::ensure(&ca, &[], &[]).unwrap();
    let ca_key = KeyPair::from_pem(&std::fs::read_to_string(ca.join("ca.key")).unwrap()).unwrap();
    let ca_certificate = read_certificates(&ca.join("ca.crt")).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    if !common_name.is_empty() {
        params.distinguished_name.push(DnType::CommonName, DnValue::Utf8String(common_name.into()));
    }
    params.subject_alt_names = names;
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, &Issuer::from_ca_cert_der(&ca_certificate[0], ca_key).unwrap()).unwrap();
    let (file, key_file) = (ca.join("client.crt"), ca.join("client.key"));
    std::fs::write(&file, certificate.pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    (file, key_file)
}

#[test]
fn client_certificates_are_optional_or_required_but_never_unchecked() {
    let (directory, mut settings) = made();
    let (file, key) = client_certificate(directory.path(), "runner-1", vec![]);
    settings.client_ca = Some(directory.path().join("clients/ca.crt"));
    let optional = load(&settings).unwrap();
    settings.client_auth = ClientAuth::Required;
    let required = load(&settings).unwrap();

    let anonymous = client(&directory.path().join("ca.crt"), aws_lc_rs::default_provider(), rustls::DEFAULT_VERSIONS);
    let known = |file: &Path, key: &Path| {
        let (chain, key) = certified_key(file, key).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let roots = roots(&directory.path().join("ca.crt")).unwrap();
        builder.with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap()
    };
    assert!(handshake(anonymous.clone(), &optional).unwrap().1.peer_certificates().is_none());
    assert!(handshake(anonymous, &required).is_err());
    for server in [&optional, &required] {
        let (_, session) = handshake(known(&file, &key), server).unwrap();
        assert_eq!(certificate_name(&session.peer_certificates().unwrap()[0]).as_deref(), Some("runner-1"));
        assert!(handshake(known(&settings.certificate, &settings.key), server).is_err(), "another authority's");
    }
}

#[test]
fn a_certificate_without_a_common_name_goes_by_its_other_names() {
    let directory = tempfile::tempdir().unwrap();
    let name = |common_name: &str, names| {
        let (file, _) = client_certificate(directory.path(), common_name, names);
        certificate_name(&read_certificates(&file).unwrap()[0])
    };
    let uri = SanType::URI("spiffe://example/runner".try_into().unwrap());
    let dns = SanType::DnsName("runner.example".try_into().unwrap());
    let address = SanType::IpAddress(Ipv4Addr::LOCALHOST.into());
    assert_eq!(name("ada", vec![dns.clone()]).as_deref(), Some("ada"));
    assert_eq!(name("", vec![address.clone(), uri, dns]).as_deref(), Some("spiffe://example/runner"));
    assert_eq!(name("", vec![address]), None);
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let (directory, settings) = made();
    let write = |name: &str, text: &str| {
        let file = directory.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let error = |certificate: &Path, key: &Path| {
        let settings = Settings { certificate: certificate.into(), key: key.into(), ..settings.clone() };
        load(&settings).map(|_| ()).unwrap_err()
    };
    let (certificate, key) = (&settings.certificate, &settings.key);
    let missing = directory.path().join("missing");
    let unreadable = TlsError::Unreadable { file: missing.clone(), kind: io::ErrorKind::NotFound };
    assert_eq!(error(&missing, key), unreadable);
    assert_eq!(error(certificate, &missing), unreadable);
    assert_eq!(error(key, key), TlsError::NoCertificate { file: key.clone() });
    assert_eq!(error(certificate, certificate), TlsError::NoKey { file: certificate.clone() });
    let other = directory.path().join("ca.key");
    let mismatch = TlsError::KeyMismatch { certificate: certificate.clone(), key: other.clone() };
    assert_eq!(error(certificate, &other), mismatch);
    let text = std::fs::read_to_string(certificate).unwrap();
    let cut = write("cut", &text[..text.len() / 2]);
    assert_eq!(error(&cut, key), TlsError::NotPem { file: cut.clone() });
    let nonsense = write("nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert_eq!(error(&nonsense, key), TlsError::BadCertificate { file: nonsense.clone() });
    let bad_key = write("bad.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    assert_eq!(error(certificate, &bad_key), TlsError::BadKey { file: bad_key.clone() });
}

#[test]
fn the_end_of_a_certificate_can_be_asked_for() {
    let (_directory, settings) = made();
    let left = expiry(&settings.certificate).unwrap() - OffsetDateTime::now_utc();
    assert!(left.whole_days() >= 362 && left.whole_days() < 365, "{left}");
}
