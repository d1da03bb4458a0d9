//! An edge in this process, its tables, and what it has counted.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serin_measure::{Arm, ArmRecord, BootId, CanaryKey, Coin, EpochCounts, OutcomeClass};
use serin_proxy::{Bound, EdgeHandle, Forwarding, Listen, Refusal, Settings, Tripped};
use serin_route::{Endpoint, Generation, Host, Route, RouteTable};
use serin_tests::wait::until;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::wire::{PATIENCE, WireBackend};

/// A request without a body.
pub(crate) const GET: &str = "GET /a?b HTTP/1.1\r\nhost: podinfo\r\n\r\n";

/// A running edge on a free port. Dropping it stops it without waiting.
pub(crate) struct TestEdge {
    pub(crate) address: SocketAddr,
    pub(crate) handle: EdgeHandle,
    pub(crate) tripped: UnboundedReceiver<Tripped>,
    pub(crate) running: Option<serin_proxy::Edge>,
}

impl TestEdge {
    /// Serves these routes.
    pub(crate) fn start(settings: Settings, routes: Vec<Route>) -> Self {
        let bound = Bound::bind(settings, BootId(1)).expect("port 0 is free");
        let (address, handle) = (bound.addresses()[0], bound.handle());
        handle.publish(table(routes));
        let (running, tripped) = bound.serve();
        Self { address, handle, tripped, running: Some(running) }
    }

    /// Puts other routes in force.
    pub(crate) fn publish(&self, routes: Vec<Route>) {
        self.handle.publish(table(routes));
    }

    /// Everything counted, over all canaries and epochs.
    pub(crate) fn counts(&self) -> EpochCounts {
        self.handle.snapshot(None).iter().fold(EpochCounts::default(), |mut sum, (_, counts)| {
            sum.merge(counts);
            sum
        })
    }

    /// The same once exactly so many requests have been routed, have ended and were served.
    pub(crate) async fn settled(&self, requests: u64) -> EpochCounts {
        let is_settled =
            async || Ok(Some(self.counts()).filter(|counts| totals(counts) == [requests, requests, requests]));
        match until("quiescence", PATIENCE, is_settled).await {
            // That reading may have begun before the last request ended; nothing is counted while this one is taken.
            Ok(_) => self.counts(),
            Err(error) => panic!("{error}: {requests} requests, routed/done/served {:?}", totals(&self.counts())),
        }
    }

    /// How often this was refused.
    pub(crate) fn refused(&self, why: Refusal) -> u64 {
        self.handle.counts().refused[why.index()]
    }
}

impl Drop for TestEdge {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop(Duration::ZERO);
        }
    }
}

/// One thread on a free port; patient beyond any test. `SERIN_TEST_ADAPTER=pingora` has pingora-proxy carry everything, and
/// `make test` runs all tests of the edge both ways.
pub(crate) fn settings() -> Settings {
    let direct = std::env::var_os("SERIN_TEST_ADAPTER").is_none_or(|adapter| adapter != "pingora");
    // What a backend gets is then what was sent; `edge_forwarding` is about the rest.
    let forwarding = Forwarding::none();
    Settings {
        listen: vec![Listen::plain((Ipv4Addr::LOCALHOST, 0))],
        threads: 1,
        direct,
        forwarding,
        ..Settings::default()
    }
}

/// Whether the direct exchange carries what it can in this run.
pub(crate) fn is_direct() -> bool {
    settings().direct
}

/// The same settings for either adapter.
pub(crate) fn adapters() -> [Settings; 2] {
    [true, false].map(|direct| Settings { direct, ..settings() })
}

/// The canary of these tests.
pub(crate) fn podinfo() -> CanaryKey {
    CanaryKey::new("test", "podinfo")
}

/// A route for every host, all of it to the primary: a start for others.
pub(crate) fn route(primary: &[SocketAddr], canary: &[SocketAddr]) -> Route {
    Route {
        hosts: vec![Host::Any],
        primary: endpoints(primary),
        canary_endpoints: endpoints(canary),
        ..Route::new(podinfo())
    }
}

/// Endpoints at these addresses.
pub(crate) fn endpoints(addresses: &[SocketAddr]) -> Vec<Endpoint> {
    addresses.iter().map(|address| Endpoint { address: *address }).collect()
}

/// A route to two endpoints whose coin falls to `arm` all but once in 2^32 times, so that a drawn request is certain.
pub(crate) fn drawn(arm: Arm, endpoints: &[SocketAddr], other: &[SocketAddr]) -> Route {
    let (primary, canary, k) = match arm {
        Arm::Primary => (endpoints, other, 1),
        Arm::Canary => (other, endpoints, (1 << 32) - 1),
    };
    Route { coin: Coin::from_k(k).expect("k is at most 2^32"), ..route(primary, canary) }
}

/// An edge whose requests all meet this backend as the canary.
pub(crate) fn tried(settings: Settings, canary: &WireBackend) -> TestEdge {
    TestEdge::start(settings, vec![drawn(Arm::Canary, &[canary.address()], &[canary.address()])])
}

/// The coin of a percentage.
pub(crate) fn percent(percent: f64) -> Coin {
    Coin::from_percent(percent).expect("a percentage")
}

fn table(routes: Vec<Route>) -> RouteTable {
    RouteTable::build(Generation(1), routes).expect("the hosts are distinct")
}

/// Requests routed, ended and served, over both arms.
fn totals(counts: &EpochCounts) -> [u64; 3] {
    let sum = |of: fn(&ArmRecord) -> u64| Arm::ALL.map(|arm| of(counts.arm(arm))).iter().sum();
    [
        sum(|record| record.evidence.routed + record.other.routed),
        sum(|record| record.evidence.done + record.other.done),
        sum(|record| record.served.iter().sum()),
    ]
}

/// The counts of `requests` drawn requests that all went to `arm` and all ended in `class`.
#[track_caller]
pub(crate) fn assert_counts(counts: &EpochCounts, arm: Arm, class: OutcomeClass, requests: u64) {
    let (record, other) = (counts.arm(arm), counts.arm(arm.other()));
    assert_eq!((other.evidence.routed, other.other.routed, record.other.routed), (0, 0, 0), "{arm}");
    assert_eq!((record.evidence.routed, record.evidence.done), (requests, requests), "{arm}");
    for each in OutcomeClass::ALL {
        let expected = if each == class { requests } else { 0 };
        assert_eq!(record.evidence.classes[each.index()], expected, "first attempts {each} at the {arm}");
        assert_eq!(record.served[each.index()], expected, "served {each} by the {arm}");
    }
    let failures = if class.is_failure() { requests } else { 0 };
    let cell = counts.cell();
    let (blamed, spared) = if arm == Arm::Canary { (cell.a, cell.b) } else { (cell.b, cell.a) };
    assert_eq!((blamed, spared, cell.in_flight()), (failures, 0, 0), "{arm}");
}

/// Runs on a runtime of its own: a test that is no future can have its caller tracked.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts").block_on(future)
}
