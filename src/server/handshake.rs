//! Why a TLS handshake failed, in words: the client's side of it is seen by nobody who could mend it.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustls::{AlertDescription, CertificateError, Error};
use tokio::time::Instant;

/// How many lines there are in the log for so long; a metric counts all of them.
const LINES_MAX: u32 = 10;
const LINES_TIME: Duration = Duration::from_secs(10);

/// Why a handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HandshakeFault {
    /// The client does not take our certificate.
    Distrusted,
    /// A client certificate of X.509 version 1, which is what `openssl x509 -req` makes without an extension file.
    ClientCertificateVersion1,
    /// A client certificate that has ended, or has not begun.
    ClientCertificateExpired,
    /// A client certificate of somebody else's authority, or one that is not good for another reason.
    ClientCertificate,
    /// A certificate is demanded, and the client has none.
    NoClientCertificate,
    /// Nothing that both speak: no version of TLS, no cipher suite.
    NothingInCommon,
    /// What came is no TLS.
    Malformed,
    /// The client left without saying why.
    Left,
    /// Something else; the log has the library's words.
    Other,
}

impl HandshakeFault {
    /// What the error of a handshake means.
    pub(super) fn of(error: &io::Error) -> Self {
        let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<Error>()) else { return Self::Left };
        match error {
            Error::AlertReceived(
                AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateExpired
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::AccessDenied,
            ) => Self::Distrusted,
            Error::AlertReceived(AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure)
            | Error::PeerIncompatible(_) => Self::NothingInCommon,
            Error::AlertReceived(AlertDescription::CloseNotify | AlertDescription::UserCanceled) => Self::Left,
            Error::InvalidCertificate(error) => Self::of_certificate(error),
            Error::NoCertificatesPresented => Self::NoClientCertificate,
            Error::InvalidMessage(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. } => Self::Malformed,
            _ => Self::Other,
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Self::ClientCertificateExpired,
            // The library that reads certificates has no public name for it (rustls-webpki 0.103); a test holds us to this one.
            CertificateError::Other(other) if other.0.to_string() == "UnsupportedCertVersion" => {
                Self::ClientCertificateVersion1
            }
            _ => Self::ClientCertificate,
        }
    }

    /// A short name, for metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Distrusted => "distrusted",
            Self::ClientCertificateVersion1 => "client_certificate_version_1",
            Self::ClientCertificateExpired => "client_certificate_expired",
            Self::ClientCertificate => "client_certificate",
            Self::NoClientCertificate => "no_client_certificate",
            Self::NothingInCommon => "nothing_in_common",
            Self::Malformed => "malformed",
            Self::Left => "left",
            Self::Other => "other",
        }
    }

    /// What happened, and what to do.
    const fn advice(self) -> &'static str {
        match self {
            Self::Distrusted => {
                "the client does not trust our certificate; give it the authority (dockgate cert trust says how), or serve a \
                 certificate that it knows ([tls] certificate and key)"
            }
            Self::ClientCertificateVersion1 => {
                "the client's certificate is of X.509 version 1, which has no extensions; make it with some: \
                 openssl x509 -req … -extfile with a line extendedKeyUsage = clientAuth"
            }
            Self::ClientCertificateExpired => {
                "the client's certificate has ended or has not begun; make a new one, or set the clock"
            }
            Self::ClientCertificate => {
                "the client's certificate is not good here; it must be issued by an authority in tls.client_ca, for clients \
                 (extendedKeyUsage = clientAuth)"
            }
            Self::NoClientCertificate => {
                "the client has no certificate, and tls.client_auth demands one; docker looks for client.cert and client.key \
                 in /etc/docker/certs.d/HOST:PORT, docker 29 for its registry-mirrors in /etc/docker/certs.d/docker.io"
            }
            Self::NothingInCommon => {
                "the client speaks no version of TLS, or no cipher suite, that is spoken here (tls.min_version); use a newer one"
            }
            Self::Malformed => "what the client sent is no TLS; look at what calls this port",
            Self::Left => {
                "the client left before the handshake was over; most that do this do not trust our certificate (dockgate cert \
                 trust), or only look whether the port is open"
            }
            Self::Other => "the handshake failed; the error says why",
        }
    }
}

/// Who writes down why handshakes fail: whoever fails on purpose must not fill the log.
#[derive(Debug, Default)]
pub(super) struct HandshakeLog(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    since: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl HandshakeLog {
    pub(super) fn failed(&self, listener: &str, peer: std::net::SocketAddr, fault: HandshakeFault, error: &io::Error) {
        if let Some(left_out) = self.may_write() {
            let (reason, advice) = (fault.label(), fault.advice());
            tracing::warn!(listener, %peer, reason, %error, left_out, "a TLS handshake failed: {advice}");
        }
    }

    /// How many were left out before this line, if it may be written.
    fn may_write(&self) -> Option<u64> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if lines.since.is_none_or(|since| now.duration_since(since) >= LINES_TIME) {
            (lines.since, lines.written) = (Some(now), 0);
        }
        if lines.written >= LINES_MAX {
            lines.left_out += 1;
            return None;
        }
        lines.written += 1;
        Some(std::mem::take(&mut lines.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_fails_on_purpose_does_not_fill_the_log() {
        let log = HandshakeLog::default();
        let written = (0..100).filter(|_| log.may_write().is_some()).count();
        assert_eq!(written, LINES_MAX as usize);
        tokio::time::advance(LINES_TIME).await;
        assert_eq!(log.may_write(), Some(90));
        assert_eq!(log.may_write(), Some(0));
    }
}
