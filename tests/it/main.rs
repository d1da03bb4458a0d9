//! The tests that cross crates, in one binary.
#![allow(clippy::print_stdout, reason = "a test tells its seed and what it measured, to who asks or when it fails")]

mod certificates;
mod edge;
mod edge_backends;
mod edge_clients;
mod edge_differential;
mod edge_edits;
mod edge_endings;
mod edge_endpoints;
mod edge_forwarding;
mod edge_garbled;
mod edge_grpc;
mod edge_heads;
mod edge_hostile;
mod edge_outcomes;
mod edge_retries;
mod edge_routing;
mod edge_safety;
mod edge_sticky;
mod edge_stop;
mod edge_swaps;
mod edge_tls;
mod edge_tripwire;
mod harness;
mod lock;
mod loop_cli;
mod loop_config;
mod loop_crash;
mod loop_readme;
mod loop_rollout;
mod loop_stage;
mod loop_state;
mod speaker;
mod wire;
