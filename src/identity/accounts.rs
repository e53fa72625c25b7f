//! Users who make themselves, and who change their own password: where the settings allow it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::failures::TooMany;
use super::htpasswd::{self, BadName};
use super::user_file::Overwrite;
use super::{COST_DEFAULT, Identity, OpenError, Password, UserFile, UserFileError};

/// What stands in the log and in the store where nobody has logged in, so that no user can be called so.
const NOBODY: &str = "-";

/// The file of users was not changed.
#[derive(Debug)]
pub enum AccountError {
    /// The settings do not allow it.
    NotAllowed,
    /// There is a user of this name.
    Exists,
    /// The configuration speaks of this name: whoever took it would get rights that are not theirs.
    Taken,
    /// Nobody can be called so.
    Name(BadName),
    /// The file refuses the password, or cannot be written.
    File(UserFileError),
    /// It was written, but cannot be read again: it is not in force.
    NotInForce(OpenError),
    /// Too many from this address.
    TooMany {
        /// When the next one is heard.
        retry_after: Duration,
    },
    /// Too much is being hashed.
    Busy {
        /// When it is worth coming back.
        retry_after: Duration,
    },
}

impl Identity {
    /// Whether whoever asks becomes a user.
    pub fn registers(&self) -> bool {
        self.state.load().settings.registration
    }

    /// Whether there is a user of this name.
    pub fn has_user(&self, name: &str) -> bool {
        self.state.load().principal(name).is_some()
    }

    /// Makes a user, in force at once. `is_spoken_of` says whether a rule names the user.
    ///
    /// What is asked counts like a failed login: an address gets as many new users in a minute.
    pub async fn register(
        self: &Arc<Self>,
        name: &str,
        password: Password,
        client: IpAddr,
        is_spoken_of: bool,
    ) -> Result<(), AccountError> {
        let state = self.state.load_full();
        if !state.settings.registration {
            return Err(AccountError::NotAllowed);
        }
        htpasswd::check_name(name).map_err(AccountError::Name)?;
        let in_group = state.settings.groups.values().flatten().any(|member| member == name);
        if state.principal(name).is_some() {
            return Err(AccountError::Exists);
        }
        if is_spoken_of || in_group || NOBODY == name {
            return Err(AccountError::Taken);
        }
        self.logins.charge_registration(client, state.settings.login_failures)?;
        self.write_user(name, password, client, Overwrite::Never).await
    }

    /// Gives a user another password in place of the `old` one, in force at once. Who was removed meanwhile stays so.
    pub async fn change_password(
        self: &Arc<Self>,
        name: &str,
        old: Password,
        password: Password,
        client: IpAddr,
    ) -> Result<(), AccountError> {
        if !self.state.load().settings.password_changes {
            return Err(AccountError::NotAllowed);
        }
        self.write_user(name, password, client, Overwrite::Of(old)).await
    }

    /// Hashes in the place of a login, so that no more is hashed at once than the limits say.
    async fn write_user(
        self: &Arc<Self>,
        name: &str,
        password: Password,
        client: IpAddr,
        overwrite: Overwrite,
    ) -> Result<(), AccountError> {
        let state = self.state.load_full();
        let busy = || AccountError::Busy { retry_after: state.slots.retry_after() };
        let waiting = state.slots.hashes.enter(self.logins.ticket(client, name)).ok_or_else(busy)?;
        let seat = waiting.seat(state.slots.wait_timeout).await.ok_or_else(busy)?;
        let (identity, name) = (Arc::clone(self), name.to_owned());
        let file = UserFile::new(state.settings.htpasswd.clone());
        let written = tokio::task::spawn_blocking(move || {
            let written = file.write(&name, &password, COST_DEFAULT, overwrite);
            drop(seat);
            match written {
                Ok(_) => identity.refresh().map(drop).map_err(AccountError::NotInForce),
                Err(UserFileError::Exists) => Err(AccountError::Exists),
                Err(error) => Err(AccountError::File(error)),
            }
        });
        written.await.map_err(|_| busy())?
    }
}

impl From<TooMany> for AccountError {
    fn from(TooMany { retry_after }: TooMany) -> Self {
        Self::TooMany { retry_after }
    }
}

impl fmt::Display for AccountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAllowed => f.write_str("users and passwords are the operator's here; ask for dockgate user add"),
            Self::Exists => f.write_str("there is a user of this name; log in, or choose another name"),
            Self::Taken => f.write_str("this name is taken; choose another one"),
            Self::Name(error) => error.fmt(f),
            Self::File(error) => error.fmt(f),
            Self::NotInForce(error) => error.fmt(f),
            Self::TooMany { .. } => f.write_str("too many new users from this address; try again in a minute"),
            Self::Busy { .. } => f.write_str("too many logins at once; try again in a few seconds"),
        }
    }
}

impl std::error::Error for AccountError {}
