//! Clients that leave, wait, upload, or speak an older HTTP: each request still ends once, and for the right reason.

use std::sync::Arc;
use std::time::Duration;

use serin_measure::{Arm, EpochCounts, OutcomeClass};
use serin_tests::wait::until;
use tokio::sync::Notify;

use crate::edge::{GET, TestEdge, assert_counts, drawn, is_direct, run, settings};
use crate::wire::{PATIENCE, Then, Wire, WireBackend, ok, within};

/// Large enough for many buffers, small enough for a debug build: 4 MiB and a bit, so that no boundary falls on its end.
const LARGE: usize = (4 << 20) + 7;

/// The head of an answer whose length nobody knows yet.
const STREAM: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

/// Runs `talk` once against each arm in turn, whose backend is `backend`, and returns what was counted.
#[track_caller]
fn check<B, T>(class: OutcomeClass, requests: u64, backend: impl Fn() -> B, talk: impl Fn(Wire, Arc<WireBackend>) -> T)
where
    B: Future<Output = WireBackend>,
    T: Future<Output = ()>,
{
    for arm in Arm::ALL {
        let counts: EpochCounts = run(async {
            let backend = Arc::new(backend().await);
            let bystander = WireBackend::saying(ok("bystander"), Then::Keep).await;
            let edge = TestEdge::start(settings(), vec![drawn(arm, &[backend.address()], &[bystander.address()])]);
            talk(Wire::connect(edge.address).await, backend.clone()).await;
            assert_eq!(bystander.heads().len(), 0, "{arm}");
            let counts = edge.settled(requests).await;
            let closed = async || Ok((edge.handle.counts().connections_open == 0).then_some(()));
            until("the end of the connection", PATIENCE, closed).await.expect("the client has closed it");
            counts
        });
        assert_counts(&counts, arm, class, requests);
    }
}

/// Waits until a backend has got so many heads.
async fn heard(backend: &WireBackend, heads: usize) {
    let heard = async || Ok((backend.heads().len() >= heads).then_some(()));
    until("a head at the backend", PATIENCE, heard).await.expect("the request is passed on");
}

#[test]
fn a_client_that_leaves_before_the_answer_says_nothing_about_the_version() {
    let silent = || WireBackend::saying("", Then::Silence);
    check(OutcomeClass::ClientAbort, 1, silent, async |mut client: Wire, backend: Arc<WireBackend>| {
        client.send(GET).await;
        heard(&backend, 1).await;
        drop(client);
    });
    check(OutcomeClass::ClientAbort, 1, silent, async |mut client: Wire, backend: Arc<WireBackend>| {
        client.send(GET).await;
        heard(&backend, 1).await;
        client.reset();
    });
}

#[test]
fn a_client_that_leaves_within_the_body_says_nothing_about_the_version() {
    let begun = || WireBackend::saying(format!("{STREAM}4\r\nonly\r\n"), Then::Silence);
    check(OutcomeClass::ClientAbort, 1, begun, async |mut client: Wire, _| {
        client.send(GET).await;
        client.head().await.expect("the head comes");
        client.reset();
    });
}

#[test]
fn a_client_that_leaves_within_a_large_answer_says_nothing_about_the_version() {
    let large = || WireBackend::saying(ok(&"x".repeat(4 * LARGE)), Then::Keep);
    check(OutcomeClass::ClientAbort, 1, large, async |mut client: Wire, _| {
        client.send(GET).await;
        client.head().await.expect("the head comes");
        client.reset();
    });
}

#[test]
fn a_client_that_leaves_within_its_own_body_says_nothing_about_the_version() {
    let waiting = || WireBackend::saying(ok("hi"), Then::Keep);
    check(OutcomeClass::ClientAbort, 1, waiting, async |mut client: Wire, backend: Arc<WireBackend>| {
        client.send("POST / HTTP/1.1\r\nhost: podinfo\r\ncontent-length: 9\r\n\r\nonly").await;
        heard(&backend, 1).await;
        drop(client);
    });
}

#[test]
fn a_body_whose_chunks_are_malformed_is_the_clients_fault() {
    let waiting = || WireBackend::saying(ok("hi"), Then::Keep);
    check(OutcomeClass::ClientAbort, 1, waiting, async |mut client: Wire, _| {
        let answer =
            client.ask("POST / HTTP/1.1\r\nhost: podinfo\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhi\r\n").await;
        assert!(answer.is_none_or(|answer| answer.status() == 400));
    });
}

#[test]
fn an_answer_that_comes_before_the_upload_is_over_is_passed_on() {
    let early = || {
        WireBackend::start(async |mut wire: Wire| {
            let head = wire.head().await.expect("a request");
            wire.send("HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n").await;
            wire.body(&head).await;
        })
    };
    check(OutcomeClass::S4xx, 1, early, async |mut client: Wire, _| {
        let answer = client.ask("POST / HTTP/1.1\r\nhost: podinfo\r\ncontent-length: 9\r\n\r\nonly").await;
        assert_eq!(answer.expect("an answer").status(), 413);
        client.send("-more").await;
        assert_eq!(client.head().await, None, "whoever answers before the end of a request closes after it");
    });
}

#[test]
fn what_a_backend_streams_arrives_before_it_says_more() {
    let go = Arc::new(Notify::new());
    let streaming = || {
        let go = Arc::clone(&go);
        WireBackend::start(move |mut wire| {
            let go = Arc::clone(&go);
            async move {
                wire.head().await;
                wire.send(STREAM).await;
                for _ in 0..3 {
                    go.notified().await;
                    wire.send("5\r\nevent\r\n").await;
                }
                wire.send("0\r\n\r\n").await;
            }
        })
    };
    check(OutcomeClass::S2xx, 1, streaming, async |mut client: Wire, _| {
        client.send(GET).await;
        client.head().await.expect("the head comes before the body");
        for _ in 0..3 {
            go.notify_one();
            assert_eq!(client.line().await.as_deref(), Some("5\r\n"));
            assert_eq!(client.line().await.as_deref(), Some("event\r\n"));
        }
        assert_eq!(client.line().await.as_deref(), Some("0\r\n"));
    });
}

#[test]
fn a_stream_that_is_reset_does_not_look_complete() {
    let go = Arc::new(Notify::new());
    // Without a length, only the way in which the connection ends tells a whole body from a cut one.
    for head in [STREAM, "HTTP/1.1 200 OK\r\n\r\n"] {
        let resets = || {
            let go = Arc::clone(&go);
            WireBackend::start(move |mut wire| {
                let go = Arc::clone(&go);
                async move {
                    wire.head().await;
                    wire.send(head).await;
                    wire.send("5\r\nevent\r\n").await;
                    go.notified().await;
                    wire.reset();
                }
            })
        };
        check(OutcomeClass::Truncated, 1, resets, async |mut client: Wire, _| {
            client.send(GET).await;
            client.head().await.expect("the head comes");
            assert!(client.line().await.is_some(), "the body begins");
            go.notify_one();
            let (rest, _) = client.rest().await;
            let rest = String::from_utf8_lossy(&rest);
            assert!(rest.contains("event") && !rest.ends_with("0\r\n\r\n"), "{rest:?}");
        });
    }
}

#[test]
fn a_websocket_carries_bytes_both_ways_until_one_side_leaves() {
    let upgrades = || {
        WireBackend::start(async |mut wire: Wire| {
            wire.head().await;
            wire.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
            while let Some(line) = wire.line().await {
                wire.send(line).await;
            }
        })
    };
    check(OutcomeClass::S1xx, 1, upgrades, async |mut client: Wire, _| {
        let key = "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let upgrade = "connection: upgrade\r\nupgrade: websocket\r\n";
        client.send(format!("GET / HTTP/1.1\r\nhost: podinfo\r\n{upgrade}{key}\r\n")).await;
        let head = client.head().await.expect("an answer");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        for line in ["ping\r\n", "GET / HTTP/1.1\r\n", "\r\n"] {
            client.send(line).await;
            assert_eq!(client.line().await.as_deref(), Some(line));
        }
    });
}

#[test]
fn a_client_of_http_1_0_gets_an_answer_it_can_read() {
    let chunked = || {
        // The hint is only for clients of HTTP/1.1 (RFC 9110 section 15.2).
        let hint = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n";
        WireBackend::saying(format!("{hint}{STREAM}2\r\nhi\r\n0\r\n\r\n"), Then::Keep)
    };
    let counted = || WireBackend::saying(ok("hi"), Then::Keep);
    let talk = async |mut client: Wire, backend: Arc<WireBackend>| {
        client.send("GET / HTTP/1.0\r\nhost: podinfo\r\n\r\n").await;
        let (answer, whole) = client.rest().await;
        let answer = String::from_utf8(answer).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(whole && head.contains(" 200 "), "{head}");
        assert_eq!((head.to_lowercase().contains("transfer-encoding"), body), (false, "hi"), "{head}");
        assert!(backend.heads()[0].starts_with("GET / HTTP/1."), "{:?}", backend.heads());
    };
    check(OutcomeClass::S2xx, 1, chunked, talk);
    check(OutcomeClass::S2xx, 1, counted, talk);
}

#[test]
fn a_client_that_expects_100_continue_gets_it_and_then_its_answer() {
    let echo = || {
        WireBackend::start(async |mut wire: Wire| {
            while let Some(head) = wire.head().await {
                wire.send("HTTP/1.1 100 Continue\r\n\r\n").await;
                let (body, _) = wire.body(&head).await;
                wire.send(ok(&String::from_utf8_lossy(&body))).await;
            }
        })
    };
    check(OutcomeClass::S2xx, 1, echo, async |mut client: Wire, _| {
        client.send("POST / HTTP/1.1\r\nhost: podinfo\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n").await;
        let go_on = client.head().await.expect("it may go on");
        assert!(go_on.starts_with("HTTP/1.1 100"), "{go_on}");
        client.send("hello").await;
        let answer = client.answer(false).await.expect("an answer");
        assert_eq!((answer.status(), answer.text()), (200, "hello".to_owned()));
    });
}

/// Bytes that repeat at no power of two, so that a lost or doubled buffer shows.
fn large_body() -> Vec<u8> {
    (0..LARGE).map(|place| u8::try_from(place % 251).expect("below 251")).collect()
}

#[test]
fn large_bodies_arrive_whole_both_ways() {
    let echo = || {
        WireBackend::start(async |mut wire: Wire| {
            while let Some(request) = wire.request().await {
                wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", request.body.len())).await;
                wire.send(&request.body).await;
            }
        })
    };
    check(OutcomeClass::S2xx, 2, echo, async |mut client: Wire, _| {
        let sent = large_body();
        client.send(format!("POST / HTTP/1.1\r\nhost: podinfo\r\ncontent-length: {LARGE}\r\n\r\n")).await;
        client.send(&sent).await;
        let answer = client.answer(false).await.expect("an answer");
        assert!(answer.whole && answer.body == sent, "{} of {LARGE} bytes", answer.body.len());
        client.send("POST / HTTP/1.1\r\nhost: podinfo\r\ntransfer-encoding: chunked\r\n\r\n").await;
        for chunk in sent.chunks(100_003) {
            client.send(format!("{:x}\r\n", chunk.len())).await;
            client.send(chunk).await;
            client.send("\r\n").await;
        }
        client.send("0\r\n\r\n").await;
        let answer = client.answer(false).await.expect("an answer");
        assert!(answer.whole && answer.body == sent, "{} of {LARGE} bytes", answer.body.len());
    });
}

#[test]
fn a_large_answer_arrives_byte_for_byte_however_slowly_it_is_read() {
    let chunked = || {
        let mut answer = STREAM.as_bytes().to_vec();
        for chunk in large_body().chunks(100_003) {
            answer.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            answer.extend_from_slice(chunk);
            answer.extend_from_slice(b"\r\n");
        }
        answer.extend_from_slice(b"0\r\n\r\n");
        answer
    };
    let whole = |head: &str| [head.as_bytes(), &large_body()].concat();
    for (answer, then) in [
        (whole(&format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n")), Then::Keep),
        (chunked(), Then::Keep),
        (whole("HTTP/1.1 200 OK\r\n\r\n"), Then::Close),
    ] {
        let backend = || WireBackend::saying(answer.clone(), then);
        check(OutcomeClass::S2xx, 4, backend, async |mut client: Wire, backend: Arc<WireBackend>| {
            let mut narrow = Wire::connect_narrow(client.peer()).await;
            for client in [&mut client, &mut narrow] {
                for _ in 0..2 {
                    let answer = client.ask(GET).await.expect("an answer");
                    assert!(answer.whole && answer.body == large_body(), "{} of {LARGE} bytes", answer.body.len());
                }
            }
            heard(&backend, 4).await;
        });
    }
}

#[test]
fn a_large_answer_that_ends_early_arrives_as_far_as_it_came() {
    let half = || {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n");
        WireBackend::saying([head.as_bytes(), &large_body()[..LARGE / 2]].concat(), Then::Close)
    };
    check(OutcomeClass::Truncated, 1, half, async |mut client: Wire, _| {
        let answer = client.ask(GET).await.expect("an answer");
        assert!(!answer.whole && answer.body == large_body()[..LARGE / 2], "{} bytes", answer.body.len());
    });
}

#[test]
fn requests_follow_each_other_on_one_connection() {
    let backend = || WireBackend::saying(ok("hi"), Then::Keep);
    check(OutcomeClass::S2xx, 20, backend, async |mut client: Wire, backend: Arc<WireBackend>| {
        for _ in 0..20 {
            assert_eq!(client.ask(GET).await.expect("an answer").text(), "hi");
        }
        assert!(backend.heads().iter().all(|head| head.starts_with("GET /a?b HTTP/1.1\r\n")), "{:?}", backend.heads());
    });
}

#[test]
fn a_second_request_sent_too_early_does_not_harm_the_first() {
    let go = Arc::new(Notify::new());
    let gated = || {
        let go = Arc::clone(&go);
        WireBackend::start(move |mut wire| {
            let go = Arc::clone(&go);
            async move {
                while wire.head().await.is_some() {
                    go.notified().await;
                    wire.send(ok("hi")).await;
                }
            }
        })
    };
    // pingora-proxy answers the first and closes, so the client sends the second again (RFC 9112 section 9.3.2).
    let answers = if is_direct() { 2 } else { 1 };
    // Sent together with the first.
    check(OutcomeClass::S2xx, answers, gated, async |mut client: Wire, _| {
        client.send(format!("{GET}{GET}")).await;
        for _ in 0..answers {
            go.notify_one();
            assert_eq!(client.answer(false).await.expect("an answer").text(), "hi");
        }
        if !is_direct() {
            assert_eq!(client.head().await, None);
        }
    });
    // Sent while the first is with the backend.
    check(OutcomeClass::S2xx, answers, gated, async |mut client: Wire, backend: Arc<WireBackend>| {
        client.send(GET).await;
        heard(&backend, 1).await;
        client.send(GET).await;
        // Until the proxy has read it, or never will: either way the first is then answered.
        let _ = tokio::time::timeout(Duration::from_millis(50), client.head()).await;
        for _ in 0..answers {
            go.notify_one();
            assert_eq!(within("an answer", client.answer(false)).await.expect("an answer").text(), "hi");
        }
        if !is_direct() {
            assert_eq!(client.head().await, None);
        }
    });
}

/// pingora-proxy reads trailers and drops them.
#[test]
fn trailers_are_passed_on_both_ways() {
    if !is_direct() {
        return;
    }
    let echo = || {
        WireBackend::start(async |mut wire: Wire| {
            while let Some(request) = wire.request().await {
                let trailers = std::mem::take(&mut wire.trailers).join("|");
                let body = format!("{};{trailers}", request.text());
                let length = body.len();
                wire.send(format!("{STREAM}{length:x};sum=1\r\n{body}\r\n0\r\nx-sum: 7\r\n\r\n")).await;
            }
        })
    };
    check(OutcomeClass::S2xx, 2, echo, async |mut client: Wire, _| {
        for _ in 0..2 {
            client.send("POST / HTTP/1.1\r\nhost: podinfo\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n").await;
            client.send("0\r\nx-hash: 9\r\nx-more: 8\r\n\r\n").await;
            let answer = client.answer(false).await.expect("an answer");
            assert_eq!(answer.text(), "hi;x-hash: 9|x-more: 8");
            assert_eq!(std::mem::take(&mut client.trailers), ["x-sum: 7"]);
        }
    });
}
