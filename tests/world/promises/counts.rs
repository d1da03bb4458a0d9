//! What was really sent and how it ended, beside what the meters say.

use std::collections::BTreeMap;

use serin_measure::{Arm, BootId, CanaryKey, Cell, EpochId, Snapshot};

use super::{Kept, Promise, hold};

/// True counts of drawn requests.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    sent: BTreeMap<(BootId, CanaryKey, EpochId), Cell>,
}

impl Counts {
    /// Adds what a process did in one go.
    pub(crate) fn add(&mut self, boot: BootId, canary: &CanaryKey, epoch: EpochId, new: Cell) {
        self.sent.entry((boot, canary.clone(), epoch)).or_default().merge(&new);
    }

    /// What a process has sent in an epoch.
    pub(crate) fn of(&self, boot: BootId, canary: &CanaryKey, epoch: EpochId) -> Cell {
        self.sent.get(&(boot, canary.clone(), epoch)).copied().unwrap_or_default()
    }

    /// All requests drawn.
    pub(crate) fn total(&self) -> Cell {
        self.sent.values().copied().fold(Cell::default(), Cell::plus)
    }

    /// Holds a process's own counts against the truth: cell by cell, and nothing beside.
    pub(crate) fn check(&self, boot: BootId, told: &Snapshot) -> Kept {
        let drawn = |of: &Snapshot, canary: &CanaryKey, epoch: EpochId| {
            let keys = of.of(canary).filter(|(key, _)| key.boot == boot && key.epoch == epoch);
            keys.map(|(_, counts)| counts.cell()).fold(Cell::default(), Cell::plus)
        };
        for ((_, canary, epoch), sent) in self.sent.iter().filter(|((of, ..), _)| *of == boot) {
            let cell = drawn(told, canary, *epoch);
            hold(Promise::CountedOnce, cell == *sent, || {
                format!("{boot} sent {sent:?} of {canary} in epoch {epoch}, and counts {cell:?}")
            })?;
        }
        for (key, counts) in told.iter().filter(|(key, _)| key.boot == boot) {
            let routed: u64 = Arm::ALL.iter().map(|arm| counts.arm(*arm).evidence.routed).sum();
            let is_known = routed == 0 || self.sent.contains_key(&(boot, key.canary.clone(), key.epoch));
            hold(Promise::CountedOnce, is_known, || format!("{boot} counts {routed} that nobody sent, in {key:?}"))?;
        }
        Ok(())
    }
}
