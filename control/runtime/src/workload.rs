//! One canary as interpreted: what its rollout should do, and what its traffic looks like.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serin_rollout::{Desired, Plan, Revision, Stage};
use serin_route::{Audience, Edits, Force, Host, Match, Upstream};

/// Runs and epochs that a Canary may have for each second of its life before their numbers reach those of the next one of its
/// name. A step has a few epochs and takes a second at least; and numbers stay below 2^53, which is what readers of JSON keep.
pub(crate) const NUMBERS_PER_SECOND: u64 = 1_000_000;

/// A Canary together with the Backend it targets.
#[derive(Debug, Clone)]
pub struct Workload {
    /// The rollout.
    pub plan: Plan,
    /// The traffic.
    pub routing: Routing,
    /// Which Canary of that name, where one can be deleted and made anew: its uid in a cluster, empty elsewhere.
    pub incarnation: String,
    /// Its runs and epochs have larger numbers than this, and so than any of a former Canary of that name.
    pub numbered_after: u64,
}

/// A Canary that is older than this and has no state had one, in milliseconds: it is saved within seconds.
const STATELESS_MS: u64 = 60_000;

impl Workload {
    /// What its runs and epochs begin after, if it has no state now. One that has lost its state begins after whatever it may have
    /// had until now.
    pub(crate) fn first_number(&self, now_ms: u64) -> u64 {
        let by_now = now_ms / 1_000 * NUMBERS_PER_SECOND;
        let is_old = by_now > self.numbered_after + STATELESS_MS / 1_000 * NUMBERS_PER_SECOND;
        if self.numbered_after > 0 && is_old { by_now } else { self.numbered_after }
    }
}

/// What does not depend on how far a rollout has come.
#[derive(Debug, Clone)]
pub struct Routing {
    /// Hosts answered for.
    pub hosts: Vec<Host>,
    /// Which requests to them; every one if there are no entries.
    pub matches: Arc<[Match]>,
    /// What is changed of requests and responses on the way.
    pub edits: Arc<Edits>,
    /// How backends are spoken to.
    pub upstream: Arc<Upstream>,
    /// Who may meet the canary by the coin.
    pub audience: Audience,
    /// Requests that go to one arm, whatever the weight.
    pub forced: Vec<Force>,
    /// Where the versions are reached.
    pub reach: Reach,
}

/// Where the versions are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Every version has addresses of its own: a Backend lists them.
    Versions(BTreeMap<Revision, Vec<SocketAddr>>),
    /// Two workloads take on one version after another: a Deployment and the copy of it that is the primary.
    Workloads {
        /// Where the primary's pods are reached.
        primary: Vec<SocketAddr>,
        /// Where the target's own pods are reached.
        target: Vec<SocketAddr>,
    },
}

impl Routing {
    /// All requests to these hosts, as they come, by the coin alone.
    pub fn new(hosts: Vec<Host>, reach: Reach) -> Self {
        let (matches, edits, upstream) = (Arc::default(), Arc::default(), Arc::default());
        Self { hosts, matches, edits, upstream, audience: Audience::Everyone, forced: Vec::new(), reach }
    }

    /// The addresses of the version behind the primary.
    pub fn primary(&self, desired: &Desired) -> &[SocketAddr] {
        match &self.reach {
            Reach::Versions(versions) => versions.get(&desired.primary).map_or(&[], Vec::as_slice),
            // Until there was a first primary, the target serves as it always did.
            Reach::Workloads { target, .. } if desired.stage == Stage::TakingOver => target,
            Reach::Workloads { primary, .. } => primary,
        }
    }

    /// The addresses of the version on trial; none if nothing is on trial.
    pub fn canary(&self, desired: &Desired) -> &[SocketAddr] {
        match (&self.reach, &desired.canary) {
            (Reach::Versions(versions), Some(canary)) => versions.get(canary).map_or(&[], Vec::as_slice),
            (Reach::Workloads { target, .. }, Some(_)) => target,
            // The target runs what the primary runs. While its pods are still there, they are better than nothing.
            (Reach::Workloads { target, .. }, None) if desired.stage == Stage::AtRest => target,
            (Reach::Versions(_) | Reach::Workloads { .. }, None) => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serin_measure::CanaryKey;
    use serin_rollout::{Guard, GuardMode, Revision, Strategy, Target, Weight};

    use super::*;

    #[track_caller]
    fn check(numbered_after: u64, now_s: u64, expected: u64) {
        let plan = Plan {
            canary: CanaryKey::new("shop", "cart"),
            target: Target { kind: "Deployment".to_owned(), name: "cart".to_owned() },
            revision: Revision("r".to_owned()),
            strategy: Strategy::Fixed(Weight::ZERO),
            skip_analysis: false,
            threshold: 1,
            interval_ms: 1_000,
            progress_deadline_ms: 1_000,
            checks: Vec::new(),
            guard: Guard { mode: GuardMode::Enforce, tolerance: 0.01, warm_up_ms: 1_000 },
        };
        let reach = Reach::Versions(BTreeMap::new());
        let routing = Routing::new(Vec::new(), reach);
        let workload = Workload { plan, routing, incarnation: "u".to_owned(), numbered_after };
        assert_eq!(workload.first_number(now_s * 1_000), expected);
    }

    #[test]
    fn a_canary_that_has_lost_its_state_begins_after_all_it_may_have_had() {
        let made_at = 1_000 * NUMBERS_PER_SECOND;
        check(made_at, 1_005, made_at);
        check(made_at, 900, made_at);
        check(made_at, 5_000, 5_000 * NUMBERS_PER_SECOND);
        check(0, 5_000, 0);
    }
}
