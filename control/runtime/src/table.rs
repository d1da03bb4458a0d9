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
    let wanted = desired(&workload.plan, state);
    let routing = &workload.routing;
    let (primary, canary_endpoints) = (endpoints(routing.primary(&wanted)), endpoints(routing.canary(&wanted)));
    let Desired { epoch, rollout, .. } = wanted;
    Route {
        rollout,
        epoch: epoch.id,
        coin: epoch.coin,
        hosts: routing.hosts.clone(),
        matches: routing.matches.clone(),
        edits: routing.edits.clone(),
        upstream: routing.upstream.clone(),
        forced: routing.forced.clone(),
        audience: routing.audience.clone(),
        primary,
        canary_endpoints,
        ..Route::new(workload.plan.canary.clone())
    }
}

fn endpoints(addresses: &[SocketAddr]) -> Vec<Endpoint> {
    addresses.iter().map(|address| Endpoint { address: *address }).collect()
}
