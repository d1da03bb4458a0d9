//! Advances one canary's evidence slice by slice, and leaves what the data path needs for its own look.

use serin_analysis::{Base, Checkpoint, EPOCHS_MAX, Evidence, Slice, Stake};
use serin_measure::{Cell, EpochId};
use serin_rollout::Epoch;

/// The guard's memory of one run: which epochs are judged and how much of each is scored.
#[derive(Debug, Clone, Default)]
pub(crate) struct Judge {
    /// Oldest first; at most [`EPOCHS_MAX`].
    bases: Vec<Base>,
    /// When the last slice was closed, in milliseconds since 1970.
    closed_ms: u64,
}

impl Judge {
    /// A judge of a run, or of a run that another process began: what that one counted is gone with it.
    pub(crate) fn new(now_ms: u64) -> Self {
        Self { bases: Vec::new(), closed_ms: now_ms }
    }

    /// Judges an epoch from now on, if it is to be judged at all.
    pub(crate) fn track(&mut self, epoch: &Epoch) {
        let known = self.bases.iter().any(|base| base.epoch == epoch.id);
        let Some(delta) = epoch.judging.tolerance().filter(|_| !known) else { return };
        if self.bases.len() == EPOCHS_MAX {
            // Its last requests have not ended after eight more steps; they will not be scored, which favours nobody.
            self.bases.remove(0);
        }
        self.bases.push(Base { epoch: epoch.id, w: epoch.coin.probability(), delta, scored: Cell::default() });
    }

    /// Looks at nothing that was counted so far: the canary was away, and what was not scored then never will be.
    pub(crate) fn rebase(&mut self, cells: &[(EpochId, Cell)], now_ms: u64) {
        self.closed_ms = now_ms;
        for base in &mut self.bases {
            let now = cells.iter().find(|(epoch, _)| *epoch == base.epoch);
            base.scored = now.map_or_else(Cell::default, |(_, cell)| *cell);
        }
    }

    /// Closes the slice: scores what the cells hold beyond what was scored before.
    pub(crate) fn advance(
        &mut self,
        evidence: Evidence,
        cells: &[(EpochId, Cell)],
        in_force: EpochId,
        now_ms: u64,
    ) -> Evidence {
        let length_ms = now_ms.saturating_sub(self.closed_ms);
        self.closed_ms = now_ms;
        let mut slices: Vec<Slice> = Vec::with_capacity(self.bases.len());
        for base in &mut self.bases {
            if let Some((_, cell)) = cells.iter().find(|(epoch, _)| *epoch == base.epoch) {
                slices.push(base.slice(*cell));
                base.scored = *cell;
            }
        }
        self.bases.retain(|base| base.epoch == in_force || base.scored.in_flight() > 0);
        if slices.is_empty() { evidence } else { evidence.advance(&slices, length_ms) }
    }

    /// What the data path may look at until the next slice is closed.
    pub(crate) fn checkpoint(&self, rollout: u64, acts: bool, evidence: &Evidence) -> Checkpoint {
        Checkpoint { rollout, acts, evidence: evidence.clone(), stake: Stake::default(), bases: self.bases.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serin_measure::Coin;
    use serin_rollout::Judging;

    fn epoch(id: u64, judging: Judging) -> Epoch {
        Epoch { id: EpochId(id), coin: Coin::from_percent(10.0).expect("a percentage"), judging }
    }

    fn cell(n: u64, a: u64, done: u64) -> Cell {
        Cell { n, a, b: 0, done }
    }

    #[test]
    fn each_request_is_scored_once_in_the_epoch_it_was_routed_in() {
        let mut judge = Judge::new(0);
        judge.track(&epoch(1, Judging::Full(0.001)));
        let first = judge.advance(Evidence::new(), &[(EpochId(1), cell(100, 1, 90))], EpochId(1), 250);
        judge.track(&epoch(2, Judging::Full(0.001)));
        let second = judge.advance(
            first.clone(),
            &[(EpochId(1), cell(100, 2, 100)), (EpochId(2), cell(50, 0, 50))],
            EpochId(2),
            500,
        );
        let w = Coin::from_percent(10.0).expect("a percentage").probability();
        let slice = |n, a, in_flight| Slice { w, delta: 0.001, n, a, b: 0, in_flight };
        assert_eq!(first, Evidence::new().advance(&[slice(100, 1, 0)], 250));
        assert_eq!(second, first.advance(&[slice(0, 1, 10), slice(50, 0, 0)], 250));
        assert_eq!(judge.bases.len(), 1, "the first epoch has ended and is no longer looked at");
    }

    #[test]
    fn an_epoch_that_is_not_judged_is_not_tracked_and_the_number_tracked_is_bounded() {
        let mut judge = Judge::new(0);
        judge.track(&epoch(1, Judging::Off));
        assert!(judge.bases.is_empty());
        for id in 0..20 {
            judge.track(&epoch(id, Judging::WarmUp(0.2)));
            judge.track(&epoch(id, Judging::WarmUp(0.2)));
        }
        assert_eq!(judge.checkpoint(1, true, &Evidence::new()).bases.len(), EPOCHS_MAX);
    }
}
