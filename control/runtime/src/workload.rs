//! One canary as interpreted: what its rollout should do, and what its traffic looks like.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serin_rollout::{Plan, Revision};
use serin_route::{Audience, Force, Host};

/// A Canary together with the Backend it targets.
#[derive(Debug, Clone)]
pub struct Workload {
    /// The rollout.
    pub plan: Plan,
    /// The traffic.
    pub routing: Routing,
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
    /// Where each version is reached.
    pub versions: BTreeMap<Revision, Vec<SocketAddr>>,
}

impl Routing {
    /// The addresses of a version; none if it is not listed.
    pub fn addresses(&self, revision: &Revision) -> &[SocketAddr] {
        self.versions.get(revision).map_or(&[], Vec::as_slice)
    }
}
