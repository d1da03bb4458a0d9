//! One canary as interpreted: what its rollout should do, and what its traffic looks like.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serin_rollout::{Desired, Plan, Revision, Stage};
use serin_route::{Audience, Force, Host};

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

/// What does not depend on how far a rollout has come.
#[derive(Debug, Clone)]
pub struct Routing {
    /// Hosts answered for.
    pub hosts: Vec<Host>,
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
