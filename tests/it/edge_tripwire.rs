//! The reflex in the data path: a failing canary is out with the failure that decides, and stays out.

use serin_analysis::{Base, Checkpoint, Evidence, Stake, failures_needed};
use serin_measure::{Arm, Cell, EpochId};
use serin_proxy::{Settings, Tripped};
use serin_route::{Force, HeaderMatch, Match, Route, StringMatch};
use serin_tests::backend::{Backend, Behaviour};
use serin_tests::load::Load;
use tokio::sync::mpsc::error::TryRecvError;

use crate::edge::{GET, TestEdge, percent, podinfo, route, settings};
use crate::wire::{PATIENCE, Wire};

const WEIGHT: f64 = 20.0;
/// What a limit of 99 % on the success rate tolerates.
const TOLERANCE: f64 = 0.01;
/// Enough for any run of the coin: at 20 %, thirty canary requests are missing from 1,000 once in 10^50 runs.
const REQUESTS_MAX: u64 = 1_000;

fn checkpoint(acts: bool) -> Checkpoint {
    let base = Base { epoch: EpochId(1), w: percent(WEIGHT).probability(), delta: TOLERANCE, scored: Cell::default() };
    Checkpoint { rollout: 1, acts, evidence: Evidence::new(), stake: Stake::default(), bases: vec![base] }
}

/// A good primary, a canary that behaves so, and an edge with an armed tripwire between them and one client.
struct Trial {
    edge: TestEdge,
    client: Wire,
    primary: Backend,
    canary: Backend,
    sent: u64,
}

impl Trial {
    async fn start(threads: usize, canary: Behaviour, acts: bool) -> Self {
        let primary = Backend::start("primary", Behaviour::Ok).await.expect("a port is free");
        let canary = Backend::start("canary", canary).await.expect("a port is free");
        let routes = vec![split(&primary, &canary)];
        let edge = TestEdge::start(Settings { threads, ..settings() }, routes);
        edge.handle.arm(&podinfo(), Some(checkpoint(acts)));
        let client = Wire::connect(edge.address).await;
        Self { edge, client, primary, canary, sent: 0 }
    }

    /// One request on the kept connection: whether the canary answered.
    async fn ask(&mut self, request: &str) -> bool {
        self.sent += 1;
        let answer = self.client.ask(request).await.expect("an answer");
        let canary = answer.field("x-version") == Some("canary");
        assert_eq!(answer.status(), if canary { 500 } else { 200 });
        canary
    }

    /// Asks until the tripwire reports.
    async fn until_tripped(&mut self) -> Tripped {
        while self.sent < REQUESTS_MAX {
            self.ask(GET).await;
            if let Ok(tripped) = self.edge.tripped.try_recv() {
                return tripped;
            }
        }
        panic!("not tripped by {REQUESTS_MAX} requests, {} of them at the canary", self.canary.requests());
    }

    /// That none of so many more requests meets the canary, and nothing more is reported.
    async fn assert_out(&mut self, requests: u64) {
        let met = self.canary.requests();
        for _ in 0..requests {
            assert!(!self.ask(GET).await, "a tripped canary is out");
        }
        assert_eq!(self.canary.requests(), met);
        assert_eq!(self.edge.tripped.try_recv(), Err(TryRecvError::Empty), "a trip is reported once");
    }
}

fn split(primary: &Backend, canary: &Backend) -> Route {
    let matches = Match::on(vec![HeaderMatch::new("x-canary", StringMatch::Exact("always".into()))]);
    let forced = vec![Force { matches, arm: Arm::Canary }];
    Route { coin: percent(WEIGHT), forced, ..route(&[primary.address()], &[canary.address()]) }
}

#[tokio::test]
#[allow(clippy::print_stdout, reason = "how many failures it took is part of the result")]
async fn a_canary_that_always_fails_is_out_with_the_failure_that_decides() {
    let mut trial = Trial::start(1, Behaviour::FailAlways, true).await;
    // The same bet on what the client saw: the request at which it crosses is the one that must decide.
    let predicted = checkpoint(true);
    let mut cell = Cell::default();
    let tripped = loop {
        let failed = trial.ask(GET).await;
        cell = Cell { n: cell.n + 1, a: cell.a + u64::from(failed), b: 0, done: cell.done + 1 };
        let ln_e = predicted.look(|_| Some(cell));
        if predicted.stake.crossed(ln_e) {
            // The next request is decided after the last was looked at; so the report is there once it is answered.
            assert!(!trial.ask(GET).await, "not one more request after the failure that decides");
            break Tripped { canary: podinfo(), rollout: 1, ln_e };
        }
        assert_eq!(trial.edge.tripped.try_recv(), Err(TryRecvError::Empty), "no earlier than {cell:?}");
    };
    assert_eq!(trial.edge.tripped.try_recv(), Ok(tripped));
    let failures = trial.canary.requests();
    let needed = u64::from(failures_needed(percent(WEIGHT).probability(), TOLERANCE, Stake::default()));
    println!("tripped by failure {failures} of {} requests; {needed} are predicted", trial.sent);
    assert_eq!(failures, cell.a);
    // The prediction spaces failures evenly; chance pays a little more or less for the requests between.
    assert!(failures <= 30 && (needed / 2..=needed * 2).contains(&failures), "{failures}, predicted {needed}");
    trial.assert_out(300).await;
    assert_eq!(trial.primary.requests(), trial.sent - failures);
    let counts = trial.edge.settled(trial.sent).await;
    assert_eq!((counts.cell().a, counts.cell().b), (failures, 0));
    assert_eq!(counts.primary.other.routed, 301, "what a trip decides is no evidence");
}

#[tokio::test]
async fn a_trip_outlives_tables_of_its_rollout_and_ends_with_the_next() {
    let mut trial = Trial::start(1, Behaviour::FailAlways, true).await;
    trial.until_tripped().await;
    let again = |rollout, epoch, weight| {
        let route = split(&trial.primary, &trial.canary);
        vec![Route { rollout, epoch: EpochId(epoch), coin: percent(weight), ..route }]
    };
    let (same, stronger, next) = (again(1, 1, WEIGHT), again(1, 2, 100.0), again(2, 3, 100.0));
    trial.edge.publish(same);
    trial.assert_out(50).await;
    trial.edge.publish(stronger);
    trial.assert_out(50).await;
    let forced = "GET / HTTP/1.1\r\nhost: podinfo\r\nx-canary: always\r\n\r\n";
    assert!(!trial.ask(forced).await, "not even a forced request meets a tripped canary");
    trial.edge.handle.arm(&podinfo(), None);
    trial.assert_out(50).await;
    trial.edge.publish(next);
    assert!(trial.ask(GET).await, "a newer rollout is a new trial");
    assert_eq!(trial.edge.tripped.try_recv(), Err(TryRecvError::Empty));
}

#[tokio::test]
async fn a_guard_that_only_observes_trips_nothing() {
    let mut trial = Trial::start(1, Behaviour::FailAlways, false).await;
    let mut failures = 0;
    while failures < 60 && trial.sent < REQUESTS_MAX {
        failures += u64::from(trial.ask(GET).await);
    }
    assert_eq!(failures, 60, "the canary stays in traffic");
    assert_eq!(trial.edge.tripped.try_recv(), Err(TryRecvError::Empty));
}

#[tokio::test]
async fn a_tripwire_without_a_checkpoint_trips_nothing() {
    let mut trial = Trial::start(1, Behaviour::FailAlways, true).await;
    trial.edge.handle.arm(&podinfo(), None);
    let mut failures = 0;
    while failures < 60 && trial.sent < REQUESTS_MAX {
        failures += u64::from(trial.ask(GET).await);
    }
    assert_eq!((failures, trial.edge.tripped.try_recv()), (60, Err(TryRecvError::Empty)));
}

#[tokio::test]
async fn forced_requests_that_fail_at_the_canary_are_no_evidence() {
    let mut trial = Trial::start(1, Behaviour::FailAlways, true).await;
    for _ in 0..200 {
        assert!(trial.ask("GET / HTTP/1.1\r\nhost: podinfo\r\nx-canary: always\r\n\r\n").await);
    }
    assert_eq!(trial.edge.tripped.try_recv(), Err(TryRecvError::Empty));
    let counts = trial.edge.settled(200).await;
    assert_eq!(counts.cell(), Cell::default());
    assert_eq!(trial.edge.handle.cells(&podinfo()), [(EpochId(1), Cell::default())]);
}

#[tokio::test]
async fn a_canary_that_fails_as_often_as_the_primary_stays() {
    let mut trial = Trial::start(1, Behaviour::FailAlways, true).await;
    trial.primary.behave(Behaviour::FailAlways);
    for _ in 0..400 {
        let answer = trial.client.ask(GET).await.expect("an answer");
        assert_eq!(answer.status(), 500);
    }
    assert_eq!(trial.edge.tripped.try_recv(), Err(TryRecvError::Empty));
}

#[tokio::test]
async fn many_clients_on_several_threads_meet_a_failing_canary_hardly_more_often() {
    const CONNECTIONS: usize = 8;
    let mut trial = Trial::start(2, Behaviour::FailAlways, true).await;
    let mut load = Load::closed(trial.edge.address, CONNECTIONS, PATIENCE);
    load.requests_max = 2_000;
    let report = load.run().await;
    assert_eq!(trial.edge.tripped.try_recv().map(|tripped| tripped.rollout), Ok(1));
    assert_eq!(trial.edge.tripped.try_recv(), Err(TryRecvError::Empty), "a trip is reported once");
    let failures = trial.canary.requests();
    let in_flight = CONNECTIONS as u64;
    assert!(failures <= 30 + in_flight, "{failures} requests met a canary that always fails");
    assert_eq!((report.requests, report.failed), (2_000, failures));
    trial.edge.settled(2_000).await;
}
