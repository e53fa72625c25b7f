//! The walk of a request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;

use crate::access::{Principal, Rules};
use crate::config::{self, Limits, Listener};
use crate::docker::{Client, Generation};
use crate::identity::Identity;
use crate::oci::ErrorCode;
use crate::registry::{Backend, Hosted, Index, Remote};
use crate::telemetry::Metrics;

use super::arrival::{Arrival, Transport};
use super::body::Body;
use super::byte_budget::{ByteBudget, Pressure};
use super::identify::Identified;
use super::intake::Intake;
use super::names::Names;
use super::observe::{Ids, Observed, Record};
use super::pick::{Answerer, Picked};
use super::respond::{self, Failure, Form};
use super::route::{self, Route, Routed, Verb};
use super::screen::{self, Refusal, Screened};
use super::turns::Turns;

/// The gateway: from a request to its answer. Cheap to clone.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    rooms: Rooms,
    settings: ArcSwap<Settings>,
    ids: Ids,
}

/// What the gateway calls.
pub struct Rooms {
    /// Who says who is asking.
    pub identity: Arc<Identity>,
    /// The built-in registry.
    pub hosted: Arc<Hosted>,
    /// The v1 registry behind us with its index, if there is one.
    pub legacy: Option<Arc<Index>>,
    /// Whether there would be one, were its file good.
    pub legacy_is_broken: bool,
    /// The registries elsewhere, by name.
    pub remotes: BTreeMap<String, Arc<Remote>>,
    /// Which names are whose.
    pub names: Arc<Names>,
    /// Who answers names that no upstream claims: `hosted`, or an upstream.
    pub default: String,
    /// What we call ourselves to upstreams, to know our own requests should they come back (RFC 9110, section 7.6.3).
    pub via: String,
    /// Where requests are counted.
    pub metrics: Metrics,
    /// What bodies on their way out may hold in memory: `limits.outgoing_bytes`.
    pub outgoing: ByteBudget,
    /// What bodies that are read whole may hold in memory: `limits.incoming_bytes`.
    pub incoming: ByteBudget,
    /// Whose request is begun next.
    pub turns: Turns,
}

/// What can change while the gateway runs.
pub struct Settings {
    /// Who may do what.
    pub rules: Arc<Rules>,
    /// Every limit.
    pub limits: Limits,
    /// The listeners by name: who is trusted, where plain HTTP is served.
    pub listeners: BTreeMap<String, Listener>,
    /// The name of what is protected, and for whom tokens are.
    pub realm: String,
    /// How callers are asked who they are.
    pub challenge: config::Challenge,
    /// Whether every `Location` names scheme and host.
    pub absolute_locations: bool,
    /// Whether each request gets a line in the log.
    pub access_log: bool,
    /// How long browsers shall speak TLS only (RFC 6797), if they are to be told.
    pub hsts: Option<Duration>,
}

/// A request that was let through, and what is known of it.
pub(super) struct Caller {
    pub(super) screened: Screened,
    pub(super) principal: Principal,
    /// Whether the caller showed any credentials, an anonymous token among them.
    pub(super) showed_credentials: bool,
    /// Whether a v1 registry is asking about a request of theirs.
    pub(super) by_registry: bool,
}

impl Gateway {
    /// A gateway before `rooms`. `id_prefix` is random, so that the ids of two processes differ.
    pub fn new(rooms: Rooms, settings: Settings, id_prefix: u32) -> Self {
        Self(Arc::new(Inner { rooms, settings: ArcSwap::from_pointee(settings), ids: Ids::new(id_prefix) }))
    }

    /// From the next request on, `settings` hold.
    pub fn reload(&self, settings: Settings) {
        self.0.rooms.outgoing.resize(settings.limits.outgoing_bytes);
        self.0.rooms.incoming.resize(settings.limits.incoming_bytes);
        self.0.settings.store(Arc::new(settings));
    }

    /// Whether clients wait for memory that answers to others hold.
    pub fn pressure(&self) -> Pressure {
        self.0.rooms.outgoing.pressure()
    }

    /// Answers a request. Never fails: what goes wrong is in the answer and in the log.
    pub async fn handle(&self, arrival: Arrival, request: Request<Incoming>) -> Response<Observed> {
        let settings = self.0.settings.load_full();
        let (parts, body) = request.into_parts();
        let metrics = self.0.rooms.metrics.clone();
        let mut record = Record::begin(self.0.ids.next(), arrival.peer.ip(), &parts, metrics, settings.access_log);
        let mut intake = Intake::new(body, &settings.limits, &self.0.rooms.incoming, arrival.peer.ip());
        record.received = intake.count();
        let walk = Walk { rooms: &self.0.rooms, settings: &settings, parts: &parts };
        record.https = arrival.transport == Transport::Tls;
        let mut response = match walk.begin(&arrival, &mut intake, &mut record).await {
            Ok(response) => response,
            Err(failure) => {
                // The stream would be reset, and some clients then throw the answer away.
                if !failure.close && parts.version == Version::HTTP_2 {
                    intake.discard().await;
                }
                record.private = failure.private.clone();
                failure.into_response(record.id)
            }
        };
        response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // By HTTP/1 the next request comes after what is left of this one.
        if parts.version < Version::HTTP_2
            && !response.headers().contains_key(header::CONNECTION)
            && !intake.finish(parts.headers.contains_key(header::EXPECT)).await
        {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        // Over a plain connection anybody could have written it (RFC 6797, section 7.2).
        if let Some(lifetime) = settings.hsts.filter(|_| record.https)
            && let Ok(value) = HeaderValue::try_from(format!("max-age={}", lifetime.as_secs()))
        {
            response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, value);
        }
        record.answered(response, &self.0.rooms.outgoing)
    }
}

/// One request on its way.
pub(super) struct Walk<'a> {
    pub(super) rooms: &'a Rooms,
    pub(super) settings: &'a Settings,
    pub(super) parts: &'a Parts,
}

impl Walk<'_> {
    /// Takes its turn among the requests of all clients. What comes after is in a box of its own: of thousands who wait each
    /// takes little memory, and it is free again while the answer is sent.
    async fn begin(
        &self,
        arrival: &Arrival,
        intake: &mut Intake<Incoming>,
        record: &mut Record,
    ) -> Result<Response<Body>, Failure> {
        let unknown = Listener::default();
        let listener = self.settings.listeners.get(&*arrival.listener).unwrap_or(&unknown);
        let screened = match screen::screen(arrival, listener, self.parts) {
            Ok(screened) => screened,
            Err(refusal) => {
                let meant =
                    (refusal == Refusal::Path).then(|| screen::without_doubled_slash(&self.parts.uri)).flatten();
                let refused = || Err(self.in_form(refusal.into()));
                return meant.map_or_else(refused, |path| Ok(respond::moved(&path)));
            }
        };
        (record.client, record.https) = (screened.client, screened.https);
        let _seat = self.rooms.turns.seat(screened.client).await;
        Box::pin(self.go(arrival, screened, intake, record)).await
    }

    async fn go(
        &self,
        arrival: &Arrival,
        screened: Screened,
        intake: &mut Intake<Incoming>,
        record: &mut Record,
    ) -> Result<Response<Body>, Failure> {
        let routed = self.route()?;
        record.route = routed.route.label();
        let picked = self.pick(&screened, routed).map_err(|failure| self.in_form(failure))?;
        let identified = self.identify(arrival, &screened, &picked).await;
        let Identified { principal, showed_credentials, by_registry } =
            identified.map_err(|failure| self.in_form(failure))?;
        record.identified(&principal);
        let caller = Caller { screened, principal, showed_credentials, by_registry };
        let picked = self.settle(picked, &caller).await?;
        if self.changes_something() && !picked.route.reads_body() {
            let skipped = intake.skip(self.settings.limits.manifest_bytes).await;
            skipped.map_err(|error| self.in_form(error.into()))?;
        }
        let answer = self.answer(arrival, picked, &caller, intake, record).await;
        let answer = answer.map(|answer| self.located(answer, &caller.screened));
        // Whoever hands a body on sees only that it broke.
        answer.map_err(|failure| self.in_form(intake.trouble().map_or(failure, Failure::from)))
    }

    /// A `Location` names no host, so that it holds whatever stands before us; but the first v2 clients do not go there, and the
    /// operator may know of others.
    fn located(&self, mut answer: Response<Body>, screened: &Screened) -> Response<Body> {
        let location = answer.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
        if let Some(path) = location.filter(|location| location.starts_with("/v2/"))
            && (self.settings.absolute_locations || self.client().needs_absolute_location())
            && let Ok(absolute) = HeaderValue::from_str(&format!("{}{path}", screened.origin()))
        {
            answer.headers_mut().insert(header::LOCATION, absolute);
        }
        answer
    }

    fn generation(&self) -> Generation {
        let legacy = self.rooms.legacy.as_ref().map(|index| index.registry().clients());
        self.client().generation(legacy.unwrap_or_default())
    }

    fn client(&self) -> Client {
        Client::parse(self.parts.headers.get(header::USER_AGENT).map(|text| text.as_bytes()).unwrap_or_default())
    }

    async fn answer(
        &self,
        arrival: &Arrival,
        Picked { route, answerer }: Picked,
        caller: &Caller,
        intake: &mut Intake<Incoming>,
        record: &mut Record,
    ) -> Result<Response<Body>, Failure> {
        match (route, answerer) {
            (Route::Token(asked), _) => self.token(caller, &asked),
            (Route::TokenForm, _) => self.token_form(arrival, &caller.screened, intake, record).await,
            (Route::Root, _) => Ok(respond::nothing()),
            (Route::TokenKeys, _) => Ok(self.token_keys()),
            (Route::TokenCertificates, _) => Ok(self.token_certificates()),
            (Route::Legacy(route), Answerer::Index(index)) => {
                record.backend = "legacy";
                Box::pin(self.legacy(index.as_ref(), &route, caller, intake, record)).await
            }
            (route, Answerer::Here(Backend::Hosted(hosted), namespace)) => {
                record.backend = "hosted";
                self.hosted(&hosted, route, namespace.as_ref(), caller, intake, record).await
            }
            (route, Answerer::There(elsewhere)) => {
                record.backend = "remote";
                Box::pin(self.remote(&elsewhere, route, caller, intake, record)).await
            }
            _ => Err(Failure::from(route::RouteError::Unknown)),
        }
    }

    /// Old clients find nothing under `/v2/`, and nothing that tells of v2, whatever they ask there.
    fn route(&self) -> Result<Routed, Failure> {
        let path = self.parts.uri.path();
        if self.generation() == Generation::V1 && (path == "/v2" || path.starts_with("/v2/")) {
            let message = match &self.rooms.legacy {
                Some(_) => "this version of docker is served by the v1 registry under /v1/",
                None => self.no_legacy_message(),
            };
            let failure = Failure::new(StatusCode::NOT_FOUND, ErrorCode::Unsupported, message);
            return Err(Failure { versioned: false, ..failure });
        }
        route::parse(&self.parts.method, &self.parts.uri).map_err(|error| self.in_form(error.into()))
    }

    /// Every error under `/v1/` is told as v1 clients print it. Where a manifest is asked for, a repository that is not known
    /// is told as docker's own registry does: docker 1.8 and 1.9 look for the image in v1 then, and only then.
    fn in_form(&self, failure: Failure) -> Failure {
        let path = self.parts.uri.path();
        let v1 = path.starts_with("/v1/") || matches!(path, "/v1" | "/_ping");
        match failure.code {
            _ if v1 => failure.in_form(Form::V1),
            ErrorCode::NameUnknown if self.reads_manifest() => Failure { code: ErrorCode::ManifestUnknown, ..failure },
            _ => failure,
        }
    }

    fn changes_something(&self) -> bool {
        !matches!(self.parts.method, Method::GET | Method::HEAD | Method::OPTIONS)
    }

    fn reads_manifest(&self) -> bool {
        let routed = route::parse(&self.parts.method, &self.parts.uri);
        routed.is_ok_and(|routed| matches!(routed.route, Route::Manifest(_, _, Verb::Get | Verb::Head)))
    }

    /// There is no v1 registry to ask.
    pub(super) fn no_legacy(&self) -> Failure {
        let (status, code) = match self.rooms.legacy_is_broken {
            true => (StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable),
            false => (StatusCode::NOT_FOUND, ErrorCode::Unsupported),
        };
        Failure::new(status, code, self.no_legacy_message()).in_form(Form::V1)
    }

    const fn no_legacy_message(&self) -> &'static str {
        if self.rooms.legacy_is_broken { BROKEN_LEGACY } else { NO_LEGACY }
    }
}

const NO_LEGACY: &str = "no v1 registry is configured; to serve old docker write upstreams/legacy-v1.toml with kind = \"legacy\", \
                         or remove enabled = false from it";

const BROKEN_LEGACY: &str =
    "the file of the v1 registry in upstreams/ has a mistake; the gateway's log and dockgate check say which";
