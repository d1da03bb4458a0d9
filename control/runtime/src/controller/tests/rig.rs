//! A controller of one canary with a store and a data plane that a test can hold, break and look into.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use parking_lot::Mutex;
use serin_analysis::Checkpoint;
use serin_measure::{Arm, BootId, Cell, EpochId, Snapshot};
use serin_rollout::{Guard, GuardMode, Phase, Plan, Revision, State, Steps, Strategy, Target, Weight};
use serin_route::{Host, RouteTable};
use tokio::sync::watch;

use crate::controller::*;
use crate::plane::EdgeView;
use crate::site::Alone;
use crate::store::{Save, Version};
use crate::workload::{Reach, Routing};

/// A data plane that remembers what it was given and counts what it is told.
#[derive(Default)]
pub(super) struct Plane {
    pub(super) tables: Mutex<Vec<RouteTable>>,
    pub(super) armed: Mutex<Option<Checkpoint>>,
    pub(super) cells: Mutex<Vec<(EpochId, Cell)>>,
    pub(super) tripped: Mutex<Option<u64>>,
    pub(super) counts: Mutex<Snapshot>,
}

impl DataPlane for Plane {
    fn boot(&self) -> BootId {
        BootId(1)
    }
    fn trip(&self, trip: &Trip) {
        *self.tripped.lock() = Some(trip.rollout);
    }
    fn trips(&self) -> Vec<Trip> {
        Vec::new()
    }
    fn publish(&self, table: RouteTable) {
        self.tables.lock().push(table);
    }
    fn arm(&self, _: &CanaryKey, checkpoint: Option<Checkpoint>) {
        *self.armed.lock() = checkpoint;
    }
    fn is_tripped(&self, _: &CanaryKey, rollout: u64) -> bool {
        *self.tripped.lock() == Some(rollout)
    }
    fn cells(&self, _: &CanaryKey) -> Vec<(EpochId, Cell)> {
        self.cells.lock().clone()
    }
    fn snapshot(&self, canary: Option<&CanaryKey>) -> Snapshot {
        let mut counts = self.counts.lock().clone();
        counts.retain(|key, _| canary.is_none_or(|canary| key.canary == *canary));
        counts
    }
    fn edge(&self) -> EdgeView {
        EdgeView::default()
    }
}

/// A store in memory that can be told to fail, to wait, or to have been written by somebody else.
pub(super) struct Memory {
    pub(super) saved: Mutex<BTreeMap<CanaryKey, Saved>>,
    pub(super) batches: Mutex<Vec<usize>>,
    pub(super) fails: Mutex<bool>,
    pub(super) gate: tokio::sync::Semaphore,
    pub(super) changes: watch::Sender<u64>,
}

impl Memory {
    pub(super) fn open() -> Self {
        let gate = tokio::sync::Semaphore::new(1);
        Self {
            saved: Mutex::default(),
            batches: Mutex::default(),
            fails: Mutex::default(),
            gate,
            changes: watch::Sender::default(),
        }
    }
}

impl Store for Memory {
    async fn load(&self) -> Result<Vec<Saved>, StoreError> {
        if *self.fails.lock() {
            return Err(StoreError::Unavailable("disk full".to_owned()));
        }
        Ok(self.saved.lock().values().cloned().collect())
    }

    async fn save(&self, batch: Vec<Save>) -> Vec<Result<Swap, StoreError>> {
        let _passed = self.gate.acquire().await.expect("never closed");
        if *self.fails.lock() {
            return vec![Err(StoreError::Unavailable("disk full".to_owned())); batch.len()];
        }
        self.batches.lock().push(batch.len());
        let mut saved = self.saved.lock();
        let swaps = batch.into_iter().map(|Save { canary, incarnation, expected, state, events }| {
            if saved.get(&canary).map(|saved| saved.version) != expected {
                return Ok(Swap::Stale);
            }
            let version = Version(expected.map_or(1, |version| version.0 + 1));
            saved.insert(canary.clone(), Saved { canary, incarnation, version, state, events });
            Ok(Swap::Done(version))
        });
        swaps.collect()
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// A controller of one canary that runs version 1, and the hands to move it.
pub(super) struct Rig {
    pub(super) controller: Controller<Memory, Plane, Alone>,
    pub(super) store: Arc<Memory>,
    pub(super) plane: Arc<Plane>,
    pub(super) key: CanaryKey,
}

pub(super) const INTERVAL_MS: u64 = 10_000;

pub(super) fn workload(name: &str, release: &str) -> Workload {
    let weight = |percent| Weight::new(percent).expect("a weight");
    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let plan = Plan {
        canary: CanaryKey::new("default", name),
        target: Target { kind: "Backend".to_owned(), name: name.to_owned() },
        revision: Revision(release.to_owned()),
        strategy: Strategy::Weighted(Steps::by(weight(20), weight(40)).expect("steps")),
        skip_analysis: false,
        threshold: 2,
        interval_ms: INTERVAL_MS,
        progress_deadline_ms: 600_000,
        checks: Vec::new(),
        guard: Guard { mode: GuardMode::Enforce, tolerance: 0.01, warm_up_ms: 10_000 },
    };
    let versions =
        ["1", "2", "3"].iter().zip(1..).map(|(version, port)| (Revision((*version).to_owned()), vec![address(port)]));
    let hosts = vec![Host::parse(&format!("{name}.example.com")).expect("a host")];
    let reach = Reach::Versions(versions.collect());
    let routing = Routing::new(hosts, reach);
    Workload { plan, routing, incarnation: String::new(), numbered_after: 0 }
}

impl Workload {
    /// The same workload with one version fewer.
    pub(super) fn without(mut self, version: &str) -> Self {
        if let Reach::Versions(versions) = &mut self.routing.reach {
            versions.remove(&Revision(version.to_owned()));
        }
        self
    }
}

/// A controller of a process by itself.
pub(super) async fn start(
    store: Arc<Memory>,
    plane: Arc<Plane>,
    workloads: Vec<Workload>,
) -> Controller<Memory, Plane, Alone> {
    let (site, board, clock) = (Arc::new(Alone), Arc::default(), Clock::start());
    Controller::start(store, plane, site, board, clock, workloads).await.expect("it starts")
}

impl Rig {
    pub(super) async fn start(store: Arc<Memory>) -> Self {
        let (plane, key) = (Arc::new(Plane::default()), CanaryKey::new("default", "app"));
        let controller = start(store.clone(), plane.clone(), vec![workload("app", "1")]).await;
        Self { controller, store, plane, key }
    }

    /// A rig whose canary, version 2, has just got its first weight.
    pub(super) async fn at_first_weight() -> Self {
        let mut rig = Self::start(Arc::new(Memory::open())).await;
        rig.tick().await;
        rig.controller.hear(Message::Configured(vec![workload("app", "2")]));
        rig.answer_ready().await;
        rig.tick().await;
        assert_eq!((rig.state().phase, rig.weight()), (Phase::Progressing, 20));
        rig
    }

    pub(super) fn state(&self) -> &State {
        &self.controller.entries[&self.key].state
    }

    pub(super) fn saved(&self) -> State {
        self.store.saved.lock()[&self.key].state.clone()
    }

    /// The weight of the canary in the newest table.
    pub(super) fn weight(&self) -> u64 {
        let tables = self.plane.tables.lock();
        let route = &tables.last().expect("a table").routes()[0];
        (route.coin.probability() * 100.0).round() as u64 * u64::from(!route.endpoints(Arm::Canary).is_empty())
    }

    /// Lets an interval pass and takes the tick that is due, with everything ready.
    pub(super) async fn tick(&mut self) {
        tokio::time::advance(Duration::from_millis(INTERVAL_MS)).await;
        self.controller.beat();
        self.answer_ready().await;
    }

    /// The same tick with a canary that has been dead for ever.
    pub(super) async fn tick_with_dead_canary(&mut self) {
        tokio::time::advance(Duration::from_millis(INTERVAL_MS)).await;
        self.controller.beat();
        let (number, canary) = (self.controller.entries[&self.key].observing.expect("a tick"), self.key.clone());
        let (primary, canary_arm) = (Readiness::Ready, Readiness::Dead("gone".to_owned()));
        self.controller.hear(Message::Observed { canary, number, primary, canary_arm, took: Duration::ZERO });
        self.hear_all().await;
    }

    /// Answers an observation under way with "ready", and hears what follows until nothing more comes.
    pub(super) async fn answer_ready(&mut self) {
        if let Some(number) = self.controller.entries[&self.key].observing {
            let (primary, canary_arm) = (Readiness::Ready, Readiness::Ready);
            let canary = self.key.clone();
            self.controller.hear(Message::Observed { canary, number, primary, canary_arm, took: Duration::ZERO });
        }
        self.hear_all().await;
    }

    /// Hears what has come, but for the real answers about addresses that nobody listens on.
    pub(super) async fn hear_all(&mut self) {
        for _ in 0..20 {
            tokio::task::yield_now().await;
            while let Ok(message) = self.controller.inbox.try_recv() {
                if !matches!(message, Message::Observed { .. }) {
                    self.controller.hear(message);
                }
            }
        }
    }

    /// The tripwire reports this run.
    pub(super) fn trip(&mut self, rollout: u64) {
        self.controller.hear(Message::Tripped(Trip { canary: self.key.clone(), rollout, ln_e: 8.0 }));
    }

    pub(super) fn messages(&self) -> Vec<String> {
        self.controller.entries[&self.key].events.iter().map(|event| event.message.clone()).collect()
    }
}
