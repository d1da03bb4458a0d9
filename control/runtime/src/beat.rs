//! What happens on every beat: evidence is advanced, brakes are pulled, ticks that are due begin.

use std::time::Duration;

use serin_analysis::{GuardReport, Stake, Verdict};
use serin_measure::{Arm, BootId, CanaryKey};
use serin_rollout::{
    Brake, Guard, GuardMode, Level, Observation, Plan, Readiness, State, brake, desired, enlist, narrow, needs, news,
    report, step,
};
use tracing::{info, info_span, warn};

use crate::controller::{Controller, Message, Role};
use crate::entry::{Entry, events};
use crate::fleet::Question;
use crate::plane::{DataPlane, Trip};
use crate::reflex::Reflex;
use crate::site::{Site, Wanted};
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

impl<S: Store, P: DataPlane, W: Site> Controller<S, P, W> {
    /// One beat over all canaries.
    pub(crate) fn beat(&mut self) {
        let now_ms = self.clock.now_ms();
        if self.leads() {
            self.ask_fleet_if_due(now_ms);
            self.forget_contests(now_ms);
            for key in self.entries.keys().cloned().collect::<Vec<_>>() {
                self.judge(&key, now_ms);
                self.look_back(&key, now_ms);
                self.begin_what_is_due(&key, now_ms);
            }
            self.sound_the_alarm_for_saves_that_hang(now_ms);
            self.keep_what_changed(now_ms);
        } else {
            self.load_if_quiet();
        }
        // Once a beat: it is a copy of everything.
        if std::mem::take(&mut self.others_have_news) {
            self.others = self.fleet.snapshot().into();
        }
        if self.site.is_fleet() {
            for key in self.entries.keys().cloned().collect::<Vec<_>>() {
                self.twitch(&key, now_ms);
            }
        }
        self.post();
    }

    /// How long until the next tick is due. Ticks that are due and cannot begin wait for the beat.
    pub(crate) fn next_due(&self) -> Duration {
        let now_ms = self.clock.now_ms();
        if !self.leads() {
            return Duration::from_millis(NEVER_MS);
        }
        let idle = self.entries.values().filter(|entry| entry.may_tick(now_ms));
        let due = idle.map(|entry| entry.due_ms()).filter(|due_ms| *due_ms > now_ms).min();
        Duration::from_millis(due.map_or(NEVER_MS, |due_ms| due_ms - now_ms))
    }

    /// Begins the ticks that are due now.
    pub(crate) fn begin_due_ticks(&mut self) {
        let now_ms = self.clock.now_ms();
        if !self.leads() {
            return;
        }
        for key in self.entries.keys().cloned().collect::<Vec<_>>() {
            self.begin_what_is_due(&key, now_ms);
        }
    }

    /// Closes the open slice of a canary under analysis, and brakes if its evidence has crossed the limit.
    pub(crate) fn judge(&mut self, key: &CanaryKey, now_ms: u64) {
        if !self.leads() || !self.entries.get(key).is_some_and(|entry| entry.state.is_analysing()) {
            return;
        }
        let counts = self.counts(key, now_ms);
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.advance_evidence(&counts, now_ms);
        let (rollout, ln_e) = (entry.state.run(), entry.state.evidence.ln_e());
        let is_told = entry.state.reported && entry.workload.plan.guard.mode == GuardMode::Observe;
        let (stake, plan) = (entry.state.stakes.pooled(), entry.workload.plan.clone());
        if !self.site.is_fleet() {
            self.arm(key);
        }
        if self.plane.is_tripped(key, rollout) {
            // Its message was lost with a leader, or is still on its way.
            self.trip(&Trip { canary: key.clone(), rollout, ln_e });
        } else if stake.crossed(ln_e) && !is_told {
            self.pull(&plan, rollout, ln_e, stake, now_ms);
        }
    }

    /// Lets this replica's own bet go on, and leaves it with the data path.
    fn twitch(&mut self, key: &CanaryKey, now_ms: u64) {
        let (boot, counts) = (self.plane.boot(), self.own_counts(key));
        let Some(entry) = self.entries.get_mut(key) else { return };
        let state = &entry.state;
        match &mut entry.reflex {
            Some(reflex) if reflex.is_of(state) => {
                reflex.track(state);
                reflex.advance(state, &counts, now_ms);
            }
            // The run was taken back here, or another one began, and nobody has saved that. If it goes on, so does the bet: to
            // begin it anew would spend its stake twice.
            Some(reflex) if reflex.is_of_this_or_later(state) => {}
            Some(_) | None => entry.reflex = Reflex::of(state, boot, &counts, now_ms).or_else(|| entry.reflex.take()),
        }
        self.arm(key);
    }

    /// Leaves the newest checkpoint with the data path: this replica's own bet, or the only one there is.
    pub(crate) fn arm(&self, key: &CanaryKey) {
        let Some(Entry { state, workload: Workload { plan, .. }, reflex, .. }) = self.entries.get(key) else { return };
        let checkpoint = if self.site.is_fleet() {
            reflex.as_ref().filter(|reflex| reflex.is_of(state)).map(|reflex| reflex.checkpoint(plan))
        } else {
            let acts = plan.guard.mode == GuardMode::Enforce;
            let (stake, boot) = (state.stakes.pooled(), self.plane.boot());
            let look = || state.scoring.checkpoint(state.run(), acts, &state.evidence, stake, boot);
            state.is_analysing().then(look)
        };
        self.plane.arm(key, checkpoint);
    }

    /// Gives those a stake who came after a run began.
    pub(crate) fn enlist_newcomers(&mut self, now_ms: u64) {
        let present = self.present(now_ms);
        for key in self.entries.keys().cloned().collect::<Vec<_>>() {
            let Some(entry) = self.entries.get(&key).filter(|entry| entry.observing.is_none()) else { continue };
            if entry.may_advance()
                && let Some(step) = enlist(&entry.workload.plan, &entry.state, &present, now_ms)
            {
                self.advance(&key, step);
            }
        }
    }

    /// The processes that carry traffic, if there may be several.
    fn present(&self, now_ms: u64) -> Vec<BootId> {
        if self.site.is_fleet() {
            std::iter::once(self.plane.boot()).chain(self.fleet.boots(now_ms)).collect()
        } else {
            Vec::new()
        }
    }

    /// A tripwire has acted: the canary has no traffic any more, and now it is said and saved.
    pub(crate) fn trip(&mut self, trip: &Trip) {
        let now_ms = self.clock.now_ms();
        if !self.leads() {
            // Its data path has acted already, and whoever leads will ask.
            return;
        }
        let Some(entry) = self.entries.get(&trip.canary) else { return };
        let stakes = &entry.state.stakes;
        // Whoever has a part of the stake has an equal one.
        let stake = stakes.of(self.plane.boot()).unwrap_or_else(|| stakes.pooled());
        // It has acted, so what is said and saved follows it, even if the plan was edited meanwhile.
        let guard = Guard { mode: GuardMode::Enforce, ..entry.workload.plan.guard.clone() };
        let plan = Plan { guard, ..entry.workload.plan.clone() };
        self.pull(&plan, trip.rollout, trip.ln_e, stake, now_ms);
    }

    /// Brakes, or says that it would have.
    fn pull(&mut self, plan: &Plan, rollout: u64, ln_e: f64, stake: Stake, now_ms: u64) {
        let key = &plan.canary;
        let Some(entry) = self.entries.get(key).filter(|entry| entry.state.is_analysing()) else { return };
        let cause = Brake { rollout, ln_e, message: self.guard_report(entry, ln_e, stake).short() };
        let reported = report(plan, &entry.state, &cause, now_ms);
        if let Some(step) = reported.or_else(|| brake(plan, &entry.state, &cause, now_ms)) {
            // In force first, saved when saving works: braking needs nothing.
            self.put_in_force(key, step.state, events(&step.notices, now_ms), now_ms, Backing::Unsaved);
            self.keep_brakes(now_ms);
            self.ask_fleet();
        }
    }

    fn guard_report(&self, entry: &Entry, ln_e: f64, stake: Stake) -> GuardReport {
        let snapshot = self.snapshot(&entry.workload.plan.canary);
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
            stake,
        }
    }

    /// Keeps a reading for the checks.
    fn look_back(&mut self, key: &CanaryKey, now_ms: u64) {
        let Some(entry) = self.entries.get(key) else { return };
        let longest_ms = entry.longest_check_ms();
        if entry.state.is_analysing() && longest_ms > 0 && entry.history.is_due(now_ms, longest_ms) {
            let snapshot = self.snapshot(key);
            let Some(entry) = self.entries.get_mut(key) else { return };
            entry.history.read(now_ms, &snapshot, entry.step_from, longest_ms);
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
        let primary = needs.primary.then(|| Wanted {
            arm: Arm::Primary,
            revision: wanted.primary.clone(),
            addresses: routing.primary(&wanted).to_vec(),
        });
        let canary_arm = wanted.canary.clone().filter(|_| needs.canary).map(|revision| Wanted {
            arm: Arm::Canary,
            revision,
            addresses: routing.canary(&wanted).to_vec(),
        });
        let peers = if needs.checks { self.site.peers() } else { Vec::new() };
        let (site, outbox, canary) = (self.site.clone(), self.outbox.clone(), key.clone());
        tokio::spawn(async move {
            let begun = tokio::time::Instant::now();
            let ready = async |asked: Option<Wanted>| match asked {
                Some(asked) => site.readiness(&canary, asked).await,
                None => Readiness::Ready,
            };
            // The newest counts of everybody belong to this tick; they come before the facts.
            let counts = futures::future::join_all(peers.iter().map(async |peer| {
                let (cells_of, snapshots_of) = (vec![canary.clone()], vec![canary.clone()]);
                let question = Question { cells_of, snapshots_of, ..Question::default() };
                let answer = site.ask(peer.address, question).await;
                let _ = outbox.send(Message::Answered { peer: peer.address, answer }).await;
            }));
            let (primary, canary_arm, _) = tokio::join!(ready(primary), ready(canary_arm), counts);
            let took: Duration = begun.elapsed();
            // Nobody listens during shutdown.
            let _ = outbox.send(Message::Observed { canary: canary.clone(), number, primary, canary_arm, took }).await;
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
        let is_expected = entry.observing.take_if(|expected| *expected == number).is_some();
        if !is_expected || self.role != Role::Leading || entry.contested.is_some() {
            return;
        }
        let verdict = needs(&entry.workload.plan, &entry.state).checks.then(|| self.verdict(key, now_ms));
        let replicas = self.present(now_ms);
        let Some(entry) = self.entries.get_mut(key) else { return };
        let plan = &entry.workload.plan;
        if verdict.is_some() {
            let labels = [plan.target.name.as_str(), key.namespace()];
            self.board.tick_seconds().with_label_values(&labels).observe(took.as_secs_f64());
        }
        let step = step(plan, entry.state.clone(), Observation { now_ms, primary, canary, verdict, replicas });
        let mut unchanged = entry.state.clone();
        unchanged.ticked_ms = now_ms;
        if step.state == unchanged && step.notices.is_empty() && entry.version.is_some() {
            entry.state = unchanged;
        } else {
            self.advance(key, step);
        }
    }

    /// What the checks say, by the newest counts of everybody. Nothing goes on while somebody serves whose counts are missing.
    fn verdict(&mut self, key: &CanaryKey, now_ms: u64) -> Verdict {
        let snapshot = self.snapshot(key);
        let (silent, all) = self.fleet.silent(&self.site.peers(), now_ms);
        let silent = silent + usize::from(!self.board.is_settled());
        let verdict = match self.entries.get_mut(key) {
            Some(entry) => entry.verdict(now_ms, &snapshot),
            None => Verdict::Wait { reason: "no longer configured".to_owned() },
        };
        match verdict {
            Verdict::Pass if silent > 0 => {
                // This process serves too, so there is one more than there are others.
                let reason = format!("{silent} of {} replicas do not answer, or do not see the cluster yet", all + 1);
                Verdict::Wait { reason }
            }
            Verdict::Pass | Verdict::Halt { .. } | Verdict::Wait { .. } => verdict,
        }
    }

    /// Puts a state in force with what it tells and the table it asks for.
    pub(crate) fn put_in_force(
        &mut self,
        key: &CanaryKey,
        state: State,
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
        let state = entry.with_evidence(state);
        entry.put_in_force(state, now_ms);
        entry.tell(told.iter().cloned());
        match backing {
            Backing::Saved => {}
            Backing::Unsaved => {
                entry.supersede();
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
