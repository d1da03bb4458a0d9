//! A world from its beginning to its end: troubled, then healed, then at rest; and what is looked at then.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serin_measure::{Arm, CanaryKey};
use serin_rollout::{Phase, State};
use serin_route::Route;
use serin_runtime::DataPlane;

use crate::breaks::Break;
use crate::process::Process;
use crate::promises::{Breach, Kept, Promise, hold};
use crate::scenario::Scenario;
use crate::tally::Tally;
use crate::world::World;
use crate::{request, trouble};

/// How long a healed world may take to come to rest, in milliseconds. Whatever waits in the product waits for seconds; a
/// rollout of some steps takes twenty.
const REST_WITHIN_MS: u64 = 180_000;
/// Between two looks whether everything is at rest.
const LOOK: Duration = Duration::from_millis(500);
/// Looks in a row that have to find everything at rest.
const LOOKS: u32 = 3;
/// Longer than any request.
const LAST_REQUESTS: Duration = Duration::from_millis(8_500);

/// How a world ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) breach: Option<Breach>,
    pub(crate) tally: Tally,
    pub(crate) notes: Vec<String>,
    /// A number that differs if anything went differently.
    pub(crate) digest: u64,
}

/// Lets a world live.
pub(crate) fn live(seed: u64, broken: Option<Break>, tells: bool) -> End {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without sockets");
    runtime.block_on(async {
        let world = World::new(Scenario::of(seed), broken, tells);
        let end = world.live().await;
        // Processes know the world, and the world them.
        for process in world.living() {
            process.kill(&world);
        }
        end
    })
}

impl World {
    async fn live(self: &Arc<Self>) -> End {
        for _ in 0..self.scenario.replicas {
            trouble::add(self);
        }
        let tasks = [
            tokio::spawn(trouble::cluster(self.clone())),
            tokio::spawn(trouble::releases(self.clone())),
            tokio::spawn(trouble::troubles(self.clone())),
        ];
        let clients = tokio::spawn(request::clients(self.clone()));
        let is_kept = self.be_troubled().await && self.come_to_rest().await;
        if is_kept {
            self.scenario_over(clients).await;
        }
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
        self.end()
    }

    fn is_broken(&self) -> bool {
        self.eyes.lock().breach.is_some()
    }

    /// Until nothing goes wrong any more. Says whether every promise was kept.
    async fn be_troubled(self: &Arc<Self>) -> bool {
        while self.now_ms() < self.scenario.troubled_ms {
            tokio::time::sleep(LOOK).await;
            if self.is_broken() {
                return false;
            }
        }
        self.heal();
        let living = self.living();
        let stays = |process: &&Arc<Process>| !process.is_stopping.load(Ordering::Relaxed);
        let missing = self.scenario.replicas.saturating_sub(living.iter().filter(stays).count());
        (0..missing).for_each(|_| trouble::add(self));
        true
    }

    /// Until every rollout has ended and everybody serves it alike. Says whether every promise was kept.
    async fn come_to_rest(&self) -> bool {
        let (healed_ms, mut in_a_row) = (self.now_ms(), 0);
        while in_a_row < LOOKS {
            tokio::time::sleep(LOOK).await;
            if self.is_broken() {
                return false;
            }
            match self.restlessness() {
                None => in_a_row += 1,
                Some(why) if self.now_ms() - healed_ms > REST_WITHIN_MS => {
                    self.eyes.lock().note(hold(Promise::ComesToRest, false, || why));
                    return false;
                }
                Some(_) => in_a_row = 0,
            }
        }
        true
    }

    /// Why not everything is at rest, if it is not.
    fn restlessness(&self) -> Option<String> {
        let living = self.living();
        if let Some(process) = living.iter().find(|process| process.has_broken_off()) {
            return Some(format!("the loop of {} has broken off", process.boot));
        }
        let busy = |process: &&Arc<Process>| {
            !process.is_up.load(Ordering::Relaxed) || process.is_stopping.load(Ordering::Relaxed)
        };
        if let Some(process) = living.iter().find(busy) {
            return Some(format!("{} comes or goes", process.boot));
        }
        if self.pending.load(Ordering::Relaxed) > 0 {
            return Some("a write or a replica is still to come".to_owned());
        }
        let leaders = living.iter().filter(|process| process.board.read().leads).count();
        if leaders != 1 {
            return Some(format!("{leaders} lead"));
        }
        let wanted = self.workloads();
        wanted.iter().find_map(|workload| {
            let (canary, revision) = (&workload.plan.canary, &workload.plan.revision);
            let saved = self.eyes.lock().books.newest(canary).cloned();
            let Some(saved) = saved else { return Some(format!("{canary} was never saved")) };
            let State { phase, applied, .. } = &saved.state;
            // A release that came before there was a primary is the first one, and there is nothing to roll out.
            let has_ended = matches!(phase, Phase::Succeeded | Phase::Failed | Phase::Initialized);
            if !has_ended || applied.as_ref() != Some(revision) {
                let hold = saved.state.hold.as_deref().unwrap_or("no reason");
                return Some(format!("{canary} is {phase} with {applied:?}, {revision} is wanted: {hold}"));
            }
            living.iter().find_map(|process| differs(process, canary, &saved))
        })
    }

    /// Everything that can only be looked at when all is over.
    async fn scenario_over(self: &Arc<Self>, clients: tokio::task::JoinHandle<()>) {
        for place in self.places.lock().iter_mut() {
            place.told.serves = false;
            place.changes_ms = Some(u64::MAX);
        }
        for process in self.living() {
            process.accepts.store(false, Ordering::Relaxed);
        }
        tokio::time::sleep(LAST_REQUESTS).await;
        clients.abort();
        let kept = self.last_looks();
        self.eyes.lock().note(kept);
    }

    fn last_looks(&self) -> Kept {
        let eyes = self.eyes.lock();
        for process in self.living() {
            hold(Promise::CountedOnce, process.plane.is_empty(), || format!("{} is not empty", process.boot))?;
            eyes.counts.check(process.boot, &process.plane.snapshot(None))?;
        }
        for app in &self.scenario.canaries {
            let Some(saved) = eyes.books.newest(&app.key) else { continue };
            let State { phase, rollout, .. } = &saved.state;
            let trips = eyes.trips.of_run(&app.key, *rollout);
            let is_answered = *phase == Phase::Failed || eyes.books.is_promoted(&app.key, *rollout);
            hold(Promise::TripHolds, trips.is_empty() || is_answered, || {
                format!("{} run {rollout} is {phase}, and {trips:?} took it out", app.key)
            })?;
        }
        Ok(())
    }

    fn end(&self) -> End {
        let eyes = self.eyes.lock();
        let mut tally = self.tally.lock().clone();
        let total = eyes.counts.total();
        tally.add("traffic: requests drawn", total.n);
        tally.add("traffic: of those failed", total.a + total.b);
        tally.add("time: virtual seconds", self.now_ms() / 1_000);
        tally.add("save: carried out", eyes.books.history.len() as u64);
        crate::story::runs(&eyes, &self.scenario, &mut tally);
        let mut digest = total.n.wrapping_mul(31).wrapping_add(self.now_ms());
        for commit in &eyes.books.history {
            let evidence = commit.saved.state.evidence.ln_e().to_bits();
            digest = digest.wrapping_mul(0x100_0000_01b3)
                ^ commit.at_ms
                ^ commit.saved.version.0
                ^ evidence
                ^ commit.writer.0;
        }
        End { breach: eyes.breach.clone(), tally, notes: self.notes(), digest }
    }
}

/// How what a process serves differs from what is saved, if it does.
fn differs(process: &Process, canary: &CanaryKey, saved: &serin_runtime::store::Saved) -> Option<String> {
    let posting = process.board.read();
    let boot = process.boot;
    let Some(posted) = posting.canaries.get(canary) else { return Some(format!("{boot} knows no {canary}")) };
    // A leader may not know yet that a save which it gave up has arrived; that holds nothing which it has not in force.
    let is_newest = posted.version == Some(saved.version) || posting.leads;
    if !is_newest || !posted.state.asks_for_the_same(&saved.state) {
        let (phase, rollout, version) = (posted.state.phase, posted.state.rollout, posted.version);
        return Some(format!(
            "{boot} has {canary} run {rollout} {phase} version {version:?}, and version {} run {} {} is saved",
            saved.version, saved.state.rollout, saved.state.phase
        ));
    }
    let published = process.plane.inner.lock().published.clone();
    let Some(route) = published.table.routes().iter().find(|route| route.canary == *canary) else {
        return Some(format!("{boot} has no route for {canary}"));
    };
    let state = &saved.state;
    let is_alike = (route.rollout, route.epoch, route.coin) == (state.run(), state.epoch.id, state.epoch.coin)
        && serves(route, state);
    (!is_alike).then(|| format!("{boot} serves {canary} by {route:?}, not as saved"))
}

/// Whether a route leads to the versions of a state.
fn serves(route: &Route, state: &State) -> bool {
    let ports =
        |arm| route.endpoints(arm).iter().map(|endpoint| endpoint.address.port().to_string()).collect::<Vec<_>>();
    let primary = state.primary.iter().map(|revision| revision.0.clone()).collect::<Vec<_>>();
    let has_canary = state.weight.percent() > 0;
    ports(Arm::Primary) == primary && has_canary != ports(Arm::Canary).is_empty()
}
