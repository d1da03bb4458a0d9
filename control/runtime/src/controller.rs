//! The control loop: one task that owns every state, hears what happened and moves what is due.
//!
//! ```text
//!   beat (200 ms) ─▶ judge ─▶ brake?            due tick, or news ─▶ observe ─▶ step ─▶ save ─▶ publish
//!   trip ──────────▶ brake ─▶ publish ─▶ save   new configuration ─▶ accept ─▶ publish
//! ```
//!
//! The loop itself never waits for a store, a backend or a disk: those answer by message. So a brake is never behind
//! anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serin_measure::CanaryKey;
use serin_rollout::{Readiness, Revision};
use serin_route::Generation;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::board::{Board, CanaryPosting, Posting, Tally};
use crate::clock::Clock;
use crate::entry::{Entry, Pending};
use crate::plane::{DataPlane, Trip};
use crate::store::{Saved, Store, StoreError, Swap};
use crate::table::route_table;
use crate::workload::Workload;

/// Time between two looks of the guard.
const BEAT: Duration = Duration::from_millis(200);
/// Answers that wait for the loop; every canary waits for one at most, so this only bounds a burst.
const INBOX_MAX: usize = 4_096;

/// What the loop hears.
#[derive(Debug)]
pub(crate) enum Message {
    /// A new configuration.
    Configured(Vec<Workload>),
    /// A configuration that cannot be used, problem by problem.
    Refused(Vec<String>),
    /// A tripwire has acted.
    Tripped(Trip),
    /// Facts for a tick.
    Observed { canary: CanaryKey, number: u64, primary: Readiness, canary_arm: Readiness, took: Duration },
    /// Saving has ended.
    Saved { canaries: Vec<CanaryKey>, result: Result<Vec<Swap>, StoreError> },
}

/// The loop's senses and hands.
pub struct Controller<S, P> {
    pub(crate) store: Arc<S>,
    pub(crate) plane: Arc<P>,
    pub(crate) board: Arc<Board>,
    pub(crate) clock: Clock,
    pub(crate) entries: BTreeMap<CanaryKey, Entry>,
    /// States of canaries that are not configured now. They are kept: the configuration may come back.
    parked: BTreeMap<CanaryKey, Saved>,
    /// Canaries that have left the configuration since the start, whole: a save may still be on its way.
    pub(crate) retired: BTreeMap<CanaryKey, Entry>,
    generation: u64,
    pub(crate) observation: u64,
    pub(crate) last_checkpoint_ms: u64,
    pub(crate) tally: Tally,
    refused_config: Vec<String>,
    pub(crate) outbox: mpsc::Sender<Message>,
    inbox: mpsc::Receiver<Message>,
}

/// Where the outside tells the loop what happened.
#[derive(Debug, Clone)]
pub struct Tell(mpsc::Sender<Message>);

impl Tell {
    /// A new configuration is to be used.
    pub async fn configured(&self, workloads: Vec<Workload>) {
        let _ = self.0.send(Message::Configured(workloads)).await;
    }

    /// A new configuration was refused; people should see why.
    pub async fn refused(&self, problems: Vec<String>) {
        let _ = self.0.send(Message::Refused(problems)).await;
    }

    /// A tripwire has taken a canary out of traffic.
    pub async fn tripped(&self, trip: Trip) {
        let _ = self.0.send(Message::Tripped(trip)).await;
    }
}

/// A configuration that does not go with the states there are.
#[derive(Debug, thiserror::Error)]
pub enum Unacceptable {
    /// Hosts collide.
    #[error(transparent)]
    Table(#[from] serin_route::TableError),
    /// A version that serves is gone.
    #[error(
        "canary {canary} serves version \"{revision}\" of backend {target} now, and it is no longer listed; list it under versions until another one is promoted"
    )]
    MissingVersion {
        /// Whose.
        canary: CanaryKey,
        /// The target's name.
        target: String,
        /// Which.
        revision: Revision,
    },
}

impl<S: Store, P: DataPlane> Controller<S, P> {
    /// Loads all states, accepts the first configuration and publishes the first table.
    ///
    /// # Errors
    /// If the store cannot be read, or the configuration does not go with the states.
    pub async fn start(
        store: Arc<S>,
        plane: Arc<P>,
        board: Arc<Board>,
        workloads: Vec<Workload>,
    ) -> Result<Self, StartError> {
        let parked = store.load().await?.into_iter().map(|saved| (saved.canary.clone(), saved)).collect();
        let (outbox, inbox) = mpsc::channel(INBOX_MAX);
        let mut controller = Self {
            store,
            plane,
            board,
            clock: Clock::start(),
            entries: BTreeMap::new(),
            parked,
            retired: BTreeMap::new(),
            generation: 0,
            observation: 0,
            last_checkpoint_ms: 0,
            tally: Tally::default(),
            refused_config: Vec::new(),
            outbox,
            inbox,
        };
        controller.accept(workloads)?;
        controller.publish();
        Ok(controller)
    }

    /// Where to tell the loop what happened.
    pub fn tell(&self) -> Tell {
        Tell(self.outbox.clone())
    }

    /// Runs until told to stop. What is being saved then is waited for.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        while !stop.is_cancelled() {
            let next_due = self.next_due();
            tokio::select! {
                // A trip comes by message; it goes before the beat.
                biased;
                () = stop.cancelled() => {}
                Some(message) = self.inbox.recv() => self.hear(message),
                _ = beat.tick() => self.beat(),
                // Ticks keep to their interval, not to the beat.
                () = tokio::time::sleep(next_due) => self.begin_due_ticks(),
            }
        }
        self.settle().await;
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Configured(workloads) => self.configure(workloads),
            Message::Refused(problems) => self.refuse(problems),
            Message::Tripped(trip) => self.trip(&trip),
            Message::Observed { canary, number, primary, canary_arm, took } => {
                self.observed(&canary, number, primary, canary_arm, took);
            }
            Message::Saved { canaries, result } => self.saved(&canaries, result),
        }
    }

    fn configure(&mut self, workloads: Vec<Workload>) {
        match self.accept(workloads) {
            Ok(()) => {
                tracing::info!(canaries = self.entries.len(), "configuration accepted");
                self.refused_config.clear();
                self.publish();
                self.beat();
            }
            Err(error) => self.refuse(vec![error.to_string()]),
        }
    }

    fn refuse(&mut self, problems: Vec<String>) {
        if problems != self.refused_config {
            for problem in &problems {
                tracing::error!("configuration refused, the last good one stays in force: {problem}");
            }
        }
        self.refused_config = problems;
        self.post();
    }

    /// Takes a configuration over as a whole, or not at all.
    fn accept(&mut self, workloads: Vec<Workload>) -> Result<(), Unacceptable> {
        let now_ms = self.clock.now_ms();
        let mut next = BTreeMap::new();
        for workload in workloads {
            let key = workload.plan.canary.clone();
            // Looked at on copies: until everything is accepted nothing may change.
            let known = self.entries.get(&key).or_else(|| self.retired.get(&key));
            let state = match (known, self.parked.get(&key)) {
                (Some(entry), _) => entry.state.clone(),
                (None, Some(saved)) => saved.state.clone(),
                (None, None) => serin_rollout::State::new(now_ms),
            };
            check_versions(&workload, &state)?;
            if let Some(Pending::Step(coming, _)) = known.and_then(|entry| entry.saving.as_ref()) {
                check_versions(&workload, coming)?;
            }
            next.insert(key, (workload, state));
        }
        route_table(Generation(0), next.values().map(|(workload, state)| (workload, state)))?;
        let mut former = std::mem::take(&mut self.entries);
        for (key, (workload, _)) in next {
            let entry = match (former.remove(&key), self.retired.remove(&key)) {
                (Some(entry), _) => entry.reconfigured(workload),
                (None, Some(mut entry)) => {
                    entry.judge.rebase(&self.plane.cells(&key), now_ms);
                    entry.reconfigured(workload)
                }
                (None, None) => Entry::new(workload, self.parked.remove(&key), now_ms),
            };
            self.entries.insert(key, entry);
        }
        for (key, mut entry) in former {
            tracing::info!(canary = %key, phase = %entry.state.phase, "no longer configured; its state is kept");
            self.plane.arm(&key, None);
            entry.retire();
            self.retired.insert(key, entry);
        }
        Ok(())
    }

    /// Puts the table of all states in force and tells the tripwires.
    pub(crate) fn publish(&mut self) {
        self.generation += 1;
        let all = self.entries.values().map(|entry| (&entry.workload, &entry.state));
        match route_table(Generation(self.generation), all) {
            Ok(table) => self.plane.publish(table),
            // Hosts were looked at when the configuration was accepted, and no step changes them.
            Err(error) => tracing::error!(%error, "the table cannot be built; the last one stays in force"),
        }
        for key in self.entries.keys().cloned().collect::<Vec<_>>() {
            self.arm(&key);
        }
        self.post();
    }

    /// Posts what people may see.
    pub(crate) fn post(&self) {
        let canaries = self.entries.iter().map(|(key, entry)| {
            let posting = CanaryPosting {
                plan: entry.workload.plan.clone(),
                state: entry.state.clone(),
                events: entry.events.iter().cloned().collect(),
                alarm: entry.alarm.clone(),
                checks: entry.checks.clone(),
                run_from: entry.run_from,
                saved: !entry.dirty,
            };
            (key.clone(), posting)
        });
        self.board.post(Posting {
            ready: true,
            generation: self.generation,
            canaries: canaries.collect(),
            refused_config: self.refused_config.clone(),
            tally: self.tally.clone(),
        });
    }

    /// Waits for what is being saved, and saves what a brake has left unsaved, once.
    async fn settle(&mut self) {
        self.keep_everything();
        while self.entries.values().chain(self.retired.values()).any(|entry| entry.saving.is_some()) {
            match self.inbox.recv().await {
                Some(Message::Saved { canaries, result }) => self.saved(&canaries, result),
                Some(Message::Tripped(trip)) => self.trip(&trip),
                Some(Message::Configured(_) | Message::Refused(_) | Message::Observed { .. }) => {}
                None => return,
            }
        }
    }
}

/// Why the loop cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The states cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The configuration does not go with them.
    #[error(transparent)]
    Unacceptable(#[from] Unacceptable),
}

/// The version behind the primary has to be listed: nothing could take its place.
fn check_versions(workload: &Workload, state: &serin_rollout::State) -> Result<(), Unacceptable> {
    let desired = serin_rollout::desired(&workload.plan, state);
    // A run whose canary is no longer listed is about to be restarted or reverted by the edit that removed it.
    let is_served = |revision: &&Revision| !workload.routing.versions.contains_key(*revision);
    match Some(&desired.primary).filter(is_served) {
        None => Ok(()),
        Some(revision) => Err(Unacceptable::MissingVersion {
            canary: workload.plan.canary.clone(),
            target: workload.plan.target.name.clone(),
            revision: revision.clone(),
        }),
    }
}

#[cfg(test)]
mod tests;
