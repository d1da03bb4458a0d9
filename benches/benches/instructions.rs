//! The same work in instructions, counted by Valgrind: the same each time, on a noisy machine too.
//!
//! `make bench-pure` runs it; it needs Valgrind and `gungraun-runner`, which `benches/tools.sh` installs.

#![allow(
    missing_docs,
    unused_qualifications,
    reason = "what its macros make has neither documentation nor short names"
)]

use std::hint::black_box;

use gungraun::prelude::*;
use serin_analysis::{Checkpoint, Evidence, judge};
use serin_benches::{CELL, Request, SLICE, checks, count, meter, routes, snapshot, table};
use serin_measure::{Arm, BootId, EpochCounts, EpochMeter, Snapshot};
use serin_proxy::{Bound, EdgeHandle, Settings};
use serin_route::{Decision, Route, RouteTable, Ticket, Unrouted, Untripped};

fn table_and_request(count: u16) -> (RouteTable, Request) {
    (table(routes(count)), Request::among(count))
}

#[library_benchmark]
#[benches::routes(args = [10, 1_000, 10_000], setup = table_and_request)]
fn decide((table, request): (RouteTable, Request)) -> (Result<Decision, Unrouted>, RouteTable) {
    let decision = serin_route::decide(&table, black_box(&request), &Untripped, Ticket::from(black_box(1 << 40)));
    // Given back, so that to free it is not counted.
    (decision, table)
}

#[library_benchmark]
#[benches::routes(args = [10, 1_000, 10_000], setup = routes)]
fn build_a_table(routes: Vec<Route>) -> RouteTable {
    table(routes)
}

/// An edge that has published a table before, and the next one.
fn edge_and_table(count: u16) -> (EdgeHandle, RouteTable) {
    let settings = Settings { listen: Vec::new(), threads: 1, ..Settings::default() };
    let handle = Bound::bind(settings, BootId(1)).expect("nothing is bound").handle();
    handle.publish(table(routes(count)));
    handle.publish(table(routes(count)));
    (handle, table(routes(count)))
}

#[library_benchmark]
#[benches::routes(args = [10, 1_000, 10_000], setup = edge_and_table)]
fn publish_a_table((handle, table): (EdgeHandle, RouteTable)) -> EdgeHandle {
    handle.publish(table);
    handle
}

#[library_benchmark]
#[bench::one(meter())]
fn count_a_request(meter: EpochMeter) -> EpochMeter {
    count(meter.shard(0), Arm::Canary, black_box(1_234));
    meter
}

#[library_benchmark]
#[bench::of_one_canary(meter())]
fn read_all_counts(meter: EpochMeter) -> (EpochCounts, EpochMeter) {
    (meter.snapshot(), meter)
}

#[library_benchmark]
#[bench::of_100_canaries(snapshot(1, 100), snapshot(2, 100))]
fn merge_two_processes(mut ours: Snapshot, theirs: Snapshot) -> (Snapshot, Snapshot) {
    ours.merge(&theirs);
    (ours, theirs)
}

#[library_benchmark]
#[bench::two(checks())]
fn judge_checks((checks, seen): (Vec<serin_analysis::Check>, serin_analysis::Seen)) -> serin_analysis::Verdict {
    judge("app", "app", "serin", &checks, &seen).0
}

#[library_benchmark]
#[bench::two_epochs(serin_benches::checkpoint())]
fn look_at_the_evidence(checkpoint: Checkpoint) -> Checkpoint {
    black_box(checkpoint.look(|_| Some(black_box(CELL))));
    checkpoint
}

#[library_benchmark]
#[bench::one_epoch(Evidence::new())]
fn close_a_slice(evidence: Evidence) -> Evidence {
    evidence.advance(&[black_box(SLICE)], 200)
}

library_benchmark_group!(
    name = pure,
    benchmarks = [
        decide,
        build_a_table,
        publish_a_table,
        count_a_request,
        read_all_counts,
        merge_two_processes,
        judge_checks,
        look_at_the_evidence,
        close_a_slice
    ]
);

main!(library_benchmark_groups = pure);
