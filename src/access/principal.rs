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
    token: Option<Ceiling>,
}

/// What somebody who acts through a token may do at the most, whatever the rules say.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ceiling {
    /// This, to whatever there is: a token of ours says who, and the rules say the rest.
    Actions(Actions),
    /// What is in one of these: a v1 token, which is for one repository.
    Grants(Arc<[Grant]>),
}

/// What a token was issued for.
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

    /// This principal, with a client certificate of this name.
    #[must_use]
    pub fn with_certificate(self, name: &str) -> Self {
        Self { certificate: Some(name.into()), ..self }
    }

    /// This principal, calling from this address; an IPv4 address that is written as an IPv6 one counts as what it is.
    #[must_use]
    pub fn with_address(self, address: IpAddr) -> Self {
        Self { address: Some(address.to_canonical()), ..self }
    }

    /// This principal, acting through a token: only what is in `grants` is possible.
    #[must_use]
    pub fn with_token(self, grants: Vec<Grant>) -> Self {
        Self { token: Some(Ceiling::Grants(grants.into())), ..self }
    }

    /// This principal, acting through a token with which these actions alone are possible.
    #[must_use]
    pub fn with_ceiling(self, actions: Actions) -> Self {
        Self { token: Some(Ceiling::Actions(actions)), ..self }
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

    /// The repositories that their token is for; none, where it is for no certain ones.
    pub fn granted(&self) -> impl Iterator<Item = &RepositoryName> {
        let grants = match &self.token {
            Some(Ceiling::Grants(grants)) => &grants[..],
            _ => &[],
        };
        grants.iter().map(|grant| &grant.repository)
    }

    /// What the token allows on `repository`; everything, where there is no token.
    pub(super) fn token_actions(&self, repository: &RepositoryName) -> Actions {
        match &self.token {
            Some(Ceiling::Grants(grants)) => {
                let granted = grants.iter().filter(|grant| grant.repository == *repository);
                granted.fold(Actions::NONE, |set, grant| set | grant.actions)
            }
            _ => self.token_actions_everywhere(),
        }
    }

    /// What the token allows on whatever there is.
    pub(super) fn token_actions_everywhere(&self) -> Actions {
        match &self.token {
            None => Actions::ALL,
            Some(Ceiling::Actions(actions)) => *actions,
            Some(Ceiling::Grants(_)) => Actions::NONE,
        }
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
