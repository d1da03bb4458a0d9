//! What one request costs in the pure crates: deciding, counting, and a look at the evidence after a failure.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use serin_analysis::{Base, Checkpoint, Evidence, Slice, Stake};
use serin_measure::{Arm, Assignment, BootId, CanaryKey, Cell, CellKey, Coin, EpochId, EpochMeter, Outcome};
use serin_route::{Audience, Endpoint, Generation, Host, RequestView, Route, RouteTable, Ticket, Untripped, decide};

struct Request(String);

impl RequestView for Request {
    fn method(&self) -> &str {
        "GET"
    }
    fn authority(&self) -> Option<&[u8]> {
        Some(self.0.as_bytes())
    }
    fn path(&self) -> &[u8] {
        b"/"
    }
    fn header<'a>(&'a self, _: &'a str) -> impl Iterator<Item = &'a [u8]> {
        std::iter::empty()
    }
}

fn table(routes: u16) -> RouteTable {
    let route = |number: u16| Route {
        canary: CanaryKey::new("default", &format!("app-{number}")),
        rollout: 1,
        epoch: EpochId(1),
        coin: Coin::from_percent(10.0).expect("a percentage"),
        hosts: vec![Host::parse(&format!("app-{number}.example.com")).expect("a host")],
        forced: Vec::new(),
        audience: Audience::Everyone,
        primary: vec![Endpoint { address: ([127, 0, 0, 1], 9001).into() }],
        canary_endpoints: vec![Endpoint { address: ([127, 0, 0, 1], 9002).into() }],
    };
    RouteTable::build(Generation(1), (0..routes).map(route).collect()).expect("hosts are distinct")
}

fn deciding(criterion: &mut Criterion) {
    for routes in [10, 1_000, 10_000] {
        let table = table(routes);
        let request = Request(format!("app-{}.example.com:8080", routes / 2));
        let mut random = fastrand::Rng::with_seed(1);
        criterion.bench_function(&format!("decide among {routes} routes"), |bench| {
            bench.iter(|| decide(&table, black_box(&request), &Untripped, Ticket::from(random.u64(..))));
        });
    }
}

fn counting(criterion: &mut Criterion) {
    let key = CellKey { boot: BootId(1), canary: CanaryKey::new("default", "app"), epoch: EpochId(1) };
    let meter = EpochMeter::new(key, 2);
    let shard = meter.shard(0);
    criterion.bench_function("count a request", |bench| {
        bench.iter(|| {
            shard.routed(Arm::Canary, Assignment::Drawn);
            shard.ended(Arm::Canary, Assignment::Drawn, Outcome::Status(200), Some(black_box(1_234)));
            shard.served(Arm::Canary, Outcome::Status(200));
        });
    });
    criterion.bench_function("read all counts", |bench| bench.iter(|| meter.snapshot()));
}

fn judging(criterion: &mut Criterion) {
    let base = |epoch| Base { epoch: EpochId(epoch), w: 0.1, delta: 0.01, scored: Cell::default() };
    let bases = vec![base(1), base(2)];
    let evidence = Evidence::new();
    let checkpoint = Checkpoint { rollout: 1, acts: true, evidence: evidence.clone(), stake: Stake::default(), bases };
    let cell = Cell { n: 1_000, a: 2, b: 3, done: 990 };
    criterion.bench_function("look at the evidence", |bench| bench.iter(|| checkpoint.look(|_| Some(black_box(cell)))));
    let slice = Slice { w: 0.1, delta: 0.01, n: 1_000, a: 2, b: 3, in_flight: 10 };
    criterion.bench_function("close a slice", |bench| {
        bench.iter_batched(
            || evidence.clone(),
            |evidence| evidence.advance(&[black_box(slice)], 200),
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, deciding, counting, judging);
criterion_main!(benches);
