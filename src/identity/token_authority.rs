//! Who vouches for the keys that sign tokens: one authority that stays while keys come and go. A registry that trusts its
//! certificate once needs to hear of no key.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SerialNumber,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use time::macros::datetime;

use super::password::random_bytes;
use super::{TokenKey, TokenKeyError};

/// "No end" in the words of RFC 5280, section 4.1.2.5: whoever trusts the authority was told so by hand, once.
const NO_END: OffsetDateTime = datetime!(9999-12-31 23:59:59 UTC);

/// How far the clocks of others may be apart from ours.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// A certificate authority for the keys of tokens and nothing else.
pub(super) struct TokenAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl TokenAuthority {
    /// A new one.
    pub(super) fn generate(now: OffsetDateTime) -> Result<Self, TokenKeyError> {
        let failed = |_| TokenKeyError::Generate;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let mut params = CertificateParams::default();
        params.not_before = now - CLOCK_SKEW;
        params.not_after = NO_END;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        // A registry that trusts two gateways tells their authorities apart by name.
        let suffix = u32::from_be_bytes(random_bytes().map_err(|_| TokenKeyError::Generate)?);
        params.distinguished_name = common_name(format!("dockgate tokens {suffix:08x}"));
        let certificate = params.self_signed(&key).map_err(failed)?.der().clone();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// One that was kept: its certificate in DER, and its key in PKCS#8.
    pub(super) fn from_kept(certificate: Vec<u8>, pkcs8: &[u8]) -> Result<Self, TokenKeyError> {
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8), &PKCS_ECDSA_P256_SHA256)
            .map_err(|_| TokenKeyError::Kept)?;
        let certificate = CertificateDer::from(certificate);
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|_| TokenKeyError::Kept)?;
        Ok(Self { issuer, certificate })
    }

    /// The certificate in DER, and the key in PKCS#8, which is secret.
    pub(super) fn to_kept(&self) -> (&[u8], Vec<u8>) {
        (&self.certificate, self.issuer.key().serialize_der())
    }

    /// The certificate in PEM (RFC 7468).
    pub(super) fn pem(&self) -> String {
        let text = STANDARD.encode(&self.certificate);
        let lines = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line) + "\n");
        format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", lines.collect::<String>())
    }

    /// A certificate for `key`, as the header of a token carries it (RFC 7515, section 4.1.6). It is good about as long as
    /// the token that it goes with, so that whoever steals an old key gets no further with it.
    pub(super) fn vouch(&self, key: &TokenKey, now: u64, expires: u64) -> Option<String> {
        let at = |seconds: u64| OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok();
        let mut params = CertificateParams::default();
        params.not_before = at(now)? - CLOCK_SKEW;
        params.not_after = at(expires)? + CLOCK_SKEW;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.distinguished_name = common_name(key.id().to_owned());
        let mut serial = random_bytes::<16>().ok()?;
        // A serial number is positive and has no zeros before it.
        serial[0] = serial[0] & 0x7f | 0x40;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let certificate = params.signed_by(key.public(), &self.issuer).ok()?;
        Some(STANDARD.encode(certificate.der()))
    }
}

fn common_name(name: String) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

impl fmt::Debug for TokenAuthority {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenAuthority").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::{FromDer, X509Certificate};

    const NOW: u64 = 1_700_000_000;

    #[test]
    fn it_vouches_for_a_key_for_the_time_of_a_token() {
        let authority = TokenAuthority::generate(OffsetDateTime::now_utc()).unwrap();
        let key = TokenKey::generate().unwrap();
        let leaf = STANDARD.decode(authority.vouch(&key, NOW, NOW + 300).unwrap()).unwrap();
        let (_, root) = X509Certificate::from_der(&authority.certificate).unwrap();
        let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
        leaf.verify_signature(Some(root.public_key())).unwrap();
        root.verify_signature(None).unwrap();
        assert_eq!(leaf.issuer(), root.subject());
        assert!(root.is_ca() && !leaf.is_ca());
        assert_eq!(leaf.validity().not_before.timestamp(), 1_700_000_000 - 3600);
        assert_eq!(leaf.validity().not_after.timestamp(), 1_700_000_300 + 3600);
        assert_eq!(&*leaf.public_key().subject_public_key.data, key.public().public_key_raw());
    }

    #[test]
    fn a_kept_authority_is_the_same() {
        let authority = TokenAuthority::generate(OffsetDateTime::now_utc()).unwrap();
        let (certificate, key) = authority.to_kept();
        let kept = TokenAuthority::from_kept(certificate.to_vec(), &key).unwrap();
        assert_eq!(kept.pem(), authority.pem());
        let leaf = STANDARD.decode(kept.vouch(&TokenKey::generate().unwrap(), NOW, NOW).unwrap()).unwrap();
        let (_, root) = X509Certificate::from_der(certificate).unwrap();
        X509Certificate::from_der(&leaf).unwrap().1.verify_signature(Some(root.public_key())).unwrap();
        assert!(matches!(TokenAuthority::from_kept(certificate.to_vec(), b"x"), Err(TokenKeyError::Kept)));
        assert!(matches!(TokenAuthority::from_kept(b"x".to_vec(), &key), Err(TokenKeyError::Kept)));
    }

    #[test]
    fn its_certificate_is_read_as_pem() {
        use rustls_pki_types::pem::PemObject;
        let authority = TokenAuthority::generate(OffsetDateTime::now_utc()).unwrap();
        let read = CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap();
        assert_eq!(read, authority.certificate);
    }
}
