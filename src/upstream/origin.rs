//! A v2 registry elsewhere: one exchange with it, whatever it takes: a peer, credentials, a token, redirects, patience.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderValue, USER_AGENT, VIA};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::config;
use crate::net::AddressRule;
use crate::net::client::Client;
use crate::telemetry::Metrics;

use super::Body;
use super::challenge::{Challenge, is_trusted_realm};
use super::credentials::{CallerCredentials, Login, Source};
use super::error::{OpenError, SendError};
use super::outgoing::Outgoing;
use super::peers::{Peer, Peers, stranger};
use super::redirect::{REDIRECTS_MAX, Step, is_redirect, step};
use super::retry::{Holds, Kind, backoff, is_passing, retry_after};
use super::send::is_read;
use super::tokens::{Tokens, Told, Wanted, forget_credentials, host};

/// A v2 registry elsewhere.
pub struct Origin {
    peers: Arc<Peers>,
    /// For hosts that the upstream names: they must be public.
    strangers: Client,
    credentials: Source,
    tokens: Tokens,
    realms: Vec<String>,
    via: HeaderValue,
    holds: Holds,
    /// How long a request waits for the end of a refusal.
    patience: Duration,
}

/// A request to a v2 registry.
pub struct Ask {
    /// The method.
    pub method: Method,
    /// The path and query, as all peers know them: each has its own path before it. Where `peer` is named, as it stands there.
    pub path: PathAndQuery,
    /// Headers from end to end, without credentials.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
    /// What a token must allow: `repository:library/alpine:pull`; several are separated by spaces.
    pub scope: String,
    /// What the caller showed, where the upstream is to be shown that; ours, where there is none.
    pub caller: Option<CallerCredentials>,
    /// Whether redirects are followed.
    pub follow: bool,
    /// The only peer that can answer.
    pub peer: Option<Authority>,
    /// By then there is the head of an answer, or an error.
    pub deadline: Instant,
}

/// One request, as often as it is sent.
struct Errand<'a> {
    parts: Parts,
    outgoing: Outgoing,
    scope: &'a str,
    caller: Option<&'a CallerCredentials>,
    follow: bool,
    only: Option<&'a Authority>,
    tried: Vec<Arc<Peer>>,
    told: Told,
}

impl Errand<'_> {
    /// Where it goes at a peer.
    fn asked(&self, peer: &Peer) -> Uri {
        peer.asked(self.parts.uri.path_and_query().unwrap_or(&PathAndQuery::from_static("/")), self.only.is_some())
    }

    /// By whose credentials, and as what, an upstream counts it.
    fn counted(&self) -> (Option<String>, Kind) {
        (self.caller.map(CallerCredentials::fingerprint), Kind::of(&self.parts.method, self.parts.uri.path()))
    }
}

impl Origin {
    /// Makes the clients; asks nobody yet. `via` is what we call ourselves (RFC 9110, section 7.6.3); `patience` is how long a
    /// request waits for an upstream that asked to be left alone.
    pub async fn open(
        config: &config::Remote,
        via: &str,
        patience: Duration,
        metrics: &Metrics,
    ) -> Result<Self, OpenError> {
        let peers = Arc::new(Peers::open(&config.transport, metrics).await?);
        let public = AddressRule::Public(config.private_addresses.clone());
        let strangers = stranger(&config.transport, public)?;
        let via = HeaderValue::try_from(format!("1.1 {via}"));
        Ok(Self {
            strangers,
            credentials: Source::new(config.name(), config.credentials.as_ref()),
            tokens: Tokens::new(config.name(), metrics.upstream(config.name())),
            realms: config.realms.clone(),
            via: via.unwrap_or_else(|_| HeaderValue::from_static("1.1 dockgate")),
            holds: Holds::default(),
            patience,
            peers,
        })
    }

    /// Its servers.
    pub const fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }

    /// Asks, and waits for the head of an answer. 429 and 5xx are errors once they were tried again; other statuses are
    /// answers. The answer's body ends in an error on silence and on a trickle.
    pub async fn send(&self, ask: Ask) -> Result<Response<Body>, SendError> {
        let deadline = ask.deadline;
        let patience = deadline.saturating_duration_since(Instant::now()).min(self.peers.first_byte_timeout);
        let slot = self.peers.slot(patience).await?;
        let Ask { method, path, headers, body, scope, caller, follow, peer, .. } = ask;
        let mut parts = Request::new(()).into_parts().0;
        (parts.method, parts.uri, parts.headers) = (method, Uri::from(path), headers);
        self.introduce(&mut parts);
        let outgoing = Outgoing::new(body, self.peers.idle_timeout);
        let (caller, only) = (caller.as_ref(), peer.as_ref());
        let (scope, tried, told) = (scope.as_str(), Vec::new(), Told::default());
        let mut errand = Errand { parts, outgoing, scope, caller, follow, only, tried, told };
        let answered = timeout_at(deadline, self.repeat(&mut errand, deadline)).await;
        let (answer, peer) = answered.map_err(|_| SendError::Deadline { upstream: self.name() })??;
        Ok(self.peers.receive(answer, peer, slot))
    }

    fn name(&self) -> String {
        self.peers.name().to_owned()
    }

    /// Says who we are, and that bytes are to come as they are.
    fn introduce(&self, parts: &mut Parts) {
        parts.headers.insert(VIA, self.via.clone());
        parts.headers.insert(USER_AGENT, HeaderValue::from_static(concat!("dockgate/", env!("CARGO_PKG_VERSION"))));
        if matches!(parts.method, Method::GET | Method::HEAD) {
            parts.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
    }

    /// What an answer says of how much may still be asked (Docker Hub); one that refuses says so too.
    fn note_limits(&self, headers: &HeaderMap) {
        let number = |name: &str| headers.get(name)?.to_str().ok()?.split(';').next()?.trim().parse::<i64>().ok();
        self.peers.counted.rate_limit(number("ratelimit-limit"), number("ratelimit-remaining"));
    }

    /// Tries again what failed and can be repeated, with pauses, as often as the upstream's file says.
    async fn repeat(
        &self,
        errand: &mut Errand<'_>,
        deadline: Instant,
    ) -> Result<(Response<Incoming>, Arc<Peer>), SendError> {
        // Where nobody is there at all, each try may take all of connect_timeout, and the request before this one tried enough.
        let (who, kind) = errand.counted();
        let impatient = Instant::now() + self.patience;
        let retries = if self.peers.is_gone(errand.only) { 0 } else { self.peers.retries };
        for repetition in 0.. {
            self.wait_for_hold(&who, kind, deadline.min(impatient)).await?;
            let is_read = is_read(&errand.parts, &errand.outgoing);
            let error = match self.attempt(errand).await {
                Ok(answered) if !is_read && is_final(answered.0.status()) => return Ok(answered),
                Ok((answer, peer)) if is_passing(answer.status()) => self.failing(&who, kind, &answer, &peer),
                Ok(answered) => return Ok(answered),
                Err(error) => error,
            };
            if repetition >= retries || !is_worth_repeating(&error) || !is_read && !error.retry() {
                return Err(error);
            }
            let pause = backoff(repetition);
            if Instant::now() + pause >= deadline || !errand.outgoing.take_back() {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
        Err(SendError::Deadline { upstream: self.name() })
    }

    /// An upstream that asked to be left alone is; whoever would have to wait longer than `latest` is told at once.
    async fn wait_for_hold(&self, who: &Option<String>, kind: Kind, latest: Instant) -> Result<(), SendError> {
        while let Some(hold) = self.holds.find(who, kind) {
            if hold.until >= latest {
                let retry_after = Some(hold.until.saturating_duration_since(Instant::now()));
                let peer = self.peers.all().first().map(|peer| peer.url().to_owned()).unwrap_or_default();
                return Err(SendError::Failing { upstream: self.name(), peer, status: hold.status, retry_after });
            }
            sleep_until(hold.until).await;
        }
        Ok(())
    }

    fn failing(&self, who: &Option<String>, kind: Kind, answer: &Response<Incoming>, peer: &Peer) -> SendError {
        let wait = retry_after(answer.headers());
        let status = answer.status().as_u16();
        // One peer of several that is busy is no reason to leave the others alone.
        if let Some(wait) = wait.filter(|_| status == 429 || self.peers.all().len() == 1) {
            self.holds.set(who.clone(), Some(kind), status, wait);
        }
        SendError::Failing { upstream: self.name(), peer: peer.url().to_owned(), status, retry_after: wait }
    }

    /// One peer is asked, with what it asked for last time, and once more with what it asks for now.
    async fn attempt(&self, errand: &mut Errand<'_>) -> Result<(Response<Incoming>, Arc<Peer>), SendError> {
        let peer = self.choose(errand)?;
        let known = peer.challenge.load_full();
        let mut shown = match &known {
            Some(challenge) => self.authorization(errand, challenge, &peer, None).await?,
            None => None,
        };
        let mut answer = self.exchange(errand, &peer, shown.as_ref()).await?;
        // It may have been given before all of the body was read. None of it is read any more while a token is asked for.
        if answer.status() == StatusCode::UNAUTHORIZED && errand.outgoing.take_back() {
            if let Some(challenge) = Challenge::of(answer.headers()) {
                let asked = self.authorization(errand, &challenge, &peer, shown.as_ref()).await?;
                peer.challenge.store(Some(Arc::new(challenge)));
                if asked.is_some() && asked != shown {
                    shown = asked;
                    answer = self.exchange(errand, &peer, shown.as_ref()).await?;
                }
            }
            if answer.status() == StatusCode::UNAUTHORIZED && errand.caller.is_none() {
                self.credentials.forget();
            }
        }
        if errand.follow && is_redirect(answer.status()) {
            answer = self.follow(errand, answer, &peer, shown).await?;
        }
        Ok((answer, peer))
    }

    fn choose(&self, errand: &mut Errand<'_>) -> Result<Arc<Peer>, SendError> {
        let peer = match errand.only {
            Some(only) => self.peers.all().iter().find(|peer| peer.authority() == only).cloned(),
            // All were tried: the first one's turn comes again.
            None => self.peers.pick_except(&errand.tried).or_else(|| {
                errand.tried.clear();
                self.peers.pick()
            }),
        };
        let peer = peer.ok_or_else(|| self.peers.no_healthy_peer())?;
        errand.tried.push(Arc::clone(&peer));
        Ok(peer)
    }

    async fn exchange(
        &self,
        errand: &Errand<'_>,
        peer: &Peer,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response<Incoming>, SendError> {
        let mut parts = errand.parts.clone();
        parts.uri = errand.asked(peer);
        if let Some(authorization) = authorization {
            parts.headers.insert(AUTHORIZATION, authorization.clone());
        }
        let answer = self.peers.exchange(peer, &parts, &errand.outgoing).await;
        peer.set_aside(matches!(answer, Err(SendError::Unreachable { .. })));
        if let Ok(answer) = &answer {
            self.note_limits(answer.headers());
        }
        answer
    }

    /// What to show for a challenge. `refused` was shown and not taken.
    async fn authorization(
        &self,
        errand: &mut Errand<'_>,
        challenge: &Challenge,
        peer: &Peer,
        refused: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, SendError> {
        let login = match errand.caller {
            Some(caller) => caller.login.clone(),
            None => self.credentials.login().await?,
        };
        let Challenge::Bearer { realm, service, scope } = challenge else {
            return Ok(login.as_ref().and_then(Login::basic));
        };
        if !is_trusted_realm(realm, &peer.uri("/"), &self.realms) {
            return Err(SendError::Realm { upstream: self.name(), realm: host(realm) });
        }
        // What is asked for is ours to know; what the upstream names is for requests that name nothing.
        let scope = if errand.scope.is_empty() { scope.as_deref().unwrap_or_default() } else { errand.scope };
        let wanted = Wanted {
            realm: realm.clone(),
            service: service.clone(),
            scope: scope.to_owned(),
            caller: errand.caller.cloned(),
        };
        let is_peer = Uri::try_from(realm.as_str()).is_ok_and(|uri| self.peer_of(&uri).is_some());
        let client = if is_peer { &self.peers.pooled } else { &self.strangers };
        let header = self.tokens.header(&wanted, login.as_ref(), client, refused, &mut errand.told).await;
        match &header {
            Err(SendError::Denied { .. }) if errand.caller.is_none() => self.credentials.forget(),
            // Logins are throttled too.
            Err(SendError::Failing { retry_after: Some(wait), status, .. }) => {
                self.holds.set(errand.counted().0, None, *status, *wait);
            }
            _ => {}
        }
        header.map(Some)
    }

    /// The path of an [`Ask`] for a URL that an upstream named, and the only peer that can answer, where it is not below the
    /// upstream's own path there; none, if the URL leads to none of its servers.
    pub fn place(&self, uri: &Uri) -> Option<(PathAndQuery, Option<Authority>)> {
        let peer = self.peer_of(uri)?;
        let path = uri.path_and_query()?;
        let shared = peer.shared(path).map(|path| (path, None));
        Some(shared.unwrap_or_else(|| (path.clone(), Some(peer.authority().clone()))))
    }

    /// The server that a URL leads to.
    pub fn peer_of(&self, uri: &Uri) -> Option<&Arc<Peer>> {
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        let named = format!("{}:{port}", uri.host().unwrap_or_default());
        self.peers.all().iter().find(|peer| peer.authority().as_str().eq_ignore_ascii_case(&named))
    }

    /// Goes where the upstream sends us; what it names is asked for without credentials, and not remembered: such URLs end.
    async fn follow(
        &self,
        errand: &Errand<'_>,
        mut answer: Response<Incoming>,
        peer: &Peer,
        shown: Option<HeaderValue>,
    ) -> Result<Response<Incoming>, SendError> {
        let mut headers = errand.parts.headers.clone();
        if let Some(shown) = shown {
            headers.insert(AUTHORIZATION, shown);
        }
        let mut asked = errand.asked(peer);
        for _ in 0..REDIRECTS_MAX {
            let Step { url, is_elsewhere } = step(self.peers.name(), &asked, answer.headers())?;
            if is_elsewhere {
                forget_credentials(&mut headers);
            }
            asked = url.as_str().parse().map_err(|_| self.astray("to what is no URL"))?;
            let mut request = Request::new(Empty::new());
            *request.method_mut() = errand.parts.method.clone();
            *request.uri_mut() = asked.clone();
            *request.headers_mut() = headers.clone();
            let client = if self.peer_of(&asked).is_some() { &self.peers.pooled } else { &self.strangers };
            answer = client.send(request).await.map_err(|error| self.peers.failed(&host(&url), &error))?;
            if !is_redirect(answer.status()) {
                return self.arrived(answer, &host(&url), is_elsewhere);
            }
        }
        Err(self.astray(&format!("more than {REDIRECTS_MAX} times")))
    }

    /// That a stranger refuses says that its URL is no good any more, not that we may not have it.
    fn arrived(
        &self,
        answer: Response<Incoming>,
        peer: &str,
        is_elsewhere: bool,
    ) -> Result<Response<Incoming>, SendError> {
        if is_elsewhere && matches!(answer.status().as_u16(), 400 | 401 | 403) {
            let (upstream, peer, status) = (self.name(), peer.to_owned(), answer.status().as_u16());
            return Err(SendError::Failing { upstream, peer, status, retry_after: None });
        }
        Ok(answer)
    }

    fn astray(&self, how: &str) -> SendError {
        SendError::Redirect { upstream: self.name(), reason: how.to_owned() }
    }
}

/// Whether a change is not made now nor later: its answer says why. 502, 503 and 504 are said by whoever stands before it.
fn is_final(status: StatusCode) -> bool {
    status.is_server_error() && !matches!(status.as_u16(), 502..=504 | 508)
}

/// Whether the same request may go better.
const fn is_worth_repeating(error: &SendError) -> bool {
    match error {
        // A loop is not over the next time.
        SendError::Failing { status, .. } => *status != 508,
        SendError::Unreachable { .. } | SendError::Refused { .. } | SendError::Broken { .. } => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
