//! The loop of one of a fleet, taken by hand: saves that were given up and arrive, and what it follows when it leads no more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serin_measure::{BootId, CanaryKey, Cell, CellKey, EpochCounts};
use serin_rollout::{Phase, Readiness, State};

use super::rig::{INTERVAL_MS, Memory, Plane, workload};
use super::*;
use crate::fleet::Question;
use crate::site::{Peer, Wanted};
use crate::store::Version;

/// A fleet whose others do not answer.
struct Crowd;

impl Site for Crowd {
    async fn readiness(&self, _: &CanaryKey, _: Wanted) -> Readiness {
        Readiness::Ready
    }
    fn peers(&self) -> Vec<Peer> {
        Vec::new()
    }
    async fn ask(&self, peer: SocketAddr, _: Question) -> Result<Answer, AskError> {
        Err(AskError::Unreachable { peer, why: "nobody is there".to_owned() })
    }
    fn is_fleet(&self) -> bool {
        true
    }
    fn checkpoints_max(&self) -> usize {
        1
    }
}

struct Replica {
    controller: Controller<Memory, Plane, Crowd>,
    store: Arc<Memory>,
    plane: Arc<Plane>,
    key: CanaryKey,
}

impl Replica {
    /// One that leads, and whose canary has just got its first weight.
    async fn leading() -> Self {
        let (store, plane, key) =
            (Arc::new(Memory::open()), Arc::new(Plane::default()), CanaryKey::new("default", "app"));
        let (site, board, clock) = (Arc::new(Crowd), Arc::default(), Clock::start());
        let workloads = vec![workload("app", "1")];
        let controller = Controller::start(store.clone(), plane.clone(), site, board, clock, workloads).await;
        let mut replica = Self { controller: controller.expect("it starts"), store, plane, key };
        replica.controller.hear(Message::Elected);
        replica.settle().await;
        replica.tick().await;
        replica.controller.hear(Message::Configured(vec![workload("app", "2")]));
        replica.settle().await;
        replica.tick().await;
        assert_eq!((replica.state().phase, replica.state().weight.percent()), (Phase::Progressing, 20));
        replica
    }

    fn state(&self) -> &State {
        &self.controller.entries[&self.key].state
    }

    async fn settle(&mut self) {
        for _ in 0..20 {
            tokio::task::yield_now().await;
            while let Ok(message) = self.controller.inbox.try_recv() {
                self.controller.hear(message);
            }
        }
    }

    async fn after(&mut self, ms: u64) {
        tokio::time::advance(Duration::from_millis(ms)).await;
        self.controller.beat();
        self.settle().await;
    }

    async fn tick(&mut self) {
        self.after(INTERVAL_MS).await;
    }

    /// What this replica bets by itself: judged time and unbet stake.
    fn bet(&self) -> (u64, f64) {
        let armed = self.plane.armed.lock();
        let evidence = &armed.as_ref().expect("it has a stake").evidence;
        (evidence.judged_ms(), evidence.cash())
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_goes_on_after_a_brake_nobody_saved_is_not_bet_on_anew() {
    let mut replica = Replica::leading().await;
    *replica.plane.cells.lock() = vec![(replica.state().epoch.id, Cell { n: 100, a: 0, b: 0, done: 100 })];
    for _ in 0..10 {
        replica.after(200).await;
    }
    let before = replica.bet();
    assert!(before.0 > 0);
    *replica.store.fails.lock() = true;
    let rollout = replica.state().rollout;
    replica.controller.hear(Message::Tripped(Trip { canary: replica.key.clone(), rollout, ln_e: 9.0 }));
    replica.after(200).await;
    assert_eq!(replica.state().phase, Phase::Failed);
    replica.controller.hear(Message::Deposed);
    *replica.store.fails.lock() = false;
    replica.after(200).await;
    assert_eq!(replica.state().phase, Phase::Progressing, "as it is saved");
    let after = replica.bet();
    assert!(after.0 >= before.0 && after.1 <= before.1, "{before:?}, then {after:?}");
}

#[tokio::test(start_paused = true)]
async fn who_leads_no_more_reads_what_is_saved_until_it_can() {
    let mut replica = Replica::leading().await;
    replica.controller.hear(Message::Deposed);
    *replica.store.fails.lock() = true;
    let mut written = replica.store.saved.lock()[&replica.key].clone();
    written.version = Version(99);
    written.state.phase = Phase::Succeeded;
    replica.store.saved.lock().insert(replica.key.clone(), written);
    replica.after(200).await;
    assert_eq!(replica.state().phase, Phase::Progressing);
    *replica.store.fails.lock() = false;
    replica.after(200).await;
    assert_eq!(replica.state().phase, Phase::Succeeded, "nobody will tell it of that again");
}

#[tokio::test(start_paused = true)]
async fn who_is_told_of_a_newer_state_while_it_leads_finds_out_whose_it_is() {
    let mut replica = Replica::leading().await;
    let mut written = replica.store.saved.lock()[&replica.key].clone();
    written.version = Version(99);
    replica.store.saved.lock().insert(replica.key.clone(), written.clone());
    replica.controller.hear(Message::Stored(vec![written]));
    // There is nothing to be saved now, so nothing else would tell.
    replica.after(1_000).await;
    replica.after(200).await;
    let entry = &replica.controller.entries[&replica.key];
    assert_eq!((replica.controller.role, entry.version), (Role::Following, Some(Version(99))));
}

#[tokio::test(start_paused = true)]
async fn the_last_answer_has_everything_whatever_was_asked() {
    let (plane, board) = (Plane::default(), Board::default());
    let cell = |name: &str| CellKey {
        boot: BootId(1),
        canary: CanaryKey::new("default", name),
        epoch: serin_measure::EpochId(1),
    };
    let counts: Snapshot = ["app", "other"].map(|name| (cell(name), EpochCounts::default())).into_iter().collect();
    plane.counts.lock().clone_from(&counts);
    let question = Question { snapshots_of: vec![CanaryKey::new("default", "app")], ..Question::default() };
    let answered = crate::fleet::answer(&plane, &board, &question);
    assert_eq!((answered.snapshot.len(), answered.is_final), (1, false));
    board.emptied();
    let answered = crate::fleet::answer(&plane, &board, &Question::default());
    assert_eq!((answered.snapshot, answered.is_final), (counts, true));
}
