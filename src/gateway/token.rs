//! `GET /token`: docker's token protocol. Anonymous callers and users with Basic get a token for the part of what they
//! ask for that the rules grant.

use http::{Response, StatusCode};

use crate::access::{Action, Actions, Grant};
use crate::oci::{ErrorCode, RepositoryName};

use super::body::Body;
use super::respond::{self, Failure};
use super::walk::{Caller, Walk};

/// What clients ask for before they list repositories; the list shows each caller only what they may pull.
const CATALOG_SCOPE: &str = "registry:catalog:";

/// How many repositories one token can name: a push with mounts names two.
const SCOPES_MAX: usize = 64;

impl Walk<'_> {
    pub(super) fn token(&self, caller: &Caller, scopes: &[String]) -> Result<Response<Body>, Failure> {
        // A token must not prolong itself.
        if caller.principal.has_token() {
            let message = "a token cannot be used to get another; log in with user name and password";
            let failure = Failure::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, message);
            return Err(Failure { challenge: Some(self.basic()), ..failure });
        }
        let asked: Vec<&str> =
            scopes.iter().flat_map(|scopes| scopes.split(' ')).filter(|scope| !scope.is_empty()).collect();
        if asked.len() > SCOPES_MAX {
            let message = format!("a token is for at most {SCOPES_MAX} scopes");
            return Err(Failure::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, message));
        }
        // A scope of another kind grants nothing; clients ask for some that only other registries know.
        let catalog = asked.iter().any(|scope| scope.starts_with(CATALOG_SCOPE));
        let principal = caller.principal.clone();
        let principal = if catalog { principal.with_catalog() } else { principal };
        let parsed = asked.into_iter().filter_map(parse_scope);
        let grants = parsed.filter_map(|(repository, asked)| self.cut(caller, repository, asked)).collect();
        let issued = self.rooms.identity.issue(&principal, &self.settings.realm, grants);
        let issued = issued.map_err(|error| {
            let failure = Failure::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unknown, "no token could be made");
            failure.private(error.to_string())
        })?;
        Ok(respond::token(&issued))
    }

    /// What the rules leave of a scope. Push in docker's words is push or create in ours.
    fn cut(&self, caller: &Caller, repository: RepositoryName, asked: Actions) -> Option<Grant> {
        let allowed = self.settings.rules.allowed(&caller.principal, &repository);
        let both = |action: &Action| asked.allow(*action) && allowed.allow(*action);
        let actions: Actions = Action::ALL.into_iter().filter(both).collect();
        (!actions.is_empty()).then_some(Grant { repository, actions })
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
