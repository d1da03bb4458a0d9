//! How a conversation ends that does not end well: the client still reads why, and what is counted is counted at once.

use std::time::Duration;

use serin_measure::{Arm, OutcomeClass};
use serin_proxy::{Refusal, Settings};
use serin_route::Host;
use serin_tests::wait::until;

use crate::edge::{GET, TestEdge, assert_counts, is_direct, route, run, settings, tried};
use crate::wire::{PATIENCE, Then, Wire, WireBackend, ok};

/// What is announced; an eighth of it is sent.
const ENDLESS: usize = 32 << 20;

/// An edge that answers for `podinfo` alone.
fn one_host(backend: &WireBackend, settings: Settings) -> TestEdge {
    let hosts = vec![Host::parse("podinfo").expect("a host")];
    TestEdge::start(settings, vec![serin_route::Route { hosts, ..route(&[backend.address()], &[]) }])
}

#[test]
fn a_head_request_that_goes_nowhere_gets_a_head_alone() {
    run(async {
        let backend = WireBackend::saying(ok("hi"), Then::Keep).await;
        let edge = one_host(&backend, settings());
        let mut client = Wire::connect(edge.address).await;
        for _ in 0..2 {
            client.send("HEAD / HTTP/1.1\r\nhost: nobody\r\n\r\n").await;
            assert_eq!(client.answer(true).await.expect("an answer").status(), 404);
            if !is_direct() {
                // pingora-proxy closes after an error.
                return assert_eq!(client.rest().await.0, b"");
            }
        }
        // Had there been a body, this would begin with it.
        assert_eq!(client.ask(GET).await.expect("an answer").text(), "hi");
    });
}

#[test]
fn a_client_that_is_still_sending_reads_why_it_is_refused() {
    run(async {
        let backend = WireBackend::saying(ok("hi"), Then::Keep).await;
        let gone = WireBackend::saying("", Then::Keep).await.address();
        let edge = one_host(&backend, settings());
        let broken = TestEdge::start(settings(), vec![route(&[gone], &[])]);
        let head = |host: &str| format!("POST / HTTP/1.1\r\nhost: {host}\r\ncontent-length: {ENDLESS}\r\n\r\n");
        let bad = "POST / HTTP/1.1\r\nhost: podinfo\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n".to_owned();
        for (address, head, status) in
            [(edge.address, head("nobody"), 404), (broken.address, head("podinfo"), 502), (edge.address, bad, 400)]
        {
            let mut client = Wire::connect(address).await;
            client.send(head).await;
            // Linux lets a client read what came before a reset; others do not, so there must be none.
            let is_taken = client.sends(vec![b'x'; ENDLESS / 8]).await;
            assert!(is_taken || !is_direct(), "reset by who says {status}");
            assert_eq!(client.answer(false).await.expect("an answer").status(), status);
        }
    });
}

#[test]
fn an_upload_may_take_longer_than_a_backend_may_be_silent() {
    run(async {
        let patience = Duration::from_millis(200);
        let waits = WireBackend::start(async |mut wire: Wire| {
            while let Some(request) = wire.request().await {
                wire.send(ok(&request.body.len().to_string())).await;
            }
        });
        let backend = waits.await;
        let settings = Settings { upstream_read_timeout: patience, ..settings() };
        let edge = tried(settings, &backend);
        let mut client = Wire::connect(edge.address).await;
        client.send("POST / HTTP/1.1\r\nhost: podinfo\r\ncontent-length: 10\r\n\r\n").await;
        // The pace of this client is what is tried: there is no event to wait for.
        for _ in 0..10 {
            tokio::time::sleep(patience / 2).await;
            client.send("x").await;
        }
        assert_eq!(client.answer(false).await.expect("an answer").text(), "10");
        assert_counts(&edge.settled(1).await, Arm::Canary, OutcomeClass::S2xx, 1);
    });
}

#[test]
fn a_backend_that_says_nothing_to_a_client_that_waits_for_a_word_is_the_one_who_failed() {
    if !is_direct() {
        return;
    }
    run(async {
        let silent = WireBackend::saying("", Then::Silence).await;
        let patience = Duration::from_millis(300);
        for client_patience in [patience / 3, patience, 100 * patience] {
            let settings =
                Settings { upstream_read_timeout: patience, downstream_read_timeout: client_patience, ..settings() };
            let edge = tried(settings, &silent);
            let mut client = Wire::connect(edge.address).await;
            client.send("POST / HTTP/1.1\r\nhost: podinfo\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n").await;
            assert_eq!(client.answer(false).await.expect("an answer").status(), 504);
            assert_counts(&edge.settled(1).await, Arm::Canary, OutcomeClass::Timeout, 1);
        }
    });
}

#[test]
fn a_backend_that_is_silent_after_an_upload_has_no_more_time_than_after_a_head() {
    if !is_direct() {
        return;
    }
    run(async {
        let silent = WireBackend::start(async |mut wire: Wire| {
            wire.request().await.expect("a request");
            wire.rest().await;
        });
        let backend = silent.await;
        let settings = Settings {
            upstream_read_timeout: Duration::from_millis(300),
            // Counted in, it would be longer than anybody waits here.
            downstream_read_timeout: 3 * PATIENCE,
            ..settings()
        };
        let edge = tried(settings, &backend);
        let mut client = Wire::connect(edge.address).await;
        client.send("POST / HTTP/1.1\r\nhost: podinfo\r\ncontent-length: 5\r\n\r\nhel").await;
        let heard = async || Ok((!backend.heads().is_empty()).then_some(()));
        until("the first part at the backend", PATIENCE, heard).await.expect("it was sent");
        client.send("lo").await;
        assert_eq!(client.answer(false).await.expect("an answer").status(), 504);
        assert_counts(&edge.settled(1).await, Arm::Canary, OutcomeClass::Timeout, 1);
    });
}

#[test]
fn a_client_that_stops_within_its_body_is_the_one_who_failed() {
    run(async {
        let waits = WireBackend::saying(ok("hi"), Then::Keep).await;
        let patience = Duration::from_millis(300);
        let settings = Settings { upstream_read_timeout: patience, downstream_read_timeout: patience, ..settings() };
        for sent in ["", "hel"] {
            let edge = tried(settings.clone(), &waits);
            let mut client = Wire::connect(edge.address).await;
            client.send(format!("POST / HTTP/1.1\r\nhost: podinfo\r\ncontent-length: 5\r\n\r\n{sent}")).await;
            assert_eq!(client.answer(false).await.map(|answer| answer.status()), Some(408), "{sent:?}");
            assert_counts(&edge.settled(1).await, Arm::Canary, OutcomeClass::ClientAbort, 1);
        }
    });
}

#[test]
fn a_client_that_was_told_to_go_on_and_does_not_is_the_one_who_failed() {
    if !is_direct() {
        return;
    }
    run(async {
        let backend = WireBackend::start(async |mut wire: Wire| {
            let head = wire.head().await.expect("a request");
            wire.send("HTTP/1.1 100 Continue\r\n\r\n").await;
            wire.body(&head).await;
        });
        let backend = backend.await;
        let patience = Duration::from_millis(300);
        let settings = Settings { upstream_read_timeout: patience, downstream_read_timeout: patience, ..settings() };
        let edge = tried(settings, &backend);
        let mut client = Wire::connect(edge.address).await;
        client.send("POST / HTTP/1.1\r\nhost: podinfo\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n").await;
        assert!(client.head().await.expect("a word").starts_with("HTTP/1.1 100 "));
        assert_eq!(client.answer(false).await.expect("an answer").status(), 408);
        assert_counts(&edge.settled(1).await, Arm::Canary, OutcomeClass::ClientAbort, 1);
    });
}

#[test]
fn a_client_that_uploads_and_does_not_read_is_the_one_who_failed() {
    if !is_direct() {
        return;
    }
    run(async {
        let echo = WireBackend::start(async |mut wire: Wire| {
            wire.head().await.expect("a request");
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await;
            // It goes on as long as it is read.
            for _ in 0..15_000 {
                wire.send(vec![b'x'; 1 << 16]).await;
            }
        });
        let backend = echo.await;
        let patience = Duration::from_millis(300);
        let settings = Settings { downstream_write_timeout: patience, ..settings() };
        let edge = tried(settings, &backend);
        let mut client = Wire::connect(edge.address).await;
        client.send("POST / HTTP/1.1\r\nhost: podinfo\r\ncontent-length: 1000000\r\n\r\n").await;
        // It drips, and reads nothing: that pace is what is tried, and there is no event to wait for.
        for _ in 0..12 {
            client.send("x").await;
            tokio::time::sleep(patience / 4).await;
        }
        assert_counts(&edge.settled(1).await, Arm::Canary, OutcomeClass::ClientAbort, 1);
    });
}

#[test]
fn an_early_answer_is_counted_whatever_the_client_still_sends() {
    if !is_direct() {
        return;
    }
    run(async {
        let early = WireBackend::start(async |mut wire: Wire| {
            wire.head().await.expect("a request");
            wire.send("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n").await;
            wire.rest().await;
        });
        let backend = early.await;
        let edge = tried(settings(), &backend);
        let mut client = Wire::connect(edge.address).await;
        client.send("POST / HTTP/1.1\r\nhost: podinfo\r\ncontent-length: 9\r\n\r\nonly").await;
        assert_eq!(client.answer(false).await.expect("an answer").status(), 500);
        // It neither sends the rest nor leaves.
        assert_counts(&edge.settled(1).await, Arm::Canary, OutcomeClass::S5xx, 1);
        drop(client);
    });
}

#[test]
fn an_empty_line_after_a_request_is_no_request() {
    run(async {
        let backend = WireBackend::saying(ok("hi"), Then::Keep).await;
        let edge = TestEdge::start(settings(), vec![route(&[backend.address()], &[])]);
        let mut client = Wire::connect(edge.address).await;
        for line in ["\r\n", "\r\n\r\n", "\r"] {
            assert_eq!(client.ask(GET).await.expect("an answer").text(), "hi");
            client.send(line).await;
        }
        drop(client);
        let closed = async || Ok((edge.handle.counts().connections_open == 0).then_some(()));
        until("the end of the connection", PATIENCE, closed).await.expect("the client has closed it");
        assert_eq!(edge.refused(Refusal::HeadCut), 0);
    });
}

#[test]
fn empty_lines_do_not_keep_a_connection() {
    if !is_direct() {
        return;
    }
    run(async {
        let backend = WireBackend::saying(ok("hi"), Then::Keep).await;
        let patience = Duration::from_millis(200);
        let settings = Settings { keep_alive_timeout: patience, ..settings() };
        let edge = TestEdge::start(settings, vec![route(&[backend.address()], &[])]);
        let mut client = Wire::connect(edge.address).await;
        // For three times as long as a connection may be idle: the pace is what is tried, and there is no event to wait for.
        for _ in 0..6 {
            client.send("\r\n").await;
            tokio::time::sleep(patience / 2).await;
        }
        assert_eq!(edge.handle.counts().connections_open, 0);
    });
}

#[test]
fn chunks_that_are_none_are_no_answer_if_nothing_was_sent() {
    if !is_direct() {
        return;
    }
    run(async {
        let broken = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
        let backend = WireBackend::saying(broken, Then::Keep).await;
        let edge = tried(settings(), &backend);
        let answer = Wire::connect(edge.address).await.ask(GET).await;
        assert_eq!(answer.expect("an answer").status(), 502);
        assert_counts(&edge.settled(1).await, Arm::Canary, OutcomeClass::Truncated, 1);
    });
}

#[test]
fn what_is_no_status_is_no_answer() {
    if !is_direct() {
        return;
    }
    run(async {
        for status in ["099", "000", "011"] {
            let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 5\r\n\r\nhello");
            let backend = WireBackend::saying(answer, Then::Keep).await;
            let edge = tried(settings(), &backend);
            let answer = Wire::connect(edge.address).await.ask(GET).await;
            assert_eq!(answer.expect("an answer").status(), 502, "{status}");
            assert_counts(&edge.settled(1).await, Arm::Canary, OutcomeClass::Reset, 1);
        }
    });
}

#[test]
fn a_head_that_comes_byte_by_byte_is_read() {
    run(async {
        let backend = WireBackend::saying(ok("hi"), Then::Keep).await;
        let edge = TestEdge::start(settings(), vec![route(&[backend.address()], &[])]);
        let mut client = Wire::connect(edge.address).await;
        let request = format!("GET / HTTP/1.1\r\nhost: podinfo\r\nx: {}\r\n\r\n", "y".repeat(300));
        for byte in request.as_bytes() {
            client.send([*byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(client.answer(false).await.expect("an answer").text(), "hi");
    });
}
