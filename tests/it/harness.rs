//! The harness itself: a load and a backend that agree about what happened.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use serin_tests::backend::{Backend, Behaviour};
use serin_tests::client::{self, Fault};
use serin_tests::load::Load;
use serin_tests::process::{free_port, is_free};
use serin_tests::report::{Failed, Report};

/// Longer than any load here takes: each ends by its count.
const ENOUGH: Duration = Duration::from_secs(60);

/// So many requests to a backend that behaves so, fast; what the load and the backend saw.
async fn run(behaviour: Behaviour, requests: u64) -> (Report, Backend) {
    let backend = Backend::start("6.0.0", behaviour).await.expect("a port is free");
    let mut load = Load::open(backend.address(), 2_000.0, ENOUGH);
    load.requests_max = requests;
    if behaviour == Behaviour::Hang {
        load.timeout = Duration::from_millis(200);
    }
    (load.run().await, backend)
}

/// What a load of 20 requests reports about a backend that behaves so.
#[track_caller]
fn check(behaviour: Behaviour, statuses: &[(u16, u64)], faults: &[(Fault, u64)]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let (report, backend) = runtime.block_on(run(behaviour, 20));
    assert_eq!(report.requests, 20);
    assert_eq!(report.statuses, BTreeMap::from_iter(statuses.iter().copied()));
    assert_eq!(report.faults, BTreeMap::from_iter(faults.iter().copied()));
    assert_eq!(backend.requests(), 20, "each request arrives once");
    let bad: u64 = statuses.iter().filter(|(status, _)| *status >= 400).map(|(_, count)| count).sum();
    assert_eq!(report.failed, bad + faults.iter().map(|(_, count)| count).sum::<u64>());
    assert_eq!(report.failures.len() as u64, report.failed);
}

#[test]
fn every_way_to_misbehave_is_seen_for_what_it_is() {
    check(Behaviour::Ok, &[(200, 20)], &[]);
    check(Behaviour::FailAlways, &[(500, 20)], &[]);
    check(Behaviour::Delay(Duration::from_millis(1)), &[(200, 20)], &[]);
    check(Behaviour::ResetBeforeHead, &[], &[(Fault::NoAnswer, 20)]);
    check(Behaviour::CutBody, &[], &[(Fault::CutBody, 20)]);
    check(Behaviour::Hang, &[], &[(Fault::Timeout, 20)]);
}

#[test]
fn a_share_of_failures_is_the_same_in_every_run() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let failed = || runtime.block_on(async { run(Behaviour::FailFraction(0.25), 400).await.0.failed });
    let first = failed();
    assert!((60..=140).contains(&first), "{first} of 400 is not a quarter");
    assert_eq!(failed(), first);
}

#[tokio::test]
async fn a_load_and_its_backend_count_the_same_and_each_request_once() {
    let backend = Backend::start("6.0.0", Behaviour::Ok).await.expect("a port is free");
    backend.remember_ids();
    let mut load = Load::closed(backend.address(), 8, ENOUGH);
    load.requests_max = 1_000;
    load.request_ids = true;
    let report = load.run().await;
    assert_eq!(report.answered_by("6.0.0"), 1_000);
    assert_eq!(report.latencies.len(), 1_000);
    assert_eq!(backend.requests(), 1_000);
    assert_eq!(backend.connections(), 8, "connections are kept");
    let ids = backend.ids();
    assert_eq!(ids.len(), 1_000);
    assert!(ids.values().all(|times| *times == 1));
}

#[tokio::test]
async fn an_open_loop_keeps_its_rate_though_answers_are_slow() {
    let slow = Duration::from_millis(50);
    let backend = Backend::start("6.0.0", Behaviour::Delay(slow)).await.expect("a port is free");
    let began = Instant::now();
    let report = Load::open(backend.address(), 400.0, Duration::from_millis(500)).run().await;
    // Due at 0, 2.5, 5 … 497.5 ms.
    assert_eq!(report.requests, 200);
    assert_eq!(report.failed, 0);
    assert!(began.elapsed() >= Duration::from_millis(497), "nothing is sent before it is due");
    assert!(report.latency_ms(0.0) >= 50.0);
}

#[tokio::test]
async fn waiting_for_a_connection_counts_as_latency() {
    let backend = Backend::start("6.0.0", Behaviour::Delay(Duration::from_millis(20))).await.expect("a port is free");
    let mut load = Load::open(backend.address(), 10_000.0, ENOUGH);
    load.connections = 1;
    load.requests_max = 10;
    let report = load.run().await;
    // All are due within a millisecond; the last is answered after ten delays.
    assert!(report.latency_ms(1.0) >= 195.0, "{} ms", report.latency_ms(1.0));
}

#[tokio::test]
async fn a_backend_changes_its_behaviour_while_it_runs() {
    let backend = Backend::start("6.0.0", Behaviour::Ok).await.expect("a port is free");
    let ask = async || client::get(backend.address(), "/", ENOUGH).await.map(|answer| answer.status);
    assert_eq!(ask().await, Ok(StatusCode::OK));
    backend.behave(Behaviour::FailAlways);
    assert_eq!(ask().await, Ok(StatusCode::INTERNAL_SERVER_ERROR));
    backend.behave(Behaviour::ResetBeforeHead);
    assert_eq!(ask().await, Err(Fault::NoAnswer));
    backend.behave(Behaviour::Ok);
    assert_eq!(ask().await, Ok(StatusCode::OK));
}

#[tokio::test]
async fn a_restarted_backend_costs_an_idle_connection_nothing() {
    let backend = Backend::start("6.0.0", Behaviour::Ok).await.expect("a port is free");
    let address = backend.address();
    let mut client = client::Client::new(address);
    let request = || {
        let request = hyper::Request::get("/").header("host", "podinfo");
        request.body(http_body_util::Full::default()).expect("its parts are valid")
    };
    client.send(request(), ENOUGH).await.expect("it answers");
    backend.stop().await;
    assert!(is_free(address), "a stopped backend has closed its port");
    let backend = Backend::start_at(address, "6.0.1", Behaviour::Ok).await.expect("the port is free again");
    let answer =
        client.send(request(), ENOUGH).await.expect("a closed connection is replaced before the request is written");
    assert_eq!(answer.version.as_deref(), Some("6.0.1"));
    assert_eq!(backend.requests(), 1);
}

#[tokio::test]
async fn a_stopped_backend_answers_what_it_has_begun_and_drops_what_hangs() {
    let late = Backend::start("6.0.0", Behaviour::Delay(Duration::from_millis(100))).await.expect("a port is free");
    let hung = Backend::start("6.0.1", Behaviour::Hang).await.expect("a port is free");
    let stop_when_asked = async |backend: Backend| {
        serin_tests::wait::until("a request", ENOUGH, async || Ok((backend.requests() > 0).then_some(()))).await?;
        backend.stop().await;
        anyhow::Ok(())
    };
    let (late_at, hung_at) = (late.address(), hung.address());
    let (answer, silence, late, hung) = tokio::join!(
        client::get(late_at, "/", ENOUGH),
        client::get(hung_at, "/", ENOUGH),
        stop_when_asked(late),
        stop_when_asked(hung),
    );
    late.and(hung).expect("both were asked");
    assert_eq!(answer.expect("it had begun").version.as_deref(), Some("6.0.0"));
    assert_eq!(silence.expect_err("it would never have answered"), Fault::NoAnswer);
}

#[tokio::test]
async fn a_refused_connection_is_a_failure_with_its_time() {
    let nobody = ([127, 0, 0, 1], free_port()).into();
    let mut load = Load::open(nobody, 1_000.0, ENOUGH);
    load.requests_max = 5;
    let report = load.run().await;
    assert_eq!(report.faults, BTreeMap::from([(Fault::Connect, 5)]));
    assert_eq!(report.failed, 5);
    assert!(
        report
            .failures
            .iter()
            .all(|failure| failure.what == Failed::Fault(Fault::Connect) && failure.version.is_none())
    );
}

#[tokio::test]
async fn a_stopped_load_reports_what_it_saw() {
    let backend = Backend::start("6.0.0", Behaviour::Ok).await.expect("a port is free");
    let load = Load::open(backend.address(), 200.0, ENOUGH).start();
    serin_tests::wait::until("ten requests", ENOUGH, async || Ok((load.so_far().requests >= 10).then_some(())))
        .await
        .expect("the load goes on");
    let report = load.stop().await;
    assert!(report.requests >= 10);
    assert_eq!(report.requests, backend.requests());
}
