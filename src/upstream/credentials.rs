//! What is shown to an upstream: ours from its file or from a command, or the caller's own.

use std::fmt;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Instant, timeout};

use crate::config::{self, Secret};

use super::error::SendError;

/// How much a credential command may print.
const OUTPUT_BYTES_MAX: u64 = 64 * 1024;
/// How long a command that failed is left alone.
const REST: Duration = Duration::from_secs(10);
/// So much before its credentials end a command is run again.
const MARGIN: Duration = Duration::from_secs(30);
/// The user name under which docker's credential helpers give a refresh token.
const TOKEN_USER: &str = "<token>";

/// A user and a password, to be shown to an upstream. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) username: String,
    pub(super) password: Secret,
}

/// What a caller showed, where the upstream is shown it; possibly nothing. Two are equal if they show the same.
#[derive(Clone)]
pub struct CallerCredentials {
    pub(super) login: Option<Login>,
    /// Tells them apart in caches without keeping them there.
    hash: [u8; 32],
}

/// Where our own credentials come from.
pub(super) enum Source {
    None,
    Fixed(Login),
    Command(Arc<Running>),
}

/// A command that prints credentials, and what it printed last.
pub(super) struct Running {
    upstream: String,
    command: Vec<String>,
    lifetime: Duration,
    timeout: Duration,
    /// Locked while it runs.
    last: Arc<Mutex<Option<Last>>>,
}

/// A command and all that it started: they end with it where it does not end by itself.
struct Group(Child);

#[derive(Clone)]
struct Last {
    outcome: Result<Login, String>,
    until: Instant,
}

/// Docker's credential helpers print this.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helper {
    username: String,
    secret: String,
}

impl Login {
    /// The header that shows it, marked as sensitive (RFC 7617).
    pub(super) fn basic(&self) -> Option<HeaderValue> {
        let text = STANDARD.encode(format!("{}:{}", self.username, self.password.expose()));
        let mut value = HeaderValue::try_from(format!("Basic {text}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// A refresh token, if it is one.
    pub(super) fn refresh_token(&self) -> Option<&Secret> {
        (self.username == TOKEN_USER).then_some(&self.password)
    }
}

impl CallerCredentials {
    /// A user and a password.
    pub fn new(username: &str, password: &str) -> Self {
        let mut hasher = Sha256::new();
        hasher.update((username.len() as u64).to_be_bytes());
        hasher.update(username);
        hasher.update(password);
        let login = Login { username: username.to_owned(), password: Secret::new(password) };
        Self { login: Some(login), hash: hasher.finalize().into() }
    }

    /// Tells them from others, and nothing about them.
    pub fn fingerprint(&self) -> String {
        STANDARD.encode(self.hash)
    }

    /// How many bytes they have on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.login.as_ref().map_or(0, |login| login.username.len() + login.password.expose().len())
    }

    /// Nothing was shown.
    pub const fn anonymous() -> Self {
        Self { login: None, hash: [0; 32] }
    }
}

impl PartialEq for CallerCredentials {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl Eq for CallerCredentials {}

impl std::hash::Hash for CallerCredentials {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

impl fmt::Debug for CallerCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.login.is_some() { "CallerCredentials(…)" } else { "CallerCredentials(none)" })
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Source {
    pub(super) fn new(upstream: &str, credentials: Option<&config::Credentials>) -> Self {
        match credentials {
            None => Self::None,
            Some(config::Credentials::Basic(basic)) => {
                Self::Fixed(Login { username: basic.username.clone(), password: basic.password.clone() })
            }
            Some(config::Credentials::Command { command, lifetime, timeout }) => Self::Command(Arc::new(Running {
                upstream: upstream.to_owned(),
                command: command.clone(),
                lifetime: *lifetime,
                timeout: *timeout,
                last: Arc::default(),
            })),
        }
    }

    /// What to show now.
    pub(super) async fn login(&self) -> Result<Option<Login>, SendError> {
        match self {
            Self::None => Ok(None),
            Self::Fixed(login) => Ok(Some(login.clone())),
            Self::Command(running) => running.login().await.map(Some),
        }
    }

    /// What was shown was refused: a command is run again next time. One that runs already gives something else anyway.
    pub(super) fn forget(&self) {
        if let Self::Command(running) = self
            && let Ok(mut last) = running.last.try_lock()
            && last.as_ref().is_some_and(|last| last.outcome.is_ok())
        {
            *last = None;
        }
    }
}

impl Running {
    /// One run at a time; who comes meanwhile waits for it. It is a task of its own: a command that takes longer than those
    /// who wait for it is not begun anew by each of them, and what it printed is there for the next.
    async fn login(self: &Arc<Self>) -> Result<Login, SendError> {
        let last = Arc::clone(&self.last).lock_owned().await;
        let outcome = match last.as_ref().filter(|last| Instant::now() < last.until) {
            Some(known) => known.outcome.clone(),
            None => tokio::spawn(Arc::clone(self).renew(last)).await.unwrap_or_else(|error| Err(error.to_string())),
        };
        outcome.map_err(|reason| SendError::CredentialCommand { upstream: self.upstream.clone(), reason })
    }

    async fn renew(self: Arc<Self>, mut last: OwnedMutexGuard<Option<Last>>) -> Result<Login, String> {
        let outcome = self.run().await;
        let good_for = match &outcome {
            Ok(_) => self.lifetime.saturating_sub(MARGIN.min(self.lifetime / 10)),
            Err(reason) => {
                tracing::error!(upstream = self.upstream, reason, "credential_command failed");
                REST
            }
        };
        last.insert(Last { outcome, until: Instant::now() + good_for }).outcome.clone()
    }

    async fn run(&self) -> Result<Login, String> {
        let (program, arguments) = self.command.split_first().ok_or("it is empty")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.process_group(0).kill_on_drop(true);
        let mut group = Group(command.spawn().map_err(|error| format!("{program} cannot be run: {error}"))?);
        let mut output = Vec::new();
        let running = async {
            if let Some(stdout) = group.0.stdout.take() {
                let read = stdout.take(OUTPUT_BYTES_MAX + 1).read_to_end(&mut output).await;
                read.map_err(|error| format!("its output cannot be read: {error}"))?;
            }
            if output.len() as u64 > OUTPUT_BYTES_MAX {
                return Err(format!("it printed more than {OUTPUT_BYTES_MAX} bytes"));
            }
            group.0.wait().await.map_err(|error| error.to_string())
        };
        let status = timeout(self.timeout, running).await;
        let status = status.map_err(|_| format!("it did not end within {} s", self.timeout.as_secs_f32()))??;
        if !status.success() {
            return Err(format!("it ended with {status}; run it by hand to see why"));
        }
        parse(&output)
            .ok_or_else(|| "what it printed is neither user:password nor {\"Username\": …, \"Secret\": …}".to_owned())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A shell alone would leave what it waits for behind. Without an id it was waited for, and its number may be another's.
        let id = self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(id) = id {
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

/// What a command printed. It is never repeated in a text.
fn parse(output: &[u8]) -> Option<Login> {
    let text = std::str::from_utf8(output).ok()?.trim();
    let (username, password) = match serde_json::from_str::<Helper>(text) {
        Ok(helper) => (helper.username, helper.secret),
        Err(_) => {
            let (username, password) = text.split_once(':')?;
            (username.to_owned(), password.to_owned())
        }
    };
    let is_plain = |text: &str| !text.is_empty() && !text.chars().any(char::is_control);
    (is_plain(&username) && is_plain(&password)).then(|| Login { username, password: Secret::new(&password) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(script: &str, timeout: Duration) -> Source {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        let credentials = config::Credentials::Command { command, lifetime: Duration::from_secs(3600), timeout };
        Source::new("ecr", Some(&credentials))
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn both_forms_are_read() {
        for (text, user, password) in [
            ("AWS:p:w\n", "AWS", "p:w"),
            (r#"{"ServerURL":"x","Username":"u","Secret":"s"}"#, "u", "s"),
            (r#"{"Username":"<token>","Secret":"r"}"#, "<token>", "r"),
        ] {
            let login = parse(text.as_bytes()).unwrap();
            assert_eq!((login.username.as_str(), login.password.expose()), (user, password));
        }
        for other in ["", "AWS", "AWS:", ":p", "a:b\nc:d", "{}", "\u{ff}"] {
            assert_eq!(parse(other.as_bytes()), None, "{other}");
        }
    }

    #[tokio::test]
    async fn a_command_is_run_once_for_its_lifetime() {
        let directory = tempfile::tempdir().unwrap();
        let count = directory.path().join("count");
        let source = command(&format!("echo x >> {}; echo AWS:secret", count.display()), LONG);
        for _ in 0..3 {
            assert_eq!(source.login().await.unwrap().unwrap().password.expose(), "secret");
        }
        assert_eq!(std::fs::read_to_string(&count).unwrap(), "x\n");
        source.forget();
        source.login().await.unwrap();
        assert_eq!(std::fs::read_to_string(&count).unwrap(), "x\nx\n", "what was refused is asked for anew");
    }

    #[tokio::test]
    async fn a_command_that_fails_or_hangs_says_so_without_its_output() {
        for (script, timeout, expected) in [
            ("echo canary; exit 3", LONG, "exit status: 3"),
            ("echo canary", LONG, "neither user:password"),
            ("exec sleep 100", Duration::from_millis(50), "did not end within 0.05 s"),
            ("head -c 100000 /dev/zero", LONG, "more than 65536 bytes"),
        ] {
            let error = command(script, timeout).login().await.unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
        let nobody = config::Credentials::Command { command: vec!["/no/such".into()], lifetime: LONG, timeout: LONG };
        let error = Source::new("ecr", Some(&nobody)).login().await.unwrap_err();
        assert!(error.to_string().contains("/no/such cannot be run"), "{error}");
    }

    #[tokio::test]
    async fn a_command_slower_than_its_callers_was_begun_anew_by_each_and_never_named() {
        const SOON: Duration = Duration::from_millis(50);
        let directory = tempfile::tempdir().unwrap();
        for (last, expected) in [("echo AWS:secret", None), ("exec sleep 100", Some("did not end within 1 s"))] {
            let count = directory.path().join("count");
            let script = format!("echo x >> {}; sleep 0.3; {last}", count.display());
            let source = command(&script, Duration::from_secs(1));
            for _ in 0..3 {
                assert!(timeout(SOON, source.login()).await.is_err(), "it goes on without this caller");
            }
            let error = source.login().await.err().map(|error| error.to_string());
            assert_eq!(error.is_some(), expected.is_some(), "{error:?}");
            assert!(error.unwrap_or_default().contains(expected.unwrap_or_default()));
            // It rests, or what it printed is good.
            assert!(timeout(SOON, source.login()).await.is_ok());
            assert_eq!(std::fs::read_to_string(&count).unwrap(), "x\n");
            std::fs::remove_file(count).unwrap();
        }
    }

    #[tokio::test]
    async fn what_a_command_started_outlived_its_timeout() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("id");
        let script = format!("echo AWS:$(echo $$ >> {0}; sleep 100 & echo $! >> {0}; wait)", file.display());
        let error = command(&script, Duration::from_millis(500)).login().await.unwrap_err();
        assert!(error.to_string().contains("did not end within"), "{error}");
        let ids = std::fs::read_to_string(&file).unwrap();
        assert_eq!(ids.lines().count(), 2, "{ids}");
        let is_there = |id: &str| {
            // One that nobody has asked after yet is gone all the same.
            std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
        };
        for _ in 0..100 {
            if !ids.lines().any(is_there) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("one of these is still there: {ids}");
    }

    #[test]
    fn credentials_are_not_shown() {
        let shown = format!("{:?}", CallerCredentials::new("ada", "canary"));
        assert!(!shown.contains("canary"), "{shown}");
        assert_eq!(CallerCredentials::new("a", "bc"), CallerCredentials::new("a", "bc"));
        assert_ne!(CallerCredentials::new("a", "bc"), CallerCredentials::new("ab", "c"));
        assert_ne!(CallerCredentials::new("", ""), CallerCredentials::anonymous());
    }
}
