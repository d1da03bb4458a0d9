//! Watches the configuration directory: at any change everything is read anew, and used as a whole or not at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use serin_config::{Problem, Set, Severity};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::board::Board;
use crate::controller::Tell;
use crate::interpret::{Interpreted, interpret};

/// Editors write in several steps; this is how long the directory has to be quiet before it is read.
const QUIET: Duration = Duration::from_millis(100);
/// The longest that is waited for that.
const QUIET_MAX: Duration = Duration::from_secs(2);
/// Network file systems do not notify, so the directory is also read on a beat.
const POLL: Duration = Duration::from_secs(30);

/// What a directory says at one moment.
#[derive(Debug)]
pub struct Reading {
    /// What it means.
    pub interpreted: Interpreted,
    /// The set it was read from.
    pub set: Set,
}

/// Reads a directory, looks up names, and says what it means. Blocks.
///
/// # Errors
/// If the directory cannot be listed.
pub fn read(directory: &Path) -> std::io::Result<Reading> {
    let set = serin_config::read_dir(directory)?;
    let interpreted = interpret(&set);
    Ok(Reading { interpreted, set })
}

/// Watches until told to stop. `started_with` is what is in force.
pub async fn watch(directory: PathBuf, started_with: Set, tell: Tell, board: Arc<Board>, stop: CancellationToken) {
    let (changed, mut changes) = mpsc::channel(1);
    let _watcher = start(&directory, changed);
    let mut seen = Some(started_with.content_hash);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(()) = changes.recv() => quiet(&mut changes).await,
            () = tokio::time::sleep(POLL) => {
                // What was refused may be good by now although no file has changed: a name can be looked up again, another
                // version was promoted, a directory is back.
                seen = seen.filter(|_| board.read().refused_config.is_empty());
            }
        }
        seen = reread(&directory, seen, &started_with, &tell).await;
    }
}

/// Waits until nothing has changed for a while, but not for ever: a file may be written all the time.
async fn quiet(changes: &mut mpsc::Receiver<()>) {
    let is_quiet = async { while let Ok(Some(())) = tokio::time::timeout(QUIET, changes.recv()).await {} };
    let _ = tokio::time::timeout(QUIET_MAX, is_quiet).await;
}

/// The watcher; without one the directory is polled.
fn start(directory: &Path, changed: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    // A full channel already promises another reading.
    let on_event = move |event: notify::Result<notify::Event>| {
        // Reading the files is an event too, and must not ask for another reading.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            let _ = changed.try_send(());
        }
    };
    let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    watcher
        .inspect_err(|error| tracing::warn!(directory = %directory.display(), %error, "cannot watch; reading every 30 s instead"))
        .ok()
}

/// Whether two sets ask for the same listeners and the same process settings.
fn same_process(one: &Set, other: &Set) -> bool {
    let addresses = |set: &Set| set.listeners.iter().map(|l| l.value.spec.address.clone()).collect::<Vec<_>>();
    let settings = |set: &Set| set.settings.as_ref().map(|settings| settings.value.spec.clone());
    addresses(one) == addresses(other) && settings(one) == settings(other)
}

/// Reads the directory and uses it, unless it is what was seen last. Gives what was seen now.
async fn reread(directory: &Path, seen: Option<u64>, started_with: &Set, tell: &Tell) -> Option<u64> {
    let path = directory.to_owned();
    let reading = match tokio::task::spawn_blocking(move || read(&path)).await {
        Ok(Ok(reading)) => reading,
        Ok(Err(error)) => {
            tell.refused(vec![format!("{}: {error}", directory.display())]).await;
            return seen;
        }
        Err(error) => {
            tracing::error!(%error, "reading the configuration broke off");
            return seen;
        }
    };
    let Reading { interpreted, set } = reading;
    if seen == Some(set.content_hash) {
        return seen;
    }
    if interpreted.has_errors() {
        let errors = interpreted.problems.iter().filter(|problem| problem.severity == Severity::Error);
        tell.refused(errors.map(Problem::to_string).collect()).await;
    } else {
        for warning in &interpreted.problems {
            tracing::warn!("{warning}");
        }
        if !same_process(started_with, &set) {
            tracing::warn!(
                "Listener and Settings documents are read at the start only: restart to use what was changed in them"
            );
        }
        tell.configured(interpreted.workloads).await;
    }
    Some(set.content_hash)
}
