//! The reflex in the data path: on every canary failure a read-only look at the evidence, and the canary is out.
//!
//! The judge elsewhere advances the evidence slice by slice and leaves a checkpoint here. A look multiplies that
//! checkpoint with what all threads have counted since. It writes nothing but the flag.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use serin_analysis::Checkpoint;
use serin_measure::{CanaryKey, EpochMeter};
use tokio::sync::mpsc;

/// A canary that was taken out of traffic by a tripwire.
#[derive(Debug, Clone, PartialEq)]
pub struct Tripped {
    /// Whose canary.
    pub canary: CanaryKey,
    /// In which run.
    pub rollout: u64,
    /// ln E at that moment.
    pub ln_e: f64,
}

/// The tripwire of one canary, shared by all threads.
#[derive(Debug)]
pub(crate) struct Tripwire {
    canary: CanaryKey,
    /// The run that was tripped; 0 is none, as runs are numbered from 1. A newer run is thereby untripped.
    tripped: AtomicU64,
    /// What is told of it: the run and ln E at that moment.
    told: ArcSwapOption<Tripped>,
    checkpoint: ArcSwapOption<Checkpoint>,
    /// The meters of the epochs that may still change, looked up on failures only.
    meters: ArcSwap<Vec<Arc<EpochMeter>>>,
    report: mpsc::UnboundedSender<Tripped>,
}

impl Tripwire {
    /// `report` is bounded in fact: one message per run.
    pub(crate) fn new(canary: CanaryKey, report: mpsc::UnboundedSender<Tripped>) -> Self {
        let (tripped, told, checkpoint) = (AtomicU64::new(0), ArcSwapOption::empty(), ArcSwapOption::empty());
        Self { canary, tripped, told, checkpoint, meters: ArcSwap::default(), report }
    }

    /// Takes a run out of traffic, if no newer one is out already. Says whether that is new.
    ///
    /// The maximum, so that a look or an order that was slow cannot put an older run in the place of a newer one.
    pub(crate) fn trip(&self, rollout: u64, ln_e: f64) -> bool {
        let is_new = self.tripped.fetch_max(rollout, Ordering::AcqRel) < rollout;
        if is_new {
            self.told.store(Some(Arc::new(Tripped { canary: self.canary.clone(), rollout, ln_e })));
        }
        is_new
    }

    /// The newest run that is out of traffic, if one is.
    pub(crate) fn tripped(&self) -> Option<Tripped> {
        self.told.load().as_deref().cloned()
    }

    pub(crate) fn is_tripped(&self, rollout: u64) -> bool {
        let tripped = self.tripped.load(Ordering::Acquire);
        tripped != 0 && tripped == rollout
    }

    pub(crate) fn arm(&self, checkpoint: Option<Checkpoint>) {
        self.checkpoint.store(checkpoint.map(Arc::new));
    }

    pub(crate) fn set_meters(&self, meters: Vec<Arc<EpochMeter>>) {
        self.meters.store(Arc::new(meters));
    }

    /// Takes a look after a canary failure was counted. Cheap beside the failure: a few hundred multiply-adds.
    pub(crate) fn look(&self) {
        let checkpoint = self.checkpoint.load();
        let Some(checkpoint) = checkpoint.as_ref().filter(|checkpoint| checkpoint.acts) else { return };
        if self.is_tripped(checkpoint.rollout) {
            return;
        }
        let meters = self.meters.load();
        let ln_e =
            checkpoint.look(|epoch| meters.iter().find(|meter| meter.key().epoch == epoch).map(|meter| meter.look()));
        if checkpoint.stake.crossed(ln_e) && self.trip(checkpoint.rollout, ln_e) {
            let tripped = Tripped { canary: self.canary.clone(), rollout: checkpoint.rollout, ln_e };
            // Nobody listens during shutdown; the flag holds all the same.
            let _ = self.report.send(tripped);
        }
    }
}
