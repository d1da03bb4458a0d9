//! Every way in which a request can end: what the client gets, and that it is counted once, for the right arm.

use std::time::Duration;

use serin_measure::{Arm, OutcomeClass};
use serin_proxy::Settings;
use serin_tests::process::free_port;
use tokio::net::{TcpSocket, TcpStream};

use crate::edge::{GET, TestEdge, assert_counts, drawn, run, settings};
use crate::wire::{Then, Wire, WireBackend, ok, within};

const HEAD: &str = "HEAD / HTTP/1.1\r\nhost: podinfo\r\n\r\n";

/// What a client got.
#[derive(Debug, PartialEq)]
enum Got {
    Whole(u16, String),
    Cut(u16, String),
    Nothing,
}

fn whole(status: u16, body: &str) -> Got {
    Got::Whole(status, body.to_owned())
}

fn cut(status: u16, body: &str) -> Got {
    Got::Cut(status, body.to_owned())
}

async fn got(client: &mut Wire, request: &str) -> Got {
    match client.ask(request).await {
        Some(answer) if answer.whole => Got::Whole(answer.status(), answer.text()),
        Some(answer) => Got::Cut(answer.status(), answer.text()),
        None => Got::Nothing,
    }
}

/// Settings under which a silent backend is given up soon.
fn impatient() -> Settings {
    let soon = Duration::from_millis(150);
    Settings { upstream_read_timeout: soon, connect_timeout: soon, ..settings() }
}

/// Sends the request twice, each on a connection of its own, to each arm in turn, where a backend answers with these
/// bytes; the other arm has a backend that must not hear of it.
#[track_caller]
fn check_with(settings: &Settings, request: &str, says: &str, then: Then, client: &Got, class: OutcomeClass) {
    const REQUESTS: u64 = 2;
    for arm in Arm::ALL {
        let counts = run(async {
            let backend = WireBackend::saying(says, then).await;
            let bystander = WireBackend::saying(ok("bystander"), Then::Keep).await;
            let routes = vec![drawn(arm, &[backend.address()], &[bystander.address()])];
            let edge = TestEdge::start(settings.clone(), routes);
            for _ in 0..REQUESTS {
                assert_eq!(&got(&mut Wire::connect(edge.address).await, request).await, client, "{arm}: {says:?}");
            }
            assert_eq!((backend.heads().len(), bystander.heads().len()), (2, 0), "{arm}: {says:?} {then:?}");
            edge.settled(REQUESTS).await
        });
        assert_counts(&counts, arm, class, REQUESTS);
    }
}

#[track_caller]
fn check(says: &str, then: Then, client: &Got, class: OutcomeClass) {
    check_with(&settings(), GET, says, then, client, class);
}

#[test]
fn an_answer_is_passed_on_and_counted_by_its_status() {
    use OutcomeClass::{S2xx, S3xx, S4xx, S5xx};
    let answer = |status: u16| format!("HTTP/1.1 {status} Sentence\r\ncontent-length: 2\r\n\r\nhi");
    check(&answer(200), Then::Keep, &whole(200, "hi"), S2xx);
    check(&answer(200), Then::Close, &whole(200, "hi"), S2xx);
    check(&answer(301), Then::Keep, &whole(301, "hi"), S3xx);
    check(&answer(404), Then::Keep, &whole(404, "hi"), S4xx);
    check(&answer(500), Then::Keep, &whole(500, "hi"), S5xx);
    check(&answer(503), Then::Close, &whole(503, "hi"), S5xx);
    check("HTTP/1.1 204 No Content\r\n\r\n", Then::Keep, &whole(204, ""), S2xx);
    check("HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", Then::Keep, &whole(304, ""), S3xx);
    check_with(&settings(), HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", Then::Keep, &whole(200, ""), S2xx);
}

#[test]
fn a_body_is_passed_on_however_it_is_framed() {
    use OutcomeClass::S2xx;
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n6\r\n there\r\n0\r\n\r\n";
    check(chunked, Then::Keep, &whole(200, "hi there"), S2xx);
    check("HTTP/1.1 200 OK\r\n\r\nhi there", Then::Close, &whole(200, "hi there"), S2xx);
    check("HTTP/1.0 200 OK\r\n\r\nhi there", Then::Close, &whole(200, "hi there"), S2xx);
}

#[test]
fn a_head_before_the_final_one_is_not_the_outcome() {
    use OutcomeClass::{Reset, S2xx, S5xx};
    let hint = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n";
    check(&format!("{hint}{}", ok("hi")), Then::Keep, &whole(200, "hi"), S2xx);
    check(&format!("{hint}{hint}HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"), Then::Keep, &whole(500, ""), S5xx);
    check(hint, Then::Close, &whole(502, ""), Reset);
    check(&format!("HTTP/1.1 100 Continue\r\n\r\n{}", ok("hi")), Then::Keep, &whole(200, "hi"), S2xx);
}

#[test]
fn a_backend_that_breaks_off_before_its_head_gives_502_and_counts_as_reset() {
    use OutcomeClass::Reset;
    check("", Then::Close, &whole(502, ""), Reset);
    check("", Then::Reset, &whole(502, ""), Reset);
    check("HTTP/1.1 200 OK\r\ncontent-le", Then::Close, &whole(502, ""), Reset);
    check("this is no HTTP\r\n\r\n", Then::Close, &whole(502, ""), Reset);
}

#[test]
fn a_body_that_is_cut_is_cut_for_the_client_and_counts_as_truncated() {
    use OutcomeClass::{S5xx, Truncated};
    let head = "HTTP/1.1 200 OK\r\n";
    let counted = format!("{head}content-length: 9\r\n\r\nonly");
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n4\r\nonly\r\n");
    check(&counted, Then::Close, &cut(200, "only"), Truncated);
    check(&chunked, Then::Close, &cut(200, "only"), Truncated);
    // A server error was seen, whatever became of its body.
    let failed = "HTTP/1.1 500 No\r\ncontent-length: 9\r\n\r\nonly";
    check(failed, Then::Close, &cut(500, "only"), S5xx);
}

#[test]
fn a_backend_that_is_silent_too_long_is_a_timeout() {
    use OutcomeClass::Timeout;
    let check = |says, client| check_with(&impatient(), GET, says, Then::Silence, &client, Timeout);
    check("", whole(504, ""));
    check("HTTP/1.1 103 Early Hints\r\n\r\n", whole(504, ""));
    check("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nonly", cut(200, "only"));
}

/// Sends one request to each arm in turn, which has nothing but this address.
#[track_caller]
fn check_unreachable(address: std::net::SocketAddr, client: &Got, class: OutcomeClass) {
    for arm in Arm::ALL {
        let counts = run(async {
            let bystander = WireBackend::saying(ok("bystander"), Then::Keep).await;
            let edge = TestEdge::start(impatient(), vec![drawn(arm, &[address], &[bystander.address()])]);
            assert_eq!(&got(&mut Wire::connect(edge.address).await, GET).await, client, "{arm}");
            assert_eq!(bystander.heads().len(), 0, "a failure of the {arm} is not taken to the other arm");
            edge.settled(1).await
        });
        assert_counts(&counts, arm, class, 1);
    }
}

#[test]
fn a_refused_connection_gives_502() {
    let nobody = ([127, 0, 0, 1], free_port()).into();
    check_unreachable(nobody, &whole(502, ""), OutcomeClass::ConnectFailed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_backend_that_does_not_take_a_connection_gives_504() {
    // With room for nobody beside the one connection that nobody accepts, the kernel drops every further SYN.
    let full = TcpSocket::new_v4().expect("a socket is free");
    full.bind(([127, 0, 0, 1], 0).into()).expect("a port is free");
    let full = full.listen(0).expect("it is bound");
    let address = full.local_addr().expect("it is bound");
    let _first = within("the only place", TcpStream::connect(address)).await.expect("there is one place");
    let checked = tokio::task::spawn_blocking(move || {
        check_unreachable(address, &whole(504, ""), OutcomeClass::Timeout);
    });
    checked.await.expect("the check holds");
}
