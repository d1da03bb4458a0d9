//! Tables swapped under load: nothing fails, nothing is misrouted, and the counts agree to the last request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use hyper::header::HeaderValue;
use serin_measure::{Arm, CanaryKey, Coin, EpochCounts, EpochId, OutcomeClass};
use serin_proxy::Settings;
use serin_route::{Force, HeaderMatch, Host, Match, Route, StringMatch};
use serin_tests::backend::{Backend, Behaviour};
use serin_tests::load::{Load, Running};
use serin_tests::report::Report;
use serin_tests::wait::until;
use tokio::sync::Notify;

use crate::edge::{GET, TestEdge, drawn, endpoints, percent, route, settings};
use crate::wire::{PATIENCE, Wire, WireBackend, ok};

/// How long tables are swapped, and how often.
const SWAPPING: Duration = Duration::from_secs(10);
const SWAP_EVERY: Duration = Duration::from_millis(5);
/// Tables between two changes of weight; in between only endpoints change, and the epoch stays.
const SWAPS_AN_EPOCH: u64 = 4;
/// Endpoints of each arm, of which a table holds some.
const ENDPOINTS: usize = 3;
const HOSTS: [&str; 2] = ["a.example.com", "b.example.com"];
/// Requests with this header go to the canary whatever the weight.
const FORCED: &str = "x-canary";

/// The backends of one host, which say whose they are: `a.example.com primary`.
struct Service {
    host: &'static str,
    arms: [Vec<Backend>; 2],
}

impl Service {
    async fn start(host: &'static str) -> Self {
        Self { host, arms: [Self::arm(host, Arm::Primary).await, Self::arm(host, Arm::Canary).await] }
    }

    async fn arm(host: &str, arm: Arm) -> Vec<Backend> {
        let mut backends = Vec::new();
        for _ in 0..ENDPOINTS {
            let started = Backend::start(&version(host, arm), Behaviour::Ok).await;
            backends.push(started.expect("a port is free"));
        }
        backends
    }

    fn key(&self) -> CanaryKey {
        CanaryKey::new("test", self.host)
    }

    /// The route of the table of this number: endpoints of its own, weight and epoch shared with its neighbours.
    fn route(&self, swap: u64, random: &mut Rng) -> Route {
        let weights = [0.0, 1.0, 20.0, 50.0, 100.0];
        let epoch = swap / SWAPS_AN_EPOCH;
        let weight = weights[usize::try_from(epoch % 5).expect("below 5")];
        let mut some = |arm: Arm| {
            let all: Vec<_> = self.arms[arm.index()].iter().map(Backend::address).collect();
            let first = random.usize(..ENDPOINTS);
            let count = random.usize(1..=ENDPOINTS);
            endpoints(&(0..count).map(|place| all[(first + place) % ENDPOINTS]).collect::<Vec<_>>())
        };
        let matches = Match::on(vec![HeaderMatch::new(FORCED, StringMatch::Exact("always".into()))]);
        Route {
            canary: self.key(),
            epoch: EpochId(epoch + 1),
            coin: percent(weight),
            hosts: vec![Host::parse(self.host).expect("a host")],
            forced: vec![Force { matches, arm: Arm::Canary }],
            primary: some(Arm::Primary),
            canary_endpoints: some(Arm::Canary),
            ..route(&[], &[])
        }
    }

    /// Requests that reached an arm.
    fn requests(&self, arm: Arm) -> u64 {
        self.arms[arm.index()].iter().map(Backend::requests).sum()
    }
}

fn version(host: &str, arm: Arm) -> String {
    format!("{host} {arm}")
}

/// Four connections for a host; and one more whose requests are forced to the canary.
fn loads(edge: &TestEdge, host: &str) -> [Running; 2] {
    let mut drawn = Load::closed(edge.address, 4, SWAPPING);
    drawn.host = host.to_owned();
    let mut forced = Load::closed(edge.address, 1, SWAPPING);
    forced.host = host.to_owned();
    forced.headers.insert(FORCED, HeaderValue::from_static("always"));
    [drawn.start(), forced.start()]
}

/// Swaps tables at their pace for as long as that lasts: how many.
async fn swap(edge: &TestEdge, services: &[Service]) -> u64 {
    const SEED: u64 = 51;
    let mut random = Rng::with_seed(SEED);
    let began = Instant::now();
    let mut pace = tokio::time::interval(SWAP_EVERY);
    let mut swaps = 0;
    let mut routed = 0;
    while began.elapsed() < SWAPPING {
        pace.tick().await;
        swaps += 1;
        edge.publish(services.iter().map(|service| service.route(swaps, &mut random)).collect());
        if swaps % 100 == 0 {
            // As checks and the metrics page do meanwhile; epochs that ended long ago are folded by it.
            let counts = edge.counts();
            let now = counts.primary.evidence.routed + counts.canary.evidence.routed;
            assert!(now >= routed, "{now} requests after {routed}: counts only grow");
            routed = now;
        }
    }
    swaps
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stdout, reason = "how much was tried is part of the result")]
async fn two_hundred_swaps_a_second_fail_no_request_and_lose_no_count() {
    let services = [Service::start(HOSTS[0]).await, Service::start(HOSTS[1]).await];
    let first = services.iter().map(|service| service.route(0, &mut Rng::with_seed(50))).collect();
    let edge = TestEdge::start(Settings { threads: 2, ..settings() }, first);
    let running = HOSTS.map(|host| loads(&edge, host));
    let swaps = swap(&edge, &services).await;
    // 200 a second are meant. A loaded machine may be late for some, never for most.
    assert!(swaps > 1_000, "{swaps} swaps");
    let mut requests = 0;
    let mut seen = Vec::new();
    for [drawn, forced] in running {
        let reports = [drawn.finished().await, forced.finished().await];
        requests += reports.iter().map(|report| report.requests).sum::<u64>();
        seen.push(reports);
    }
    let all = edge.settled(requests).await;
    println!("{swaps} tables, {requests} requests");
    assert!(requests > 5_000, "{requests} requests are hardly a load");
    assert_eq!(
        all.primary.served[OutcomeClass::S2xx.index()] + all.canary.served[OutcomeClass::S2xx.index()],
        requests
    );
    for (service, [drawn, forced]) in services.iter().zip(&seen) {
        check_host(&edge, service, drawn, forced);
    }
    assert_eq!(edge.handle.counts().refused.iter().sum::<u64>(), 0);
}

/// Whether clients, edge and backends of a host agree.
#[track_caller]
fn check_host(edge: &TestEdge, service: &Service, drawn: &Report, forced: &Report) {
    let key = service.key();
    for report in [drawn, forced] {
        assert_eq!((report.failed, &report.faults), (0, &BTreeMap::new()), "{}: {:?}", service.host, report.failures);
    }
    assert_eq!(forced.answered_by(&version(service.host, Arm::Canary)), forced.requests, "forced requests");
    let snapshot = edge.handle.snapshot(Some(&key));
    for arm in Arm::ALL {
        let name = version(service.host, arm);
        let answered = drawn.answered_by(&name) + forced.answered_by(&name);
        let counted: u64 = snapshot.iter().map(|(_, counts)| routed(counts, arm)).sum();
        assert_eq!((counted, service.requests(arm)), (answered, answered), "{name}: counted, arrived and answered");
        assert!(answered > 0, "{name} was met");
    }
    for (cell, counts) in snapshot.iter() {
        // Epoch 0 stands for the oldest ones together.
        let weight = (cell.epoch.0 > 0).then(|| (cell.epoch.0 - 1) % 5);
        if let Some(0 | 4) = weight {
            assert_eq!(counts.cell().n, 0, "epoch {}: a certain coin is no evidence", cell.epoch);
        }
        if weight == Some(4) {
            assert_eq!(routed(counts, Arm::Primary), 0, "epoch {}: all to the canary", cell.epoch);
        }
    }
}

fn routed(counts: &EpochCounts, arm: Arm) -> u64 {
    let record = counts.arm(arm);
    record.evidence.routed + record.other.routed
}

/// A backend that answers when it is told to.
async fn gated(body: &'static str, go: &Arc<Notify>) -> WireBackend {
    let go = Arc::clone(go);
    WireBackend::start(move |mut wire| {
        let go = Arc::clone(&go);
        async move {
            while wire.request().await.is_some() {
                go.notified().await;
                wire.send(ok(body)).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_request_in_flight_ends_where_and_in_the_epoch_it_began() {
    let go = Arc::new(Notify::new());
    let (before, after) = (gated("before", &go).await, gated("after", &go).await);
    let other = gated("other", &go).await;
    let of = |endpoint: &WireBackend, epoch| {
        let route = drawn(Arm::Canary, &[endpoint.address()], &[other.address()]);
        vec![Route { epoch: EpochId(epoch), ..route }]
    };
    let edge = TestEdge::start(settings(), of(&before, 1));
    let mut client = Wire::connect(edge.address).await;
    client.send(GET).await;
    let heard = async || Ok((before.heads().len() == 1).then_some(()));
    until("the request", PATIENCE, heard).await.expect("it is passed on");
    edge.publish(of(&after, 2));
    go.notify_one();
    assert_eq!(client.answer(false).await.expect("an answer").text(), "before");
    go.notify_one();
    assert_eq!(client.ask(GET).await.expect("an answer").text(), "after");
    edge.settled(2).await;
    let snapshot = edge.handle.snapshot(None);
    let by_epoch: Vec<_> = snapshot.iter().map(|(key, counts)| (key.epoch.0, routed(counts, Arm::Canary))).collect();
    assert_eq!(by_epoch, [(1, 1), (2, 1)]);
    assert_eq!((before.heads().len(), after.heads().len(), other.heads().len()), (1, 1, 0));
}

#[tokio::test]
async fn a_table_is_in_force_for_the_next_request_of_a_kept_connection() {
    let go = Arc::new(Notify::new());
    let (primary, canary) = (gated("primary", &go).await, gated("canary", &go).await);
    let at =
        |epoch, coin| vec![Route { epoch: EpochId(epoch), coin, ..route(&[primary.address()], &[canary.address()]) }];
    let edge = TestEdge::start(settings(), at(1, Coin::NEVER));
    let mut client = Wire::connect(edge.address).await;
    for epoch in 2..50 {
        let (coin, expected) = if epoch % 2 == 0 { (Coin::ALWAYS, "canary") } else { (Coin::NEVER, "primary") };
        edge.publish(at(epoch, coin));
        go.notify_one();
        assert_eq!(client.ask(GET).await.expect("an answer").text(), expected, "epoch {epoch}");
    }
    edge.settled(48).await;
}
