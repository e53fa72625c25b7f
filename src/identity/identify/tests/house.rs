//! What the tests of this part stand on.

use std::path::{Path, PathBuf};
use std::sync::Condvar;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

use crate::identity::clock::StoppedClock;
use crate::identity::htpasswd::PasswordHash;
use crate::identity::identify::*;

use super::HERE;

/// So that a test which waits for what never comes fails, and does not hang.
const GATE_TIMEOUT: Duration = Duration::from_secs(10);

/// A gateway's identity over a file that a test writes, a clock that it sets, and comparisons that it counts and holds up.
pub(super) struct House {
    pub(super) directory: TempDir,
    pub(super) clock: StoppedClock,
    pub(super) gate: Arc<Gate>,
    pub(super) identity: Arc<Identity>,
}

/// Counts comparisons, and keeps them waiting while it is shut.
#[derive(Default)]
pub(super) struct Gate {
    compared: AtomicUsize,
    pub(super) costs: Mutex<Vec<u32>>,
    shut: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub(super) fn shut(&self) {
        *self.shut.lock().unwrap() = true;
    }

    pub(super) fn open(&self) {
        *self.shut.lock().unwrap() = false;
        self.opened.notify_all();
    }

    pub(super) fn compared(&self) -> usize {
        self.compared.load(Ordering::SeqCst)
    }

    pub(super) fn compare(self: &Arc<Self>) -> Compare {
        let (gate, bcrypt) = (Arc::clone(self), Logins::bcrypt());
        Arc::new(move |password: &Password, hash: &PasswordHash| {
            gate.costs.lock().unwrap().push(hash.cost());
            gate.compared.fetch_add(1, Ordering::SeqCst);
            let shut = gate.shut.lock().unwrap();
            let (shut, waited) = gate.opened.wait_timeout_while(shut, GATE_TIMEOUT, |shut| *shut).unwrap();
            drop(shut);
            assert!(!waited.timed_out(), "nobody opened the gate");
            bcrypt(password, hash)
        })
    }
}

impl House {
    pub(super) fn new(users: &[(&str, &str)]) -> Self {
        Self::with(users, |_| {})
    }

    pub(super) fn with(users: &[(&str, &str)], change: impl FnOnce(&mut Settings)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        write(&directory.path().join("htpasswd"), users);
        let mut settings = settings(directory.path().join("htpasswd"));
        change(&mut settings);
        let (clock, gate) = (StoppedClock::new(), Arc::new(Gate::default()));
        let key = TokenKeys::generate(clock.clock().now().wall).unwrap();
        let identity = Arc::new(Identity::with(settings, key, clock.clock(), gate.compare()).unwrap());
        Self { directory, clock, gate, identity }
    }

    pub(super) fn file(&self) -> PathBuf {
        self.directory.path().join("htpasswd")
    }

    pub(super) async fn log_in(&self, user: &str, password: &str, client: &str) -> Result<Principal, IdentifyError> {
        self.identity.identify(&basic(user, password), None, client.parse().unwrap()).await
    }

    /// A login in a task of its own; when this returns, it is waiting for its verdict.
    pub(super) async fn begin(
        &self,
        user: &str,
        password: &str,
    ) -> tokio::task::JoinHandle<Result<Principal, IdentifyError>> {
        self.begin_at(user, password, HERE).await
    }

    pub(super) async fn begin_at(
        &self,
        user: &str,
        password: &str,
        client: &str,
    ) -> tokio::task::JoinHandle<Result<Principal, IdentifyError>> {
        let (identity, credentials) = (Arc::clone(&self.identity), basic(user, password));
        let client = client.parse().unwrap();
        let task = tokio::spawn(async move { identity.identify(&credentials, None, client).await });
        // On a runtime of one thread the task has run as far as it can when this one is asked again.
        tokio::task::yield_now().await;
        task
    }

    /// Until the blocking threads have begun as many comparisons.
    pub(super) async fn until_compared(&self, count: usize) {
        let compared = async {
            while self.gate.compared() < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(GATE_TIMEOUT, compared).await.unwrap();
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.gate.open();
    }
}

pub(super) fn settings(htpasswd: PathBuf) -> Settings {
    Settings {
        realm: "dockgate".into(),
        htpasswd,
        groups: [("ci", vec!["alice", "bob", "alice"]), ("ops", vec!["alice", "nobody"])]
            .map(|(group, users)| (group.to_owned(), users.into_iter().map(str::to_owned).collect()))
            .into(),
        token_lifetime: Duration::from_secs(300),
        refresh_lifetime: Duration::from_secs(3600),
        legacy_lifetime: Duration::from_secs(1800),
        registration: false,
        password_changes: false,
        key_lifetime: Duration::from_secs(86_400),
        services: vec![],
        chain: true,
        bcrypt_concurrency: 1,
        bcrypt_queue: 2,
        bcrypt_wait_timeout: Duration::from_secs(3600),
        credential_lifetime: Duration::from_secs(300),
        login_failures: 3,
    }
}

pub(super) fn write(path: &Path, users: &[(&str, &str)]) {
    let line = |(user, password): &(&str, &str)| {
        format!("{user}:{}\n", PasswordHash::make(&password.chars().take(72).collect::<String>(), 4).unwrap().as_str())
    };
    std::fs::write(path, users.iter().map(line).collect::<String>()).unwrap();
}

/// Users whose passwords are their names, each at a cost of their own.
pub(super) fn write_costs(path: &Path, users: &[(&str, u32)]) {
    let line = |(user, cost): &(&str, u32)| format!("{user}:{}\n", PasswordHash::make(user, *cost).unwrap().as_str());
    std::fs::write(path, users.iter().map(line).collect::<String>()).unwrap();
}

pub(super) fn basic(user: &str, password: &str) -> Credentials {
    Credentials::Basic { user: user.into(), password: Password::new(password.into()) }
}
