//! Where a rollout stands: everything that has to survive a restart, and nothing else.

use std::fmt;

use serde::{Deserialize, Serialize};
use serin_analysis::{Evidence, Scoring};
use serin_measure::{Coin, EpochId};

use crate::stakes::Stakes;

/// Flagger's phases, with its spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// The primary is not ready yet for the first time.
    Initializing,
    /// Ready for a first rollout.
    Initialized,
    /// A gate keeps a new revision from starting.
    Waiting,
    /// The canary is being analysed.
    Progressing,
    /// Analysed; a gate keeps it from being promoted.
    WaitingPromotion,
    /// The primary is taking over the canary's revision.
    Promoting,
    /// All traffic is back on the primary.
    Finalising,
    /// The last rollout was promoted.
    Succeeded,
    /// The last rollout was taken back.
    Failed,
}

/// A share of traffic in whole percent, 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Weight(u8);

/// A weight that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("weight {given} is more than {max}")]
pub struct WeightOutOfRange {
    /// What was given.
    pub given: u64,
    /// The most it can be.
    pub max: u8,
}

/// A version of the target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub String);

/// A stretch of traffic under one coin and one tolerance. A request belongs to the epoch in which it was routed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Its number, unique per canary and never used twice.
    pub id: EpochId,
    /// The coin that sends a request to the canary.
    pub coin: Coin,
    /// Whether and how it is judged.
    pub judging: Judging,
}

/// Whether and how the guard judges an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Judging {
    /// Not at all: no canary, or both arms run one revision.
    Off,
    /// At the wide tolerance of the warm-up, given as a share of requests.
    WarmUp(#[serde(with = "crate::exact")] f64),
    /// At the plan's tolerance, as a share of requests.
    Full(#[serde(with = "crate::exact")] f64),
}

/// Why the guard took a canary out of traffic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trip {
    /// The rollout it belongs to.
    pub rollout: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The evidence at that moment, as ln E.
    #[serde(with = "crate::exact")]
    pub ln_e: f64,
    /// The same in words.
    pub message: String,
}

/// Where one canary stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The phase.
    pub phase: Phase,
    /// The canary's weight.
    pub weight: Weight,
    /// Failed checks of this run so far. Kept after a success, as in Flagger.
    pub failed_checks: u32,
    /// The revision of this run or the last one.
    pub applied: Option<Revision>,
    /// The revision that the primary was last promoted to.
    pub promoted: Option<Revision>,
    /// The revision that the primary serves. Differs from `promoted` between the copy and the end of a promotion.
    pub primary: Option<Revision>,
    /// The number of the run, from 1.
    pub rollout: u64,
    /// What this state's epochs and [run numbers](Self::run) begin after: larger than any of a former Canary of the same name.
    #[serde(default)]
    pub numbered_after: u64,
    /// The epoch in force.
    pub epoch: Epoch,
    /// When the present weight was set, in milliseconds since 1970; checks look no further back.
    pub step_since_ms: u64,
    /// When the warm-up ends, in milliseconds since 1970; none before the first canary weight of a run.
    pub warm_up_until_ms: Option<u64>,
    /// When the last tick was taken, in milliseconds since 1970.
    pub ticked_ms: u64,
    /// When the phase last changed, in milliseconds since 1970.
    pub phase_since_ms: u64,
    /// Since when the primary is unready, in milliseconds since 1970.
    pub primary_unready_since_ms: Option<u64>,
    /// Since when the canary is unready, in milliseconds since 1970.
    pub canary_unready_since_ms: Option<u64>,
    /// What the guard knows of this run.
    pub evidence: Evidence,
    /// How much of whose counts is in it.
    #[serde(default)]
    pub scoring: Scoring,
    /// Who may bet how much on this run; set with its first canary weight.
    #[serde(default)]
    pub stakes: Stakes,
    /// When the evidence was last advanced, in milliseconds since 1970.
    #[serde(default)]
    pub judged_at_ms: u64,
    /// Whether the guard, only observing, has said that it would roll back this run.
    pub reported: bool,
    /// The trip that ended the last run, if one did.
    pub trip: Option<Trip>,
    /// Why the rollout does not move, in words.
    pub hold: Option<String>,
}

impl State {
    /// A canary never seen before, under a name that no other had.
    pub fn new(now_ms: u64) -> Self {
        Self::numbered_after(now_ms, 0)
    }

    /// A canary never seen before, whose runs and epochs have larger numbers than `number`.
    pub fn numbered_after(now_ms: u64, number: u64) -> Self {
        Self {
            phase: Phase::Initializing,
            weight: Weight::ZERO,
            failed_checks: 0,
            applied: None,
            promoted: None,
            primary: None,
            rollout: 0,
            numbered_after: number,
            epoch: Epoch { id: EpochId(number + 1), coin: Coin::NEVER, judging: Judging::Off },
            step_since_ms: now_ms,
            warm_up_until_ms: None,
            ticked_ms: now_ms,
            phase_since_ms: now_ms,
            primary_unready_since_ms: None,
            canary_unready_since_ms: None,
            evidence: Evidence::new(),
            scoring: Scoring::default(),
            stakes: Stakes::Whole,
            judged_at_ms: now_ms,
            reported: false,
            trip: None,
            hold: None,
        }
    }

    /// By what number data paths know the run: it rises from run to run, and from one Canary to the next of the same name.
    pub fn run(&self) -> u64 {
        self.numbered_after + self.rollout
    }

    /// Whether going from here to `next` only holds or brakes a run: no weight rises and no primary changes.
    ///
    /// Such a move may come into force before it is saved, as a failed check, a rollback or a restart at 0 must not wait for
    /// a disk. Everything else has to be saved first: also a stake, because one that is given out and forgotten would be
    /// given out again, and in a fleet an epoch with an open coin, because the next leader would give its number to another.
    pub fn only_brakes(&self, next: &Self) -> bool {
        let goes_on = match next.phase {
            Phase::Progressing | Phase::Waiting | Phase::WaitingPromotion | Phase::Failed => true,
            Phase::Initializing | Phase::Initialized | Phase::Promoting | Phase::Finalising | Phase::Succeeded => false,
        };
        let stays = next.primary == self.primary && next.promoted == self.promoted;
        let spends = next.rollout == self.rollout && next.stakes != self.stakes;
        let opens = next.epoch != self.epoch && next.epoch.coin.certain().is_none() && self.stakes != Stakes::Whole;
        self.is_analysing() && goes_on && stays && !spends && !opens && next.weight <= self.weight
    }

    /// Whether a step that was given up for this state, and turned out to have been saved, is undone by it: no request is drawn
    /// any more, and it is no later run than that of the step. What is promoted is promoted.
    pub fn undoes(&self, saved: &Self) -> bool {
        self.weight == Weight::ZERO && saved.rollout <= self.rollout && saved.phase != Phase::Succeeded
    }

    /// This state as one that follows a step which was given up for it, and turned out to have been saved.
    ///
    /// Others may have seen that step. What they counted under the number of its epoch was under its coin, so nobody else may
    /// use the number; and whoever it gave a stake has it for good.
    #[must_use]
    pub fn following(mut self, saved: &Self) -> Self {
        if saved.epoch.id >= self.epoch.id && saved.epoch != self.epoch {
            self.epoch.id = EpochId(saved.epoch.id.0 + 1);
        }
        if saved.rollout == self.rollout {
            self.stakes = saved.stakes.clone();
            // The first weight of a run gives its stakes out, and it was set.
            self.warm_up_until_ms = saved.warm_up_until_ms;
        }
        self
    }

    /// Whether traffic is the same under both states: only what is known of it has moved on.
    pub fn asks_for_the_same(&self, other: &Self) -> bool {
        let traffic = |state: &Self| (state.phase, state.weight, state.rollout, state.epoch.clone());
        let revisions = |state: &Self| (state.applied.clone(), state.promoted.clone(), state.primary.clone());
        traffic(self) == traffic(other) && revisions(self) == revisions(other) && self.stakes == other.stakes
    }

    /// Whether a run is under way whose canary is being analysed.
    pub fn is_analysing(&self) -> bool {
        match self.phase {
            Phase::Progressing | Phase::Waiting | Phase::WaitingPromotion => true,
            Phase::Initializing
            | Phase::Initialized
            | Phase::Promoting
            | Phase::Finalising
            | Phase::Succeeded
            | Phase::Failed => false,
        }
    }
}

impl Judging {
    /// The tolerance, if the epoch is judged.
    pub fn tolerance(self) -> Option<f64> {
        match self {
            Self::Off => None,
            Self::WarmUp(delta) | Self::Full(delta) => Some(delta),
        }
    }
}

impl Phase {
    /// All phases, in the order of a run.
    pub const ALL: [Self; 9] = [
        Self::Initializing,
        Self::Initialized,
        Self::Waiting,
        Self::Progressing,
        Self::WaitingPromotion,
        Self::Promoting,
        Self::Finalising,
        Self::Succeeded,
        Self::Failed,
    ];

    /// Flagger's name of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Initializing => "Initializing",
            Self::Initialized => "Initialized",
            Self::Waiting => "Waiting",
            Self::Progressing => "Progressing",
            Self::WaitingPromotion => "WaitingPromotion",
            Self::Promoting => "Promoting",
            Self::Finalising => "Finalising",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Weight {
    /// No traffic.
    pub const ZERO: Self = Self(0);
    /// All traffic.
    pub const FULL: Self = Self(100);

    /// A weight in percent, or what is wrong with it.
    pub fn new(percent: u64) -> Result<Self, WeightOutOfRange> {
        match u8::try_from(percent) {
            Ok(percent) if percent <= 100 => Ok(Self(percent)),
            Ok(_) | Err(_) => Err(WeightOutOfRange { given: percent, max: 100 }),
        }
    }

    /// In percent.
    pub fn percent(self) -> u8 {
        self.0
    }

    /// What is left for the other arm.
    pub fn rest(self) -> Self {
        Self(100 - self.0)
    }

    /// The sum, at most 100.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self((self.0 + other.0).min(100))
    }

    /// The coin with this probability.
    pub fn coin(self) -> Coin {
        Coin::from_percent(f64::from(self.0)).expect("a weight is between 0 and 100")
    }
}

impl TryFrom<u8> for Weight {
    type Error = WeightOutOfRange;

    fn try_from(percent: u8) -> Result<Self, Self::Error> {
        Self::new(percent.into())
    }
}

impl From<Weight> for u8 {
    fn from(weight: Weight) -> Self {
        weight.0
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
