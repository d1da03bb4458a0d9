//! Endpoints that die while an arm lives on: nobody notices, nothing is sent twice that may not be, in both arms alike.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serin_measure::{Arm, OutcomeClass};
use serin_tests::backend::{Backend, Behaviour};
use serin_tests::process::free_port;

use crate::edge::{GET, TestEdge, assert_counts, drawn, run, settings};
use crate::wire::{Then, Wire, WireBackend, ok};

const POST: &str = "POST / HTTP/1.1\r\nhost: podinfo\r\ncontent-length: 2\r\n\r\nhi";

fn nobody() -> SocketAddr {
    ([127, 0, 0, 1], free_port()).into()
}

/// Sends 40 requests to an arm with one live endpoint and so many dead ones: how many are answered with 200.
async fn answered(arm: Arm, dead: usize, request: &str) -> (u64, TestEdge) {
    let live = WireBackend::saying(ok("hi"), Then::Keep).await;
    let other = WireBackend::saying(ok("bystander"), Then::Keep).await;
    let mut endpoints = vec![live.address()];
    endpoints.extend((0..dead).map(|_| nobody()));
    let edge = TestEdge::start(settings(), vec![drawn(arm, &endpoints, &[other.address()])]);
    let mut answered = 0;
    for _ in 0..40 {
        let answer = Wire::connect(edge.address).await.ask(request).await.expect("an answer");
        answered += u64::from(answer.status() == 200);
    }
    assert_eq!(live.heads().len() as u64, answered, "{arm}: each request arrives once");
    assert_eq!(other.heads().len(), 0, "{arm}: no request is taken to the other arm");
    (answered, edge)
}

#[test]
fn a_dead_endpoint_beside_a_live_one_costs_nothing_in_either_arm() {
    for (arm, request) in Arm::ALL.into_iter().flat_map(|arm| [(arm, GET), (arm, POST)]) {
        let counts = run(async {
            let (answered, edge) = answered(arm, 1, request).await;
            assert_eq!(answered, 40, "{arm}");
            edge.settled(40).await
        });
        assert_counts(&counts, arm, OutcomeClass::S2xx, 40);
    }
}

#[test]
fn two_dead_endpoints_beside_a_live_one_still_cost_nothing() {
    for arm in Arm::ALL {
        run(async {
            let (answered, edge) = answered(arm, 2, GET).await;
            assert_eq!(answered, 40, "{arm}");
            edge.settled(40).await;
        });
    }
}

#[test]
fn no_more_than_three_endpoints_are_tried() {
    for arm in Arm::ALL {
        run(async {
            let (answered, edge) = answered(arm, 9, GET).await;
            // Three of the ten endpoints in a row begin, at random, in 30 % of the cases at the live one or before.
            // The chance that all 40, or none, find it is below 10^-6.
            assert!((1..40).contains(&answered), "{arm}: {answered} of 40");
            let counts = edge.settled(40).await;
            let record = counts.arm(arm);
            assert_eq!(record.served[OutcomeClass::S2xx.index()], answered, "{arm}");
            assert_eq!(record.served[OutcomeClass::ConnectFailed.index()], 40 - answered, "{arm}");
            assert_eq!(record.evidence.failed(), 40 - answered, "{arm}");
        });
    }
}

/// A backend that answers the first request of a connection. The second it takes and closes, as one does that restarts
/// just then; but once it is asked again on a new connection.
async fn closing() -> WireBackend {
    let closed = Arc::new(AtomicBool::new(false));
    WireBackend::start(move |mut wire| {
        let closed = Arc::clone(&closed);
        async move {
            for number in 0.. {
                if wire.request().await.is_none() || (number == 1 && !closed.swap(true, Ordering::Relaxed)) {
                    return;
                }
                wire.send(ok("hi")).await;
            }
        }
    })
    .await
}

/// A GET that leaves an idle connection in the pool, then a request that meets its end: the status, and how often the
/// second request came.
#[track_caller]
fn check_stale(request: &str, status: u16, times: usize, class: OutcomeClass) {
    for arm in Arm::ALL {
        run(async {
            let backend = closing().await;
            let other = WireBackend::saying(ok("bystander"), Then::Keep).await;
            let edge = TestEdge::start(settings(), vec![drawn(arm, &[backend.address()], &[other.address()])]);
            let mut client = Wire::connect(edge.address).await;
            assert_eq!(client.ask(GET).await.expect("an answer").status(), 200, "{arm}");
            assert_eq!(client.ask(request).await.expect("an answer").status(), status, "{arm}");
            assert_eq!(backend.heads().len() - 1, times, "{arm}: {request:?}");
            assert_eq!(other.heads().len(), 0, "{arm}");
            let counts = edge.settled(2).await;
            let record = counts.arm(arm);
            let of = |class: OutcomeClass| record.evidence.classes[class.index()];
            let expected = 1 + u64::from(class == OutcomeClass::S2xx);
            assert_eq!((of(OutcomeClass::S2xx), of(class)), (expected, expected.max(1)), "{arm}");
        });
    }
}

#[test]
fn a_request_that_may_be_repeated_is_when_its_kept_connection_turns_out_dead() {
    check_stale(GET, 200, 2, OutcomeClass::S2xx);
    check_stale("HEAD / HTTP/1.1\r\nhost: podinfo\r\n\r\n", 200, 2, OutcomeClass::S2xx);
    check_stale("PUT / HTTP/1.1\r\nhost: podinfo\r\ncontent-length: 2\r\n\r\nhi", 200, 2, OutcomeClass::S2xx);
}

#[test]
fn a_request_that_may_not_be_repeated_is_sent_once() {
    check_stale(POST, 502, 1, OutcomeClass::Reset);
    check_stale("PATCH / HTTP/1.1\r\nhost: podinfo\r\ncontent-length: 2\r\n\r\nhi", 502, 1, OutcomeClass::Reset);
}

#[test]
fn an_endpoint_that_stops_while_its_connections_are_kept_costs_nothing() {
    for (arm, request) in Arm::ALL.into_iter().flat_map(|arm| [(arm, GET), (arm, POST)]) {
        let counts = run(async {
            let stays = Backend::start("stays", Behaviour::Ok).await.expect("a port is free");
            let stops = Backend::start("stops", Behaviour::Ok).await.expect("a port is free");
            let other = WireBackend::saying(ok("bystander"), Then::Keep).await;
            let endpoints = [stays.address(), stops.address()];
            let edge = TestEdge::start(settings(), vec![drawn(arm, &endpoints, &[other.address()])]);
            let mut client = Wire::connect(edge.address).await;
            for _ in 0..20 {
                assert_eq!(client.ask(GET).await.expect("an answer").status(), 200, "{arm}");
            }
            assert_eq!((stays.connections(), stops.connections()), (1, 1), "{arm}: both have been met");
            stops.stop().await;
            for _ in 0..20 {
                assert_eq!(client.ask(request).await.expect("an answer").text(), "stays\n", "{arm}");
            }
            edge.settled(40).await
        });
        assert_counts(&counts, arm, OutcomeClass::S2xx, 40);
    }
}

#[test]
fn a_request_on_a_new_connection_is_never_repeated() {
    for arm in Arm::ALL {
        let counts = run(async {
            let backend = WireBackend::saying("", Then::Close).await;
            let other = WireBackend::saying(ok("bystander"), Then::Keep).await;
            let edge = TestEdge::start(settings(), vec![drawn(arm, &[backend.address()], &[other.address()])]);
            let answer = Wire::connect(edge.address).await.ask(GET).await.expect("an answer");
            assert_eq!((answer.status(), backend.heads().len()), (502, 1), "{arm}");
            edge.settled(1).await
        });
        assert_counts(&counts, arm, OutcomeClass::Reset, 1);
    }
}

#[test]
fn a_backend_that_says_it_closes_is_connected_anew() {
    for arm in Arm::ALL {
        let counts = run(async {
            let closes = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi";
            let backend = WireBackend::saying(closes, Then::Close).await;
            let other = WireBackend::saying(ok("bystander"), Then::Keep).await;
            let edge = TestEdge::start(settings(), vec![drawn(arm, &[backend.address()], &[other.address()])]);
            let mut client = Wire::connect(edge.address).await;
            for _ in 0..10 {
                let answer = client.ask(POST).await.expect("the client's own connection lives on");
                assert_eq!((answer.status(), answer.field("connection")), (200, Some("keep-alive")), "{arm}");
            }
            edge.settled(10).await
        });
        assert_counts(&counts, arm, OutcomeClass::S2xx, 10);
    }
}
