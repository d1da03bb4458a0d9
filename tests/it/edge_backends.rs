//! Backends that speak HTTP/2 or TLS, whatever the client speaks.

use std::sync::Arc;

use http_body_util::Full;
use hyper::{Request, StatusCode, Version};
use serin_measure::{Arm, OutcomeClass};
use serin_proxy::Pem;
use serin_route::{Edits, Identity, Protocol, Route, Upstream, UpstreamTls};

use crate::certificates::{certificate, key, pair, server};
use crate::edge::{TestEdge, assert_counts, drawn, settings};
use crate::speaker::{Speaker, ask, echo, http2_to, run_here};
use crate::wire::{Then, Wire, WireBackend, ok};

/// An edge whose requests all meet this backend as the canary, and speak to it so.
fn tried(backend: &Speaker, upstream: Upstream) -> TestEdge {
    TestEdge::start(settings(), vec![spoken(backend, upstream)])
}

fn spoken(backend: &Speaker, upstream: Upstream) -> Route {
    let address = backend.address;
    Route { upstream: Arc::new(upstream), ..drawn(Arm::Canary, &[address], &[address]) }
}

const HTTP2: Upstream = Upstream::speaking(Protocol::Http2);

/// How to reach this backend, as who this is.
fn tls(trusted: &Pem, name: Option<&str>, own: Option<&Pem>) -> Upstream {
    let authorities = Arc::from([certificate(trusted).to_vec().into_boxed_slice()]);
    let identity = own.map(|own| {
        let chain = vec![certificate(own).to_vec().into_boxed_slice()];
        Arc::new(Identity { chain, key: key(own).secret_der().into() })
    });
    let tls = UpstreamTls { server_name: name.map(Into::into), authorities: Some(authorities), identity };
    Upstream { protocol: Protocol::Agreed, tls: Some(tls), ..Upstream::default() }
}

#[test]
fn a_backend_of_http_2_serves_clients_of_either_version() {
    run_here(async {
        let backend = Speaker::http2(echo).await;
        let edge = tried(&backend, HTTP2);
        let mut old = Wire::connect(edge.address).await;
        let large = "x".repeat(300_000);
        for body in ["", "hello", &large] {
            let head = format!("POST /a?b HTTP/1.1\r\nhost: shop.example\r\ncontent-length: {}\r\n\r\n", body.len());
            old.send(head).await;
            old.send(body).await;
            let answer = old.answer(false).await.expect("an answer");
            assert_eq!((answer.status(), answer.whole, answer.text() == body), (200, true, true));
        }
        let mut new = http2_to(edge.address).await;
        let request = Request::post("http://shop.example/a?b").body(Full::new(large.clone().into()));
        let (answer, body) = ask(&mut new, request.expect("a request")).await;
        assert_eq!((answer.status(), body.len()), (StatusCode::OK, large.len()));
        let asked = backend.asked();
        assert_eq!(asked.len(), 4);
        for asked in asked {
            assert_eq!((asked.head.version(), asked.connection), (Version::HTTP_2, 0), "one connection carries all");
            assert_eq!(asked.head.uri(), "http://shop.example/a?b");
        }
        assert_counts(&edge.settled(4).await, Arm::Canary, OutcomeClass::S2xx, 4);
    });
}

#[test]
fn a_backend_has_to_show_a_certificate_that_is_trusted_and_has_the_name() {
    run_here(async {
        let (shop, other) = (pair(&["shop.internal", "127.0.0.1"]), pair(&["shop.internal"]));
        let backend = Speaker::tls(server(&shop, &["h2", "http/1.1"], &[]), echo).await;
        for (upstream, version) in [
            (tls(&shop, Some("shop.internal"), None), Some(Version::HTTP_2)),
            // Its address is in its certificate too.
            (tls(&shop, None, None), Some(Version::HTTP_2)),
            (Upstream { protocol: Protocol::Http1, ..tls(&shop, None, None) }, Some(Version::HTTP_11)),
            (tls(&shop, Some("other.internal"), None), None),
            (tls(&other, Some("shop.internal"), None), None),
        ] {
            let edge = tried(&backend, upstream.clone());
            let answer = Wire::connect(edge.address).await.ask("GET /a HTTP/1.1\r\nhost: shop.example\r\n\r\n").await;
            let status = answer.expect("an answer").status();
            let class = if version.is_some() { OutcomeClass::S2xx } else { OutcomeClass::ConnectFailed };
            assert_counts(&edge.settled(1).await, Arm::Canary, class, 1);
            match version {
                Some(version) => {
                    let asked = backend.asked().pop().expect("it was asked");
                    assert_eq!((status, asked.head.version()), (200, version), "{upstream:?}");
                }
                None => assert_eq!(status, 502, "{upstream:?}"),
            }
        }
        assert_eq!(backend.asked().len(), 3);
    });
}

#[test]
fn a_backend_that_asks_for_a_certificate_is_shown_one() {
    run_here(async {
        let (shop, serin) = (pair(&["shop.internal"]), pair(&["serin"]));
        let backend = Speaker::tls(server(&shop, &["http/1.1"], &[&serin]), echo).await;
        for (own, status) in [(Some(&serin), 200), (None, 502), (Some(&shop), 502)] {
            let edge = tried(&backend, tls(&shop, Some("shop.internal"), own));
            let answer = Wire::connect(edge.address).await.ask("GET /a HTTP/1.1\r\nhost: a\r\n\r\n").await;
            assert_eq!(answer.expect("an answer").status(), status);
        }
    });
}

#[test]
fn a_connection_is_not_kept_for_who_would_make_it_in_another_way() {
    run_here(async {
        let (shop, other) = (pair(&["shop.internal"]), pair(&["other"]));
        let backend = Speaker::tls(server(&shop, &["h2"], &[]), echo).await;
        let edge = tried(&backend, tls(&shop, Some("shop.internal"), None));
        let mut client = Wire::connect(edge.address).await;
        let request = "GET /a HTTP/1.1\r\nhost: a\r\n\r\n";
        assert_eq!(client.ask(request).await.expect("an answer").status(), 200);
        edge.publish(vec![spoken(&backend, tls(&other, Some("shop.internal"), None))]);
        assert_eq!(client.ask(request).await.expect("an answer").status(), 502);
    });
}

#[test]
fn a_host_that_is_rewritten_is_what_a_backend_of_http_2_is_asked_for() {
    run_here(async {
        let backend = Speaker::http2(echo).await;
        let edits = Arc::new(Edits { authority: Some("inside.example".into()), ..Edits::default() });
        let edge = TestEdge::start(settings(), vec![Route { edits, ..spoken(&backend, HTTP2) }]);
        let request = "GET /a HTTP/1.1\r\nhost: shop.example\r\n\r\n";
        assert_eq!(Wire::connect(edge.address).await.ask(request).await.expect("an answer").status(), 200);
        let mut new = http2_to(edge.address).await;
        let request = Request::get("http://shop.example/a").body(Full::default()).expect("a request");
        assert_eq!(ask(&mut new, request).await.0.status(), StatusCode::OK);
        for asked in backend.asked() {
            assert_eq!(asked.head.uri(), "http://inside.example/a");
        }
    });
}

#[test]
fn a_backend_that_speaks_something_else_is_one_that_fails() {
    run_here(async {
        let plain = WireBackend::saying(ok("hi"), Then::Keep).await;
        let address = plain.address();
        let upstream = Arc::new(HTTP2);
        let edge = TestEdge::start(settings(), vec![Route { upstream, ..drawn(Arm::Canary, &[address], &[address]) }]);
        let answer = Wire::connect(edge.address).await.ask("GET /a HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(answer.expect("an answer").status(), 502);
        let counts = edge.settled(1).await;
        assert_eq!(counts.cell().a, 1, "the canary failed: {counts:?}");
    });
}
