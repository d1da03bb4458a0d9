//! What happens on every beat: evidence is advanced, brakes are pulled, ticks that are due begin.

use std::time::Duration;

use serin_analysis::{GuardReport, Stake};
use serin_measure::{Arm, CanaryKey};
use serin_rollout::{
    Brake, Guard, GuardMode, Level, Observation, Plan, Readiness, State, brake, desired, narrow, needs, news, report,
    step,
};
use tracing::{info, info_span, warn};

use crate::controller::{Controller, Message};
use crate::entry::{Entry, Pending, events};
use crate::plane::{DataPlane, Trip};
use crate::ready::readiness;
use crate::store::{Event, Store};
use crate::workload::Workload;

/// Far enough away; a beat comes sooner.
const NEVER_MS: u64 = 3_600_000;

/// Whether a state that comes into force is in the store already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backing {
    Saved,
    Unsaved,
}

impl<S: Store, P: DataPlane> Controller<S, P> {
    /// One beat over all canaries.
    pub(crate) fn beat(&mut self) {
        let now_ms = self.clock.now_ms();
        for key in self.entries.keys().cloned().collect::<Vec<_>>() {
            self.judge(&key, now_ms);
            self.look_back(&key, now_ms);
            self.begin_what_is_due(&key, now_ms);
        }
        self.sound_the_alarm_for_saves_that_hang(now_ms);
        self.keep_what_changed(now_ms);
        self.post();
    }

    /// How long until the next tick is due. Ticks that are due and cannot begin wait for the beat.
    pub(crate) fn next_due(&self) -> Duration {
        let now_ms = self.clock.now_ms();
        let idle = self.entries.values().filter(|entry| entry.may_tick(now_ms));
        let due = idle.map(|entry| entry.due_ms()).filter(|due_ms| *due_ms > now_ms).min();
        Duration::from_millis(due.map_or(NEVER_MS, |due_ms| due_ms - now_ms))
    }

    /// Begins the ticks that are due now.
    pub(crate) fn begin_due_ticks(&mut self) {
        let now_ms = self.clock.now_ms();
        for key in self.entries.keys().cloned().collect::<Vec<_>>() {
            self.begin_what_is_due(&key, now_ms);
        }
    }

    /// Closes the open slice of a canary under analysis, and brakes if its evidence has crossed the limit.
    fn judge(&mut self, key: &CanaryKey, now_ms: u64) {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.state.is_analysing()) else { return };
        let cells = self.plane.cells(key);
        let evidence = std::mem::take(&mut entry.state.evidence);
        entry.state.evidence = entry.judge.advance(evidence, &cells, entry.state.epoch.id, now_ms);
        entry.state.judged_at_ms = now_ms;
        let (rollout, ln_e) = (entry.state.rollout, entry.state.evidence.ln_e());
        let is_told = entry.state.reported && entry.workload.plan.guard.mode == GuardMode::Observe;
        self.arm(key);
        let Some(Entry { workload: Workload { plan, .. }, .. }) = self.entries.get(key) else { return };
        if Stake::default().crossed(ln_e) && !is_told {
            let plan = plan.clone();
            self.pull(&plan, rollout, ln_e, now_ms);
        }
    }

    /// Leaves the newest checkpoint with the data path.
    pub(crate) fn arm(&self, key: &CanaryKey) {
        let Some(entry) = self.entries.get(key) else { return };
        let acts = entry.workload.plan.guard.mode == GuardMode::Enforce;
        let checkpoint = entry
            .state
            .is_analysing()
            .then(|| entry.judge.checkpoint(entry.state.rollout, acts, &entry.state.evidence));
        self.plane.arm(key, checkpoint);
    }

    /// A tripwire has acted: the canary has no traffic any more, and now it is said and saved.
    pub(crate) fn trip(&mut self, trip: &Trip) {
        let now_ms = self.clock.now_ms();
        let Some(entry) = self.entries.get(&trip.canary) else { return };
        // It has acted, so what is said and saved follows it, even if the plan was edited meanwhile.
        let guard = Guard { mode: GuardMode::Enforce, ..entry.workload.plan.guard.clone() };
        let plan = Plan { guard, ..entry.workload.plan.clone() };
        self.pull(&plan, trip.rollout, trip.ln_e, now_ms);
    }

    /// Brakes, or says that it would have.
    fn pull(&mut self, plan: &Plan, rollout: u64, ln_e: f64, now_ms: u64) {
        let key = &plan.canary;
        let Some(entry) = self.entries.get(key).filter(|entry| entry.state.is_analysing()) else { return };
        let cause = Brake { rollout, ln_e, message: self.guard_report(entry, ln_e).short() };
        let reported = report(plan, &entry.state, &cause, now_ms);
        if let Some(step) = reported.or_else(|| brake(plan, &entry.state, &cause, now_ms)) {
            // In force first, saved when saving works: braking needs nothing.
            self.put_in_force(key, step.state, events(&step.notices, now_ms), now_ms, Backing::Unsaved);
            self.keep_brakes(now_ms);
        }
    }

    fn guard_report(&self, entry: &Entry, ln_e: f64) -> GuardReport {
        let snapshot = self.plane.snapshot(Some(&entry.workload.plan.canary));
        let sum = |arm: Arm| {
            let of_run = snapshot.iter().filter(|(key, _)| key.epoch >= entry.run_from);
            of_run.fold((0, 0), |(routed, failed), (_, counts)| {
                let evidence = &counts.arm(arm).evidence;
                (routed + evidence.routed, failed + evidence.failed())
            })
        };
        let ((canary_requests, canary_failures), (primary_requests, primary_failures)) =
            (sum(Arm::Canary), sum(Arm::Primary));
        GuardReport {
            canary_requests,
            canary_failures,
            primary_requests,
            primary_failures,
            delta: entry.state.epoch.judging.tolerance().unwrap_or(entry.workload.plan.guard.tolerance),
            w: entry.state.epoch.coin.probability(),
            ln_e,
            stake: Stake::default(),
        }
    }

    /// Keeps a reading for the checks.
    fn look_back(&mut self, key: &CanaryKey, now_ms: u64) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let longest_ms = entry.longest_check_ms();
        if entry.state.is_analysing() && longest_ms > 0 && entry.history.is_due(now_ms, longest_ms) {
            entry.history.read(now_ms, &self.plane.snapshot(Some(key)), entry.step_from, longest_ms);
        }
    }

    /// Begins a tick that is due or that news ask for, and ends a warm-up that is over.
    fn begin_what_is_due(&mut self, key: &CanaryKey, now_ms: u64) {
        let Some(entry) = self.entries.get(key).filter(|entry| entry.may_tick(now_ms)) else { return };
        let (plan, state) = (&entry.workload.plan, &entry.state);
        let due = now_ms >= entry.due_ms();
        let has_news = news(plan, state);
        if due || has_news || entry.version.is_none() {
            if needs(plan, state).is_empty() && !has_news {
                if let Some(entry) = self.entries.get_mut(key) {
                    entry.state.ticked_ms = now_ms;
                }
            } else {
                self.observe(key);
            }
        } else if let Some(step) = narrow(plan, state, now_ms) {
            self.advance(key, step);
        }
    }

    /// Finds out, elsewhere, what the next step wants to know.
    fn observe(&mut self, key: &CanaryKey) {
        self.observation += 1;
        let number = self.observation;
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.observing = Some(number);
        let (needs, wanted) = (needs(&entry.workload.plan, &entry.state), desired(&entry.workload.plan, &entry.state));
        let routing = &entry.workload.routing;
        let primary = needs.primary.then(|| routing.addresses(&wanted.primary).to_vec());
        let canary_arm = wanted.canary.filter(|_| needs.canary).map(|revision| routing.addresses(&revision).to_vec());
        let (outbox, canary) = (self.outbox.clone(), key.clone());
        tokio::spawn(async move {
            let ask = async |addresses: Option<Vec<_>>| match addresses {
                Some(addresses) => readiness(addresses).await,
                None => Readiness::Ready,
            };
            let begun = tokio::time::Instant::now();
            let (primary, canary_arm) = tokio::join!(ask(primary), ask(canary_arm));
            let took: Duration = begun.elapsed();
            // Nobody listens during shutdown.
            let _ = outbox.send(Message::Observed { canary, number, primary, canary_arm, took }).await;
        });
    }

    /// The facts are there: take the step, and save it if it changes anything.
    pub(crate) fn observed(
        &mut self,
        key: &CanaryKey,
        number: u64,
        primary: Readiness,
        canary: Readiness,
        took: Duration,
    ) {
        let now_ms = self.clock.now_ms();
        let Some(entry) = self.entries.get_mut(key) else { return };
        if entry.observing.take_if(|expected| *expected == number).is_none() {
            return;
        }
        let verdict = needs(&entry.workload.plan, &entry.state).checks.then(|| {
            // The newest counts belong to this tick.
            entry.verdict(now_ms, &self.plane.snapshot(Some(key)))
        });
        let plan = &entry.workload.plan;
        if verdict.is_some() {
            let labels = [plan.target.name.as_str(), key.namespace()];
            self.board.tick_seconds().with_label_values(&labels).observe(took.as_secs_f64());
        }
        let step = step(plan, entry.state.clone(), Observation { now_ms, primary, canary, verdict });
        let mut unchanged = entry.state.clone();
        unchanged.ticked_ms = now_ms;
        if step.state == unchanged && step.notices.is_empty() && entry.version.is_some() {
            entry.state = unchanged;
        } else {
            self.advance(key, step);
        }
    }

    /// Puts a state in force with what it tells and the table it asks for.
    pub(crate) fn put_in_force(
        &mut self,
        key: &CanaryKey,
        mut state: State,
        told: Vec<Event>,
        now_ms: u64,
        backing: Backing,
    ) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let (namespace, name) = (key.namespace(), key.name());
        let State { phase, weight, rollout, .. } = &state;
        let span = info_span!("rollout", namespace, name, %phase, %weight, run = rollout);
        span.in_scope(|| told.iter().for_each(log));
        if state.phase != entry.state.phase {
            let ended = self.tally.ended.entry(key.clone()).or_default();
            ended.count(state.phase, entry.workload.plan.skip_analysis);
        }
        if state.rollout == entry.state.rollout {
            // The guard has gone on while the step was saved.
            state.evidence = std::mem::take(&mut entry.state.evidence);
            state.judged_at_ms = entry.state.judged_at_ms;
        }
        entry.put_in_force(state, now_ms);
        entry.tell(told.iter().cloned());
        match backing {
            Backing::Saved => {}
            Backing::Unsaved => {
                if entry.saving.is_some() {
                    entry.saving = Some(Pending::Superseded);
                }
                entry.dirty = true;
                entry.keep_unsaved(told);
            }
        }
        self.publish();
    }
}

/// An event as a log line, as loud as it is serious.
fn log(event: &Event) {
    if event.level == Level::Warning.as_str() {
        warn!("{}", event.message);
    } else {
        info!("{}", event.message);
    }
}
