//! Which facts a step wants, so that nothing is asked in vain.

use crate::plan::Plan;
use crate::state::{Phase, State, Weight};

/// Facts to find out before the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// Whether the primary is ready.
    pub primary: bool,
    /// Whether the canary is ready.
    pub canary: bool,
    /// What the checks say.
    pub checks: bool,
}

impl Needs {
    /// Nothing is wanted: a tick without news would change nothing.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// The facts that [`crate::step`] will look at.
pub fn needs(plan: &Plan, state: &State) -> Needs {
    let looks = !plan.skip_analysis;
    match state.phase {
        Phase::Initializing => Needs { primary: looks && !is_moving(plan, state), ..Needs::default() },
        Phase::Failed if state.promoted.is_none() => {
            Needs { primary: looks && !is_moving(plan, state), ..Needs::default() }
        }
        Phase::Failed if state.weight > Weight::ZERO => {
            // To go back to the promoted revision, the primary has to be moved there before it is worth a look.
            let can_take_over = state.primary == state.promoted || state.promoted.as_ref() != Some(&plan.revision);
            Needs { primary: has_changed(plan, state) && can_take_over, ..Needs::default() }
        }
        Phase::Initialized | Phase::Succeeded | Phase::Failed => Needs::default(),
        Phase::Progressing | Phase::Waiting | Phase::WaitingPromotion if has_changed(plan, state) => Needs::default(),
        Phase::Progressing | Phase::Waiting | Phase::WaitingPromotion => {
            let checks = looks && state.weight > Weight::ZERO && state.failed_checks < plan.threshold;
            Needs { primary: looks, canary: true, checks }
        }
        Phase::Promoting => Needs { primary: true, canary: true, checks: false },
        Phase::Finalising => Needs { primary: true, ..Needs::default() },
    }
}

/// Whether the plan changed in a way that a step has to answer. Then the step is taken at once, not at the interval.
pub fn news(plan: &Plan, state: &State) -> bool {
    match state.phase {
        // A revision that arrives now is picked up when the promotion is done.
        Phase::Promoting | Phase::Finalising => false,
        // Without analysis nobody looks whether the primary is ready, so there is nothing to wait for.
        Phase::Initializing => plan.skip_analysis || state.primary.as_ref() != Some(&plan.revision),
        Phase::Failed if state.promoted.is_none() => plan.skip_analysis || is_moving(plan, state),
        // Once the primary is on its way back to the promoted revision, the interval is soon enough.
        Phase::Failed if state.weight > Weight::ZERO => has_changed(plan, state) && state.primary != state.promoted,
        Phase::Initialized
        | Phase::Succeeded
        | Phase::Failed
        | Phase::Progressing
        | Phase::Waiting
        | Phase::WaitingPromotion => has_changed(plan, state),
    }
}

/// Whether the target is another revision than that of this run or the last one.
pub(crate) fn has_changed(plan: &Plan, state: &State) -> bool {
    state.applied.as_ref() != Some(&plan.revision)
}

/// Whether a primary that never was ready has to take on another revision. What is seen of it is of the one before.
pub(crate) fn is_moving(plan: &Plan, state: &State) -> bool {
    state.primary.as_ref().is_some_and(|primary| *primary != plan.revision)
}
