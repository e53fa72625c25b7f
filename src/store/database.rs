//! The metadata database: many readers, and one task that writes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection, SqlitePool};
use tokio::sync::{mpsc, oneshot};

use super::directory::try_to_write;
use super::schema::{self, migrate};
use super::{OpenError, StoreError};

/// How many connections read; each has a thread.
const READERS: u32 = 4;
/// How long a read waits for one of them.
const READER_WAIT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a statement waits for a lock that another process holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How many jobs may wait for the writer.
const QUEUE: usize = 1024;
/// How many jobs share a commit.
const BATCH: usize = 128;
/// The write-ahead log is cut back to this after a checkpoint.
const LOG_BYTES: &str = "67108864";

/// Whether what was written is known to be on the disk. Once lost, it is lost until the process starts anew.
#[derive(Debug, Clone, Default)]
pub(super) struct Health(Arc<AtomicBool>);

impl Health {
    pub(super) fn is_good(&self) -> bool {
        !self.0.load(Ordering::Acquire)
    }

    /// Refuses to go on once a sync has failed.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.is_good() { Ok(()) } else { Err(StoreError::Unhealthy) }
    }

    pub(super) fn lose(&self, action: &'static str) {
        if !self.0.swap(true, Ordering::AcqRel) {
            tracing::error!(action, "a sync failed; nothing more is written until a restart");
        }
    }
}

/// What a job does on the writer's connection. An error undoes what it did.
pub(super) type Work<'c, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>>;

/// A handle to the database.
pub(super) struct Database {
    readers: SqlitePool,
    /// None where nothing can be written.
    writer: Option<mpsc::Sender<Message>>,
    health: Health,
}

enum Message {
    Job(Box<dyn Job>),
    Close(oneshot::Sender<()>),
}

impl Database {
    /// Opens the database, made if it is missing, and brings it up to date.
    pub(super) async fn open(path: &Path, health: Health) -> Result<Self, OpenError> {
        let failed = |error: sqlx::Error| OpenError::Database { path: path.into(), detail: error.to_string() };
        let writing = options(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("journal_size_limit", LOG_BYTES);
        let mut connection = writing.connect().await.map_err(failed)?;
        migrate(&mut connection, path).await?;
        let readers = open_readers(options(path).read_only(true)).await.map_err(failed)?;
        let (writer, queue) = mpsc::channel(QUEUE);
        let directory = path.parent().unwrap_or(path).to_owned();
        tokio::spawn(Writer { connection, directory, health: health.clone() }.write_until_closed(queue));
        Ok(Self { readers, writer: Some(writer), health })
    }

    /// Opens a database that is there, where nothing can be written.
    pub(super) async fn open_for_reading(path: &Path, health: Health) -> Result<Self, OpenError> {
        let log = path.with_extension("db-wal");
        let is_clean = fs::metadata(&log).map_or(true, |log| log.len() == 0);
        // Without a log SQLite needs no file for locks, which it could not make; a log has to be read, so it must not be told
        // that nothing changes.
        let failed = |error: sqlx::Error| match is_clean {
            true => OpenError::Database { path: path.into(), detail: error.to_string() },
            false => OpenError::NotClosed { log: log.clone(), detail: error.to_string() },
        };
        let readers = open_readers(options(path).read_only(true).immutable(is_clean)).await.map_err(failed)?;
        // The first query is what opens the files.
        schema::check_version(schema::version(&readers).await.map_err(failed)?, path)?;
        Ok(Self { readers, writer: None, health })
    }

    /// Where to read.
    pub(super) const fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    /// Whether the writer still runs.
    pub(super) fn is_open(&self) -> bool {
        self.writer.as_ref().is_none_or(|writer| !writer.is_closed())
    }

    /// Runs `work` in a transaction; what it answers is true on the disk. It runs even if the caller stops waiting.
    pub(super) async fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let writer = self.writer.as_ref().ok_or(StoreError::ReadOnly)?;
        self.health.check()?;
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Pending { work: Some(work), result: None, reply });
        writer.send(Message::Job(job)).await.map_err(|_| StoreError::Unhealthy)?;
        answer.await.map_err(|_| StoreError::Unhealthy)?
    }

    /// Finishes what waits and closes every connection.
    pub(super) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        self.readers.close().await;
        if let Some(writer) = &self.writer
            && writer.send(Message::Close(done)).await.is_ok()
        {
            let _ = closed.await;
        }
    }
}

/// What each reader keeps of the file's pages, in KiB with a minus sign. The system keeps them too; SQLite's own 2 MiB for each fill
/// up over hours and save little more than a copy.
const READER_CACHE: &str = "-512";

fn options(path: &Path) -> SqliteConnectOptions {
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_TIMEOUT).foreign_keys(true);
    // What is large while a statement runs would else be written below /var/tmp, which may be full or read-only.
    options.pragma("temp_store", "memory")
}

async fn open_readers(options: SqliteConnectOptions) -> sqlx::Result<SqlitePool> {
    let options = options.pragma("cache_size", READER_CACHE);
    SqlitePoolOptions::new()
        .min_connections(READERS)
        .max_connections(READERS)
        .acquire_timeout(READER_WAIT_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_with(options)
        .await
}

/// The one who writes.
struct Writer {
    connection: SqliteConnection,
    directory: PathBuf,
    health: Health,
}

impl Writer {
    async fn write_until_closed(mut self, mut queue: mpsc::Receiver<Message>) {
        let mut messages = Vec::with_capacity(BATCH);
        let mut closing = Vec::new();
        while closing.is_empty() && queue.recv_many(&mut messages, BATCH).await > 0 {
            let mut jobs = Vec::with_capacity(messages.len());
            for message in messages.drain(..) {
                match message {
                    Message::Job(job) => jobs.push(job),
                    Message::Close(done) => closing.push(done),
                }
            }
            if !jobs.is_empty() {
                self.commit_together(jobs).await;
            }
        }
        drop(queue);
        if let Err(error) = self.connection.close().await {
            tracing::warn!(%error, "the metadata database did not close cleanly");
        }
        for done in closing {
            let _ = done.send(());
        }
    }

    /// One transaction, one sync, for all `jobs`.
    async fn commit_together(&mut self, mut jobs: Vec<Box<dyn Job>>) {
        let outcome = match self.health.check() {
            Ok(()) => self.try_commit(&mut jobs).await,
            Err(error) => Err(error),
        };
        match &outcome {
            Err(StoreError::Unhealthy) => self.health.lose("commit the metadata"),
            Err(error) => tracing::error!(%error, "the metadata was not written"),
            Ok(()) => {}
        }
        for job in jobs {
            job.answer(outcome.clone());
        }
    }

    async fn try_commit(&mut self, jobs: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
        let Err(error) = try_commit(&mut self.connection, jobs).await else { return Ok(()) };
        match StoreError::from(error) {
            // SQLite has one error for all writes that fail.
            StoreError::Database(_) if refuses_files(self.directory.clone()).await => Err(StoreError::ReadOnly),
            error => Err(error),
        }
    }
}

/// Whether the disk has become read-only.
async fn refuses_files(directory: PathBuf) -> bool {
    let probe = move || try_to_write(&directory).is_err_and(|error| error.kind() == io::ErrorKind::ReadOnlyFilesystem);
    tokio::task::spawn_blocking(probe).await.unwrap_or(false)
}

/// SQLite itself ends a transaction when the disk is full or fails, and sqlx's own transactions then lose count; plain
/// statements leave the connection usable.
async fn try_commit(connection: &mut SqliteConnection, jobs: &mut [Box<dyn Job>]) -> Result<(), sqlx::Error> {
    let committed = run_in_transaction(connection, jobs).await;
    if committed.is_err() {
        // Refused if there is no transaction any more, which is what we want.
        let _ = execute(connection, "ROLLBACK").await;
    }
    committed
}

async fn run_in_transaction(connection: &mut SqliteConnection, jobs: &mut [Box<dyn Job>]) -> Result<(), sqlx::Error> {
    execute(connection, "BEGIN IMMEDIATE").await?;
    for job in jobs {
        execute(connection, "SAVEPOINT job").await?;
        if !job.run(connection).await {
            execute(connection, "ROLLBACK TO job").await?;
        }
        execute(connection, "RELEASE job").await?;
    }
    execute(connection, "COMMIT").await
}

async fn execute(connection: &mut SqliteConnection, statement: &'static str) -> Result<(), sqlx::Error> {
    sqlx::query(statement).execute(connection).await.map(drop)
}

/// A job whose result has a type of its own.
trait Job: Send {
    /// Does it; false if it must be undone.
    fn run<'c>(&'c mut self, connection: &'c mut SqliteConnection) -> Pin<Box<dyn Future<Output = bool> + Send + 'c>>;

    /// Tells the caller, once it is known whether the transaction holds.
    fn answer(self: Box<Self>, outcome: Result<(), StoreError>);
}

struct Pending<T, E, F> {
    work: Option<F>,
    result: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<T, E, F> Job for Pending<T, E, F>
where
    F: for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, T, E> + Send,
    T: Send,
    E: From<StoreError> + Send,
{
    fn run<'c>(&'c mut self, connection: &'c mut SqliteConnection) -> Pin<Box<dyn Future<Output = bool> + Send + 'c>> {
        Box::pin(async move {
            let Some(work) = self.work.take() else { return false };
            let result = work(connection).await;
            let kept = result.is_ok();
            self.result = Some(result);
            kept
        })
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
        // What a job saw, even to refuse, may have been written by a neighbour in the same transaction: no commit, no answer.
        let result = match (outcome, self.result) {
            (Err(error), _) => Err(error.into()),
            (Ok(()), Some(result)) => result,
            (Ok(()), None) => Err(StoreError::Unhealthy.into()),
        };
        let _ = self.reply.send(result);
    }
}

/// Now, in milliseconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(i64::MAX)
}

/// The row of a repository, if it has one.
pub(super) async fn repository_id(connection: &mut SqliteConnection, name: &str) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar("SELECT id FROM repositories WHERE name = $1").bind(name).fetch_optional(connection).await
}

/// The row of a repository, made if it is missing.
pub(super) async fn repository_id_or_insert(connection: &mut SqliteConnection, name: &str) -> sqlx::Result<i64> {
    if let Some(id) = repository_id(connection, name).await? {
        return Ok(id);
    }
    sqlx::query_scalar("INSERT INTO repositories (name, created_at) VALUES ($1, $2) RETURNING id")
        .bind(name)
        .bind(now())
        .fetch_one(connection)
        .await
}

/// A digest of ours, read back.
pub(super) fn digest_from_row(text: &str) -> Result<crate::oci::Digest, StoreError> {
    text.parse().map_err(|error| StoreError::Database(format!("a row holds the digest {text:?}: {error}")))
}

/// A size of ours, read back; the schema keeps it from being negative.
pub(super) fn size_from_row(size: i64) -> Result<u64, StoreError> {
    size.try_into().map_err(|_| StoreError::Database(format!("a row holds the size {size}")))
}

/// A size, as the database holds it.
pub(super) fn size_for_row(size: u64) -> Result<i64, StoreError> {
    size.try_into().map_err(|_| StoreError::Database(format!("{size} bytes are more than can be recorded")))
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    async fn open(directory: &tempfile::TempDir) -> Arc<Database> {
        Arc::new(Database::open(&directory.path().join("metadata.db"), Health::default()).await.unwrap())
    }

    /// Inserts a setting, then does as it is told.
    async fn insert<F>(database: Arc<Database>, key: &'static str, then: F) -> Result<(), StoreError>
    where
        F: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        let work = database.write(move |connection| {
            Box::pin(async move {
                let insert = sqlx::query("INSERT INTO settings (key, value) VALUES ($1, x'00')").bind(key);
                insert.execute(connection).await?;
                then.await
            })
        });
        work.await
    }

    async fn keys(database: &Database) -> Vec<String> {
        let keys = sqlx::query_scalar("SELECT key FROM settings ORDER BY key");
        keys.fetch_all(database.readers()).await.unwrap()
    }

    #[tokio::test]
    async fn what_waits_is_committed_together_and_answered_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let database = open(&directory).await;
        let (open_gate, gate) = oneshot::channel::<()>();
        let (begin, begun) = oneshot::channel();
        let first = tokio::spawn(insert(database.clone(), "first", async {
            let _ = begin.send(());
            let _ = gate.await;
            Ok(())
        }));
        begun.await.unwrap();
        // These wait for the first one, so they share a commit.
        let (third_begins, third_begun) = oneshot::channel();
        let (finish_third, third_may_finish) = oneshot::channel::<()>();
        let mut second = Box::pin(insert(database.clone(), "second", async { Ok(()) }));
        let mut wrong = Box::pin(insert(database.clone(), "wrong", async { Err(StoreError::NoSpace) }));
        let mut third = Box::pin(insert(database.clone(), "third", async {
            let _ = third_begins.send(());
            let _ = third_may_finish.await;
            Ok(())
        }));
        for waiting in [&mut second as &mut (dyn Future<Output = _> + Unpin), &mut wrong, &mut third] {
            assert!(futures_util::poll!(waiting).is_pending());
        }
        open_gate.send(()).unwrap();
        first.await.unwrap().unwrap();
        third_begun.await.unwrap();
        assert_eq!(keys(&database).await, ["first"]);
        assert!(futures_util::poll!(&mut second).is_pending(), "answered before it was committed");
        finish_third.send(()).unwrap();
        assert_eq!((second.await, wrong.await, third.await), (Ok(()), Err(StoreError::NoSpace), Ok(())));
        assert_eq!(keys(&database).await, ["first", "second", "third"]);
    }

    /// SQLite ends the whole transaction by itself when the disk is full or fails; here a job does it, or loses its
    /// savepoint and leaves the transaction open.
    #[tokio::test]
    async fn a_lost_transaction_is_an_error_for_everyone_in_it() {
        for break_it in ["ROLLBACK", "RELEASE job"] {
            let directory = tempfile::tempdir().unwrap();
            let database = open(&directory).await;
            let (open_gate, gate) = oneshot::channel::<()>();
            let (begin, begun) = oneshot::channel();
            let first = tokio::spawn(insert(database.clone(), "first", async {
                let _ = begin.send(());
                let _ = gate.await;
                Ok(())
            }));
            begun.await.unwrap();
            let mut good = Box::pin(insert(database.clone(), "good", async { Ok(()) }));
            let mut breaking = Box::pin(database.write(move |connection| {
                Box::pin(async move { Ok::<_, StoreError>(execute(connection, break_it).await?) })
            }));
            assert!(futures_util::poll!(&mut good).is_pending());
            assert!(futures_util::poll!(&mut breaking).is_pending());
            open_gate.send(()).unwrap();
            first.await.unwrap().unwrap();
            assert!(matches!(good.await, Err(StoreError::Database(_))));
            assert!(matches!(breaking.await, Err(StoreError::Database(_))));
            insert(database.clone(), "later", async { Ok(()) }).await.unwrap();
            assert_eq!(keys(&database).await, ["first", "later"]);
        }
    }

    /// Large statements were seen to write below /var/tmp, and to fail where that is full.
    #[tokio::test]
    async fn nothing_is_written_outside_of_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let database = open(&directory).await;
        let query = "PRAGMA temp_store";
        let reading: i64 = sqlx::query_scalar(query).fetch_one(database.readers()).await.unwrap();
        let writing = database.write(move |connection| {
            Box::pin(async move { Ok::<i64, StoreError>(sqlx::query_scalar(query).fetch_one(connection).await?) })
        });
        // 2 is memory, whatever the library was built with.
        assert_eq!((reading, writing.await), (2, Ok(2)));
    }

    #[tokio::test]
    async fn a_job_that_nobody_waits_for_is_done_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let database = open(&directory).await;
        assert!(futures_util::poll!(Box::pin(insert(database.clone(), "left", async { Ok(()) }))).is_pending());
        insert(database.clone(), "stayed", async { Ok(()) }).await.unwrap();
        assert_eq!(keys(&database).await, ["left", "stayed"]);
    }

    #[tokio::test]
    async fn a_closed_database_answers_with_errors() {
        let directory = tempfile::tempdir().unwrap();
        let database = open(&directory).await;
        insert(database.clone(), "before", async { Ok(()) }).await.unwrap();
        database.close().await;
        assert!(!database.is_open());
        assert!(insert(database.clone(), "after", async { Ok(()) }).await.is_err());
        assert_eq!(keys(&*open(&directory).await).await, ["before"]);
    }

    #[tokio::test]
    async fn a_database_of_a_newer_program_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let database = open(&directory).await;
        let newer = database.write(|connection| {
            Box::pin(async move {
                let insert = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                              VALUES (7, 'later', 1, x'00', 0)";
                Ok::<_, StoreError>(sqlx::query(insert).execute(connection).await?)
            })
        });
        newer.await.unwrap();
        database.close().await;
        let error = Database::open(&directory.path().join("metadata.db"), Health::default()).await.err();
        assert_eq!(error, Some(OpenError::NewerVersion { data: directory.path().into(), found: 7 }));
    }
}
