//! Who is asking, and what somebody is told who may not.

use http::{StatusCode, header};

use crate::access::{Action, CatalogPermit, Denied, Permit, Principal, Purpose, WritePermit};
use crate::config;
use crate::identity::{Credentials, IdentifyError, LegacyUse, MalformedCredentials};
use crate::oci::{ErrorCode, RepositoryName};
use crate::registry::RegistryError;

use super::arrival::Arrival;
use super::pick::Picked;
use super::respond::{Challenge, Failure};
use super::route::{self, BlobVerb, LegacyRoute, Route, UploadStart, Verb};
use super::screen::Screened;
use super::walk::{Caller, Walk};

/// Who is asking.
pub(super) struct Identified {
    pub(super) principal: Principal,
    /// Whether any credentials were shown.
    pub(super) showed_credentials: bool,
    /// Whether they were what we gave to a v1 registry to ask us with.
    pub(super) by_registry: bool,
}

impl From<Principal> for Identified {
    fn from(principal: Principal) -> Self {
        Self { principal, showed_credentials: false, by_registry: false }
    }
}

impl Walk<'_> {
    pub(super) async fn identify(
        &self,
        arrival: &Arrival,
        screened: &Screened,
        Picked { route, .. }: &Picked,
    ) -> Result<Identified, Failure> {
        match route {
            // Every v1 client asks this first, and gives up on anything but an answer.
            Route::Legacy(LegacyRoute::Ping) => return Ok(Principal::anonymous().into()),
            // The form says who asks; what is public is so whoever asks.
            Route::Root | Route::TokenForm | Route::TokenKeys | Route::TokenCertificates => {
                return Ok(Principal::anonymous().into());
            }
            _ => {}
        }
        let credentials = self.credentials().map_err(|failure| {
            let challenge = Some(self.challenge_on(route, screened, None));
            Failure { challenge, ..failure }
        })?;
        if let (Credentials::Token(text), Route::Legacy(_)) = (&credentials, route) {
            return self.log_in_by_legacy(text, arrival, screened);
        }
        let shown = !matches!(credentials, Credentials::None);
        let principal = self.log_in(&credentials, arrival, screened).await.map_err(|failure| {
            let bearer = matches!(credentials, Credentials::Bearer(_));
            let challenge = failure.challenge.is_some();
            let challenge = challenge.then(|| self.challenge_on(route, screened, bearer.then_some("invalid_token")));
            Failure { challenge, ..failure }
        })?;
        Ok(Identified { principal, showed_credentials: shown, by_registry: false })
    }

    /// Who shows a v1 token; whoever is refused is asked for a password.
    fn log_in_by_legacy(&self, text: &str, arrival: &Arrival, screened: &Screened) -> Result<Identified, Failure> {
        let accepted = self.rooms.identity.accept_legacy(text, arrival.certificate.as_deref());
        let (principal, for_whom) = accepted.map_err(|error| {
            self.refuse_login(self.log_in_again(match error {
                IdentifyError::ExpiredToken => {
                    "the token of this push or pull has ended; run docker again, or log in again"
                }
                _ => "the token is not valid here; run docker again, or log in again",
            }))
        })?;
        self.rooms.metrics.login("accepted");
        let principal = principal.with_address(screened.client);
        Ok(Identified { principal, showed_credentials: true, by_registry: for_whom == LegacyUse::Registry })
    }

    /// Who shows these credentials; whoever is refused is asked for a password.
    pub(super) async fn log_in(
        &self,
        credentials: &Credentials,
        arrival: &Arrival,
        screened: &Screened,
    ) -> Result<Principal, Failure> {
        let certificate = arrival.certificate.as_deref();
        let identified = self.rooms.identity.identify(credentials, certificate, screened.client).await;
        let principal = identified.map_err(|error| self.refuse_login(error.into()))?;
        if !matches!(credentials, Credentials::None) {
            self.rooms.metrics.login("accepted");
        }
        Ok(principal.with_address(screened.client))
    }

    /// Logs a caller in by a refresh token that was made for `service`.
    pub(super) fn log_in_by_refresh(
        &self,
        token: &str,
        screened: &Screened,
        service: &str,
    ) -> Result<Principal, Failure> {
        let principal = self.rooms.identity.accept_refresh(token, service);
        let refused = |_| self.log_in_again("the refresh token is not valid, or not any more; log in again");
        let principal = principal.map_err(|error| self.refuse_login(refused(error)))?;
        self.rooms.metrics.login("accepted");
        Ok(principal.with_address(screened.client))
    }

    fn refuse_login(&self, failure: Failure) -> Failure {
        self.rooms.metrics.login("refused");
        let challenge = (failure.status == StatusCode::UNAUTHORIZED).then(|| self.basic());
        Failure { challenge, ..failure }
    }

    /// 401, and nothing but a password helps.
    pub(super) fn log_in_again(&self, message: &str) -> Failure {
        let failure = Failure::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, message);
        Failure { challenge: Some(self.basic()), ..failure }
    }

    /// What the caller shows; two `Authorization` headers are as good as an unreadable one.
    pub(super) fn credentials(&self) -> Result<Credentials, Failure> {
        let mut headers = self.parts.headers.get_all(header::AUTHORIZATION).iter();
        let header = headers.next().map(|value| value.as_bytes());
        match headers.next() {
            None => Ok(Credentials::parse(header)?),
            Some(_) => Err(MalformedCredentials::Scheme.into()),
        }
    }

    /// The token endpoint and v1 take Basic alone.
    fn challenge_on(&self, route: &Route, screened: &Screened, error: Option<&'static str>) -> Challenge {
        match route {
            Route::Token(_) | Route::Legacy(_) => self.basic(),
            _ => self.challenge(screened, scope(route), error),
        }
    }

    /// Leave to do `A` to `repository`, or what the caller is told.
    pub(super) fn permit<A: Purpose>(
        &self,
        caller: &Caller,
        repository: &RepositoryName,
    ) -> Result<Permit<A>, Failure> {
        let permit = self.settings.rules.authorize(&caller.principal, repository);
        permit.map_err(|denied| self.refuse(caller, denied, A::ACTION, repository))
    }

    /// Leave to write to `repository`, as far as the caller may.
    pub(super) fn permit_write(&self, caller: &Caller, repository: &RepositoryName) -> Result<WritePermit, Failure> {
        let permit = self.settings.rules.authorize_write(&caller.principal, repository);
        permit.map_err(|denied| self.refuse(caller, denied, Action::Push, repository))
    }

    /// Leave to list repositories. Who has shown nothing is asked to, as by the ping: else docker would never say who it
    /// is, and would see the public ones only.
    pub(super) fn permit_catalog(&self, caller: &Caller) -> Result<CatalogPermit, Failure> {
        let scope = || Some("registry:catalog:*".into());
        self.ask_who(caller, scope())?;
        let permit = self.settings.rules.authorize_catalog(&caller.principal);
        permit.map_err(|_| self.unauthorized(&caller.screened, scope(), Some("insufficient_scope")))
    }

    /// 401 for whoever has shown nothing, as soon as any rule needs a user.
    pub(super) fn ask_who(&self, caller: &Caller, scope: Option<String>) -> Result<(), Failure> {
        let nothing_shown = caller.principal.is_anonymous() && !caller.showed_credentials;
        if nothing_shown && self.settings.rules.need_user() {
            return Err(self.unauthorized(&caller.screened, scope, None));
        }
        Ok(())
    }

    pub(super) fn refuse(
        &self,
        caller: &Caller,
        denied: Denied,
        action: Action,
        repository: &RepositoryName,
    ) -> Failure {
        // The protocol has one word for all writing.
        let action = if action == Action::Create { Action::Push } else { action };
        let scope = match route::parse(&self.parts.method, &self.parts.uri) {
            Ok(routed) if routed.route.repository() == Some(repository) => scope(&routed.route),
            _ => Some(format!("repository:{repository}:{}", scope_actions(action))),
        };
        match denied {
            Denied::Unauthenticated => self.unauthorized(&caller.screened, scope, None),
            Denied::InsufficientScope => self.unauthorized(&caller.screened, scope, Some("insufficient_scope")),
            Denied::Hidden => RegistryError::NameUnknown(repository.clone()).into(),
            Denied::Forbidden => forbidden(&format!("{action} {repository}")),
        }
    }

    pub(super) fn unauthorized(
        &self,
        screened: &Screened,
        scope: Option<String>,
        error: Option<&'static str>,
    ) -> Failure {
        let message = "authentication required; log in, or ask for a user who may do this";
        let failure = Failure::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, message);
        Failure { challenge: Some(self.challenge(screened, scope, error)), ..failure }
    }

    /// Exactly one challenge; which, if the operator does not say it: Bearer where some things are for anyone who calls from there and others are not, since under
    /// Basic docker without a login would not even ask for the public ones; else Basic. So it is where passwords are sent on,
    /// since a token has none.
    fn challenge(&self, screened: &Screened, scope: Option<String>, error: Option<&'static str>) -> Challenge {
        let rules = &self.settings.rules;
        let bearer = match self.settings.challenge {
            config::Challenge::Auto => rules.grant_anyone(screened.client) && rules.need_user(),
            config::Challenge::Basic => false,
            config::Challenge::Bearer => true,
        };
        if !bearer || self.rooms.names.forwards(&screened.host) {
            return self.basic();
        }
        let realm = format!("{}/token", screened.origin());
        Challenge::Bearer { realm, service: self.settings.realm.clone(), scope, error }
    }

    pub(super) fn basic(&self) -> Challenge {
        Challenge::Basic { realm: self.settings.realm.clone() }
    }
}

/// 403: the caller may see it, but not do this.
pub(super) fn forbidden(what: &str) -> Failure {
    let message = format!("you may not {what}; ask the operator for a rule in [[access]]");
    Failure::new(StatusCode::FORBIDDEN, ErrorCode::Denied, message)
}

/// docker asks for pull with every push.
const fn scope_actions(action: Action) -> &'static str {
    match action {
        Action::Pull => "pull",
        Action::Push | Action::Create => "pull,push",
        Action::Delete => "delete",
    }
}

/// What a token has to allow for this route.
pub(super) fn scope(route: &Route) -> Option<String> {
    let (action, name) = match route {
        Route::Catalog(_) => return Some("registry:catalog:*".into()),
        Route::Manifest(name, _, Verb::Put(_)) | Route::UploadStart(name, _) | Route::Upload(name, ..) => {
            (Action::Push, name)
        }
        Route::Manifest(name, _, Verb::Delete) | Route::Blob(name, _, BlobVerb::Delete) => (Action::Delete, name),
        _ => (Action::Pull, route.repository()?),
    };
    let source = match route {
        // A client asks for a token once, so the challenge to a mount names where the blob is to come from too.
        Route::UploadStart(_, UploadStart::Mount { from: Some(from), .. }) => format!(" repository:{from}:pull"),
        _ => String::new(),
    };
    Some(format!("repository:{name}:{}{source}", scope_actions(action)))
}
