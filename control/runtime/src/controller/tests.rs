//! The loop taken by hand: what comes into force before and after it is saved, and what no store can hold up.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serin_analysis::Checkpoint;
use serin_measure::{Arm, Cell, EpochId, Snapshot};
use serin_rollout::{Guard, GuardMode, Phase, Plan, State, Steps, Strategy, Target, Weight};
use serin_route::{Audience, Host, RouteTable};
use tokio::sync::watch;

use super::*;
use crate::plane::EdgeView;
use crate::store::{Save, Version};
use crate::workload::Routing;

/// A data plane that remembers what it was given and counts what it is told.
#[derive(Default)]
struct Plane {
    tables: Mutex<Vec<RouteTable>>,
    armed: Mutex<Option<Checkpoint>>,
    cells: Mutex<Vec<(EpochId, Cell)>>,
    tripped: Mutex<Option<u64>>,
}

impl DataPlane for Plane {
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
    fn snapshot(&self, _: Option<&CanaryKey>) -> Snapshot {
        Snapshot::new()
    }
    fn edge(&self) -> EdgeView {
        EdgeView::default()
    }
}

/// A store in memory that can be told to fail, to wait, or to have been written by somebody else.
struct Memory {
    saved: Mutex<BTreeMap<CanaryKey, Saved>>,
    batches: Mutex<Vec<usize>>,
    fails: Mutex<bool>,
    gate: tokio::sync::Semaphore,
    changes: watch::Sender<u64>,
}

impl Memory {
    fn open() -> Self {
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
        Ok(self.saved.lock().values().cloned().collect())
    }

    async fn save(&self, batch: Vec<Save>) -> Result<Vec<Swap>, StoreError> {
        let _passed = self.gate.acquire().await.expect("never closed");
        if *self.fails.lock() {
            return Err(StoreError::Unavailable("disk full".to_owned()));
        }
        self.batches.lock().push(batch.len());
        let mut saved = self.saved.lock();
        let swaps = batch.into_iter().map(|Save { canary, expected, state, events }| {
            if saved.get(&canary).map(|saved| saved.version) != expected {
                return Swap::Stale;
            }
            let version = Version(expected.map_or(1, |version| version.0 + 1));
            saved.insert(canary.clone(), Saved { canary, version, state, events });
            Swap::Done(version)
        });
        Ok(swaps.collect())
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// A controller of one canary that runs version 1, and the hands to move it.
struct Rig {
    controller: Controller<Memory, Plane>,
    store: Arc<Memory>,
    plane: Arc<Plane>,
    key: CanaryKey,
}

const INTERVAL_MS: u64 = 10_000;

fn workload(name: &str, release: &str) -> Workload {
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
    let routing = Routing { hosts, audience: Audience::Everyone, forced: Vec::new(), versions: versions.collect() };
    Workload { plan, routing }
}

impl Rig {
    async fn start(store: Arc<Memory>) -> Self {
        let (plane, key) = (Arc::new(Plane::default()), CanaryKey::new("default", "app"));
        let controller = Controller::start(store.clone(), plane.clone(), Arc::default(), vec![workload("app", "1")]);
        let controller = controller.await.expect("an empty store and one workload");
        Self { controller, store, plane, key }
    }

    /// A rig whose canary, version 2, has just got its first weight.
    async fn at_first_weight() -> Self {
        let mut rig = Self::start(Arc::new(Memory::open())).await;
        rig.tick().await;
        rig.controller.hear(Message::Configured(vec![workload("app", "2")]));
        rig.answer_ready().await;
        rig.tick().await;
        assert_eq!((rig.state().phase, rig.weight()), (Phase::Progressing, 20));
        rig
    }

    fn state(&self) -> &State {
        &self.controller.entries[&self.key].state
    }

    fn saved(&self) -> State {
        self.store.saved.lock()[&self.key].state.clone()
    }

    /// The weight of the canary in the newest table.
    fn weight(&self) -> u64 {
        let tables = self.plane.tables.lock();
        let route = &tables.last().expect("a table").routes()[0];
        (route.coin.probability() * 100.0).round() as u64 * u64::from(!route.endpoints(Arm::Canary).is_empty())
    }

    /// Lets an interval pass and takes the tick that is due, with everything ready.
    async fn tick(&mut self) {
        tokio::time::advance(Duration::from_millis(INTERVAL_MS)).await;
        self.controller.beat();
        self.answer_ready().await;
    }

    /// The same tick with a canary that has been dead for ever.
    async fn tick_with_dead_canary(&mut self) {
        tokio::time::advance(Duration::from_millis(INTERVAL_MS)).await;
        self.controller.beat();
        let (number, canary) = (self.controller.entries[&self.key].observing.expect("a tick"), self.key.clone());
        let (primary, canary_arm) = (Readiness::Ready, Readiness::Dead("gone".to_owned()));
        self.controller.hear(Message::Observed { canary, number, primary, canary_arm, took: Duration::ZERO });
        self.hear_all().await;
    }

    /// Answers an observation under way with "ready", and hears what follows until nothing more comes.
    async fn answer_ready(&mut self) {
        if let Some(number) = self.controller.entries[&self.key].observing {
            let (primary, canary_arm) = (Readiness::Ready, Readiness::Ready);
            let canary = self.key.clone();
            self.controller.hear(Message::Observed { canary, number, primary, canary_arm, took: Duration::ZERO });
        }
        self.hear_all().await;
    }

    /// Hears what has come, but for the real answers about addresses that nobody listens on.
    async fn hear_all(&mut self) {
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
    fn trip(&mut self, rollout: u64) {
        self.controller.hear(Message::Tripped(Trip { canary: self.key.clone(), rollout, ln_e: 8.0 }));
    }

    fn messages(&self) -> Vec<String> {
        self.controller.entries[&self.key].events.iter().map(|event| event.message.clone()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_comes_into_force_when_it_is_saved_and_not_before() {
    let mut rig = Rig::at_first_weight().await;
    let store = rig.store.clone();
    let held = store.gate.try_acquire().expect("nobody is saving");
    rig.tick().await;
    assert_eq!((rig.weight(), rig.state().weight.percent()), (20, 20), "the save is still on its way");
    drop(held);
    rig.hear_all().await;
    assert_eq!((rig.weight(), store.saved.lock()[&rig.key].state.weight.percent()), (40, 40));
}

#[tokio::test(start_paused = true)]
async fn checklist_211_a_new_revision_is_answered_at_once_and_not_at_the_interval() {
    let mut rig = Rig::start(Arc::new(Memory::open())).await;
    rig.tick().await;
    rig.controller.hear(Message::Configured(vec![workload("app", "2")]));
    rig.answer_ready().await;
    assert_eq!((rig.state().phase, rig.saved().phase), (Phase::Progressing, Phase::Progressing));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_saved_does_not_advance_and_says_so_until_it_can() {
    let mut rig = Rig::at_first_weight().await;
    *rig.store.fails.lock() = true;
    for _ in 0..3 {
        rig.tick().await;
    }
    assert_eq!(rig.weight(), 20);
    let alarm = rig.controller.board.read().canaries[&rig.key].alarm.clone().expect("an alarm");
    assert!(alarm.contains("nothing advances") && alarm.ends_with("disk full"), "{alarm}");
    assert!(rig.controller.tally.save_failures >= 3);
    assert!(
        !rig.messages().contains(&"Advance app.default canary weight 40".to_owned()),
        "what did not happen is not told"
    );
    *rig.store.fails.lock() = false;
    rig.tick().await;
    assert_eq!(rig.weight(), 40);
    assert_eq!(rig.controller.board.read().canaries[&rig.key].alarm, None);
}

#[tokio::test(start_paused = true)]
async fn a_brake_waits_for_no_store_and_is_saved_when_saving_works_again() {
    let mut rig = Rig::at_first_weight().await;
    *rig.store.fails.lock() = true;
    rig.trip(rig.state().rollout);
    assert_eq!((rig.weight(), rig.state().phase), (0, Phase::Failed), "in force at once");
    rig.hear_all().await;
    assert_eq!(
        (rig.saved().phase, rig.saved().weight.percent()),
        (Phase::Progressing, 20),
        "the store knows nothing yet"
    );
    *rig.store.fails.lock() = false;
    rig.tick().await;
    assert_eq!(rig.saved().phase, Phase::Failed);
    let told = rig.store.saved.lock()[&rig.key].events.iter().map(|event| event.message.clone()).collect::<Vec<_>>();
    assert_eq!(told.last().map(String::as_str), Some("Canary failed! Scaling down app.default"));
}

#[tokio::test(start_paused = true)]
async fn a_brake_beats_a_step_that_is_being_saved() {
    let mut rig = Rig::at_first_weight().await;
    let store = rig.store.clone();
    let held = store.gate.try_acquire().expect("nobody is saving");
    rig.tick().await;
    rig.trip(rig.state().rollout);
    assert_eq!(rig.weight(), 0);
    drop(held);
    rig.hear_all().await;
    assert_eq!(
        (rig.weight(), rig.state().phase),
        (0, Phase::Failed),
        "the step that was saved first never came into force"
    );
    rig.tick().await;
    assert_eq!((rig.saved().phase, rig.saved().weight.percent()), (Phase::Failed, 0));
}

#[tokio::test(start_paused = true)]
async fn evidence_over_the_limit_brakes_without_a_tripwire() {
    let mut rig = Rig::at_first_weight().await;
    let epoch = rig.state().epoch.id;
    *rig.plane.cells.lock() = vec![(epoch, Cell { n: 200, a: 40, b: 0, done: 200 })];
    assert!(
        rig.plane.armed.lock().as_ref().is_some_and(|checkpoint| checkpoint.acts && checkpoint.bases[0].epoch == epoch)
    );
    tokio::time::advance(Duration::from_millis(200)).await;
    rig.controller.beat();
    assert_eq!((rig.weight(), rig.state().phase), (0, Phase::Failed));
    assert_eq!(*rig.plane.armed.lock(), None, "there is nothing left to look at");
}

#[tokio::test(start_paused = true)]
async fn a_trip_of_a_former_run_says_nothing_about_this_one() {
    let mut rig = Rig::at_first_weight().await;
    let former = rig.state().rollout;
    rig.controller.hear(Message::Configured(vec![workload("app", "3")]));
    rig.answer_ready().await;
    rig.tick().await;
    assert_eq!((rig.state().rollout, rig.weight()), (former + 1, 20));
    rig.trip(former);
    assert_eq!((rig.state().phase, rig.weight()), (Phase::Progressing, 20));
}

#[tokio::test(start_paused = true)]
async fn who_finds_the_state_written_by_another_advances_no_more() {
    let mut rig = Rig::at_first_weight().await;
    rig.store.saved.lock().get_mut(&rig.key).expect("saved").version = Version(99);
    for _ in 0..3 {
        rig.tick().await;
    }
    assert_eq!(rig.weight(), 20);
    let alarm = rig.controller.board.read().canaries[&rig.key].alarm.clone().expect("an alarm");
    assert!(alarm.starts_with("somebody else writes the state"), "{alarm}");
    rig.trip(rig.state().rollout);
    assert_eq!(rig.weight(), 0, "it still brakes");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_saved_while_nothing_changes_and_evidence_goes_out_together_once_a_second() {
    let mut rig = Rig::start(Arc::new(Memory::open())).await;
    rig.tick().await;
    let before = rig.store.batches.lock().len();
    for _ in 0..10 {
        rig.tick().await;
    }
    assert_eq!(rig.store.batches.lock().len(), before, "idle ticks save nothing");

    let mut rig = Rig::at_first_weight().await;
    let before = rig.store.batches.lock().len();
    *rig.plane.cells.lock() = vec![(rig.state().epoch.id, Cell { n: 10, a: 0, b: 0, done: 10 })];
    for _ in 0..15 {
        tokio::time::advance(Duration::from_millis(200)).await;
        rig.controller.beat();
        rig.hear_all().await;
    }
    let batches = rig.store.batches.lock().len() - before;
    assert!((2..=4).contains(&batches), "3 s of evidence took {batches} saves");
}

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_with_the_same_weight_and_no_more_evidence_than_was_saved() {
    let mut rig = Rig::at_first_weight().await;
    *rig.plane.cells.lock() = vec![(rig.state().epoch.id, Cell { n: 500, a: 3, b: 1, done: 500 })];
    for _ in 0..10 {
        tokio::time::advance(Duration::from_millis(200)).await;
        rig.controller.beat();
        rig.hear_all().await;
    }
    let before = rig.state().clone();
    let (plane, store) = (Arc::new(Plane::default()), rig.store.clone());
    drop(rig.controller);
    let again =
        Controller::start(store, plane.clone(), Arc::default(), vec![workload("app", "2")]).await.expect("started");
    let state = &again.entries[&rig.key].state;
    assert_eq!(
        (state.phase, state.weight, state.rollout, &state.epoch),
        (before.phase, before.weight, before.rollout, &before.epoch)
    );
    assert!(state.evidence.ln_e() <= before.evidence.ln_e() && state.evidence.judged_ms() > 0);
    let tables = plane.tables.lock();
    assert_eq!(tables.len(), 1);
    assert_eq!(tables[0].routes()[0].coin, before.epoch.coin, "the first table carries the weight");
}

#[tokio::test(start_paused = true)]
async fn a_configuration_is_taken_over_whole_or_not_at_all() {
    let mut rig = Rig::at_first_weight().await;
    let mut without_serving = workload("app", "3");
    without_serving.routing.versions.remove(&Revision("1".to_owned()));
    rig.controller.hear(Message::Configured(vec![workload("other", "1"), without_serving]));
    assert_eq!(rig.controller.entries.keys().map(CanaryKey::name).collect::<Vec<_>>(), ["app"]);
    assert_eq!(rig.weight(), 20);
    let refused = rig.controller.board.read().refused_config.clone();
    assert!(refused[0].contains("serves version \"1\" of backend app now, and it is no longer listed"), "{refused:?}");
    rig.controller.hear(Message::Configured(vec![workload("app", "2"), workload("other", "1")]));
    assert!(rig.controller.board.read().refused_config.is_empty());
    assert_eq!(rig.controller.entries.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_leaves_the_configuration_comes_back_where_it_stood() {
    let mut rig = Rig::at_first_weight().await;
    let before = rig.state().clone();
    rig.controller.hear(Message::Configured(vec![workload("other", "1")]));
    assert!(!rig.controller.entries.contains_key(&rig.key));
    rig.controller.hear(Message::Configured(vec![workload("app", "2")]));
    assert_eq!(
        (rig.state().phase, rig.state().weight, rig.state().rollout),
        (before.phase, before.weight, before.rollout)
    );
}

#[tokio::test(start_paused = true)]
async fn every_rollback_comes_into_force_without_a_store_not_only_the_guards() {
    let mut rig = Rig::at_first_weight().await;
    *rig.store.fails.lock() = true;
    rig.tick_with_dead_canary().await;
    assert_eq!((rig.weight(), rig.state().phase), (0, Phase::Failed));

    let mut rig = Rig::at_first_weight().await;
    *rig.store.fails.lock() = true;
    rig.controller.hear(Message::Configured(vec![workload("app", "1")]));
    rig.answer_ready().await;
    assert_eq!((rig.weight(), rig.state().phase), (0, Phase::Failed), "a revert");
    *rig.store.fails.lock() = false;
    rig.tick().await;
    assert_eq!((rig.saved().phase, rig.saved().weight.percent()), (Phase::Failed, 0));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_holds_up_no_rollback_either() {
    let mut rig = Rig::at_first_weight().await;
    let store = rig.store.clone();
    let held = store.gate.try_acquire().expect("nobody is saving");
    rig.tick().await;
    assert!(rig.controller.entries[&rig.key].saving.is_some(), "the step to 40 hangs");
    rig.tick_with_dead_canary().await;
    assert_eq!((rig.weight(), rig.state().phase), (0, Phase::Failed));
    drop(held);
    rig.hear_all().await;
    assert_eq!(
        (rig.weight(), rig.saved().phase),
        (0, Phase::Failed),
        "the step never came into force, the rollback is saved"
    );
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_warm_up_waits_for_no_store() {
    let mut rig = Rig::at_first_weight().await;
    assert!(matches!(rig.state().epoch.judging, serin_rollout::Judging::WarmUp(_)));
    *rig.store.fails.lock() = true;
    for _ in 0..2 {
        tokio::time::advance(Duration::from_millis(INTERVAL_MS)).await;
        rig.controller.begin_due_ticks();
        rig.controller.entries.get_mut(&rig.key).expect("there").observing = None;
        let narrowed = serin_rollout::narrow(
            &rig.controller.entries[&rig.key].workload.plan,
            rig.state(),
            rig.controller.clock.now_ms(),
        );
        if let Some(step) = narrowed {
            let key = rig.key.clone();
            rig.controller.advance(&key, step);
        }
        rig.hear_all().await;
    }
    assert!(matches!(rig.state().epoch.judging, serin_rollout::Judging::Full(_)), "{:?}", rig.state().epoch);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_was_saved_loses_to_a_trip_whose_message_is_still_on_its_way() {
    let mut rig = Rig::at_first_weight().await;
    let store = rig.store.clone();
    let held = store.gate.try_acquire().expect("nobody is saving");
    rig.tick().await;
    let rollout = rig.state().rollout;
    *rig.plane.tripped.lock() = Some(rollout);
    drop(held);
    rig.hear_all().await;
    assert_eq!(rig.weight(), 20, "the step to 40 is not put in force");
    rig.trip(rollout);
    rig.tick().await;
    assert_eq!((rig.weight(), rig.saved().phase), (0, Phase::Failed));
}

#[tokio::test(start_paused = true)]
async fn a_canary_taken_out_of_the_files_and_put_back_is_not_judged_twice_for_the_same_requests() {
    let mut rig = Rig::at_first_weight().await;
    *rig.plane.cells.lock() = vec![(rig.state().epoch.id, Cell { n: 300, a: 9, b: 0, done: 300 })];
    tokio::time::advance(Duration::from_millis(200)).await;
    rig.controller.beat();
    rig.hear_all().await;
    let before = rig.state().evidence.ln_e();
    rig.controller.hear(Message::Configured(vec![workload("other", "1")]));
    rig.controller.hear(Message::Configured(vec![workload("app", "2")]));
    tokio::time::advance(Duration::from_millis(200)).await;
    rig.controller.beat();
    assert!(rig.state().evidence.ln_e() <= before, "{} after {before}", rig.state().evidence.ln_e());
}

#[tokio::test(start_paused = true)]
async fn a_canary_may_leave_and_come_back_while_its_step_or_its_brake_is_unsaved() {
    let mut rig = Rig::at_first_weight().await;
    let store = rig.store.clone();
    let held = store.gate.try_acquire().expect("nobody is saving");
    rig.tick().await;
    rig.controller.hear(Message::Configured(vec![workload("other", "1")]));
    rig.controller.hear(Message::Configured(vec![workload("app", "2")]));
    drop(held);
    rig.hear_all().await;
    rig.tick().await;
    rig.tick().await;
    let entry = &rig.controller.entries[&rig.key];
    assert_eq!((entry.fenced, entry.alarm.as_ref(), rig.weight()), (false, None, 40));

    let mut rig = Rig::at_first_weight().await;
    *rig.store.fails.lock() = true;
    rig.trip(rig.state().rollout);
    rig.hear_all().await;
    rig.controller.hear(Message::Configured(vec![workload("other", "1")]));
    rig.controller.hear(Message::Configured(vec![workload("app", "2")]));
    *rig.store.fails.lock() = false;
    rig.tick().await;
    assert_eq!((rig.saved().phase, rig.saved().weight.percent()), (Phase::Failed, 0));
}

#[tokio::test(start_paused = true)]
async fn a_version_that_a_step_under_way_will_serve_cannot_be_removed() {
    let mut rig = Rig::at_first_weight().await;
    rig.tick().await;
    assert_eq!(rig.weight(), 40);
    let store = rig.store.clone();
    let held = store.gate.try_acquire().expect("nobody is saving");
    rig.tick().await;
    let mut without = workload("app", "1");
    without.routing.versions.remove(&Revision("2".to_owned()));
    rig.controller.hear(Message::Configured(vec![without]));
    assert_eq!(rig.controller.board.read().refused_config.len(), 1, "version 2 is about to be the primary");
    drop(held);
    rig.hear_all().await;
    assert_eq!(rig.state().phase, Phase::Promoting);
}
