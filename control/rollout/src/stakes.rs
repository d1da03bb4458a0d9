//! Who may bet how much: the ledger of stakes of one run, saved before anybody bets.
//!
//! All judges of a run together roll a good canary back with probability `alpha` at most, so the parts of the stake they
//! hold may never add up to more than 1 (a union bound, whatever they share or see late). One process holds it all. In a
//! fleet the leader, who judges the counts of all, holds a half; the replicas that are there when the run begins share a
//! quarter, for the tripwires that each looks at by itself; the last quarter is for replicas that come later. A restarted
//! process is another one: it takes from the last quarter, since what it has bet before is forgotten.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serin_analysis::Stake;
use serin_measure::BootId;

/// The part of the leader, who judges the counts of the whole fleet.
const POOLED: f64 = 0.5;
/// The part of the replicas that are there at the beginning, together; newcomers together have as much.
const AT_THE_BEGINNING: f64 = 0.25;
/// Replicas that get a stake at the beginning. The part of each shrinks with their number, and beyond this a tripwire would
/// need more failures than the leader's look, which is a fraction of a second away.
pub const REPLICAS_MAX: usize = 64;

/// The stakes of one run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Stakes {
    /// One process judges and holds it all.
    #[default]
    Whole,
    /// A fleet.
    Split {
        /// Replicas at the beginning: a part is a quarter divided by it, and as many parts are kept for newcomers.
        replicas: u32,
        /// Who has a part, each start of a process once and never again.
        issued: BTreeSet<BootId>,
    },
}

impl Stakes {
    /// The ledger of a run that begins among these processes; without any it is a single one.
    pub fn among(replicas: &[BootId]) -> Self {
        let issued: BTreeSet<BootId> = replicas.iter().copied().take(REPLICAS_MAX).collect();
        match u32::try_from(issued.len()) {
            Ok(0) | Err(_) => Self::Whole,
            Ok(replicas) => Self::Split { replicas, issued },
        }
    }

    /// The stake of who judges the counts of all.
    pub fn pooled(&self) -> Stake {
        match self {
            Self::Whole => Stake::default(),
            Self::Split { .. } => Stake { stake: POOLED, ..Stake::default() },
        }
    }

    /// The stake of one replica's own tripwire; none if it has none in this run.
    pub fn of(&self, boot: BootId) -> Option<Stake> {
        match self {
            Self::Whole => None,
            Self::Split { replicas, issued } => {
                let part = AT_THE_BEGINNING / f64::from(*replicas);
                issued.contains(&boot).then(|| Stake { stake: part, ..Stake::default() })
            }
        }
    }

    /// The ledger with parts for newcomers too, as far as there are any left; none if nobody gets one.
    pub fn with_newcomers(&self, present: &[BootId]) -> Option<Self> {
        let Self::Split { replicas, issued } = self else { return None };
        let parts = usize::try_from(*replicas).map_or(usize::MAX, |replicas| 2 * replicas);
        let mut enlarged = issued.clone();
        for boot in present {
            if enlarged.len() < parts {
                enlarged.insert(*boot);
            }
        }
        (enlarged.len() > issued.len()).then_some(Self::Split { replicas: *replicas, issued: enlarged })
    }

    /// The parts of all judges together, at most 1.
    pub fn sum(&self) -> f64 {
        match self {
            Self::Whole => self.pooled().stake,
            Self::Split { issued, .. } => {
                let parts = issued.iter().filter_map(|boot| self.of(*boot)).map(|stake| stake.stake);
                parts.fold(self.pooled().stake, |sum, part| sum + part)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boots(ids: std::ops::Range<u64>) -> Vec<BootId> {
        ids.map(BootId).collect()
    }

    #[test]
    fn one_process_holds_the_whole_stake_and_its_tripwire_looks_at_the_same_evidence() {
        let alone = Stakes::among(&[]);
        assert_eq!((alone.pooled(), alone.of(BootId(1))), (Stake::default(), None));
        assert_eq!(alone.with_newcomers(&boots(0..3)), None);
    }

    #[test]
    fn a_fleet_of_three_has_a_half_three_twelfths_and_as_much_for_newcomers() {
        let three = Stakes::among(&boots(0..3));
        assert_eq!(three.pooled().stake, 0.5);
        assert_eq!(three.of(BootId(2)).map(|stake| stake.stake), Some(1.0 / 12.0));
        assert_eq!(three.of(BootId(3)), None);
        let five = three.with_newcomers(&boots(1..5)).expect("two newcomers");
        assert_eq!(five.of(BootId(4)), five.of(BootId(0)));
        assert_eq!(five.with_newcomers(&boots(0..5)), None, "each has its part already");
        let six = five.with_newcomers(&boots(10..20)).expect("one part is left");
        assert_eq!(six.with_newcomers(&boots(20..30)), None, "no part is left");
        assert!((six.sum() - 1.0).abs() < 1e-12, "{}", six.sum());
    }

    #[test]
    fn the_parts_never_add_up_to_more_than_the_whole() {
        for replicas in [1, 2, 7, 63, 64, 65, 500] {
            let mut stakes = Stakes::among(&boots(0..replicas));
            for round in 1..10 {
                stakes = stakes.with_newcomers(&boots(round * 1_000..round * 1_000 + 50)).unwrap_or(stakes);
                assert!(stakes.sum() <= 1.0 + 1e-12, "{replicas} replicas: {}", stakes.sum());
            }
        }
    }
}
