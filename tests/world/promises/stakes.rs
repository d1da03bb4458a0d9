//! Who bets how much on a run: as saved, and as really left with the data paths.

use std::collections::{BTreeMap, BTreeSet};

use serin_analysis::{Checkpoint, Evidence};
use serin_measure::{BootId, CanaryKey, Cell, EpochId};
use serin_rollout::{Stakes, State};

use super::{Counts, Kept, Promise, Seat, hold};

/// Sums of parts such as a twelfth may be off by this much.
const ROUNDING: f64 = 1e-9;

/// All ledgers.
#[derive(Debug, Default)]
pub(crate) struct Ledgers {
    runs: BTreeMap<(CanaryKey, u64), Ledger>,
}

/// What was given out and bet in one run.
#[derive(Debug, Default)]
struct Ledger {
    /// Into how many parts the replicas' share was cut at the beginning, and who ever had one.
    replicas: Option<u32>,
    issued: BTreeSet<BootId>,
    /// What each process bets by itself, and how far its bet has come.
    bets: BTreeMap<BootId, (f64, Progress)>,
    pooled: Option<Progress>,
    scored: BTreeMap<(EpochId, BootId), Cell>,
}

/// How far a bet has come: its unbet stake only falls, its time only rises.
#[derive(Debug, Clone, Copy)]
struct Progress {
    cash: f64,
    judged_ms: u64,
}

impl Progress {
    fn of(evidence: &Evidence) -> Self {
        Self { cash: evidence.cash(), judged_ms: evidence.judged_ms() }
    }

    fn may_follow(self, former: Self) -> bool {
        self.cash <= former.cash && self.judged_ms >= former.judged_ms
    }
}

impl Ledgers {
    /// A state was saved.
    pub(crate) fn saved(&mut self, canary: &CanaryKey, state: &State, boots: &[BootId], counts: &Counts) -> Kept {
        let run = state.run();
        let ledger = self.runs.entry((canary.clone(), run)).or_default();
        let told = || format!("{canary} run {run}");
        ledger.issue(&state.stakes).map_err(|breach| breach.of(&told()))?;
        let progress = Progress::of(&state.evidence);
        let former = ledger.pooled.replace(progress).unwrap_or(progress);
        hold(Promise::StakeOnce, progress.may_follow(former), || {
            format!("{}: the pooled bet goes from {former:?} to {progress:?}", told())
        })?;
        for boot in boots {
            let seen = state.scoring.checkpoint(run, false, &state.evidence, state.stakes.pooled(), *boot);
            for base in seen.bases {
                let known = ledger.scored.entry((base.epoch, *boot)).or_default();
                let true_counts = counts.of(*boot, canary, base.epoch);
                let is_sound = is_within(*known, base.scored) && is_within(base.scored, true_counts);
                hold(Promise::StakeOnce, is_sound, || {
                    let epoch = base.epoch;
                    let scored = base.scored;
                    format!(
                        "{}: of {boot} in epoch {epoch} {scored:?} is scored, {known:?} before, {true_counts:?} is true",
                        told()
                    )
                })?;
                *known = base.scored;
            }
        }
        Ok(())
    }

    /// A checkpoint of a process's own bet was left with its data path.
    pub(crate) fn armed(&mut self, seat: &Seat, checkpoint: &Checkpoint) -> Kept {
        let Checkpoint { rollout, evidence, stake, .. } = checkpoint;
        let (boot, canary) = seat;
        let ledger = self.runs.entry((canary.clone(), *rollout)).or_default();
        let progress = Progress::of(evidence);
        let (former_stake, former) =
            ledger.bets.insert(*boot, (stake.stake, progress)).unwrap_or((stake.stake, progress));
        hold(Promise::StakeOnce, former_stake == stake.stake && progress.may_follow(former), || {
            let stake = stake.stake;
            format!(
                "{boot} begins its bet on {canary} run {rollout} again: {former_stake} {former:?}, then {stake} {progress:?}"
            )
        })?;
        hold(Promise::StakeOnce, ledger.issued.contains(boot), || {
            format!("{boot} bets on {canary} run {rollout}, and nobody has saved that it may")
        })?;
        let sum: f64 = Stakes::Split { replicas: 1, issued: BTreeSet::new() }.pooled().stake
            + ledger.bets.values().map(|(stake, _)| stake).sum::<f64>();
        hold(Promise::StakeOnce, sum <= 1.0 + ROUNDING, || format!("{canary} run {rollout}: bets add up to {sum}"))
    }
}

impl Ledger {
    fn issue(&mut self, stakes: &Stakes) -> Kept {
        let (replicas, issued) = match stakes {
            Stakes::Whole => {
                return hold(Promise::StakeOnce, self.replicas.is_none(), || "one ledger more: the whole".to_owned());
            }
            Stakes::Split { replicas, issued } => (*replicas, issued),
        };
        let former = *self.replicas.get_or_insert(replicas);
        hold(Promise::StakeOnce, former == replicas, || format!("a ledger of {former} and one of {replicas}"))?;
        hold(Promise::StakeOnce, self.issued.is_subset(issued), || {
            format!("{:?} had a stake, and now {issued:?} have", self.issued)
        })?;
        self.issued.extend(issued);
        let sum = Stakes::Split { replicas, issued: self.issued.clone() }.sum();
        hold(Promise::StakeOnce, sum <= 1.0 + ROUNDING, || format!("stakes add up to {sum}"))
    }
}

fn is_within(some: Cell, all: Cell) -> bool {
    some.n <= all.n && some.a <= all.a && some.b <= all.b && some.done <= all.done
}
