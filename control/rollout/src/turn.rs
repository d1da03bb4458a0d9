//! One move of a rollout in the making: the state that is being changed and what there is to tell about it.

use serin_analysis::{Evidence, Scoring, WARM_UP_TOLERANCE};
use serin_measure::{BootId, EpochId};

use crate::notice::{Level, Notice};
use crate::plan::{GuardMode, Plan};
use crate::stakes::Stakes;
use crate::state::{Epoch, Judging, Phase, Revision, State, Weight};

/// What a move leads to.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Step {
    /// The new state.
    pub state: State,
    /// What is to be told, in order.
    pub notices: Vec<Notice>,
}

pub(crate) struct Turn<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) state: State,
    pub(crate) now_ms: u64,
    /// The processes that carry traffic, if there are several; see [`crate::Observation::replicas`].
    replicas: Vec<BootId>,
    notices: Vec<Notice>,
}

impl<'a> Turn<'a> {
    pub(crate) fn new(plan: &'a Plan, state: State, now_ms: u64) -> Self {
        Self { plan, state, now_ms, replicas: Vec::new(), notices: Vec::new() }
    }

    /// The same turn of a fleet.
    pub(crate) fn of_fleet(self, replicas: Vec<BootId>) -> Self {
        Self { replicas, ..self }
    }

    /// The move is complete.
    pub(crate) fn done(self) -> Step {
        Step { state: self.state, notices: self.notices }
    }

    /// Nothing moves, for this reason.
    pub(crate) fn hold(mut self, reason: impl Into<String>) -> Step {
        self.state.hold = Some(reason.into());
        self.done()
    }

    pub(crate) fn normal(&mut self, message: String) {
        self.notices.push(Notice::Event { level: Level::Normal, message });
    }

    pub(crate) fn warning(&mut self, message: String) {
        self.notices.push(Notice::Event { level: Level::Warning, message });
    }

    pub(crate) fn enter(&mut self, phase: Phase) {
        if self.state.phase != phase {
            self.state.phase = phase;
            self.state.phase_since_ms = self.now_ms;
        }
        self.state.hold = None;
    }

    /// Gives the primary a revision. How long it was unready says nothing about another one.
    pub(crate) fn move_primary(&mut self, revision: Revision) {
        let revision = Some(revision);
        if self.state.primary != revision {
            self.state.primary = revision;
            self.state.primary_unready_since_ms = None;
        }
    }

    /// Begins a run of the plan's revision: counters at zero, evidence and warm-up fresh, no traffic yet.
    pub(crate) fn begin_run(&mut self) {
        self.enter(Phase::Progressing);
        self.state.applied = Some(self.plan.revision.clone());
        self.state.rollout += 1;
        self.state.failed_checks = 0;
        self.state.evidence = Evidence::new();
        self.state.scoring = Scoring::default();
        self.state.stakes = Stakes::Whole;
        self.state.reported = false;
        self.state.trip = None;
        self.state.warm_up_until_ms = None;
        // Nobody watches the arms between runs, so every run counts from its own begin.
        self.state.primary_unready_since_ms = None;
        self.state.canary_unready_since_ms = None;
        self.set_weight(Weight::ZERO);
    }

    /// Sets the weight and with it the epoch. The first canary weight of a run starts its warm-up and gives out its stakes.
    pub(crate) fn set_weight(&mut self, weight: Weight) {
        self.state.weight = weight;
        self.state.step_since_ms = self.now_ms;
        if weight > Weight::ZERO && self.state.is_analysing() && self.state.warm_up_until_ms.is_none() {
            self.state.warm_up_until_ms = Some(self.now_ms + self.plan.guard.warm_up_ms);
            self.state.stakes = Stakes::among(&self.replicas);
        }
        self.renew_epoch();
    }

    /// Opens a new epoch if coin or judging differ from the one in force, or if a run began or ended.
    pub(crate) fn renew_epoch(&mut self) {
        let EpochId(last) = self.state.epoch.id;
        self.state.epoch = Epoch { id: EpochId(last + 1), coin: self.state.weight.coin(), judging: self.judging() };
    }

    /// How the present moment is judged.
    pub(crate) fn judging(&self) -> Judging {
        let weight = self.state.weight;
        let is_split = weight > Weight::ZERO && weight < Weight::FULL;
        if !self.state.is_analysing() || !is_split || self.plan.guard.mode == GuardMode::Off {
            return Judging::Off;
        }
        match self.state.warm_up_until_ms {
            Some(until) if self.now_ms < until => Judging::WarmUp(WARM_UP_TOLERANCE.max(self.plan.guard.tolerance)),
            Some(_) | None => Judging::Full(self.plan.guard.tolerance),
        }
    }

    /// Takes the canary out of traffic. Whatever the cause, it ends the same.
    pub(crate) fn roll_back(mut self) -> Step {
        self.warning(format!("Canary failed! Scaling down {}", self.plan.canary));
        self.enter(Phase::Failed);
        self.state.failed_checks = 0;
        self.set_weight(Weight::ZERO);
        self.done()
    }

    /// The revision of the run, which a run always has.
    pub(crate) fn applied(&self) -> Revision {
        self.state.applied.clone().expect("begin_run sets the revision of a run")
    }
}
