//! `/token`: docker's token protocol and its OAuth2 form (distribution, "Token Authentication Specification", "OAuth2 Token
//! Authentication"). Anonymous callers and users get a token for the part of what they ask for that the rules grant.

use http::{Response, StatusCode};
use hyper::body::Incoming;

use crate::access::{Action, Actions, Grant, Principal};
use crate::identity::{Credentials, IssueError, Password};
use crate::net::certificates;
use crate::oci::{ErrorCode, RepositoryName};

use super::body::Body;
use super::intake::Intake;
use super::names::{Asked, Candidates};
use super::query::Query;
use super::respond::{self, Failure};
use super::route::TokenAsk;
use super::walk::{Caller, Walk};

/// What clients ask for before they list repositories; the list shows each caller only what they may pull.
const CATALOG_SCOPE: &str = "registry:catalog:";

/// How many repositories one token can name: a push with mounts names two.
const SCOPES_MAX: usize = 64;

/// The largest body of a request for a token.
const FORM_BYTES_MAX: u64 = 64 * 1024;

/// Who gets a token, and for what.
struct Wish {
    principal: Principal,
    ask: TokenAsk,
}

impl Walk<'_> {
    pub(super) async fn token(
        &self,
        caller: &Caller,
        ask: TokenAsk,
        intake: &mut Intake<Incoming>,
    ) -> Result<Response<Body>, Failure> {
        let is_form = ask.is_form;
        let wish = match is_form {
            true => self.form(caller, intake).await?,
            false => Wish { principal: caller.principal.clone(), ask },
        };
        // A token must not prolong itself.
        if wish.principal.has_token() {
            let message = "a token cannot be used to get another; log in with user name and password";
            return Err(self.not_let_in(message));
        }
        let own = self.settings.realm.as_str();
        let service = wish.ask.service.as_deref().unwrap_or(own);
        if !self.rooms.identity.is_service(service) {
            let message = format!(
                "there are no tokens for the service {service:?} here; ask for {own:?}, or add it to identity.token.services"
            );
            return Err(bad_request(message));
        }
        let asked: Vec<&str> =
            wish.ask.scopes.iter().flat_map(|scopes| scopes.split(' ')).filter(|scope| !scope.is_empty()).collect();
        if asked.len() > SCOPES_MAX {
            return Err(bad_request(format!("a token is for at most {SCOPES_MAX} scopes")));
        }
        // A scope of another kind grants nothing; clients ask for some that only other registries know.
        let catalog = asked.iter().any(|scope| scope.starts_with(CATALOG_SCOPE));
        let principal = if catalog { wish.principal.clone().with_catalog() } else { wish.principal.clone() };
        let parsed = asked.iter().filter_map(|scope| parse_scope(scope));
        let known = parsed.flat_map(|(name, actions)| {
            self.known_as(caller, name, service == own).into_iter().map(move |name| (name, actions))
        });
        let grants: Vec<Grant> = known.filter_map(|(name, actions)| self.cut(&principal, name, actions)).collect();
        let granted = respond::scopes(&grants);
        let identity = &self.rooms.identity;
        let issued = identity.issue(&principal, service, grants).map_err(not_made)?;
        let refresh = match wish.ask.offline {
            true => identity.issue_refresh(&wish.principal, service).map_err(not_made)?,
            false => None,
        };
        Ok(respond::token(&issued, refresh.as_deref(), is_form.then_some(granted.as_str())))
    }

    /// The OAuth2 form. Who is asking stands in it, and is found out as everywhere.
    async fn form(&self, caller: &Caller, intake: &mut Intake<Incoming>) -> Result<Wish, Failure> {
        let body = intake.whole(FORM_BYTES_MAX).await?;
        let text = std::str::from_utf8(&body).map_err(|_| bad_request("the form is not UTF-8".into()))?;
        let form = Query::parse(text).map_err(|error| bad_request(error.to_string()))?;
        let field = |name: &str| form.first(name).filter(|value| !value.is_empty());
        let needed = |name: &str| field(name).ok_or_else(|| bad_request(format!("the form needs {name}")));
        let ask = TokenAsk {
            is_form: true,
            scopes: form.all("scope"),
            service: field("service"),
            offline: form.first("access_type").as_deref() == Some("offline"),
        };
        let identity = &self.rooms.identity;
        let client = caller.screened.client;
        let principal = match form.first("grant_type").as_deref() {
            Some("password") => {
                let password = Password::new(form.first("password").unwrap_or_default());
                let credentials = Credentials::Basic { user: needed("username")?, password };
                identity.identify(&credentials, caller.principal.certificate_name(), client).await
            }
            Some("refresh_token") => {
                let service = ask.service.as_deref().unwrap_or(&self.settings.realm);
                identity.refresh_token(&needed("refresh_token")?, service)
            }
            _ => return Err(bad_request("grant_type is password or refresh_token".into())),
        };
        let principal = principal.map_err(|error| {
            self.rooms.metrics.login("refused");
            let failure = Failure::from(error);
            let challenge = (failure.status == StatusCode::UNAUTHORIZED).then(|| self.basic());
            Failure { challenge, ..failure }
        })?;
        self.rooms.metrics.login("accepted");
        Ok(Wish { principal: principal.with_address(client), ask })
    }

    fn not_let_in(&self, message: &str) -> Failure {
        let failure = Failure::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, message);
        Failure { challenge: Some(self.basic()), ..failure }
    }

    /// A client asks for the name by which it knows a repository. For ourselves the token is for the name by which we know it,
    /// too: of a mirror that is another.
    fn known_as(&self, caller: &Caller, name: RepositoryName, is_ours: bool) -> Vec<RepositoryName> {
        let asked = Asked { host: &caller.screened.host, path_prefix: None, namespace: None, name: Some(&name) };
        let found = if is_ours { self.rooms.names.find(&asked).ok() } else { None };
        let canonical = found.and_then(|found| match found.candidates {
            Candidates::Remote { name, .. } => name,
            Candidates::Hosted { else_mirror, .. } => else_mirror,
        });
        let canonical = canonical.map(|found| found.canonical).filter(|canonical| *canonical != name);
        [Some(name), canonical].into_iter().flatten().collect()
    }

    /// What the rules leave of a scope. Push in docker's words is push or create in ours.
    fn cut(&self, principal: &Principal, repository: RepositoryName, asked: Actions) -> Option<Grant> {
        let allowed = self.settings.rules.allowed(principal, &repository);
        let both = |action: &Action| asked.allow(*action) && allowed.allow(*action);
        let actions: Actions = Action::ALL.into_iter().filter(both).collect();
        (!actions.is_empty()).then_some(Grant { repository, actions })
    }

    /// The public keys as certificates: docker's registry takes no others in `auth.token.rootcertbundle`.
    pub(super) fn token_certificates(&self) -> Result<Response<Body>, Failure> {
        let keys = self.rooms.identity.keys();
        let made = keys.secrets().map(|secret| certificates::of_key(&secret, &self.settings.realm));
        let bundle = made.collect::<Result<String, _>>().map_err(|error| {
            let message = "no certificates of the token keys could be made";
            let failure = Failure::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unknown, message);
            failure.private(error.to_string())
        })?;
        Ok(respond::certificates(bundle))
    }
}

fn bad_request(message: String) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, message)
}

fn not_made(error: IssueError) -> Failure {
    let failure = Failure::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unknown, "no token could be made");
    failure.private(error.to_string())
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
