//! What keeps a bad canary from its users: a second try at the primary, and a limit on what it gets at one time.

use std::sync::Arc;
use std::time::Duration;

use serin_measure::{Arm, OutcomeClass};
use serin_proxy::Forwarding;
use serin_route::{Conditions, Retries, Route, Upstream};
use tokio::sync::Semaphore;

use crate::edge::{TestEdge, drawn, percent, route, run, settings};
use crate::wire::{Then, Wire, WireBackend, ok};

const GET: &str = "GET /a HTTP/1.1\r\nhost: a\r\n\r\n";
const PUT: &str = "PUT /a HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello";
const POST: &str = "POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello";
const FAILED: &str = "HTTP/1.1 500 x\r\ncontent-length: 4\r\nset-cookie: a=b\r\n\r\noops";

/// An edge whose requests all go to this canary first, and to this primary when that fails.
fn guarded(primary: &WireBackend, canary: &WireBackend) -> TestEdge {
    let mut settings = settings();
    settings.forwarding = Forwarding { arm: Some("x-serin-arm".into()), ..Forwarding::none() };
    let replays = Route { replays: true, ..drawn(Arm::Canary, &[canary.address()], &[primary.address()]) };
    TestEdge::start(settings, vec![replays])
}

#[test]
fn a_request_that_the_canary_fails_is_answered_by_the_primary_and_stays_the_canarys_failure() {
    run(async {
        let primary = WireBackend::saying(ok("primary"), Then::Keep).await;
        for (answer, class) in
            [(FAILED, OutcomeClass::S5xx), ("", OutcomeClass::Reset), ("HTTP/1.1 2", OutcomeClass::Reset)]
        {
            let canary = WireBackend::saying(answer.to_owned(), Then::Close).await;
            let edge = guarded(&primary, &canary);
            for (asked, request) in [GET, PUT].into_iter().enumerate() {
                let answer = Wire::connect(edge.address).await.ask(request).await.expect("an answer");
                assert_eq!((answer.status(), answer.text().as_str()), (200, "primary"));
                let heads = primary.heads();
                let (tried, replayed) = (canary.heads()[asked].clone(), heads.last().expect("it was asked"));
                assert!(tried.to_lowercase().contains("x-serin-arm: canary\r\n"), "{tried}");
                assert_eq!(replayed.to_lowercase(), tried.to_lowercase().replace("arm: canary", "arm: primary"));
            }
            let counts = edge.settled(2).await;
            assert_eq!(counts.canary.evidence.classes[class.index()], 2, "{counts:?}");
            assert_eq!(counts.primary.served[OutcomeClass::S2xx.index()], 2, "this is what users got");
            assert_eq!((counts.primary.replays, counts.cell().a, counts.cell().n), (2, 2, 2));
            assert_eq!(counts.checks(Arm::Primary).requests, 0, "a second try is in nobody's record");
        }
    });
}

#[test]
fn what_may_not_be_repeated_or_has_begun_to_be_answered_stays_with_the_canary() {
    run(async {
        let primary = WireBackend::saying(ok("primary"), Then::Keep).await;
        let canary = WireBackend::saying(FAILED.to_owned(), Then::Keep).await;
        let edge = guarded(&primary, &canary);
        let answer = Wire::connect(edge.address).await.ask(POST).await.expect("an answer");
        assert_eq!((answer.status(), answer.text().as_str()), (500, "oops"));
        let cut = WireBackend::saying("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_owned(), Then::Close).await;
        let edge = guarded(&primary, &cut);
        assert!(!Wire::connect(edge.address).await.ask(GET).await.expect("a head").whole);
        // What nobody has got is no repetition.
        let gone = WireBackend::saying(ok(""), Then::Keep).await;
        let address = gone.address();
        drop(gone);
        let replays = Route { replays: true, ..drawn(Arm::Canary, &[address], &[primary.address()]) };
        let edge = TestEdge::start(settings(), vec![replays]);
        assert_eq!(Wire::connect(edge.address).await.ask(POST).await.expect("an answer").text(), "primary");
        assert_eq!(primary.heads().len(), 1);
    });
}

#[test]
fn a_failure_of_the_primary_is_not_tried_elsewhere() {
    run(async {
        let primary = WireBackend::saying(FAILED.to_owned(), Then::Keep).await;
        let canary = WireBackend::saying(ok("canary"), Then::Keep).await;
        let route = Route { replays: true, ..drawn(Arm::Primary, &[primary.address()], &[canary.address()]) };
        let edge = TestEdge::start(settings(), vec![route]);
        assert_eq!(Wire::connect(edge.address).await.ask(GET).await.expect("an answer").status(), 500);
        assert_eq!(canary.heads().len(), 0);
    });
}

#[test]
fn the_canary_is_tried_as_often_as_its_route_says_before_the_primary_is() {
    run(async {
        let primary = WireBackend::saying(ok("primary"), Then::Keep).await;
        let canary = WireBackend::saying(FAILED.to_owned(), Then::Keep).await;
        let on = Conditions::parse("5xx").expect("conditions");
        let upstream = Upstream { retries: Retries { attempts: 2, on, try_timeout: None }, ..Upstream::default() };
        let route = drawn(Arm::Canary, &[canary.address()], &[primary.address()]);
        let edge = TestEdge::start(settings(), vec![Route { replays: true, upstream: Arc::new(upstream), ..route }]);
        assert_eq!(Wire::connect(edge.address).await.ask(GET).await.expect("an answer").text(), "primary");
        assert_eq!((canary.heads().len(), primary.heads().len()), (3, 1));
        let counts = edge.settled(1).await;
        assert_eq!((counts.canary.retries, counts.primary.replays, counts.cell().a), (2, 1, 1));
    });
}

#[test]
fn the_canary_gets_so_many_requests_at_one_time_and_neither_arm_is_scored_beyond() {
    run(async {
        let let_go = Arc::new(Semaphore::new(0));
        let waits = Arc::clone(&let_go);
        let canary = WireBackend::start(move |mut wire: Wire| {
            let waits = Arc::clone(&waits);
            async move {
                while wire.request().await.is_some() {
                    let _held = waits.acquire().await.expect("it is not closed");
                    wire.send(ok("canary")).await;
                }
            }
        });
        let (canary, primary) = (canary.await, WireBackend::saying(ok("primary"), Then::Keep).await);
        let limited = Route {
            coin: percent(50.0),
            canary_requests_max: Some(2),
            ..route(&[primary.address()], &[canary.address()])
        };
        let edge = TestEdge::start(settings(), vec![limited]);
        // Until two are held by the canary.
        let (mut held, mut asked) = (Vec::new(), 0);
        while held.len() < 2 {
            let mut client = Wire::connect(edge.address).await;
            client.send(GET).await;
            asked += 1;
            let is_there = tokio::time::timeout(Duration::from_millis(300), client.answer(false));
            match is_there.await {
                Ok(answer) => assert_eq!(answer.expect("an answer").text(), "primary"),
                Err(_) => held.push(client),
            }
        }
        let tossed = asked;
        for _ in 0..20 {
            assert_eq!(Wire::connect(edge.address).await.ask(GET).await.expect("an answer").text(), "primary");
            asked += 1;
        }
        let counts = edge.counts();
        let scored = counts.cell().n;
        assert_eq!((scored, counts.primary.other.routed), (tossed, 20), "{counts:?}");
        let_go.add_permits(100);
        for mut client in held {
            assert_eq!(client.answer(false).await.expect("an answer").text(), "canary");
        }
        edge.settled(asked).await;
        // There is room again.
        while Wire::connect(edge.address).await.ask(GET).await.expect("an answer").text() != "canary" {}
    });
}
