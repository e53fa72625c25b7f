//! Who may have what at the upstream, and how they prove it: with a password on every request, or with a token that they
//! get for one.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Asked;
use super::content::repository;
use super::send::Reply;

/// Nobody is asked, unless it says otherwise.
#[derive(Default)]
pub struct Door {
    kind: Kind,
    /// What the tokens are good for: whose they are, and the repositories in their scope.
    tokens: BTreeMap<String, Option<String>>,
    given: usize,
    /// Users and passwords, and the repositories that each may use; `*` for all.
    users: Vec<(String, String, Vec<String>)>,
    /// Repositories for everybody.
    public: Vec<String>,
    /// Where the token service is said to be, if not here.
    realm: Option<String>,
}

#[derive(Default, PartialEq, Clone, Copy)]
enum Kind {
    #[default]
    Open,
    Basic,
    Bearer,
}

impl Door {
    /// Asks for a password.
    pub fn basic() -> Self {
        Self { kind: Kind::Basic, ..Self::default() }
    }

    /// Asks for a token, which it gives out at `/token`.
    pub fn bearer() -> Self {
        Self { kind: Kind::Bearer, ..Self::default() }
    }

    /// Lets a user have these repositories.
    pub fn user(mut self, name: &str, password: &str, repositories: &[&str]) -> Self {
        let repositories = repositories.iter().map(|name| (*name).to_owned()).collect();
        self.users.push((name.to_owned(), password.to_owned(), repositories));
        self
    }

    /// Lets everybody have a repository.
    pub fn public(mut self, repository: &str) -> Self {
        self.public.push(repository.to_owned());
        self
    }

    /// Says that tokens are to be had elsewhere.
    pub fn realm(self, url: &str) -> Self {
        Self { realm: Some(url.to_owned()), ..self }
    }

    pub(super) fn expire(&mut self) {
        self.tokens.clear();
    }

    /// The answer to who may not pass; none to who may.
    pub(super) fn check(&mut self, asked: &Asked) -> Option<Reply> {
        if self.kind == Kind::Open {
            return None;
        }
        if asked.path == "/token" {
            return Some(self.token(asked));
        }
        let wanted = repository(&asked.path).unwrap_or_default();
        let shown = asked.header("authorization");
        let user = match (self.kind, shown) {
            (Kind::Basic, shown) => shown.map(|shown| self.user_of(shown)),
            (_, shown) => shown.map(|shown| {
                let token = shown.strip_prefix("Bearer ")?;
                self.tokens.get(token).map(|user| user.clone().unwrap_or_default())
            }),
        };
        match user {
            Some(Some(user)) if self.may(&user, &wanted) => None,
            Some(Some(_)) if self.kind == Kind::Basic => Some(Reply::error(403, "DENIED")),
            None if self.kind == Kind::Basic && self.public.contains(&wanted) => None,
            _ => Some(Reply::error(401, "UNAUTHORIZED").header("WWW-Authenticate", &self.challenge(asked, &wanted))),
        }
    }

    fn may(&self, user: &str, repository: &str) -> bool {
        let theirs = self.users.iter().filter(|(name, ..)| name == user).flat_map(|(_, _, repositories)| repositories);
        repository.is_empty()
            || self.public.iter().any(|public| public == repository)
            || theirs.into_iter().any(|name| name == "*" || name == repository)
    }

    fn challenge(&self, asked: &Asked, repository: &str) -> String {
        if self.kind == Kind::Basic {
            return "Basic realm=\"upstream\"".to_owned();
        }
        let here = format!("http://{}/token", asked.header("host").unwrap_or_default());
        let realm = self.realm.as_ref().unwrap_or(&here);
        format!("Bearer realm=\"{realm}\",service=\"upstream\",scope=\"repository:{repository}:pull\"")
    }

    /// Gives a token to a user, or to nobody in particular.
    fn token(&mut self, asked: &Asked) -> Reply {
        let user = match asked.header("authorization") {
            None => None,
            Some(shown) => match self.user_of(shown) {
                Some(user) => Some(user),
                None => return Reply::error(401, "UNAUTHORIZED"),
            },
        };
        self.given += 1;
        let token = format!("token-{}", self.given);
        self.tokens.insert(token.clone(), user);
        let text = format!("{{\"token\":\"{token}\",\"expires_in\":300}}");
        Reply::new(200).header("Content-Type", "application/json").body(text.as_bytes())
    }

    fn user_of(&self, shown: &str) -> Option<String> {
        let text = STANDARD.decode(shown.strip_prefix("Basic ")?).ok()?;
        let text = String::from_utf8(text).ok()?;
        let (user, password) = text.split_once(':')?;
        let known = self.users.iter().any(|(name, secret, _)| name == user && secret == password);
        known.then(|| user.to_owned())
    }
}
