//! One replica's own bet on a run: the evidence in its own counts, with the part of the stake that the leader has issued.
//!
//! It lives in the process and dies with it. A replica that is started again is another one and needs another part.

use serin_analysis::{Checkpoint, Count, Evidence, Scoring, Stake};
use serin_measure::BootId;
use serin_rollout::{GuardMode, Plan, State};

/// The evidence of one run in this process's own counts.
#[derive(Debug)]
pub(crate) struct Reflex {
    rollout: u64,
    boot: BootId,
    stake: Stake,
    evidence: Evidence,
    scoring: Scoring,
    closed_ms: u64,
}

impl Reflex {
    /// A reflex for the run that is analysed; none if it has no stake in it. What was counted before is not bet on: by now
    /// its outcome is known.
    pub(crate) fn of(state: &State, boot: BootId, counts: &[Count], now_ms: u64) -> Option<Self> {
        let stake = state.stakes.of(boot).filter(|_| state.is_analysing())?;
        let (evidence, scoring) = (Evidence::new(), Scoring::default());
        let mut reflex = Self { rollout: state.run(), boot, stake, evidence, scoring, closed_ms: now_ms };
        reflex.track(state);
        reflex.scoring.skip(counts);
        Some(reflex)
    }

    /// Whether it is of this run, analysed or not, or of a later one.
    pub(crate) fn is_of_this_or_later(&self, state: &State) -> bool {
        state.run() <= self.rollout
    }

    /// Whether it is of the run that is analysed now.
    pub(crate) fn is_of(&self, state: &State) -> bool {
        state.is_analysing() && state.run() == self.rollout && state.stakes.of(self.boot).is_some()
    }

    /// Judges the epoch in force too.
    pub(crate) fn track(&mut self, state: &State) {
        if let Some(delta) = state.epoch.judging.tolerance() {
            self.scoring.track(state.epoch.id, state.epoch.coin, delta);
        }
    }

    /// Closes a slice.
    pub(crate) fn advance(&mut self, state: &State, counts: &[Count], now_ms: u64) {
        let dt_ms = now_ms.saturating_sub(self.closed_ms);
        self.closed_ms = now_ms;
        let evidence = std::mem::take(&mut self.evidence);
        self.evidence = self.scoring.advance(evidence, counts, state.epoch.id, dt_ms);
    }

    /// What the tripwire may look at.
    pub(crate) fn checkpoint(&self, plan: &Plan) -> Checkpoint {
        let acts = plan.guard.mode == GuardMode::Enforce;
        self.scoring.checkpoint(self.rollout, acts, &self.evidence, self.stake, self.boot)
    }
}
