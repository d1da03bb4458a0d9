//! One canary under control: what is in force, what is being found out or saved, what was told.
//!
//! ```text
//!              tick due                    step                      saved
//!   at rest ───────────▶ observing ───────────────▶ saving: Step ───────────▶ in force, at rest
//!      ▲                                               │  │ a brake: in force at once, dirty
//!      │ saved                                         │  ▼
//!      └───────────── saving: InForce ◀── dirty ◀──────┼─ saving: Superseded (what comes back is old)
//!                            ▲                         │
//!                            └── new evidence          └─ failed: a step that only brakes comes into force, dirty
//! ```
//!
//! `dirty` is a state in force that the store does not have yet. While it lasts, or a save hangs, ticks go on and can brake,
//! but nothing advances.

use std::collections::VecDeque;

use serin_analysis::{CheckResult, Count, Seen, Verdict, judge};
use serin_measure::{EpochId, Snapshot};
use serin_rollout::{Notice, State};

use crate::history::History;
use crate::reflex::Reflex;
use crate::store::{EVENTS_SHOWN_MAX, Event, Saved, Version};
use crate::workload::Workload;

/// Evidence is saved at most this often, for all canaries together.
pub(crate) const CHECKPOINT_MS: u64 = 1_000;
/// A save that takes longer than this hangs. A slow disk takes tens of milliseconds.
const HANGING_MS: u64 = 2_000;
/// Events that wait for a store that cannot save. A rollback tells two; beyond this the oldest are lost.
const UNSAVED_MAX: usize = 100;
/// What clocks of two machines may differ by. Whoever takes over evidence from another process gives up the stake that fell
/// due in as much time more than its own clock says, in milliseconds: in a minute that is 2 % of what is kept for later.
const CLOCKS_APART_MS: u64 = 60_000;

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) workload: Workload,
    /// In force: what the published table was built from.
    pub(crate) state: State,
    /// Under which version the store has it; none if it has none.
    pub(crate) version: Option<Version>,
    /// The newest version that the store has told of while this process led.
    pub(crate) newest_seen: Option<Version>,
    /// Facts are being found out. The number tells a late answer from an expected one.
    pub(crate) observing: Option<u64>,
    /// Something is being saved, one thing at a time.
    pub(crate) saving: Option<Pending>,
    /// Since when, in milliseconds since 1970.
    pub(crate) saving_since_ms: u64,
    /// Somebody else writes this state: nothing advances any more.
    pub(crate) fenced: bool,
    /// Its state was deleted from the store, and not written since as far as is known.
    pub(crate) is_forgotten: bool,
    /// The state in force is newer than the saved one: it braked before it was saved.
    pub(crate) dirty: bool,
    /// Told, and not saved yet.
    pub(crate) unsaved: VecDeque<Event>,
    /// Newest events, oldest first.
    pub(crate) events: VecDeque<Event>,
    /// Judged time of the evidence in the store.
    pub(crate) saved_judged_ms: u64,
    /// When the last slice of the evidence was closed, in milliseconds since 1970.
    pub(crate) closed_ms: u64,
    /// This replica's own bet, if it has a part of the stake.
    pub(crate) reflex: Option<Reflex>,
    pub(crate) history: History,
    /// First epoch of the present step and of the present run, as far as this process has seen them.
    pub(crate) step_from: EpochId,
    pub(crate) run_from: EpochId,
    /// Since when this process has seen the present step, in milliseconds since 1970.
    pub(crate) seen_since_ms: u64,
    /// When this process put the present step in force, in milliseconds since 1970; 0 if another one did.
    in_force_ms: u64,
    /// When saving may be tried again, in milliseconds since 1970.
    pub(crate) retry_ms: u64,
    /// Somebody else acts for the same Canary.
    pub(crate) contested: Option<Contested>,
    /// What a person has to see to.
    pub(crate) alarm: Option<String>,
    /// What the checks said last.
    pub(crate) checks: Vec<CheckResult>,
}

/// Somebody else acts for the same Canary, so this process does not step it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contested {
    pub(crate) sentence: String,
    /// Until when, in milliseconds since 1970, if he is not seen again.
    pub(crate) until_ms: u64,
}

/// Who had charge of a state before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Former {
    /// An earlier process on this machine, which is gone with all it had counted.
    ThisMachine,
    /// Another process of the fleet, with a clock of its own. Counts are still where they were counted.
    Fleet,
}

/// What follows when a save is done.
#[derive(Debug)]
pub(crate) enum Pending {
    /// This state, which comes into force then, and what it tells: with the time that is saved, so that a restart tells the
    /// same.
    Step(Box<State>, Vec<Event>),
    /// Nothing: the state was in force before, and these events were told.
    InForce(Vec<Event>),
    /// Nothing comes into force: it braked meanwhile, and that state is yet to be saved. If this step is saved all the same,
    /// others may have seen it.
    Superseded(Option<Box<State>>),
}

impl Pending {
    /// The same, after another state came into force.
    fn superseded(self) -> Self {
        match self {
            Self::Step(step, _) => Self::Superseded(Some(step)),
            // What was in force when it was sent is what the brake was made of.
            Self::InForce(_) => Self::Superseded(None),
            Self::Superseded(step) => Self::Superseded(step),
        }
    }
}

impl Entry {
    /// A canary as the store has it, or a new one.
    pub(crate) fn new(workload: Workload, saved: Option<Saved>, now_ms: u64) -> Self {
        let (state, version, events) = match saved {
            Some(saved) => (saved.state, Some(saved.version), saved.events),
            None => (State::numbered_after(now_ms, workload.first_number(now_ms)), None, Vec::new()),
        };
        let (epoch, saved_judged_ms) = (state.epoch.id, state.evidence.judged_ms());
        Self {
            workload,
            state,
            version,
            newest_seen: None,
            observing: None,
            saving: None,
            saving_since_ms: 0,
            fenced: false,
            is_forgotten: false,
            dirty: false,
            unsaved: VecDeque::new(),
            events: events.into(),
            saved_judged_ms,
            closed_ms: now_ms,
            reflex: None,
            history: History::default(),
            step_from: epoch,
            run_from: epoch,
            seen_since_ms: now_ms,
            in_force_ms: 0,
            retry_ms: 0,
            contested: None,
            alarm: None,
            checks: Vec::new(),
        }
    }

    /// Goes on with a state that another process has saved: this one judges and steps from now on.
    pub(crate) fn take_charge(&mut self, from: Former, now_ms: u64) {
        let state = &mut self.state;
        let judged_ms = state.evidence.judged_ms();
        if judged_ms > 0 {
            // What was bet after the last checkpoint is unknown, so the stake that fell due since is burnt, never bet twice.
            let since_ms = now_ms.saturating_sub(state.judged_at_ms).max(CHECKPOINT_MS);
            let unknown_ms = match from {
                Former::ThisMachine => since_ms,
                Former::Fleet => since_ms.saturating_add(CLOCKS_APART_MS),
            };
            state.evidence = std::mem::take(&mut state.evidence).resumed(judged_ms.saturating_add(unknown_ms));
        }
        match from {
            // What the former process had counted is gone with it.
            Former::ThisMachine => state.scoring.skip(&[]),
            Former::Fleet => {}
        }
        // A wall clock that was set back must not make anything wait for a time that is far away.
        let latest_ms = now_ms.saturating_add(self.workload.plan.guard.warm_up_ms);
        state.warm_up_until_ms = state.warm_up_until_ms.map(|until_ms| until_ms.min(latest_ms));
        for time_ms in [&mut state.ticked_ms, &mut state.step_since_ms, &mut state.phase_since_ms] {
            *time_ms = (*time_ms).min(now_ms);
        }
        for since_ms in [&mut state.primary_unready_since_ms, &mut state.canary_unready_since_ms] {
            *since_ms = since_ms.map(|since_ms| since_ms.min(now_ms));
        }
        self.closed_ms = now_ms;
        self.seen_since_ms = now_ms;
        self.track();
    }

    /// Takes over what the store says, from whoever leads. An older state than the one in force is no news.
    pub(crate) fn adopt(&mut self, saved: Saved, now_ms: u64) -> bool {
        if self.version.is_some_and(|version| version >= saved.version) {
            return false;
        }
        (self.version, self.is_forgotten) = (Some(saved.version), false);
        self.saved_judged_ms = saved.state.evidence.judged_ms();
        self.events = saved.events.into();
        let is_another = !self.state.asks_for_the_same(&saved.state);
        self.put_in_force(saved.state, now_ms);
        is_another
    }

    /// Leads no more: what it was about to do is given up. Says whether its state in force is a brake that nobody has saved.
    pub(crate) fn stand_down(&mut self) -> bool {
        self.observing = None;
        self.history.clear();
        self.unsaved.clear();
        self.contested = None;
        self.supersede();
        std::mem::take(&mut self.dirty)
    }

    /// The same canary under another plan. Facts that the former plan asked for are no longer waited for.
    pub(crate) fn reconfigured(self, workload: Workload) -> Self {
        let observing = self.observing.filter(|_| workload.plan == self.workload.plan);
        Self { workload, observing, ..self }
    }

    /// The canary has left the configuration. It moves no more, and what is in force is what is to be saved.
    pub(crate) fn retire(&mut self) {
        self.observing = None;
        if matches!(self.saving, Some(Pending::Step(..))) {
            self.supersede();
            self.dirty = true;
        }
    }

    /// Puts a state in force. What was measured of a former step or run is no longer looked at.
    pub(crate) fn put_in_force(&mut self, state: State, now_ms: u64) {
        let (epoch, is_new_run) = (state.epoch.id, state.rollout != self.state.rollout);
        if state.step_since_ms != self.state.step_since_ms {
            self.step_from = epoch;
            self.seen_since_ms = now_ms;
            self.in_force_ms = now_ms;
            self.history.clear();
            self.checks.clear();
        }
        if is_new_run {
            self.run_from = epoch;
            self.closed_ms = now_ms;
        }
        self.state = state;
        self.track();
    }

    /// Judges the epoch in force from now on, if it is to be judged.
    fn track(&mut self) {
        let epoch = &self.state.epoch;
        if let Some(delta) = epoch.judging.tolerance() {
            self.state.scoring.track(epoch.id, epoch.coin, delta);
        }
    }

    /// Closes a slice of the evidence.
    pub(crate) fn advance_evidence(&mut self, counts: &[Count], now_ms: u64) {
        let length_ms = now_ms.saturating_sub(self.closed_ms);
        self.closed_ms = now_ms;
        let state = &mut self.state;
        let evidence = std::mem::take(&mut state.evidence);
        state.evidence = state.scoring.advance(evidence, counts, state.epoch.id, length_ms);
        state.judged_at_ms = now_ms;
    }

    /// Keeps what was told for people to see.
    pub(crate) fn tell(&mut self, events: impl IntoIterator<Item = Event>) {
        self.events.extend(events);
        while self.events.len() > EVENTS_SHOWN_MAX {
            self.events.pop_front();
        }
    }

    /// Keeps what was told until it can be saved.
    pub(crate) fn keep_unsaved(&mut self, events: impl IntoIterator<Item = Event>) {
        self.unsaved.extend(events);
        while self.unsaved.len() > UNSAVED_MAX {
            self.unsaved.pop_front();
        }
    }

    /// What the checks say now, by counts that include this moment's.
    pub(crate) fn verdict(&mut self, now_ms: u64, snapshot: &Snapshot) -> Verdict {
        let plan = &self.workload.plan;
        self.history.read(now_ms, snapshot, self.step_from, self.longest_check_ms());
        let window = |check| self.history.window(now_ms, check, self.seen_since_ms, plan.interval_ms);
        let seen = Seen { windows: plan.checks.iter().map(window).collect() };
        let (verdict, results) = judge(&plan.canary.to_string(), &plan.target_name(), "serin", &plan.checks, &seen);
        self.checks = results;
        verdict
    }

    /// The longest that a check looks back, in milliseconds.
    pub(crate) fn longest_check_ms(&self) -> u64 {
        self.workload.plan.checks.iter().map(|check| check.interval_ms).max().unwrap_or(0)
    }

    /// When the next tick is due, in milliseconds since 1970.
    ///
    /// A weight gets its whole interval from when it came into force, which is after it was saved: a check that looked
    /// sooner would find less than an interval's traffic, and of silence it could not say yet that it means something.
    pub(crate) fn due_ms(&self) -> u64 {
        self.state.ticked_ms.max(self.in_force_ms).saturating_add(self.workload.plan.interval_ms)
    }

    /// Whether a save has been on its way for longer than a store takes that works.
    pub(crate) fn save_hangs(&self, now_ms: u64) -> bool {
        self.saving.is_some() && now_ms.saturating_sub(self.saving_since_ms) >= HANGING_MS
    }

    /// Whether a tick may begin. While a save is on its way it waits, but not for a store that hangs: a tick can still brake.
    pub(crate) fn may_tick(&self, now_ms: u64) -> bool {
        let is_free = self.observing.is_none() && (self.saving.is_none() || self.save_hangs(now_ms));
        is_free && self.contested.is_none() && now_ms >= self.retry_ms
    }

    /// Whether a step may be saved that raises a weight or moves a primary.
    pub(crate) fn may_advance(&self) -> bool {
        self.may_save() && !self.dirty
    }

    /// Whether anything may be sent to the store.
    pub(crate) fn may_save(&self) -> bool {
        self.saving.is_none() && !self.fenced
    }

    /// Whether the store has a newer state than the one in force is made of. Who saves finds out whose it is.
    pub(crate) fn is_behind(&self) -> bool {
        self.version.is_some() && self.newest_seen > self.version
    }

    /// Whether the evidence has moved on since it was last sent to the store.
    pub(crate) fn has_new_evidence(&self) -> bool {
        self.version.is_some() && self.observing.is_none() && self.state.evidence.judged_ms() != self.saved_judged_ms
    }

    /// Whatever is being saved, it is not what is in force or comes into force.
    pub(crate) fn supersede(&mut self) {
        self.saving = self.saving.take().map(Pending::superseded);
    }

    /// A step that was given up for what is in force is saved all the same.
    ///
    /// What takes the canary out of traffic is saved over it. A failed check or the like is not worth undoing what others have
    /// seen, a promotion perhaps: then the step goes on, with that check counted.
    pub(crate) fn overtaken(&mut self, saved: State, now_ms: u64) {
        let state = if self.state.undoes(&saved) {
            self.state.clone().following(&saved)
        } else {
            let is_same_run = saved.rollout == self.state.rollout;
            let failed_checks = saved.failed_checks.max(if is_same_run { self.state.failed_checks } else { 0 });
            self.dirty = failed_checks != saved.failed_checks;
            State { failed_checks, ..self.with_evidence(saved) }
        };
        self.put_in_force(state, now_ms);
    }

    /// A state that was saved some time ago, with the evidence of now: the guard has gone on while it was saved.
    pub(crate) fn with_evidence(&mut self, mut saved: State) -> State {
        if saved.rollout == self.state.rollout {
            saved.evidence = std::mem::take(&mut self.state.evidence);
            saved.scoring = std::mem::take(&mut self.state.scoring);
            saved.judged_at_ms = self.state.judged_at_ms;
        }
        saved
    }

    /// Sends something on its way to the store.
    pub(crate) fn begin_saving(&mut self, pending: Pending, now_ms: u64) {
        self.saving = Some(pending);
        self.saving_since_ms = now_ms;
    }
}

/// Notices as events of this moment.
pub(crate) fn events(notices: &[Notice], at_ms: u64) -> Vec<Event> {
    notices
        .iter()
        .map(|notice| match notice {
            Notice::Event { level, message } => {
                Event { at_ms, level: level.as_str().to_owned(), message: message.clone() }
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serin_measure::CanaryKey;
    use serin_rollout::{Guard, GuardMode, Plan, Revision, Steps, Strategy, Target, Weight};

    use super::*;
    use crate::workload::{Reach, Routing};

    fn entry() -> Entry {
        let weight = |percent| Weight::new(percent).expect("a percentage");
        let plan = Plan {
            canary: CanaryKey::new("default", "podinfo"),
            target: Target { kind: "Backend".to_owned(), name: "podinfo".to_owned() },
            revision: Revision("6.0.1".to_owned()),
            strategy: Strategy::Weighted(Steps::by(weight(20), weight(60)).expect("20 to 60 moves")),
            skip_analysis: false,
            threshold: 5,
            interval_ms: 1_000,
            progress_deadline_ms: 600_000,
            checks: Vec::new(),
            guard: Guard { mode: GuardMode::Enforce, tolerance: 0.01, warm_up_ms: 10_000 },
        };
        let reach = Reach::Versions(BTreeMap::new());
        let routing = Routing::new(Vec::new(), reach);
        Entry::new(Workload { plan, routing, incarnation: String::new(), numbered_after: 0 }, None, 5_000)
    }

    /// When the tick after one at 10,000 ms is due, if that one set a weight or none and was saved at 10,400 ms.
    #[track_caller]
    fn check(sets_weight: bool, due_ms: u64) {
        let mut entry = entry();
        let mut state = State { ticked_ms: 10_000, ..entry.state.clone() };
        if sets_weight {
            state.step_since_ms = 10_000;
        }
        entry.put_in_force(state, 10_400);
        assert_eq!(entry.due_ms(), due_ms);
    }

    #[test]
    fn a_weight_that_took_long_to_save_has_a_whole_interval_of_traffic_before_it_is_checked() {
        check(true, 11_400);
        check(false, 11_000);
    }
}
