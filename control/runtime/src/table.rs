//! The routing table as a function of all workloads and all states. It is rebuilt whole, never patched.

use std::net::SocketAddr;

use serin_rollout::{Desired, State, desired};
use serin_route::{Endpoint, Generation, Route, RouteTable, TableError};

use crate::workload::Workload;

/// Builds the table that these states ask for.
pub fn route_table<'a>(
    generation: Generation,
    canaries: impl Iterator<Item = (&'a Workload, &'a State)>,
) -> Result<RouteTable, TableError> {
    RouteTable::build(generation, canaries.map(|(workload, state)| route(workload, state)).collect())
}

fn route(workload: &Workload, state: &State) -> Route {
    let Desired { primary, canary, epoch, rollout } = desired(&workload.plan, state);
    let routing = &workload.routing;
    Route {
        canary: workload.plan.canary.clone(),
        rollout,
        epoch: epoch.id,
        coin: epoch.coin,
        hosts: routing.hosts.clone(),
        forced: routing.forced.clone(),
        audience: routing.audience.clone(),
        primary: endpoints(routing.addresses(&primary)),
        canary_endpoints: canary.map_or_else(Vec::new, |canary| endpoints(routing.addresses(&canary))),
    }
}

fn endpoints(addresses: &[SocketAddr]) -> Vec<Endpoint> {
    addresses.iter().map(|address| Endpoint { address: *address }).collect()
}
