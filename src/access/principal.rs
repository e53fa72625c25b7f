//! Who is asking.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::oci::RepositoryName;

use super::Actions;

/// Who is asking: nobody known, a user, the holder of a client certificate, or both. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Principal {
    user: Option<Arc<str>>,
    groups: Arc<[Arc<str>]>,
    certificate: Option<Arc<str>>,
    address: Option<IpAddr>,
    token: Option<Arc<[Grant]>>,
    catalog: bool,
}

/// What a bearer token was issued for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The repository.
    pub repository: RepositoryName,
    /// What may be done to it.
    pub actions: Actions,
}

impl Principal {
    /// Somebody of whom nothing is known.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// A user, and the groups that the user is in.
    pub fn user(name: &str, groups: Vec<Arc<str>>) -> Self {
        Self { user: Some(name.into()), groups: groups.into(), ..Self::default() }
    }

    /// The same, holding a client certificate of this name too.
    #[must_use]
    pub fn with_certificate(self, name: &str) -> Self {
        Self { certificate: Some(name.into()), ..self }
    }

    /// The same, calling from this address; an IPv4 address that is written as an IPv6 one counts as what it is.
    #[must_use]
    pub fn with_address(self, address: IpAddr) -> Self {
        Self { address: Some(address.to_canonical()), ..self }
    }

    /// The same, but acting through a token: only what is in `grants` is possible.
    #[must_use]
    pub fn with_token(self, grants: Vec<Grant>) -> Self {
        Self { token: Some(grants.into()), ..self }
    }

    /// The same, with a token for the list of repositories too.
    #[must_use]
    pub fn with_catalog(self) -> Self {
        Self { catalog: true, ..self }
    }

    /// Whether their token is for the list of repositories.
    pub const fn token_lists(&self) -> bool {
        self.catalog
    }

    /// Whether nothing is known of them but where they call from.
    pub const fn is_anonymous(&self) -> bool {
        self.user.is_none() && self.certificate.is_none()
    }

    /// Whether they act through a token.
    pub const fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// The user's name, if they are one.
    pub fn user_name(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The certificate's name, if they hold one.
    pub fn certificate_name(&self) -> Option<&str> {
        self.certificate.as_deref()
    }

    /// Where they call from, if that is known.
    pub const fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The groups that the user is in.
    pub fn groups(&self) -> &[Arc<str>] {
        &self.groups
    }

    /// The repositories that their token is for; none, where there is no token.
    pub fn granted(&self) -> impl Iterator<Item = &RepositoryName> {
        self.token.iter().flat_map(|grants| grants.iter().map(|grant| &grant.repository))
    }

    /// What the token allows on `repository`; everything, where there is no token.
    pub(super) fn token_actions(&self, repository: &RepositoryName) -> Actions {
        let Some(grants) = &self.token else { return Actions::ALL };
        let granted = grants.iter().filter(|grant| grant.repository == *repository);
        granted.fold(Actions::NONE, |set, grant| set | grant.actions)
    }
}

impl fmt::Display for Principal {
    /// The user's name, or `cert:NAME`, or `-`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.user, &self.certificate) {
            (Some(user), _) => f.write_str(user),
            (None, Some(certificate)) => write!(f, "cert:{certificate}"),
            (None, None) => f.write_str("-"),
        }
    }
}
