//! How much of whose counts is in the evidence: one judge's memory of a run, and how it closes a slice.
//!
//! Counts are cumulative for each start of a process and each epoch. A slice is what was counted since the last one, so
//! late counts join the next slice and no request is scored twice, whoever judges: a new judge that is given the saved
//! memory scores everything since then as one slice.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serin_measure::{BootId, Cell, Coin, EpochId};

use crate::bet::{Evidence, Slice};
use crate::checkpoint::{Base, Checkpoint, EPOCHS_MAX};
use crate::stake::Stake;

/// Starts of processes remembered for each epoch. A fleet has tens, and a crash loop must not make a state grow without
/// end; counts of the boots beyond are not scored, which favours neither version.
pub const BOOTS_MAX: usize = 128;

/// Counts of one start of a process, in one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Who counted.
    pub boot: BootId,
    /// In which epoch the requests were routed.
    pub epoch: EpochId,
    /// How many, since that boot.
    pub cell: Cell,
}

/// Which epochs are judged and how much of each boot's counts is scored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scoring {
    /// Oldest first; at most [`EPOCHS_MAX`].
    epochs: Vec<Scored>,
}

/// One judged epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Scored {
    epoch: EpochId,
    coin: Coin,
    /// The tolerance, as text: another last bit would be another epoch.
    #[serde(with = "as_text")]
    delta: f64,
    /// What is scored, by boot; at most [`BOOTS_MAX`].
    sums: BTreeMap<BootId, Cell>,
}

impl Scoring {
    /// Judges an epoch from now on, if it is not judged already.
    pub fn track(&mut self, epoch: EpochId, coin: Coin, delta: f64) {
        if self.epochs.iter().any(|scored| scored.epoch == epoch) {
            return;
        }
        if self.epochs.len() == EPOCHS_MAX {
            // Its last requests have not ended after eight more steps; they will not be scored, which favours nobody.
            self.epochs.remove(0);
        }
        self.epochs.push(Scored { epoch, coin, delta, sums: BTreeMap::new() });
    }

    /// Looks at nothing that was counted so far: nobody judged meanwhile, and what was not scored then never will be.
    pub fn skip(&mut self, counts: &[Count]) {
        for scored in &mut self.epochs {
            scored.sums.clear();
            let of_epoch = counts.iter().filter(|count| count.epoch == scored.epoch);
            scored.sums.extend(of_epoch.take(BOOTS_MAX).map(|count| (count.boot, count.cell)));
        }
    }

    /// Closes a slice of `dt_ms`: scores what the counts hold beyond what was scored before.
    #[must_use]
    pub fn advance(&mut self, evidence: Evidence, counts: &[Count], in_force: EpochId, dt_ms: u64) -> Evidence {
        let mut slices: Vec<Slice> = Vec::with_capacity(self.epochs.len());
        for scored in &mut self.epochs {
            if let Some(slice) = scored.close(counts) {
                slices.push(slice);
            }
        }
        self.epochs.retain(|scored| scored.epoch == in_force || scored.may_change(counts));
        if slices.is_empty() { evidence } else { evidence.advance(&slices, dt_ms) }
    }

    /// What the data path of `boot` may look at until the next slice is closed.
    pub fn checkpoint(&self, rollout: u64, acts: bool, evidence: &Evidence, stake: Stake, boot: BootId) -> Checkpoint {
        let base = |scored: &Scored| Base {
            epoch: scored.epoch,
            w: scored.coin.probability(),
            delta: scored.delta,
            scored: scored.sums.get(&boot).copied().unwrap_or_default(),
        };
        let bases = self.epochs.iter().map(base).collect();
        Checkpoint { rollout, acts, evidence: evidence.clone(), stake, bases }
    }
}

impl Scored {
    /// The slice since the last one, over all boots that tell; none if none does.
    fn close(&mut self, counts: &[Count]) -> Option<Slice> {
        let mut slice: Option<Slice> = None;
        for count in counts.iter().filter(|count| count.epoch == self.epoch) {
            if !self.sums.contains_key(&count.boot) && self.sums.len() == BOOTS_MAX {
                continue;
            }
            let sum = self.sums.entry(count.boot).or_default();
            // Answers may overtake one another. To go back to an older one would score what came since a second time.
            if sum.since(&count.cell) != Cell::default() {
                continue;
            }
            let new = count.cell.since(sum);
            let slice = slice.get_or_insert_with(|| Slice {
                w: self.coin.probability(),
                delta: self.delta,
                ..Slice::default()
            });
            slice.n += new.n;
            slice.a += new.a;
            slice.b += new.b;
            slice.in_flight += sum.in_flight();
            *sum = count.cell;
        }
        slice
    }

    /// Whether a boot that still tells has requests of this epoch under way.
    fn may_change(&self, counts: &[Count]) -> bool {
        let of_epoch = counts.iter().filter(|count| count.epoch == self.epoch);
        of_epoch.into_iter().any(|count| self.sums.get(&count.boot).is_some_and(|sum| sum.in_flight() > 0))
    }
}

/// A number stored as text. JSON readers may lose the last bit of a number.
mod as_text {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(number: &f64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DELTA: f64 = 0.001;

    fn coin() -> Coin {
        Coin::from_percent(10.0).expect("a percentage")
    }

    fn cell(n: u64, a: u64, done: u64) -> Cell {
        Cell { n, a, b: 0, done }
    }

    fn count(boot: u64, epoch: u64, cell: Cell) -> Count {
        Count { boot: BootId(boot), epoch: EpochId(epoch), cell }
    }

    fn slice(n: u64, a: u64, in_flight: u64) -> Slice {
        Slice { w: coin().probability(), delta: DELTA, n, a, b: 0, in_flight }
    }

    fn tracking(epochs: &[u64]) -> Scoring {
        let mut scoring = Scoring::default();
        epochs.iter().for_each(|epoch| scoring.track(EpochId(*epoch), coin(), DELTA));
        scoring
    }

    #[test]
    fn each_request_is_scored_once_in_the_epoch_it_was_routed_in() {
        let mut scoring = tracking(&[1]);
        let first = scoring.advance(Evidence::new(), &[count(7, 1, cell(100, 1, 90))], EpochId(1), 250);
        scoring.track(EpochId(2), coin(), DELTA);
        let counts = [count(7, 1, cell(100, 2, 100)), count(7, 2, cell(50, 0, 50))];
        let second = scoring.advance(first.clone(), &counts, EpochId(2), 250);
        assert_eq!(first, Evidence::new().advance(&[slice(100, 1, 0)], 250));
        assert_eq!(second, first.advance(&[slice(0, 1, 10), slice(50, 0, 0)], 250));
        assert_eq!(scoring.epochs.len(), 1, "the first epoch has ended and is no longer looked at");
    }

    #[test]
    fn the_number_of_epochs_and_of_boots_is_bounded() {
        let mut scoring = tracking(&(0..20).chain(0..20).collect::<Vec<_>>());
        assert_eq!(scoring.epochs.len(), EPOCHS_MAX);
        let newest = scoring.epochs.last().expect("tracked").epoch.0;
        let boots: Vec<_> = (0..300).map(|boot| count(boot, newest, cell(1, 0, 1))).collect();
        let evidence = scoring.advance(Evidence::new(), &boots, EpochId(newest), 250);
        assert_eq!(scoring.epochs.last().expect("in force").sums.len(), BOOTS_MAX);
        assert_eq!(evidence, Evidence::new().advance(&[slice(BOOTS_MAX as u64, 0, 0)], 250));
    }

    #[test]
    fn who_takes_over_scores_what_came_since_the_save_as_one_slice() {
        let mut first = tracking(&[1]);
        let saved = first.advance(Evidence::new(), &[count(1, 1, cell(100, 1, 100))], EpochId(1), 250);
        let text = serde_json::to_string(&first).expect("plain data");
        let mut second: Scoring = serde_json::from_str(&text).expect("what was written");
        assert_eq!(second, first);
        let counts = [count(1, 1, cell(150, 3, 150)), count(2, 1, cell(40, 1, 40))];
        let taken_over = second.advance(saved.clone().resumed(9_000), &counts, EpochId(1), 250);
        assert_eq!(taken_over, saved.resumed(9_000).advance(&[slice(90, 3, 0)], 250));
    }

    #[test]
    fn an_answer_that_was_overtaken_by_a_later_one_scores_nothing_twice() {
        let mut scoring = tracking(&[1]);
        let mut evidence = Evidence::new();
        for told in [cell(100, 4, 90), cell(60, 2, 60), cell(100, 4, 90)] {
            evidence = scoring.advance(evidence, &[count(1, 1, told)], EpochId(1), 250);
        }
        let (first, nothing) = (Evidence::new().advance(&[slice(100, 4, 0)], 250), slice(0, 0, 10));
        assert_eq!(evidence, first.advance(&[nothing], 250));
    }

    #[test]
    fn what_nobody_judged_is_skipped() {
        let mut scoring = tracking(&[1]);
        scoring.skip(&[count(1, 1, cell(100, 9, 100))]);
        let evidence = scoring.advance(Evidence::new(), &[count(1, 1, cell(110, 9, 110))], EpochId(1), 250);
        assert_eq!(evidence, Evidence::new().advance(&[slice(10, 0, 0)], 250));
    }

    proptest! {
        /// The verdict on three replicas is the verdict on one that saw all, slice by slice.
        #[test]
        fn counts_of_a_fleet_are_judged_like_those_of_one_process(
            slices in prop::collection::vec(proptest::array::uniform3((0u64..50, 0u64..4, 0u64..4, 0u64..50)), 1..20),
        ) {
            let (mut fleet, mut one) = (tracking(&[1]), tracking(&[1]));
            let (mut of_fleet, mut of_one) = (Evidence::new(), Evidence::new());
            let mut sums = [Cell::default(); 3];
            for slice in slices {
                for (sum, (n, a, b, ended)) in sums.iter_mut().zip(slice) {
                    let done = sum.done.saturating_add(ended).min(sum.n + n);
                    *sum = Cell { n: sum.n + n, a: sum.a + a, b: sum.b + b, done };
                }
                let counts: Vec<_> = (0..).zip(sums).map(|(boot, sum)| count(boot, 1, sum)).collect();
                let total = sums.into_iter().fold(Cell::default(), Cell::plus);
                of_fleet = fleet.advance(of_fleet, &counts, EpochId(1), 250);
                of_one = one.advance(of_one, &[count(9, 1, total)], EpochId(1), 250);
                prop_assert_eq!(&of_fleet, &of_one);
            }
        }
    }
}
