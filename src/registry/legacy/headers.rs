//! The header rules of the v1 protocol: what goes to the registry, and what comes back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;

use crate::config;
use crate::upstream::headers::{set_forwarded, strip_hop_by_hop};
use crate::upstream::{Body, Exactly, Forwarded};

use super::{Legacy, LegacyError};

/// Where a v1 server says that its clients should go on.
const ENDPOINTS: HeaderName = HeaderName::from_static("x-docker-endpoints");

/// What a v1 server gives out to be let in with, in this header and as a challenge. Ours is the one that counts (ADR 12).
const TOKEN: HeaderName = HeaderName::from_static("x-docker-token");

impl Legacy {
    pub(super) fn outgoing_headers(
        &self,
        mut headers: HeaderMap,
        forwarded: &Forwarded,
        token: Option<&HeaderValue>,
    ) -> Result<HeaderMap, LegacyError> {
        strip_hop_by_hop(&mut headers);
        set_forwarded(&mut headers, forwarded).map_err(|_| LegacyError::Host)?;
        if let Some(ours) = self.authorization.as_ref().or(token) {
            headers.insert(header::AUTHORIZATION, ours.clone());
        } else if !self.goes_on(&headers) {
            headers.remove(header::AUTHORIZATION);
        }
        Ok(headers)
    }

    /// Whether the caller's credentials are for the registry. A token never is: it is ours.
    fn goes_on(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let scheme = value.as_bytes().split(|byte| *byte == b' ').next().unwrap_or_default();
        self.forward_basic && scheme.eq_ignore_ascii_case(b"basic")
    }

    /// The answer as the caller may see it: it names us where it named the registry, and its framing is true.
    pub(super) fn rewritten(&self, answer: Response<Body>, forwarded: &Forwarded) -> Response<Body> {
        let (mut parts, mut body) = answer.into_parts();
        strip_hop_by_hop(&mut parts.headers);
        parts.headers.remove(TOKEN);
        if !(self.forward_basic && parts.status == StatusCode::UNAUTHORIZED) {
            parts.headers.remove(header::WWW_AUTHENTICATE);
        }
        if let Some(cache) = parts.headers.get(header::CACHE_CONTROL).and_then(not_public) {
            parts.headers.insert(header::CACHE_CONTROL, cache);
        }
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
            body = Exactly::new(body, length).boxed_unsync();
        }
        Response::from_parts(parts, body)
    }

    /// A `Location` that would lead the caller around us, or to us by the wrong scheme, as it should be.
    pub(super) fn location(&self, value: &HeaderValue, forwarded: &Forwarded) -> Option<HeaderValue> {
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

/// 0.9.1 calls every image public, and a shared cache before us would give it to anybody (RFC 9111, section 3.5).
fn not_public(cache: &HeaderValue) -> Option<HeaderValue> {
    let directives = cache.to_str().ok()?.split(',').map(str::trim);
    let is_public = |directive: &str| directive.eq_ignore_ascii_case("public");
    let ours: Vec<_> = directives.map(|directive| if is_public(directive) { "private" } else { directive }).collect();
    HeaderValue::try_from(ours.join(", ")).ok().filter(|ours| ours != cache)
}

/// Basic credentials (RFC 7617) as a header that no log shows.
pub(super) fn basic(credentials: &config::BasicCredentials) -> Option<HeaderValue> {
    let text = STANDARD.encode(format!("{}:{}", credentials.username, credentials.password.expose()));
    let mut value = HeaderValue::try_from(format!("Basic {text}")).ok()?;
    value.set_sensitive(true);
    Some(value)
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
