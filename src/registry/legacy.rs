//! The v1 registry behind us: what goes to it and what comes back, under the header rules of its protocol.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;

use crate::config;
use crate::net::client::Body;
use crate::upstream::headers::{set_forwarded, strip_hop_by_hop};
use crate::upstream::{Exactly, Fault, Forwarded, OpenError, Peers, SendError};

/// Where a v1 server says that its clients should go on.
const ENDPOINTS: &str = "x-docker-endpoints";

/// A v1 registry behind us.
#[derive(Debug)]
pub struct Legacy {
    peers: Arc<Peers>,
    forward_basic: bool,
    /// What we say to the registry about ourselves, marked as sensitive.
    authorization: Option<HeaderValue>,
}

/// A v1 request was not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LegacyError {
    /// The exchange with the registry failed.
    Send(SendError),
    /// The name by which the caller knows us cannot stand in a header.
    Host,
}

impl Legacy {
    /// Makes the clients for its peers; asks nobody yet. Its peers are for their owner to check and to run.
    pub async fn open(config: &config::Legacy) -> Result<Self, OpenError> {
        let peers = Arc::new(Peers::open(config).await?);
        Ok(Self { peers, forward_basic: config.forward_basic, authorization: None })
    }

    /// Says `username` and `password` to the registry with every request (Basic, RFC 7617), in place of what the caller said.
    #[must_use]
    pub fn with_credentials(mut self, username: &str, password: &str) -> Self {
        let basic = format!("Basic {}", STANDARD.encode(format!("{username}:{password}")));
        self.authorization = HeaderValue::from_maybe_shared(bytes::Bytes::from(basic)).ok().map(|mut value| {
            value.set_sensitive(true);
            value
        });
        self
    }

    /// The servers that answer.
    pub const fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }

    /// Hands one v1 request on, and its answer back. Both bodies stream; one that breaks off ends in an error.
    pub async fn forward(&self, request: Request<Body>, forwarded: Forwarded) -> Result<Response<Body>, LegacyError> {
        let (parts, body) = request.into_parts();
        let mut request = Request::new(body);
        *request.method_mut() = parts.method;
        *request.uri_mut() = parts.uri;
        *request.headers_mut() = self.outgoing_headers(parts.headers, &forwarded)?;
        let answer = self.peers.send(request).await.map_err(LegacyError::Send)?;
        Ok(self.rewritten(answer, &forwarded))
    }

    fn outgoing_headers(&self, mut headers: HeaderMap, forwarded: &Forwarded) -> Result<HeaderMap, LegacyError> {
        strip_hop_by_hop(&mut headers);
        set_forwarded(&mut headers, forwarded).map_err(|_| LegacyError::Host)?;
        if let Some(ours) = &self.authorization {
            headers.insert(header::AUTHORIZATION, ours.clone());
        } else if !self.goes_on(&headers) {
            headers.remove(header::AUTHORIZATION);
        }
        Ok(headers)
    }

    /// Whether the caller's credentials are for the registry: its own tokens are, ours are not.
    fn goes_on(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let scheme = value.as_bytes().split(|byte| *byte == b' ').next().unwrap_or_default();
        scheme.eq_ignore_ascii_case(b"token") || (self.forward_basic && scheme.eq_ignore_ascii_case(b"basic"))
    }

    /// The answer as the caller may see it: it names us where it named the registry, and its framing is true.
    fn rewritten(&self, answer: Response<Body>, forwarded: &Forwarded) -> Response<Body> {
        let (mut parts, mut body) = answer.into_parts();
        strip_hop_by_hop(&mut parts.headers);
        if let (Some(_), Ok(host)) = (parts.headers.get(ENDPOINTS), HeaderValue::from_str(&forwarded.host)) {
            parts.headers.insert(ENDPOINTS, host);
        }
        if let Some(location) = parts.headers.get(header::LOCATION).and_then(|value| self.location(value, forwarded)) {
            parts.headers.insert(header::LOCATION, location);
        }
        if parts.status == StatusCode::NO_CONTENT {
            // 0.9.1 announces the two bytes of a `""` that it does not send (RFC 9110 section 8.6 forbids it).
            parts.headers.remove(header::CONTENT_LENGTH);
        } else if let Some(length) = overstated_range(parts.status, &parts.headers) {
            parts.headers.insert(header::CONTENT_LENGTH, length.into());
            body = Exactly::new(body, length).boxed();
        }
        Response::from_parts(parts, body)
    }

    /// A `Location` that would lead the caller around us, or to us by the wrong scheme, as it should be.
    fn location(&self, value: &HeaderValue, forwarded: &Forwarded) -> Option<HeaderValue> {
        let (scheme, rest) = value.to_str().ok()?.split_once("://")?;
        let port = match scheme.to_ascii_lowercase().as_str() {
            "http" => "80",
            "https" => "443",
            _ => return None,
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let named = with_port(authority, port);
        let ours = with_port(&forwarded.host, port) == named
            || self.peers.all().iter().any(|peer| with_port(peer.authority().as_str(), port) == named);
        let location = format!("{}://{}{path}", forwarded.scheme(), forwarded.host);
        ours.then(|| HeaderValue::try_from(location).ok()).flatten()
    }
}

/// `host:port` in lower case, with the scheme's port where none is written.
fn with_port(authority: &str, port: &str) -> String {
    let authority = authority.to_ascii_lowercase();
    let written = authority.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    if written { authority } else { format!("{authority}:{port}") }
}

/// The true length of a range that 0.9.1 overstates: asked for `bytes=N-` or `bytes=N-SIZE`, it answers `N-SIZE/SIZE`
/// without a unit, announces one byte more than there is, and sends what there is.
fn overstated_range(status: StatusCode, headers: &HeaderMap) -> Option<u64> {
    if status != StatusCode::PARTIAL_CONTENT {
        return None;
    }
    let number = |text: &str| text.parse::<u64>().ok();
    let (range, size) = headers.get(header::CONTENT_RANGE)?.to_str().ok()?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, size) = (number(first)?, number(last)?, number(size)?);
    let announced = number(headers.get(header::CONTENT_LENGTH)?.to_str().ok()?)?;
    let claimed = last.checked_sub(first)?.checked_add(1)?;
    let overstated = first < size && last >= size && announced == claimed;
    overstated.then(|| size - first)
}

impl LegacyError {
    /// Whose fault it was.
    pub const fn fault(&self) -> Fault {
        match self {
            Self::Send(error) => error.fault(),
            Self::Host => Fault::Caller,
        }
    }

    /// Whether the same request can be sent again without harm.
    pub const fn retry(&self) -> bool {
        match self {
            Self::Send(error) => error.retry(),
            Self::Host => false,
        }
    }
}

impl fmt::Display for LegacyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(error) => error.fmt(f),
            Self::Host => f.write_str("the Host of the request cannot stand in a header: use a plain host:port"),
        }
    }
}

impl std::error::Error for LegacyError {}
