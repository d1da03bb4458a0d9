//! A process by itself: workloads from files or from the command line, state in SQLite.

use std::sync::Arc;

use anyhow::Result;
use serin_runtime::store::{Store as _, sqlite::Sqlite};
use serin_runtime::watch::watch as watch_files;
use serin_runtime::{Alone, Controller};

use super::{Process, Signals, Source, Start};
use crate::arguments::RunArguments;
use crate::{doors, quick};

/// Serves until told to stop.
pub(super) async fn serve(arguments: &RunArguments, start: Start, signals: Signals) -> Result<()> {
    let store = open(&start).await?;
    let mut saves = store.watch();
    let process = Process::bind(arguments, &start, signals).await?;
    if start.workloads.is_empty() {
        tracing::warn!("there is no Canary in the configuration, so every request is answered with 404");
    }
    let (plane, board, clock, stop) =
        (process.plane.clone(), process.board.clone(), process.clock, process.stop.clone());
    let (store, site) = (Arc::new(store), Arc::new(Alone));
    let controller = Controller::start(store, plane, site, board.clone(), clock, start.workloads).await?;
    let tell = controller.tell();
    let mut running = process.open(controller);
    tokio::spawn(doors::keep(start.kept, stop.clone()));
    if let Source::Directory { path, set, .. } = start.source {
        tokio::spawn(watch_files(path, *set, tell, board, stop));
    }
    running.until_told_to_stop().await;
    // When its last user is gone, the store closes.
    let closed = async { while saves.changed().await.is_ok() {} };
    running.drain(arguments.drain_delay, start.settings.drain(), closed).await;
    Ok(())
}

async fn open(start: &Start) -> Result<Sqlite> {
    match &start.source {
        Source::Directory { state, .. } => Ok(Sqlite::open(state)?),
        Source::Arguments | Source::Cluster => {
            let store = Sqlite::in_memory()?;
            for saved in store.save(start.workloads.iter().map(quick::initial).collect()).await {
                saved?;
            }
            Ok(store)
        }
    }
}
