//! What is ambiguous is refused before anything reads it: two readers of one request must not see two requests
//! (RFC 9112, sections 3.2 and 6; RFC 9113, section 8.3.1).

use std::net::IpAddr;

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Method, Uri, Version};

use crate::config::{Listener, PlainPolicy, Protocol};

use super::arrival::{Arrival, BadHead, Transport};
use super::forwarded;

/// The longest path and query. The longest that means something, a mount between two long names, stays far below.
const TARGET_BYTES_MAX: usize = 8 * 1024;

/// The longest path and query of a request for a token, which may name hundreds of repositories: three quarters of the head that
/// is read by default (`limits.header_bytes`).
const TOKEN_TARGET_BYTES_MAX: usize = 24 * 1024;

/// What the screen found out on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Screened {
    /// The name by which the caller called us, with its port if one was written.
    pub(super) host: String,
    /// Whether the caller speaks TLS, to us or to a trusted proxy.
    pub(super) https: bool,
    /// Who is calling.
    pub(super) client: IpAddr,
}

impl Screened {
    /// What a URL of ours begins with for this caller: `https://registry.example.com:5000`.
    pub(super) fn origin(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}", self.host)
    }
}

/// Why a request is not read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its head can be read in two ways; the rest of it was not even passed on.
    Head(BadHead),
    /// CONNECT, or a method that is none of ours.
    Method,
    /// No Host, two of them, or one that is not a host and port.
    Host,
    /// The target names another host than Host does.
    HostMismatch,
    /// The target is an absolute URI that is not ours to serve: neither http nor https, or https over a plain connection.
    Scheme,
    /// Its length can be read in two ways.
    Length,
    /// A transfer coding other than chunked.
    TransferCoding,
    /// A path that two readers would read differently.
    Path,
    /// A target that is too long.
    TargetTooLong,
    /// Plain HTTP from where only TLS is served.
    PlainText,
    /// A client that speaks HTTP/1.0 or older with a body, or something newer than HTTP/2.
    Version,
}

/// Lets a request through, or says why not.
pub(super) fn screen(arrival: &Arrival, listener: &Listener, request: &Parts) -> Result<Screened, Refusal> {
    if let Some(reason) = arrival.bad_head {
        return Err(Refusal::Head(reason));
    }
    let called = called_host(request)?;
    check_method(&request.method)?;
    check_length(request)?;
    check_target(request)?;
    let trusted = listener.trusted_proxies.iter().any(|network| network.contains(&arrival.peer.ip().to_canonical()));
    let told = if trusted { forwarded::read(&request.headers, &listener.trusted_proxies) } else { Default::default() };
    let https = told.https.unwrap_or(arrival.transport == Transport::Tls);
    if !https && !plain_is_served(listener, arrival, told.client) {
        return Err(Refusal::PlainText);
    }
    check_scheme(request, https || trusted)?;
    let host = match told.host {
        Some(host) => host.parse::<Authority>().ok().filter(is_host_and_port).ok_or(Refusal::Host)?,
        None => called,
    };
    let usual = if https { 443 } else { 80 };
    let port = told.port.filter(|port| *port != usual && host.port().is_none());
    Ok(Screened {
        host: port.map_or_else(|| host.as_str().to_owned(), |port| format!("{host}:{port}")),
        https,
        client: told.client.unwrap_or(arrival.peer.ip()).to_canonical(),
    })
}

/// `announced`: who is calling, if a trusted proxy said so. What it had from elsewhere was plain on the way to it.
fn plain_is_served(listener: &Listener, arrival: &Arrival, announced: Option<IpAddr>) -> bool {
    match (listener.protocol, listener.plain) {
        (Protocol::Plain, _) | (Protocol::Auto, PlainPolicy::Anyone) => true,
        (Protocol::Auto, PlainPolicy::Loopback) => {
            [Some(arrival.peer.ip()), announced].into_iter().flatten().all(|ip| ip.to_canonical().is_loopback())
        }
        (Protocol::Auto, PlainPolicy::Nobody) | (Protocol::Tls, _) => false,
    }
}

/// The one name in Host, in `:authority` or in an absolute target; all that are there must agree.
fn called_host(request: &Parts) -> Result<Authority, Refusal> {
    let mut hosts = request.headers.get_all(HOST).iter();
    let header = hosts.next().map(|host| host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()));
    if hosts.next().is_some() {
        return Err(Refusal::Host);
    }
    let host = match (header, request.uri.authority()) {
        (Some(None), _) => return Err(Refusal::Host),
        (Some(Some(host)), Some(target)) if !host.as_str().eq_ignore_ascii_case(target.as_str()) => {
            return Err(Refusal::HostMismatch);
        }
        (Some(Some(host)), _) => host,
        (None, Some(target)) if request.version == Version::HTTP_2 => target.clone(),
        (None, _) => return Err(Refusal::Host),
    };
    if is_host_and_port(&host) { Ok(host) } else { Err(Refusal::Host) }
}

/// An absolute target names what it means by its scheme too. `https` means that nobody else has read or changed the request,
/// which is true of a connection by TLS, or where a trusted proxy says so (RFC 9110, sections 4.2.2 and 7.4). `http` by TLS is
/// what old clients behind a proxy of theirs send, and takes nothing away.
fn check_scheme(request: &Parts, may_be_https: bool) -> Result<(), Refusal> {
    match request.uri.scheme_str() {
        None | Some("http") => Ok(()),
        Some("https") if may_be_https => Ok(()),
        Some(_) => Err(Refusal::Scheme),
    }
}

/// `Authority` also takes user names and characters that have no place in a name: what we echo into a challenge must be
/// only a name.
fn is_host_and_port(host: &Authority) -> bool {
    let text = host.as_str();
    let name = host.host();
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let ipv6 = address.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    let port_is_right = text.len() == name.len() || host.port_u16().is_some();
    !name.is_empty() && (plain || ipv6) && port_is_right && !text.contains('@')
}

fn check_method(method: &Method) -> Result<(), Refusal> {
    let known = [Method::GET, Method::HEAD, Method::PUT, Method::POST, Method::PATCH, Method::DELETE, Method::OPTIONS];
    if known.contains(method) { Ok(()) } else { Err(Refusal::Method) }
}

fn check_length(request: &Parts) -> Result<(), Refusal> {
    let lengths = request.headers.get_all(CONTENT_LENGTH).iter().count();
    let codings = request.headers.get_all(TRANSFER_ENCODING).iter().count();
    if lengths > 1 || (lengths == 1 && codings > 0) {
        return Err(Refusal::Length);
    }
    let chunked =
        |headers: &HeaderMap| headers.get(TRANSFER_ENCODING).is_some_and(|coding| is_chunked(coding.as_bytes()));
    if codings > 1 || (codings == 1 && !chunked(&request.headers)) {
        return Err(Refusal::TransferCoding);
    }
    match request.version {
        Version::HTTP_11 | Version::HTTP_2 => Ok(()),
        Version::HTTP_10 if codings == 0 => Ok(()),
        _ => Err(Refusal::Version),
    }
}

fn is_chunked(coding: &[u8]) -> bool {
    coding.trim_ascii().eq_ignore_ascii_case(b"chunked")
}

/// One way to read a path: no escapes, no empty parts, no dots, no parameters. Nothing that a registry serves needs them.
fn check_target(request: &Parts) -> Result<(), Refusal> {
    let path = request.uri.path();
    let most = if path == "/token" { TOKEN_TARGET_BYTES_MAX } else { TARGET_BYTES_MAX };
    if path.len() + request.uri.query().map_or(0, str::len) > most {
        return Err(Refusal::TargetTooLong);
    }
    if is_plain(path) { Ok(()) } else { Err(Refusal::Path) }
}

fn is_plain(path: &str) -> bool {
    let plain =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'_' | b'-' | b':' | b'+' | b'~' | b'@' | b'=');
    let parts_are_plain = path.split('/').all(|part| !matches!(part, "." | ".."));
    path.starts_with('/') && path.bytes().all(plain) && parts_are_plain && !path.contains("//")
}

/// Where a client meant to go whose base URL ended in a slash: `//v2/…` is refused as it is, and never acted on.
pub(super) fn without_doubled_slash(uri: &Uri) -> Option<String> {
    let path = uri.path().strip_prefix('/')?;
    let is_ours = path.starts_with("/v2/") || path == "/v2";
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    (is_ours && is_plain(path)).then(|| format!("{path}{query}"))
}

#[cfg(test)]
mod tests;
