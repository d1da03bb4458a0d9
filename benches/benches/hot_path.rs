//! What one request costs in the pure crates: deciding, counting, and a look at the evidence after a failure.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use serin_analysis::{Evidence, judge};
use serin_benches::{CELL, Request, SLICE, checkpoint, checks, count, meter, routes, snapshot, table};
use serin_measure::Arm;
use serin_route::{Ticket, Untripped, decide};

fn deciding(criterion: &mut Criterion) {
    for count in [10, 1_000, 10_000] {
        let (table, request) = (table(routes(count)), Request::among(count));
        let mut random = fastrand::Rng::with_seed(1);
        criterion.bench_function(&format!("decide among {count} routes"), |bench| {
            bench.iter(|| decide(&table, black_box(&request), &Untripped, Ticket::from(random.u64(..))));
        });
    }
}

fn tables(criterion: &mut Criterion) {
    for count in [10, 1_000, 10_000] {
        let routes = routes(count);
        criterion.bench_function(&format!("build a table of {count} routes"), |bench| {
            bench.iter_batched(|| routes.clone(), table, BatchSize::PerIteration);
        });
    }
}

fn counting(criterion: &mut Criterion) {
    let meter = meter();
    let shard = meter.shard(0);
    criterion.bench_function("count a request", |bench| {
        bench.iter(|| count(shard, Arm::Canary, black_box(1_234)));
    });
    criterion.bench_function("read all counts", |bench| bench.iter(|| meter.snapshot()));
    let (ours, theirs) = (snapshot(1, 100), snapshot(2, 100));
    criterion.bench_function("merge 100 canaries of two processes", |bench| {
        bench.iter_batched(
            || ours.clone(),
            |mut ours| {
                ours.merge(&theirs);
                ours
            },
            BatchSize::SmallInput,
        );
    });
}

fn judging(criterion: &mut Criterion) {
    let (checks, seen) = checks();
    criterion.bench_function("judge two checks", |bench| {
        bench.iter(|| judge("app", "app", "serin", &checks, black_box(&seen)));
    });
    let checkpoint = checkpoint();
    criterion.bench_function("look at the evidence", |bench| bench.iter(|| checkpoint.look(|_| Some(black_box(CELL)))));
    let evidence = Evidence::new();
    criterion.bench_function("close a slice", |bench| {
        bench.iter_batched(
            || evidence.clone(),
            |evidence| evidence.advance(&[black_box(SLICE)], 200),
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, deciding, tables, counting, judging);
criterion_main!(benches);
