//! What the user asked for, turned once into types that cannot be wrong.

use serin_analysis::Check;
use serin_measure::CanaryKey;

use crate::state::{Revision, Weight};

/// A Canary as the rollout sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Whose plan this is.
    pub canary: CanaryKey,
    /// The workload under control.
    pub target: Target,
    /// The version that the user points at now.
    pub revision: Revision,
    /// How traffic is moved.
    pub strategy: Strategy,
    /// Promote as soon as the canary is ready, without looking (Flagger's `skipAnalysis`).
    pub skip_analysis: bool,
    /// Failed checks that end a run, at least 1.
    pub threshold: u32,
    /// Time between two ticks, in milliseconds.
    pub interval_ms: u64,
    /// How long an arm may stay unready before that counts as dead, in milliseconds.
    pub progress_deadline_ms: u64,
    /// Limits looked at on each tick.
    pub checks: Vec<Check>,
    /// The guard's part.
    pub guard: Guard,
}

/// The workload under control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its kind, as written (`Backend`, `Deployment`).
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// How traffic is moved to the canary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Strategy {
    /// By weight, step by step, with an analysis before every step but the first.
    Weighted(Steps),
    /// One weight, held for good: a split that is measured and guarded, and never promoted.
    Fixed(Weight),
}

/// What follows a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// This weight.
    Weight(Weight),
    /// The promotion.
    Promotion,
    /// Nothing.
    Nothing,
}

impl Strategy {
    /// What follows a weight that was analysed and found good.
    pub fn after(&self, now: Weight) -> Next {
        match self {
            Self::Weighted(steps) => steps.after(now).map_or(Next::Promotion, Next::Weight),
            Self::Fixed(weight) if now == *weight => Next::Nothing,
            Self::Fixed(weight) => Next::Weight(*weight),
        }
    }
}

/// The weights of a weighted rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Steps {
    /// `stepWeight` up to `maxWeight`. The last step may pass the maximum: 20 to 50 gives 20, 40, 60, as in Flagger.
    By {
        /// Added on every step, at least 1.
        step: Weight,
        /// Promotion follows an analysis at this weight or above, at least 1.
        max: Weight,
    },
    /// `stepWeights`, ascending; the last one is the maximum.
    Listed(Vec<Weight>),
}

/// Steps that never arrive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepsError {
    /// A step or a maximum of 0 moves nothing.
    #[error("a step or maximum of 0 never moves any traffic; use 1 to 100")]
    Zero,
    /// No weights at all.
    #[error("no weights are listed; list at least one")]
    Empty,
    /// A weight that does not follow.
    #[error("{then} comes after {first}; weights have to rise")]
    NotAscending {
        /// The earlier weight.
        first: Weight,
        /// The one after it.
        then: Weight,
    },
}

/// What the guard may do, and from when on.
#[derive(Debug, Clone, PartialEq)]
pub struct Guard {
    /// Whether it acts.
    pub mode: GuardMode,
    /// How much more often than the primary the canary may fail, as a share of requests.
    pub tolerance: f64,
    /// Length of the warm-up after the first canary weight, in milliseconds.
    pub warm_up_ms: u64,
}

/// Whether the guard acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuardMode {
    /// It takes a bad canary out of traffic.
    Enforce,
    /// It says what it would have done.
    Observe,
    /// It does not look.
    Off,
}

impl Steps {
    /// Steps of one size.
    ///
    /// # Errors
    /// If step or maximum is 0: the first never moves, the second would promote without any analysis.
    pub fn by(step: Weight, max: Weight) -> Result<Self, StepsError> {
        if step == Weight::ZERO || max == Weight::ZERO { Err(StepsError::Zero) } else { Ok(Self::By { step, max }) }
    }

    /// Listed weights.
    ///
    /// # Errors
    /// If there are none, the first is 0, or they do not rise.
    pub fn listed(weights: Vec<Weight>) -> Result<Self, StepsError> {
        match weights.first() {
            None => return Err(StepsError::Empty),
            Some(first) if *first == Weight::ZERO => return Err(StepsError::Zero),
            Some(_) => {}
        }
        match weights.windows(2).find(|pair| pair[1] <= pair[0]) {
            Some(pair) => Err(StepsError::NotAscending { first: pair[0], then: pair[1] }),
            None => Ok(Self::Listed(weights)),
        }
    }

    /// The weight at which an analysis is followed by promotion.
    pub fn max(&self) -> Weight {
        match self {
            Self::By { max, .. } => *max,
            Self::Listed(weights) => *weights.last().expect("listed() refuses an empty list"),
        }
    }

    /// The weight after `now`, or none at the maximum.
    ///
    /// A listed weight is the first one above `now`, so that editing the list in mid-run never jumps to 100.
    pub fn after(&self, now: Weight) -> Option<Weight> {
        if now >= self.max() {
            return None;
        }
        match self {
            Self::By { step, .. } => Some(now.saturating_add(*step)),
            Self::Listed(weights) => weights.iter().copied().find(|weight| *weight > now),
        }
    }
}

impl Plan {
    /// The target as Flagger prints it, `name.namespace`.
    pub fn target_name(&self) -> String {
        format!("{}.{}", self.target.name, self.canary.namespace())
    }

    /// The primary's workload as Flagger prints it.
    pub fn primary_name(&self) -> String {
        format!("{}-primary.{}", self.target.name, self.canary.namespace())
    }
}
