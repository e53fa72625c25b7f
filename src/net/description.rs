//! What a certificate says, for people.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use time::{Duration, OffsetDateTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::tls::{TlsError, read_certificates};

/// From when on it is said that a certificate ends.
const WARN_BEFORE: Duration = Duration::days(14);

/// What the first certificate of a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Whom it is for.
    pub subject: String,
    /// Who made it.
    pub issuer: String,
    /// From when it is good.
    pub begins: OffsetDateTime,
    /// Until when it is good.
    pub ends: OffsetDateTime,
    /// The names and addresses it is good for (subjectAltName, RFC 5280 §4.2.1.6).
    pub names: Vec<String>,
}

/// Why clients will not take a certificate, or soon will not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concern {
    /// It has ended.
    Ended {
        /// When.
        at: OffsetDateTime,
    },
    /// It is not good yet.
    NotYet {
        /// When it will be.
        from: OffsetDateTime,
    },
    /// It ends in less than 14 days.
    Ending {
        /// When.
        at: OffsetDateTime,
        /// In how many whole days.
        days: i64,
    },
    /// It has no subjectAltName, and clients of today look at nothing else.
    NoNames,
}

impl Description {
    /// What is wrong with it at the time `now`.
    pub fn concerns(&self, now: OffsetDateTime) -> Vec<Concern> {
        let time = if self.ends < now {
            Some(Concern::Ended { at: self.ends })
        } else if self.begins > now {
            Some(Concern::NotYet { from: self.begins })
        } else if self.ends - now < WARN_BEFORE {
            Some(Concern::Ending { at: self.ends, days: (self.ends - now).whole_days() })
        } else {
            None
        };
        time.into_iter().chain(self.names.is_empty().then_some(Concern::NoNames)).collect()
    }
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
        begins: certificate.validity().not_before.to_datetime(),
        ends: certificate.validity().not_after.to_datetime(),
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

impl fmt::Display for Concern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended { at } => {
                write!(f, "the certificate ended on {}: clients refuse it; issue a new one", at.date())
            }
            Self::NotYet { from } => {
                write!(f, "the certificate is good only from {from} on: clients refuse it; check this machine's clock")
            }
            Self::Ending { at, days } => {
                write!(f, "the certificate ends in {days} days, on {}: issue a new one", at.date())
            }
            Self::NoNames => {
                f.write_str("the certificate has no subjectAltName: clients refuse it; issue one with its names there")
            }
        }
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

    #[test]
    fn concerns_begin_two_weeks_before_the_end() {
        let (begins, ends) =
            (time::macros::datetime!(2030-01-01 0:00 UTC), time::macros::datetime!(2030-06-01 0:00 UTC));
        let names = vec!["a".to_owned()];
        let description = Description { subject: String::new(), issuer: String::new(), begins, ends, names };
        let second = Duration::seconds(1);
        for (now, expected) in [
            (begins - second, vec![Concern::NotYet { from: begins }]),
            (begins, vec![]),
            (ends - WARN_BEFORE, vec![]),
            (ends - WARN_BEFORE + second, vec![Concern::Ending { at: ends, days: 13 }]),
            (ends, vec![Concern::Ending { at: ends, days: 0 }]),
            (ends + second, vec![Concern::Ended { at: ends }]),
        ] {
            assert_eq!(description.concerns(now), expected, "{now}");
        }
        let nameless = Description { names: vec![], ..description };
        assert_eq!(nameless.concerns(begins), [Concern::NoNames]);
    }
}
