//! Tokens of upstreams (docker's token protocol; its OAuth2 form): one for each service, scope and owner, remembered while it
//! is good, fetched once however many wait for it. That there is none is told to all who wait, too.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;
use url::Url;
use url::form_urlencoded::Serializer;

use crate::config::Secret;
use crate::net::client::Client;
use crate::telemetry::UpstreamCount;

use super::credentials::{CallerCredentials, Login};
use super::error::{SendError, Shown};
use super::retry::retry_after;

/// How many tokens are remembered; those that ended go first.
const TOKENS_MAX: usize = 10_000;
/// How long a token is good that does not say so (docker's token specification).
const LIFETIME: Duration = Duration::from_secs(60);
/// The longest that a token is taken for good, whatever it says.
const LIFETIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// So much before its end a token is not used any more.
const MARGIN: Duration = Duration::from_secs(10);
/// How long a failure is told to others who want the same, in place of asking again.
const FAILURE_LIFETIME: Duration = Duration::from_secs(1);
/// How large the answer of a token service may be.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// What a token is for, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Wanted {
    pub(super) realm: Url,
    pub(super) service: String,
    pub(super) scope: String,
    /// None: ours.
    pub(super) caller: Option<CallerCredentials>,
}

/// A token, while it is good; or why there is none, for a moment.
struct Known {
    outcome: Result<HeaderValue, SendError>,
    until: Instant,
}

/// The failure that a request was told of last, so that its own repetition asks again and does not hear of the same.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told(Option<Instant>);

type Place = Arc<tokio::sync::Mutex<Option<Known>>>;

/// The tokens of one upstream.
pub(super) struct Tokens {
    upstream: String,
    places: Mutex<HashMap<Wanted, Place>>,
    counted: UpstreamCount,
}

#[derive(Deserialize)]
struct Answered {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<Value>,
}

impl Tokens {
    pub(super) fn new(upstream: &str, counted: UpstreamCount) -> Self {
        Self { upstream: upstream.to_owned(), places: Mutex::default(), counted }
    }

    /// A token, as a header that no log shows. `refused` is one that was not taken: another is fetched.
    pub(super) async fn header(
        &self,
        wanted: &Wanted,
        login: Option<&Login>,
        client: &Client,
        refused: Option<&HeaderValue>,
        told: &mut Told,
    ) -> Result<HeaderValue, SendError> {
        let place = self.place(wanted);
        // Who comes while it is fetched waits here, and finds it, or why there is none: logins are throttled, and accounts
        // are locked by them.
        let mut place = place.lock().await;
        if let Some(known) = place.as_ref().filter(|known| known.is_good()) {
            match &known.outcome {
                Ok(header) if refused != Some(header) => return Ok(header.clone()),
                Err(error) if told.is_new(known) => return Err(error.clone()),
                _ => {}
            }
        }
        let fetched = self.fetch(wanted, login, client).await;
        self.counted.token(if fetched.is_ok() { "fetched" } else { "failed" });
        let failed = |error| Known { outcome: Err(error), until: Instant::now() + FAILURE_LIFETIME };
        let known = place.insert(fetched.unwrap_or_else(failed));
        if known.outcome.is_err() {
            told.is_new(known);
        }
        known.outcome.clone()
    }

    fn place(&self, wanted: &Wanted) -> Place {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= TOKENS_MAX && !places.contains_key(wanted) {
            // One that is being fetched is locked, and stays.
            places.retain(|_, place| match place.try_lock() {
                Ok(known) => known.as_ref().is_some_and(Known::is_good),
                Err(_) => true,
            });
            if places.len() >= TOKENS_MAX {
                places.clear();
            }
        }
        Arc::clone(places.entry(wanted.clone()).or_default())
    }

    async fn fetch(&self, wanted: &Wanted, login: Option<&Login>, client: &Client) -> Result<Known, SendError> {
        if let Some(refresh) = login.and_then(Login::refresh_token) {
            return self
                .post(wanted, &[("grant_type", "refresh_token"), ("refresh_token", refresh.expose())], client)
                .await;
        }
        let answer = self.get(wanted, login, client).await?;
        match (answer.status(), login) {
            // Some services know the newer form only.
            (StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, Some(login)) => {
                let fields = [
                    ("grant_type", "password"),
                    ("username", login.username.as_str()),
                    ("password", login.password.expose()),
                ];
                self.post(wanted, &fields, client).await
            }
            _ => self.read(wanted, login.is_some(), answer).await,
        }
    }

    async fn get(
        &self,
        wanted: &Wanted,
        login: Option<&Login>,
        client: &Client,
    ) -> Result<Response<Incoming>, SendError> {
        let mut url = wanted.realm.clone();
        {
            let mut query = url.query_pairs_mut();
            if !wanted.service.is_empty() {
                query.append_pair("service", &wanted.service);
            }
            wanted.scope.split(' ').filter(|scope| !scope.is_empty()).for_each(|scope| {
                query.append_pair("scope", scope);
            });
            if let Some(login) = login {
                query.append_pair("account", &login.username);
            }
        }
        let mut request = Request::new(Full::default());
        if let Some(basic) = login.and_then(Login::basic) {
            request.headers_mut().insert(AUTHORIZATION, basic);
        }
        self.ask(wanted, url.as_str(), request, client).await
    }

    async fn post(&self, wanted: &Wanted, fields: &[(&str, &str)], client: &Client) -> Result<Known, SendError> {
        let mut request = Request::new(Full::new(form(wanted, fields)));
        *request.method_mut() = Method::POST;
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(CONTENT_TYPE, kind);
        let answer = self.ask(wanted, wanted.realm.as_str(), request, client).await?;
        self.read(wanted, true, answer).await
    }

    async fn ask(
        &self,
        wanted: &Wanted,
        url: &str,
        mut request: Request<Full<Bytes>>,
        client: &Client,
    ) -> Result<Response<Incoming>, SendError> {
        *request.uri_mut() = url.parse().map_err(|_| self.no_token(wanted))?;
        client.send(request).await.map_err(|error| SendError::Unreachable {
            upstream: self.upstream.clone(),
            peer: host(&wanted.realm),
            reason: error.to_string(),
        })
    }

    async fn read(&self, wanted: &Wanted, has_login: bool, answer: Response<Incoming>) -> Result<Known, SendError> {
        let (upstream, realm, status) = (self.upstream.clone(), host(&wanted.realm), answer.status());
        match status {
            StatusCode::OK => {}
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let shown = match (&wanted.caller, has_login) {
                    (Some(_), _) => Shown::Callers,
                    (None, true) => Shown::Ours,
                    (None, false) => Shown::Nothing,
                };
                return Err(SendError::Denied { upstream, realm, status: status.as_u16(), shown });
            }
            // Logins are throttled too, and that is no 404 and no 401.
            _ => {
                let retry_after = retry_after(answer.headers());
                return Err(SendError::Failing { upstream, peer: realm, status: status.as_u16(), retry_after });
            }
        }
        let bytes = whole(answer).await.ok_or_else(|| self.no_token(wanted))?;
        let answered: Answered = serde_json::from_slice(&bytes).map_err(|_| self.no_token(wanted))?;
        // Some services leave one of the two empty, and say a time that is none.
        let token = [answered.token, answered.access_token].into_iter().flatten().find(|token| !token.is_empty());
        let header = token.and_then(|token| bearer(&Secret::new(&token))).ok_or_else(|| self.no_token(wanted))?;
        let seconds = answered.expires_in.as_ref().and_then(Value::as_u64).filter(|seconds| *seconds > 0);
        let lifetime = seconds.map_or(LIFETIME, Duration::from_secs).min(LIFETIME_MAX);
        let until = Instant::now() + lifetime.saturating_sub(MARGIN.min(lifetime / 2));
        Ok(Known { outcome: Ok(header), until })
    }

    fn no_token(&self, wanted: &Wanted) -> SendError {
        SendError::Token { upstream: self.upstream.clone(), realm: host(&wanted.realm) }
    }
}

impl Known {
    fn is_good(&self) -> bool {
        Instant::now() < self.until
    }
}

impl Told {
    /// Whether this failure is another than the last one; it is the last one from now on.
    fn is_new(&mut self, known: &Known) -> bool {
        self.0.replace(known.until) != Some(known.until)
    }
}

/// An OAuth2 request (application/x-www-form-urlencoded).
fn form(wanted: &Wanted, fields: &[(&str, &str)]) -> Bytes {
    let mut form = Serializer::new(String::new());
    form.append_pair("service", &wanted.service).append_pair("scope", &wanted.scope);
    form.append_pair("client_id", "dockgate").extend_pairs(fields);
    form.finish().into()
}

/// `host:port`, which is all of a realm that is told.
pub(super) fn host(realm: &Url) -> String {
    let host = realm.host_str().unwrap_or_default();
    realm.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn bearer(token: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The body of a small answer.
async fn whole(answer: Response<Incoming>) -> Option<Bytes> {
    let mut body = answer.into_body();
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.ok()?.into_data() {
            whole.extend_from_slice(&data);
        }
        if whole.len() > ANSWER_BYTES_MAX {
            return None;
        }
    }
    Some(whole.freeze())
}

/// Nothing of ours is in headers that go to strangers.
pub(super) fn forget_credentials(headers: &mut HeaderMap) {
    for name in [http::header::AUTHORIZATION, http::header::COOKIE, http::header::PROXY_AUTHORIZATION] {
        headers.remove(name);
    }
}
