//! Who answers: the registry inside, the v1 registry behind it, or a registry elsewhere; by the name that was asked for,
//! whatever way it was asked for.

use std::sync::Arc;

use http::header::VIA;
use http::{Method, StatusCode};

use crate::access::{Create, Pull};
use crate::oci::{ErrorCode, RepositoryName};
use crate::registry::{Backend, Index, Remote};

use super::identify::scope;
use super::names::{Asked, Candidates, Found, RemoteName};
use super::respond::Failure;
use super::route::{BlobVerb, LegacyRoute, Route, RouteError, Routed};
use super::screen::Screened;
use super::walk::{Caller, Walk};

/// Who answers a request, and the request in the names by which rules and logs know things.
pub(super) struct Picked {
    pub(super) route: Route,
    pub(super) answerer: Answerer,
}

/// Who answers.
pub(super) enum Answerer {
    /// A registry here, and what `?ns=` said, where it decided that.
    Here(Backend, Option<Namespace>),
    /// The index, before a v1 registry if there is one.
    Index(Option<Arc<Index>>),
    /// A registry elsewhere.
    There(Elsewhere),
    /// The registry inside; for what it does not have, a registry elsewhere that dockerd takes for a mirror of Docker Hub.
    HereElse(Backend, Elsewhere, RepositoryName),
}

/// What `?ns=` said, and what the names of its repositories begin with here, if it is not all that there is.
pub(super) struct Namespace {
    pub(super) text: String,
    pub(super) below: Option<RepositoryName>,
}

/// A registry elsewhere, as a request came to it.
pub(super) struct Elsewhere {
    pub(super) remote: Arc<Remote>,
    /// The repository's names, here and there.
    pub(super) name: Option<RemoteName>,
    /// What the names of its repositories begin with here; nothing, where it is the default.
    pub(super) prefix: Option<RepositoryName>,
    /// What `?ns=` said.
    pub(super) namespace: Option<String>,
}

impl Walk<'_> {
    pub(super) fn pick(&self, screened: &Screened, routed: Routed) -> Result<Picked, Failure> {
        let Routed { route, prefix, namespace } = routed;
        match &route {
            Route::Legacy(legacy) => return self.pick_legacy(legacy.clone()),
            Route::Root | Route::Token(_) | Route::TokenForm | Route::TokenKeys | Route::TokenCertificates => {
                return Ok(Picked { route, answerer: Answerer::Here(self.hosted_backend(), None) });
            }
            _ => {}
        }
        let asked =
            Asked { host: &screened.host, path_prefix: prefix.as_ref(), namespace: namespace.as_deref(), name: None };
        let Found { candidates, namespace } = self.rooms.names.find(&Asked { name: route.repository(), ..asked })?;
        match candidates {
            Candidates::Hosted { else_mirror: Some(mirror), .. } if is_read(&self.parts.method) => {
                let canonical = mirror.canonical.clone();
                let elsewhere = self.elsewhere(&mirror.upstream.clone(), Some(mirror), namespace)?;
                Ok(Picked { route, answerer: Answerer::HereElse(self.hosted_backend(), elsewhere, canonical) })
            }
            Candidates::Hosted { name, below, .. } => {
                let route = match name {
                    Some(name) if namespace.is_some() => {
                        route.of_repository(name).mounting(|from| self.same_namespace(asked, &from))
                    }
                    _ => route,
                };
                let namespace = namespace.map(|text| Namespace { text, below });
                Ok(Picked { route, answerer: Answerer::Here(self.hosted_backend(), namespace) })
            }
            Candidates::Remote { upstream, name } => {
                self.check_loop()?;
                let route = match &name {
                    Some(name) => route.of_repository(name.canonical.clone()),
                    None => route,
                };
                Ok(Picked { route, answerer: Answerer::There(self.elsewhere(&upstream, name, namespace)?) })
            }
        }
    }

    /// What a caller may have of the registry inside is theirs; for what it does not have, or they may not have, the mirror
    /// is asked. Nobody learns by that which names there are inside.
    pub(super) async fn settle(&self, picked: Picked, caller: &Caller) -> Result<Picked, Failure> {
        let Answerer::HereElse(backend, elsewhere, canonical) = picked.answerer else { return Ok(picked) };
        let namespace = || elsewhere.namespace.clone().map(|text| Namespace { text, below: None });
        let here = |route| Ok(Picked { route, answerer: Answerer::Here(backend.clone(), namespace()) });
        let Some(name) = picked.route.repository().cloned() else { return here(picked.route) };
        // Who pushes asks first which blobs are there already. What the mirror has, a manifest that is pushed here cannot use.
        if matches!(picked.route, Route::Blob(_, _, BlobVerb::Head)) {
            if self.settings.rules.authorize::<Create>(&caller.principal, &name).is_ok() {
                return here(picked.route);
            }
            // docker 29 and containerd say who pushes only when they are asked; with a namespace they pull.
            if elsewhere.namespace.is_none() {
                self.ask_who(caller, scope(&picked.route))?;
            }
        }
        let may_pull = |name: &RepositoryName| self.settings.rules.authorize::<Pull>(&caller.principal, name).is_ok();
        let is_theirs = may_pull(&name);
        if is_theirs && self.rooms.hosted.has(&name).await? {
            return here(picked.route);
        }
        if is_theirs || may_pull(&canonical) {
            self.check_loop()?;
            return Ok(Picked { route: picked.route.of_repository(canonical), answerer: Answerer::There(elsewhere) });
        }
        here(picked.route)
    }

    /// The name here of another repository of the registry inside, by what the caller calls it.
    fn same_namespace(&self, asked: Asked<'_>, from: &RepositoryName) -> Option<RepositoryName> {
        let found = self.rooms.names.find(&Asked { name: Some(from), ..asked }).ok()?;
        if let Candidates::Hosted { name, .. } = found.candidates { name } else { None }
    }

    /// Another repository of the same upstream, by what the caller calls it.
    pub(super) fn same_upstream(
        &self,
        elsewhere: &Elsewhere,
        screened: &Screened,
        name: &RepositoryName,
    ) -> Option<RemoteName> {
        let asked = Asked {
            host: &screened.host,
            path_prefix: None,
            namespace: elsewhere.namespace.as_deref(),
            name: Some(name),
        };
        match self.rooms.names.find(&asked).ok()?.candidates {
            Candidates::Remote { upstream, name: Some(found) } if *upstream == *elsewhere.remote.name() => Some(found),
            _ => None,
        }
    }

    fn elsewhere(
        &self,
        upstream: &str,
        name: Option<RemoteName>,
        namespace: Option<String>,
    ) -> Result<Elsewhere, Failure> {
        let known = self.rooms.remotes.get(upstream).ok_or_else(|| Failure::from(RouteError::Unknown))?;
        let prefix = (self.rooms.default != upstream).then(|| known.prefix().clone());
        Ok(Elsewhere { remote: Arc::clone(known), name, prefix, namespace })
    }

    fn hosted_backend(&self) -> Backend {
        Backend::Hosted(Arc::clone(&self.rooms.hosted))
    }

    /// Without a v1 registry there is still something to find.
    fn pick_legacy(&self, route: LegacyRoute) -> Result<Picked, Failure> {
        match route {
            LegacyRoute::Ping => {}
            LegacyRoute::Search(_) => self.check_loop()?,
            _ if self.rooms.legacy.is_none() => return Err(self.no_legacy()),
            _ => self.check_loop()?,
        }
        Ok(Picked { route: Route::Legacy(route), answerer: Answerer::Index(self.rooms.legacy.clone()) })
    }

    /// A request that we sent ourselves would go round for ever.
    fn check_loop(&self) -> Result<(), Failure> {
        let ours = |entry: &str| entry.split_whitespace().nth(1) == Some(&*self.rooms.via);
        let vias = self.parts.headers.get_all(VIA).iter().filter_map(|via| via.to_str().ok());
        if !vias.flat_map(|via| via.split(',')).any(ours) {
            return Ok(());
        }
        let message = "this request came from this gateway: an upstream leads back to it; mend its url in upstreams/";
        Err(Failure::new(StatusCode::LOOP_DETECTED, ErrorCode::Unsupported, message).private(message))
    }
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}
