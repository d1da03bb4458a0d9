//! What was saved, in order, held against what is published: weights, promotions, runs and epochs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use serin_measure::{Arm, BootId, CanaryKey, Coin, EpochId};
use serin_rollout::{Phase, State};
use serin_route::{Route, RouteTable};
use serin_runtime::store::Saved;

use super::{Kept, Promise, hold};

/// A state that came into the store.
#[derive(Debug, Clone)]
pub(crate) struct Commit {
    pub(crate) at_ms: u64,
    pub(crate) writer: BootId,
    pub(crate) saved: Arc<Saved>,
}

/// What a request was drawn under.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Terms {
    rollout: u64,
    coin: Coin,
    versions: [Vec<SocketAddr>; 2],
}

/// The saved history, and what it allows.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) history: Vec<Commit>,
    newest: BTreeMap<CanaryKey, Arc<Saved>>,
    coins: BTreeSet<(CanaryKey, u64, EpochId, Coin)>,
    /// Runs that were promoted, and those that began to be.
    promoted: BTreeSet<(CanaryKey, u64)>,
    promoting: BTreeSet<(CanaryKey, u64)>,
    terms: BTreeMap<(CanaryKey, EpochId), Terms>,
}

impl Books {
    /// The newest state of a canary.
    pub(crate) fn newest(&self, canary: &CanaryKey) -> Option<&Arc<Saved>> {
        self.newest.get(canary)
    }

    /// A state was saved.
    pub(crate) fn saved(&mut self, commit: Commit) -> Kept {
        let saved = commit.saved.clone();
        let (canary, state) = (&saved.canary, &saved.state);
        self.coins.insert((canary.clone(), state.run(), state.epoch.id, state.epoch.coin));
        let former = self.newest.insert(canary.clone(), saved.clone());
        self.history.push(commit);
        let Some(former) = former else { return Ok(()) };
        let told = || format!("{canary} version {} to {}", former.version, saved.version);
        let (before, after) = (&former.state, state);
        hold(Promise::PromotedOnce, before.rollout <= after.rollout, || {
            format!("{}: run {} follows {}", told(), after.rollout, before.rollout)
        })?;
        hold(Promise::PromotedOnce, before.epoch.id <= after.epoch.id, || {
            format!("{}: epoch {} follows {}", told(), after.epoch.id, before.epoch.id)
        })?;
        self.promotions(canary, before, after)
    }

    fn promotions(&mut self, canary: &CanaryKey, before: &State, after: &State) -> Kept {
        let run = (canary.clone(), after.rollout);
        if before.rollout == after.rollout && after.rollout > 0 {
            let is_over = matches!(before.phase, Phase::Succeeded | Phase::Failed);
            let goes_on = before.phase == after.phase || !is_over;
            hold(Promise::PromotedOnce, goes_on, || {
                format!("{canary} run {} goes from {} to {}", after.rollout, before.phase, after.phase)
            })?;
        }
        let enters = |phase| after.phase == phase && (before.phase != phase || before.rollout != after.rollout);
        if enters(Phase::Promoting) {
            let is_first = self.promoting.insert(run.clone());
            hold(Promise::PromotedOnce, is_first, || format!("{canary} run {} is promoting twice", run.1))?;
        }
        if enters(Phase::Succeeded) {
            let is_first = self.promoted.insert(run.clone());
            hold(Promise::PromotedOnce, is_first, || format!("{canary} run {} succeeds twice", run.1))?;
        }
        let moves = before.promoted != after.promoted && before.promoted.is_some();
        hold(Promise::PromotedOnce, !moves || after.phase == Phase::Succeeded, || {
            let promoted = after.promoted.as_ref().map_or("nothing", |revision| &revision.0);
            format!("{canary} run {} has {promoted} promoted in phase {}", after.rollout, after.phase)
        })
    }

    /// Whether a run was saved as promoting, or promoted.
    pub(crate) fn is_promoted(&self, canary: &CanaryKey, rollout: u64) -> bool {
        let run = (canary.clone(), rollout);
        self.promoting.contains(&run) || self.promoted.contains(&run)
    }

    /// A table is in force somewhere.
    pub(crate) fn published(&self, boot: BootId, table: &RouteTable) -> Kept {
        for route in table.routes() {
            let is_closed = route.coin == Coin::NEVER || route.endpoints(Arm::Canary).is_empty();
            let Route { canary, rollout, epoch, coin, .. } = route;
            let is_saved = || self.coins.contains(&(canary.clone(), *rollout, *epoch, *coin));
            hold(Promise::WeightIsSaved, is_closed || is_saved(), || {
                let share = coin.probability() * 100.0;
                format!("{boot} publishes {canary} run {rollout} epoch {epoch} with {share:.1} %, which nobody saved")
            })?;
        }
        Ok(())
    }

    /// A request was drawn, the first one on this route in this table.
    pub(crate) fn drawn(&mut self, boot: BootId, route: &Route) -> Kept {
        let addresses = |arm| route.endpoints(arm).iter().map(|endpoint| endpoint.address).collect();
        let terms = Terms { rollout: route.rollout, coin: route.coin, versions: Arm::ALL.map(addresses) };
        let key = (route.canary.clone(), route.epoch);
        let first = self.terms.entry(key).or_insert_with(|| terms.clone());
        hold(Promise::PromotedOnce, *first == terms, || {
            format!(
                "{boot} draws in epoch {} of {} under {terms:?}, others did under {first:?}",
                route.epoch, route.canary
            )
        })
    }
}
