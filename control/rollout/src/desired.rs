//! What traffic should be, and what has to run for it, as a function of plan and state. Applied again and again, harmlessly.

use crate::plan::Plan;
use crate::state::{Epoch, Phase, Revision, State, Weight};

/// What is to run beside the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// There never was a primary that was ready: the target serves as it did before, and is left alone.
    TakingOver,
    /// No trial; the target's version is the primary's or a refused one, and need not run.
    AtRest,
    /// As [`Stage::AtRest`], after a trial that was taken back.
    TakenBack,
    /// The target's version is on trial, or serves in the place of a broken primary.
    OnTrial,
}

/// What traffic should be.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// What is to run beside the primary.
    pub stage: Stage,
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
    let stage = match state.phase {
        _ if canary.is_some() => Stage::OnTrial,
        _ if state.promoted.is_none() => Stage::TakingOver,
        Phase::Failed => Stage::TakenBack,
        Phase::Initializing
        | Phase::Initialized
        | Phase::Succeeded
        | Phase::Progressing
        | Phase::Waiting
        | Phase::WaitingPromotion
        | Phase::Promoting
        | Phase::Finalising => Stage::AtRest,
    };
    Desired {
        stage,
        primary: state.primary.clone().unwrap_or_else(|| plan.revision.clone()),
        canary,
        epoch: state.epoch.clone(),
        rollout: state.run(),
    }
}
