//! What a certificate says, for people.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::tls::{TlsError, read_certificates};

/// What the first certificate of a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Whom it is for.
    pub subject: String,
    /// Who made it.
    pub issuer: String,
    /// From when it is good, as RFC 2822 writes dates.
    pub begins: String,
    /// Until when it is good.
    pub ends: String,
    /// The names and addresses it is good for.
    pub names: Vec<String>,
}

/// Reads the first certificate of a PEM file.
pub fn describe(file: &Path) -> Result<Description, TlsError> {
    let bad = || TlsError::BadCertificate { file: file.into() };
    let chain = read_certificates(file)?;
    let (_, certificate) = X509Certificate::from_der(chain.first().ok_or_else(bad)?).map_err(|_| bad())?;
    let names = certificate.subject_alternative_name().map_err(|_| bad())?;
    let names = names.map(|names| names.value.general_names.iter().filter_map(name).collect());
    Ok(Description {
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        begins: certificate.validity().not_before.to_string(),
        ends: certificate.validity().not_after.to_string(),
        names: names.unwrap_or_default(),
    })
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
        },
        _ => None,
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  subject  {}", self.subject)?;
        writeln!(f, "  issuer   {}", self.issuer)?;
        writeln!(f, "  good     from {} to {}", self.begins, self.ends)?;
        write!(f, "  names    {}", self.names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::certificates;

    #[test]
    fn a_certificate_tells_its_names() {
        let directory = tempfile::tempdir().unwrap();
        let made =
            certificates::ensure(directory.path(), &["here.example".into()], &["192.0.2.7".parse().unwrap()]).unwrap();
        let description = describe(&made.certificate).unwrap();
        for name in ["here.example", "192.0.2.7", "localhost"] {
            assert!(description.names.iter().any(|found| found == name), "{name} is not in {description}");
        }
        assert_ne!(description.issuer, description.subject);
    }
}
