//! The guard's moves: it brakes, it narrows its tolerance after the warm-up, it gives newcomers a stake, it reports. It never
//! advances.

use serin_measure::BootId;

use crate::plan::{GuardMode, Plan};
use crate::state::{State, Trip};
use crate::turn::{Step, Turn};

/// Evidence that crossed its limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Brake {
    /// The run that it speaks of.
    pub rollout: u64,
    /// ln E at that moment.
    pub ln_e: f64,
    /// The same in words, to follow "Rolling back n.ns".
    pub message: String,
}

/// Takes the canary out of traffic, or none if this run is over or the plan does not let the guard act.
///
/// Unlike a step it may be published before it is saved: braking needs nothing.
pub fn brake(plan: &Plan, state: &State, brake: &Brake, now_ms: u64) -> Option<Step> {
    let acts = plan.guard.mode == GuardMode::Enforce && state.is_analysing() && state.run() == brake.rollout;
    acts.then(|| {
        let mut turn = Turn::new(plan, state.clone(), now_ms);
        turn.warning(format!("Rolling back {} {}", plan.canary, brake.message));
        turn.state.trip =
            Some(Trip { rollout: brake.rollout, at_ms: now_ms, ln_e: brake.ln_e, message: brake.message.clone() });
        let mut step = turn.roll_back();
        step.state.hold = Some(format!("the guard rolled it back: {}", brake.message));
        step
    })
}

/// Says once per run what the guard would have done, if it only observes.
pub fn report(plan: &Plan, state: &State, brake: &Brake, now_ms: u64) -> Option<Step> {
    let tells = plan.guard.mode == GuardMode::Observe
        && state.is_analysing()
        && state.run() == brake.rollout
        && !state.reported;
    tells.then(|| {
        let mut turn = Turn::new(plan, state.clone(), now_ms);
        turn.warning(format!("Guard observes only, it would roll back {}: {}", plan.canary, brake.message));
        turn.state.reported = true;
        turn.done()
    })
}

/// Opens a new epoch when the warm-up is over or the plan's guard was edited in mid-run; none if nothing is due.
pub fn narrow(plan: &Plan, state: &State, now_ms: u64) -> Option<Step> {
    let mut turn = Turn::new(plan, state.clone(), now_ms);
    (turn.judging() != state.epoch.judging).then(|| {
        turn.renew_epoch();
        turn.done()
    })
}

/// Gives processes that came after the run began a stake in it; none if nobody is to get one.
///
/// It has to be saved before they bet: what is issued twice would be spent twice.
pub fn enlist(plan: &Plan, state: &State, present: &[BootId], now_ms: u64) -> Option<Step> {
    let stakes = state.is_analysing().then(|| state.stakes.with_newcomers(present)).flatten()?;
    let mut turn = Turn::new(plan, state.clone(), now_ms);
    turn.state.stakes = stakes;
    Some(turn.done())
}
