//! `/token`: docker's token protocol, by GET and as an OAuth2 form. Callers get a token for the part of what they ask for that
//! the rules grant: here, or at another registry that goes by our tokens. Users get a refresh token too, if they ask.

mod form;

use http::{HeaderMap, Response, StatusCode, header};
use hyper::body::Incoming;

use crate::access::{Action, Actions, Grant, Principal};
use crate::identity::{IssueError, IssuedToken, KEY_SET_LIFETIME, Wish};
use crate::oci::{ErrorCode, RepositoryName};

use super::arrival::Arrival;
use super::body::Body;
use super::intake::{Intake, IntakeError};
use super::observe::Record;
use super::respond::{self, Failure};
use super::route::TokenQuery;
use super::screen::Screened;
use super::walk::{Caller, Walk};
use form::{Shown, TokenForm};

/// What clients ask for before they list repositories; the list shows each caller only what they may pull.
const CATALOG_SCOPE: &str = "registry:catalog:";

/// How many scopes a token for another registry can have: it lists them, and has to fit into a header. One for ourselves has
/// none, so it may be asked for as many as fit into the request.
const SCOPES_MAX: usize = 64;

/// The largest form: a thousand scopes, and a refresh token. By GET it is what fits into the head of a request.
const FORM_BYTES_MAX: u64 = 64 * 1024;

const FORM_TYPE: &str = "application/x-www-form-urlencoded";

impl Walk<'_> {
    /// `GET /token`
    pub(super) fn token(&self, caller: &Caller, asked: &TokenQuery) -> Result<Response<Body>, Failure> {
        // A token must not prolong itself.
        if caller.principal.has_token() {
            return Err(self.log_in_again("a token cannot be used to get another; log in with user name and password"));
        }
        let service = self.service(asked, &caller.screened);
        let issued = self.issue(&caller.principal, service, asked)?;
        let refresh = self.refresh(&caller.principal, service, asked)?;
        Ok(respond::token(&issued, refresh.as_deref()))
    }

    /// `POST /token`. What stands in `Authorization` is not looked at: there OAuth2 has the name of the program (RFC 6749,
    /// section 2.3.1), and who asks is in the form.
    pub(super) async fn token_form(
        &self,
        arrival: &Arrival,
        screened: &Screened,
        intake: &mut Intake<Incoming>,
        record: &mut Record,
    ) -> Result<Response<Body>, Failure> {
        if !is_form(&self.parts.headers) {
            return Err(refused(format!("send the form as {FORM_TYPE}")));
        }
        let body = intake.whole(FORM_BYTES_MAX).await.map_err(unread)?;
        let TokenForm { asked, shown } = TokenForm::parse(&body).map_err(|error| refused(error.to_string()))?;
        let service = self.service(&asked, screened);
        let (principal, kept) = match shown {
            Shown::Login(credentials) => (self.log_in(&credentials, arrival, screened).await?, None),
            Shown::Refresh(token) => (self.log_in_by_refresh(&token, screened, service)?, Some(token)),
        };
        record.identified(&principal);
        let issued = self.issue(&principal, service, &asked)?;
        // Who shows a refresh token goes on with it: a new one each time would never end.
        let refresh = match kept {
            Some(token) => Some(token),
            None => self.refresh(&principal, service, &asked)?,
        };
        Ok(respond::token_form(&issued, refresh.as_deref()))
    }

    /// `GET /token/keys`
    pub(super) fn token_keys(&self) -> Response<Body> {
        respond::key_set(&self.rooms.identity.key_set(), KEY_SET_LIFETIME)
    }

    /// `GET /token/certificates`
    pub(super) fn token_certificates(&self) -> Response<Body> {
        respond::certificates(self.rooms.identity.authority_pem())
    }

    /// Without a name it is ours, and so it is under the name by which the caller called us, unless another service has it.
    fn service<'a>(&'a self, asked: &'a TokenQuery, screened: &Screened) -> &'a str {
        match asked.service.as_deref() {
            Some(service) if self.rooms.identity.serves(service) || service != screened.host => service,
            _ => &self.settings.realm,
        }
    }

    fn issue(&self, principal: &Principal, service: &str, asked: &TokenQuery) -> Result<IssuedToken, Failure> {
        let scopes = asked.scopes.iter().flat_map(|scopes| scopes.split(' ')).filter(|scope| !scope.is_empty());
        let scopes: Vec<&str> = scopes.collect();
        let is_own = service == self.settings.realm;
        if !is_own && scopes.len() > SCOPES_MAX {
            return Err(refused(format!("a token for another registry is for at most {SCOPES_MAX} scopes")));
        }
        // A scope of another kind grants nothing; clients ask for some that only other registries know.
        let catalog = scopes.iter().any(|scope| scope.starts_with(CATALOG_SCOPE));
        let asked: Vec<_> = scopes.into_iter().filter_map(parse_scope).collect();
        let delete = asked.iter().any(|(_, actions)| actions.allow(Action::Delete));
        let grants = asked.into_iter().filter_map(|(name, asked)| self.cut(principal, name, asked)).collect();
        let wish = Wish { grants, catalog: catalog && self.may_list(principal, service), delete };
        self.rooms.identity.issue(principal, service, &wish).map_err(not_issued)
    }

    /// A refresh token, for users who ask for one.
    fn refresh(&self, principal: &Principal, service: &str, asked: &TokenQuery) -> Result<Option<String>, Failure> {
        match asked.offline && principal.user_name().is_some() {
            true => self.rooms.identity.issue_refresh(principal, service).map(Some).map_err(not_issued),
            false => Ok(None),
        }
    }

    /// What the rules leave of a scope. Push in docker's words is push or create in ours.
    fn cut(&self, principal: &Principal, repository: RepositoryName, asked: Actions) -> Option<Grant> {
        let allowed = self.settings.rules.allowed(principal, &repository);
        let both = |action: &Action| asked.allow(*action) && allowed.allow(*action);
        let actions: Actions = Action::ALL.into_iter().filter(both).collect();
        (!actions.is_empty()).then_some(Grant { repository, actions })
    }

    /// Our own list shows each caller only what they may pull; that of another registry shows everything.
    fn may_list(&self, principal: &Principal, service: &str) -> bool {
        service == self.settings.realm || self.settings.rules.allow_everywhere(principal, Action::Pull)
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(FORM_TYPE))
}

fn refused(message: String) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, message)
}

/// As for any body, but for words that are about blobs and manifests.
fn unread(error: IntakeError) -> Failure {
    let failure = Failure { code: ErrorCode::Unsupported, ..Failure::from(error) };
    match error {
        IntakeError::TooLarge { limit } => {
            Failure { message: format!("the form is larger than {limit} bytes"), ..failure }
        }
        _ => failure,
    }
}

fn not_issued(error: IssueError) -> Failure {
    match error {
        IssueError::UnknownService | IssueError::TooManyGrants => refused(error.to_string()),
        _ => Failure::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unknown, "no token could be made")
            .private(error.to_string()),
    }
}

/// `repository:NAME:ACTION,ACTION`; a name may hold colons only where a port could stand, and ours hold none.
fn parse_scope(scope: &str) -> Option<(RepositoryName, Actions)> {
    let rest = scope.strip_prefix("repository:").or_else(|| scope.strip_prefix("repository(plugin):"))?;
    let (name, actions) = rest.rsplit_once(':')?;
    let actions = actions.split(',').map(|action| match action {
        "*" => Actions::ALL,
        action => action.parse().map_or(Actions::NONE, |action: Action| action.into()),
    });
    Some((name.parse().ok()?, actions.fold(Actions::NONE, |all, one| all | one)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_as_docker_writes_them() {
        let scope = |text: &str| parse_scope(text).map(|(name, actions)| (name.to_string(), actions));
        let pull_push: Actions = [Action::Pull, Action::Push].into_iter().collect();
        assert_eq!(scope("repository:a/b:pull,push"), Some(("a/b".into(), pull_push)));
        assert_eq!(scope("repository:a:*"), Some(("a".into(), Actions::ALL)));
        assert_eq!(scope("repository:a:fly"), Some(("a".into(), Actions::NONE)));
        for other in ["registry:catalog:*", "repository:a", "repository:A:pull", "", "repository::pull"] {
            assert_eq!(scope(other), None, "{other}");
        }
    }
}
