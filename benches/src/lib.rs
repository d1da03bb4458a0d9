//! What the micro benches act on. `benches/hot_path.rs` tells times, `benches/instructions.rs` counts instructions; the benchmark of
//! whole processes is the program `bench`.

use serin_analysis::{Base, Check, CheckKind, Checkpoint, Evidence, Range, Seen, Slice, Stake, Window};
use serin_measure::{
    Arm, Assignment, BootId, CanaryKey, Cell, CellKey, Coin, EpochId, EpochMeter, Outcome, Shard, Snapshot,
};
use serin_route::{Endpoint, Generation, Host, RequestView, Route, RouteTable};

/// A request to one of the routes.
#[derive(Debug)]
pub struct Request(String);

impl Request {
    /// To the one in the middle of so many.
    pub fn among(routes: u16) -> Self {
        Self(format!("app-{}.example.com:8080", routes / 2))
    }
}

impl RequestView for Request {
    fn method(&self) -> &str {
        "GET"
    }
    fn scheme(&self) -> &str {
        "http"
    }
    fn authority(&self) -> Option<&[u8]> {
        Some(self.0.as_bytes())
    }
    fn query(&self) -> Option<&[u8]> {
        None
    }
    fn path(&self) -> &[u8] {
        b"/"
    }
    fn header<'a>(&'a self, _: &'a str) -> impl Iterator<Item = &'a [u8]> {
        std::iter::empty()
    }
}

/// So many routes, each with a host and a canary of its own.
///
/// # Panics
/// Never: the names are valid.
pub fn routes(count: u16) -> Vec<Route> {
    let route = |number: u16| Route {
        coin: Coin::from_percent(10.0).expect("a percentage"),
        hosts: vec![Host::parse(&format!("app-{number}.example.com")).expect("a host")],
        primary: vec![Endpoint { address: ([127, 0, 0, 1], 9001).into() }],
        canary_endpoints: vec![Endpoint { address: ([127, 0, 0, 1], 9002).into() }],
        ..Route::new(CanaryKey::new("default", &format!("app-{number}")))
    };
    (0..count).map(route).collect()
}

/// A table of routes.
///
/// # Panics
/// Never: the hosts are distinct.
pub fn table(routes: Vec<Route>) -> RouteTable {
    RouteTable::build(Generation(1), routes).expect("hosts are distinct")
}

/// A meter of one thread that has seen a thousand requests between 1 and 3 ms.
pub fn meter() -> EpochMeter {
    let key = CellKey { boot: BootId(1), canary: CanaryKey::new("default", "app"), epoch: EpochId(1) };
    let meter = EpochMeter::new(key, 1);
    for number in 0..1_000 {
        let arm = if number % 10 == 0 { Arm::Canary } else { Arm::Primary };
        count(meter.shard(0), arm, 1_000 + 2 * number);
    }
    meter
}

/// What is counted of one request.
pub fn count(shard: &Shard, arm: Arm, latency_us: u64) {
    shard.routed(arm, Assignment::Drawn);
    shard.served(arm, Outcome::Status(200));
    shard.ended(arm, Assignment::Drawn, Outcome::Status(200), Some(latency_us));
}

/// The counts of a process with so many canaries.
pub fn snapshot(boot: u64, canaries: u16) -> Snapshot {
    let counts = meter().snapshot();
    let mut snapshot = Snapshot::new();
    for number in 0..canaries {
        let canary = CanaryKey::new("default", &format!("app-{number}"));
        snapshot.insert(CellKey { boot: BootId(boot), canary, epoch: EpochId(1) }, counts.clone());
    }
    snapshot
}

/// Flagger's two checks, and what was seen for them.
pub fn checks() -> (Vec<Check>, Seen) {
    let check = |name: &str, kind, min, max| Check {
        name: name.to_owned(),
        kind,
        range: Range { min, max },
        interval_ms: 60_000,
    };
    let checks = vec![
        check("request-success-rate", CheckKind::SuccessRate, Some(99.0), None),
        check("request-duration", CheckKind::Duration, None, Some(500.0)),
    ];
    let window = Window { requests: 1_000, failures: 3, p99_us: Some(120_000), complete: true };
    (checks, Seen { windows: vec![window, window] })
}

/// What a tripwire looks at after a failure: a run of two epochs.
pub fn checkpoint() -> Checkpoint {
    let base = |epoch| Base { epoch: EpochId(epoch), w: 0.1, delta: 0.01, scored: Cell::default() };
    let bases = vec![base(1), base(2)];
    Checkpoint { rollout: 1, acts: true, evidence: Evidence::new(), stake: Stake::default(), bases }
}

/// A cell that was counted since.
pub const CELL: Cell = Cell { n: 1_000, a: 2, b: 3, done: 990 };

/// What a beat closes.
pub const SLICE: Slice = Slice { w: 0.1, delta: 0.01, n: 1_000, a: 2, b: 3, in_flight: 10 };
