//! What never becomes a request: counted at the connection, answered where that makes sense, unknown to any version.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serin_proxy::{Refusal, Settings};
use serin_tests::wait::until;

use crate::edge::{GET, TestEdge, route, run, settings};
use crate::wire::{PATIENCE, Then, Wire, WireBackend, ok};

/// Awaits this count of a refusal, and that nothing else was refused.
async fn refused(edge: &TestEdge, why: Refusal, times: u64) {
    let counted = async || Ok((edge.refused(why) == times).then_some(()));
    let counts = || edge.handle.counts().refused;
    until(why.as_str(), PATIENCE, counted).await.unwrap_or_else(|error| panic!("{error}: {:?}", counts()));
    assert_eq!(counts().iter().sum::<u64>(), times, "{why:?} alone");
}

/// Sends these bytes on a connection of their own, and leaves or waits for the answer: its status, or none.
#[track_caller]
fn check_with(settings: Settings, bytes: &str, leaves: bool, status: Option<u16>, why: Refusal) {
    let shown = bytes[..bytes.len().min(60)].to_owned();
    run(async {
        let backend = WireBackend::saying(ok("hi"), Then::Keep).await;
        let edge = TestEdge::start(settings, vec![route(&[backend.address()], &[])]);
        let mut client = Wire::connect(edge.address).await;
        client.send(bytes).await;
        if !leaves {
            let answer = client.answer(false).await;
            assert_eq!(answer.map(|answer| answer.status()), status, "{shown:?}");
            assert_eq!(client.head().await, None, "{shown:?}: the connection is closed");
        }
        drop(client);
        refused(&edge, why, 1).await;
        edge.settled(0).await;
        assert_eq!(backend.heads().len(), 0, "{shown:?}");
    });
}

#[track_caller]
fn check(bytes: &str, status: u16, why: Refusal) {
    check_with(settings(), bytes, false, Some(status), why);
}

#[test]
fn what_is_not_http_1_gets_400() {
    for bytes in [
        "GET /\r\nhost: podinfo\r\n\r\n",
        "GET / HTTP/3.7\r\nhost: podinfo\r\n\r\n",
        "GET / HTTP/1.1\r\nhost : podinfo\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: pod\0info\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: podinfo\r\nfolded: a\r\n b\r\n\r\n",
        "GET /a b HTTP/1.1\r\nhost: podinfo\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}",
    ] {
        check(bytes, 400, Refusal::Malformed);
    }
}

#[test]
fn a_head_whose_meaning_is_disputed_gets_400() {
    for fields in [
        // Where the body ends (RFC 9112 section 6.3).
        "host: podinfo\r\ncontent-length: 2\r\ncontent-length: 3\r\n",
        "host: podinfo\r\ncontent-length: +2\r\n",
        "host: podinfo\r\ntransfer-encoding: chunked, gzip\r\n",
        // Which host is meant (RFC 9112 section 3.2).
        "host: podinfo\r\nhost: other\r\n",
        "host: user@podinfo\r\n",
    ] {
        check(&format!("POST / HTTP/1.1\r\n{fields}\r\nhi"), 400, Refusal::Malformed);
    }
    let old = "POST / HTTP/1.0\r\nhost: podinfo\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    check(old, 400, Refusal::Malformed);
    check("GET http://other/ HTTP/1.1\r\nhost: podinfo\r\n\r\n", 400, Refusal::Malformed);
}

#[test]
fn a_head_without_end_gets_431() {
    let endless = format!("GET / HTTP/1.1\r\nhost: podinfo\r\nx: {}", "x".repeat(64 * 1024));
    check(&endless, 431, Refusal::HeadTooLarge);
}

#[test]
fn a_head_with_too_many_fields_gets_400() {
    check(&format!("GET / HTTP/1.1\r\nhost: podinfo\r\n{}\r\n", "a: b\r\n".repeat(256)), 400, Refusal::Malformed);
}

#[test]
fn a_head_that_takes_too_long_gets_408() {
    let impatient = Settings { downstream_read_timeout: Duration::from_millis(150), ..settings() };
    check_with(impatient, "GET / HTTP/1.1\r\nhost: pod", false, Some(408), Refusal::HeadTimeout);
}

#[test]
fn a_tunnel_gets_405() {
    check("CONNECT podinfo:443 HTTP/1.1\r\nhost: podinfo:443\r\n\r\n", 405, Refusal::Connect);
}

#[test]
fn a_client_that_leaves_within_a_head_is_no_request() {
    check_with(settings(), "GET / HTTP/1.1\r\nhost: pod", true, None, Refusal::HeadCut);
}

#[test]
fn a_connection_that_stays_silent_is_closed_and_nothing_is_refused() {
    run(async {
        let patience = Duration::from_secs(2);
        let impatient = Settings { keep_alive_timeout: patience, ..settings() };
        let backend = WireBackend::saying(ok("hi"), Then::Keep).await;
        let edge = TestEdge::start(impatient, vec![route(&[backend.address()], &[])]);
        let begun = Instant::now();
        assert_eq!(Wire::connect(edge.address).await.head().await, None);
        assert!(begun.elapsed() < 2 * patience, "it has one such time, and not another one");
        assert_eq!(edge.handle.counts().refused.iter().sum::<u64>(), 0);
        assert_eq!(edge.handle.counts().connections_total, 1);
    });
}

#[test]
fn a_bad_head_after_a_good_request_costs_only_itself() {
    run(async {
        let backend = WireBackend::saying(ok("hi"), Then::Keep).await;
        let edge = TestEdge::start(settings(), vec![route(&[backend.address()], &[])]);
        let mut client = Wire::connect(edge.address).await;
        assert_eq!(client.ask(GET).await.expect("an answer").status(), 200);
        assert_eq!(client.ask("nonsense\r\n\r\n").await.expect("an answer").status(), 400);
        assert_eq!(client.head().await, None);
        refused(&edge, Refusal::Malformed, 1).await;
        edge.settled(1).await;
    });
}

/// A connection that has been served once, or that was closed before.
async fn try_connect(address: SocketAddr) -> Option<Wire> {
    let mut client = Wire::connect(address).await;
    client.ask(GET).await.map(|_| client)
}

#[test]
fn connections_beyond_the_limit_are_closed_and_those_within_it_served() {
    run(async {
        let backend = WireBackend::saying(ok("hi"), Then::Keep).await;
        let edge =
            TestEdge::start(Settings { connections_max: 2, ..settings() }, vec![route(&[backend.address()], &[])]);
        let (first, second) = (try_connect(edge.address).await, try_connect(edge.address).await);
        assert!(first.is_some() && second.is_some());
        assert!(try_connect(edge.address).await.is_none());
        refused(&edge, Refusal::TooManyConnections, 1).await;
        drop(first);
        let one_left = async || Ok((edge.handle.counts().connections_open == 1).then_some(()));
        until("a free place", PATIENCE, one_left).await.expect("a closed connection frees its place");
        assert!(try_connect(edge.address).await.is_some());
        edge.settled(3).await;
        assert_eq!(edge.handle.counts().connections_total, 4);
        drop(second);
    });
}
