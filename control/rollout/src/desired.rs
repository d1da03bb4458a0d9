//! What traffic should be, as a function of plan and state. Applied again on every tick, harmlessly.

use crate::plan::Plan;
use crate::state::{Epoch, Phase, Revision, State, Weight};

/// What traffic should be.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// The revision behind the primary.
    pub primary: Revision,
    /// The revision behind the canary, if there is one.
    pub canary: Option<Revision>,
    /// The epoch in force, with its coin.
    pub epoch: Epoch,
    /// The run that a trip would belong to.
    pub rollout: u64,
}

/// What traffic should be.
pub fn desired(plan: &Plan, state: &State) -> Desired {
    let canary = match state.phase {
        Phase::Progressing | Phase::Waiting | Phase::WaitingPromotion | Phase::Promoting => state.applied.clone(),
        // Until the end it has to be there: it takes over again if the new primary breaks now.
        Phase::Finalising => state.applied.clone(),
        // After a promotion whose primary failed, the canary is what serves.
        Phase::Failed if state.weight > Weight::ZERO => state.applied.clone(),
        Phase::Initializing | Phase::Initialized | Phase::Succeeded | Phase::Failed => None,
    };
    Desired {
        primary: state.primary.clone().unwrap_or_else(|| plan.revision.clone()),
        canary,
        epoch: state.epoch.clone(),
        rollout: state.rollout,
    }
}
