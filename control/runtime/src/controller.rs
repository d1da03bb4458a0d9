//! The control loop: one task that owns every state, hears what happened and moves what is due.
//!
//! ```text
//!   beat (200 ms) ─▶ judge ─▶ brake?            due tick, or news ─▶ observe ─▶ step ─▶ save ─▶ publish
//!   trip ──────────▶ brake ─▶ publish ─▶ save   new configuration ─▶ accept ─▶ publish
//! ```
//!
//! The loop itself never waits for a store, a backend, a disk or another process: those answer by message. So a brake is
//! never behind anything.
//!
//! In a fleet one process leads. The others follow: they take states over as the leader saves them, serve, measure, and
//! watch with their own tripwires, and they judge and step nothing. `lead.rs` has the way from one to the other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serin_analysis::Count;
use serin_measure::{CanaryKey, Snapshot};
use serin_rollout::Readiness;
use serin_route::Generation;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::accept::Unacceptable;
use crate::board::{Board, CanaryPosting, Posting, Tally};
use crate::clock::Clock;
use crate::entry::{Entry, Former};
use crate::fleet::{Answer, AskError, Fleet};
use crate::plane::{DataPlane, Trip};
use crate::site::Site;
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
    /// Saving has ended, of these canaries, each of them with its incarnation.
    Saved { canaries: Vec<(CanaryKey, String)>, results: Vec<Result<Swap, StoreError>> },
    /// States as somebody has saved them.
    Stored(Vec<Saved>),
    /// The states of these canaries were deleted.
    Forgotten(Vec<CanaryKey>),
    /// This process is to lead.
    Elected,
    /// The states with which it begins to lead.
    Loaded(Result<Vec<Saved>, StoreError>),
    /// Another process leads.
    Deposed,
    /// Somebody else writes a Canary's status.
    Contested { canary: CanaryKey, incarnation: String, by: String },
    /// Another process of the fleet has answered.
    Answered { peer: SocketAddr, answer: Result<Answer, AskError> },
}

/// Whether this process judges and steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Another one does, or nobody.
    Following,
    /// It is to, and reads the newest states first.
    Assuming,
    /// It does.
    Leading,
}

/// The loop's senses and hands.
pub struct Controller<S, P, W> {
    pub(crate) store: Arc<S>,
    pub(crate) plane: Arc<P>,
    pub(crate) site: Arc<W>,
    pub(crate) role: Role,
    pub(crate) fleet: Fleet,
    /// Who has been asked and has not answered yet.
    pub(crate) asked: BTreeSet<SocketAddr>,
    pub(crate) asked_ms: u64,
    /// The newest states are being read, by somebody in this role.
    pub(crate) loading: Option<Role>,
    /// What is saved has to be read before this process can follow it.
    pub(crate) unread: bool,
    pub(crate) snapshots_asked_ms: u64,
    /// Everything that the others have counted, as of their last answers.
    pub(crate) others: Arc<Snapshot>,
    pub(crate) others_have_news: bool,
    pub(crate) board: Arc<Board>,
    pub(crate) clock: Clock,
    pub(crate) entries: BTreeMap<CanaryKey, Entry>,
    /// States of canaries that are not configured now. They are kept: the configuration may come back.
    pub(crate) parked: BTreeMap<CanaryKey, Saved>,
    /// Canaries that have left the configuration since the start, whole: a save may still be on its way.
    pub(crate) retired: BTreeMap<CanaryKey, Entry>,
    generation: u64,
    pub(crate) observation: u64,
    pub(crate) last_checkpoint_ms: u64,
    pub(crate) tally: Tally,
    pub(crate) refused_config: Vec<String>,
    pub(crate) outbox: mpsc::Sender<Message>,
    inbox: mpsc::Receiver<Message>,
}

/// Where the outside tells the loop what happened.
#[derive(Debug, Clone)]
pub struct Tell(mpsc::Sender<Message>);

impl Tell {
    /// One that tells a test instead of a loop.
    #[cfg(test)]
    pub(crate) fn for_test() -> (Self, mpsc::Receiver<Message>) {
        let (outbox, inbox) = mpsc::channel(INBOX_MAX);
        (Self(outbox), inbox)
    }

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

    /// States were saved by whoever leads.
    pub async fn stored(&self, states: Vec<Saved>) {
        let _ = self.0.send(Message::Stored(states)).await;
    }

    /// States were deleted; those of canaries that are still configured will be written anew.
    pub async fn forgotten(&self, canaries: Vec<CanaryKey>) {
        let _ = self.0.send(Message::Forgotten(canaries)).await;
    }

    /// This process is to lead from now on.
    pub async fn elected(&self) {
        let _ = self.0.send(Message::Elected).await;
    }

    /// Somebody else writes the status of a Canary, as if it were his.
    pub async fn contested(&self, canary: CanaryKey, incarnation: String, by: String) {
        let _ = self.0.send(Message::Contested { canary, incarnation, by }).await;
    }

    /// Another process leads.
    pub async fn deposed(&self) {
        let _ = self.0.send(Message::Deposed).await;
    }
}

impl<S: Store, P: DataPlane, W: Site> Controller<S, P, W> {
    /// Loads all states, accepts the first configuration and publishes the first table. A process by itself leads; one of a
    /// fleet follows until it is elected.
    ///
    /// # Errors
    /// If the store cannot be read, or the configuration does not go with the states.
    pub async fn start(
        store: Arc<S>,
        plane: Arc<P>,
        site: Arc<W>,
        board: Arc<Board>,
        clock: Clock,
        workloads: Vec<Workload>,
    ) -> Result<Self, StartError> {
        let parked = store.load().await?.into_iter().map(|saved| (saved.canary.clone(), saved)).collect();
        let (outbox, inbox) = mpsc::channel(INBOX_MAX);
        let role = if site.is_fleet() { Role::Following } else { Role::Leading };
        let mut controller = Self {
            store,
            plane,
            site,
            role,
            fleet: Fleet::default(),
            asked: BTreeSet::new(),
            asked_ms: 0,
            loading: None,
            unread: false,
            snapshots_asked_ms: 0,
            others: Arc::default(),
            others_have_news: false,
            board,
            clock,
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
            Message::Saved { canaries, results } => self.saved(&canaries, results),
            Message::Stored(states) => self.stored(states),
            Message::Forgotten(canaries) => self.forgotten(&canaries),
            Message::Elected => self.elected(),
            Message::Loaded(states) => self.loaded(states),
            Message::Deposed => self.deposed(),
            Message::Contested { canary, incarnation, by } => self.contested(&canary, &incarnation, &by),
            Message::Answered { peer, answer } => self.answered(peer, answer),
        }
    }

    /// Whether this process judges and steps.
    pub(crate) fn leads(&self) -> bool {
        self.role == Role::Leading
    }

    /// The evidence cells of a canary: this process's own, and those that the others have told.
    pub(crate) fn counts(&self, key: &CanaryKey, now_ms: u64) -> Vec<Count> {
        self.own_counts(key).into_iter().chain(self.fleet.counts(key, now_ms)).collect()
    }

    /// The evidence cells of this process alone.
    pub(crate) fn own_counts(&self, key: &CanaryKey) -> Vec<Count> {
        let boot = self.plane.boot();
        self.plane.cells(key).into_iter().map(|(epoch, cell)| Count { boot, epoch, cell }).collect()
    }

    /// Everything counted of a canary, by this process and by the others.
    pub(crate) fn snapshot(&self, key: &CanaryKey) -> Snapshot {
        let mut all = self.plane.snapshot(Some(key));
        self.fleet.add_counts_of(key, &mut all);
        all
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

    /// Who had charge of states that this process takes over.
    pub(crate) fn former(&self) -> Former {
        if self.site.is_fleet() { Former::Fleet } else { Former::ThisMachine }
    }

    /// Whether everybody who carries traffic follows the saved state that is in force here.
    fn is_settled(&self, key: &CanaryKey, entry: &Entry) -> bool {
        let saved = entry.version.filter(|_| !entry.dirty && self.leads());
        saved.is_some_and(|version| {
            let (peers, now_ms) = (self.site.peers(), self.clock.now_ms());
            self.fleet.silent(&peers, now_ms).0 == 0 && self.fleet.have_in_force(key, version, now_ms)
        })
    }

    /// Posts what people may see.
    pub(crate) fn post(&self) {
        let canaries = self.entries.iter().map(|(key, entry)| {
            let posting = CanaryPosting {
                plan: entry.workload.plan.clone(),
                state: entry.state.clone(),
                events: entry.events.iter().cloned().collect(),
                alarm: entry.alarm.clone(),
                contested: entry.contested.as_ref().map(|contested| contested.sentence.clone()),
                checks: entry.checks.clone(),
                run_from: entry.run_from,
                saved: !entry.dirty,
                version: entry.version,
                settled: self.is_settled(key, entry),
            };
            (key.clone(), posting)
        });
        self.board.post(Posting {
            ready: true,
            leads: self.leads(),
            all_see: self.board.is_settled() && self.fleet.silent(&self.site.peers(), self.clock.now_ms()).0 == 0,
            generation: self.generation,
            others: self.others.clone(),
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
                Some(Message::Saved { canaries, results }) => self.saved(&canaries, results),
                Some(Message::Tripped(trip)) => self.trip(&trip),
                Some(
                    Message::Configured(_)
                    | Message::Refused(_)
                    | Message::Observed { .. }
                    | Message::Stored(_)
                    | Message::Forgotten(_)
                    | Message::Elected
                    | Message::Loaded(_)
                    | Message::Deposed
                    | Message::Contested { .. }
                    | Message::Answered { .. },
                ) => {}
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

#[cfg(test)]
mod tests;
