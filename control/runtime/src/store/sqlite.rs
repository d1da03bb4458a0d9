//! States in one SQLite file, owned by one thread: a slow disk holds up a save, never a brake.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serin_measure::CanaryKey;
use tokio::sync::{mpsc, oneshot, watch};

use super::{EVENTS_KEPT_MAX, EVENTS_SHOWN_MAX, Event, Save, Saved, Store, StoreError, Swap, Version};

/// The format this build writes, in `user_version`.
const FORMAT: i64 = 1;
/// Jobs that wait for the thread. The control loop has at most one save per canary and one batch of checkpoints out.
const QUEUE_MAX: usize = 64;

const SCHEMA: &str = "
    CREATE TABLE state (canary TEXT PRIMARY KEY, version INTEGER NOT NULL, state TEXT NOT NULL) STRICT;
    CREATE TABLE event (id INTEGER PRIMARY KEY, canary TEXT NOT NULL, at_ms INTEGER NOT NULL, level TEXT NOT NULL, message TEXT NOT NULL) STRICT;
    CREATE INDEX event_by_canary ON event (canary, id);
";

/// The store of a process without a cluster.
#[derive(Debug, Clone)]
pub struct Sqlite {
    jobs: mpsc::Sender<Job>,
    changes: watch::Receiver<u64>,
}

enum Job {
    Load(oneshot::Sender<Result<Vec<Saved>, StoreError>>),
    Save(Vec<Save>, oneshot::Sender<Result<Vec<Swap>, StoreError>>),
}

impl Sqlite {
    /// Opens `serin.db` in a directory, which is made if it is missing, and locks it for this process.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            StoreError::Unavailable(format!("{what} {}: {error}", directory.display()))
        };
        fs::create_dir_all(directory).map_err(|error| failed("cannot make the state directory", &error))?;
        let lock = File::create(directory.join("lock"))
            .map_err(|error| failed("cannot write to the state directory", &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { place: directory.display().to_string() }),
            Err(TryLockError::Error(error)) => return Err(failed("cannot lock the state directory", &error)),
        }
        let path = directory.join("serin.db");
        let connection = Connection::open(&path).map_err(|error| failed("cannot open the state in", &error))?;
        Self::start(connection, path, Some(lock))
    }

    /// A store that ends with the process.
    pub fn in_memory() -> Result<Self, StoreError> {
        Self::start(Connection::open_in_memory().map_err(unavailable)?, PathBuf::from(":memory:"), None)
    }

    fn start(connection: Connection, path: PathBuf, lock: Option<File>) -> Result<Self, StoreError> {
        prepare(&connection, &path)?;
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let (changed, changes) = watch::channel(0);
        let owner = Owner { connection, _lock: lock, changed };
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || owner.run(queue))
            .map_err(|error| StoreError::Unavailable(format!("cannot start the store's thread: {error}")))?;
        Ok(Self { jobs, changes })
    }

    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Job) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let gone = || StoreError::Unavailable("the store's thread has ended".to_owned());
        self.jobs.send(job(answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

impl Store for Sqlite {
    async fn load(&self) -> Result<Vec<Saved>, StoreError> {
        self.ask(Job::Load).await
    }

    async fn save(&self, batch: Vec<Save>) -> Vec<Result<Swap, StoreError>> {
        let count = batch.len();
        match self.ask(|answer| Job::Save(batch, answer)).await {
            Ok(swaps) => swaps.into_iter().map(Ok).collect(),
            // One transaction: it fails for all.
            Err(problem) => vec![Err(problem); count],
        }
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}

fn prepare(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    // A save is a promise: it has to be on the disk before traffic follows it.
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;").map_err(unavailable)?;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(unavailable)?;
    match found {
        FORMAT => Ok(()),
        0 => connection
            .execute_batch(&format!("BEGIN; {SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT;"))
            .map_err(unavailable),
        found => Err(StoreError::Newer { place: path.display().to_string(), found, known: FORMAT }),
    }
}

/// Its parts go in this order: whoever sees that no more changes come finds the database closed and the lock free.
struct Owner {
    connection: Connection,
    /// Held as long as the thread lives.
    _lock: Option<File>,
    changed: watch::Sender<u64>,
}

impl Owner {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(job) = queue.blocking_recv() {
            // Who has asked may be gone by now; what was saved stays saved.
            match job {
                Job::Load(answer) => drop(answer.send(self.load())),
                Job::Save(batch, answer) => drop(answer.send(self.save(&batch))),
            }
        }
    }

    fn load(&mut self) -> Result<Vec<Saved>, StoreError> {
        let transaction = self.connection.transaction().map_err(unavailable)?;
        let mut statement =
            transaction.prepare("SELECT canary, version, state FROM state ORDER BY canary").map_err(unavailable)?;
        let rows = statement
            .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?, row.get::<_, String>(2)?)))
            .map_err(unavailable)?;
        let mut all = Vec::new();
        for row in rows {
            let (name, version, state) = row.map_err(unavailable)?;
            let damaged = |error: &dyn std::fmt::Display| {
                StoreError::Unavailable(format!("the saved state of {name} is damaged: {error}"))
            };
            let canary: CanaryKey = name.parse().map_err(|error| damaged(&error))?;
            let state = serde_json::from_str(&state).map_err(|error| damaged(&error))?;
            let events = newest_events(&transaction, &name).map_err(unavailable)?;
            let incarnation = String::new();
            all.push(Saved { canary, incarnation, version: Version(version), state, events });
        }
        Ok(all)
    }

    fn save(&mut self, batch: &[Save]) -> Result<Vec<Swap>, StoreError> {
        let transaction = self.connection.transaction().map_err(unavailable)?;
        let swaps = batch.iter().map(|save| save_one(&transaction, save)).collect::<Result<Vec<_>, _>>()?;
        transaction.commit().map_err(unavailable)?;
        self.changed.send_modify(|count| *count += 1);
        Ok(swaps)
    }
}

fn save_one(transaction: &Transaction<'_>, save: &Save) -> Result<Swap, StoreError> {
    let name = save.canary.as_str();
    let found: Option<u64> = transaction
        .query_row("SELECT version FROM state WHERE canary = ?1", [name], |row| row.get(0))
        .optional()
        .map_err(unavailable)?;
    if found != save.expected.map(|version| version.0) {
        return Ok(Swap::Stale);
    }
    let next = found.unwrap_or(0) + 1;
    let state = serde_json::to_string(&save.state).map_err(unavailable)?;
    transaction
        .execute(
            "INSERT INTO state (canary, version, state) VALUES (?1, ?2, ?3)
             ON CONFLICT (canary) DO UPDATE SET version = excluded.version, state = excluded.state",
            params![name, next, state],
        )
        .map_err(unavailable)?;
    for event in &save.events {
        transaction
            .execute(
                "INSERT INTO event (canary, at_ms, level, message) VALUES (?1, ?2, ?3, ?4)",
                params![name, event.at_ms, event.level, event.message],
            )
            .map_err(unavailable)?;
    }
    if !save.events.is_empty() {
        transaction
            .execute(
                "DELETE FROM event WHERE canary = ?1 AND id <=
                 (SELECT id FROM event WHERE canary = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
                params![name, EVENTS_KEPT_MAX],
            )
            .map_err(unavailable)?;
    }
    Ok(Swap::Done(Version(next)))
}

fn newest_events(connection: &Connection, name: &str) -> rusqlite::Result<Vec<Event>> {
    let mut statement =
        connection.prepare("SELECT at_ms, level, message FROM event WHERE canary = ?1 ORDER BY id DESC LIMIT ?2")?;
    let rows = statement.query_map(params![name, EVENTS_SHOWN_MAX], |row| {
        Ok(Event { at_ms: row.get(0)?, level: row.get(1)?, message: row.get(2)? })
    })?;
    let mut events = rows.collect::<Result<Vec<_>, _>>()?;
    events.reverse();
    Ok(events)
}

fn unavailable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("the state cannot be read or written: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serin_rollout::State;

    fn save(expected: Option<u64>, now_ms: u64) -> Save {
        let event = Event { at_ms: now_ms, level: "Normal".to_owned(), message: format!("at {now_ms}") };
        let canary = CanaryKey::new("default", "podinfo");
        let (incarnation, expected) = (String::new(), expected.map(Version));
        Save { canary, incarnation, expected, state: State::new(now_ms), events: vec![event] }
    }

    async fn saved(store: &Sqlite, batch: Vec<Save>) -> Vec<Swap> {
        store.save(batch).await.into_iter().collect::<Result<_, _>>().expect("saved")
    }

    #[tokio::test]
    async fn a_state_is_saved_over_the_version_it_was_made_from_and_over_no_other() {
        let store = Sqlite::in_memory().expect("memory");
        let mut changes = store.watch();
        assert_eq!(saved(&store, vec![save(None, 1)]).await, [Swap::Done(Version(1))]);
        assert!(changes.has_changed().expect("the store lives"));
        let swaps = saved(&store, vec![save(None, 2), save(Some(1), 3), save(Some(1), 4)]).await;
        assert_eq!(swaps, [Swap::Stale, Swap::Done(Version(2)), Swap::Stale]);
        changes.mark_unchanged();
        let saved = store.load().await.expect("loaded").remove(0);
        assert_eq!((saved.version, saved.state), (Version(2), State::new(3)));
        assert_eq!(saved.events.iter().map(|event| event.at_ms).collect::<Vec<_>>(), [1, 3]);
    }

    #[tokio::test]
    async fn events_are_kept_to_a_bound() {
        let store = Sqlite::in_memory().expect("memory");
        let mut state = save(None, 0);
        state.events = (0..EVENTS_KEPT_MAX as u64 + 50).map(|at| save(None, at).events.remove(0)).collect();
        saved(&store, vec![state]).await;
        let saved = store.load().await.expect("loaded").remove(0);
        assert_eq!(saved.events.len(), EVENTS_SHOWN_MAX);
        assert_eq!(saved.events.last().map(|event| event.at_ms), Some(EVENTS_KEPT_MAX as u64 + 49));
    }

    #[tokio::test]
    async fn a_directory_serves_one_process_and_survives_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Sqlite::open(directory.path()).expect("opened");
        saved(&store, vec![save(None, 7)]).await;
        assert!(matches!(Sqlite::open(directory.path()), Err(StoreError::InUse { .. })));
        let mut changes = store.watch();
        drop(store);
        while changes.changed().await.is_ok() {}
        let again = Sqlite::open(directory.path()).expect("opened again");
        assert_eq!(again.load().await.expect("loaded")[0].state, State::new(7));
    }

    #[test]
    fn a_state_of_a_newer_version_is_refused_with_a_sentence() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("serin.db");
        Connection::open(&path).and_then(|c| c.execute_batch("PRAGMA user_version = 99")).expect("written");
        let error = Sqlite::open(directory.path()).expect_err("newer").to_string();
        assert!(error.ends_with("was written by a newer Serin (format 99, this one knows 1); run that version or start with another --state"), "{error}");
    }
}
