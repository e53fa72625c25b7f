//! A private certificate authority and a server certificate, made when nobody gave any.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, DnsName};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::tls;

/// How long the authority lives: people install it by hand, so it should outlive the machine.
const AUTHORITY_LIFETIME: Duration = Duration::days(3650);
/// How long a server certificate lives from now on; with the day before, a year.
const CERTIFICATE_LIFETIME: Duration = Duration::days(364);
/// The longest life of a server certificate, from its first day to its last. One that lives longer, as they were made before,
/// is replaced. Browsers and phones limit what a server shows, and not the authority that people installed themselves.
const CERTIFICATE_LIFE_MAX: Duration = Duration::days(366);
/// How long before its end a server certificate is replaced.
const RENEW_BEFORE: Duration = Duration::days(60);
/// How far a client's clock may be behind ours.
const CLOCK_SKEW: Duration = Duration::days(1);
/// The most names and addresses in one certificate: it is sent in every handshake.
const NAMES_MAX: usize = 256;

/// The files that are there now, and what was done to have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The authority's certificate: what clients must trust.
    pub authority: PathBuf,
    /// The server's certificate, and what leads to a root if the authority is not one.
    pub certificate: PathBuf,
    /// The server's private key.
    pub key: PathBuf,
    /// Whether the authority is new, so that clients have to be told.
    pub new_authority: bool,
    /// Why the server certificate was made anew; `None`: the one that was there is still good.
    pub renewed: Option<Renewal>,
}

/// Why a server certificate was made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// There was none.
    Missing,
    /// It could not be used: damaged, or its key does not fit.
    Unusable,
    /// The authority that is there now did not issue it.
    OtherAuthority,
    /// It ends in less than 60 days.
    Ending,
    /// It lives longer than clients may take it.
    TooLong,
    /// The machine has a name or an address that is not in it.
    NameMissing,
}

/// Why certificates could not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateError {
    /// A file or the directory cannot be read or written.
    Files {
        /// Which.
        path: PathBuf,
        /// Why.
        kind: io::ErrorKind,
    },
    /// The authority's certificate is there, its key is not, and a certificate has to be signed.
    NoAuthorityKey {
        /// Where the key should be.
        key: PathBuf,
    },
    /// The authority's certificate or key is damaged, or they do not belong together.
    BadAuthority {
        /// The certificate.
        certificate: PathBuf,
    },
    /// The authority's certificate has ended, or is about to.
    AuthorityEnded {
        /// The certificate.
        certificate: PathBuf,
    },
    /// Not a DNS name.
    BadName {
        /// The name.
        name: String,
    },
    /// The library that makes them did not want to.
    Refused {
        /// What it said.
        reason: String,
    },
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files { path, kind } => write!(
                f,
                "cannot read or write {}: {kind}; check the path and its owner, or name your own certificate and key in \
                 [tls]",
                path.display()
            ),
            Self::NoAuthorityKey { key } => write!(
                f,
                "a server certificate has to be signed, but {} is not there: put it back, or move ca.crt away to have \
                 a new authority made (clients must then trust the new one)",
                key.display()
            ),
            Self::BadAuthority { certificate } => write!(
                f,
                "{} or the ca.key beside it is damaged, or they do not belong together: put the right ones back, or \
                 move both away to have a new authority made (clients must then trust the new one)",
                certificate.display()
            ),
            Self::AuthorityEnded { certificate } => write!(
                f,
                "the authority in {} has ended or ends within 60 days: move it and the ca.key beside it away to have \
                 a new one made (clients must then trust the new one)",
                certificate.display()
            ),
            Self::BadName { name } => write!(f, "{name:?} is not a DNS name, so it cannot be put in a certificate"),
            Self::Refused { reason } => write!(f, "a certificate could not be made: {reason}"),
        }
    }
}

impl std::error::Error for CertificateError {}

/// Make sure that `directory` holds an authority and a good server certificate for all `names` and `addresses`.
///
/// `localhost`, 127.0.0.1 and ::1 are always in it. An authority that is there is never overwritten. Safe to call from
/// several processes at once.
pub fn ensure(directory: &Path, names: &[String], addresses: &[IpAddr]) -> Result<Made, CertificateError> {
    ensure_at(directory, &wanted(names, addresses)?, OffsetDateTime::now_utc())
}

/// Whether the authority in `directory`, if there is one yet, can be read. Nothing is made.
pub fn check(directory: &Path) -> Result<(), CertificateError> {
    let paths = Paths::of(directory);
    if paths.authority.exists() { read_authority(&paths).map(drop) } else { Ok(()) }
}

/// The names and addresses of this machine, for [`ensure`].
pub fn local_names() -> (Vec<String>, Vec<IpAddr>) {
    let host = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    let short = host.split('.').next().unwrap_or_default().to_owned();
    let mut names = vec![host, short];
    names.retain(|name| DnsName::try_from(name.as_str()).is_ok());
    names.dedup();
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let mut addresses: Vec<IpAddr> = interfaces.iter().map(if_addrs::Interface::ip).filter(usable).collect();
    addresses.sort_unstable();
    addresses.dedup();
    (names, addresses)
}

/// A link-local IPv6 address means something only together with an interface, which no certificate can name.
fn usable(address: &IpAddr) -> bool {
    !matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    Dns(String),
    Address(IpAddr),
}

/// All that must be in the certificate, each once, what people type most first.
fn wanted(names: &[String], addresses: &[IpAddr]) -> Result<Vec<Name>, CertificateError> {
    let mut wanted = vec![
        Name::Dns("localhost".into()),
        Name::Address(Ipv4Addr::LOCALHOST.into()),
        Name::Address(Ipv6Addr::LOCALHOST.into()),
    ];
    for name in names {
        if DnsName::try_from(name.as_str()).is_err() {
            return Err(CertificateError::BadName { name: name.clone() });
        }
        wanted.push(Name::Dns(name.to_ascii_lowercase()));
    }
    wanted.extend(addresses.iter().copied().map(Name::Address));
    let mut once = Vec::with_capacity(wanted.len());
    for name in wanted {
        if once.len() < NAMES_MAX && !once.contains(&name) {
            once.push(name);
        }
    }
    Ok(once)
}

struct Paths {
    authority: PathBuf,
    authority_key: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Paths {
    fn of(directory: &Path) -> Self {
        Self {
            authority: directory.join("ca.crt"),
            authority_key: directory.join("ca.key"),
            certificate: directory.join("server.crt"),
            key: directory.join("server.key"),
        }
    }
}

fn ensure_at(directory: &Path, wanted: &[Name], now: OffsetDateTime) -> Result<Made, CertificateError> {
    let failed = |error: io::Error| CertificateError::Files { path: directory.into(), kind: error.kind() };
    DirBuilder::new().recursive(true).create(directory).map_err(failed)?;
    let lock = File::open(directory).map_err(failed)?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
    let paths = Paths::of(directory);
    let new_authority = !paths.authority.exists();
    if new_authority {
        make_authority(directory, &paths, wanted, now)?;
    }
    let authority = read_authority(&paths)?;
    let renewed = reason_to_renew(&paths, &authority, wanted, now);
    if renewed.is_some() {
        make_certificate(directory, &paths, &authority, wanted, now)?;
    }
    let Paths { authority, certificate, key, .. } = paths;
    Ok(Made { authority, certificate, key, new_authority, renewed })
}

fn make_authority(
    directory: &Path,
    paths: &Paths,
    wanted: &[Name],
    now: OffsetDateTime,
) -> Result<(), CertificateError> {
    // A key without its certificate is what a crash between the two writes leaves: nobody trusts it yet, so it is used.
    let key = if paths.authority_key.exists() {
        read_key(paths)?
    } else {
        let key = KeyPair::generate().map_err(refused)?;
        write(directory, &paths.authority_key, &key.serialize_pem(), 0o600)?;
        key
    };
    let mut params = CertificateParams::default();
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + AUTHORITY_LIFETIME;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Trust stores list authorities by name, so the name tells two machines, and two authorities of one machine, apart.
    let mut suffix = [0; 4];
    getrandom::fill(&mut suffix).map_err(refused)?;
    params.distinguished_name =
        common_name(format!("dockgate CA {} {:08x}", host(wanted, 40), u32::from_be_bytes(suffix)));
    let certificate = params.self_signed(&key).map_err(refused)?;
    write(directory, &paths.authority, &certificate.pem(), 0o644)
}

struct Authority {
    /// The authority's own certificate first.
    chain: Vec<CertificateDer<'static>>,
    not_after: OffsetDateTime,
    is_root: bool,
}

fn read_authority(paths: &Paths) -> Result<Authority, CertificateError> {
    let bad = || CertificateError::BadAuthority { certificate: paths.authority.clone() };
    let chain = tls::read_certificates(&paths.authority).map_err(|error| match error {
        tls::TlsError::Unreadable { file, kind } => CertificateError::Files { path: file, kind },
        _ => bad(),
    })?;
    let (_, parsed) = X509Certificate::from_der(chain.first().ok_or_else(bad)?).map_err(|_| bad())?;
    let not_after = parsed.validity().not_after.to_datetime();
    let is_root = parsed.subject() == parsed.issuer();
    Ok(Authority { chain, not_after, is_root })
}

fn read_key(paths: &Paths) -> Result<KeyPair, CertificateError> {
    let text = fs::read_to_string(&paths.authority_key).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => CertificateError::NoAuthorityKey { key: paths.authority_key.clone() },
        kind => CertificateError::Files { path: paths.authority_key.clone(), kind },
    })?;
    KeyPair::from_pem(&text).map_err(|_| CertificateError::BadAuthority { certificate: paths.authority.clone() })
}

fn reason_to_renew(paths: &Paths, authority: &Authority, wanted: &[Name], now: OffsetDateTime) -> Option<Renewal> {
    if !paths.certificate.exists() || !paths.key.exists() {
        return Some(Renewal::Missing);
    }
    let Ok((chain, _)) = tls::certified_key(&paths.certificate, &paths.key) else {
        return Some(Renewal::Unusable);
    };
    let parse = |chain: &'_ [CertificateDer<'static>]| chain.first().cloned();
    let (Some(leaf), Some(issuer)) = (parse(&chain), parse(&authority.chain)) else {
        return Some(Renewal::Unusable);
    };
    let (Ok((_, leaf)), Ok((_, issuer))) = (X509Certificate::from_der(&leaf), X509Certificate::from_der(&issuer))
    else {
        return Some(Renewal::Unusable);
    };
    if leaf.issuer() != issuer.subject() || leaf.verify_signature(Some(issuer.public_key())).is_err() {
        return Some(Renewal::OtherAuthority);
    }
    if leaf.validity().not_after.to_datetime() - now < RENEW_BEFORE {
        return Some(Renewal::Ending);
    }
    if leaf.validity().not_after.to_datetime() - leaf.validity().not_before.to_datetime() > CERTIFICATE_LIFE_MAX {
        return Some(Renewal::TooLong);
    }
    let present = names_of(&leaf);
    wanted.iter().any(|name| !present.contains(name)).then_some(Renewal::NameMissing)
}

fn names_of(certificate: &X509Certificate<'_>) -> Vec<Name> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let read = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(Name::Dns((*name).to_owned())),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| Name::Address(bytes.into())),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| Name::Address(bytes.into())),
        },
        _ => None,
    };
    extension.value.general_names.iter().filter_map(read).collect()
}

fn make_certificate(
    directory: &Path,
    paths: &Paths,
    authority: &Authority,
    wanted: &[Name],
    now: OffsetDateTime,
) -> Result<(), CertificateError> {
    if authority.not_after - now < RENEW_BEFORE {
        return Err(CertificateError::AuthorityEnded { certificate: paths.authority.clone() });
    }
    tls::certified_key(&paths.authority, &paths.authority_key).map_err(|error| match error {
        tls::TlsError::Unreadable { file, kind: io::ErrorKind::NotFound } => {
            CertificateError::NoAuthorityKey { key: file }
        }
        tls::TlsError::Unreadable { file, kind } => CertificateError::Files { path: file, kind },
        _ => CertificateError::BadAuthority { certificate: paths.authority.clone() },
    })?;
    let bad = || CertificateError::BadAuthority { certificate: paths.authority.clone() };
    let root = authority.chain.first().ok_or_else(bad)?;
    let issuer = Issuer::from_ca_cert_der(root, read_key(paths)?).map_err(|_| bad())?;

    let key = KeyPair::generate().map_err(refused)?;
    let mut params = CertificateParams::default();
    params.not_before = now - CLOCK_SKEW;
    params.not_after = (now + CERTIFICATE_LIFETIME).min(authority.not_after);
    params.subject_alt_names = wanted.iter().map(alternative_name).collect::<Result<_, _>>()?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.distinguished_name = common_name(host(wanted, 64));
    let certificate = params.signed_by(&key, &issuer).map_err(refused)?;

    let mut chain = certificate.pem();
    if !authority.is_root {
        chain.push_str(&String::from_utf8_lossy(&read_file(&paths.authority)?));
    }
    // The key goes first: a crash in between leaves a pair that does not fit, which the next start makes anew.
    write(directory, &paths.key, &key.serialize_pem(), 0o600)?;
    write(directory, &paths.certificate, &chain, 0o644)
}

fn alternative_name(name: &Name) -> Result<SanType, CertificateError> {
    Ok(match name {
        Name::Dns(name) => SanType::DnsName(name.as_str().try_into().map_err(refused)?),
        Name::Address(address) => SanType::IpAddress(*address),
    })
}

fn common_name(name: String) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// The machine's name, if it is no longer than `most` characters (RFC 5280 allows a common name 64).
fn host(wanted: &[Name], most: usize) -> String {
    let fits = wanted.iter().find_map(|name| match name {
        Name::Dns(name) if name != "localhost" && name.len() <= most => Some(name.clone()),
        _ => None,
    });
    fits.unwrap_or_else(|| "localhost".into())
}

fn read_file(path: &Path) -> Result<Vec<u8>, CertificateError> {
    fs::read(path).map_err(|error| CertificateError::Files { path: path.into(), kind: error.kind() })
}

/// Write `path` so that whoever looks sees the old content or the new, also after a power cut.
fn write(directory: &Path, path: &Path, content: &str, mode: u32) -> Result<(), CertificateError> {
    let temporary = path.with_extension("new");
    let write = || -> io::Result<()> {
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|error| CertificateError::Files { path: path.into(), kind: error.kind() })
}

fn refused(error: impl fmt::Display) -> CertificateError {
    CertificateError::Refused { reason: error.to_string() }
}

#[cfg(test)]
mod tests;
