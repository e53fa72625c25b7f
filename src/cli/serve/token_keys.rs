//! The keys of tokens: kept in the store, used by the gateway, made anew while it runs.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use dockgate::identity::{Identity, TokenKeyError, TokenKeys};
use dockgate::store::Store;

use super::until;
use crate::cli::exit::{Code, Exit};

/// Under which name the keys are kept.
const SETTING: &str = "token_keys";

/// How often it is asked whether it is time for another key; that costs nothing.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long after a failure it is asked again.
const FAILURE_INTERVAL: Duration = Duration::from_secs(60);

/// The keys; the first process to ask for them makes them.
pub(super) async fn open(store: &Store) -> Result<TokenKeys, Exit> {
    if let Some(kept) = store.setting(SETTING).await.map_err(unusable)? {
        return TokenKeys::from_kept(&kept).map_err(unusable);
    }
    let made = TokenKeys::generate(SystemTime::now()).map_err(unusable)?.to_kept();
    let kept = store.setting_or_insert(SETTING, made).await.map_err(unusable)?;
    TokenKeys::from_kept(&kept).map_err(unusable)
}

fn unusable(error: impl Display) -> Exit {
    Exit::new(Code::Data, format_args!("the keys of tokens: {error}"))
}

/// Makes what is due; whether that went well. Tokens are good with the keys that there are, so a failure is for the log.
pub(super) async fn renew(store: &Store, identity: &Identity) -> bool {
    let failed = |error: &dyn Display| {
        tracing::error!(%error, "the keys of tokens were not renewed; the old ones go on");
        false
    };
    match identity.due_keys() {
        Ok(None) => true,
        Ok(Some(keys)) => match replace(store, identity, keys).await {
            Ok(()) => true,
            Err(error) => failed(&error),
        },
        Err(error) => failed(&error),
    }
}

/// Keeps `keys` before any token is signed with them: a token must outlive a restart.
async fn replace(store: &Store, identity: &Identity, keys: TokenKeys) -> Result<(), Box<dyn std::error::Error>> {
    let (before, kept) = (identity.keys(), keys.to_kept());
    if store.replace_setting(SETTING, before.to_kept(), kept).await? {
        let is_new = |id: &&str| before.ids().all(|old| old != *id);
        keys.ids().filter(is_new).for_each(|id| tracing::info!(id, "a new key for tokens was made"));
        identity.take_keys(keys);
        return Ok(());
    }
    // Another process was faster, and its keys are as good.
    let kept = store.setting(SETTING).await?.ok_or(TokenKeyError::Kept)?;
    identity.take_keys(TokenKeys::from_kept(&kept)?);
    Ok(())
}

/// Renews the keys whenever it is time, until it is told to stop.
pub(super) async fn follow(store: Store, identity: Arc<Identity>, stopped: watch::Receiver<bool>) {
    let renewing = async {
        loop {
            let is_good = renew(&store, &identity).await;
            tokio::time::sleep(if is_good { LOOK_INTERVAL } else { FAILURE_INTERVAL }).await;
        }
    };
    tokio::select! {
        () = renewing => {}
        () = until(stopped) => {}
    }
}
