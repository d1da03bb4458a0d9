//! The tests that cross crates, in one binary.

mod edge;
mod edge_clients;
mod edge_endpoints;
mod edge_heads;
mod edge_outcomes;
mod edge_routing;
mod edge_stop;
mod edge_swaps;
mod edge_tripwire;
mod harness;
mod lock;
mod wire;
mod loop_rollout;
mod loop_stage;
