//! `serin wait`: ends when a rollout has, with an exit code that a pipeline can use.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use serin_runtime::admin::rollouts::RolloutView;
use tokio::time::{Instant, sleep};

use crate::arguments::{End, WaitArguments};
use crate::client::{Client, runtime};
use crate::paint::{complain, say};

/// Time between two questions.
const PERIOD: Duration = Duration::from_millis(250);
/// Exit code when time is up.
const TIMED_OUT: u8 = 3;

pub(crate) fn wait(arguments: &WaitArguments) -> Result<ExitCode> {
    runtime()?.block_on(async {
        let client = Client::new(arguments.admin)?;
        let deadline = Instant::now() + arguments.timeout;
        loop {
            let rollout = client.one(&arguments.namespace, &arguments.name).await?;
            if let Some(ended) = ended(&rollout, arguments.revision.as_deref()) {
                let last = rollout.events.last().map_or("", |event| event.message.as_str());
                say(&format!("{}/{} {}: {last}", rollout.namespace, rollout.name, rollout.phase));
                return Ok(if ended == arguments.end { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            if Instant::now() >= deadline {
                let why = rollout.holds.or(rollout.alarm).map(|why| format!(" ({why})")).unwrap_or_default();
                complain(&format!(
                    "serin: {} is still {} at weight {} %{why}",
                    rollout.name, rollout.phase, rollout.weight
                ));
                return Ok(ExitCode::from(TIMED_OUT));
            }
            sleep(PERIOD).await;
        }
    })
}

/// How the rollout of a revision, or the newest one, has ended; none if it goes on or has not begun.
fn ended(rollout: &RolloutView, revision: Option<&str>) -> Option<End> {
    let is_meant = |of: &Option<String>| revision.is_none_or(|revision| of.as_deref() == Some(revision));
    match rollout.phase.as_str() {
        "Succeeded" | "Initialized" if is_meant(&rollout.primary.revision) => Some(End::Promoted),
        "Failed" if is_meant(&rollout.canary.revision) => Some(End::Failed),
        // A target that was turned back in mid-run: the canary that failed is the one before.
        "Failed" if rollout.canary.revision == rollout.primary.revision => Some(End::Failed),
        _ => None,
    }
}
