//! What is given to those who are known: tokens, refresh tokens, and what others need to check tokens with.

use std::sync::Arc;

use serde_json::Value;

use crate::access::Principal;
use crate::docker::{TokenAccess, TokenFields};
use crate::oci::RepositoryName;

use super::legacy_token::{self, LegacyUse};
use super::refresh_token::{self, Binding};
use super::state::State;
use super::token::{self, IssueError, IssuedToken, LIFETIME_MAX, Order, Wish};
use super::token_keys::Rotation;
use super::{IdentifyError, Identity, TokenKeyError, TokenKeys};

impl Identity {
    /// A token for what `wish` says; it ends with its time, with the user, and with the password. One for ourselves says who
    /// acts, and the rules say what they may when it is used; another service goes by the token alone.
    ///
    /// `service` is what the caller was told in a challenge: ours ([`Identity::service`]), or that of another registry that
    /// the settings name. Nothing else is taken.
    pub fn issue(&self, principal: &Principal, service: &str, wish: &Wish) -> Result<IssuedToken, IssueError> {
        let state = self.state.load();
        check_service(&state, service)?;
        let settings = &state.settings;
        let hash = principal.user_name().map(|user| state.generation.users.hashes.get(user).ok_or(IssueError::NoUser));
        let order = Order {
            principal,
            hash: hash.transpose()?,
            issuer: &settings.realm,
            service,
            wish,
            lifetime: settings.token_lifetime,
            chain: settings.chain,
        };
        token::issue(&order, &self.token_keys.load(), self.clock.now().unix_seconds())
    }

    /// A refresh token with which the user can get tokens for `service`, until its time is up, the user is removed, or the
    /// user's password changes. Who acts through a token gets none.
    pub fn issue_refresh(&self, principal: &Principal, service: &str) -> Result<String, IssueError> {
        let state = self.state.load();
        check_service(&state, service)?;
        if principal.has_token() {
            return Err(IssueError::WithToken);
        }
        let user = principal.user_name().ok_or(IssueError::NoUser)?;
        let hash = state.generation.users.hashes.get(user).ok_or(IssueError::NoUser)?;
        let lifetime = state.settings.refresh_lifetime.as_secs();
        let (keys, now) = (self.token_keys.load(), self.clock.now().unix_seconds());
        refresh_token::issue(binding(&state, service), (user, hash), &keys, lifetime, now)
    }

    /// The user who shows a refresh token for `service`, as if they had shown their password.
    pub fn accept_refresh(&self, token: &str, service: &str) -> Result<Principal, IdentifyError> {
        let state = self.state.load();
        let hash_of = |user: &str| state.generation.users.hashes.get(user);
        let (keys, now) = (self.token_keys.load(), self.clock.now().unix_seconds());
        let user = refresh_token::accept(token, binding(&state, service), &keys, hash_of, now)?;
        state.principal(&user).ok_or(IdentifyError::InvalidToken)
    }

    /// A v1 token with which `principal` can do to `repository` what `access` says, as far as the rules allow it when it is
    /// used; as it stands in a header, without the scheme. It ends with its time, with the user, and with the password.
    ///
    /// One for the caller is given to whoever shows a password or nothing, never to a token; one for the registry opens only
    /// what the registry asks its index.
    pub fn issue_legacy(
        &self,
        principal: &Principal,
        repository: &RepositoryName,
        access: TokenAccess,
        for_whom: LegacyUse,
    ) -> Result<TokenFields, IssueError> {
        if principal.has_token() && for_whom == LegacyUse::Caller {
            return Err(IssueError::WithToken);
        }
        let state = self.state.load();
        let user = principal.user_name();
        let user = match user {
            Some(user) => Some((user, state.generation.users.hashes.get(user).ok_or(IssueError::NoUser)?)),
            None => None,
        };
        // Keys are kept as long as refresh tokens need them, and no longer.
        let lifetime = state.settings.legacy_lifetime.min(state.settings.refresh_lifetime.max(LIFETIME_MAX));
        let order = legacy_token::Order { issuer: &state.settings.realm, user, repository, access, for_whom, lifetime };
        legacy_token::issue(&order, &self.token_keys.load(), self.clock.now().unix_seconds())
    }

    /// The name of our own service in a challenge and in a token's audience, and that of the issuer of all tokens: the realm.
    pub fn service(&self) -> String {
        self.state.load().settings.realm.clone()
    }

    /// Whether tokens are made for this service.
    pub fn serves(&self, service: &str) -> bool {
        check_service(&self.state.load(), service).is_ok()
    }

    /// The public keys of tokens, as a JWK set (RFC 7517).
    pub fn key_set(&self) -> Value {
        self.token_keys.load().key_set()
    }

    /// The certificate in PEM that vouches for all keys of tokens, those to come among them.
    pub fn authority_pem(&self) -> String {
        self.token_keys.load().authority_pem()
    }

    /// The keys of tokens that there should be by now in place of those that there are; nothing, where those are right.
    /// They must be kept before [`Identity::take_keys`] puts them in force.
    pub fn due_keys(&self) -> Result<Option<TokenKeys>, TokenKeyError> {
        let state = self.state.load();
        let (key_lifetime, token_lifetime) = (state.settings.key_lifetime, state.settings.refresh_lifetime);
        let rotation = Rotation { key_lifetime, token_lifetime };
        self.token_keys.load().due(rotation, self.clock.now().unix_seconds())
    }

    /// The keys of tokens that are in force.
    pub fn keys(&self) -> Arc<TokenKeys> {
        self.token_keys.load_full()
    }

    /// Puts keys of tokens in force.
    pub fn take_keys(&self, keys: TokenKeys) {
        self.token_keys.store(Arc::new(keys));
    }
}

fn check_service(state: &State, service: &str) -> Result<(), IssueError> {
    let settings = &state.settings;
    let is_known = service == settings.realm || settings.services.iter().any(|known| known == service);
    if is_known { Ok(()) } else { Err(IssueError::UnknownService) }
}

fn binding<'a>(state: &'a State, service: &'a str) -> Binding<'a> {
    Binding { issuer: &state.settings.realm, service }
}
