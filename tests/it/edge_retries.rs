//! What is tried again, for how long, and what is counted then.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serin_measure::{Arm, EpochCounts, OutcomeClass};
use serin_route::{Conditions, Retries, Route, Upstream};

use crate::edge::{TestEdge, assert_counts, drawn, run, settings};
use crate::wire::{Then, Wire, WireBackend, ok};

const GET: &str = "GET /a HTTP/1.1\r\nhost: a\r\n\r\n";
const POST: &str = "POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello";

/// An edge whose requests all meet these backends as the canary, in this order when they are tried again.
fn tried(backends: &[&WireBackend], upstream: Upstream) -> TestEdge {
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address()).collect();
    let route = drawn(Arm::Canary, &addresses, &addresses);
    TestEdge::start(settings(), vec![Route { upstream: Arc::new(upstream), ..route }])
}

fn retries(attempts: u32, on: &str) -> Upstream {
    let on = Conditions::parse(on).expect("conditions");
    Upstream { retries: Retries { attempts, on, try_timeout: None }, ..Upstream::default() }
}

/// A backend whose first answers are these, and `200` afterwards; nothing is a connection that is closed.
async fn flaky(first: &'static [&'static str]) -> WireBackend {
    let asked = Arc::new(AtomicUsize::new(0));
    WireBackend::start(move |mut wire: Wire| {
        let asked = Arc::clone(&asked);
        async move {
            while wire.request().await.is_some() {
                match first.get(asked.fetch_add(1, Ordering::Relaxed)) {
                    Some(&"") => return,
                    Some(answer) => wire.send(answer).await,
                    None => wire.send(ok("at last")).await,
                }
            }
        }
    })
    .await
}

const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy";

/// First tries that ended in `first`, answers of `served`, and further tries: of one request to the canary.
#[track_caller]
fn assert_tried(counts: &EpochCounts, first: OutcomeClass, served: OutcomeClass, retries: u64) {
    let canary = &counts.canary;
    assert_eq!(canary.evidence.classes[first.index()], 1, "{canary:?}");
    assert_eq!(canary.served[served.index()], 1, "{canary:?}");
    assert_eq!((canary.evidence.routed, canary.evidence.done, canary.retries), (1, 1, retries));
    assert_eq!(counts.cell().a, u64::from(first.is_failure()), "the first try is what the version is judged by");
}

#[test]
fn checklist_201_a_request_is_tried_again_as_its_route_says_and_judged_by_its_first_try() {
    run(async {
        for (first, on, class) in [
            (&[UNAVAILABLE][..], "503", OutcomeClass::S5xx),
            (&[UNAVAILABLE, UNAVAILABLE], "5xx", OutcomeClass::S5xx),
            (&[""], "reset", OutcomeClass::Reset),
            (&["HTTP/1.1 409 Conflict\r\ncontent-length: 0\r\n\r\n"], "retriable-4xx", OutcomeClass::S4xx),
        ] {
            let backend = flaky(first).await;
            let edge = tried(&[&backend], retries(2, on));
            let answer = Wire::connect(edge.address).await.ask(GET).await.expect("an answer");
            assert_eq!((answer.status(), answer.text()), (200, "at last".to_owned()), "{on}");
            assert_eq!(backend.heads().len(), first.len() + 1, "{on}");
            let counts = edge.settled(1).await;
            assert_tried(&counts, class, OutcomeClass::S2xx, first.len() as u64);
        }
    });
}

#[test]
fn the_last_try_is_what_the_client_gets_and_what_is_not_covered_is_not_tried_again() {
    run(async {
        for (attempts, on, tries) in [(1, "503", 2), (0, "503", 1), (3, "502,reset", 1)] {
            let backend = flaky(&[UNAVAILABLE; 4]).await;
            let edge = tried(&[&backend], retries(attempts, on));
            let answer = Wire::connect(edge.address).await.ask(GET).await.expect("an answer");
            assert_eq!((answer.status(), answer.text()), (503, "busy".to_owned()), "{attempts} {on}");
            assert_eq!(backend.heads().len(), tries, "{attempts} {on}");
            assert_tried(&edge.settled(1).await, OutcomeClass::S5xx, OutcomeClass::S5xx, tries as u64 - 1);
        }
    });
}

#[test]
fn what_may_not_be_repeated_is_tried_again_only_where_nobody_was_reached() {
    run(async {
        let backend = flaky(&[UNAVAILABLE]).await;
        let edge = tried(&[&backend], retries(2, "5xx,connect-failure"));
        let answer = Wire::connect(edge.address).await.ask(POST).await.expect("an answer");
        assert_eq!((answer.status(), backend.heads().len()), (503, 1));

        let nobody = WireBackend::saying(ok("hi"), Then::Keep).await;
        let address = nobody.address();
        drop(nobody);
        let route = drawn(Arm::Canary, &[address], &[address]);
        let upstream = Arc::new(retries(2, "connect-failure"));
        let edge = TestEdge::start(settings(), vec![Route { upstream, ..route }]);
        let answer = Wire::connect(edge.address).await.ask(POST).await.expect("an answer");
        assert_eq!(answer.status(), 502);
        assert_tried(&edge.settled(1).await, OutcomeClass::ConnectFailed, OutcomeClass::ConnectFailed, 2);
    });
}

#[test]
fn a_body_that_came_with_its_head_is_sent_again_whole() {
    run(async {
        let backend = flaky(&[UNAVAILABLE]).await;
        let edge = tried(&[&backend], retries(2, "503"));
        let put = POST.replace("POST", "PUT");
        assert_eq!(Wire::connect(edge.address).await.ask(&put).await.expect("an answer").status(), 200);
        assert_eq!(backend.heads().len(), 2);
        assert_tried(&edge.settled(1).await, OutcomeClass::S5xx, OutcomeClass::S2xx, 1);
    });
}

#[test]
fn tries_stay_within_a_budget() {
    run(async {
        const REQUESTS: usize = 100;
        let backend = WireBackend::saying(UNAVAILABLE.to_owned(), Then::Keep).await;
        let edge = tried(&[&backend], retries(3, "503"));
        let mut client = Wire::connect(edge.address).await;
        for _ in 0..REQUESTS {
            assert_eq!(client.ask(GET).await.expect("an answer").status(), 503);
        }
        // Ten to begin with, and one in five; the first request adds nothing, as that is the most there can be.
        let again = 10 + (REQUESTS - 1) / 5;
        assert_eq!(backend.heads().len(), REQUESTS + again);
        assert_eq!(edge.settled(REQUESTS as u64).await.canary.retries, again as u64);
    });
}

#[test]
fn a_try_that_takes_too_long_is_given_up_for_another() {
    run(async {
        let hangs = WireBackend::start(async |mut wire: Wire| {
            wire.head().await.expect("a request");
            wire.rest().await;
        });
        let (hangs, answers) = (hangs.await, WireBackend::saying(ok("hi"), Then::Keep).await);
        let mut upstream = retries(3, "5xx");
        upstream.retries.try_timeout = Some(Duration::from_millis(150));
        let edge = tried(&[&hangs, &answers], upstream);
        // Which of the two is first is drawn.
        let mut asked = 0;
        while hangs.heads().is_empty() {
            asked += 1;
            assert_eq!(Wire::connect(edge.address).await.ask(GET).await.expect("an answer").text(), "hi");
        }
        let canary = edge.settled(asked).await.canary;
        assert_eq!((canary.evidence.classes[OutcomeClass::Timeout.index()], canary.retries), (1, 1));
        assert_eq!(canary.served[OutcomeClass::S2xx.index()], asked);
    });
}

#[test]
fn checklist_201_a_request_that_takes_too_long_is_ended_and_is_the_backends_failure() {
    run(async {
        let slow = WireBackend::start(async |mut wire: Wire| {
            while wire.request().await.is_some() {
                std::future::pending::<()>().await;
            }
        });
        let upstream = Upstream { timeout: Some(Duration::from_millis(200)), ..Upstream::default() };
        let backend = slow.await;
        for request in [GET, POST] {
            let edge = tried(&[&backend], upstream.clone());
            assert_eq!(Wire::connect(edge.address).await.ask(request).await.expect("an answer").status(), 504);
            assert_counts(&edge.settled(1).await, Arm::Canary, OutcomeClass::Timeout, 1);
        }
    });
}

#[test]
fn an_answer_that_takes_too_long_to_come_is_cut_off() {
    run(async {
        let drips = WireBackend::start(async |mut wire: Wire| {
            wire.request().await.expect("a request");
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await;
            let mut ticks = tokio::time::interval(Duration::from_millis(20));
            while wire.sends("x").await {
                ticks.tick().await;
            }
        });
        let backend = drips.await;
        let upstream = Upstream { timeout: Some(Duration::from_millis(200)), ..Upstream::default() };
        let edge = tried(&[&backend], upstream);
        let answer = Wire::connect(edge.address).await.ask(GET).await.expect("a head");
        assert_eq!((answer.status(), answer.whole), (200, false));
        assert_counts(&edge.settled(1).await, Arm::Canary, OutcomeClass::Timeout, 1);
    });
}

#[test]
fn the_time_of_a_request_begins_when_all_of_it_has_come() {
    run(async {
        let backend = WireBackend::saying(ok("hi"), Then::Keep).await;
        let upstream = Upstream { timeout: Some(Duration::from_millis(100)), ..Upstream::default() };
        let edge = tried(&[&backend], upstream);
        let mut client = Wire::connect(edge.address).await;
        client.send("POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n").await;
        // Longer in all than the request may take.
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        for _ in 0..10 {
            ticks.tick().await;
            client.send(vec![b'x'; 10_000]).await;
        }
        assert_eq!(client.answer(false).await.expect("an answer").text(), "hi");
        assert_counts(&edge.settled(1).await, Arm::Canary, OutcomeClass::S2xx, 1);
    });
}
