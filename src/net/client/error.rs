//! What can go wrong with a request, whose fault it is, and whether to try again.

use std::error::Error;
use std::fmt;
use std::io;

use hyper_util::client::legacy;

use super::connect::TimedOut;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientError {
    /// The server cannot be reached: no such name, refused, no route.
    Connect {
        /// What the system said.
        reason: String,
    },
    /// No connection within `connect_timeout`.
    ConnectTimeout,
    /// The server was reached, but TLS with it failed; most often its certificate is not trusted.
    Tls {
        /// What the TLS library said.
        reason: String,
    },
    /// The server took nothing, or answered nothing, for `first_byte_timeout`.
    FirstByteTimeout,
    /// The server did nothing of the request and says so (RFC 9113, section 8.7), or the connection ended before anything of it
    /// was sent.
    Refused {
        /// What was seen.
        reason: String,
    },
    /// The connection broke after the request was begun and before the head of an answer came.
    Broken {
        /// What was seen.
        reason: String,
    },
    /// What the server answered is not HTTP.
    Malformed {
        /// What was wrong with it.
        reason: String,
    },
    /// The body that we were sending failed at its source.
    RequestBody,
    /// The request itself cannot be sent: no absolute URI, or a scheme other than http and https.
    Request {
        /// What is wrong with it.
        reason: String,
    },
}

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The server that was asked, or the way to it.
    Server,
    /// Whoever provided the request's body.
    Caller,
    /// This program.
    Ours,
}

/// Whether to try again, there or elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Yes: the server has done nothing of the request.
    Safe,
    /// Only a request that may be done twice, and whose body can be sent again.
    Idempotent,
    /// No: it would fail in the same way.
    Never,
}

impl ClientError {
    /// Whose fault it is.
    pub const fn fault(&self) -> Fault {
        match self {
            Self::RequestBody => Fault::Caller,
            Self::Request { .. } => Fault::Ours,
            _ => Fault::Server,
        }
    }

    /// Whether to try again.
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Connect { .. } | Self::ConnectTimeout | Self::Refused { .. } => Retry::Safe,
            Self::FirstByteTimeout | Self::Broken { .. } => Retry::Idempotent,
            Self::Tls { .. } | Self::Malformed { .. } | Self::RequestBody | Self::Request { .. } => Retry::Never,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect { reason } => write!(f, "cannot connect: {reason}; check the url and that it is running"),
            Self::ConnectTimeout => f.write_str("no connection within connect_timeout; check the url and firewalls"),
            Self::Tls { reason } => {
                write!(f, "TLS failed: {reason}; if a private authority issued its certificate, name it in ca")
            }
            Self::FirstByteTimeout => f.write_str("no answer within first_byte_timeout"),
            Self::Refused { reason } => write!(f, "it did not take the request: {reason}; ask again"),
            Self::Broken { reason } => write!(f, "the connection broke before an answer came: {reason}"),
            Self::Malformed { reason } => write!(f, "what it answered is not HTTP: {reason}; check the url"),
            Self::RequestBody => f.write_str("the request's body could not be read to its end"),
            Self::Request { reason } => write!(f, "the request cannot be sent: {reason}"),
        }
    }
}

impl Error for ClientError {}

/// What `error` means. `body_failed`: the request's body ended in an error, which is then the reason.
pub(super) fn classify(error: &legacy::Error, body_failed: bool) -> ClientError {
    if body_failed {
        return ClientError::RequestBody;
    }
    let reason = || innermost(error).to_string();
    if find::<TimedOut>(error).is_some() {
        return ClientError::ConnectTimeout;
    }
    if error.is_connect() {
        // Later than that it is a connection that broke: something of the request may have come there.
        if let Some(tls) = find::<rustls::Error>(error) {
            return ClientError::Tls { reason: tls.to_string() };
        }
        return match find::<io::Error>(error).map(io::Error::kind) {
            Some(io::ErrorKind::TimedOut) => ClientError::ConnectTimeout,
            _ => ClientError::Connect { reason: reason() },
        };
    }
    match find::<hyper::Error>(error) {
        Some(hyper) if is_unsent(hyper) || find::<h2::Error>(error).is_some_and(is_refusal) => {
            ClientError::Refused { reason: reason() }
        }
        Some(hyper) if hyper.is_parse() => ClientError::Malformed { reason: hyper.to_string() },
        Some(hyper) if hyper.is_user() => ClientError::Request { reason: hyper.to_string() },
        Some(_) => ClientError::Broken { reason: reason() },
        None => ClientError::Request { reason: error.to_string() },
    }
}

/// Whether the connection ended with nothing of the request sent: hyper calls off what it did not begin, and has nowhere to put
/// what comes later.
fn is_unsent(error: &hyper::Error) -> bool {
    error.is_canceled() || error.is_closed()
}

/// Whether the server did nothing of a request (RFC 9113, section 8.7). h2 tells of a GOAWAY only the streams above the last one
/// that it names; those that the server may have begun end as a connection that broke.
fn is_refusal(error: &h2::Error) -> bool {
    let is_refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (is_refused || error.is_go_away())
}

fn find<T: Error + 'static>(error: &legacy::Error) -> Option<&T> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

fn innermost(error: &legacy::Error) -> &(dyn Error + 'static) {
    causes(error).last().unwrap_or(error)
}

fn causes(error: &legacy::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(Some(error as &(dyn Error + 'static)), |cause| next_cause(*cause))
}

/// An I/O error that wraps another error hides it from `source`, which skips to what lies under it.
fn next_cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::{Ready, ready};
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use bytes::Bytes;
    use http::{Request, Uri};
    use http_body_util::Full;
    use hyper::rt::{Read, ReadBufCursor, Write};
    use hyper_util::client::legacy::connect::{Connected, Connection};
    use hyper_util::rt::TokioExecutor;
    use tower_service::Service;

    use super::*;

    /// A connection that ends between its making and the first request, or after that was written.
    #[derive(Clone)]
    struct Ending {
        error: fn() -> io::Error,
        is_over: bool,
        reader: Option<Waker>,
    }

    impl Ending {
        async fn send(error: fn() -> io::Error, after_request: bool) -> ClientError {
            // It is asked for bytes once when it is made.
            let ending = Self { error, is_over: !after_request, reader: None };
            let client = legacy::Client::builder(TokioExecutor::new()).build(ending);
            let request = Request::put("http://registry.example/").body(Full::new(Bytes::from_static(b"body")));
            classify(&client.request(request.unwrap()).await.unwrap_err(), false)
        }
    }

    impl Service<Uri> for Ending {
        type Response = Self;
        type Error = Infallible;
        type Future = Ready<Result<Self, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Uri) -> Self::Future {
            ready(Ok(self.clone()))
        }
    }

    impl Read for Ending {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            _: ReadBufCursor<'_>,
        ) -> Poll<io::Result<()>> {
            match self.is_over && self.reader.is_some() {
                true => Poll::Ready(Err((self.error)())),
                false => {
                    self.reader = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        }
    }

    impl Write for Ending {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.is_over = true;
            self.reader.iter().for_each(Waker::wake_by_ref);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl Connection for Ending {
        fn connected(&self) -> Connected {
            Connected::new()
        }
    }

    #[tokio::test]
    async fn a_connection_that_ended_before_anything_was_sent_took_nothing() {
        let error = Ending::send(|| io::ErrorKind::ConnectionReset.into(), false).await;
        assert!(matches!(error, ClientError::Refused { .. }), "{error:?}");
        assert_eq!(error.retry(), Retry::Safe);
    }

    #[tokio::test]
    async fn a_connection_whose_tls_broke_later_had_taken_nothing() {
        let alert = || io::Error::new(io::ErrorKind::InvalidData, rustls::Error::DecryptError);
        let error = Ending::send(alert, true).await;
        assert!(matches!(error, ClientError::Broken { .. }), "{error:?}");
    }
}
