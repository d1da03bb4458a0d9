//! All that was counted, by boot, canary and epoch, at one moment: a value that merges over replicas and clusters.
//!
//! Counters only grow while a boot lives, so the leader takes differences ([`Snapshot::since`]) and late data simply
//! joins the next one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::counts::EpochCounts;
use crate::names::{BootId, CanaryKey, EpochId};

#[cfg(test)]
mod tests;

/// Whose counts: one epoch of one canary in one start of one process. Replicas and restarts never mix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CellKey {
    /// The start of the process that counted.
    pub boot: BootId,
    /// The canary.
    pub canary: CanaryKey,
    /// The epoch in which the requests were routed.
    pub epoch: EpochId,
}

/// Counts of any number of epochs. On the wire a list of (key, counts), because the key is no string.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(CellKey, EpochCounts)>", into = "Vec<(CellKey, EpochCounts)>")]
pub struct Snapshot {
    cells: BTreeMap<CellKey, EpochCounts>,
}

impl Snapshot {
    /// Nothing counted.
    pub const fn new() -> Self {
        Self { cells: BTreeMap::new() }
    }

    /// Adds `counts` to those under `key`.
    pub fn insert(&mut self, key: CellKey, counts: EpochCounts) {
        self.cells.entry(key).and_modify(|kept| kept.merge(&counts)).or_insert(counts);
    }

    /// The counts under `key`, if it is known.
    pub fn get(&self, key: &CellKey) -> Option<&EpochCounts> {
        self.cells.get(key)
    }

    /// Every key with its counts, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&CellKey, &EpochCounts)> {
        self.cells.iter()
    }

    /// The keys of one canary with their counts: each boot and epoch in which it was measured.
    pub fn of<'a>(&'a self, canary: &'a CanaryKey) -> impl Iterator<Item = (&'a CellKey, &'a EpochCounts)> {
        self.iter().filter(move |(key, _)| key.canary == *canary)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Keeps only what `keep` says yes to; how a leader forgets boots that are gone and epochs that are over.
    pub fn retain(&mut self, mut keep: impl FnMut(&CellKey, &EpochCounts) -> bool) {
        self.cells.retain(|key, counts| keep(key, counts));
    }

    /// Adds every count of `other`, which must not hold what is in here already: two pulls of the same boot are states
    /// of the same counters, to be subtracted, not added.
    pub fn merge(&mut self, other: &Self) {
        for (key, counts) in &other.cells {
            match self.cells.get_mut(key) {
                Some(kept) => kept.merge(counts),
                None => {
                    self.cells.insert(key.clone(), counts.clone());
                }
            }
        }
    }

    /// Adds what `other` has of one canary, on the same condition.
    pub fn merge_of(&mut self, canary: &CanaryKey, other: &Self) {
        other.of(canary).for_each(|(key, counts)| self.insert(key.clone(), counts.clone()));
    }

    /// What was counted after `earlier`: for each key in here the difference, or the whole where `earlier` did not know
    /// the key. Merged into `earlier` it gives this snapshot back, if `earlier` is a former state of it; else no count
    /// goes below zero.
    pub fn since(&self, earlier: &Self) -> Self {
        self.iter()
            .map(|(key, counts)| match earlier.get(key) {
                Some(former) => (key.clone(), counts.since(former)),
                None => (key.clone(), counts.clone()),
            })
            .collect()
    }
}

impl FromIterator<(CellKey, EpochCounts)> for Snapshot {
    fn from_iter<I: IntoIterator<Item = (CellKey, EpochCounts)>>(entries: I) -> Self {
        let mut snapshot = Self::new();
        for (key, counts) in entries {
            snapshot.insert(key, counts);
        }
        snapshot
    }
}

impl From<Vec<(CellKey, EpochCounts)>> for Snapshot {
    fn from(entries: Vec<(CellKey, EpochCounts)>) -> Self {
        entries.into_iter().collect()
    }
}

impl From<Snapshot> for Vec<(CellKey, EpochCounts)> {
    fn from(snapshot: Snapshot) -> Self {
        snapshot.cells.into_iter().collect()
    }
}
