//! What people and tools may see of the control loop, published as a whole and never waited for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use prometheus::{HistogramOpts, HistogramVec};
use serin_analysis::CheckResult;
use serin_measure::{CanaryKey, EpochId};
use serin_rollout::{Phase, Plan, State};

use crate::store::Event;

/// The newest posting, and counters that only rise.
#[derive(Debug)]
pub struct Board {
    posting: RwLock<Arc<Posting>>,
    draining: AtomicBool,
    tick_seconds: HistogramVec,
}

/// What the control loop last posted.
#[derive(Debug, Clone, Default)]
pub struct Posting {
    /// Whether the first table is in force.
    pub ready: bool,
    /// The number of the table in force.
    pub generation: u64,
    /// Every canary.
    pub canaries: BTreeMap<CanaryKey, CanaryPosting>,
    /// Problems of the configuration that was refused, if one was; the last good one is in force.
    pub refused_config: Vec<String>,
    /// Finished runs and the like, since the start.
    pub tally: Tally,
}

/// One canary, posted.
#[derive(Debug, Clone)]
pub struct CanaryPosting {
    /// What the user asked for.
    pub plan: Plan,
    /// What is in force.
    pub state: State,
    /// Newest events, oldest first.
    pub events: Vec<Event>,
    /// What a person has to see to.
    pub alarm: Option<String>,
    /// What the checks said last.
    pub checks: Vec<CheckResult>,
    /// First epoch of the run, as far as this process has seen it.
    pub run_from: EpochId,
    /// Whether the state in force is saved.
    pub saved: bool,
}

/// Counts since the start of the process.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Runs that ended, by canary.
    pub ended: BTreeMap<CanaryKey, Ended>,
    /// Saves that failed.
    pub save_failures: u64,
}

/// How runs of one canary ended.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ended {
    /// Promoted after analysis.
    pub promoted: u64,
    /// Promoted without analysis.
    pub skipped: u64,
    /// Taken back.
    pub failed: u64,
}

impl Default for Board {
    fn default() -> Self {
        let options =
            HistogramOpts::new("flagger_canary_duration_seconds", "Time that an analysed tick took, in seconds.");
        let tick_seconds =
            HistogramVec::new(options, &["name", "namespace"]).expect("the name and the labels are valid");
        Self { posting: RwLock::default(), draining: AtomicBool::new(false), tick_seconds }
    }
}

impl Board {
    /// How long analysed ticks took, by name of the target and namespace.
    pub(crate) fn tick_seconds(&self) -> &HistogramVec {
        &self.tick_seconds
    }

    /// The newest posting.
    pub fn read(&self) -> Arc<Posting> {
        self.posting.read().clone()
    }

    /// Replaces the posting.
    pub fn post(&self, posting: Posting) {
        *self.posting.write() = Arc::new(posting);
    }

    /// Says that the process is ending; readiness follows at once.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the process is ending.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

impl Ended {
    /// Counts a run that has come to this phase.
    pub(crate) fn count(&mut self, phase: Phase, skipped: bool) {
        match phase {
            Phase::Succeeded if skipped => self.skipped += 1,
            Phase::Succeeded => self.promoted += 1,
            Phase::Failed => self.failed += 1,
            Phase::Initializing
            | Phase::Initialized
            | Phase::Waiting
            | Phase::Progressing
            | Phase::WaitingPromotion
            | Phase::Promoting
            | Phase::Finalising => {}
        }
    }
}
