//! The keys that sign tokens: kept in the store, so that tokens outlive a restart, and turned before they are old.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dockgate::config::Token;
use dockgate::identity::{Identity, TokenKey, TokenKeys};
use dockgate::store::Store;

use crate::cli::exit::{Code, Exit};

/// Under which name the keys are kept.
const SETTING: &str = "token_signing_keys";
/// Under which name the only key was kept, before keys were turned.
const OLD_SETTING: &str = "token_signing_key";
/// How often the age of the newest key is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// The keys that are kept; the first process to ask for them makes them.
pub(super) async fn open(store: &Store, token: &Token) -> Result<TokenKeys, Exit> {
    let unusable = |error: &dyn Display| Exit::new(Code::Data, format_args!("the token keys: {error}"));
    let made = match store.setting(OLD_SETTING).await.map_err(|error| unusable(&error))? {
        Some(key) => TokenKeys::of(TokenKey::from_pkcs8(&key).map_err(|error| unusable(&error))?, now()),
        None => TokenKeys::generate(now()).map_err(|error| unusable(&error))?,
    };
    let kept = store.setting_or_insert(SETTING, made.to_bytes()).await.map_err(|error| unusable(&error))?;
    let keys = TokenKeys::from_bytes(&kept).map_err(|error| unusable(&error))?;
    match turned(store, &keys, token).await {
        Ok(keys) => Ok(keys),
        Err(error) => {
            tracing::warn!(%error, "the token keys are old and could not be turned");
            Ok(keys)
        }
    }
}

/// Looks after the age of the keys, for ever.
pub(super) async fn turn(store: Store, identity: Arc<Identity>, token: Token) {
    let mut tick = tokio::time::interval(LOOK_INTERVAL);
    loop {
        tick.tick().await;
        match turned(&store, &identity.keys(), &token).await {
            Ok(keys) => identity.turn_keys(keys),
            Err(error) => tracing::warn!(%error, "the token keys are old and could not be turned"),
        }
    }
}

/// The keys as they are to be now, kept before anything is signed with them.
async fn turned(store: &Store, keys: &TokenKeys, token: &Token) -> Result<TokenKeys, String> {
    let longest = token.lifetime.max(token.refresh_lifetime);
    match keys.turned(now(), token.key_lifetime, longest).map_err(|error| error.to_string())? {
        None => Ok(keys.clone()),
        Some(keys) => {
            store.put_setting(SETTING, keys.to_bytes()).await.map_err(|error| error.to_string())?;
            tracing::info!(keys = keys.public().len(), "the token keys were turned");
            Ok(keys)
        }
    }
}

/// In seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
