//! What the judge leaves with the data path, so that a look there needs nobody: evidence, stake, and what was scored.

use serin_measure::{Cell, EpochId};

use crate::bet::{Evidence, Slice};
use crate::stake::Stake;

/// Judged epochs that can be looked at in one go. A run opens one per step; older ones are settled by then.
pub const EPOCHS_MAX: usize = 8;

/// The evidence at the end of the last slice, and all that is needed to look at the open one.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The run it speaks of.
    pub rollout: u64,
    /// Whether crossing the limit may act. Where it may not, the guard only reports.
    pub acts: bool,
    /// The evidence so far.
    pub evidence: Evidence,
    /// The share of alpha that may be bet.
    pub stake: Stake,
    /// The judged epochs that may still change, newest last; at most [`EPOCHS_MAX`] are looked at.
    pub bases: Vec<Base>,
}

/// One judged epoch: its coin, its tolerance, and what of it has been scored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Base {
    /// The epoch.
    pub epoch: EpochId,
    /// The canary's probability, exactly as tossed.
    pub w: f64,
    /// The tolerance, as a share of requests.
    pub delta: f64,
    /// The counts that the evidence holds already.
    pub scored: Cell,
}

impl Base {
    /// The open slice: what was counted since, and what was in flight when it began.
    pub fn slice(&self, now: Cell) -> Slice {
        let new = now.since(&self.scored);
        Slice { w: self.w, delta: self.delta, n: new.n, a: new.a, b: new.b, in_flight: self.scored.in_flight() }
    }
}

impl Checkpoint {
    /// ln E if the open slice were closed now. Reads only and allocates nothing: it runs in the data path.
    pub fn look(&self, cell_of: impl Fn(EpochId) -> Option<Cell>) -> f64 {
        let mut slices = [Slice::default(); EPOCHS_MAX];
        let newest = self.bases.len().saturating_sub(EPOCHS_MAX);
        let mut count = 0;
        for base in &self.bases[newest..] {
            if let Some(cell) = cell_of(base.epoch) {
                slices[count] = base.slice(cell);
                count += 1;
            }
        }
        self.evidence.look(&slices[..count])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(n: u64, a: u64) -> Cell {
        Cell { n, a, b: 0, done: n }
    }

    #[test]
    fn a_look_is_what_closing_the_slice_would_give() {
        let base = |epoch, scored| Base { epoch: EpochId(epoch), w: 0.1, delta: 0.01, scored };
        let bases = vec![base(1, cell(50, 1)), base(2, Cell::default()), base(3, Cell::default())];
        let checkpoint =
            Checkpoint { rollout: 1, acts: true, evidence: Evidence::new(), stake: Stake::default(), bases };
        let seen = |epoch: EpochId| match epoch.0 {
            1 => Some(cell(60, 3)),
            2 => Some(cell(20, 2)),
            _ => None,
        };
        let slices = [checkpoint.bases[0].slice(cell(60, 3)), checkpoint.bases[1].slice(cell(20, 2))];
        assert_eq!((slices[0].n, slices[0].a), (10, 2));
        assert!((checkpoint.look(seen) - Evidence::new().advance(&slices, 250).ln_e()).abs() < 1e-12);
    }

    #[test]
    fn a_dead_canary_trips_on_its_fifth_failure_at_ten_percent_and_later_in_the_warm_up() {
        // The failures that one process needs at full stake and half of alpha, as `failures_needed` predicts.
        for (delta, least) in [(0.001, 5), (0.01, 5), (0.2, 12)] {
            let bases = vec![Base { epoch: EpochId(1), w: 0.1, delta, scored: Cell::default() }];
            let checkpoint =
                Checkpoint { rollout: 1, acts: true, evidence: Evidence::new(), stake: Stake::default(), bases };
            let crossed =
                |failures: u64| checkpoint.stake.crossed(checkpoint.look(|_| Some(cell(10 * failures, failures))));
            assert!(!crossed(least - 1), "tolerance {delta}: {} failures are too few", least - 1);
            assert!((least..=20).any(crossed), "tolerance {delta}");
        }
    }
}
