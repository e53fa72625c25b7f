//! The rules, and the one function that decides.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::oci::RepositoryName;

use super::permit::{CatalogPermit, Permit, Pull, Purpose, WritePermit};
use super::{Action, Actions, Principal, RepositoryPattern};

/// Whom a rule is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Everybody, known or not.
    Anyone,
    /// Every user, and every holder of a certificate.
    Authenticated,
    /// One user.
    User(String),
    /// The users of a group.
    Group(String),
    /// The holder of a client certificate.
    Certificate(String),
    /// Everybody who calls from an address of this network, known or not.
    Network(IpNet),
}

/// A text does not say whom a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WhoError;

/// A rule grants actions on repositories to somebody. Rules only add up; none takes away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Whom it is for: any of these.
    pub who: Vec<Who>,
    /// Which repositories it is about: any of these.
    pub repositories: Vec<RepositoryPattern>,
    /// What it grants.
    pub actions: Actions,
}

/// All rules. Their order means nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules(Vec<Rule>);

/// Why somebody may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// Nothing is known of them, and nothing grants it to anyone.
    Unauthenticated,
    /// They may not pull, so they are not told whether the repository exists.
    Hidden,
    /// They may not do this, whether or not the repository exists.
    Forbidden,
    /// They may, but the token that they act through was issued for less.
    InsufficientScope,
}

impl Rules {
    /// From what was configured.
    pub const fn new(rules: Vec<Rule>) -> Self {
        Self(rules)
    }

    /// Leave for `principal` to do `A` to `repository`.
    pub fn authorize<A: Purpose>(
        &self,
        principal: &Principal,
        repository: &RepositoryName,
    ) -> Result<Permit<A>, Denied> {
        if !self.allowed(principal, repository).allow(A::ACTION) {
            return Err(refusal(principal, A::ACTION));
        }
        if !principal.token_actions(repository).allow(A::ACTION) {
            return Err(Denied::InsufficientScope);
        }
        Ok(Permit::new(principal, repository))
    }

    /// Leave for `principal` to write to `repository`: to push, or else to create.
    pub fn authorize_write(&self, principal: &Principal, repository: &RepositoryName) -> Result<WritePermit, Denied> {
        match self.authorize(principal, repository) {
            Ok(push) => Ok(WritePermit::Push(push)),
            Err(_) => self.authorize(principal, repository).map(WritePermit::Create),
        }
    }

    /// Leave for `principal` to do `A` to what is in all of `repositories`. Leave for one of them is enough, and is what this
    /// gives.
    pub fn authorize_any<'a, A: Purpose>(
        &self,
        principal: &Principal,
        repositories: impl IntoIterator<Item = &'a RepositoryName>,
    ) -> Result<Permit<A>, Denied> {
        let mut sees = false;
        for repository in repositories {
            match self.authorize(principal, repository) {
                Ok(permit) => return Ok(permit),
                // What their token is not for, they do not see through it.
                Err(_) => sees |= self.authorize::<Pull>(principal, repository).is_ok(),
            }
        }
        Err(match sees {
            _ if principal.is_anonymous() => Denied::Unauthenticated,
            true => Denied::Forbidden,
            false => Denied::Hidden,
        })
    }

    /// Whether `principal` may do `action` to whatever there is: only a rule whose pattern is `**` says so.
    ///
    /// Nobody may through a token that is for certain repositories.
    pub fn allow_everywhere(&self, principal: &Principal, action: Action) -> bool {
        let for_them = self.0.iter().filter(|rule| rule.is_for(principal));
        let everywhere = for_them.filter(|rule| rule.repositories.iter().any(RepositoryPattern::is_everything));
        let allowed = everywhere.fold(Actions::NONE, |set, rule| set | rule.actions);
        allowed.allow(action) && principal.token_actions_everywhere().allow(action)
    }

    /// Whether `principal` may do `action` to every repository below `prefix`, or to every one there is, whatever token they
    /// act through. Only a pattern that says just that does: `PREFIX/**`, or `**`.
    pub fn cover(&self, principal: &Principal, action: Action, prefix: Option<&RepositoryName>) -> bool {
        let below = prefix.map(|prefix| format!("{prefix}/**"));
        let covers = |pattern: &RepositoryPattern| {
            pattern.is_everything() || below.as_ref().is_some_and(|below| pattern.to_string() == *below)
        };
        let for_them = self.0.iter().filter(|rule| rule.is_for(principal));
        let all = for_them.filter(|rule| rule.repositories.iter().any(covers));
        all.fold(Actions::NONE, |set, rule| set | rule.actions).allow(action)
    }

    /// Leave to list what `principal` may pull; a token must not be for certain repositories.
    pub fn authorize_catalog(self: &Arc<Self>, principal: &Principal) -> Result<CatalogPermit, Denied> {
        if !principal.token_actions_everywhere().allow(Action::Pull) {
            return Err(Denied::InsufficientScope);
        }
        Ok(CatalogPermit { rules: Arc::clone(self), principal: principal.clone() })
    }

    /// All that the rules grant `principal` on `repository`, whatever token they act through.
    pub fn allowed(&self, principal: &Principal, repository: &RepositoryName) -> Actions {
        // Who first: that is a comparison, a pattern is a walk over the name.
        let for_them = self.0.iter().filter(|rule| rule.is_for(principal));
        let name: Vec<&str> = repository.as_str().split('/').collect();
        let about_it = for_them.filter(|rule| rule.repositories.iter().any(|pattern| pattern.matches_parts(&name)));
        about_it.fold(Actions::NONE, |set, rule| set | rule.actions)
    }

    /// Whether some rule is for callers from this address who show nothing.
    pub fn grant_anyone(&self, address: IpAddr) -> bool {
        let nobody = Principal::anonymous().with_address(address);
        self.0.iter().any(|rule| rule.is_for(&nobody))
    }

    /// Whether some rule is for the user of this name.
    pub fn name_user(&self, user: &str) -> bool {
        self.0.iter().flat_map(|rule| &rule.who).any(|who| matches!(who, Who::User(name) if name == user))
    }

    /// Whether some rule is for known callers only.
    pub fn need_user(&self) -> bool {
        self.0.iter().flat_map(|rule| &rule.who).any(Who::is_known)
    }
}

impl Rule {
    fn is_for(&self, principal: &Principal) -> bool {
        self.who.iter().any(|who| who.is(principal))
    }
}

/// Whoever may not pull is not told whether a repository exists; whoever may not write is told so for every name alike.
fn refusal(principal: &Principal, action: Action) -> Denied {
    match action {
        _ if principal.is_anonymous() => Denied::Unauthenticated,
        Action::Pull => Denied::Hidden,
        _ => Denied::Forbidden,
    }
}

impl Who {
    fn is(&self, principal: &Principal) -> bool {
        match self {
            Self::Anyone => true,
            Self::Authenticated => !principal.is_anonymous(),
            Self::User(name) => principal.user_name() == Some(name),
            Self::Group(name) => principal.groups().iter().any(|group| **group == **name),
            Self::Certificate(name) => principal.certificate_name() == Some(name),
            Self::Network(network) => principal.address().is_some_and(|address| network.contains(&address)),
        }
    }

    /// Whether only who shows something can be it.
    const fn is_known(&self) -> bool {
        !matches!(self, Self::Anyone | Self::Network(_))
    }
}

/// A network, or one address; what stands behind the length of the network does not count.
fn network(text: &str) -> Option<IpNet> {
    let network = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    Some(network.trunc())
}

impl fmt::Display for WhoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is one of anyone, authenticated, user:NAME, group:NAME, cert:NAME, network:ADDRESS/LENGTH")
    }
}

impl std::error::Error for WhoError {}

impl FromStr for Who {
    type Err = WhoError;

    fn from_str(text: &str) -> Result<Self, WhoError> {
        match text.split_once(':') {
            None if text == "anyone" => Ok(Self::Anyone),
            None if text == "authenticated" => Ok(Self::Authenticated),
            Some((_, "")) | None => Err(WhoError),
            Some(("user", name)) => Ok(Self::User(name.into())),
            Some(("group", name)) => Ok(Self::Group(name.into())),
            Some(("cert", name)) => Ok(Self::Certificate(name.into())),
            Some(("network", text)) => network(text).map(Self::Network).ok_or(WhoError),
            Some(_) => Err(WhoError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Create, Delete, Grant, Leave as _, Push};

    fn rule(who: &str, repositories: &str, actions: &[Action]) -> Rule {
        Rule {
            who: vec![who.parse().unwrap()],
            repositories: vec![repositories.parse().unwrap()],
            actions: actions.iter().copied().collect(),
        }
    }

    fn rules() -> Rules {
        Rules::new(vec![
            rule("anyone", "public/**", &[Action::Pull]),
            rule("authenticated", "team/**", &[Action::Pull]),
            rule("user:ada", "team/**", &[Action::Push]),
            rule("group:ci", "team/**", &[Action::Create]),
            rule("cert:robot", "**", &Action::ALL),
        ])
    }

    fn authorize<A: Purpose>(principal: &Principal, repository: &str) -> Result<(), Denied> {
        rules().authorize::<A>(principal, &repository.parse().unwrap()).map(drop)
    }

    #[test]
    fn rules_add_up_and_what_nothing_grants_is_denied() {
        let (nobody, ada) = (Principal::anonymous(), Principal::user("ada", vec![]));
        assert_eq!(authorize::<Pull>(&nobody, "public/a"), Ok(()));
        assert_eq!(authorize::<Push>(&nobody, "public/a"), Err(Denied::Unauthenticated));
        assert_eq!(authorize::<Pull>(&nobody, "team/a"), Err(Denied::Unauthenticated));
        assert_eq!(authorize::<Push>(&ada, "team/a"), Ok(()));
        assert_eq!(authorize::<Delete>(&ada, "team/a"), Err(Denied::Forbidden));
        assert_eq!(authorize::<Pull>(&ada, "other/a"), Err(Denied::Hidden));
        assert_eq!(authorize::<Push>(&ada, "other/a"), Err(Denied::Forbidden));
        assert_eq!(authorize::<Delete>(&nobody.with_certificate("robot"), "x"), Ok(()));
    }

    #[test]
    fn who_may_only_create_never_overwrites() {
        let write = |principal: &Principal, repository: &str| {
            rules().authorize_write(principal, &repository.parse().unwrap()).map(|write| write.may_overwrite())
        };
        let (ada, runner) = (Principal::user("ada", vec![]), Principal::user("runner", vec!["ci".into()]));
        assert_eq!((write(&ada, "team/a"), write(&runner, "team/a")), (Ok(true), Ok(false)));
        assert_eq!(authorize::<Push>(&runner, "team/a"), Err(Denied::Forbidden));
        assert_eq!((authorize::<Create>(&runner, "team/a"), authorize::<Create>(&ada, "team/a")), (Ok(()), Ok(())));
        assert_eq!(write(&runner, "other/a"), Err(Denied::Forbidden));
        assert_eq!(write(&runner.with_ceiling(Action::Pull.into()), "team/a"), Err(Denied::InsufficientScope));
        let creates = Actions::from(Action::Pull) | Action::Create.into();
        assert_eq!(write(&ada.with_ceiling(creates), "team/a"), Ok(false));
    }

    #[test]
    fn a_token_only_narrows() {
        let grant = |repository: &str| Grant { repository: repository.parse().unwrap(), actions: Action::Pull.into() };
        let ada = Principal::user("ada", vec![]).with_token(vec![grant("team/a"), grant("other/a")]);
        assert_eq!(authorize::<Pull>(&ada, "team/a"), Ok(()));
        assert_eq!(authorize::<Push>(&ada, "team/a"), Err(Denied::InsufficientScope));
        assert_eq!(authorize::<Pull>(&ada, "team/b"), Err(Denied::InsufficientScope));
        assert_eq!(authorize::<Pull>(&ada, "other/a"), Err(Denied::Hidden));
    }

    #[test]
    fn a_ceiling_is_the_same_for_all_repositories() {
        let most = Actions::from(Action::Pull) | Action::Push.into();
        let robot = Principal::anonymous().with_certificate("robot").with_ceiling(most);
        for repository in ["team/a", "other/a"] {
            assert_eq!(authorize::<Push>(&robot, repository), Ok(()));
            assert_eq!(authorize::<Delete>(&robot, repository), Err(Denied::InsufficientScope));
        }
        let ada = Principal::user("ada", vec![]).with_ceiling(Actions::ALL);
        assert_eq!(authorize::<Delete>(&ada, "team/a"), Err(Denied::Forbidden));
        assert_eq!(authorize::<Pull>(&ada, "other/a"), Err(Denied::Hidden));
    }

    #[test]
    fn everywhere_takes_a_rule_for_everything() {
        let everywhere = |principal: &Principal| rules().allow_everywhere(principal, Action::Pull);
        let robot = Principal::anonymous().with_certificate("robot");
        assert!(everywhere(&robot) && everywhere(&robot.clone().with_ceiling(Action::Pull.into())));
        assert!(!everywhere(&robot.with_token(vec![])));
        assert!(!everywhere(&Principal::anonymous()) && !everywhere(&Principal::user("ada", vec![])));
    }

    #[test]
    fn one_of_several_repositories_is_enough() {
        fn any<A: Purpose>(principal: &Principal, names: &[&str]) -> Result<String, Denied> {
            let names: Vec<RepositoryName> = names.iter().map(|name| name.parse().unwrap()).collect();
            rules().authorize_any::<A>(principal, &names).map(|permit| permit.repository().to_string())
        }
        let (nobody, ada) = (Principal::anonymous(), Principal::user("ada", vec![]));
        let runner = Principal::user("runner", vec!["ci".into()]);
        assert_eq!(any::<Pull>(&ada, &["other/a", "team/a", "team/b"]), Ok("team/a".into()));
        assert_eq!(any::<Push>(&ada, &["public/a", "team/a"]), Ok("team/a".into()));
        assert_eq!(any::<Push>(&ada, &["other/a", "public/a"]), Err(Denied::Forbidden));
        assert_eq!(any::<Push>(&runner, &["team/a"]), Err(Denied::Forbidden), "may create, not overwrite");
        assert_eq!(any::<Pull>(&ada, &["other/a"]), Err(Denied::Hidden));
        assert_eq!(any::<Pull>(&ada, &[]), Err(Denied::Hidden));
        assert_eq!(any::<Pull>(&nobody, &["team/a"]), Err(Denied::Unauthenticated));
        assert_eq!(any::<Pull>(&nobody, &["public/a"]), Ok("public/a".into()));
        let grant = Grant { repository: "team/b".parse().unwrap(), actions: Action::Pull.into() };
        let narrow = ada.with_token(vec![grant]);
        assert_eq!(any::<Pull>(&narrow, &["team/a"]), Err(Denied::Hidden));
        assert_eq!(any::<Delete>(&narrow, &["team/a"]), Err(Denied::Hidden));
        assert_eq!(any::<Delete>(&narrow, &["team/b"]), Err(Denied::Forbidden));
        assert_eq!(any::<Pull>(&narrow, &["team/a", "team/b"]), Ok("team/b".into()));
    }

    #[test]
    fn a_rule_may_name_a_user() {
        assert!(rules().name_user("ada"));
        assert!(!rules().name_user("ci") && !rules().name_user("robot"));
    }

    #[test]
    fn a_catalog_shows_what_may_be_pulled() {
        let rules = Arc::new(rules());
        let narrow = Principal::anonymous().with_token(vec![]);
        assert_eq!(rules.authorize_catalog(&narrow).err(), Some(Denied::InsufficientScope));
        assert!(rules.authorize_catalog(&narrow.with_ceiling(Action::Pull.into())).is_ok());
        let permit = rules.authorize_catalog(&Principal::anonymous()).unwrap();
        assert!(permit.shows(&"public/a".parse().unwrap()));
        assert!(!permit.shows(&"team/a".parse().unwrap()));
    }

    #[test]
    fn a_network_serves_whoever_calls_from_it() {
        let rules = Rules::new(vec![
            rule("network:10.0.0.0/8", "mirror/**", &[Action::Pull]),
            rule("network:2001:db8::7", "mirror/**", &[Action::Pull]),
            rule("user:ada", "team/**", &[Action::Pull]),
        ]);
        let from = |address: &str| Principal::anonymous().with_address(address.parse().unwrap());
        let pulls = |principal: &Principal, repository: &str| {
            rules.authorize::<Pull>(principal, &repository.parse().unwrap()).map(drop)
        };
        for inside in ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::7"] {
            assert_eq!(pulls(&from(inside), "mirror/a"), Ok(()), "{inside}");
            assert_eq!(pulls(&from(inside), "team/a"), Err(Denied::Unauthenticated), "{inside}");
            assert!(rules.grant_anyone(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["11.0.0.1", "2001:db8::8", "::a01:203"] {
            assert_eq!(pulls(&from(outside), "mirror/a"), Err(Denied::Unauthenticated), "{outside}");
            assert!(!rules.grant_anyone(outside.parse().unwrap()), "{outside}");
        }
        assert_eq!(pulls(&Principal::anonymous(), "mirror/a"), Err(Denied::Unauthenticated), "from nowhere");
        let ada = Principal::user("ada", vec![]);
        assert_eq!(pulls(&ada, "mirror/a"), Err(Denied::Hidden));
        let ada = ada.with_address("10.0.0.1".parse().unwrap());
        assert_eq!((pulls(&ada, "mirror/a"), pulls(&ada, "team/a")), (Ok(()), Ok(())));
        assert!(rules.need_user());
        assert!(!Rules::new(vec![rule("network:10.0.0.0/8", "**", &[Action::Pull])]).need_user());
    }

    #[test]
    fn who_is_written_in_six_ways() {
        for bad in ["", "nobody", "user:", "users:a", "user", "Anyone", "network:", "network:10.0.0.0/33", "network:a"]
        {
            assert_eq!(bad.parse::<Who>(), Err(WhoError), "{bad}");
        }
        assert_eq!("user:a:b".parse(), Ok(Who::User("a:b".into())));
        assert_eq!("network:10.1.2.3/8".parse::<Who>(), "network:10.0.0.0/8".parse());
        assert_eq!("network:10.1.2.3".parse::<Who>(), "network:10.1.2.3/32".parse());
    }
}
